//! The check that the path of the spool still names the folder that this process has locked and the
//! files that it has open.
//!
//! An administrator may move or replace the folder beneath a running relay, by restoring a backup for
//! example. The open files stay as they are then, but no restart would find what is written to them,
//! and paths lead to files of somebody else. So the lease of this owner is over. While its lock is
//! still on the folder that it has open, wherever that is, nobody else can use it, and the results of
//! attempts that were under way are still written to the open segment of its log; nothing else is.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::SpoolError;
use super::super::file::io_error;
use super::super::lease::{HeldLease, Lease, LeaseClock};
use super::folder::SpoolFolder;
use crate::storage::files::FileId;
use crate::storage::folder_lock;

/// The files whose names must lead to the open ones.
const OPEN_NAMES: [&str; 3] = [DATABASE, "log", "bodies"];
/// The one of them that is a file, which SQLite has open.
const DATABASE: &str = "queue.db";

/// The identities of the folder and of the files that are open in it.
#[derive(Debug)]
pub(super) struct HeldFolder {
    path: PathBuf,
    /// Keeps the identity of the folder from being given to another one. No file in it is kept open
    /// here: closing a file would end the locks that SQLite has on it.
    folder: File,
    id: FileId,
    lock: FileId,
    open: [FileId; OPEN_NAMES.len()],
    /// Keep the identities of the folders in it from being given to other ones.
    _folders: Vec<File>,
    lease: HeldLease,
    /// True once the lock was not in our folder: another process may have used it since.
    was_unlocked: AtomicBool,
    /// Held while the folder is examined, so that the latest result counts.
    examining: Mutex<()>,
}

/// The reason why the folder is not this owner's any more.
struct FolderLoss {
    /// The cause and the remedy.
    reason: String,
    /// True if the lock does not protect the open files any more.
    is_unlocked: bool,
}

impl HeldFolder {
    /// Remembers the identities of a folder that is locked and whose files exist.
    pub(super) fn of(folder: &SpoolFolder) -> Result<Self, SpoolError> {
        let path = folder.paths.folder.clone();
        let failed = |error: io::Error| io_error("examine", &path, &error);
        let missing = || failed(io::ErrorKind::NotFound.into());
        let opened = File::open(&path).map_err(failed)?;
        let id = FileId::of(&opened).map_err(failed)?;
        let lock = folder.lock.id().map_err(failed)?;
        let mut open = [id; OPEN_NAMES.len()];
        let mut folders = Vec::new();
        for (name, open) in OPEN_NAMES.iter().zip(&mut open) {
            if *name != DATABASE {
                folders.push(File::open(path.join(name)).map_err(failed)?);
            }
            let found = FileId::within(&opened, name).map_err(failed)?;
            *open = found.ok_or_else(missing)?;
        }
        Ok(Self {
            folder: opened,
            id,
            lock,
            open,
            _folders: folders,
            lease: HeldLease::new(Lease::ENDLESS, LeaseClock::Boot),
            was_unlocked: AtomicBool::new(false),
            examining: Mutex::new(()),
            path,
        })
    }

    /// Returns the lease of this owner.
    pub(super) fn lease(&self) -> &HeldLease {
        &self.lease
    }

    /// Examines the folder, and ends the lease or renews it. Blocks, for a few system calls.
    ///
    /// # Errors
    /// [`SpoolError::NotOwner`] if the folder is not this owner's any more; [`SpoolError::Io`] if that
    /// cannot be found out, which leaves the lease as it was.
    pub(super) fn examine(&self) -> Result<Lease, SpoolError> {
        let _turn = self
            .examining
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let loss = self.find_loss();
        let loss = loss.map_err(|error| io_error("examine", &self.path, &error))?;
        let Some(loss) = loss else {
            self.lease.renew(Lease::ENDLESS);
            return Ok(Lease::ENDLESS);
        };
        if loss.is_unlocked {
            self.was_unlocked.store(true, Ordering::SeqCst);
        }
        self.lease.lose(&loss.reason);
        Err(SpoolError::NotOwner(loss.reason))
    }

    /// Examines the folder, and returns whether the lease holds. Every use of a path that
    /// changes what is there asks this first.
    pub(super) fn is_ours(&self) -> bool {
        // If it cannot be found out, the lease stays as it was.
        let _not_owner = self.examine();
        self.lease.holds()
    }

    /// Checks that nobody else can have used the files that are open, wherever they are now.
    ///
    /// # Errors
    /// [`SpoolError::NotOwner`].
    pub(super) fn check_lock(&self) -> Result<(), SpoolError> {
        if self.was_unlocked.load(Ordering::Relaxed) {
            self.lease.check()?;
        }
        Ok(())
    }

    fn find_loss(&self) -> io::Result<Option<FolderLoss>> {
        let path = self.path.display();
        let is_unlocked = self.was_unlocked.load(Ordering::SeqCst)
            || FileId::within(&self.folder, folder_lock::NAME)? != Some(self.lock);
        let loss = |reason| FolderLoss {
            reason,
            is_unlocked,
        };
        if FileId::at(&self.path)? != Some(self.id) {
            return Ok(Some(loss(format!(
                "{path} was moved, replaced, deleted or unmounted while gatepost uses it; put it back, or restart \
                 gatepost, which then uses what is there"
            ))));
        }
        if is_unlocked {
            return Ok(Some(loss(format!(
                "{path}/{} was deleted or replaced, so another gatepost may use the spool; restart gatepost",
                folder_lock::NAME
            ))));
        }
        for (name, open) in OPEN_NAMES.iter().zip(self.open) {
            if FileId::within(&self.folder, name)? != Some(open) {
                return Ok(Some(loss(format!(
                    "{path}/{name} was moved, replaced or deleted while gatepost uses it; put it back, or restart \
                     gatepost, which then uses what is there"
                ))));
            }
        }
        Ok(None)
    }
}
