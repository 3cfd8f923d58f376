//! The check that the path of the spool still names the folder that this process has locked and the
//! files that it has open.
//!
//! An administrator may move or replace the folder beneath a running relay, by restoring a backup for
//! example. The open files stay as they are then, but no restart would find what is written to them,
//! and paths lead to files of somebody else. So the lease of this owner is over. While its lock is
//! still on the folder that it has open, wherever that is, nobody else can use it, and the results of
//! attempts that were under way are still written to the open segment of its log; nothing else is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::super::SpoolError;
use super::super::file::io_error;
use super::super::lease::{HeldLease, Lease, LeaseClock};
use super::super::log::LogFolder;
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
    /// The segments of the log. What is written to one without a name, no restart would find.
    segments: Mutex<BTreeMap<u64, FileId>>,
    /// True once the lock was not in our folder: another process may have used it since.
    was_unlocked: AtomicBool,
    /// Held while the folder is examined, so that the latest result counts.
    examining: Mutex<()>,
    /// Does something before each examination.
    #[cfg(test)]
    pub(super) before_examination: Mutex<Option<TestHook>>,
}

/// A step that a test does.
#[cfg(test)]
pub(super) struct TestHook(pub(super) Box<dyn FnMut() + Send>);

#[cfg(test)]
impl std::fmt::Debug for TestHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestHook").finish_non_exhaustive()
    }
}

/// The reason why the folder is not this owner's any more.
struct FolderLoss {
    /// The cause and the remedy.
    reason: String,
    /// True if the lock does not protect the open files any more.
    is_unlocked: bool,
}

impl HeldFolder {
    /// Remembers the identities of a folder that is locked and whose files exist, and of these segments
    /// of its log.
    pub(super) fn of(
        folder: &SpoolFolder,
        segments: impl Iterator<Item = u64>,
    ) -> Result<Self, SpoolError> {
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
        let held = Self {
            folder: opened,
            id,
            lock,
            open,
            _folders: folders,
            lease: HeldLease::new(Lease::ENDLESS, LeaseClock::Boot),
            segments: Mutex::default(),
            was_unlocked: AtomicBool::new(false),
            examining: Mutex::new(()),
            #[cfg(test)]
            before_examination: Mutex::default(),
            path,
        };
        for segment in segments {
            held.keep_segment(segment);
        }
        Ok(held)
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
        #[cfg(test)]
        if let Ok(mut hook) = self.before_examination.lock()
            && let Some(TestHook(step)) = &mut *hook
        {
            step();
        }
        self.conclude(self.find_loss())
    }

    /// Ends the lease or renews it, after the folder was examined with this result.
    fn conclude(&self, found: io::Result<Option<FolderLoss>>) -> Result<Lease, SpoolError> {
        let loss = match found {
            Ok(loss) => loss,
            // A file server that was restarted says so until it knows the folder again. It says
            // nothing about the lock.
            Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => {
                Some(FolderLoss {
                    reason: format!(
                        "{} is stale: the file server does not know it at present; restart gatepost if that lasts",
                        self.path.display()
                    ),
                    is_unlocked: self.was_unlocked.load(Ordering::SeqCst),
                })
            }
            Err(error) => return Err(io_error("examine", &self.path, &error)),
        };
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

    /// Adds a segment, which is in the folder of the log, to those that must stay there.
    pub(super) fn keep_segment(&self, number: u64) {
        match FileId::within(&self.folder, &segment_name(number)) {
            Ok(Some(id)) => {
                self.segments().insert(number, id);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(segment = number, %error, "the name of a segment is not examined");
            }
        }
    }

    /// Allows that a segment leaves the log.
    pub(super) fn let_segment_go(&self, number: u64) {
        self.segments().remove(&number);
    }

    /// Returns the name of a segment that is not where it was.
    fn missing_segment(&self) -> io::Result<Option<String>> {
        for (number, id) in &*self.segments() {
            let name = segment_name(*number);
            if FileId::within(&self.folder, &name)? != Some(*id) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn segments(&self) -> MutexGuard<'_, BTreeMap<u64, FileId>> {
        // No code panics while it holds the lock.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
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
        let missing = self.missing_segment()?;
        Ok(missing.map(|name| {
            loss(format!(
                "{path}/{name} was moved, replaced or deleted while gatepost uses it, and has mail that is nowhere \
                 else; put it back, or restart gatepost, which then goes on without that mail"
            ))
        }))
    }
}

/// Returns the name of a segment below the folder of the spool.
fn segment_name(number: u64) -> String {
    format!("log/{}", LogFolder::segment_name(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lease is over for as long as that lasts, and what was written stays valid.
    #[test]
    fn a_stale_folder_is_no_lost_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let locked = SpoolFolder::lock(folder.path()).expect("nobody else has it");
        for name in ["log", "queue.db"] {
            std::fs::create_dir(folder.path().join(name)).expect("a name");
        }
        let held = HeldFolder::of(&locked, std::iter::empty()).expect("it is there");
        let stale = io::Error::from_raw_os_error(Errno::STALE.raw_os_error());
        let refused = held.conclude(Err(stale)).expect_err("it is stale");
        assert!(matches!(refused, SpoolError::NotOwner(_)), "{refused}");
        assert!(!held.lease().holds());
        held.check_lock().expect("nobody else had it");
        let failed = io::Error::from_raw_os_error(Errno::IO.raw_os_error());
        let refused = held.conclude(Err(failed)).expect_err("it cannot be read");
        assert!(matches!(refused, SpoolError::Io(_)), "{refused}");
        assert!(!held.lease().holds(), "the lease stays as it was");
        held.examine().expect("it is where it was");
        assert!(held.lease().holds());
    }
}
