//! Remembers that DNSSEC validation has worked on this machine, in a file in the spool folder.
//!
//! From then on a resolver that returns no signatures is treated as an attack. Only an operator's
//! command removes the memory. A file that cannot be read counts like a sound one, since that is
//! stricter.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The file in the spool folder.
const NAME: &str = "dnssec.json";
const NEW: &str = "dnssec.json.new";

#[derive(Debug, Serialize, Deserialize)]
struct MemoryFile {
    /// The time of the first successful validation.
    validated_since: Timestamp,
}

/// The flag that validation has worked, with the file that stores it.
#[derive(Debug, Default)]
pub(super) struct DnssecMemory {
    has_validated: AtomicBool,
    times_forgotten: AtomicU64,
    /// The spool folder, once it is known.
    folder: Mutex<Option<PathBuf>>,
}

impl DnssecMemory {
    pub(super) fn has_validated(&self) -> bool {
        self.has_validated.load(Ordering::Relaxed)
    }

    /// Returns the number of times that an operator removed the memory since the start.
    pub(super) fn times_forgotten(&self) -> u64 {
        self.times_forgotten.load(Ordering::Relaxed)
    }

    /// Loads the file from a folder, and stores the memory there from now on.
    pub(super) fn keep_in(&self, folder: &Path) {
        let file = folder.join(NAME);
        let found = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot read the DNSSEC memory; requiring DNSSEC");
                true
            }
            Ok(content) => {
                if let Err(error) = serde_json::from_slice::<MemoryFile>(&content) {
                    tracing::warn!(file = %file.display(), %error, "the DNSSEC memory is damaged; requiring DNSSEC");
                }
                true
            }
        };
        *self.lock() = Some(folder.to_owned());
        if found {
            self.has_validated.store(true, Ordering::Relaxed);
        } else if self.has_validated() {
            self.write();
        }
    }

    /// Records that validation has worked.
    pub(super) fn remember(&self) {
        if !self.has_validated.swap(true, Ordering::Relaxed) {
            self.write();
        }
    }

    /// Removes the memory and its file.
    pub(super) fn forget(&self) -> io::Result<()> {
        if let Some(folder) = &*self.lock() {
            match fs::remove_file(folder.join(NAME)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Err(_) => {}
                Ok(()) => File::open(folder)?.sync_all()?,
            }
        }
        self.has_validated.store(false, Ordering::Relaxed);
        self.times_forgotten.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self) {
        let Some(folder) = self.lock().clone() else {
            return;
        };
        if let Err(error) = write(&folder) {
            let file = folder.join(NAME);
            tracing::warn!(file = %file.display(), %error, "cannot write the DNSSEC memory; a restart forgets it");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<PathBuf>> {
        self.folder
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn write(folder: &Path) -> io::Result<()> {
    let content = serde_json::to_vec(&MemoryFile {
        validated_since: Timestamp::now(),
    })?;
    let new = folder.join(NEW);
    let mut file = File::create(&new)?;
    file.write_all(&content)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(NAME))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(folder: &Path) -> DnssecMemory {
        let memory = DnssecMemory::default();
        memory.keep_in(folder);
        memory
    }

    #[test]
    fn only_forget_removes_the_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!opened(folder.path()).has_validated());
        opened(folder.path()).remember();
        assert!(opened(folder.path()).has_validated());
        opened(folder.path())
            .forget()
            .expect("a folder that can be written");
        assert!(!opened(folder.path()).has_validated());
    }

    #[test]
    fn a_damaged_file_counts_as_the_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(NAME), "{half").expect("written");
        assert!(opened(folder.path()).has_validated());
    }

    #[test]
    fn a_validation_before_the_folder_is_known_is_written_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let memory = DnssecMemory::default();
        memory.remember();
        memory.keep_in(folder.path());
        assert!(opened(folder.path()).has_validated());
    }
}
