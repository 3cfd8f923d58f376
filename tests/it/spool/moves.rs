//! The log of the spool and the database behind it: what goes through the log alone, and what
//! happens while the database cannot be written.

use std::path::Path;
use std::time::{Duration, Instant};

use gatepost::smtp::envelope::{QueueId, RecipientState};
use gatepost::storage::spool::{Options, Spool as _, SpoolError, SqliteSpool, read_queue};
use rusqlite::Connection;

use super::{LARGE, change, content, envelope, everything, ids, open, put, read};
use crate::support::claims::{claim, remove};
use crate::support::within;

/// Many times the time that any of this takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// The size of a segment in octets: four of them are the log.
const SEGMENT: u64 = 256 << 10;
/// The octets of a message.
const SIZE: usize = 50_000;

/// A spool with a small log, from which the mover takes nothing by itself before an hour.
fn patient(folder: &Path) -> SqliteSpool {
    let options = Options {
        segment_size: Some(SEGMENT),
        move_after: Some(Duration::from_hours(1)),
        ..Options::default()
    };
    SqliteSpool::open_with(folder, &options).expect("a spool")
}

fn database(folder: &Path) -> Connection {
    Connection::open(folder.join("queue.db")).expect("opens beside us")
}

fn rows(database: &Connection) -> i64 {
    let count = database.query_row("SELECT count(*) FROM message", [], |row| row.get(0));
    count.expect("a number")
}

fn octets(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// The size of all files in the folder of the log.
fn log_octets(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder.join("log")).expect("a folder");
    files
        .map(|entry| octets(&entry.expect("an entry").path()))
        .sum()
}

/// Fails if it takes longer than any of this does: an operation that waits for room in the log may
/// wait for ever.
async fn bounded<T>(operation: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, operation);
    ended.await.expect("it ends")
}

/// Stores messages until one is rejected because the log is full. Returns those that were accepted.
async fn fill(spool: &SqliteSpool) -> Vec<QueueId> {
    let mut accepted = Vec::new();
    for seed in 0..1_000 {
        let mut draft = spool.draft();
        let written = draft.write(&content(seed, SIZE)).await;
        let stored = match written {
            Ok(()) => bounded(spool.commit(draft, envelope("a@example.org"))).await,
            Err(error) => Err(error),
        };
        match stored {
            Ok((receipt, _)) => accepted.push(receipt.id()),
            Err(SpoolError::Full(text)) => {
                assert!(text.contains("cannot be emptied now"), "{text}");
                return accepted;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!(
        "the log grows without bound: {} octets",
        log_octets(spool.folder())
    );
}

/// A message that is delivered before it has waited for a second is written once, to the log.
#[tokio::test]
async fn what_is_delivered_at_once_never_reaches_the_database() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()));
    let spool = patient(folder.path());
    let before = std::fs::read(folder.path().join("queue.db")).expect("a database");
    for (seed, size) in [(1, SIZE), (2, LARGE), (3, 0), (4, SIZE)] {
        let entry = put(&spool, "a@example.org", &content(seed, size)).await;
        let mut state = entry.envelope.clone();
        state.recipients[0].state = RecipientState::Delivered;
        change(&spool, entry.id, &state).await.expect("there");
        spool.remove(entry.claim).await.expect("there");
    }
    spool.flush().await.expect("nothing to move");
    assert_eq!(spool.stats().moved, 0);
    spool.close().await.expect("closed");
    assert_eq!(octets(&folder.path().join("queue.db-wal")), 0);
    let after = std::fs::read(folder.path().join("queue.db")).expect("a database");
    assert!(before == after, "the database was written");
}

