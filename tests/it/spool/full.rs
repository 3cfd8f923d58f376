//! A disk that is full to the last octet: new mail is refused, the queue is worked off, and mail is
//! taken again as soon as there is room.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use gatepost::smtp::envelope::RecipientState;
use gatepost::storage::spool::{Claimed, Entry, Options, Spool as _, SpoolError, SqliteSpool};

use super::{LARGE, change, content, envelope, ids, put, read};
use crate::support::claims::remove;
use crate::support::database_lock::DatabaseLock;
use crate::support::disk::Mounted;

fn fill(disk: &Path) {
    File::create(disk.join("filler")).expect("room for a name");
    fill_more(disk);
}

/// Makes the file that fills the disk larger.
fn fill_more(disk: &Path) {
    let filler = File::options().append(true).open(disk.join("filler"));
    let mut filler = filler.expect("it is there");
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

/// A message that was not removed is there after the next start, as it was stored.
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
    // A measurement of the full disk may still be valid.
    persist(&spool, &mut None, async || spool.admit(LARGE as u64)).await;
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

/// An order of events in which a full disk is drained.
#[derive(Debug, Clone, Copy)]
struct Order {
    name: &'static str,
    /// The size of the disk in MiB, and of a message in octets.
    disk: u64,
    size: usize,
    /// The database is one of a version that could not give pages back.
    is_old: bool,
    /// Another program, from before the disk is full until a write fails.
    other: Option<OtherProgram>,
    /// A tenth stays.
    tenth_stays: bool,
    restart: Option<Restart>,
    /// A foreign file takes all space that is left before the queue is drained, and stays.
    nothing_left: bool,
}

/// Another program that keeps the log from being moved.
#[derive(Debug, Clone, Copy)]
enum OtherProgram {
    Reads,
    LocksCheckpoints,
}

/// The time at which the spool is closed and opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    BeforeDrain,
    AfterDrain,
}

const PLAIN: Order = Order {
    name: "plain",
    disk: 32,
    // It stays in its row.
    size: 20_000,
    is_old: false,
    other: None,
    tenth_stays: false,
    restart: None,
    nothing_left: false,
};

#[rustfmt::skip]
const ORDERS: &[Order] = &[
    PLAIN,
    Order { name: "large disk", disk: 64, ..PLAIN },
    Order { name: "small messages", disk: 16, size: 2_000, ..PLAIN },
    Order { name: "messages with files", size: LARGE, ..PLAIN },
    Order { name: "old", is_old: true, ..PLAIN },
    Order { name: "a tenth stays", tenth_stays: true, ..PLAIN },
    Order { name: "old, a tenth stays", is_old: true, tenth_stays: true, ..PLAIN },
    Order { name: "restart", restart: Some(Restart::BeforeDrain), ..PLAIN },
    Order { name: "drained, restart", restart: Some(Restart::AfterDrain), ..PLAIN },
    Order { name: "nothing left", nothing_left: true, ..PLAIN },
    Order { name: "nothing left, small messages", disk: 16, size: 2_000, nothing_left: true, ..PLAIN },
    Order { name: "nothing left, messages with files", size: LARGE, nothing_left: true, ..PLAIN },
    Order { name: "nothing left, a tenth stays", nothing_left: true, tenth_stays: true, ..PLAIN },
    Order { name: "nothing left, restart", nothing_left: true, restart: Some(Restart::BeforeDrain), ..PLAIN },
    Order { name: "nothing left, drained, restart", nothing_left: true, restart: Some(Restart::AfterDrain), ..PLAIN },
    Order { name: "reader", other: Some(OtherProgram::Reads), ..PLAIN },
    Order { name: "reader, nothing left", other: Some(OtherProgram::Reads), nothing_left: true, ..PLAIN },
    Order { name: "reader, a tenth stays, restart", other: Some(OtherProgram::Reads), tenth_stays: true,
        restart: Some(Restart::BeforeDrain), ..PLAIN },
    Order { name: "checkpoints locked", other: Some(OtherProgram::LocksCheckpoints), ..PLAIN },
    Order { name: "checkpoints locked, nothing left, a tenth stays", other: Some(OtherProgram::LocksCheckpoints),
        nothing_left: true, tenth_stays: true, ..PLAIN },
];

