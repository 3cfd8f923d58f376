//! Free disk space, and the part of it that is kept for working the queue off.
//!
//! New mail is rejected while there is still some space, so that states and removals can be
//! written. If other programs fill the disk completely, a reserve file is removed to make that
//! possible. This is not a quota: the spool may use as much of the disk as there is.
//!
//! Three things are not in the system's figures: pages that are free within the database, which can
//! be written again; the part of the log's file after its end, likewise; and the room that the
//! database needs to grow when the log is moved into it. The reserve file holds that room.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::database_space::DatabaseSpace;
use super::error::SpoolError;
use super::quota;
use crate::storage::files::is_full;
use crate::storage::reserve::ReserveFile;

/// The space that new mail leaves free, in octets. On a small disk it is a twentieth of the disk.
const KEEP_FREE: u64 = 64 << 20;
/// The size of the reserve file in octets. On a small disk it is a fiftieth of the disk.
const RESERVE: u64 = 16 << 20;
/// The steps in which the reserve file follows the growth of the database.
const GROWTH_STEP: u64 = 1 << 20;
/// The time for which a measurement of the disk is used. Octets written since are subtracted.
const MEASUREMENT_VALID: Duration = Duration::from_millis(100);
/// The time for which an exhausted quota is assumed to stay exhausted.
const QUOTA_VALID: Duration = Duration::from_secs(5);

/// The place of a content on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A row of the database.
    Row,
    /// A file of its own.
    File,
}

/// The free space of the file system that holds the spool.
#[derive(Debug)]
pub(super) struct FreeSpace {
    folder: PathBuf,
    reserve: ReserveFile,
    keep_free: u64,
    reserve_size: u64,
    database: Arc<DatabaseSpace>,
    state: Mutex<DiskState>,
}

#[derive(Debug)]
struct DiskState {
    measured: Option<Instant>,
    free: u64,
    reserved: bool,
    /// The part of the reserve file that holds room for the growth of the database.
    for_growth: u64,
    rejecting: bool,
    /// Set when a quota last prevented the creation of the reserve file. The free space of the disk
    /// is then not available to us.
    over_quota: Option<Instant>,
}

impl FreeSpace {
    /// Measures the disk that `folder` is on and creates the reserve file. `keep_free` is in
    /// octets.
    pub(super) fn open(
        folder: &Path,
        keep_free: Option<u64>,
        database: Arc<DatabaseSpace>,
    ) -> Result<Self, SpoolError> {
        let disk = rustix::fs::statvfs(folder).map_err(|error| {
            SpoolError::Io(format!(
                "cannot read the free space of {}: {error}",
                folder.display()
            ))
        })?;
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let (reserve, reserve_size) = (ReserveFile::of(folder), RESERVE.min(total / 50));
        let reserved = reserve.size() > 0;
        // Left by a crash.
        let _mostly_none = std::fs::remove_file(quota::test_file(folder));
        let space = Self {
            folder: folder.to_owned(),
            keep_free: keep_free.unwrap_or(KEEP_FREE.min(total / 20)),
            reserve_size,
            database,
            state: Mutex::new(DiskState {
                measured: None,
                free: 0,
                reserved,
                for_growth: reserve.size().saturating_sub(reserve_size),
                rejecting: false,
                over_quota: None,
            }),
            reserve,
        };
        // A start needs some space: each database in the folder rebuilds the index of its log.
        if reserved
            && space
                .free()
                .is_some_and(|free| free < space.reserve_size / 4)
        {
            space.release_reserve();
        }
        // If there is no space for the reserve file, new mail is rejected, and the file is created
        // as soon as there is.
        let _full = space.admit(Place::Row, 0);
        Ok(space)
    }