/// One sync may serve more mail than the whole log is meant to have, on a small disk.
#[tokio::test]
async fn a_batch_that_is_larger_than_the_log_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        segment_size: Some(64 << 10),
        ..Options::default()
    };
    let spool = SqliteSpool::open_with(folder.path(), &options).expect("a spool");
    let commits = (0..40).map(async |seed| {
        let mut draft = spool.draft();
        draft.write(&content(seed, SIZE)).await.expect("room");
        spool.commit(draft, envelope("a@example.org")).await
    });
    let all = futures_util::future::join_all(commits);
    let stored = tokio::time::timeout(PATIENCE, all).await.expect("it ends");
    assert!(stored.iter().all(Result::is_ok));
    assert_eq!(everything(&spool).await.len(), 40);
}

/// While a segment of the log cannot be opened, as without a free file descriptor, its messages stay
/// where they are, and no content counts as lost.
#[tokio::test]
async fn a_segment_that_cannot_be_opened_for_a_moment_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let stored = put(&spool, "a@example.org", &content(1, SIZE)).await.id;
    let segment = folder.path().join("log/0000000000000001.seg");
    let away = folder.path().join("away");
    std::fs::rename(&segment, &away).expect("the first segment");
    // A link to itself: the system does not open it, and does not say that it is missing.
    std::os::unix::fs::symlink(&segment, &segment).expect("ours");
    for attempt in 0..2 {
        let load = spool.load(stored).await.map(drop);
        assert!(
            matches!(load, Err(SpoolError::Io(_))),
            "{attempt}: {load:?}"
        );
        let moved = spool.flush().await;
        assert!(
            matches!(moved, Err(SpoolError::Io(_))),
            "{attempt}: {moved:?}"
        );
    }
    assert_eq!(rows(&database(folder.path())), 0);
    std::fs::remove_file(&segment).expect("ours");
    std::fs::rename(&away, &segment).expect("ours");
    for place in ["log", "database"] {
        let loaded = spool.load(stored).await.expect(place);
        let found = read(&loaded.body).await.expect(place);
        assert_eq!(found, content(1, SIZE), "{place}");
        spool.flush().await.expect("moved");
    }
    assert_eq!(spool.stats().quarantined, 0);
}

/// Everything that can be asked of a message has the same answer in the log as in the database.
#[tokio::test]
async fn a_message_is_the_same_in_the_log_and_in_the_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let small = put(&spool, "a@example.org", &content(1, SIZE)).await;
    let large = put(&spool, "b@example.org", &content(2, LARGE)).await;
    let gone = put(&spool, "c@example.org", &content(3, SIZE)).await;
    spool.remove(gone.claim).await.expect("there");
    for place in ["log", "changed in the log", "database", "changed since"] {
        if place == "database" {
            spool.flush().await.expect("moved");
            assert_eq!(rows(&database(folder.path())), 2);
        }
        let sender = format!("{}@example.org", place.replace(' ', "-"));
        change(&spool, small.id, &envelope(&sender))
            .await
            .expect(place);
        assert_eq!(ids(&spool).await, [small.id, large.id], "{place}");
        let listed = everything(&spool).await;
        assert_eq!(listed[0].envelope, envelope(&sender), "{place}");
        let loaded = spool.load(small.id).await.expect(place);
        assert_eq!(
            (loaded.accepted, loaded.size, &loaded.envelope),
            (small.accepted, SIZE as u64, &envelope(&sender)),
            "{place}"
        );
        assert_eq!(read(&loaded.body).await.expect(place), content(1, SIZE));
        let loaded = spool.load(large.id).await.expect(place);
        assert_eq!(read(&loaded.body).await.expect(place), content(2, LARGE));
        for result in [
            spool.load(gone.id).await.map(drop),
            spool.remove(gone.claim).await,
            change(&spool, gone.id, &envelope("")).await,
        ] {
            assert!(matches!(result, Err(SpoolError::Missing(_))), "{place}");
        }
        let outside = read_queue(folder.path()).expect("readable");
        let outside: Vec<_> = outside.iter().map(|stored| stored.id).collect();
        assert_eq!(outside, [small.id, large.id], "{place}");
    }
    spool.remove(small.claim).await.expect("there");
    assert_eq!(ids(&spool).await, [large.id]);
    drop(spool);
    assert_eq!(ids(&open(folder.path())).await, [large.id]);
}

