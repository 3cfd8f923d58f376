//! How much room the disk has left, and how much of it is kept for working the queue off.
//!
//! New mail is refused while there is still room, so that states and removals can be written. Where
//! others fill the disk to the last octet, a file that does nothing but take up room is given up for
//! them. Not a quota: what the spool holds is limited by the disk alone.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use super::{SpoolError, quota};

/// Octets that new mail leaves free, at most; on small disks a twentieth of them.
const KEEP_FREE: u64 = 64 << 20;
/// Octets of the reserve file, at most; on small disks a fiftieth of them.
const RESERVE: u64 = 16 << 20;
/// How long a look at the disk is believed. What was written since is subtracted.
const BELIEVED: Duration = Duration::from_millis(100);
/// How long a quota that is used up is believed to be so.
const OVER_QUOTA: Duration = Duration::from_secs(5);

/// The room in one file system.
#[derive(Debug)]
pub(super) struct Room {
    folder: PathBuf,
    reserve: PathBuf,
    keep_free: u64,
    reserve_size: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    looked: Option<Instant>,
    free: u64,
    reserved: bool,
    refusing: bool,
    /// A quota left no room for the reserve, when that was last tried: what the disk says of its room is not for us.
    over_quota: Option<Instant>,
}

impl Room {
    /// Looks at the disk that `folder` is on, and makes the reserve file. `keep_free` in octets.
    pub(super) fn open(folder: &Path, reserve: PathBuf, keep_free: Option<u64>) -> Result<Self, SpoolError> {
        let disk = rustix::fs::statvfs(folder)
            .map_err(|error| SpoolError::Io(format!("cannot ask how full {} is: {error}", folder.display())))?;
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let reserved = std::fs::metadata(&reserve).is_ok_and(|file| file.len() > 0);
        // Left by a crash.
        let _mostly_none = std::fs::remove_file(quota::probe_file(folder));
        let room = Self {
            folder: folder.to_owned(),
            reserve,
            keep_free: keep_free.unwrap_or(KEEP_FREE.min(total / 20)),
            reserve_size: RESERVE.min(total / 50),
            state: Mutex::new(State { looked: None, free: 0, reserved, refusing: false, over_quota: None }),
        };
        // A start needs some room for itself: each database of the folder makes an index of its log anew.
        if reserved && room.free().is_some_and(|free| free < room.reserve_size / 4) {
            room.release();
        }
        // Without room for a reserve new mail is refused, and it is made as soon as there is some.
        let _full = room.admit(0);
        Ok(room)
    }

    /// Whether `octets` more may come in, beyond what is kept free. A system call, but at most every
    /// 100 ms, and one that local file systems answer from memory.
    ///
    /// # Errors
    /// [`SpoolError::Full`].
    pub(super) fn admit(&self, octets: u64) -> Result<(), SpoolError> {
        self.admit_beyond(octets, |kept| kept)?;
        if !self.is_over_quota() {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(SpoolError::Full(format!(
            "the quota of the disk of {folder} is used up; make room there, or raise the quota"
        )))
    }

    fn is_over_quota(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).over_quota.is_some()
    }

    /// The same for a report to a sender: half of what is kept free will do for it, for a message that
    /// cannot be delivered leaves the queue only after its report has come in.
    pub(super) fn admit_report(&self, octets: u64) -> Result<(), SpoolError> {
        self.admit_beyond(octets, |kept| kept / 2)
    }

