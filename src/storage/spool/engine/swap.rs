//! The exchange of a damaged database for the one that a repair made from it.
//!
//! ```text
//! repair/                    what a repair needs while it runs
//! repair/queue-<seconds>.db  the new database, complete and durable
//! ```
//!
//! As soon as the new database is complete, the exchange is completed by whoever opens the spool next:
//! it is a sequence of renames, each of which may have happened before.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::SpoolError;
use super::super::file::{io_error, sync_folder};
use super::paths::SpoolPaths;
use crate::storage::files::{self, with_suffix};

/// The name of the folder.
pub(super) const WORK: &str = "repair";

/// Returns the folder that a repair needs while it runs.
pub(super) fn work_folder(paths: &SpoolPaths) -> PathBuf {
    paths.folder.join(WORK)
}

/// Makes a database the one that [`complete`] puts in the place of `queue.db`. It must not be open.
/// `changed` is the time of the spool's last change, from which the next start finds a clock jump.
pub(super) fn prepare(
    paths: &SpoolPaths,
    new: &Path,
    seconds: i64,
    changed: Option<SystemTime>,
) -> Result<(), SpoolError> {
    let work = work_folder(paths);
    let synced = File::options().write(true).open(new).and_then(|file| {
        if let Some(changed) = changed {
            file.set_modified(changed)?;
        }
        file.sync_all()
    });
    synced.map_err(|error| io_error("sync", new, &error))?;
    // A database of an earlier repair in the same second must not be taken for this one.
    let is_free = |name: &String| {
        let kept = paths.quarantine.join(name);
        !kept.exists() && !with_suffix(&kept, "-wal").exists()
    };
    let mut names = (seconds..).map(|seconds| format!("queue-{seconds}.db"));
    let name = names.find(is_free).unwrap_or_default();
    let complete = work.join(name);
    std::fs::rename(new, &complete).map_err(|error| io_error("rename", new, &error))?;
    sync_folder(&work)?;
    sync_folder(&paths.folder)
}

/// Returns whether a repair made a new database that is not in its place yet.
pub(super) fn is_pending(paths: &SpoolPaths) -> Result<bool, SpoolError> {
    let work = work_folder(paths);
    Ok(work.exists() && new_database(&work)?.is_some())
}

/// Completes the exchange, if a repair made a new database, and returns the new place of the damaged
/// one. Removes what a repair left.
pub(super) fn complete(paths: &SpoolPaths) -> Result<Option<PathBuf>, SpoolError> {
    let work = work_folder(paths);
    if !work.exists() {
        return Ok(None);
    }
    let kept = match new_database(&work)? {
        Some(new) => Some(exchange(paths, &new)?),
        None => None,
    };
    std::fs::remove_dir_all(&work).map_err(|error| io_error("remove", &work, &error))?;
    sync_folder(&paths.folder)?;
    Ok(kept)
}

/// Removes what a repair left that failed before its new database was complete.
pub(super) fn abandon(paths: &SpoolPaths) -> Result<(), SpoolError> {
    let work = work_folder(paths);
    if !work.exists() || new_database(&work)?.is_some() {
        return Ok(());
    }
    std::fs::remove_dir_all(&work).map_err(|error| io_error("remove", &work, &error))
}

/// Returns the complete new database, if there is one.
fn new_database(work: &Path) -> Result<Option<PathBuf>, SpoolError> {
    let failed = |error| io_error("list", work, &error);
    for entry in std::fs::read_dir(work).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("queue-") && name.ends_with(".db") {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Moves the damaged database to the quarantine, and the new one to its place.
fn exchange(paths: &SpoolPaths, new: &Path) -> Result<PathBuf, SpoolError> {
    let aside = &paths.quarantine;
    files::create_folder(aside).map_err(|error| io_error("create", aside, &error))?;
    let kept = aside.join(new.file_name().unwrap_or_default());
    // The log first: beside the new database, it would be applied to that.
    let log = with_suffix(&kept, "-wal");
    for (from, to) in [(&paths.wal, &log), (&paths.database, &kept)] {
        if to.exists() {
            continue;
        }
        match std::fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("rename", from, &error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let index = with_suffix(&paths.database, "-shm");
    match std::fs::remove_file(&index) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &index, &error));
        }
        Ok(()) | Err(_) => {}
    }
    sync_folder(aside)?;
    sync_folder(&paths.folder)?;
    std::fs::rename(new, &paths.database).map_err(|error| io_error("rename", new, &error))?;
    sync_folder(&paths.folder)?;
    Ok(kept)
}
