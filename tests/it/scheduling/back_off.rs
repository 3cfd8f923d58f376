//! A failing destination is tried as one, not message by message; and a job that panics is run
//! again.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatepost::discovery::history::{History, LevelChange, TlsLevel};
use gatepost::relay::outbound::RecipientEvent;
use gatepost::smtp::address::Host;
use tokio::net::TcpListener;

use crate::support::counting_sink::{Sink, fill};
use crate::support::in_process::{configured, connector, peer, queue, run, until, willing};
use crate::support::session::Client;

/// Counts what is dialled, closes it at once, and goes on.
async fn slamming() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("loopback");
    let address = listener.local_addr().expect("bound");
    let dials = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dials);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    (address, dials)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_messages_for_a_dead_port_are_a_few_dials() {
    let (home, sink) = (willing().await, Sink::start(1000).await);
    let (address, dials) = slamming().await;
    let connectors = [
        connector("dead.example", address, ""),
        connector("quick.example", sink.address, ""),
    ];
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    fill(
        &folder.path().join("spool"),
        (0..180).map(|number| format!("b{number}@dead.example")),
        |_| (),
    )
    .await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let observer = move |events: &[RecipientEvent<'_>]| {
        counted.fetch_add(
            usize::from(events[0].attempt.host.to_string() == "dead.example"),
            Ordering::SeqCst,
        );
    };
    let config = configured(
        folder.path(),
        home.address,
        "[queue]\nretry = [\"1h\"]",
        &connectors,
    );
    let (relay, mut running) = run(config, Arc::new(observer)).await;
    until("somebody has tried", || {
        (attempts.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    let mut client = Client::connect(relay).await;
    for number in 0..20 {
        client
            .sends_message(&format!("c{number}@dead.example"))
            .await;
    }
    // When this one has arrived, every message before it has been examined.
    client.sends_message("last@quick.example").await;
    drop(client);
    until("the last one has gone", || {
        (sink.taken() == 1).then_some(())
    })
    .await;
    until("it is out of the queue", || {
        (queue(folder.path()).len() == 200).then_some(())
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");
    let (dials, attempts) = (
        dials.load(Ordering::SeqCst),
        attempts.load(Ordering::SeqCst),
    );
    assert!((1..=5).contains(&attempts), "{attempts} attempts");
    assert_eq!(dials, attempts, "one dial each");
}

/// A server that takes sessions and ends each at MAIL is down as well, if not at the first time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_every_session_is_left_alone() {
    let (home, sink) = (willing().await, Sink::start(1000).await);
    let busy = peer(&["PIPELINING"], &[("MAIL", "421 4.3.2 too busy")]).await;
    let connectors = [
        connector("busy.example", busy.address, ""),
        connector("quick.example", sink.address, ""),
    ];
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    fill(
        &folder.path().join("spool"),
        (0..100).map(|number| format!("b{number}@busy.example")),
        |_| (),
    )
    .await;
    let config = configured(
        folder.path(),
        home.address,
        "[queue]\nretry = [\"1h\"]",
        &connectors,
    );
    let (relay, mut running) = run(config, Arc::new(())).await;
    until("it has ended some", || {
        (busy.heard().len() > 2).then_some(())
    })
    .await;
    Client::connect(relay)
        .await
        .sends_message("last@quick.example")
        .await;
    until("the last one has gone", || {
        (sink.taken() == 1).then_some(())
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");
    // Five at a time, and two more for the first two that were ended.
    assert!(busy.heard().len() <= 7, "{} sessions", busy.heard().len());
}

/// A domain's remembered TLS defers its own mail here, and not the mail of the smart host's other
/// domains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_that_lost_tls_does_not_close_the_smart_host_that_it_shares() {
    let (home, clear) = (willing().await, peer(&["PIPELINING"], &[]).await);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (spool, now) = (folder.path().join("spool"), jiff::Timestamp::now());
    std::fs::create_dir(&spool).expect("a folder");
    let [lost, host] = ["lost.example", "[127.0.0.1]"].map(|name| Host::parse(name).expect(name));
    let memory = History::open(&spool, now).expect("a memory");
    assert_eq!(
        memory.record(&lost, &host, TlsLevel::Tls, None, now),
        LevelChange::First
    );
    memory.close().await;
    let shared = connector(
        "lost.example",
        clear.address,
        "tls = \"opportunistic\"\ndowngrade = \"refuse\"",
    );
    let shared = shared.replace(
        "domains = [\"lost.example\"]",
        "domains = [\"lost.example\", \"fine.example\"]",
    );
    let config = configured(
        folder.path(),
        home.address,
        "[queue]\nretry = [\"1h\"]",
        &[shared],
    );
    let (relay, mut running) = run(config, Arc::new(())).await;
    let mut client = Client::connect(relay).await;
    client.sends_message("first@lost.example").await;
    let refused = |envelope: &serde_json::Value| {
        envelope["recipients"][0]["state"]["pending"]["attempts"] == 1
    };
    let tried = || {
        queue(folder.path())
            .iter()
            .filter(|(_, envelope)| refused(envelope))
            .count()
    };
    until("the first one has been refused", || {
        (tried() == 1).then_some(())
    })
    .await;
    for number in 0..20 {
        client
            .sends_message(&format!("b{number}@lost.example"))
            .await;
    }
    client.sends_message("b@fine.example").await;
    drop(client);
    until("the other domain's mail has gone", || {
        (clear.messages().len() == 1).then_some(())
    })
    .await;
    assert_eq!(tried(), 1, "the others wait with the first one");
    assert_eq!(
        clear
            .heard()
            .iter()
            .filter(|session| !session.has("MAIL"))
            .count(),
        1,
        "sessions for nothing"
    );
    running.stop();
    running.ended().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_dies_is_done_again() {
    let (home, sink) = (willing().await, Sink::start(1000).await);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let config = configured(
        folder.path(),
        home.address,
        "[queue]\nretry = [\"100ms\"]",
        &[connector("a.example", sink.address, "")],
    );
    let first = AtomicUsize::new(0);
    let observer = move |_: &[RecipientEvent<'_>]| {
        assert!(
            first.fetch_add(1, Ordering::SeqCst) > 0,
            "the first attempt dies before its result is written down"
        );
    };
    let (relay, mut running) = run(config, Arc::new(observer)).await;
    Client::connect(relay)
        .await
        .sends_message("b@a.example")
        .await;
    until("it is settled", || {
        queue(folder.path()).is_empty().then_some(())
    })
    .await;
    assert_eq!(sink.taken(), 2, "twice rather than never");
    running.stop();
    running.ended().await.expect("an orderly end");
}
