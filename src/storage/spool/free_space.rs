//! Free disk space, and the part of it that is kept for working the queue off.
//!
//! New mail is rejected while there is still some space, so that states and removals can be
//! written. If other programs fill the disk completely, a reserve file is removed to make that
//! possible. This is not a quota: the spool may use as much of the disk as there is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::SpoolError;
use super::quota;
use crate::storage::files::is_full;
use crate::storage::reserve::ReserveFile;

/// The space that new mail leaves free, in octets. On a small disk it is a twentieth of the disk.
const KEEP_FREE: u64 = 64 << 20;
/// The size of the reserve file in octets. On a small disk it is a fiftieth of the disk, but enough for
/// a start, for a segment of the log, and for the log of the database.
const RESERVE: u64 = 16 << 20;
const SMALLEST_RESERVE: u64 = 1 << 20;
/// The time for which a measurement of the disk is used. Octets written since are subtracted.
const MEASUREMENT_VALID: Duration = Duration::from_millis(100);
/// The time for which an exhausted quota is assumed to stay exhausted.
const QUOTA_VALID: Duration = Duration::from_secs(5);

/// The free space of the file system that holds the spool.
#[derive(Debug)]
pub(super) struct FreeSpace {
    folder: PathBuf,
    reserve: ReserveFile,
    keep_free: u64,
    reserve_size: u64,
    /// The octets that stay free inside the database while the disk is nearly full.
    database_spare: u64,
    /// The octets that are free inside the database.
    database_free: AtomicU64,
    /// The octets that stand in the log and will need room in the database.
    owed: AtomicU64,
    /// True while new mail finds no room in the log.
    is_log_full: AtomicBool,
    state: Mutex<DiskState>,
}

#[derive(Debug)]
struct DiskState {
    measured: Option<Instant>,
    /// The octets that are free for new mail, on the disk and inside the database.
    free: u64,
    reserved: bool,
    rejecting: bool,
    /// Set when a quota last prevented the creation of the reserve file. The free space of the disk
    /// is then not available to us.
    over_quota: Option<Instant>,
}

impl FreeSpace {
    /// Measures the disk that `folder` is on and creates the reserve file. `keep_free` is in
    /// octets.
    pub(super) fn open(folder: &Path, keep_free: Option<u64>) -> Result<Self, SpoolError> {
        let disk = rustix::fs::statvfs(folder).map_err(|error| {
            SpoolError::Io(format!(
                "cannot read the free space of {}: {error}",
                folder.display()
            ))
        })?;
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let reserve = ReserveFile::of(folder);
        let reserved = reserve.size() > 0;
        // Left by a crash.
        let _mostly_none = std::fs::remove_file(quota::test_file(folder));
        let space = Self {
            folder: folder.to_owned(),
            reserve,
            keep_free: keep_free.unwrap_or(KEEP_FREE.min(total / 20)),
            reserve_size: (total / 50).clamp(SMALLEST_RESERVE, RESERVE),
            database_spare: KEEP_FREE.min(total / 20) / 2,
            database_free: AtomicU64::new(0),
            owed: AtomicU64::new(0),
            is_log_full: AtomicBool::new(false),
            state: Mutex::new(DiskState {
                measured: None,
                free: 0,
                reserved,
                rejecting: false,
                over_quota: None,
            }),
        };
        // A start needs some space: each database in the folder rebuilds the index of its log.
        if reserved && space.is_full() {
            space.release_reserve();
        }
        // If there is no space for the reserve file, new mail is rejected, and the mover creates the
        // file as soon as there is.
        space.restore_reserve();
        let _full = space.admit(0);
        Ok(space)
    }