/// The most rounds of the mover that one write may need on a full disk.
const ROUNDS: usize = 100;
/// The pause after a round: longer than a measurement of the disk is valid.
const PAUSE: Duration = Duration::from_millis(120);

/// Stores messages until the disk is full.
async fn fill_with_mail(spool: &SqliteSpool, size: usize) -> Vec<Claimed<Entry>> {
    let mut accepted = Vec::new();
    loop {
        let mut draft = spool.draft();
        let stored = match draft.write(&content(accepted.len() as u64, size)).await {
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

/// Repeats a write after each round of the mover, as often as [`ROUNDS`]. Once it fails, the
/// administrator ends the other program.
async fn persist<T>(
    spool: &SqliteSpool,
    blocker: &mut Option<DatabaseLock>,
    mut write: impl AsyncFnMut() -> Result<T, SpoolError>,
) -> T {
    let mut last = None;
    for _ in 0..ROUNDS {
        match write().await {
            Ok(done) => return done,
            Err(error) => last = Some(error),
        }
        if let Some(blocker) = blocker.take() {
            blocker.end();
        }
        // The first answer comes before the round is over.
        for _ in 0..2 {
            spool.ping().await.expect("the engine works");
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("a write fails for {ROUNDS} rounds: {last:?}");
}

async fn drain(
    spool: &SqliteSpool,
    entries: &mut [Claimed<Entry>],
    blocker: &mut Option<DatabaseLock>,
) {
    for entry in entries {
        entry.envelope.recipients[0].state = RecipientState::Delivered;
        let (id, envelope) = (entry.id, &entry.envelope);
        persist(spool, blocker, async || change(spool, id, envelope).await).await;
        persist(spool, blocker, async || remove(spool, id).await).await;
    }
}

fn make_old(database: &Path) {
    let old = rusqlite::Connection::open(database).expect("a database");
    old.execute_batch("PRAGMA auto_vacuum = NONE; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("rewritten");
}

async fn fill_and_drain(disk: &Path, order: &Order) {
    let name = order.name;
    let folder = disk.join("spool");
    let open = || SqliteSpool::open(&folder).expect("a spool");
    drop(open());
    if order.is_old {
        make_old(&folder.join("queue.db"));
    }
    let mut spool = open();
    put(&spool, "first@example.org", b"x").await;
    let mut blocker = order.other.map(|other| match other {
        OtherProgram::Reads => DatabaseLock::reader(&folder),
        OtherProgram::LocksCheckpoints => DatabaseLock::checkpoints(&folder),
    });
    let mut queued = fill_with_mail(&spool, order.size).await;
    let accepted = queued.len();
    assert!(accepted > 50, "{name}: {accepted} were accepted");
    if order.restart == Some(Restart::BeforeDrain) {
        drop(spool);
        spool = open();
    }
    if order.nothing_left {
        fill(disk);
    }
    let rest = if order.tenth_stays { accepted / 10 } else { 0 };
    drain(&spool, &mut queued[rest..], &mut blocker).await;
    queued.truncate(rest);
    if let Some(blocker) = blocker {
        blocker.end();
    }
    if order.restart == Some(Restart::AfterDrain) {
        drop(spool);
        spool = open();
    }
    // What is free in the database and its log is used again, or was given back.
    let again = take_again(&spool, (accepted - rest) * 2 / 3, order.size).await;
    drop(spool);
    let spool = open();
    let there = ids(&spool).await;
    assert_eq!(there.len(), 1 + queued.len() + again, "{name}");
    for (seed, entry) in (0..).zip(&queued) {
        let loaded = spool.load(entry.id).await.expect("sound");
        let expected = content(seed, order.size);
        assert_eq!(read(&loaded.body).await.expect("sound"), expected, "{name}");
    }
}

/// Stores so many messages, each as soon as there is room.
async fn take_again(spool: &SqliteSpool, count: usize, size: usize) -> usize {
    for seed in 0..count {
        let seed = seed as u64;
        persist(spool, &mut None, async || {
            let mut draft = spool.draft();
            draft.write(&content(seed, size)).await?;
            spool.commit(draft, envelope("b@example.org")).await
        })
        .await;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: .ci/durability"]
async fn a_disk_that_mail_filled_takes_mail_again_when_it_is_delivered() {
    for order in ORDERS {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(mounted) = Mounted::on(folder.path().to_owned(), order.disk << 20) else {
            return;
        };
        println!("{}", order.name);
        fill_and_drain(folder.path(), order).await;
        drop(mounted);
    }
}

/// Opens the spool on a small disk. Its mover works only when it is asked to.
fn open_slow(disk: &Path) -> SqliteSpool {
    let options = Options {
        move_after: Some(Duration::from_hours(1)),
        ..Options::default()
    };
    SqliteSpool::open_with(&disk.join("spool"), &options).expect("a spool")
}

/// A spool on a small disk, whose mover works only when it is asked to. The write-ahead log of its
/// database has its space already.
async fn on_small_disk(disk: &Path) -> (SqliteSpool, Vec<Claimed<Entry>>) {
    let spool = open_slow(disk);
    let mut entries = Vec::new();
    for seed in 0..30 {
        entries.push(put(&spool, "a@example.org", &content(seed, 20_000)).await);
    }
    spool.flush().await.expect("moved");
    (spool, entries)
}

/// There is space for some of the messages, but not for all of them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: .ci/durability"]
async fn what_the_disk_has_space_for_is_moved_if_not_all_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mounted) = Mounted::on(folder.path().to_owned(), 64 << 20) else {
        return;
    };
    let (spool, mut entries) = on_small_disk(folder.path()).await;
    for seed in 30..75 {
        entries.push(put(&spool, "a@example.org", &content(seed, 20_000)).await);
    }
    // The second answer comes after a round in which the log gives back what nothing needs.
    for _ in 0..2 {
        spool.ping().await.expect("the engine works");
    }
    std::fs::remove_file(folder.path().join("spool/reserve")).expect("it was made");
    fill(folder.path());
    let filler = folder.path().join("filler");
    let file = File::options()
        .write(true)
        .open(&filler)
        .expect("it is there");
    let length = file.metadata().expect("readable").len();
    file.set_len(length - 600_000).expect("shorter");
    let before = spool.stats().moved;
    let refused = spool.flush().await.expect_err("the disk is full");
    assert!(refused.to_string().contains("cannot grow"), "{refused}");
    let moved = spool.stats().moved - before;
    assert!((1..45).contains(&moved), "{moved} were moved");
    std::fs::remove_file(filler).expect("removed");
    spool.flush().await.expect("there is space");
    assert_eq!(spool.stats().moved - before, 45);
    drop(spool);
    let spool = SqliteSpool::open(&folder.path().join("spool")).expect("a spool");
    for (seed, entry) in (0..).zip(&entries) {
        let loaded = spool.load(entry.id).await.expect("sound");
        let read = read(&loaded.body).await.expect("sound");
        assert_eq!(read, content(seed, 20_000));
    }
    drop((spool, mounted));
}

/// A state that needs another page would stay in the write-ahead log, and keep all others out of the
/// database.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: .ci/durability"]
async fn states_that_fit_into_the_database_are_moved_on_a_full_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mounted) = Mounted::on(folder.path().to_owned(), 16 << 20) else {
        return;
    };
    let (spool, mut entries) = on_small_disk(folder.path()).await;
    std::fs::remove_file(folder.path().join("spool/reserve")).expect("it was made");
    fill(folder.path());
    let before = spool.stats().moved;
    entries[0].envelope.envid = Some("x".repeat(100_000));
    for (round, at) in [(1, 0..3), (2, 3..6)] {
        for entry in &mut entries[at] {
            entry.envelope.recipients[0].state = RecipientState::Delivered;
            change(&spool, entry.id, &entry.envelope)
                .await
                .expect("the log has space");
        }
        spool.flush().await.expect_err("one needs new pages");
        let moved = spool.stats().moved - before;
        assert_eq!(moved, 3 * round - 1, "all but the one, round {round}");
    }
    std::fs::remove_file(folder.path().join("filler")).expect("removed");
    spool.flush().await.expect("there is space");
    drop(spool);
    has_the_states(&folder.path().join("spool"), &entries).await;
    drop(mounted);
}

/// States of mail that is deferred come again and again. The log has the last of its space for removals,
/// which make the space for all others.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: .ci/durability"]
async fn the_last_space_of_the_log_is_for_removals() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mounted) = Mounted::on(folder.path().to_owned(), 16 << 20) else {
        return;
    };
    let (spool, mut entries) = on_small_disk(folder.path()).await;
    std::fs::remove_file(folder.path().join("spool/reserve")).expect("it was made");
    fill(folder.path());
    // Small ones would find space where large ones do not.
    for length in [10_000, 100] {
        let mut refused = None;
        for at in 0..2000 {
            let count = entries.len();
            let entry = &mut entries[at % count];
            // It needs a page that the database does not have.
            entry.envelope.envid = Some(format!("{at:0length$}"));
            let changed = change(&spool, entry.id, &entry.envelope).await;
            // What the mover gives back must not be used by this test.
            fill_more(folder.path());
            if let Err(error) = changed {
                refused = Some(error);
                break;
            }
        }
        assert!(matches!(refused, Some(SpoolError::Full(_))), "{refused:?}");
    }
    for entry in entries {
        spool.remove(entry.claim).await.expect("the log has space");
    }
    drop((spool, mounted));
}

/// They change more pages than the write-ahead log of the database has space for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: .ci/durability"]
async fn many_removals_are_moved_at_once_on_a_full_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mounted) = Mounted::on(folder.path().to_owned(), 16 << 20) else {
        return;
    };
    let (spool, mut entries) = on_small_disk(folder.path()).await;
    for seed in 30..630 {
        entries.push(put(&spool, "a@example.org", &content(seed, 2_000)).await);
    }
    // Closed, so that the write-ahead log is new.
    drop(spool);
    let spool = open_slow(folder.path());
    let last = put(&spool, "a@example.org", b"x").await;
    std::fs::remove_file(folder.path().join("spool/reserve")).expect("it was made");
    fill(folder.path());
    // Each page that has an even one has an odd one, too.
    for entry in entries.iter().step_by(2) {
        remove(&spool, entry.id).await.expect("the log has space");
    }
    spool.remove(last.claim).await.expect("the log has space");
    let before = spool.stats().moved;
    fill_more(folder.path());
    spool.flush().await.expect("moved in parts");
    assert_eq!(spool.stats().moved - before, 315);
    drop((spool, mounted));
}

