//! The errors of the downgrade memory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::smtp::address::Host;
use crate::storage::postgresql::DatabaseError;
use crate::storage::sqlite::{OpenError, is_damage};

/// The reason why the memory cannot be used, or a change cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The database is of another version or program. It was not changed.
    #[error("{0}")]
    Refused(Box<OpenError>),
    /// The database cannot be opened.
    #[error("{error}; check owner, permissions and free space of {}", folder.display())]
    Open {
        /// The folder of the database.
        folder: PathBuf,
        /// The error of the database.
        error: Box<OpenError>,
    },
    /// The database that the nodes share cannot be read.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The thread that writes cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A domain was removed from the memory, but not from the disk.
    #[error(
        "{domain} is forgotten, but the change could not be written ({error}); a restart may restore it"
    )]
    NotWritten {
        /// The domain.
        domain: Host,
        /// The reason.
        error: Arc<WriteError>,
    },
    /// The memory is closed.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The reason why changes of the memory are not on disk.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A damaged database could not be replaced.
    #[error("there is no database to write to")]
    NoDatabase,
    /// The database cannot be written.
    #[error("cannot write to {}: {error}", file.display())]
    Failed {
        /// The database.
        file: PathBuf,
        /// The error of the database.
        error: rusqlite::Error,
    },
    /// The database that the nodes share cannot be written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl WriteError {
    /// Returns true if the database is damaged.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Failed { error, .. } if is_damage(error))
    }
}

impl HistoryError {
    /// Describes an error of the database in `folder`.
    pub(super) fn of(folder: &Path, error: OpenError) -> Self {
        if error.is_refusal() {
            return Self::Refused(Box::new(error));
        }
        let folder = folder.to_owned();
        Self::Open {
            folder,
            error: Box::new(error),
        }
    }
}