    /// Checks that `octets` more can be stored in addition to the space that is kept free. Makes at
    /// most one system call in 100 ms, which local file systems answer from memory.
    ///
    /// # Errors
    /// [`SpoolError::Full`] if they cannot.
    pub(super) fn admit(&self, octets: u64) -> Result<(), SpoolError> {
        if self.is_log_full.load(Ordering::Relaxed) {
            return Err(SpoolError::Full(format!(
                "the log of the spool {} is full, and cannot be emptied now; the reason was logged",
                self.folder.display()
            )));
        }
        self.admit_keeping(octets, |kept| kept)?;
        if !self.is_over_quota() {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(SpoolError::Full(format!(
            "the quota of the disk of {folder} is exhausted; free some space there, or raise the quota"
        )))
    }

    /// As [`FreeSpace::admit`], by a new measurement of the disk: for what takes more space than a
    /// message.
    pub(super) fn admit_measured(&self, octets: u64) -> Result<(), SpoolError> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .measured = None;
        self.admit(octets)
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
    pub(super) fn admit_report(&self, octets: u64) -> Result<(), SpoolError> {
        self.admit_keeping(octets, |kept| kept / 2)
    }

    fn admit_keeping(&self, octets: u64, share: impl Fn(u64) -> u64) -> Result<(), SpoolError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .measured
            .is_none_or(|at| at.elapsed() > MEASUREMENT_VALID)
        {
            // A disk that cannot be measured is not necessarily full: the write itself will show.
            state.free = self.available(self.free().unwrap_or(u64::MAX));
            state.measured = Some(Instant::now());
        }
        let kept = self.reserved_octets(&state);
        let full = state.free < kept || state.over_quota.is_some();
        if full != state.rejecting {
            state.rejecting = full;
            self.log_change(&state, kept);
        }
        if state.free >= share(kept).saturating_add(octets) {
            return Ok(());
        }
        Err(SpoolError::Full(format!(
            "{} MiB are free on the disk of {} and {} MiB are kept for working the queue off; free some space there",
            state.free >> 20,
            self.folder.display(),
            kept >> 20,
        )))
    }

    /// Subtracts `octets` that were written since the last measurement.
    pub(super) fn record_written(&self, octets: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free = state.free.saturating_sub(octets);
    }

    /// Removes the reserve file, so that states and removals can be written. Returns whether there
    /// was one.
    pub(super) fn release_reserve(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.measured = None;
        if !std::mem::take(&mut state.reserved) {
            return false;
        }
        tracing::warn!(file = %self.reserve.path().display(), "disk full, reserve file removed to work the queue off");
        self.reserve.release()
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

    /// Sets the octets that are free inside the database.
    pub(super) fn set_database_free(&self, octets: u64) {
        self.database_free.store(octets, Ordering::Relaxed);
    }

    /// Sets the octets that stand in the log and will need room in the database.
    pub(super) fn set_owed(&self, octets: u64) {
        self.owed.store(octets, Ordering::Relaxed);
    }

    /// Sets whether new mail finds no room in the log.
    pub(super) fn set_log_full(&self, is_full: bool) {
        self.is_log_full.store(is_full, Ordering::Relaxed);
    }

    /// Returns whether the disk has hardly any free space. Makes a system call.
    pub(super) fn is_full(&self) -> bool {
        self.free().is_some_and(|free| free < self.reserve_size / 4)
    }

    /// While the disk has less free space than new mail must leave, returns the octets that are to
    /// stay free inside the database, for states. Makes a system call.
    pub(super) fn scarce_spare(&self) -> Option<u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.reserved_octets(&state);
        drop(state);
        let is_scarce = self.free().is_some_and(|free| free < kept);
        is_scarce.then_some(self.database_spare)
    }

