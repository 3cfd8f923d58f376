//! `connections` and `messages_per_connection` are what the partner was promised.

use std::sync::Arc;

use crate::support::counting_sink::{Sink, fill};
use crate::support::in_process::{configured, connector, run, until, willing};

async fn deliver(connections: usize, messages_per_connection: usize) {
    let (home, sink) = (willing().await, Sink::start(1000).await);
    let more =
        format!("connections = {connections}\nmessages_per_connection = {messages_per_connection}");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    fill(
        &folder.path().join("spool"),
        (0..150).map(|number| format!("b{number}@a.example")),
        |_| (),
    )
    .await;
    let config = configured(
        folder.path(),
        home.address,
        "",
        &[connector("a.example", sink.address, &more)],
    );
    let (_, mut running) = run(config, Arc::new(())).await;
    until("all have gone", || (sink.taken() == 150).then_some(())).await;
    running.stop();
    running.ended().await.expect("an orderly end");
    sink.seen(|seen| {
        assert_eq!(seen.peak, connections, "sessions at a time");
        assert!(
            seen.per_session
                .iter()
                .all(|messages| *messages <= messages_per_connection),
            "{:?}",
            seen.per_session
        );
        assert!(seen.per_session.len() >= 150 / messages_per_connection);
        assert!(
            seen.taken.len() == 150 && seen.taken.values().all(|times| *times == 1),
            "each once"
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_connections_with_many_messages() {
    deliver(3, 7).await;
}

/// The old session must be over for the peer before the new one begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_to_a_connection() {
    deliver(4, 1).await;
}
