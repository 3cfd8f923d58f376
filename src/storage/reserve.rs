//! The reserve file: disk space that is freed when the disk is full, for data that must be written
//! even then.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::files::allocate;

/// The name of the file.
pub(super) const NAME: &str = "reserve";

/// The reserve file of a folder, which need not exist.
#[derive(Debug)]
pub(super) struct ReserveFile {
    path: PathBuf,
}

impl ReserveFile {
    /// Returns the reserve file of `folder`.
    pub(super) fn of(folder: &Path) -> Self {
        Self {
            path: folder.join(NAME),
        }
    }

    /// Returns its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its size in octets; 0 if it does not exist.
    pub(super) fn size(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Makes the file have at least `size` octets on the disk. If that fails, there is no file.
    pub(super) fn create(&self, size: u64) -> io::Result<()> {
        match fs::metadata(&self.path) {
            Ok(present) if present.len() >= size.max(1) => return Ok(()),
            // The file is from a time when the disk had less free space, or a crash came between
            // its creation and its allocation.
            Ok(_) => fs::remove_file(&self.path)?,
            Err(_) => {}
        }
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        let allocated = allocate(&file, size.max(1));
        if allocated.is_err() {
            // It is incomplete: it uses up space and is no reserve.
            self.release();
        }
        Ok(allocated?)
    }

    /// Removes the file. Returns whether there was one.
    pub(super) fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_created_grows_and_is_released_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let reserve = ReserveFile::of(folder.path());
        assert_eq!(reserve.size(), 0);
        for (wanted, size) in [(4096, 4096), (1024, 4096), (8192, 8192)] {
            reserve.create(wanted).expect("the disk has space");
            assert_eq!(reserve.size(), size);
        }
        fs::write(reserve.path(), "").expect("a crash");
        reserve.create(4096).expect("the disk has space");
        assert_eq!(reserve.size(), 4096);
        assert!(reserve.release() && !reserve.release());
        reserve
            .create(u64::MAX / 2)
            .expect_err("no disk is so large");
        assert!(!reserve.path().exists());
    }
}
