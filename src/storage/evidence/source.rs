//! The folders that are read as one chain: that of the daemon, and those to which days were archived.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::days::{self, DayFile};
use super::error::EvidenceError;
use super::shared::NodeChain;

/// The folders that are read as one chain.
#[derive(Debug, Clone, Copy)]
pub struct EvidenceSource<'a> {
    /// The folder with the newest days.
    pub folder: &'a Path,
    /// The folders to which earlier days were archived.
    pub archives: &'a [PathBuf],
    /// The chain in the database that nodes share, which is read in place of the folders.
    pub chain: Option<&'a NodeChain>,
}

impl<'a> From<&'a NodeChain> for EvidenceSource<'a> {
    fn from(chain: &'a NodeChain) -> Self {
        Self {
            folder: chain.node(),
            archives: &[],
            chain: Some(chain),
        }
    }
}

impl<'a> From<&'a Path> for EvidenceSource<'a> {
    fn from(folder: &'a Path) -> Self {
        let archives = &[];
        Self {
            folder,
            archives,
            chain: None,
        }
    }
}

impl<'a> From<&'a PathBuf> for EvidenceSource<'a> {
    fn from(folder: &'a PathBuf) -> Self {
        folder.as_path().into()
    }
}

impl EvidenceSource<'_> {
    /// Returns the days of all folders, the oldest first. A day that is still in the folder although
    /// it was archived is read there.
    pub(super) fn files(self) -> Result<Vec<DayFile>, EvidenceError> {
        let mut found = BTreeMap::new();
        let archives = self.archives.iter().map(PathBuf::as_path);
        for folder in archives.chain([self.folder]) {
            for file in days::files_for_reading(folder)? {
                found.insert(file.day, file);
            }
        }
        Ok(found.into_values().collect())
    }
}
