//! The few things a spool does with files: sync a folder, remove what nobody wants, tell a fault.
//!
//! Not a file abstraction; everything here blocks and is called on threads that may.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{SpoolError, quota};

/// A file that is removed when this is dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct Discard {
    path: Option<PathBuf>,
}

impl Discard {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    /// The file stays.
    pub(super) fn keep(mut self) {
        self.path = None;
    }

    /// Gives the file another name, and remembers that one.
    pub(super) fn rename(&mut self, to: PathBuf) -> Result<(), SpoolError> {
        if let Some(from) = &self.path {
            std::fs::rename(from, &to).map_err(|error| fault("rename", from, &error))?;
            self.path = Some(to);
        }
        Ok(())
    }
}

impl Drop for Discard {
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
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| fault("sync", folder, &error))
}

/// What the system said, as people need it.
pub(super) fn fault(what: &str, path: &Path, error: &io::Error) -> SpoolError {
    let text = format!("cannot {what} {}: {error}", path.display());
    if quota::is_full(error) { SpoolError::Full(text) } else { SpoolError::Io(text) }
}

/// Runs `work` where blocking harms nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // It panicked, or the runtime is going down: either way nothing may be claimed.
        Err(error) => Err(SpoolError::Io(format!("spool work was cut short: {error}"))),
    }
}