    fn admit_beyond(&self, octets: u64, share: impl Fn(u64) -> u64) -> Result<(), SpoolError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_none_or(|at| at.elapsed() > BELIEVED) {
            // A disk that does not answer is not a full one: the write itself will tell.
            state.free = self.free().unwrap_or(u64::MAX);
            state.looked = Some(Instant::now());
            self.restore(&mut state);
        }
        let kept = self.kept(&state);
        let full = state.free < kept || state.over_quota.is_some();
        if full != state.refusing {
            state.refusing = full;
            self.tell(&state, kept);
        }
        if state.free >= share(kept).saturating_add(octets) {
            return Ok(());
        }
        Err(SpoolError::Full(format!(
            "{} MiB are free on the disk of {} and {} MiB are kept for working the queue off; make room there",
            state.free >> 20,
            self.folder.display(),
            kept >> 20,
        )))
    }

    /// Notes that `octets` were written since the last look.
    pub(super) fn took(&self, octets: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free = state.free.saturating_sub(octets);
    }

    /// Gives the reserve file up, for states and removals. Whether there was one.
    pub(super) fn release(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.looked = None;
        if !std::mem::take(&mut state.reserved) {
            return false;
        }
        tracing::warn!(file = %self.reserve.display(), "disk full, reserve given up to work the queue off");
        std::fs::remove_file(&self.reserve).is_ok()
    }

    fn tell(&self, state: &State, kept: u64) {
        let (folder, free) = (self.folder.display(), state.free);
        if state.refusing {
            let over_quota = state.over_quota.is_some();
            tracing::error!(%folder, free, kept, over_quota, "disk full, new mail is refused");
        } else {
            tracing::info!(%folder, free, kept, "disk has room again, new mail is taken");
        }
    }

    fn free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.folder).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn kept(&self, state: &State) -> u64 {
        if state.reserved { self.keep_free } else { self.keep_free.saturating_add(self.reserve_size) }
    }

    fn restore(&self, state: &mut State) {
        let is_known = state.over_quota.is_some_and(|at| at.elapsed() < OVER_QUOTA);
        if state.reserved || is_known || state.free < self.kept(state) {
            return;
        }
        let made = File::create(&self.reserve).and_then(|file| {
            rustix::fs::fallocate(file, FallocateFlags::empty(), 0, self.reserve_size.max(1)).map_err(io::Error::from)
        });
        if made.as_ref().is_err_and(quota::is_full) {
            // What came of it takes up room, and is not what it should be.
            let _mostly_empty = std::fs::remove_file(&self.reserve);
            state.over_quota = Some(Instant::now());
            return;
        }
        state.over_quota = None;
        if let Err(error) = made {
            tracing::warn!(file = %self.reserve.display(), %error, "no reserve could be made; a full disk may hold the queue up");
        }
        // Tried once: a file system that cannot reserve is not asked for each message.
        state.reserved = true;
        state.free = state.free.saturating_sub(self.reserve_size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_mail_leaves_the_kept_room_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let room = Room::open(folder.path(), folder.path().join("reserve"), Some(1 << 20)).expect("room");
        room.admit(4096).expect("an empty disk");
        assert!(matches!(room.admit(u64::MAX / 2), Err(SpoolError::Full(_))));
        room.admit(4096).expect("a small one after a large one");
    }

    #[test]
    fn the_reserve_is_given_up_once_and_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("reserve");
        let room = Room::open(folder.path(), file.clone(), Some(1 << 20)).expect("room");
        assert!(file.metadata().expect("the reserve").len() > 0);
        assert!(room.release());
        assert!(!file.exists());
        assert!(!room.release());
        room.admit(1).expect("room again");
        assert!(file.exists());
    }

    /// The system tells how much is free on the disk, and not how much of it a quota leaves us.
    #[test]
    fn a_quota_that_leaves_no_room_for_the_reserve_refuses_mail_and_not_reports() {
        let folder = tempfile::tempdir().expect("a folder");
        let room = Room::open(folder.path(), folder.path().join("reserve"), Some(1 << 20)).expect("room");
        room.state.lock().expect("nobody panics").over_quota = Some(Instant::now());
        let refused = room.admit(1);
        assert!(matches!(&refused, Err(SpoolError::Full(text)) if text.contains("quota")), "{refused:?}");
        room.admit_report(1).expect("it takes a message out of the queue");
        assert!(room.release());
        assert!(room.admit(1).is_err(), "it was tried just now");
        let long_ago = Instant::now().checked_sub(OVER_QUOTA).expect("the machine has run for a while");
        room.state.lock().expect("nobody panics").over_quota = Some(long_ago);
        std::thread::sleep(BELIEVED * 2);
        room.admit(1).expect("the reserve is there again, so there is room");
        assert!(folder.path().join("reserve").exists());
    }

    #[test]
    fn what_was_written_since_the_last_look_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let room = Room::open(folder.path(), folder.path().join("reserve"), Some(0)).expect("room");
        room.took(u64::MAX);
        assert!(matches!(room.admit(1), Err(SpoolError::Full(_))));
    }
}
