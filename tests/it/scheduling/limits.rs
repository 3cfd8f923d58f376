//! The time limit of an attempt, and the earlier end of slow attempts while every place is in use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gatepost::relay::outbound::RecipientEvent;

use super::fairness::hanging;
use crate::support::counting_sink::{Sink, fill};
use crate::support::in_process::{configured, connector, queue, run, until, willing};
use crate::support::session::Client;

const BRIEF: &str = "[limits]\ndelivery_attempt_time = \"300ms\"\n[queue]\nretry = [\"1h\"]\n[timeouts]\ndrain = \"100ms\"";

/// Status and text of the last failure of a message's only recipient.
fn last_failure(folder: &std::path::Path, domain: &str) -> Option<(String, String)> {
    let queue = queue(folder);
    let of_domain = |envelope: &&serde_json::Value| {
        envelope["recipients"][0]["mailbox"]
            .as_str()
            .is_some_and(|mailbox| mailbox.ends_with(domain))
    };
    let envelope = queue.iter().map(|(_, envelope)| envelope).find(of_domain)?;
    let last = envelope["recipients"][0]["state"]["pending"]["history"]
        .as_array()?
        .last()?;
    Some((
        last["status"].as_str()?.to_owned(),
        last["text"].as_str()?.to_owned(),
    ))
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_deferred_with_the_reason() {
    let (hanging, home) = (hanging(), willing().await);
    let address = hanging
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("an address");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let config = configured(
        folder.path(),
        home.address,
        BRIEF,
        &[connector("hangs.example", address, "")],
    );
    let (relay, mut running) = run(config, Arc::new(())).await;
    Client::connect(relay)
        .await
        .sends_message("b@hangs.example")
        .await;
    let (status, text) = until("it is deferred", || {
        last_failure(folder.path(), "hangs.example")
    })
    .await;
    assert_eq!(status, "4.4.2");
    let expected = format!(
        "[127.0.0.1]:{}: the attempt was ended after 300ms ([limits] delivery_attempt_time)",
        address.port()
    );
    assert_eq!(text, expected);
    running.stop();
    running.ended().await.expect("an orderly end");
}

/// The peer may have the message: another attempt would make a duplicate.
#[tokio::test]
async fn no_attempt_ends_while_the_last_answer_is_awaited() {
    let (sink, home) = (Sink::start(0).await, willing().await);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let config = configured(
        folder.path(),
        home.address,
        BRIEF,
        &[connector("slow.example", sink.address, "")],
    );
    let (relay, mut running) = run(config, Arc::new(())).await;
    Client::connect(relay)
        .await
        .sends_message("b@slow.example")
        .await;
    until("it is on its way", || {
        sink.seen(|seen| (seen.per_session.len() == 1).then_some(()))
    })
    .await;
    // Well over the limit.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(last_failure(folder.path(), "slow.example"), None);
    sink.leave.add_permits(9);
    until("it is delivered", || {
        queue(folder.path()).is_empty().then_some(())
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");
    sink.seen(|seen| {
        assert_eq!(
            (seen.per_session.len(), seen.taken["b@slow.example"]),
            (1, 1)
        );
    });
}

/// The first two would take all of the time.
#[tokio::test]
async fn addresses_that_hang_leave_time_for_the_next() {
    let (hanging, sink, home) = (hanging(), Sink::start(9).await, willing().await);
    let address = hanging
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("an address");
    let hosts: [SocketAddr; 3] = [address, address, sink.address];
    let route = hosts.map(|host| format!("\"{host}\"")).join(", ");
    let connector = format!(
        "[[connector]]\nname = \"some\"\ndomains = [\"some.example\"]\n[connector.outbound]\nroute = [{route}]\ntls = \"off\"\n"
    );
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let before = "[limits]\ndelivery_attempt_time = \"3s\"\n[queue]\nretry = [\"1h\"]";
    let config = configured(folder.path(), home.address, before, &[connector]);
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let observer = move |_: &[RecipientEvent<'_>]| {
        counted.fetch_add(1, Ordering::SeqCst);
    };
    let (relay, mut running) = run(config, Arc::new(observer)).await;
    Client::connect(relay)
        .await
        .sends_message("b@some.example")
        .await;
    until("it is delivered", || {
        queue(folder.path()).is_empty().then_some(())
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");
    assert_eq!(
        (sink.taken(), attempts.load(Ordering::SeqCst)),
        (1, 1),
        "with the first attempt"
    );
}

/// Forty attempts are for smart hosts, and a hundred hang: the longest of them give way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_that_hang_end_where_all_are_in_use() {
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
    fill(
        &folder.path().join("spool"),
        domains.iter().map(|domain| format!("b@{domain}")),
        |_| (),
    )
    .await;
    let before = "[limits]\ndelivery_attempts = 100\n[queue]\nretry = [\"1h\"]\n[timeouts]\ndrain = \"100ms\"";
    let config = configured(folder.path(), home.address, before, &connectors);
    let (relay, mut running) = run(config, Arc::new(())).await;
    let mut client = Client::connect(relay).await;
    for number in 0..3 {
        client
            .sends_message(&format!("c{number}@quick.example"))
            .await;
        until("it has gone past those that hang", || {
            (sink.taken() > number).then_some(())
        })
        .await;
    }
    drop(client);
    let reasons = domains
        .iter()
        .filter_map(|domain| last_failure(folder.path(), domain));
    let gave_way = reasons
        .filter(|(status, text)| status == "4.4.2" && text.contains("in favour of others"))
        .count();
    assert!(gave_way > 0, "none of them was ended");
    running.stop();
    running.ended().await.expect("an orderly end");
}
