//! Checkpoints of the write-ahead log, without stalling the writer.
//!
//! SQLite restarts the log from its beginning only when all of it is in the database. While
//! sessions write without pause that never happens by itself. So a thread of its own, the
//! checkpointer, moves most of the log and syncs it, several times if necessary, until little is
//! left. The writer moves that remainder between two transactions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use super::paths::SpoolPaths;
use super::schema::{database_error, is_fatal};

/// The length of the log, in pages, above which it is moved.
const MOVE_ABOVE: u32 = 4096;
/// The number of pages that the writer may move itself.
const LITTLE: u32 = 256;
/// The number of passes of the checkpointer before the writer moves the remainder, however long it
/// is.
const PASSES: u32 = 4;
/// The idle time after which the whole log is moved, so that the database file is complete.
const IDLE: Duration = Duration::from_secs(1);

/// The disk failed, which has been logged; the threads of the engine must end.
pub(super) struct Fatal;

/// The state of the log, shared by the writer and the checkpointer.
#[derive(Debug, Default)]
pub(super) struct Wal {
    /// The length of the log in pages.
    frames: Arc<AtomicU32>,
    state: Mutex<WalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WalState {
    phase: CheckpointPhase,
    /// The length above which the log is moved next, if that is more than [`MOVE_ABOVE`].
    above: u32,
    /// The number of transactions so far, and how many of them are known to be in the database.
    written: u64,
    moved: u64,
    stopped: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum CheckpointPhase {
    /// Nothing to do.
    #[default]
    Idle,
    /// The checkpointer must move most of the log.
    Requested,
    /// The checkpointer has done so, and the writer must move the remainder.
    BulkMoved,
}

impl Wal {
    /// Returns the counter in which the writer stores the length of the log in pages.
    pub(super) fn frames(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.frames)
    }

    /// Does the writer's part of a checkpoint; called after each transaction.
    pub(super) fn after_transaction(
        &self,
        writer: &Connection,
        paths: &SpoolPaths,
    ) -> Result<(), Fatal> {
        let frames = self.frames.load(Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.written += 1;
        let first = state.written == state.moved + 1;
        match state.phase {
            CheckpointPhase::Idle if frames > state.above.max(MOVE_ABOVE) => {
                state.phase = CheckpointPhase::Requested;
            }
            CheckpointPhase::Idle | CheckpointPhase::Requested if !first => return Ok(()),
            CheckpointPhase::Idle | CheckpointPhase::Requested => {}
            CheckpointPhase::BulkMoved => {
                state.phase = CheckpointPhase::Idle;
                let (log, done) = checkpoint(writer, paths, CheckpointMode::PASSIVE)?;
                // A reader still uses the log, so it grows until that reader ends.
                state.above = if done < log {
                    log.saturating_add(MOVE_ABOVE)
                } else {
                    0
                };
                return Ok(());
            }
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Ends the checkpointer.
    pub(super) fn stop(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stopped = true;
        self.changed.notify_one();
    }

    /// Runs until [`Wal::stop`].
    pub(super) fn run_checkpointer(
        &self,
        connection: &Connection,
        paths: &SpoolPaths,
    ) -> Result<(), Fatal> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.stopped {
            let written = state.written;
            if state.phase == CheckpointPhase::Requested {
                drop(state);
                self.move_bulk(connection, paths)?;
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.phase = CheckpointPhase::BulkMoved;
            } else if state.moved == written {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            } else {
                let waited = self
                    .changed
                    .wait_timeout(state, IDLE)
                    .unwrap_or_else(PoisonError::into_inner);
                state = waited.0;
                if waited.1.timed_out() && state.written == written {
                    drop(state);
                    checkpoint(connection, paths, CheckpointMode::PASSIVE)?;
                    state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    state.moved = written;
                }
            }
        }
        Ok(())
    }

    fn move_bulk(&self, connection: &Connection, paths: &SpoolPaths) -> Result<(), Fatal> {
        for _ in 0..PASSES {
            let (_, done) = checkpoint(connection, paths, CheckpointMode::PASSIVE)?;
            if self.frames.load(Ordering::Relaxed).saturating_sub(done) <= LITTLE {
                break;
            }
        }
        Ok(())
    }
}

/// Runs a checkpoint. Returns the length of the log in pages and how many of them are in the
/// database now.
pub(super) fn checkpoint(
    connection: &Connection,
    paths: &SpoolPaths,
    mode: CheckpointMode,
) -> Result<(u32, u32), Fatal> {
    let error = match connection.wal_checkpoint_v2(rusqlite::MAIN_DB.into(), mode) {
        Ok((log, done)) => {
            return Ok((
                u32::try_from(log).unwrap_or(0),
                u32::try_from(done).unwrap_or(0),
            ));
        }
        Err(error) => error,
    };
    let text = database_error(paths, "move the log into", &error).to_string();
    if is_fatal(paths, &error) {
        tracing::error!(error = text, "spool failed; the process must restart");
        return Err(Fatal);
    }
    // The disk is full or a reader is active: nothing is lost, and the next checkpoint may succeed.
    if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) {
        tracing::warn!(error = text, "spool log not moved into the database");
    }
    Ok((u32::MAX, 0))
}
