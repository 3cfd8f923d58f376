//! Checkpoints of the write-ahead log, without stalling the writer.
//!
//! SQLite restarts the log from its beginning only when all of it is in the database. While
//! sessions write without pause that never happens by itself. So a thread of its own, the
//! checkpointer, moves most of the log and syncs it, several times if necessary, until little is
//! left. The writer moves that remainder between two transactions.
//!
//! A checkpoint that fails, or that a reader blocks, is repeated after more growth and after some
//! time. Meanwhile the log grows; above a limit new mail is rejected, but never a state or a
//! removal.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use super::super::database_space::DatabaseSpace;
use super::super::draft::Drafts;
use super::paths::SpoolPaths;
use super::schema::{database_error, is_fatal};
use crate::storage::sqlite::BUSY;
use crate::telemetry::{LogMove, Monitor};

/// The length of the log, in pages, above which it is moved.
const MOVE_ABOVE: u32 = 4096;
/// The number of pages that the writer may move itself.
const LITTLE: u32 = 256;
/// The number of passes of the checkpointer before the writer moves the remainder, however long it
/// is.
const PASSES: u32 = 4;
/// The idle time after which the whole log is moved, so that the database file is complete.
const IDLE: Duration = Duration::from_secs(1);
/// The time after which a blocked or failed move is tried again, also without more growth.
const RETRY: Duration = Duration::from_secs(5);
/// The length of the log, in pages, above which a blocked move is an error. A reader of a moment is
/// none.
const REPORT_ABOVE: u32 = 16_384;

/// The disk failed, which has been logged; the threads of the engine must end.
pub(super) struct Fatal;

/// The outcome of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CheckpointOutcome {
    /// The length of the log in pages, and the number of them that are in the database now.
    Moved { log: u32, done: u32 },
    /// Another connection runs a checkpoint, or reads what is to be replaced.
    Blocked,
    /// The disk is full, or the database could not be written; nothing is lost. The text describes
    /// the error.
    Failed(String),
}

/// The reason why the log is not moved.
#[derive(Debug, Clone, PartialEq, Eq)]
enum MoveFault {
    /// A reader still uses the log, or another connection runs a checkpoint.
    Blocked,
    /// The database could not be written.
    Failed(String),
}

