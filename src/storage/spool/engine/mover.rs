//! The mover: the thread that moves what waits from the log to the database.
//!
//! It is the only writer of the database. A message that is delivered within a second of its
//! acceptance never gets there: its records leave with their segment. The mover checkpoints after
//! each transaction, so the write-ahead log of the database stays small, and removes the segments
//! of the log that nothing needs any more.
//!
//! If the database cannot be written (its disk is full, another program has it locked, or a reader
//! keeps its write-ahead log from being emptied), everything stays in the log, which goes on taking
//! states and removals. New mail is rejected when the log has reached its bound.

mod obstacle;
mod shrink;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::super::SpoolError;
use super::super::file::io_error;
use super::super::log::{AppendError, SegmentReader};
use super::bound::LogShare;
use super::fatal::Fatal;
use super::index::{HeldContent, HeldMessage, Move, MoveEnd, MoveScope, Pending};
use super::queue::CommitGate;
use super::schema::{self, database_error, is_busy, is_fatal, is_full, is_unreadable};
use super::shared::{Core, EndGuard};
use super::signal::{MoverCall, MoverOrder};
use super::table::{self, ApplyError};
use super::unwritten::UnwrittenFile;
use crate::storage::files::{self, allocate_ahead};
use crate::telemetry::LogMove;

/// The age at which what waits is moved to the database.
pub(super) const AGE: Duration = Duration::from_secs(1);
/// The most octets in one transaction.
const MOVE_OCTETS: u64 = 4 << 20;
/// The most differences in one transaction.
const MOVE_COUNT: usize = 2000;
/// The time to wait while another program locks the database. It is tried again in any case.
const BUSY: Duration = Duration::from_secs(1);
/// The multiple of one transaction that the database's write-ahead log may have.
const WAL_SHARE: u64 = 8;

