//! The exchange of a damaged database for the one that a repair made from it.
//!
//! ```text
//! repair/                    what a repair needs while it runs
//! repair/queue-<seconds>.db  the new database, complete and durable
//! repair/restored.new        the messages that it has again although they were set aside
//! repair/restored            that list, when the exchange has begun
//! ```
//!
//! As soon as the new database is complete, the exchange is completed by whoever opens the spool next:
//! it is a sequence of renames and removals, each of which may have happened before.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use super::super::SpoolError;
use super::super::file::{io_error, sync_folder};
use super::paths::SpoolPaths;
use super::unreported::{remove, unmark};
use crate::smtp::envelope::QueueId;
use crate::storage::files::{self, with_suffix};

/// The name of the folder.
pub(super) const WORK: &str = "repair";

/// The name of the list of messages that are restored, while the exchange may not have begun.
const PLANNED: &str = "restored.new";
/// The name of that list when it has.
const RESTORED: &str = "restored";

/// An exchange that was completed.
#[derive(Debug, Default)]
pub(super) struct CompletedExchange {
    /// The new place of the damaged database.
    pub(super) kept: Option<PathBuf>,
    /// The messages that were set aside before, and are in the queue again.
    pub(super) restored: Vec<QueueId>,
}

/// Returns the folder that a repair needs while it runs.
pub(super) fn work_folder(paths: &SpoolPaths) -> PathBuf {
    paths.folder.join(WORK)
}

/// Makes a database the one that [`complete`] puts in the place of `queue.db`. It must not be open.
/// `restored` are the messages in it that were set aside before.
/// `changed` is the time of the spool's last change, from which the next start finds a clock jump.
pub(super) fn prepare(
    paths: &SpoolPaths,
    new: &Path,
    restored: &[QueueId],
    changed: Option<SystemTime>,
) -> Result<(), SpoolError> {
    let work = work_folder(paths);
    let list = work.join(PLANNED);
    let lines: String = restored.iter().map(|id| id.to_string() + "\n").collect();
    let listed = File::create(&list).and_then(|mut file| {
        file.write_all(lines.as_bytes())?;
        file.sync_all()
    });
    listed.map_err(|error| io_error("write", &list, &error))?;
    let seconds = Timestamp::now().as_second();
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

/// Completes the exchange, if a repair made a new database, and removes what a repair left.
pub(super) fn complete(paths: &SpoolPaths) -> Result<CompletedExchange, SpoolError> {
    let work = work_folder(paths);
    let mut completed = CompletedExchange::default();
    if !work.exists() {
        return Ok(completed);
    }
    let list = work.join(RESTORED);
    if let Some(new) = new_database(&work)? {
        let planned = work.join(PLANNED);
        if planned.exists() {
            std::fs::rename(&planned, &list)
                .map_err(|error| io_error("rename", &planned, &error))?;
            sync_folder(&work)?;
        }
        completed.kept = Some(exchange(paths, &new)?);
    }
    if list.exists() {
        let ids =
            std::fs::read_to_string(&list).map_err(|error| io_error("read", &list, &error))?;
        completed.restored = ids.lines().filter_map(QueueId::parse).collect();
        for id in &completed.restored {
            forget_set_aside(&paths.quarantine, *id)?;
        }
    }
    std::fs::remove_dir_all(&work).map_err(|error| io_error("remove", &work, &error))?;
    sync_folder(&paths.folder)?;
    Ok(completed)
}

/// Removes a message from the quarantine that is in the queue again with all that it has there.
fn forget_set_aside(quarantine: &Path, id: QueueId) -> Result<(), SpoolError> {
    let name = id.to_string();
    unmark(quarantine, &name)?;
    for kind in ["txt", "json", "eml"] {
        remove(&quarantine.join(format!("{name}.{kind}")))?;
    }
    Ok(())
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
    remove(&index)?;
    sync_folder(aside)?;
    sync_folder(&paths.folder)?;
    std::fs::rename(new, &paths.database).map_err(|error| io_error("rename", new, &error))?;
    sync_folder(&paths.folder)?;
    Ok(kept)
}