    /// Returns the octets that new mail may have, given those that are free on the disk. Space
    /// inside the database counts as long as its write-ahead log can grow a little.
    fn available(&self, disk_free: u64) -> u64 {
        let inside = if disk_free < self.keep_free / 4 {
            0
        } else {
            self.database_free.load(Ordering::Relaxed)
        };
        let owed = self.owed.load(Ordering::Relaxed);
        disk_free.saturating_add(inside).saturating_sub(owed)
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

    /// Returns whether the reserve file was given up, so that [`FreeSpace::restore_reserve`] should be
    /// called until it is there again.
    pub(super) fn lacks_reserve(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        !state.reserved
    }

    /// Creates the reserve file if there is none and the disk has the space for it. Blocks; one thread
    /// calls it at a time.
    pub(super) fn restore_reserve(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut over_quota = state.over_quota.iter();
        let checked_recently = over_quota.any(|at| at.elapsed() < QUOTA_VALID);
        let (is_there, kept) = (state.reserved, self.reserved_octets(&state));
        drop(state);
        if is_there || checked_recently || self.free().is_some_and(|free| free < kept) {
            return;
        }
        let made = self.reserve.create(self.reserve_size);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.measured = None;
        if made.as_ref().is_err_and(is_full) {
            state.over_quota = Some(Instant::now());
            return;
        }
        state.over_quota = None;
        if let Err(error) = made {
            tracing::warn!(file = %self.reserve.path().display(), %error, "cannot create the reserve file; a full disk may stop the queue");
        }
        // Tried once: a file system without fallocate is not asked again.
        state.reserved = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_mail_leaves_the_reserved_space_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = FreeSpace::open(folder.path(), Some(1 << 20)).expect("measured");
        space.admit(4096).expect("an empty disk");
        assert!(matches!(
            space.admit(u64::MAX / 2),
            Err(SpoolError::Full(_))
        ));
        space.admit(4096).expect("a small one after a large one");
    }

    #[test]
    fn a_new_measurement_does_not_count_what_was_written_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = FreeSpace::open(folder.path(), Some(1 << 20)).expect("measured");
        space.record_written(u64::MAX);
        assert!(space.admit(0).is_err(), "the last measurement counts");
        space.admit_measured(0).expect("an empty disk");
    }

    #[test]
    fn the_reserve_file_is_removed_once_and_created_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("reserve");
        let space = FreeSpace::open(folder.path(), Some(1 << 20)).expect("measured");
        assert!(file.metadata().expect("the reserve").len() > 0);
        assert!(space.release_reserve());
        assert!(!file.exists());
        assert!(!space.release_reserve());
        space.admit(1).expect("room again");
        assert!(
            space.lacks_reserve() && !file.exists(),
            "mail waits for no file"
        );
        space.restore_reserve();
        assert!(!space.lacks_reserve() && file.exists());
    }

    /// The system reports the free space of the disk, not the part of it that a quota leaves us.
    #[test]
    fn a_quota_without_space_for_the_reserve_rejects_mail_but_not_reports() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = FreeSpace::open(folder.path(), Some(1 << 20)).expect("measured");
        space.state.lock().expect("nobody panics").over_quota = Some(Instant::now());
        let refused = space.admit(1);
        assert!(
            matches!(&refused, Err(SpoolError::Full(text)) if text.contains("quota")),
            "{refused:?}"
        );
        space
            .admit_report(1)
            .expect("it takes a message out of the queue");
        assert!(space.release_reserve());
        space.restore_reserve();
        assert!(space.admit(1).is_err(), "it was tried just now");
        let long_ago = Instant::now()
            .checked_sub(QUOTA_VALID)
            .expect("the machine has run for a while");
        space.state.lock().expect("nobody panics").over_quota = Some(long_ago);
        space.restore_reserve();
        space
            .admit(1)
            .expect("the reserve is there again, so there is room");
        assert!(folder.path().join("reserve").exists());
    }

    /// A database that was once large has room for new mail, and what stands in the log needs its
    /// part of that.
    #[test]
    fn space_inside_the_database_counts_and_what_the_log_owes_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = FreeSpace::open(folder.path(), Some(4000)).expect("measured");
        space.set_database_free(10_000);
        space.set_owed(3_000);
        assert_eq!(space.available(2_000), 9_000);
        assert_eq!(space.available(999), 0, "the database cannot be written");
        assert_eq!(space.available(5_000), 12_000);
    }

    #[test]
    fn a_disk_is_scarce_while_it_has_less_than_mail_must_leave() {
        let folder = tempfile::tempdir().expect("a folder");
        for (keep_free, is_scarce) in [(0, false), (u64::MAX / 4, true)] {
            let space = FreeSpace::open(folder.path(), Some(keep_free)).expect("measured");
            let missing = space.scarce_spare();
            assert_eq!(missing.is_some(), is_scarce, "{keep_free}");
            assert!(missing.is_none_or(|octets| (1..=KEEP_FREE / 2).contains(&octets)));
        }
    }

    #[test]
    fn octets_written_since_the_last_measurement_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = FreeSpace::open(folder.path(), Some(0)).expect("measured");
        space.record_written(u64::MAX);
        assert!(matches!(space.admit(1), Err(SpoolError::Full(_))));
    }
}