async fn has_the_states(folder: &Path, entries: &[Claimed<Entry>]) {
    let spool = SqliteSpool::open(folder).expect("a spool");
    for entry in entries {
        let loaded = spool.load(entry.id).await.expect("sound");
        assert_eq!(loaded.envelope, entry.envelope);
    }
}

/// Other programs fill the disk after a start, and after the write-ahead log was emptied.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: .ci/durability"]
async fn removals_are_moved_although_the_log_of_the_database_is_new() {
    for is_restarted in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(mounted) = Mounted::on(folder.path().to_owned(), 16 << 20) else {
            return;
        };
        let place = folder.path().join("spool");
        let (mut spool, mut entries) = on_small_disk(folder.path()).await;
        if is_restarted {
            drop(spool);
            spool = SqliteSpool::open(&place).expect("a spool");
            entries.push(put(&spool, "a@example.org", b"x").await);
        } else {
            let reader = DatabaseLock::reader(&place);
            entries.extend(fill_with_mail(&spool, 20_000).await);
            reader.end();
            spool.flush().await.expect("nobody reads it");
        }
        std::fs::remove_file(place.join("reserve")).expect("it was made");
        fill(folder.path());
        if !is_restarted {
            let wal = place.join("queue.db-wal");
            let is_empty = || wal.metadata().is_ok_and(|wal| wal.len() == 0);
            while !is_empty() {
                spool.ping().await.expect("the engine works");
                tokio::time::sleep(PAUSE).await;
            }
            for _ in 0..2 {
                spool.ping().await.expect("the engine works");
            }
            fill_more(folder.path());
        }
        for entry in &entries {
            remove(&spool, entry.id).await.expect("the log has space");
        }
        let moved = spool.flush().await;
        assert!(moved.is_ok(), "{is_restarted}: {moved:?}");
        drop((spool, mounted));
    }
}
