//! Tests of the engine's internals: batches with a failing operation, messages without a receipt,
//! the end of the writer, and the files under load.

use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::index::{HeldContent, HeldMessage, LogIndex, MoveScope};
use super::paths::SpoolPaths;
use super::row::EnvelopeText;
use super::*;
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::envelope::Recipient;
use crate::storage::spool::Spool as _;
use crate::storage::spool::draft::{DraftKind, FinishedDraft};

fn envelope() -> Envelope {
    let sender = ReversePath::parse("a@example.org").expect("valid");
    Envelope::new(
        sender,
        vec![Recipient::new(
            Mailbox::parse("b@example.net").expect("valid"),
        )],
    )
}

fn message(id: QueueId, size: usize) -> NewMessage {
    let content = Bytes::from(vec![b'x'; size]);
    let draft = FinishedDraft {
        kind: DraftKind::Mail,
        id,
        size: size as u64,
        crc: crc32fast::hash(&content),
        content: DraftContent::Row(content),
    };
    NewMessage::new(draft, Timestamp::UNIX_EPOCH, &envelope()).expect("a message")
}

fn id(number: u64) -> QueueId {
    QueueId::from_number(number).expect("small")
}

#[tokio::test]
async fn one_bad_operation_harms_no_other_of_its_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = SqliteSpool::open(folder.path()).expect("a spool");
    let (mut replies, mut removed) = (Vec::new(), Vec::new());
    // The same id twice: the second one fails, and would roll back a shared transaction.
    for number in [1, 2, 2, 3] {
        let (reply, answer) = oneshot::channel();
        spool
            .core
            .queue
            .push(Op::Commit(Box::new(message(id(number), 10)), reply))
            .expect("open");
        replies.push(answer);
    }
    for number in [1, 9] {
        let (reply, answer) = oneshot::channel();
        spool
            .core
            .queue
            .push(Op::Remove(id(number), Some(reply)))
            .expect("open");
        removed.push(answer);
    }
    let mut results = Vec::new();
    for reply in replies {
        results.push(
            reply
                .await
                .expect("answered")
                .map(Committed::acknowledged)
                .is_ok(),
        );
    }
    assert_eq!(results, [true, true, false, true]);
    let mut gone = removed.into_iter();
    assert!(gone.next().expect("first").await.expect("answered").is_ok());
    assert!(matches!(
        gone.next().expect("second").await.expect("answered"),
        Err(SpoolError::Missing(_))
    ));
    let left: Vec<_> = spool
        .scan(None, 10)
        .await
        .expect("listed")
        .into_iter()
        .map(|stored| stored.id)
        .collect();
    assert_eq!(left, [id(2), id(3)]);
}

#[tokio::test]
async fn a_durable_message_without_a_receipt_is_withdrawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = SqliteSpool::open(folder.path()).expect("a spool");
    let (reply, answer) = oneshot::channel();
    spool
        .core
        .queue
        .push(Op::Commit(Box::new(message(id(1), 10)), reply))
        .expect("open");
    let committed = answer.await.expect("answered").expect("durable");
    assert_eq!(spool.scan(None, 10).await.expect("listed").len(), 1);
    drop(committed);
    // Queued after the withdrawal, so the withdrawal is done when this is answered.
    assert!(matches!(
        spool
            .settle(
                spool.core.claims.claim_of(id(2)),
                &envelope(),
                Some(&envelope()),
                Vec::new()
            )
            .await,
        Err(SpoolError::Missing(_))
    ));
    assert!(spool.scan(None, 10).await.expect("listed").is_empty());
}

/// Makes a spool in a folder of this name, whose log has small segments.
fn small_spool(path: &Path) -> SqliteSpool {
    let options = Options {
        segment_size: Some(256 << 10),
        move_after: Some(Duration::from_hours(1)),
        ..Options::default()
    };
    SqliteSpool::open_with(path, &options).expect("a spool")
}

/// Stores a message without a receipt.
async fn commit(spool: &SqliteSpool, number: u64, size: usize) -> Committed {
    let (reply, answer) = oneshot::channel();
    let op = Op::Commit(Box::new(message(id(number), size)), reply);
    spool.core.queue.push(op).expect("open");
    answer.await.expect("answered").expect("durable")
}

