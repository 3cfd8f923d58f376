//! A destination that hangs, or has a long queue, holds up no other.

use std::net::Ipv4Addr;
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use crate::support::counting_sink::{Sink, fill};
use crate::support::in_process::{configured, connector, queue, run, until, willing};
use crate::support::session::Client;

/// A listener that never accepts: the system answers for it, and then nobody does.
pub(crate) fn hanging() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .expect("loopback");
    socket.listen(4096).expect("bound");
    socket
}

/// 2,000 attempts could be made at once, more than are made in all: none is left for others, unless
/// those that hang are kept from taking them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_destinations_that_hang_hold_up_no_other() {
    let (hanging, home, sink) = (hanging(), willing().await, Sink::start(1000).await);
    let address = hanging
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("an address");
    let domains: Vec<String> = (0..100)
        .map(|number| format!("hangs{number}.example"))
        .collect();
    let mut connectors: Vec<String> = domains
        .iter()
        .map(|domain| connector(domain, address, ""))
        .collect();
    connectors.push(connector("quick.example", sink.address, ""));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let recipients = (0..20).flat_map(|number| {
        domains
            .iter()
            .map(move |domain| format!("b{number}@{domain}"))
    });
    fill(&folder.path().join("spool"), recipients, |_| ()).await;
    let before = "[timeouts]\ndrain = \"100ms\"";
    let config = configured(folder.path(), home.address, before, &connectors);
    let (relay, mut running) = run(config, Arc::new(())).await;
    let mut client = Client::connect(relay).await;
    for number in 0..10 {
        client
            .sends_message(&format!("c{number}@quick.example"))
            .await;
        until("it has gone past those that hang", || {
            (sink.taken() > number).then_some(())
        })
        .await;
    }
    drop(client);
    // The last one is forgotten a moment after it has arrived.
    until("the others alone still wait", || {
        (queue(folder.path()).len() == 2000).then_some(())
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_for_one_do_not_delay_one_for_another() {
    let (home, slow, quick) = (
        willing().await,
        Sink::start(0).await,
        Sink::start(1000).await,
    );
    let connectors = [
        connector("slow.example", slow.address, ""),
        connector("quick.example", quick.address, ""),
    ];
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let recipients = (0..5000).map(|number| format!("b{number}@slow.example"));
    fill(&folder.path().join("spool"), recipients, |_| ()).await;
    let config = configured(
        folder.path(),
        home.address,
        "[timeouts]\ndrain = \"100ms\"",
        &connectors,
    );
    let (relay, mut running) = run(config, Arc::new(())).await;
    let mut client = Client::connect(relay).await;
    client.sends_message("c@quick.example").await;
    until("it has gone past them all", || {
        (quick.taken() == 1).then_some(())
    })
    .await;
    assert_eq!(slow.taken(), 0, "none of them has gone");
    // And with the slow one on its way, each further one has its turn at once.
    slow.leave.add_permits(500);
    for number in 2..12 {
        client.sends_message("c@quick.example").await;
        until("it is in its turn", || {
            (quick.taken() == number).then_some(())
        })
        .await;
    }
    drop(client);
    until("some have gone", || (slow.taken() == 500).then_some(())).await;
    slow.seen(|seen| assert!(seen.taken.values().all(|times| *times == 1), "each once"));
    running.stop();
    running.ended().await.expect("an orderly end");
}
