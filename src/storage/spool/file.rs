//! File operations of the spool: sync a folder, remove a file that is no longer needed, describe an
//! I/O error.
//!
//! All functions here that touch files block; call them on blocking threads only, as in
//! [`blocking`].

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use tokio::task::JoinError;

use super::error::SpoolError;
use crate::storage::files;

/// The future that the methods of [`super::Spool`] return.
pub type SpoolFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SpoolError>> + Send + 'a>>;

/// A file that is removed when this value is dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct TemporaryFile {
    path: Option<PathBuf>,
}

impl TemporaryFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    /// Keeps the file.
    pub(super) fn keep(mut self) {
        self.path = None;
    }

    /// Renames the file. From then on the new name is the one that is removed on drop.
    pub(super) fn rename(&mut self, to: PathBuf) -> Result<(), SpoolError> {
        if let Some(from) = &self.path {
            std::fs::rename(from, &to).map_err(|error| io_error("rename", from, &error))?;
            self.path = Some(to);
        }
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let Some(path) = self.path.take() else { return };
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "spool file not removed; the next start removes it");
            }
        }
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), SpoolError> {
    files::sync_folder(folder).map_err(|error| io_error("sync", folder, &error))
}

/// Describes an I/O error: what failed, on which path. A full disk or quota becomes
/// [`SpoolError::Full`].
pub(super) fn io_error(what: &str, path: &Path, error: &io::Error) -> SpoolError {
    let text = format!("cannot {what} {}: {error}", path.display());
    if files::is_full(error) {
        SpoolError::Full(text)
    } else {
        SpoolError::Io(text)
    }
}

/// Runs `work` on a thread where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(interrupted(&error)),
    }
}

/// Returns the error for work on another thread that panicked, or that the end of the runtime cut
/// short. In either case its result is unknown.
pub(super) fn interrupted(error: &JoinError) -> SpoolError {
    SpoolError::Io(format!("a spool operation was interrupted: {error}"))
}
