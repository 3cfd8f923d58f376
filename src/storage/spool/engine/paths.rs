//! The paths of the spool's files.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::smtp::envelope::QueueId;
use crate::storage::quarantine;

/// The paths of the files in the spool that the engine uses. `folder` describes them all.
#[derive(Debug, Clone)]
pub(super) struct SpoolPaths {
    pub(super) folder: PathBuf,
    pub(super) database: PathBuf,
    pub(super) wal: PathBuf,
    pub(super) log: PathBuf,
    pub(super) clock_jumps: PathBuf,
    pub(super) bodies: PathBuf,
    pub(super) quarantine: PathBuf,
}

impl SpoolPaths {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            database: folder.join("queue.db"),
            wal: folder.join("queue.db-wal"),
            log: folder.join("log"),
            clock_jumps: folder.join("leaps.json"),
            bodies: folder.join("bodies"),
            quarantine: quarantine::folder(folder),
        }
    }

    /// Returns the time of the database's last change.
    pub(super) fn last_change(&self) -> Option<SystemTime> {
        let modified = |path: &PathBuf| {
            std::fs::metadata(path)
                .and_then(|file| file.modified())
                .ok()
        };
        modified(&self.database).max(modified(&self.wal))
    }

    pub(super) fn body(&self, id: QueueId) -> PathBuf {
        self.bodies.join(id.to_string())
    }
}