/// Another program has the database locked. Mail comes and goes meanwhile.
#[tokio::test]
async fn a_locked_database_holds_up_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let old = put(&spool, "old@example.org", &content(1, SIZE)).await;
    spool.flush().await.expect("moved");
    let other = database(folder.path());
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let new = put(&spool, "new@example.org", &content(2, SIZE)).await;
    change(&spool, old.id, &envelope("changed@example.org"))
        .await
        .expect("a state");
    let blocked = spool.flush().await.expect_err("locked").to_string();
    assert!(
        blocked.contains("another program keeps it locked"),
        "{blocked}"
    );
    assert_eq!(ids(&spool).await, [old.id, new.id]);
    spool.remove(old.claim).await.expect("a removal");
    other.execute_batch("COMMIT").expect("unlocked");
    spool.flush().await.expect("moved");
    assert_eq!(rows(&other), 1);
    assert_eq!(ids(&spool).await, [new.id]);
}

/// A program that reads the database keeps its write-ahead log from being emptied. That log stays
/// small all the same: new mail is rejected when the spool's own log is full, states and removals
/// never, and mail is accepted again when the program has ended.
#[tokio::test]
async fn a_reader_of_the_database_makes_new_mail_wait_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    put(&spool, "first@example.org", b"x").await;
    spool.flush().await.expect("moved");
    let reader = database(folder.path());
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM message")
        .expect("read");
    let accepted = fill(&spool).await;
    assert!(octets(&folder.path().join("queue.db-wal")) < 16 * SEGMENT);
    assert!(log_octets(folder.path()) <= 5 * SEGMENT);
    let (last, rest) = accepted.split_last().expect("some");
    for id in rest {
        remove(&spool, *id)
            .await
            .expect("a removal is never held up");
    }
    let mut state = envelope("a@example.org");
    state.recipients[0].state = RecipientState::Delivered;
    change(&spool, *last, &state).await.expect("nor is a state");

    drop(reader);
    assert!(within(PATIENCE, || spool.admit(0).is_ok()));
    let new = put(&spool, "new@example.org", &content(1, SIZE)).await;
    assert!(ids(&spool).await.contains(&new.id));
    spool.flush().await.expect("moved");
    assert_eq!(rows(&database(folder.path())), 3);
}

/// With the database locked and the log full, mail that is delivered makes room for new mail. No
/// restart is needed, and none delivers anything again.
#[tokio::test]
async fn a_full_log_is_worked_off_while_the_database_cannot_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let other = database(folder.path());
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let accepted = fill(&spool).await;
    assert_eq!(ids(&spool).await, accepted);
    for id in &accepted {
        bounded(change(&spool, *id, &envelope("tried@example.org")))
            .await
            .expect("a state");
    }
    for id in &accepted {
        bounded(remove(&spool, *id)).await.expect("a removal");
    }
    assert!(within(PATIENCE, || spool.admit(0).is_ok()));
    let new = bounded(put(&spool, "new@example.org", &content(1, SIZE))).await;
    other.execute_batch("COMMIT").expect("unlocked");
    drop(spool);
    assert_eq!(ids(&open(folder.path())).await, [new.id]);
}

/// The log has the size that its bound allows, however much goes through it.
#[tokio::test]
async fn the_log_stays_within_its_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let mut waiting = Vec::new();
    for seed in 0..100 {
        let entry = put(&spool, "a@example.org", &content(seed, SIZE)).await;
        if seed % 3 == 0 {
            waiting.push(entry.id);
        } else {
            spool.remove(entry.claim).await.expect("there");
        }
    }
    let log = log_octets(folder.path());
    assert!(log <= 6 * SEGMENT, "the log has {log} octets");
    assert_eq!(ids(&spool).await, waiting);
}

/// An envelope whose record fills a good part of a segment.
fn large_state() -> gatepost::smtp::envelope::Envelope {
    let mut state = envelope("tried@example.org");
    state.envid = Some("x".repeat(SIZE));
    state
}

