//! Operations on files and folders that all stores need. All of them block.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, statat};
use rustix::io::Errno;

/// The identity of a file or folder, whatever its name is: its device and its number there. It stays
/// the same for as long as the file exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    number: u64,
}

impl FileId {
    /// Returns the identity of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            device: found.dev(),
            number: found.ino(),
        })
    }

    /// Returns the identity of the file that a path leads to; `None` if it leads to none. The file is
    /// not opened.
    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        Self::found(rustix::fs::stat(path))
    }

    /// Returns the identity of the file with this name in an open folder, wherever the folder is.
    pub(super) fn within(folder: &File, name: &str) -> io::Result<Option<Self>> {
        Self::found(statat(folder, name, AtFlags::empty()))
    }

    fn found(found: rustix::io::Result<rustix::fs::Stat>) -> io::Result<Option<Self>> {
        match found {
            Ok(found) => Ok(Some(Self {
                device: found.st_dev,
                number: found.st_ino,
            })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Creates a folder that only our user can read, if it is missing. Its name is durable then.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    sync_folder(parent(folder))
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Returns the folder of a file, or the parent of a folder.
pub(super) fn parent(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Returns the path with this text after its last character.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns whether the error means a full disk or an exhausted quota.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Makes a file have `size` octets with their space on the disk. A signal, as that of a reload, does
/// not interrupt it.
pub(super) fn allocate(file: &File, size: u64) -> rustix::io::Result<()> {
    fallocate(file, FallocateFlags::empty(), size)
}

/// Gives a file the space on the disk for `size` octets. Its length stays as it is.
pub(super) fn allocate_ahead(file: &File, size: u64) -> rustix::io::Result<()> {
    fallocate(file, FallocateFlags::KEEP_SIZE, size)
}

fn fallocate(file: &File, flags: FallocateFlags, size: u64) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, flags, 0, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_and_full_disks_are_distinguished_from_other_errors() {
        for (errno, full) in [
            (rustix::io::Errno::DQUOT, true),
            (rustix::io::Errno::NOSPC, true),
            (rustix::io::Errno::IO, false),
        ] {
            assert_eq!(is_full(&errno.into()), full, "{errno}");
        }
    }
}