    /// Checks that `octets` more can be stored in addition to the space that is kept free. Makes at
    /// most one system call in 100 ms, which local file systems answer from memory.
    ///
    /// # Errors
    /// [`SpoolError::Full`] if they cannot.
    pub(super) fn admit(&self, place: Place, octets: u64) -> Result<(), SpoolError> {
        self.admit_keeping(place, octets, |kept| kept)?;
        if let Some(log) = self.database.log_over_limit() {
            return Err(SpoolError::Full(format!(
                "the log of the queue in {} has {} MiB and cannot be moved into queue.db; end the programs that read queue.db, and free some space there",
                self.folder.display(),
                log >> 20
            )));
        }
        if !self.is_over_quota() {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(SpoolError::Full(format!(
            "the quota of the disk of {folder} is exhausted; free some space there, or raise the quota"
        )))
    }

    fn is_over_quota(&self) -> bool {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .over_quota
            .is_some()
    }

    /// As [`FreeSpace::admit`], for a report to a sender. It may use half of the space that is kept
    /// free, because an undeliverable message leaves the queue only after its report is stored.
    pub(super) fn admit_report(&self, place: Place, octets: u64) -> Result<(), SpoolError> {
        self.admit_keeping(place, octets, |kept| kept / 2)
    }

    fn admit_keeping(
        &self,
        place: Place,
        octets: u64,
        share: impl Fn(u64) -> u64,
    ) -> Result<(), SpoolError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.measure(&mut state);
        let kept = self.reserved_octets(&state);
        let full = !self.fits(&state, Place::Row, 0, kept) || state.over_quota.is_some();
        if full != state.rejecting {
            state.rejecting = full;
            self.log_change(&state, kept);
        }
        if self.fits(&state, place, octets, share(kept)) {
            return Ok(());
        }
        Err(SpoolError::Full(format!(
            "{} MiB are free on the disk of {} and {} MiB are kept for working the queue off; free some space there",
            state.free >> 20,
            self.folder.display(),
            kept >> 20,
        )))
    }

    fn measure(&self, state: &mut DiskState) {
        if state
            .measured
            .is_none_or(|at| at.elapsed() > MEASUREMENT_VALID)
        {
            // A disk that cannot be measured is not necessarily full: the write itself will show.
            state.free = self.free().unwrap_or(u64::MAX);
            state.measured = Some(Instant::now());
            self.create_reserve(state);
        }
    }

    /// Returns whether `octets` can be stored while `kept` remain for states and removals. Content
    /// in a row is written to the log first and to the database later, and can use room that is free
    /// in both.
    fn fits(&self, state: &DiskState, place: Place, octets: u64, kept: u64) -> bool {
        let (pages, log) = (self.database.free(), self.database.log_room());
        let (row, file) = match place {
            Place::Row => (octets, 0),
            Place::File => (0, octets),
        };
        let growth = self.database.growth().saturating_sub(state.for_growth);
        let used = file
            .saturating_add(row.saturating_sub(log))
            .saturating_add(growth);
        let Some(disk) = state.free.checked_sub(used) else {
            return false;
        };
        let in_database = disk.saturating_add(pages) >= kept.saturating_add(row);
        let in_log = disk.saturating_add(log.saturating_sub(row)) >= kept / 4;
        in_database && in_log
    }

    /// Returns whether so little is free that the log must not be longer than it needs to be.
    pub(super) fn is_short(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let short = self.keep_free.saturating_mul(2);
        !state.reserved || state.rejecting || self.free().is_some_and(|free| free < short)
    }

    /// Makes the reserve file hold the room that the database needs when the log is moved into it.
    pub(super) fn reserve_growth(&self) {
        let growth = self.database.growth().next_multiple_of(GROWTH_STEP);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if growth != state.for_growth {
            // If there is no room for it, new mail is rejected, since the growth counts as used.
            self.set_for_growth(&mut state, growth);
        }
    }

    /// Gives the room up that was reserved for the growth of the database, so that the log can be
    /// moved on a full disk. Returns whether there was some.
    pub(super) fn release_growth(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.for_growth > 0 && self.set_for_growth(&mut state, 0)
    }

    fn set_for_growth(&self, state: &mut DiskState, growth: u64) -> bool {
        let rest = if state.reserved { self.reserve_size } else { 0 };
        let is_set = self.reserve.resize(rest.saturating_add(growth)).is_ok();
        if is_set {
            state.for_growth = growth;
        }
        state.measured = None;
        is_set
    }

    /// Subtracts `octets` that were written since the last measurement.
    pub(super) fn record_written(&self, octets: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free = state.free.saturating_sub(octets);
    }

    /// Removes the reserve, so that states and removals can be written. Returns whether there was
    /// one. The room for the growth of the database stays reserved, for without it the log could
    /// never be moved.
    pub(super) fn release_reserve(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.measured = None;
        if !std::mem::take(&mut state.reserved) {
            return false;
        }
        tracing::warn!(file = %self.reserve.path().display(), "disk full, reserve file removed to work the queue off");
        if state.for_growth == 0 {
            return self.reserve.release();
        }
        let growth = state.for_growth;
        self.set_for_growth(&mut state, growth)
    }

