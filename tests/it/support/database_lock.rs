//! Other programs that keep the write-ahead log of a spool's database from being moved.

use std::cell::RefCell;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

/// Many times the time that a lock takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// Another program that keeps the log from being moved, until its end.
#[derive(Debug)]
pub(crate) enum DatabaseLock {
    /// A program that reads the database.
    Reader(Connection),
    /// A program that has the lock of checkpoints.
    Checkpoints(SyncSender<()>, JoinHandle<()>),
}

thread_local! {
    /// Reports that checkpoints are locked, and waits until they may be unlocked.
    static LOCKED: RefCell<Option<(SyncSender<()>, Receiver<()>)>> = const { RefCell::new(None) };
}

fn keep_locked(_: i32) -> bool {
    if let Some((locked, unlock)) = LOCKED.take() {
        locked.send(()).expect("the test waits");
        // An end of the test ends the lock as well.
        let _ended = unlock.recv();
    }
    false
}

impl DatabaseLock {
    /// Reads the database of the spool in `folder`.
    pub(crate) fn reader(folder: &Path) -> Self {
        let reader = Connection::open(folder.join("queue.db")).expect("opens beside us");
        let reads = reader.execute_batch("BEGIN; SELECT count(*) FROM message");
        reads.expect("read");
        Self::Reader(reader)
    }

    /// Keeps the lock of checkpoints: a checkpoint gets that lock first, and then waits for the
    /// writer.
    pub(crate) fn checkpoints(folder: &Path) -> Self {
        let database = folder.join("queue.db");
        let writer = Connection::open(&database).expect("opens beside us");
        writer.busy_timeout(PATIENCE).expect("set");
        writer.execute_batch("BEGIN IMMEDIATE").expect("begun");
        let ((locked, is_locked), (unlock, unlocked)) = (sync_channel(1), sync_channel(1));
        let thread = std::thread::spawn(move || {
            LOCKED.set(Some((locked, unlocked)));
            let mut holder = Connection::open(&database).expect("opens beside us");
            // A connection that has read nothing does not know of the log.
            let read = holder.execute_batch("SELECT count(*) FROM message");
            read.expect("read");
            holder.busy_handler(Some(keep_locked)).expect("set");
            let mode = CheckpointMode::FULL;
            // A passive one in the end, which SQLite calls busy.
            let _busy = holder.wal_checkpoint_v2(rusqlite::MAIN_DB.into(), mode);
        });
        is_locked.recv_timeout(PATIENCE).expect("locked");
        writer.execute_batch("ROLLBACK").expect("ended");
        Self::Checkpoints(unlock, thread)
    }

    /// Ends the program.
    pub(crate) fn end(self) {
        match self {
            Self::Reader(reader) => drop(reader),
            Self::Checkpoints(unlock, holder) => {
                unlock.send(()).expect("it waits");
                holder.join().expect("no panic");
            }
        }
    }
}
