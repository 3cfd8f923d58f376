//! A disk that is full to the last octet: new mail is refused, the queue is worked off, and mail is
//! taken again as soon as there is room.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gatepost::smtp::envelope::RecipientState;
use gatepost::storage::spool::{Claimed, Entry, Options, Spool as _, SpoolError, SqliteSpool};

use super::log::lock_checkpoints;
use super::{LARGE, change, content, envelope, ids, put, read};
use crate::support::disk::Mounted;

fn fill(disk: &Path) {
    let mut filler = File::create(disk.join("filler")).expect("room for a name");
    for block in [64 * 1024, 4096, 512, 1] {
        while filler.write_all(&vec![b'x'; block]).is_ok() {}
    }
}

/// Stores messages of this size until one is refused because the disk is full.
async fn refuses_messages_of(spool: &SqliteSpool, size: usize) {
    let mut refused = None;
    // Small ones find room in what the database already has, for a while.
    for _ in 0..200 {
        let mut draft = spool.draft();
        let result = match draft.write(&content(1, size)).await {
            Ok(()) => spool
                .commit(draft, envelope("new@example.org"))
                .await
                .map(|(receipt, _)| receipt),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            refused = Some(error);
            break;
        }
    }
    assert!(
        matches!(refused, Some(SpoolError::Full(_))),
        "{size}: {refused:?}"
    );
}

/// What was not removed is there after the next start, as it was stored.
async fn has_the_rest(folder: &Path, rest: &[Claimed<Entry>]) {
    let spool = SqliteSpool::open(folder).expect("a spool");
    let there = ids(&spool).await;
    for (seed, entry) in (20..).zip(rest) {
        assert!(there.contains(&entry.id));
        let loaded = spool.load(entry.id).await.expect("sound");
        assert_eq!(loaded.envelope, entry.envelope);
        assert_eq!(
            read(&loaded.body).await.expect("sound"),
            content(seed, usize::try_from(entry.size).expect("small"))
        );
    }
}

/// `mount -t tmpfs -o size=64m tmpfs DIR`, and `SPOOL_TEST_SMALL_DISK=DIR`, as `.ci/durability`
/// does.
#[tokio::test]
#[ignore = "needs a small disk of its own: .ci/durability"]
async fn the_queue_is_worked_off_on_a_full_disk() {
    let disk = std::env::var_os("SPOOL_TEST_SMALL_DISK")
        .expect("SPOOL_TEST_SMALL_DISK names a small disk");
    let disk = Path::new(&disk);
    let folder = tempfile::tempdir_in(disk).expect("a folder");
    // Nothing is kept free, so that the writes themselves meet the full disk.
    let spool = SqliteSpool::open_with(
        folder.path(),
        &Options {
            keep_free: Some(0),
            ..Options::default()
        },
    )
    .expect("a spool");
    let mut queued = Vec::new();
    for seed in 0..40 {
        queued.push(put(&spool, "a@example.org", &content(seed, 5_000)).await);
    }
    queued.push(put(&spool, "a@example.org", &content(40, LARGE)).await);
    fill(disk);

    for size in [1_000_000, 100_000, LARGE] {
        refuses_messages_of(&spool, size).await;
    }
    for entry in &mut queued {
        entry.envelope.recipients[0].state = RecipientState::Delivered;
        entry.envelope.envid = Some("x".repeat(4_000));
        change(&spool, entry.id, &entry.envelope)
            .await
            .expect("a state can be written");
    }
    let rest = queued.split_off(20);
    for entry in queued {
        spool
            .remove(entry.claim)
            .await
            .expect("a delivered one can be removed");
    }

    std::fs::remove_file(disk.join("filler")).expect("removed");
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = spool.admit(0) {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let new = put(&spool, "new@example.org", &content(50, LARGE)).await;
    assert_eq!(read(&new.body).await.expect("sound"), content(50, LARGE));
    drop(spool);
    has_the_rest(folder.path(), &rest).await;
    assert!(
        folder
            .path()
            .join("reserve")
            .metadata()
            .expect("made again")
            .len()
            > 0
    );
}

/// The orders of events in which a full disk is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Plain,
    /// The database is one of a version that could not give pages back.
    OldDatabase,
    /// Another program reads the database, from before the disk is full until a write fails.
    Reader,
    /// Another program keeps checkpoints from running, likewise.
    Checkpoints,
    /// A tenth stays.
    MostDrained,
    /// As `MostDrained`, and the database is an old one.
    MostDrainedOld,
    /// The spool is closed and opened before it is drained.
    Restart,
    /// And after it, while nothing else writes.
    RestartAfter,
    /// Another program takes all space that is left before the queue is drained.
    NothingLeft,
    /// The same after a program has read for long.
    ReaderAndNothingLeft,
}

impl Order {
    fn is_old(self) -> bool {
        matches!(self, Self::OldDatabase | Self::MostDrainedOld)
    }

    fn has_reader(self) -> bool {
        matches!(self, Self::Reader | Self::ReaderAndNothingLeft)
    }

    fn is_filled_up(self) -> bool {
        matches!(self, Self::NothingLeft | Self::ReaderAndNothingLeft)
    }

    fn kept(self, all: usize) -> usize {
        match self {
            Self::MostDrained | Self::MostDrainedOld => all / 10,
            _ => 0,
        }
    }
}

