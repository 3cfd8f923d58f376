//! A spool that exists, locked so that no relay can use it meanwhile.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::SpoolError;
use super::super::file::io_error;
use super::paths::SpoolPaths;
use super::swap;
use crate::storage::folder_lock::{self, FolderLock, LockError};
use crate::storage::ownership;

/// The reason why a command cannot work on a spool.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The folder is no spool.
    #[error(
        "{} is no spool: it has neither queue.db nor a log; name the folder with --folder or in [spool] path",
        .0.display()
    )]
    NoSpool(PathBuf),
    /// The folder belongs to another user.
    #[error("{} belongs to the user {owner}, and this process runs as {user}", folder.display())]
    OtherUser {
        /// The folder.
        folder: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// Our user id.
        user: u32,
    },
    /// A relay runs on the spool.
    #[error("{} is in use by a running gatepost (process {process})", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The process id, as the lock file has it.
        process: String,
    },
    /// A repair was interrupted after the new database was complete.
    #[error(
        "a repair of {} was interrupted; run gatepost spool repair again, or start gatepost, which completes it",
        .0.display()
    )]
    RepairPending(PathBuf),
    /// Any other error.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// A spool that no relay uses while the value lives.
#[derive(Debug)]
pub(super) struct OfflineSpool {
    pub(super) paths: SpoolPaths,
    pub(super) lock: FolderLock,
}

impl OfflineSpool {
    /// Locks an existing spool of our own user.
    pub(super) fn lock(folder: &Path) -> Result<Self, OfflineError> {
        let paths = existing(folder)?;
        let found =
            std::fs::metadata(folder).map_err(|error| io_error("examine", folder, &error))?;
        let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            let folder = folder.to_owned();
            return Err(OfflineError::OtherUser {
                folder,
                owner,
                user,
            });
        }
        ownership::check(folder).map_err(|fault| SpoolError::Io(format!("the spool {fault}")))?;
        let lock = lock(folder)?;
        Ok(Self { paths, lock })
    }
}

/// Returns the paths of an existing spool.
pub(super) fn existing(folder: &Path) -> Result<SpoolPaths, OfflineError> {
    let paths = SpoolPaths::new(folder);
    // An exchange that was interrupted may have set the database aside already.
    let work = swap::work_folder(&paths);
    let known = [&paths.database, &paths.log, &work];
    if known.iter().any(|path| path.symlink_metadata().is_ok()) {
        return Ok(paths);
    }
    match std::fs::read_dir(folder) {
        Ok(_) => Err(OfflineError::NoSpool(folder.to_owned())),
        Err(error) => Err(io_error("list", folder, &error).into()),
    }
}

/// Locks the folder of a spool.
pub(super) fn lock(folder: &Path) -> Result<FolderLock, OfflineError> {
    FolderLock::acquire(folder).map_err(|error| {
        let path = folder.join(folder_lock::NAME);
        match error {
            LockError::Open(error) => io_error("open", &path, &error).into(),
            LockError::Lock(error) => io_error("lock", &path, &error).into(),
            LockError::InUse { process } => OfflineError::InUse {
                folder: folder.to_owned(),
                process,
            },
        }
    })
}
