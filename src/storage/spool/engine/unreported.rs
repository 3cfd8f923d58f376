//! The quarantined entries that the postmaster must be informed of: each has a file
//! `<name>.unreported` with a description of the damage. When a report about it is stored, the file
//! becomes `<name>.reported`, so that none follows about the same message.
//!
//! A report of that kind may be damaged as well. Its id is in the file `reports`, so that no report
//! is made about it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::file::{io_error, sync_folder};
use super::super::{SetAside, SpoolError};
use crate::smtp::envelope::QueueId;

/// The extension of the file that marks an entry.
const MARK: &str = "unreported";
/// The extension of that file once a report is stored.
const REPORTED: &str = "reported";
/// The name of the file with the ids of the latest reports.
const REPORTS: &str = "reports";
/// The number of reports that it names.
const REPORTS_MAX: usize = 100;

/// The marks of entries that the postmaster must be informed of.
#[derive(Debug)]
pub(super) struct UnreportedEntries {
    folder: PathBuf,
    is_any: AtomicBool,
}

impl UnreportedEntries {
    /// Looks for the marks in a quarantine.
    pub(super) fn find(folder: &Path) -> Self {
        let found = Self {
            folder: folder.to_owned(),
            is_any: AtomicBool::new(false),
        };
        // A folder that cannot be listed is listed again for the next report.
        let _listed = found.list();
        found
    }

    /// Returns whether the postmaster must be informed of anything.
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// Marks a message that is about to be quarantined, as [`mark_message`].
    pub(super) fn add(&self, name: &str, fault: &str) -> Result<bool, SpoolError> {
        let is_new = mark_message(&self.folder, name, fault)?;
        if is_new {
            self.is_any.store(true, Ordering::Relaxed);
        }
        Ok(is_new)
    }

    /// Returns the marked entries, in the order of their names.
    pub(super) fn list(&self) -> Result<Vec<SetAside>, SpoolError> {
        // Set before the folder is read, so that an entry that is added meanwhile counts.
        self.is_any.store(false, Ordering::Relaxed);
        let listed = self.read();
        if listed.as_ref().is_ok_and(Vec::is_empty) {
            return listed;
        }
        self.is_any.store(true, Ordering::Relaxed);
        listed
    }

    fn read(&self) -> Result<Vec<SetAside>, SpoolError> {
        let failed = |error| io_error("list", &self.folder, &error);
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            if path.extension().is_some_and(|extension| extension == MARK) {
                let fault = fs::read(&path).unwrap_or_else(|error| {
                    format!("its description cannot be read: {error}").into_bytes()
                });
                all.push(SetAside {
                    name: name.clone().into_owned(),
                    fault: String::from_utf8_lossy(&fault).into_owned(),
                    files: self.folder.join(format!("{name}*")).display().to_string(),
                });
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Changes the marks of entries that this report is about.
    pub(super) fn reported(&self, report: QueueId, entries: &[SetAside]) -> Result<(), SpoolError> {
        let path = self.folder.join(REPORTS);
        let mut ids = reports(&self.folder);
        ids.push(report.to_string());
        let latest = &ids[ids.len().saturating_sub(REPORTS_MAX)..];
        // A write that is cut short leaves the file as it was.
        let new = path.with_extension("new");
        write(&new, &format!("{}\n", latest.join("\n")))?;
        fs::rename(&new, &path).map_err(|error| io_error("rename", &new, &error))?;
        for entry in entries {
            let path = self.folder.join(format!("{}.{MARK}", entry.name));
            match fs::rename(&path, path.with_extension(REPORTED)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("rename", &path, &error));
                }
                _ => {}
            }
        }
        sync_folder(&self.folder)?;
        self.list().map(drop)
    }
}

/// Marks a message in this quarantine, unless it has a mark, or the postmaster is informed of it.
/// Returns whether it has a new mark.
pub(super) fn mark_message(folder: &Path, name: &str, fault: &str) -> Result<bool, SpoolError> {
    let is_known = [MARK, REPORTED]
        .iter()
        .any(|mark| folder.join(format!("{name}.{mark}")).exists());
    if !is_known {
        mark(folder, name, fault)?;
    }
    Ok(!is_known)
}

/// Removes the marks of a message.
pub(super) fn unmark(folder: &Path, name: &str) -> Result<(), SpoolError> {
    for mark in [MARK, REPORTED] {
        remove(&folder.join(format!("{name}.{mark}")))?;
    }
    Ok(())
}

/// Removes a file, which may be missing.
pub(super) fn remove(path: &Path) -> Result<(), SpoolError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Marks an entry in this quarantine, unless it is a report about such entries.
pub(super) fn mark(folder: &Path, name: &str, fault: &str) -> Result<(), SpoolError> {
    if reports(folder).iter().any(|report| report == name) {
        tracing::error!(
            queue_id = name,
            fault,
            "a report about quarantined messages is damaged as well; no other one is made"
        );
        return Ok(());
    }
    write(&folder.join(format!("{name}.{MARK}")), fault)?;
    sync_folder(folder)
}

/// Returns the ids of the latest reports.
fn reports(folder: &Path) -> Vec<String> {
    let ids = fs::read_to_string(folder.join(REPORTS)).unwrap_or_default();
    ids.lines().map(str::to_owned).collect()
}

fn write(path: &Path, text: &str) -> Result<(), SpoolError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| io_error("write", path, &error))
}