/// Another program that keeps the log from being moved.
enum Blocker {
    Reader(rusqlite::Connection),
    Checkpoint(SyncSender<()>, JoinHandle<()>),
}

impl Blocker {
    fn start(order: Order, folder: &Path) -> Option<Self> {
        if order == Order::Checkpoints {
            let (unlock, holder) = lock_checkpoints(folder);
            return Some(Self::Checkpoint(unlock, holder));
        }
        let database = folder.join("queue.db");
        order.has_reader().then(|| {
            let reader = rusqlite::Connection::open(database).expect("opens beside us");
            let reads = reader.execute_batch("BEGIN; SELECT count(*) FROM message");
            reads.expect("read");
            Self::Reader(reader)
        })
    }

    fn end(self) {
        match self {
            Self::Reader(reader) => drop(reader),
            Self::Checkpoint(unlock, holder) => {
                unlock.send(()).expect("it waits");
                holder.join().expect("no panic");
            }
        }
    }
}

/// A message of a size that stays in its row.
const IN_ROW: usize = 20_000;
const PATIENCE: Duration = Duration::from_mins(1);

/// Stores messages until the disk is full.
async fn fill_with_mail(spool: &SqliteSpool) -> Vec<Claimed<Entry>> {
    let mut accepted = Vec::new();
    loop {
        let mut draft = spool.draft();
        let stored = match draft.write(&content(accepted.len() as u64, IN_ROW)).await {
            Ok(()) => spool.commit(draft, envelope("a@example.org")).await,
            Err(error) => Err(error),
        };
        match stored {
            Ok((_, entry)) => accepted.push(entry),
            Err(SpoolError::Full(_)) => return accepted,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Repeats a state or a removal as the scheduler does. Once it fails, the administrator ends the
/// other program.
async fn persist<T>(
    blocker: &mut Option<Blocker>,
    mut write: impl AsyncFnMut() -> Result<T, SpoolError>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match write().await {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        if let Some(blocker) = blocker.take() {
            blocker.end();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn drain(spool: &SqliteSpool, entries: &mut [Claimed<Entry>], blocker: &mut Option<Blocker>) {
    for entry in entries {
        entry.envelope.recipients[0].state = RecipientState::Delivered;
        let (id, claim, envelope) = (entry.id, entry.claim, &entry.envelope);
        persist(blocker, async || change(spool, id, envelope).await).await;
        persist(blocker, async || spool.remove(claim).await).await;
    }
}

fn make_old(database: &Path) {
    let old = rusqlite::Connection::open(database).expect("a database");
    old.execute_batch("PRAGMA auto_vacuum = NONE; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("rewritten");
}

async fn fill_and_drain(disk: &Path, order: Order) {
    let folder = disk.join("spool");
    let database = folder.join("queue.db");
    let open = || SqliteSpool::open(&folder).expect("a spool");
    drop(open());
    if order.is_old() {
        make_old(&database);
    }
    let mut spool = open();
    put(&spool, "first@example.org", b"x").await;
    let mut blocker = Blocker::start(order, &folder);
    let mut queued = fill_with_mail(&spool).await;
    let accepted = queued.len();
    assert!(accepted > 300, "{order:?}: {accepted} were accepted");
    if order == Order::Restart {
        drop(spool);
        spool = open();
    }
    if order.is_filled_up() {
        fill(disk);
    }
    let rest = order.kept(accepted);
    drain(&spool, &mut queued[rest..], &mut blocker).await;
    queued.truncate(rest);
    if let Some(blocker) = blocker {
        blocker.end();
    }
    if order == Order::RestartAfter {
        drop(spool);
        spool = open();
    }
    if order.is_filled_up() {
        std::fs::remove_file(disk.join("filler")).expect("removed");
    }
    persist(&mut None, async || spool.admit(0)).await;
    // What is free in the database and its log is used again, or was given back.
    let again = take_again(&spool, accepted * 2 / 3).await;
    drop(spool);
    let spool = open();
    let there = ids(&spool).await;
    assert_eq!(there.len(), 1 + queued.len() + again, "{order:?}");
    for (seed, entry) in (0..).zip(&queued) {
        let loaded = spool.load(entry.id).await.expect("sound");
        assert_eq!(
            read(&loaded.body).await.expect("sound"),
            content(seed, IN_ROW)
        );
    }
}

/// Stores so many messages, each as soon as there is room.
async fn take_again(spool: &SqliteSpool, count: usize) -> usize {
    for seed in 0..count {
        let seed = seed as u64;
        persist(&mut None, async || {
            let mut draft = spool.draft();
            draft.write(&content(seed, IN_ROW)).await?;
            spool.commit(draft, envelope("b@example.org")).await
        })
        .await;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: .ci/durability"]
async fn a_disk_that_mail_filled_takes_mail_again_when_it_is_delivered() {
    for order in [
        Order::Plain,
        Order::OldDatabase,
        Order::MostDrained,
        Order::MostDrainedOld,
        Order::Restart,
        Order::RestartAfter,
        Order::NothingLeft,
        Order::Reader,
        Order::ReaderAndNothingLeft,
        Order::Checkpoints,
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(mounted) = Mounted::on(folder.path().to_owned(), 64 << 20) else {
            return;
        };
        let began = Instant::now();
        fill_and_drain(folder.path(), order).await;
        println!("{order:?}: {:?}", began.elapsed());
        drop(mounted);
    }
}