/// Records large states until one is rejected because the log is full.
async fn fill_with_states(spool: &SqliteSpool, id: QueueId) {
    for _ in 0..1_000 {
        match change(spool, id, &large_state()).await {
            Ok(()) => {}
            Err(SpoolError::Full(_)) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!(
        "states make the log grow without bound: {} octets",
        log_octets(spool.folder())
    );
}

/// While the database cannot be written, states go into the log beside mail up to twice the size
/// that mail may have, and the scheduler hears of it before. Removals are never held up. All goes
/// on when the database can be written again.
#[tokio::test]
async fn states_have_a_bound_in_the_log_and_removals_have_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let other = database(folder.path());
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let mut accepted = fill(&spool).await;
    assert!(!spool.is_stuck(), "mail alone leaves room for results");
    let kept = accepted.pop().expect("some");
    fill_with_states(&spool, kept).await;
    assert!(spool.is_stuck());
    // Beside the eight segments there may be a spare one.
    let log = log_octets(folder.path());
    assert!(log <= 9 * SEGMENT, "the log has {log} octets");

    // A removal waits a moment for others to share a sync with, and has a state beside it then.
    let large = large_state();
    let kept_claim = claim(&spool, kept).await.expect("there");
    let mut claims = Vec::new();
    for id in &accepted {
        claims.push(claim(&spool, *id).await.expect("there"));
    }
    let before = envelope("");
    let changes = claims.into_iter().map(|claim| {
        let state = spool.settle(kept_claim, &before, Some(&large), Vec::new());
        futures_util::future::join(spool.remove(claim), state)
    });
    let changes = futures_util::future::join_all(changes).await;
    for (removed, _) in &changes {
        assert!(removed.is_ok(), "{removed:?}");
    }
    let is_rejected = changes.iter().any(|(_, state)| state.is_err());
    assert!(is_rejected, "there was room");
    other.execute_batch("COMMIT").expect("unlocked");
    assert!(within(PATIENCE, || !spool.is_stuck()));
    change(&spool, kept, &envelope("")).await.expect("a state");
    spool.flush().await.expect("moved");
    assert_eq!(ids(&spool).await, [kept]);
    assert_eq!(rows(&other), 1);
}

/// A segment that nothing needs, but that cannot be removed, keeps mail from the log when that is
/// full. It is tried again at a steady rate, whoever asks for room meanwhile, and mail is accepted
/// again when it is gone.
#[tokio::test]
async fn a_segment_that_cannot_be_removed_is_tried_at_a_steady_rate() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let other = database(folder.path());
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let accepted = fill(&spool).await;
    // No segment becomes the spare one, and no new one is begun, where a folder has that name.
    let spare = folder.path().join("log/spare");
    let _there_may_be_none = std::fs::remove_file(&spare);
    std::fs::create_dir_all(spare.join("full")).expect("ours");
    other.execute_batch("COMMIT").expect("unlocked");
    spool.flush().await.expect("moved");
    assert_eq!(rows(&other), i64::try_from(accepted.len()).expect("few"));
    assert!(spool.admit(0).is_err(), "mail would find no room");

    let (began, before) = (Instant::now(), spool.stats().rounds);
    let mut rejected = 0;
    for _ in 0..100 {
        rejected += u32::from(change(&spool, accepted[0], &large_state()).await.is_err());
        assert!(spool.admit(0).is_err());
    }
    assert!(rejected > 50, "{rejected} asked for room");
    let rounds = u128::from(spool.stats().rounds - before);
    let pauses = began.elapsed().as_millis() / 250;
    assert!(rounds <= pauses + 2, "{rounds} rounds in {pauses} pauses");

    std::fs::remove_dir_all(&spare).expect("ours");
    assert!(within(PATIENCE, || spool.admit(0).is_ok() && !spool.is_stuck()));
    let new = put(&spool, "new@example.org", &content(1, SIZE)).await;
    change(&spool, new.id, &large_state())
        .await
        .expect("a state");
    assert_eq!(ids(&spool).await.len(), accepted.len() + 1);
}
