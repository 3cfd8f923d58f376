//! A folder that is lost and put back while the scheduler works on it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gatepost::storage::spool::SqliteSpool;

use super::orders::{Brittle, eventually};
use super::owed::Queue;
use super::release::put;
use crate::support::in_process::{configured, willing};

/// Nothing else would look at the message again before the next start.
#[tokio::test]
async fn a_result_that_is_refused_is_stored_when_the_folder_is_back() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let home = willing().await;
    let config = Arc::new(configured(folder.path(), home.address, "", &[]));
    let queue = Queue::start(folder.path(), &config, &config);
    // The search for what waited at the start is over then, which needs the folder.
    queue.takes("first@one.example", None).await;
    eventually("the first is delivered", async || queue.is_done().await).await;
    queue.spool.moves_at_result.store(true, Ordering::SeqCst);
    queue.takes("a@one.example", None).await;
    queue.spool.put_back().await;
    eventually("the result is stored", async || queue.is_done().await).await;
    assert_eq!(home.messages().len(), 2, "it is not sent again");
    queue.ends().await;
}

#[tokio::test]
async fn the_claim_at_the_start_goes_on_when_the_folder_is_back() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let path = folder.path().join("spool");
    put(
        &SqliteSpool::open(&path).expect("a spool"),
        &["a@one.example"],
    )
    .await;
    let home = willing().await;
    let config = Arc::new(configured(folder.path(), home.address, "", &[]));
    let spool = Arc::new(Brittle::open(folder.path()));
    spool.moves_at_claim.store(true, Ordering::SeqCst);
    let queue = Queue::on(spool, folder.path(), &config, &config);
    queue.spool.put_back().await;
    eventually("it is delivered", async || queue.is_done().await).await;
    assert_eq!(home.messages().len(), 1);
    queue.ends().await;
}
