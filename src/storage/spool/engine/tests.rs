//! Tests of the engine's internals: batches with a failing operation, a full database, the end of
//! the writer.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::envelope::Recipient;

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
    let crc = crc32fast::hash(&content);
    let new = NewMessage::new(
        id,
        Timestamp::UNIX_EPOCH,
        &envelope(),
        size as u64,
        crc,
        DraftContent::Row(content),
    );
    new.expect("a message")
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
        spool.record(id(2), envelope()).await,
        Err(SpoolError::Missing(_))
    ));
    assert!(spool.scan(None, 10).await.expect("listed").is_empty());
}

/// `max_page_count` simulates a full disk: SQLite reports the same error in the same places.
#[tokio::test]
async fn a_full_database_rejects_mail_removes_the_reserve_and_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(SqliteSpool::open(folder.path()).expect("a spool"));
    let folder = SpoolFolder::lock(folder.path()).expect("free");
    let mut database = schema::open(&folder.paths, || false).expect("ours");
    database
        .connection
        .pragma_update(None, "max_page_count", 40)
        .expect("set");
    drop(database.connection.prepare_cached("SELECT 1"));
    let core = core(&folder);
    let thread = writer::start(
        Arc::clone(&core),
        std::mem::replace(
            &mut database.connection,
            schema::connect(&folder.paths).expect("one more"),
        ),
    )
    .expect("started");
    let commit = |number: u64, size: usize| {
        let core = Arc::clone(&core);
        async move {
            core.ask(|reply| Op::Commit(Box::new(message(id(number), size)), reply))
                .await
                .map(Committed::acknowledged)
        }
    };
    commit(1, 100_000).await.expect("fits");
    assert!(matches!(commit(2, 100_000).await, Err(SpoolError::Full(_))));
    assert!(
        folder.paths.folder.join("reserve").exists(),
        "new mail may not have the reserve"
    );
    commit(3, 1_000).await.expect("a small one still fits");
    let mut grown = envelope();
    grown.envid = Some("x".repeat(200_000));
    assert!(matches!(
        core.record(id(3), grown).await,
        Err(SpoolError::Full(_))
    ));
    assert!(
        !folder.paths.folder.join("reserve").exists(),
        "a state may have the reserve"
    );
    core.remove(id(1)).await.expect("removed");
    commit(4, 100_000).await.expect("room again");
    core.queue.close();
    thread.join().expect("no panic");
}

/// Counts the attempts to lock a database that another program has locked. Each attempt gives up at
/// once here.
static ASKED: AtomicU64 = AtomicU64::new(0);

#[tokio::test]
async fn a_locked_database_is_waited_for_once_a_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(SqliteSpool::open(folder.path()).expect("a spool"));
    let folder = SpoolFolder::lock(folder.path()).expect("free");
    let mut writing = schema::connect(&folder.paths).expect("ours");
    let gave_up = |_| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        false
    };
    writing.busy_handler(Some(gave_up)).expect("set");
    let holder = schema::connect(&folder.paths).expect("one more");
    holder.execute_batch("BEGIN IMMEDIATE").expect("held");
    let core = core(&folder);
    let ask = |number| core.ask(move |reply| Op::Commit(Box::new(message(id(number), 10)), reply));
    // All of them are queued before the writer starts, so they are one batch.
    let started = async { writer::start(Arc::clone(&core), writing).expect("started") };
    let (one, two, three, thread) = tokio::join!(ask(1), ask(2), ask(3), started);
    for answer in [one, two, three] {
        let fault = answer
            .map(Committed::acknowledged)
            .expect_err("it is held")
            .to_string();
        assert!(fault.contains("another program keeps it locked"), "{fault}");
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    holder.execute_batch("COMMIT").expect("given up");
    ask(4)
        .await
        .map(Committed::acknowledged)
        .expect("nothing is wrong with it");
    core.queue.close();
    thread.join().expect("no panic");
}

/// After a kill it is unknown how much of the log is on the disk. Later commits must not depend on
/// it.
#[tokio::test]
async fn a_start_moves_the_log_into_the_database() {
    let (folder, killed) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let spool = SqliteSpool::open(folder.path()).expect("a spool");
    let mut draft = spool.draft();
    draft
        .write(b"Subject: m\r\n\r\nm\r\n")
        .await
        .expect("written");
    let (receipt, _) = spool.commit(draft, envelope()).await.expect("durable");
    for file in ["queue.db", "queue.db-wal"] {
        std::fs::copy(folder.path().join(file), killed.path().join(file)).expect("copied");
    }
    let folder = SpoolFolder::lock(killed.path()).expect("free");
    // Not closed: closing would empty the log.
    std::mem::forget(
        schema::open(&folder.paths, || false)
            .expect("ours")
            .connection,
    );
    // The log is missing, as if it had never reached the disk.
    let alone = tempfile::tempdir().expect("a folder");
    std::fs::copy(
        killed.path().join("queue.db"),
        alone.path().join("queue.db"),
    )
    .expect("copied");
    let spool = SqliteSpool::open(alone.path()).expect("a spool");
    assert_eq!(
        spool.scan(None, 10).await.expect("listed")[0].id,
        receipt.id()
    );
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
                    let (receipt, _) = spool.commit(draft, envelope()).await.expect("durable");
                    spool.remove(receipt.id()).await.expect("removed");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no panic");
    }
    // 120 MB were written.
    let log = std::fs::metadata(&spool.core.paths.wal)
        .expect("a log")
        .len();
    assert!(log < 64 << 20, "the log has {log} octets");
}

fn core(folder: &SpoolFolder) -> Arc<Core> {
    let paths = folder.paths.clone();
    let space = Arc::new(DatabaseSpace::with_limit(None));
    let free_space = FreeSpace::open(&paths.folder, Some(0), Arc::clone(&space)).expect("room");
    let drafts = Arc::new(Drafts {
        bodies: paths.bodies.clone(),
        free_space,
        ids: super::super::ids::Ids::after(None, None),
        folder_failed: false.into(),
    });
    let monitor = crate::telemetry::Monitor::default();
    Arc::new_cyclic(|me| Core {
        queue: Arc::new(WriteQueue::default()),
        wal: Wal::new(Arc::clone(&space), Arc::clone(&drafts), monitor),
        space,
        readers: Readers::new(paths.clone()),
        drafts,
        ended: CancellationToken::new(),
        counters: Counters::default(),
        clock_jumps: ClockJumps::default(),
        paths,
        monitor: crate::telemetry::Monitor::default(),
        me: me.clone(),
    })
}
