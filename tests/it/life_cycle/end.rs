//! SIGTERM: nothing new is taken, what is under way may finish for a while, and the status is 0.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Wanted;
use crate::support::counting_sink::Sink;
use crate::support::in_process::{queue, until};
use crate::support::session::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_in_flight_finish_and_sessions_hear_421() {
    let sink = Sink::start(0).await;
    let (folder, mut relay) = Wanted::mail_to(sink.address).start();
    let (mut idle, mut client) = (
        Client::connect(relay.address).await,
        Client::connect(relay.address).await,
    );
    client.sends_message("b@a.example").await;
    until("it is under way", || {
        sink.seen(|seen| (seen.peak == 1).then_some(()))
    })
    .await;
    relay.signal("TERM");
    relay.hears("stopping: no new mail is accepted");
    idle.hears("421 4.3.2").await;
    client.hears("421 4.3.2").await;
    drop((idle, client));
    until("nobody listens", || {
        TcpStream::connect(relay.address).is_err().then_some(())
    })
    .await;
    assert!(!relay.has_ended(), "a delivery is under way");
    sink.leave.add_permits(1);
    let end = relay.ends_by_itself();
    assert!(
        end.status.is_some_and(|status| status.success()),
        "{}",
        end.log
    );
    assert!(
        end.log.contains("message delivered") && !end.log.contains("cut short"),
        "{}",
        end.log
    );
    assert_eq!(sink.taken(), 1);
    assert!(queue(folder.path()).is_empty());
}

/// Both at once take no longer than one: what hangs longer is cut short, and nothing of it is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hangs_is_cut_short_after_the_drain() {
    let sink = Sink::start(0).await;
    let (folder, mut relay) = Wanted {
        more: "[timeouts]\ndrain = \"3s\"",
        ..Wanted::mail_to(sink.address)
    }
    .start();
    let mut client = Client::connect(relay.address).await;
    let id = client.sends_message("b@a.example").await;
    until("it is under way", || {
        sink.seen(|seen| (seen.peak == 1).then_some(()))
    })
    .await;
    client.asks("MAIL FROM:<alice@sender.example>", "250").await;
    client.asks("RCPT TO:<c@a.example>", "250").await;
    client.asks("DATA", "354").await;
    let told = Instant::now();
    relay.signal("TERM");
    let end = relay.ends_by_itself();
    let took = told.elapsed();
    assert!(
        end.status.is_some_and(|status| status.success()),
        "{}",
        end.log
    );
    assert!(
        (Duration::from_millis(2900)..Duration::from_millis(5900)).contains(&took),
        "{took:?}"
    );
    for words in ["sessions were cut short", "deliveries were cut short"] {
        assert!(
            end.log.contains(words),
            "{words:?} is missing from\n{}",
            end.log
        );
    }
    let left = queue(folder.path());
    assert_eq!(
        left.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        [&id],
        "and nothing of the other one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let sink = Sink::start(0).await;
    let (folder, mut relay) = Wanted {
        more: "[timeouts]\ndrain = \"10m\"",
        ..Wanted::mail_to(sink.address)
    }
    .start();
    Client::connect(relay.address)
        .await
        .sends_message("b@a.example")
        .await;
    until("it is under way", || {
        sink.seen(|seen| (seen.peak == 1).then_some(()))
    })
    .await;
    relay.signal("TERM");
    relay.hears("waiting for running deliveries");
    relay.signal("INT");
    let end = relay.ends_by_itself();
    assert_eq!(
        end.status.and_then(|status| status.code()),
        Some(1),
        "{}",
        end.log
    );
    assert_eq!(queue(folder.path()).len(), 1);
}
