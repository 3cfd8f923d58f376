//! Tests of the engine's internals: batches with a failing operation, messages without a receipt,
//! the end of the writer, and the files under load.

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