/// Its client has got 451, and has sent it again.
#[tokio::test]
async fn a_withdrawal_that_the_lost_folder_refuses_is_written_when_it_is_back() {
    for is_closed in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, away) = (folder.path().join("spool"), folder.path().join("away"));
        let spool = small_spool(&path);
        for number in 2..2000 {
            commit(&spool, number, 1).await.acknowledged();
        }
        let withdrawn = commit(&spool, 1, 10).await;
        std::fs::rename(&path, &away).expect("moved");
        spool.renew().await.expect_err("it is lost");
        let mut numbers = 2..2000;
        let refused = loop {
            let number = numbers.next().expect("a segment has an end");
            let removed = spool.remove(spool.core.claims.claim_of(id(number))).await;
            if removed.is_err() {
                break number;
            }
        };
        drop(withdrawn);
        spool.core.ask(Op::Ping).await.expect("it works");
        std::fs::rename(&away, &path).expect("moved back");
        spool.renew().await.expect("it is ours again");
        if is_closed {
            spool.close().await.expect("closed");
        } else {
            commit(&spool, 3000, 10).await.acknowledged();
        }
        let queue = read_queue(&path).expect("readable");
        let waits = |number| queue.iter().any(|stored| stored.id == id(number));
        assert!(waits(refused) && !waits(1), "{is_closed}");
    }
}

/// Removes these messages, which the writer gets at once. Returns the number of those that it refuses.
async fn remove_all(spool: &SqliteSpool, numbers: std::ops::Range<u64>) -> usize {
    let mut answers = Vec::new();
    for number in numbers {
        let (reply, answer) = oneshot::channel();
        let op = Op::Remove(id(number), Some(reply));
        spool.core.queue.push(op).expect("open");
        answers.push(answer);
    }
    let mut refused = 0;
    for answer in answers {
        refused += usize::from(answer.await.expect("answered").is_err());
    }
    refused
}

/// Those that end at once come again at once, and would be refused for ever.
#[tokio::test]
async fn of_removals_that_come_together_as_many_are_written_as_find_space() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, away) = (folder.path().join("spool"), folder.path().join("away"));
    let spool = small_spool(&path);
    for number in 1..=300 {
        commit(&spool, number, 1).await.acknowledged();
    }
    let claim = spool.core.claims.claim_of(id(1));
    // No other segment can begin.
    std::fs::rename(&path, &away).expect("moved");
    spool.renew().await.expect_err("it is lost");
    let mut after = envelope();
    after.envid = Some("x".repeat(4000));
    loop {
        let settled = spool.settle(claim, &envelope(), Some(&after), Vec::new());
        if settled.await.is_err() {
            break;
        }
    }
    let refused = remove_all(&spool, 1..301).await;
    assert!((1..300).contains(&refused), "{refused} were refused");
    assert_eq!(remove_all(&spool, 300..301).await, 1, "the segment is full");
    std::fs::rename(&away, &path).expect("moved back");
    spool.renew().await.expect("it is ours again");
    spool.close().await.expect("closed");
    assert_eq!(read_queue(&path).expect("readable").len(), refused);
}

/// Makes it impossible to make a spare file.
fn prevent_spare(spool: &SqliteSpool) {
    let spare = spool.core.paths.log.join("spare");
    // The mover may make one in between.
    while std::fs::create_dir(&spare).is_err() {
        let _absent = std::fs::remove_file(&spare);
    }
}

/// A removal says nothing about the space for states.
#[tokio::test]
async fn states_find_space_again_when_one_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = small_spool(folder.path());
    for number in 1..=2 {
        commit(&spool, number, 1).await.acknowledged();
    }
    prevent_spare(&spool);
    let core = &spool.core;
    core.state_room.set_rejecting(true, &core.monitor);
    let mut after = envelope();
    after.envid = Some("x".to_owned());
    for (number, after, is_stuck) in [(1, None, true), (2, Some(&after), false)] {
        let claim = core.claims.claim_of(id(number));
        let settled = spool.settle(claim, &envelope(), after, Vec::new());
        settled.await.expect("stored");
        assert_eq!(spool.is_stuck(), is_stuck, "{number}");
    }
}

/// Whoever needs the reserve may use all of its space.
#[tokio::test]
async fn the_log_has_a_part_of_the_reserve() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = small_spool(folder.path());
    let core = &spool.core;
    let spare = core.paths.log.join("spare");
    let _absent = std::fs::remove_file(&spare);
    assert!(core.release_reserve());
    assert!(spare.exists());
}

/// Whenever the folder is exchanged within a round, nothing in the other one is changed.
#[tokio::test]
async fn a_folder_that_is_lost_within_a_round_of_the_mover_is_not_used() {
    let mut lost = 0;
    for at in 0..50 {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, away) = (folder.path().join("spool"), folder.path().join("away"));
        let other = folder.path().join("other");
        let spool = small_spool(&path);
        for number in 1..=10 {
            commit(&spool, number, 100_000).await.acknowledged();
        }
        copy(&path, &other);
        let expected = content_of(&other);
        let (mut examined, moved) = (0, path.clone());
        let hook = move || {
            if examined == at {
                std::fs::rename(&moved, &away).expect("moved");
                std::fs::rename(&other, &moved).expect("another in its place");
            }
            examined += 1;
        };
        let hooks = &spool.core.held_folder.before_examination;
        *hooks.lock().expect("no panic") = Some(held_folder::TestHook(Box::new(hook)));
        let flushed = spool.flush().await;
        for _ in 0..2 {
            spool.ping().await.expect("the engine works");
        }
        hooks.lock().expect("no panic").take();
        let is_there = folder.path().join("away").exists();
        lost += usize::from(flushed.is_err());
        if is_there {
            assert!(content_of(&path) == expected, "{at}: the other has changed");
        } else {
            assert!(flushed.is_ok() && lost > 3, "{at}: {lost}");
            return;
        }
    }
    panic!("a round has no end");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("copied");
        }
    }
}

