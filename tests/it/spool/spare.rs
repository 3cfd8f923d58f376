//! The spare file: the space for the next segment of the log, without which states and mail leave the
//! last one to removals.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gatepost::storage::spool::{Options, SpoolError, SqliteSpool};

use super::{change, content, envelope, open, put};
use crate::support::claims::{claim, remove};
use crate::support::database_lock::DatabaseLock;
use crate::support::within;

/// Makes a spool with two messages, which is closed.
async fn with_two(folder: &Path) -> [gatepost::smtp::envelope::QueueId; 2] {
    let spool = open(folder);
    let first = put(&spool, "", &content(1, 1000)).await;
    let second = put(&spool, "", &content(2, 1000)).await;
    [first.id, second.id]
}

/// Opens a spool on a disk that has hardly any space, as it seems.
fn open_on_scarce_disk(folder: &Path) -> SqliteSpool {
    let options = Options {
        keep_free: Some(u64::MAX / 4),
        ..Options::default()
    };
    SqliteSpool::open_with(folder, &options).expect("a spool")
}

/// Makes it impossible to make a spare file.
fn prevent_spare(folder: &Path) {
    let spare = folder.join("log/spare");
    // The engine may make one in between.
    while fs::create_dir(&spare).is_err() {
        let _absent = fs::remove_file(&spare);
    }
}

#[tokio::test]
async fn a_scarce_disk_has_a_small_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, _] = with_two(folder.path()).await;
    let spare = folder.path().join("log/spare");
    let _absent = fs::remove_file(&spare);
    let spool = open_on_scarce_disk(folder.path());
    // It begins a segment, which has the spare file that there was.
    remove(&spool, first).await.expect("removed");
    // The second answer comes after the round of the first one.
    for _ in 0..2 {
        spool.ping().await.expect("the engine works");
    }
    let size = fs::metadata(&spare).expect("it is there").len();
    assert_eq!(size, 256 << 10);
}

/// Other failures than a full disk do not mean that the reserve is of any use.
#[tokio::test]
async fn a_failure_to_make_one_leaves_the_reserve() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] = with_two(folder.path()).await;
    let spool = open_on_scarce_disk(folder.path());
    claim(&spool, second).await.expect("there");
    remove(&spool, first).await.expect("removed");
    prevent_spare(folder.path());
    let mut after = envelope("");
    after.envid = Some("deferred".to_owned());
    let refused = change(&spool, second, &after).await;
    assert!(matches!(refused, Err(SpoolError::Io(_))), "{refused:?}");
    assert!(folder.path().join("reserve").exists());
    fs::remove_dir(folder.path().join("log/spare")).expect("ours");
    change(&spool, second, &after)
        .await
        .expect("it can be made");
    assert!(folder.path().join("log/spare").is_file());
}

/// A quota may leave less space than the disk has.
#[tokio::test]
async fn states_leave_half_of_a_segment_if_none_is_made_although_the_disk_has_space() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] = with_two(folder.path()).await;
    let spool = open(folder.path());
    remove(&spool, first).await.expect("removed");
    prevent_spare(folder.path());
    let mut after = envelope("");
    let mut octets = 0;
    let refused = loop {
        after.envid = Some("x".repeat(20_000));
        match change(&spool, second, &after).await {
            Ok(()) => octets += 20_000,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SpoolError::Io(_)), "{refused}");
    // The first segment of a log has 1 MiB.
    assert!((450_000..=(512 << 10)).contains(&octets), "{octets}");
    remove(&spool, second)
        .await
        .expect("the other half is for removals");
}

/// A log of the database that a reader has made long takes the space of a scarce disk, and nothing else
/// happens that would make it shorter.
#[tokio::test]
async fn a_scarce_disk_gets_the_space_of_a_long_log_of_the_database_when_its_reader_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, _] = with_two(folder.path()).await;
    let spool = open_on_scarce_disk(folder.path());
    let reader = DatabaseLock::reader(folder.path());
    let mut after = envelope("");
    for letter in ('a'..='z').cycle().take(40) {
        // A page that does not change is not written.
        after.envid = Some(letter.to_string().repeat(200_000));
        change(&spool, first, &after).await.expect("stored");
        spool.flush().await.expect("moved");
    }
    let wal = || fs::metadata(folder.path().join("queue.db-wal")).map_or(0, |file| file.len());
    assert!(wal() > 5 << 20, "{}", wal());
    reader.end();
    let is_short = within(Duration::from_mins(1), || wal() < 1 << 20);
    assert!(is_short, "{}", wal());
}
