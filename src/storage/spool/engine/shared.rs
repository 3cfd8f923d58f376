//! The state that the parts of the engine share.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio_util::sync::CancellationToken;

use super::super::ClockJumps;
use super::super::draft::Drafts;
use super::super::log::LogFolder;
use super::bound::StateRoom;
use super::claims::ClaimBook;
use super::held_folder::HeldFolder;
use super::index::LogIndex;
use super::loads::LoadQueue;
use super::paths::SpoolPaths;
use super::queue::WriteQueue;
use super::readers::Readers;
use super::signal::MoverSignal;
use super::unreported::UnreportedEntries;
use crate::telemetry::Monitor;

/// The multiple of a segment that must be free on the disk before one is allocated ahead.
const SPARE_SHARE: u64 = 8;

/// The state that the handle, the threads and the readers share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) paths: SpoolPaths,
    pub(super) clock_jumps: ClockJumps,
    pub(super) queue: Arc<WriteQueue>,
    pub(super) log: LogFolder,
    pub(super) index: Mutex<LogIndex>,
    pub(super) mover: MoverSignal,
    pub(super) state_room: StateRoom,
    pub(super) claims: ClaimBook,
    pub(super) held_folder: Arc<HeldFolder>,
    pub(super) readers: Readers,
    pub(super) loads: LoadQueue,
    pub(super) unreported: UnreportedEntries,
    /// The rows that were quarantined and cannot be deleted, since a page cannot be read.
    pub(super) stuck_rows: Mutex<HashSet<i64>>,
    pub(super) drafts: Arc<Drafts>,
    pub(super) ended: CancellationToken,
    pub(super) counters: Counters,
    pub(super) monitor: Monitor,
    pub(super) me: Weak<Core>,
}

impl Core {
    /// Locks the index of the log. Nothing blocks while it is held.
    pub(super) fn index(&self) -> MutexGuard<'_, LogIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the rows that were quarantined and stay.
    pub(super) fn stuck_rows(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.stuck_rows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the reserve file, so that states and removals can be written, and keeps a small part of its
    /// space for the next segment of the log. Returns whether there was one.
    pub(super) fn release_reserve(&self) -> bool {
        let is_released = self.drafts.free_space.release_reserve();
        if is_released
            && self.held_folder.is_ours()
            && let Err(error) = self.log.keep_spare()
        {
            tracing::debug!(%error, "no space for the next segment of the spool's log");
        }
        is_released
    }

    /// Returns whether the disk has plenty of space, so that the next segment of the log is allocated
    /// ahead. Makes a system call.
    pub(super) fn has_plenty(&self) -> bool {
        let wanted = SPARE_SHARE * self.log.next_size();
        self.drafts.free_space.admit_measured(wanted).is_ok()
    }

    /// Records that the log has another size.
    pub(super) fn log_resized(&self) {
        let octets = self.index().log_octets();
        self.state_room.set_log(octets, &self.log, &self.monitor);
    }
}

/// The counters since the spool was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) transactions: AtomicU64,
    pub(super) operations: AtomicU64,
    pub(super) quarantined: AtomicU64,
    pub(super) moved: AtomicU64,
    pub(super) rounds: AtomicU64,
    pub(super) written: AtomicU64,
}

/// Ends the engine when its thread ends, even by a panic, so that nobody waits for an answer that
/// cannot come.
pub(super) struct EndGuard(pub(super) Arc<Core>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.queue.fail();
        self.0.mover.fail();
        self.0.ended.cancel();
    }
}
