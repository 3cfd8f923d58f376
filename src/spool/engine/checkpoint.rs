//! Moving the log into the database without stalling the writer.
//!
//! The log starts again from its beginning only when all of it has been moved, and while sessions write
//! without pause that moment never comes by itself. So the bulk is moved, and synced, by a thread of its
//! own, several times until little is left; that little is moved by the writer between two transactions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use super::super::SpoolError;
use super::super::file::fault;
use super::Core;
use super::home::Paths;
use super::schema::{database_error, is_fatal};
use super::writer::{Ending, Fatal};

/// Pages in the log above which it is moved.
const MOVE_ABOVE: u32 = 4096;
/// Pages that the writer may move itself.
const LITTLE: u32 = 256;
/// How often the bulk is moved before the writer takes the rest, whatever it is.
const PASSES: u32 = 4;
/// Nothing was written for so long: the whole log is moved, so that the database file is complete.
const IDLE: Duration = Duration::from_secs(1);

/// The log, as writer and keeper see it.
#[derive(Debug, Default)]
pub(super) struct Wal {
    /// Pages in it.
    frames: Arc<AtomicU32>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// The next length at which it is moved.
    above: u32,
    /// Transactions so far, and how many of them the keeper knows to be in the database.
    written: u64,
    moved: u64,
    stopped: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing to do.
    #[default]
    Quiet,
    /// The keeper is to move the bulk.
    Wanted,
    /// It has done so, and the writer is to move the rest.
    Bulk,
}

impl Wal {
    /// Where the writer tells how many pages the log has.
    pub(super) fn frames(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.frames)
    }

    /// What the writer does between two transactions.
    pub(super) fn tend(&self, writer: &Connection, paths: &Paths) -> Result<(), Fatal> {
        let frames = self.frames.load(Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.written += 1;
        let first = state.written == state.moved + 1;
        match state.phase {
            Phase::Quiet if frames > state.above.max(MOVE_ABOVE) => state.phase = Phase::Wanted,
            Phase::Quiet | Phase::Wanted if !first => return Ok(()),
            Phase::Quiet | Phase::Wanted => {}
            Phase::Bulk => {
                state.phase = Phase::Quiet;
                let (log, done) = checkpoint(writer, paths, CheckpointMode::PASSIVE)?;
                // A reader still holds the log, so it grows until that reader ends.
                state.above = if done < log { log.saturating_add(MOVE_ABOVE) } else { 0 };
                return Ok(());
            }
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Ends the keeper.
    pub(super) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.changed.notify_one();
    }

    fn keep(&self, keeper: &Connection, paths: &Paths) -> Result<(), Fatal> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.stopped {
            let written = state.written;
            if state.phase == Phase::Wanted {
                drop(state);
                self.move_bulk(keeper, paths)?;
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.phase = Phase::Bulk;
            } else if state.moved == written {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                let waited = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
                state = waited.0;
                if waited.1.timed_out() && state.written == written {
                    drop(state);
                    checkpoint(keeper, paths, CheckpointMode::PASSIVE)?;
                    state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    state.moved = written;
                }
            }
        }
        Ok(())
    }

    fn move_bulk(&self, keeper: &Connection, paths: &Paths) -> Result<(), Fatal> {
        for _ in 0..PASSES {
            let (_, done) = checkpoint(keeper, paths, CheckpointMode::PASSIVE)?;
            if self.frames.load(Ordering::Relaxed).saturating_sub(done) <= LITTLE {
                break;
            }
        }
        Ok(())
    }
}

/// Starts the keeper.
pub(super) fn start(core: Arc<Core>, connection: Connection) -> Result<JoinHandle<()>, SpoolError> {
    let folder = core.paths.folder.clone();
    let run = move || {
        let ending = Ending(core);
        let core = &ending.0;
        if core.wal.keep(&connection, &core.paths).is_ok() {
            // The last word: the log is empty and the database file is all there is. An error is logged,
            // and the log is read again at the next start.
            let _logged = checkpoint(&connection, &core.paths, CheckpointMode::TRUNCATE);
        }
    };
    let named = std::thread::Builder::new().name("spool-keeper".into());
    named.spawn(run).map_err(|error| fault("start the keeper of", &folder, &error))
}

/// Pages in the log, and how many of them are in the database now.
fn checkpoint(connection: &Connection, paths: &Paths, mode: CheckpointMode) -> Result<(u32, u32), Fatal> {
    let error = match connection.wal_checkpoint_v2(rusqlite::MAIN_DB.into(), mode) {
        Ok((log, done)) => return Ok((u32::try_from(log).unwrap_or(0), u32::try_from(done).unwrap_or(0))),
        Err(error) => error,
    };
    let text = database_error(paths, "move the log into", &error).to_string();
    if is_fatal(paths, &error) {
        tracing::error!(error = text, "spool failed, the process must restart");
        return Err(Fatal);
    }
    // Full, or somebody reads: everything is still in the log, and the next try may do better.
    if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) {
        tracing::warn!(error = text, "spool log not moved into the database");
    }
    Ok((u32::MAX, 0))
}