/// The files of a folder, with their content.
fn content_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(content_of(&path));
        } else {
            let content = std::fs::read(&path).expect("readable");
            let name = path.file_name().expect("a name");
            files.push((name.into(), content));
        }
    }
    files.sort();
    files
}

/// After a kill it is unknown how much of the log is on the disk. Later commits must not depend on
/// it.
#[tokio::test]
async fn a_start_moves_the_log_into_the_database() {
    let (folder, killed) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    drop(SqliteSpool::open(folder.path()).expect("a spool"));
    let writing = schema::connect(&SpoolPaths::new(folder.path())).expect("ours");
    let held = HeldMessage {
        accepted: 0,
        size: 10,
        content_crc: 0,
        envelope: EnvelopeText::new(id(1), &envelope()).expect("JSON"),
        content: HeldContent::BodyFile,
    };
    let mut index = LogIndex::default();
    index.add(id(1), held, 1);
    let moves = index.take(MoveScope::All, 1, 1);
    table::apply(&writing, &moves, |_| Ok(None)).expect("a row");
    for file in ["queue.db", "queue.db-wal"] {
        std::fs::copy(folder.path().join(file), killed.path().join(file)).expect("copied");
    }
    let folder = SpoolFolder::lock(killed.path()).expect("free");
    // Not closed: closing would empty the log.
    std::mem::forget(schema::open(&folder.paths).expect("ours").connection);
    // The log is missing, as if it had never reached the disk.
    let alone = tempfile::tempdir().expect("a folder");
    std::fs::copy(
        killed.path().join("queue.db"),
        alone.path().join("queue.db"),
    )
    .expect("copied");
    let queue = read_queue(alone.path()).expect("readable");
    assert_eq!(queue.len(), 1);
    drop(writing);
}

#[tokio::test]
async fn the_end_of_the_writer_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = SqliteSpool::open(folder.path()).expect("a spool");
    // The thread drops this guard however it ends.
    drop(shared::EndGuard(Arc::clone(&spool.core)));
    spool.closed().await;
    let draft = spool.draft();
    assert!(matches!(
        spool.commit(draft, envelope()).await,
        Err(SpoolError::Closed)
    ));
}

#[tokio::test]
async fn the_log_starts_again_under_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = Arc::new(SqliteSpool::open(folder.path()).expect("a spool"));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move {
                for _ in 0..300 {
                    let mut draft = spool.draft();
                    draft.write(&vec![b'x'; 100_000]).await.expect("written");
                    let (_, entry) = spool.commit(draft, envelope()).await.expect("durable");
                    spool.remove(entry.claim).await.expect("removed");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no panic");
    }
    // 120 MB were written.
    let paths = &spool.core.paths;
    let octets = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let wal = octets(&paths.wal);
    assert!(wal < 64 << 20, "the database's log has {wal} octets");
    let files = std::fs::read_dir(&paths.log).expect("a folder");
    let log: u64 = files
        .map(|entry| octets(&entry.expect("an entry").path()))
        .sum();
    assert!(log < 100 << 20, "the log has {log} octets");
}

/// However many messages wait to be loaded, a list of the queue finds a reader.
#[tokio::test]
async fn loads_leave_a_reader_for_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = Arc::new(SqliteSpool::open(folder.path()).expect("a spool"));
    // No load ends while the index is locked.
    let (locked, is_locked) = std::sync::mpsc::channel();
    let (release, is_released) = std::sync::mpsc::channel::<()>();
    let core = Arc::clone(&spool.core);
    let holder = std::thread::spawn(move || {
        let _index = core.index();
        locked.send(()).expect("the test waits");
        let _ended = is_released.recv();
    });
    is_locked.recv().expect("locked");
    let loads: Vec<_> = (1..=100)
        .map(|number| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move { spool.load(id(number)).await.map(drop) })
        })
        .collect();
    for _ in 0..loads.len() {
        tokio::task::yield_now().await;
    }
    let other = spool.core.readers.run(|_| Ok(()));
    let other = tokio::time::timeout(Duration::from_secs(20), other).await;
    drop(release);
    holder.join().expect("no panic");
    for load in loads {
        let missing = load.await.expect("no panic");
        assert!(
            matches!(missing, Err(SpoolError::Missing(_))),
            "{missing:?}"
        );
    }
    other.expect("a reader is free").expect("open");
}