impl MoveFault {
    fn cause(&self) -> &str {
        match self {
            Self::Blocked => {
                "another program reads the database or locks its log; end that sqlite3 or backup"
            }
            Self::Failed(text) => text,
        }
    }

    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// The state of the log, shared by the writer and the checkpointer.
#[derive(Debug)]
pub(super) struct Wal {
    space: Arc<DatabaseSpace>,
    drafts: Arc<Drafts>,
    monitor: Monitor,
    state: Mutex<WalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WalState {
    phase: CheckpointPhase,
    /// The length of the log after the last transaction.
    pages: u32,
    /// The length above which the log is moved next, if that is more than [`MOVE_ABOVE`].
    above: u32,
    /// The time after which the log is moved next, however long it is.
    retry: Option<Instant>,
    /// The length of the log when all of it was in the database, since it last started again.
    complete: u32,
    fault: Option<MoveFault>,
    /// Set when the fault was logged.
    reported: bool,
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

impl WalState {
    /// Records the length of the log after a transaction. A shorter log has started again.
    fn set_length(&mut self, pages: u32) {
        if pages < self.pages {
            self.restarted();
        }
        self.pages = pages;
    }

    fn restarted(&mut self) {
        self.pages = 0;
        self.above = 0;
        self.retry = None;
        self.complete = 0;
        self.fault = None;
        if std::mem::take(&mut self.reported) {
            tracing::info!("spool log moved into the database again");
        }
    }

    fn is_due(&self) -> bool {
        self.pages > MOVE_ABOVE
            && (self.pages > self.above || self.retry.is_some_and(|at| at <= Instant::now()))
    }

    /// Records the outcome of a move, and when the next one is due unless the log starts again.
    fn record(&mut self, outcome: CheckpointOutcome, monitor: &Monitor) {
        let fault = match outcome {
            // All of it was moved before, and the log did not start again.
            CheckpointOutcome::Moved { log, done } if done < log || self.complete > MOVE_ABOVE => {
                Some(MoveFault::Blocked)
            }
            CheckpointOutcome::Moved { log, .. } => {
                self.complete = log;
                None
            }
            CheckpointOutcome::Blocked => Some(MoveFault::Blocked),
            CheckpointOutcome::Failed(text) => Some(MoveFault::Failed(text)),
        };
        self.above = self.pages.saturating_add(MOVE_ABOVE);
        self.retry = Some(Instant::now() + RETRY);
        monitor.spool_log_move(match &fault {
            None => LogMove::Complete,
            Some(MoveFault::Failed(_)) => LogMove::Failed,
            Some(MoveFault::Blocked) => LogMove::Blocked,
        });
        let was_failure = self.fault.as_ref().is_some_and(MoveFault::is_failure);
        if let Some(fault) = &fault {
            let is_news = !self.reported || fault.is_failure() && !was_failure;
            if is_news && (fault.is_failure() || self.pages > REPORT_ABOVE) {
                self.reported = true;
                let log = DatabaseSpace::octets(self.pages);
                tracing::error!(
                    log,
                    cause = fault.cause(),
                    "spool log not moved into the database and growing; trying again"
                );
            }
        }
        self.fault = fault;
    }
}

impl Wal {
    pub(super) fn new(space: Arc<DatabaseSpace>, drafts: Arc<Drafts>, monitor: Monitor) -> Self {
        Self {
            space,
            drafts,
            monitor,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Does the writer's part of a checkpoint; called after each transaction.
    pub(super) fn after_transaction(
        &self,
        writer: &Connection,
        paths: &SpoolPaths,
    ) -> Result<(), Fatal> {
        let pages = self.space.log();
        self.monitor.spool_log(DatabaseSpace::octets(pages));
        let mut state = self.lock();
        state.set_length(pages);
        state.written += 1;
        let first = state.written == state.moved + 1;
        match state.phase {
            CheckpointPhase::Idle if state.is_due() => {
                state.phase = CheckpointPhase::Requested;
            }
            CheckpointPhase::Idle | CheckpointPhase::Requested if !first => return Ok(()),
            CheckpointPhase::Idle | CheckpointPhase::Requested => {}
            CheckpointPhase::BulkMoved => {
                state.phase = CheckpointPhase::Idle;
                let outcome = self.checkpoint_with_reserve(writer, paths)?;
                state.record(outcome, &self.monitor);
                return Ok(());
            }
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Moves what can be moved, so that the log can start again with the next transaction.
    pub(super) fn move_now(&self, writer: &Connection, paths: &SpoolPaths) -> Result<(), Fatal> {
        match self.checkpoint_with_reserve(writer, paths)? {
            // The checkpointer is moving it.
            CheckpointOutcome::Blocked => {}
            outcome => self.lock().record(outcome, &self.monitor),
        }
        Ok(())
    }

    /// Ends the checkpointer.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_one();
    }

    /// Runs until [`Wal::stop`].
    pub(super) fn run_checkpointer(
        &self,
        connection: &Connection,
        paths: &SpoolPaths,
    ) -> Result<(), Fatal> {
        let mut state = self.lock();
        while !state.stopped {
            let written = state.written;
            if state.phase == CheckpointPhase::Requested {
                drop(state);
                let outcome = self.move_bulk(connection, paths)?;
                state = self.lock();
                state.phase = CheckpointPhase::BulkMoved;
                // One that failed is repeated by the writer, with the reserve.
                if outcome == CheckpointOutcome::Blocked {
                    state.phase = CheckpointPhase::Idle;
                    state.record(outcome, &self.monitor);
                }
            } else if state.moved == written {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            } else {
                let pause = if state.fault.is_some() { RETRY } else { IDLE };
                let waited = self
                    .changed
                    .wait_timeout(state, pause)
                    .unwrap_or_else(PoisonError::into_inner);
                state = waited.0;
                if waited.1.timed_out() && state.written == written {
                    state = self.move_idle(state, connection, paths)?;
                }
            }
        }
        Ok(())
    }

    fn move_bulk(
        &self,
        connection: &Connection,
        paths: &SpoolPaths,
    ) -> Result<CheckpointOutcome, Fatal> {
        let mut last = checkpoint(connection, paths, CheckpointMode::PASSIVE)?;
        for _ in 1..PASSES {
            let CheckpointOutcome::Moved { done, .. } = last else {
                break;
            };
            if self.space.log().saturating_sub(done) <= LITTLE {
                break;
            }
            last = checkpoint(connection, paths, CheckpointMode::PASSIVE)?;
        }
        Ok(last)
    }

    /// Moves the whole log, since nobody writes. A long one starts again at once: while new mail is
    /// rejected because of its length, there may be no transaction that starts it again.
    fn move_idle<'a>(
        &'a self,
        state: MutexGuard<'a, WalState>,
        connection: &Connection,
        paths: &SpoolPaths,
    ) -> Result<MutexGuard<'a, WalState>, Fatal> {
        let (written, pages) = (state.written, state.pages);
        drop(state);
        let mut outcome = self.checkpoint_with_reserve(connection, paths)?;
        let is_complete = matches!(outcome, CheckpointOutcome::Moved { log, done } if done >= log);
        let is_long = pages > MOVE_ABOVE || self.space.log_over_limit().is_some();
        let restarts = is_complete && is_long;
        if restarts {
            // The writer must not wait for a reader.
            let wait = |time| {
                let failed = |error| database_error(paths, "set up", &error).to_string();
                connection.busy_timeout(time).map_err(failed)
            };
            outcome = match wait(Duration::ZERO) {
                Ok(()) => checkpoint(connection, paths, CheckpointMode::TRUNCATE)?,
                Err(text) => CheckpointOutcome::Failed(text),
            };
            if let Err(text) = wait(BUSY) {
                outcome = CheckpointOutcome::Failed(text);
            }
        }
        let mut state = self.lock();
        if state.written == written {
            if restarts && matches!(outcome, CheckpointOutcome::Moved { .. }) {
                self.space.set_log(0);
                self.monitor.spool_log(0);
                self.monitor.spool_log_move(LogMove::Complete);
                state.restarted();
                state.moved = written;
            } else if is_complete && !restarts {
                state.moved = written;
                state.record(outcome, &self.monitor);
            } else {
                state.record(outcome, &self.monitor);
            }
        }
        Ok(state)
    }

    /// Moves what can be moved. On a full disk the room that is reserved for the growth of the
    /// database is given up for it.
    fn checkpoint_with_reserve(
        &self,
        connection: &Connection,
        paths: &SpoolPaths,
    ) -> Result<CheckpointOutcome, Fatal> {
        let outcome = checkpoint(connection, paths, CheckpointMode::PASSIVE)?;
        if !matches!(outcome, CheckpointOutcome::Failed(_))
            || !self.drafts.free_space.release_growth()
        {
            return Ok(outcome);
        }
        checkpoint(connection, paths, CheckpointMode::PASSIVE)
    }

    fn lock(&self) -> MutexGuard<'_, WalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a checkpoint.
pub(super) fn checkpoint(
    connection: &Connection,
    paths: &SpoolPaths,
    mode: CheckpointMode,
) -> Result<CheckpointOutcome, Fatal> {
    let error = match connection.wal_checkpoint_v2(rusqlite::MAIN_DB.into(), mode) {
        Ok((log, done)) => {
            // Both are -1 where there is no log.
            let [log, done] = [log, done].map(|pages| u32::try_from(pages).unwrap_or(0));
            return Ok(CheckpointOutcome::Moved { log, done });
        }
        Err(error) => error,
    };
    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) {
        return Ok(CheckpointOutcome::Blocked);
    }
    let text = database_error(paths, "move the log into", &error).to_string();
    if is_fatal(paths, &error) {
        tracing::error!(error = text, "spool failed; the process must restart");
        return Err(Fatal);
    }
    Ok(CheckpointOutcome::Failed(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_did_not_succeed_is_due_again_after_growth_and_after_time() {
        let monitor = Monitor::default();
        let moved = |done| CheckpointOutcome::Moved { log: 5000, done };
        for outcome in [
            CheckpointOutcome::Blocked,
            CheckpointOutcome::Failed("no space".to_owned()),
            moved(4999),
            moved(5000),
        ] {
            let mut state = WalState::default();
            state.set_length(MOVE_ABOVE);
            assert!(!state.is_due());
            state.set_length(5000);
            assert!(state.is_due());
            state.record(outcome.clone(), &monitor);
            assert!(!state.is_due(), "{outcome:?}: just tried");
            state.set_length(5000 + MOVE_ABOVE + 1);
            assert!(state.is_due(), "{outcome:?}: it has grown");
            state.record(outcome.clone(), &monitor);
            state.retry = Some(Instant::now());
            assert!(state.is_due(), "{outcome:?}: time has passed");
            state.set_length(1);
            assert_eq!((state.above, &state.fault), (0, &None), "{outcome:?}");
        }
    }

    #[test]
    fn a_fault_is_reported_once_and_only_if_it_lasts() {
        let monitor = Monitor::default();
        let mut state = WalState::default();
        for (pages, outcome, reported) in [
            (5000, CheckpointOutcome::Blocked, false),
            (REPORT_ABOVE + 1, CheckpointOutcome::Blocked, true),
            (1, CheckpointOutcome::Moved { log: 1, done: 1 }, false),
            (2, CheckpointOutcome::Failed("no space".to_owned()), true),
        ] {
            state.set_length(pages);
            state.record(outcome, &monitor);
            assert_eq!(state.reported, reported, "{pages}");
        }
    }
}
