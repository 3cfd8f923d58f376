//! The lock of a folder: one process at a time uses it.
//!
//! The lock is on the file `lock` in the folder, which contains the id of the process that holds
//! it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::files::FileId;

/// The name of the file.
pub(super) const NAME: &str = "lock";

/// A lock that this process holds while the value lives.
#[derive(Debug)]
pub(super) struct FolderLock(File);

/// The reason why a folder cannot be locked.
#[derive(Debug)]
pub(super) enum LockError {
    /// The file cannot be opened.
    Open(io::Error),
    /// Another process holds the lock.
    InUse {
        /// Its process id, as the file says.
        process: String,
    },
    /// The file cannot be locked.
    Lock(io::Error),
}

impl FolderLock {
    /// Locks an existing folder.
    pub(super) fn acquire(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join(NAME);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(0o600).open(&path).map_err(LockError::Open)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                // Only for the error text: the file may be incomplete.
                let _unreadable = (&mut file).take(20).read_to_string(&mut process);
                let process = process.trim().to_owned();
                return Err(LockError::InUse { process });
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Lock(error)),
        }
        // The process id is for people only; a full disk must not prevent the start.
        let written = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::debug!(file = %path.display(), %error, "cannot write the process id to the lock file");
        }
        Ok(Self(file))
    }

    /// Returns the identity of the locked file.
    pub(super) fn id(&self) -> io::Result<FileId> {
        FileId::of(&self.0)
    }

    /// Returns whether a running process holds the lock of a folder.
    pub(super) fn is_held(folder: &Path) -> bool {
        let file = File::open(folder.join(NAME));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that another thread is starting has a
        // copy of each open file until its program begins, and the lock lasts as long as any copy.
        // Should unlocking fail, the lock still ends with the last copy.
        let _still_open = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_others_and_names_its_process() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!FolderLock::is_held(folder.path()));
        let lock = FolderLock::acquire(folder.path()).expect("free");
        assert!(FolderLock::is_held(folder.path()));
        let us = std::process::id().to_string();
        let second = FolderLock::acquire(folder.path());
        assert!(
            matches!(&second, Err(LockError::InUse { process }) if *process == us),
            "{second:?}"
        );
        drop(lock);
        assert!(!FolderLock::is_held(folder.path()));
    }

    /// A child between fork and exec has copies of our open files. They must not prolong the lock.
    #[test]
    fn a_released_lock_is_free_although_a_child_has_a_copy_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = FolderLock::acquire(folder.path()).expect("free");
        let copy = lock.0.try_clone().expect("a copy");
        drop(lock);
        FolderLock::acquire(folder.path()).expect("free again");
        drop(copy);
    }
}