/// Starts the mover.
pub(super) fn start(
    core: Arc<Core>,
    connection: Connection,
    age: Duration,
) -> Result<JoinHandle<()>, SpoolError> {
    let folder = core.paths.folder.clone();
    let unwritten = UnwrittenFile::open(&core.paths)?;
    connection
        .busy_timeout(BUSY)
        .map_err(|error| database_error(&core.paths, "set up", &error))?;
    let database = &core.paths.database;
    let opened = File::options().read(true).write(true).open(database);
    let file = opened.map_err(|error| io_error("open", database, &error))?;
    let run = move || {
        let guard = EndGuard(core);
        let mut mover = Mover {
            connection,
            file,
            core: &guard.0,
            unwritten,
            age,
            obstacle: None,
            unremovable: None,
            is_lost: false,
            wal_octets: 0,
            wal_written: 0,
            open: None,
        };
        mover.keep_wal_space();
        mover.prepare();
        mover.account();
        guard.0.log_resized();
        loop {
            let core = &guard.0;
            // Asked before the wait: the locks in it must not be held over a look at the disk.
            let is_unfinished = mover.has_slack() || core.drafts.free_space.lacks_reserve();
            let has_work = || is_unfinished || !core.index().is_settled();
            let call = core.mover.wait(mover.is_blocked(), has_work);
            let is_stopped = call.is_stopped;
            if mover.round(call).is_err() || is_stopped {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("spool-mover".into())
        .spawn(run)
        .map_err(|error| io_error("start the mover of", &folder, &error))
}

/// The reason why the database cannot be written.
#[derive(Debug)]
struct MoveObstacle {
    result: LogMove,
    text: String,
}

struct Mover<'a> {
    connection: Connection,
    /// The database once more, to allocate space for it. It is open for as long as the connection:
    /// an earlier end would release the locks of all connections in this process.
    file: File,
    core: &'a Core,
    /// The states and removals that cannot be written.
    unwritten: UnwrittenFile,
    /// The age at which what waits is moved.
    age: Duration,
    /// The reason why the database cannot be written.
    obstacle: Option<MoveObstacle>,
    /// The reason why the oldest segment cannot be removed although nothing needs it.
    unremovable: Option<String>,
    /// True while the folder is not this owner's any more, so that nothing is moved or removed.
    is_lost: bool,
    /// The octets of the database's write-ahead log that are not in the database yet.
    wal_octets: u64,
    /// The octets that were written to that log since it last started from its beginning.
    wal_written: u64,
    /// The segment that was read last.
    open: Option<SegmentReader>,
}

impl Mover<'_> {
    /// Returns whether the last round could not make room in the log.
    fn is_blocked(&self) -> bool {
        self.obstacle.is_some() || self.unremovable.is_some() || self.is_lost
    }

    /// Examines the folder again. Once it was lost, it stays lost for this round.
    fn is_ours(&mut self) -> bool {
        self.is_lost |= !self.core.held_folder.is_ours();
        !self.is_lost
    }

    fn round(&mut self, call: MoverCall) -> Result<(), Fatal> {
        self.core.counters.rounds.fetch_add(1, Ordering::Relaxed);
        self.is_lost = false;
        if !self.is_ours() {
            self.skip_round(call);
            return Ok(());
        }
        let mut flushes = Vec::new();
        for order in call.orders {
            match order {
                MoverOrder::Evict(row, _) => {
                    let deleted = self.evict(row)?;
                    order.answer(deleted);
                }
                MoverOrder::Flush(_) => flushes.push(order),
                MoverOrder::Ping(_) => order.answer(Ok(())),
            }
        }
        if call.is_stopped {
            self.core.index().end_segment();
        }
        let now = Instant::now();
        let scope = if call.is_stopped || !flushes.is_empty() {
            MoveScope::All
        } else {
            MoveScope::Since(now.checked_sub(self.age))
        };
        self.move_all(scope)?;
        if call.is_urgent {
            self.move_all(MoveScope::SealedSegments)?;
        }
        self.retire()?;
        if self.is_lost {
            // It was lost meanwhile.
        } else if call.is_stopped {
            schema::empty_wal(&self.connection, &self.core.paths, CheckpointMode::TRUNCATE)?;
        } else {
            self.prepare();
            self.shrink()?;
        }
        self.set_gate();
        for order in flushes {
            order.answer(match &self.obstacle {
                _ if self.is_lost => Err(self.core.held_folder.lease().refusal()),
                Some(obstacle) => Err(SpoolError::Io(obstacle.text.clone())),
                None => Ok(()),
            });
        }
        Ok(())
    }

    /// Answers the orders of a round in which nothing is moved: the paths of the log and of the
    /// database may lead to files of somebody else. New mail that waits for room is rejected.
    fn skip_round(&self, call: MoverCall) {
        self.core.queue.set_gate(CommitGate::Refused);
        let lease = self.core.held_folder.lease();
        for order in call.orders {
            match order {
                MoverOrder::Ping(_) => order.answer(Ok(())),
                MoverOrder::Evict(..) | MoverOrder::Flush(_) => {
                    order.answer(Err(lease.refusal()));
                }
            }
        }
    }

    /// Lets new mail wait for room in the log no longer, or rejects it if there will be none.
    fn set_gate(&self) {
        let is_blocked = self.is_blocked();
        let log = &self.core.log;
        if is_blocked {
            self.account();
        } else if self.core.state_room.is_scarce() && log.has_spare() {
            // There is a segment for states that were rejected before.
            self.core
                .state_room
                .set_rejecting(false, &self.core.monitor);
        }
        let next = self.core.index().log_octets() + log.segment_size();
        let space = &self.core.drafts.free_space;
        space.set_log_full(is_blocked && next > LogShare::Mail.bound(log));
        self.core.queue.set_gate(if is_blocked {
            CommitGate::Refused
        } else {
            CommitGate::Open
        });
    }

    /// Moves all that is in the scope, transaction by transaction, until the database cannot be
    /// written.
    fn move_all(&mut self, scope: MoveScope) -> Result<(), Fatal> {
        let mut obstacle = None;
        if self.wal_octets > 0 || self.obstacle.is_some() {
            obstacle = self.wal_obstacle()?;
        }
        while obstacle.is_none() && self.is_ours() {
            let octets = MOVE_OCTETS.min(self.core.log.segment_size());
            let moves = self.core.index().take(scope, octets, MOVE_COUNT);
            if moves.is_empty() {
                break;
            }
            // A write-ahead log that was moved to its end starts again from its beginning.
            let before = if self.wal_octets > 0 {
                self.wal_written
            } else {
                0
            };
            obstacle = self.move_with_space(moves)?;
            if obstacle.is_none() {
                obstacle = self.wal_obstacle()?;
                // Each page goes to the write-ahead log and then to the database.
                let octets = 2 * self.wal_written.saturating_sub(before);
                let counters = &self.core.counters;
                counters.written.fetch_add(octets, Ordering::Relaxed);
            }
            self.account();
        }
        self.open = None;
        if !self.is_lost {
            self.log_obstacle(obstacle);
        }
        Ok(())
    }

    /// Moves these differences if the disk has the space that the database will need for them; else as
    /// many of them as it has space for, or those that fit into the pages that there are. What the write-ahead log has must never
    /// be too much for the database: neither of them could be written any more.
    fn move_with_space(&mut self, mut moves: Vec<Move>) -> Result<Option<MoveObstacle>, Fatal> {
        let mut others = Vec::new();
        while !self.has_space_for(&moves) {
            if moves.len() == 1 {
                others.append(&mut moves);
            } else {
                others.extend(moves.split_off(moves.len().div_ceil(2)));
            }
        }
        if !moves.is_empty() {
            // The next round has the others.
            self.core.index().settle(&others, MoveEnd::Unchanged);
            return self.move_some(&moves);
        }
        let (changes, additions): (Vec<_>, Vec<_>) = others.into_iter().partition(Move::is_change);
        self.core.index().settle(&additions, MoveEnd::Unchanged);
        let mut obstacle = None;
        if !changes.is_empty() {
            // Those that fit into the pages that the database has need no space.
            schema::bound_pages(&self.connection, true);
            let result = self.move_some(&changes);
            schema::bound_pages(&self.connection, false);
            obstacle = result?;
        }
        if additions.is_empty() || obstacle.is_some() {
            return Ok(obstacle);
        }
        self.core.monitor.spool_log_move(LogMove::Failed);
        let file = self.core.paths.database.display();
        Ok(Some(MoveObstacle {
            result: LogMove::Failed,
            text: format!("{file} cannot grow: the disk is full; free some space there"),
        }))
    }

    /// Returns whether the disk has the space that the database will need for these differences, after
    /// the reserve was given up for them if need be.
    fn has_space_for(&mut self, moves: &[Move]) -> bool {
        let octets: u64 = moves.iter().map(|one| one.pending.octets()).sum();
        // Pages are never full.
        let growth = (2 * octets).saturating_sub(schema::free_octets(&self.connection));
        growth == 0
            || self.has_allocated(growth)
            || self.core.release_reserve() && self.has_allocated(growth)
    }

    /// Moves these differences, or as many of them as possible.
    fn move_some(&mut self, moves: &[Move]) -> Result<Option<MoveObstacle>, Fatal> {
        let mut result = self.transact(moves);
        if let Err(ApplyError::Database(error)) = &result
            && is_full(&self.core.paths, error)
            && self.core.release_reserve()
        {
            result = self.transact(moves);
        }
        let Err(error) = result else {
            return Ok(self.complete(moves, MoveEnd::Written));
        };
        let database_error = match &error {
            ApplyError::Database(error) => Some(error),
            ApplyError::Content(_) => None,
        };
        match &error {
            ApplyError::Database(error) => self.check(error)?,
            ApplyError::Content(error) => self.check_rolled_back(error)?,
        }
        if database_error.is_some_and(is_busy) || moves.len() == 1 {
            return self.fail(moves, &error);
        }
        let is_damaged = database_error.is_some_and(is_unreadable);
        self.move_in_parts(moves, is_damaged)
    }

    /// Moves these differences part by part: removals first, which need the least room and make some, and
    /// additions last, one by one. After an obstacle, other changes are tried, since a change may be
    /// larger than others, or one of few that need a damaged page; but if there is no room for a removal,
    /// there is none for anything.
    fn move_in_parts(
        &mut self,
        moves: &[Move],
        is_damaged: bool,
    ) -> Result<Option<MoveObstacle>, Fatal> {
        let (mut changes, additions): (Vec<_>, Vec<_>) =
            moves.iter().cloned().partition(Move::is_change);
        let is_removal = |change: &Move| matches!(change.pending, Pending::Removed);
        changes.sort_by_key(|change| !is_removal(change));
        let (some, others) = changes.split_at(changes.len() / 2);
        let additions = additions.chunks(1);
        let (mut obstacle, mut is_full) = (None, false);
        for part in [some, others].into_iter().chain(additions) {
            let is_change = part.iter().all(Move::is_change);
            if is_full || obstacle.is_some() && !is_change {
                self.core.index().settle(part, MoveEnd::Unchanged);
                continue;
            }
            if !part.is_empty() {
                // What was written for the others would take the space of this part.
                self.checkpoint(CheckpointMode::PASSIVE)?;
                obstacle = self.move_some(part)?.or(obstacle);
            }
            is_full = !is_damaged && obstacle.is_some() && part.iter().all(is_removal);
        }
        Ok(obstacle)
    }

    /// Ends a move that failed. A state or a removal that cannot be written, since a page of the
    /// database cannot be read, is no obstacle for others.
    fn fail(&mut self, moves: &[Move], error: &ApplyError) -> Result<Option<MoveObstacle>, Fatal> {
        let error = match error {
            ApplyError::Database(error) => error,
            ApplyError::Content(error) => {
                self.core.index().settle(moves, MoveEnd::Unchanged);
                return Ok(Some(self.content_obstacle(error)));
            }
        };
        let is_untouched = is_unreadable(error);
        if is_untouched
            && let [one] = moves
            && one.is_change()
        {
            let is_marked = matches!(one.pending, Pending::Removed)
                .then(|| table::mark_removed(&self.connection, one.id));
            return match is_marked.transpose() {
                Ok(Some(true)) => Ok(self.complete(moves, MoveEnd::Written)),
                Ok(Some(false) | None) => Ok(self.complete(moves, MoveEnd::Kept)),
                Err(error) => {
                    self.check(&error)?;
                    self.core.index().settle(moves, MoveEnd::Uncertain);
                    Ok(Some(self.obstacle_of(&error)))
                }
            };
        }
        let end = if is_untouched {
            MoveEnd::Unchanged
        } else {
            MoveEnd::Uncertain
        };
        self.core.index().settle(moves, end);
        Ok(Some(self.obstacle_of(error)))
    }

    /// Ends moves that are durable in the database, or that it cannot have: the log may forget those
    /// only when the file of unwritten changes has them.
    fn complete(&mut self, moves: &[Move], end: MoveEnd) -> Option<MoveObstacle> {
        let mut recorded = self.unwritten.record(moves, end);
        if matches!(recorded, Err(SpoolError::Full(_))) && self.core.release_reserve() {
            recorded = self.unwritten.record(moves, end);
        }
        if let Err(error) = recorded {
            self.core.index().settle(moves, MoveEnd::Uncertain);
            self.core.monitor.spool_log_move(LogMove::Failed);
            return Some(MoveObstacle {
                result: LogMove::Failed,
                text: error.to_string(),
            });
        }
        self.core.index().settle(moves, end);
        if end == MoveEnd::Written {
            let count = moves.len() as u64;
            self.core.counters.moved.fetch_add(count, Ordering::Relaxed);
        }
        self.core.monitor.spool_log_move(LogMove::Complete);
        None
    }

    fn transact(&mut self, moves: &[Move]) -> Result<(), ApplyError> {
        let (core, open) = (self.core, &mut self.open);
        table::apply(&self.connection, moves, |message| {
            read_content(core, open, message)
        })
    }

    /// Ends the engine if the error means that the disk failed.
    fn check(&self, error: &rusqlite::Error) -> Result<(), Fatal> {
        let described = || database_error(&self.core.paths, "write to", error);
        if is_fatal(&self.core.paths, error) {
            tracing::error!(error = %described(), "spool failed; the process must restart");
            return Err(Fatal);
        }
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.check_rolled_back(&described())
    }

    /// Ends the engine if the transaction that failed with this error is still open.
    fn check_rolled_back(&self, error: &SpoolError) -> Result<(), Fatal> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        tracing::error!(%error, "spool failed; the process must restart");
        Err(Fatal)
    }

    /// Gives the database the space on the disk for what its write-ahead log has, and for `growth` octets
    /// more. Returns false if the disk is full.
    fn has_allocated(&self, growth: u64) -> bool {
        let length = schema::length(&self.connection).saturating_add(growth);
        // A file system may not know of allocation.
        !allocate_ahead(&self.file, length).is_err_and(|error| files::is_full(&error.into()))
    }

    fn evict(&mut self, row: i64) -> Result<Result<(), SpoolError>, Fatal> {
        let error = match table::evict(&self.connection, row) {
            Ok(is_deleted) => {
                if !is_deleted {
                    self.core.stuck_rows().insert(row);
                }
                return Ok(Ok(()));
            }
            Err(error) => error,
        };
        self.check(&error)?;
        Ok(Err(database_error(&self.core.paths, "write to", &error)))
    }

    /// Removes the segments that nothing needs, in their order.
    fn retire(&mut self) -> Result<(), Fatal> {
        let unremovable = loop {
            let retirable = self.core.index().retirable();
            let Some(number) = retirable else {
                break None;
            };
            // Its name may lead to a segment of somebody else.
            if !self.is_ours() {
                return Ok(());
            }
            self.open = None;
            self.core.held_folder.let_segment_go(number);
            let mut removed = self.core.log.retire(number);
            if matches!(removed, Err(AppendError::Rejected(SpoolError::Full(_))))
                && self.core.release_reserve()
            {
                removed = self.core.log.retire(number);
            }
            match removed {
                Ok(()) => {
                    self.core.index().retire_segment(number);
                    self.core.log_resized();
                }
                Err(AppendError::Rejected(error)) => break Some(error.to_string()),
                Err(AppendError::Uncertain(error)) => {
                    tracing::error!(%error, "spool failed; the process must restart");
                    return Err(Fatal);
                }
            }
        };
        match (&self.unremovable, &unremovable) {
            (None, Some(error)) => {
                self.core.monitor.spool_log_move(LogMove::Failed);
                tracing::error!(%error, "a segment of the spool's log cannot be removed; new mail is rejected when the log is full");
            }
            (Some(_), Some(_)) => self.core.monitor.spool_log_move(LogMove::Failed),
            (Some(_), None) => {
                tracing::info!("the segments of the spool's log can be removed again");
            }
            (None, None) => {}
        }
        self.unremovable = unremovable;
        Ok(())
    }

    /// Creates the reserve again if it was given up, and allocates the next segment before it is needed:
    /// a small one unless the disk has plenty of room.
    fn prepare(&mut self) {
        self.core.drafts.free_space.restore_reserve();
        let log = &self.core.log;
        if log.has_spare() || !self.is_ours() {
            return;
        }
        let made = if self.core.has_plenty() {
            log.prepare()
        } else {
            log.keep_spare()
        };
        if let Err(error) = made {
            tracing::debug!(%error, "no space for the next segment of the spool's log");
        }
    }

    /// Measures what the admission of new mail must know.
    fn account(&self) {
        let free = schema::free_octets(&self.connection);
        let owed = self.core.index().octets();
        let space = &self.core.drafts.free_space;
        let log = self.core.index().log_octets();
        self.core.monitor.spool_log(log + self.wal_octets);
        space.set_owed(owed);
        space.set_database_free(free);
    }
}

/// Reads the content of a message from the log; `None` if it is lost. Damaged content is returned as it
/// is: the checksum in the row will show it.
fn read_content(
    core: &Core,
    open: &mut Option<SegmentReader>,
    message: &HeldMessage,
) -> Result<Option<Vec<u8>>, SpoolError> {
    let HeldContent::Log { segment, offset } = message.content else {
        return Ok(None);
    };
    if open.as_ref().is_none_or(|open| open.number() != segment) {
        *open = core.log.reader(segment)?;
    }
    let content = match open {
        Some(open) => open.read(offset, message.size)?,
        None => None,
    };
    if content.is_none() {
        let file = core.log.path(segment);
        tracing::error!(file = %file.display(), "the content of a message in the log of the spool is missing");
    }
    Ok(content)
}
