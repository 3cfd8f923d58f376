//! A spool with hardly any room for results: attempts start one at a time, and all go on when there is
//! room again.

use std::sync::Arc;

use super::orders::eventually;
use super::owed::Queue;
use crate::support::in_process::{configured, connector, willing};

/// No event tells the scheduler that there is room.
#[tokio::test]
async fn attempts_that_wait_for_room_start_when_there_is_some() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let silent = silent.expect("loopback");
    let home = willing().await;
    let address = silent.local_addr().expect("bound");
    let connectors = [connector("silent.example", address, "")];
    let config = Arc::new(configured(folder.path(), home.address, "", &connectors));
    let queue = Queue::start(folder.path(), &config, &config);
    queue.set_stuck(true);
    queue.takes("a@silent.example", None).await;
    // It waits for a greeting, for minutes.
    let _session = silent.accept().await.expect("it is tried");
    for to in ["b@other.example", "c@other.example", "d@other.example"] {
        queue.takes(to, None).await;
    }
    queue.is_settled().await;
    assert!(home.messages().is_empty(), "{:?}", home.messages());
    queue.set_stuck(false);
    eventually("the others are delivered", async || {
        home.messages().len() == 3
    })
    .await;
}
