//! The error of the downgrade memory.

use std::path::Path;

use crate::storage::sqlite::OpenError;

/// The reason why the memory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HistoryError(pub(super) String);

impl HistoryError {
    /// Describes an error of the database in `folder`.
    pub(super) fn of(folder: &Path, error: &OpenError) -> Self {
        if error.is_refusal() {
            return Self(error.to_string());
        }
        let folder = folder.display();
        Self(format!(
            "{error}; check owner, permissions and free space of {folder}"
        ))
    }
}
