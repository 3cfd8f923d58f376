//! The errors of the evidence.

use std::io;
use std::path::{Path, PathBuf};

use crate::storage::ownership::UnsafeFolder;
use crate::storage::postgresql::DatabaseError;

/// The error of writing or reading evidence: what failed, where, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// An operation on a file or folder failed.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The folder cannot be created or written to.
    #[error(
        "cannot {what} {folder}: {error}; give that folder to the user that gatepost runs as (install -d -m 0700 -o \
         USER {folder}), name another with [evidence] path, or write path = \"\" to keep no evidence",
        folder = folder.display()
    )]
    Folder {
        /// The operation.
        what: &'static str,
        /// The folder.
        folder: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The database that nodes share cannot be read or written.
    #[error("cannot use the evidence in the database: {0}")]
    Database(#[from] DatabaseError),
    /// Other users can change the folder.
    #[error("the evidence folder {0}")]
    Unsafe(#[from] UnsafeFolder),
    /// Another process writes to the folder.
    #[error(
        "the evidence folder {} is in use by another gatepost (process {process}): a chain has one writer; stop it, \
         or give this one an [evidence] path of its own",
        folder.display()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other process.
        process: String,
    },
    /// The incomplete record that a crash left cannot be moved aside. Nothing was changed.
    #[error(
        "cannot move the {octets} octets of an incomplete record, left by a crash at the end of {}, to {}: {error}; \
         free some disk space or repair the disk, and start again: nothing was changed",
        path.display(), torn.display()
    )]
    Torn {
        /// The length of the incomplete record.
        octets: u64,
        /// The file that ends with it.
        path: PathBuf,
        /// The file that it should be moved to.
        torn: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

impl EvidenceError {
    pub(super) fn new(what: &'static str, path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io { what, path, error }
    }
}

/// The error of a record that was not written because the process is about to end. Its delivery
/// must be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the evidence has been closed")]
pub struct NotWritten;
