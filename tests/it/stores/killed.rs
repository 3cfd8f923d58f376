//! The spool that a killed process of an earlier version left: mail in the database, and later
//! mail and states in the log alone.
//!
//! `data/killed` is such a spool, as the version wrote it whose `queue.db` has version 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gatepost::smtp::envelope::{Envelope, QueueId, RecipientState};
use gatepost::storage::spool::{Options, Spool as _, SqliteSpool};

use super::{copy, messages};
use crate::support::claims::{remove, settle};

/// The senders of the messages as the queue has them, and the states of their recipients.
fn expected() -> Vec<(Envelope, Vec<u8>)> {
    let (mut database, mut log) = (messages(), messages());
    database[0].0.recipients[0].state = RecipientState::Delivered;
    database.remove(1);
    log[2].0.recipients[0].state = RecipientState::Failed;
    log.remove(0);
    database.extend(log);
    database
}

/// Writes the spool into `target/tmp/killed`. To replace the one in `tests/it/data/killed` by one
/// of the present version, run this with `cargo test --test it -- --ignored make_killed_spool` and
/// copy the folder.
#[tokio::test]
#[ignore = "makes test data"]
async fn make_killed_spool() {
    let to = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("killed");
    if to.exists() {
        fs::remove_dir_all(&to).expect("an earlier run made it");
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let options = Options {
        segment_size: Some(256 << 10),
        move_after: Some(Duration::from_hours(1)),
        ..Options::default()
    };
    let spool = SqliteSpool::open_with(folder.path(), &options).expect("a spool");
    let first = put_all(&spool).await;
    spool.flush().await.expect("moved");
    let second = put_all(&spool).await;
    let all = expected();
    for (id, at) in [(first[0], 0), (second[2], 3)] {
        let before = spool.load(id).await.expect("there").envelope;
        let settled = settle(&spool, id, &before, &all[at].0);
        settled.await.expect("settled");
    }
    for id in [first[1], second[0]] {
        remove(&spool, id).await.expect("removed");
    }
    copy(folder.path(), &to);
    for file in ["reserve", "lock", "queue.db-shm", "log/spare"] {
        // Not all of them are there in each version.
        let _ = fs::remove_file(to.join(file));
    }
    fs::remove_dir(to.join("aside")).expect("nothing is damaged");
}

async fn put_all(spool: &SqliteSpool) -> Vec<QueueId> {
    let mut ids = Vec::new();
    for (envelope, content) in messages() {
        let mut draft = spool.draft();
        draft.write(&content).await.expect("room");
        let stored = spool.commit(draft, envelope).await.expect("durable");
        ids.push(stored.0.id());
    }
    ids
}

/// Every message of the spool is in the queue with its latest state and its content, and nothing
/// else is.
#[tokio::test]
async fn a_killed_spool_of_an_earlier_version_is_complete() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/killed");
    copy(&data, folder.path());
    for start in ["first", "second"] {
        let spool = SqliteSpool::open(folder.path()).expect("the spool opens");
        let listed = spool.scan(None, 10).await.expect("listed");
        assert_eq!(listed.len(), expected().len(), "{start}");
        for (stored, (envelope, content)) in listed.iter().zip(expected()) {
            let entry = spool.load(stored.id).await.expect("sound");
            assert_eq!((&stored.envelope, &entry.envelope), (&envelope, &envelope));
            let (mut reader, mut read) = (entry.body.reader().await.expect("readable"), Vec::new());
            while let Some(chunk) = reader.next().await.expect("sound") {
                read.extend_from_slice(&chunk);
            }
            assert!(read == content, "{} has another content", stored.id);
        }
        assert_eq!(spool.stats().quarantined, 0, "{start}");
        spool.close().await.expect("closed");
    }
}