    fn log_change(&self, state: &DiskState, kept: u64) {
        let (folder, free) = (self.folder.display(), state.free);
        if state.rejecting {
            let over_quota = state.over_quota.is_some();
            tracing::error!(%folder, free, kept, over_quota, "disk full, new mail is rejected");
        } else {
            tracing::info!(%folder, free, kept, "disk has free space again, new mail is accepted");
        }
    }

    fn free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.folder).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn reserved_octets(&self, state: &DiskState) -> u64 {
        if state.reserved {
            self.keep_free
        } else {
            self.keep_free.saturating_add(self.reserve_size)
        }
    }

    fn create_reserve(&self, state: &mut DiskState) {
        let checked_recently = state
            .over_quota
            .is_some_and(|at| at.elapsed() < QUOTA_VALID);
        let room = state.free.saturating_add(self.database.free());
        let is_short = room < self.reserved_octets(state)
            || state.free < self.reserve_size.saturating_add(self.keep_free / 4);
        if state.reserved || checked_recently || is_short {
            return;
        }
        let made = if state.for_growth > 0 {
            let size = self.reserve_size.saturating_add(state.for_growth);
            self.reserve.resize(size)
        } else {
            self.reserve.create(self.reserve_size)
        };
        if made.as_ref().is_err_and(is_full) {
            state.over_quota = Some(Instant::now());
            return;
        }
        state.over_quota = None;
        if let Err(error) = made {
            tracing::warn!(file = %self.reserve.path().display(), %error, "cannot create the reserve file; a full disk may stop the queue");
        }
        // Tried once: a file system without fallocate is not asked again for each message.
        state.reserved = true;
        state.free = state.free.saturating_sub(self.reserve_size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path, keep_free: Option<u64>) -> Result<FreeSpace, SpoolError> {
        FreeSpace::open(folder, keep_free, Arc::new(DatabaseSpace::with_limit(None)))
    }

    #[test]
    fn new_mail_leaves_the_reserved_space_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = open(folder.path(), Some(1 << 20)).expect("measured");
        space.admit(Place::Row, 4096).expect("an empty disk");
        assert!(matches!(
            space.admit(Place::Row, u64::MAX / 2),
            Err(SpoolError::Full(_))
        ));
        space
            .admit(Place::Row, 4096)
            .expect("a small one after a large one");
    }

    #[test]
    fn the_reserve_file_is_removed_once_and_created_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("reserve");
        let space = open(folder.path(), Some(1 << 20)).expect("measured");
        assert!(file.metadata().expect("the reserve").len() > 0);
        assert!(space.release_reserve());
        assert!(!file.exists());
        assert!(!space.release_reserve());
        space.admit(Place::Row, 1).expect("room again");
        assert!(file.exists());
    }

    /// The system reports the free space of the disk, not the part of it that a quota leaves us.
    #[test]
    fn a_quota_without_space_for_the_reserve_rejects_mail_but_not_reports() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = open(folder.path(), Some(1 << 20)).expect("measured");
        space.state.lock().expect("nobody panics").over_quota = Some(Instant::now());
        let refused = space.admit(Place::Row, 1);
        assert!(
            matches!(&refused, Err(SpoolError::Full(text)) if text.contains("quota")),
            "{refused:?}"
        );
        space
            .admit_report(Place::Row, 1)
            .expect("it takes a message out of the queue");
        assert!(space.release_reserve());
        assert!(space.admit(Place::Row, 1).is_err(), "it was tried just now");
        let long_ago = Instant::now()
            .checked_sub(QUOTA_VALID)
            .expect("the machine has run for a while");
        space.state.lock().expect("nobody panics").over_quota = Some(long_ago);
        std::thread::sleep(MEASUREMENT_VALID * 2);
        space
            .admit(Place::Row, 1)
            .expect("the reserve is there again, so there is room");
        assert!(folder.path().join("reserve").exists());
    }

    #[test]
    fn octets_written_since_the_last_measurement_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = open(folder.path(), Some(0)).expect("measured");
        space.record_written(u64::MAX);
        assert!(matches!(
            space.admit(Place::Row, 1),
            Err(SpoolError::Full(_))
        ));
    }
}
