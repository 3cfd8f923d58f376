//! The write-ahead log of the queue's database: another program that reads or locks it makes it grow,
//! but not without bound, and not for longer than that program runs.

use std::path::Path;
use std::time::{Duration, Instant};

use gatepost::smtp::envelope::{AttemptFailure, Envelope, FailureHistory, QueueId, RecipientState};
use gatepost::smtp::reply::EnhancedStatusCode;
use gatepost::storage::spool::{Options, Spool as _, SpoolError, SqliteSpool};
use gatepost::telemetry::{Format, MetricsReading, Monitor};
use jiff::Timestamp;
use rusqlite::Connection;

use super::{change, content, envelope, ids, put};
use crate::support::claims::remove;
use crate::support::database_lock::DatabaseLock;

/// Many times the time that any of this takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// The size of a segment of the spool's log in octets.
const SEGMENT: u64 = 256 << 10;
/// The octets of a message.
const SIZE: usize = 100_000;

fn log(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("queue.db-wal")).map_or(0, |log| log.len())
}

/// Puts messages until one is rejected; returns those that were accepted.
async fn fill(spool: &SqliteSpool, most: u64) -> Vec<QueueId> {
    let mut accepted = Vec::new();
    for seed in 0..most {
        let mut draft = spool.draft();
        let written = draft.write(&content(seed, SIZE)).await;
        let stored = match written {
            Ok(()) => spool.commit(draft, envelope("a@example.org")).await,
            Err(error) => Err(error),
        };
        match stored {
            Ok((receipt, _)) => accepted.push(receipt.id()),
            Err(SpoolError::Full(text)) => {
                assert!(text.contains("the log of the spool"), "{text}");
                return accepted;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{most} messages are in the log, and none was rejected");
}

async fn admits_again(spool: &SqliteSpool) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = spool.admit(0) {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_reader_makes_mail_wait_but_never_states_or_removals() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        segment_size: Some(SEGMENT),
        ..Options::default()
    };
    let spool = SqliteSpool::open_with(folder.path(), &options).expect("a spool");
    put(&spool, "first@example.org", b"x").await;
    let reader = Connection::open(folder.path().join("queue.db")).expect("opens beside us");
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM message")
        .expect("read");

    let accepted = fill(&spool, 1000).await;
    assert!(log(folder.path()) < 32 << 20, "{}", log(folder.path()));
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
    // Nothing is written meanwhile that would start the log again.
    admits_again(&spool).await;
    let new = put(&spool, "new@example.org", &content(1, SIZE)).await;
    assert!(ids(&spool).await.contains(&new.id));
    assert!(log(folder.path()) < 32 << 20, "{}", log(folder.path()));
}

/// The end of a recipient is like a removal: without it the recipient would get the message again.
#[tokio::test]
async fn the_end_of_recipients_is_stored_where_a_deferral_finds_no_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        segment_size: Some(SEGMENT),
        ..Options::default()
    };
    let spool = SqliteSpool::open_with(folder.path(), &options).expect("a spool");
    put(&spool, "first@example.org", b"x").await;
    let reader = DatabaseLock::reader(folder.path());
    let accepted = fill(&spool, 1000).await;
    let (deferred, others) = accepted.split_first().expect("some");
    let state = |attempts: u32| {
        let mut state = envelope("a@example.org");
        state.envid = Some("x".repeat(100_000));
        state.recipients[0].state = RecipientState::Pending {
            attempts,
            next: None,
            history: FailureHistory::default(),
            warned: false,
            apart: false,
        };
        state
    };
    is_refused(&spool, *deferred, &state(1)).await;
    assert!(spool.is_stuck());
    let mut ended = state(0);
    for (end, owed) in [
        (RecipientState::Delivered, None),
        (RecipientState::Delivered, Some(Box::new(failure()))),
        (RecipientState::Failed, None),
    ] {
        ended.recipients[0].state = end;
        ended.recipients[0].owed = owed;
        for id in others {
            change(&spool, *id, &ended).await.expect("never held up");
        }
    }
    ended.recipients[0].owed = Some(Box::new(failure()));
    is_refused(&spool, *deferred, &ended).await;
    reader.end();
}

/// Stores a state until there is no room for it: there may be some in the last segment.
async fn is_refused(spool: &SqliteSpool, id: QueueId, state: &Envelope) {
    for _ in 0..100 {
        match change(spool, id, state).await {
            Ok(()) => {}
            Err(SpoolError::Full(_)) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the log has no bound");
}

fn failure() -> AttemptFailure {
    AttemptFailure {
        at: Timestamp::now(),
        status: EnhancedStatusCode::parse("5.1.1").expect("valid"),
        text: "mx said 550 nobody".to_owned(),
        explanation: None,
        host: None,
        reply: None,
    }
}

fn moves(monitor: &Monitor, result: &str) -> u64 {
    let metrics = monitor.text(&MetricsReading::default(), Format::Classic);
    let line = format!("gatepost_spool_log_moves_total{{result=\"{result}\"}} ");
    let count = metrics.lines().find_map(|found| found.strip_prefix(&line));
    count.map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn one_blocked_checkpoint_does_not_end_them_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        segment_size: Some(SEGMENT),
        ..Options::default()
    };
    let spool = SqliteSpool::open_with(folder.path(), &options).expect("a spool");
    let lock = DatabaseLock::checkpoints(folder.path());
    let accepted = fill(&spool, 1000).await;
    assert!(moves(&options.monitor, "blocked") > 0);
    lock.end();
    let before = moves(&options.monitor, "complete");
    admits_again(&spool).await;
    let new = put(&spool, "new@example.org", &content(1, SIZE)).await;
    spool.flush().await.expect("moved");
    assert!(moves(&options.monitor, "complete") > before);
    assert!(log(folder.path()) < 32 << 20, "{}", log(folder.path()));
    assert_eq!(ids(&spool).await.len(), accepted.len() + 1);
    assert!(ids(&spool).await.contains(&new.id));
    let metrics = options
        .monitor
        .text(&MetricsReading::default(), Format::Classic);
    assert!(metrics.contains("gatepost_spool_log_bytes "), "{metrics}");
}
