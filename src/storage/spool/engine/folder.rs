//! The folder of the spool: its lock, the files that belong in it, and the leftovers of a crash.
//!
//! ```text
//! lock          locked by the running instance; contains its process id
//! log/          what was accepted and what became of it: <number>.seg, and spare
//! queue.db      what waits longer than a second, with queue.db-wal and queue.db-shm
//! reserve       a reserve of disk space, removed when the disk is full, for states and removals
//! quota-probe   a test file that shows whether a quota is exhausted; removed after the test
//! bodies/       content over 128 KiB: <id>; while it is being received: <id>.part
//! leaps.json    clock jumps, if there were any
//! aside/        quarantined entries: <id>.json (envelope), <id>.eml (content), <id>.txt (damage),
//!               <id>.unreported until the postmaster is informed of it, then <id>.reported;
//!               reports (the ids of such reports), unwritten (states and removals that a damaged
//!               database cannot take), damaged parts of the log: log-<number>-<offset>.bin,
//!               log-<number>.seg, and damaged databases: <name>-<seconds>.db, with -wal
//! repair/       the new database while a repair runs, and after a repair that was interrupted
//! policies.db   cache of MTA-STS policies (module `discovery`), with -wal and -shm
//! tlsrpt.db     counts for TLS reports (module `relay::tlsrpt`), with -wal and -shm
//! history.db    downgrade memory (module `discovery`), with -wal and -shm
//! dnssec.json   the record that DNSSEC validation has worked (module `net::dns`)
//! monitor.json  TLS coverage and certificates of partners (module `telemetry`)
//! node-token    the secret of the node, if the folder was that of a node of a shared spool
//! oauth2/       refresh tokens that a token server has replaced (module `net::oauth`)
//! ```
//!
//! Any other file is foreign: it is logged and left alone.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::SpoolError;
use super::super::file::{io_error, sync_folder};
use super::index::{HeldContent, LogIndex, Pending};
use super::offline::{self, OfflineError};
use super::paths::SpoolPaths;
use super::row::{IN_FILE, row_id};
use super::schema::{database_error, is_unreadable};
use super::swap;
use super::unreported::mark_message;
use crate::smtp::envelope::QueueId;
use crate::storage::folder_lock::{self, FolderLock};
use crate::storage::sqlite::SqliteDatabase;
use crate::storage::{files, ownership, quarantine, reserve};

/// The names that belong in the folder.
const KNOWN_NAMES: [&str; 29] = [
    folder_lock::NAME,
    // The secret of a node of a shared spool.
    NODE_TOKEN,
    "log",
    "queue.db",
    "queue.db-wal",
    "queue.db-shm",
    "queue.db-journal",
    reserve::NAME,
    "quota-probe",
    "leaps.json",
    "leaps.json.new",
    "bodies",
    quarantine::NAME,
    swap::WORK,
    "policies.db",
    "policies.db-wal",
    "policies.db-shm",
    "tlsrpt.db",
    "tlsrpt.db-wal",
    "tlsrpt.db-shm",
    // Earlier versions quarantined it so.
    "tlsrpt.db.damaged",
    // The downgrade memory.
    "history.db",
    "history.db-wal",
    "history.db-shm",
    // The record that DNSSEC validation has worked.
    "dnssec.json",
    "dnssec.json.new",
    // The TLS coverage and the state of the certificate watch.
    "monitor.json",
    "monitor.json.new",
    // Refresh tokens.
    "oauth2",
];
/// The name of the file with the secret of a node of a shared spool.
pub(in crate::storage::spool) const NODE_TOKEN: &str = "node-token";
const PART_EXTENSION: &str = "part";

/// The folder of the spool, locked by this process while the value lives.
#[derive(Debug)]
pub(in crate::storage::spool) struct SpoolFolder {
    pub(super) paths: SpoolPaths,
    pub(super) lock: FolderLock,
}

impl SpoolFolder {
    /// Creates the folder if it is missing, and locks it.
    pub(in crate::storage::spool) fn lock(folder: &Path) -> Result<Self, SpoolError> {
        let paths = SpoolPaths::new(folder);
        make_folder(folder)?;
        ownership::check(folder).map_err(|fault| SpoolError::Io(format!("the spool {fault}")))?;
        let lock = lock(folder)?;
        Self::prepare(paths, lock)
    }

    /// Creates what is missing in a folder that is locked.
    pub(super) fn prepare(paths: SpoolPaths, lock: FolderLock) -> Result<Self, SpoolError> {
        for folder in [&paths.bodies, &paths.quarantine] {
            make_folder(folder)?;
        }
        let folder = &paths.folder;
        sync_folder(folder)?;
        let mode = std::fs::metadata(folder)
            .map_err(|error| io_error("read the metadata of", folder, &error))?
            .mode();
        if mode & 0o007 != 0 {
            tracing::warn!(folder = %folder.display(), "the spool is readable by other users; chmod 700 keeps mail private");
        }
        Ok(Self { paths, lock })
    }

    /// Returns the folder for large content, and the lock.
    pub(in crate::storage::spool) fn into_parts(self) -> (PathBuf, FolderLock) {
        (self.paths.bodies, self.lock)
    }

    /// Removes the leftovers of a crash and logs foreign files. Body files whose messages may be lost,
    /// as those in a damaged log, are set aside. Returns those, as lines of text.
    pub(super) fn clear_leftovers(
        &self,
        database: &SqliteDatabase,
        (index, is_damaged): (&LogIndex, bool),
    ) -> Result<Vec<String>, SpoolError> {
        for (name, path) in entries(&self.paths.folder)? {
            if !KNOWN_NAMES.contains(&name.as_str()) {
                report_foreign(&path);
            }
        }
        let (mut drafts, mut bodies) = (0_u64, 0_u64);
        let mut aside = Vec::new();
        for (name, path) in entries(&self.paths.bodies)? {
            match BodyName::parse(&name) {
                Some(BodyName::Part) => drafts += u64::from(remove(&path)),
                Some(BodyName::Body(id)) => {
                    let fault = match self.owner(database, index, id)? {
                        BodyOwner::Known => continue,
                        BodyOwner::Unreadable => "its envelope cannot be read",
                        // A new database beside old bodies: the old database was lost, and these
                        // files may be all that is left.
                        BodyOwner::Unknown if database.is_new => {
                            "its envelope was in the missing queue.db"
                        }
                        BodyOwner::Unknown if is_damaged => {
                            "its envelope was in a damaged part of the log, unless it was delivered"
                        }
                        BodyOwner::Nobody | BodyOwner::Unknown => {
                            bodies += u64::from(remove(&path));
                            continue;
                        }
                    };
                    self.quarantine_body(&name, &path, fault)?;
                    aside.push(format!("{name}: {fault}"));
                }
                None => report_foreign(&path),
            }
        }
        if drafts + bodies > 0 {
            tracing::info!(
                drafts,
                bodies,
                "removed leftover files of messages that were never accepted or are already removed"
            );
        }
        Ok(aside)
    }

    fn owner(
        &self,
        database: &SqliteDatabase,
        index: &LogIndex,
        id: QueueId,
    ) -> Result<BodyOwner, SpoolError> {
        match index.get(id) {
            Some(Pending::Message(message, _)) if message.content == HeldContent::BodyFile => {
                return Ok(BodyOwner::Known);
            }
            Some(Pending::Message(..) | Pending::Removed) => return Ok(BodyOwner::Nobody),
            Some(Pending::Envelope(_)) | None => {}
        }
        let sql = "SELECT EXISTS (SELECT 1 FROM message WHERE id = ?1 AND content = ?2)";
        let known = database
            .connection
            .query_row(sql, (row_id(id), IN_FILE), |row| row.get(0));
        match known {
            Ok(true) => Ok(BodyOwner::Known),
            Ok(false) => Ok(BodyOwner::Unknown),
            Err(error) if is_unreadable(&error) => Ok(BodyOwner::Unreadable),
            Err(error) => Err(database_error(
                &self.paths,
                "look up a body file in",
                &error,
            )),
        }
    }

    fn quarantine_body(&self, name: &str, path: &Path, fault: &str) -> Result<(), SpoolError> {
        let to = self.paths.quarantine.join(format!("{name}.eml"));
        mark_message(&self.paths.quarantine, name, fault)?;
        quarantine::move_file(path, &to).map_err(|error| io_error("quarantine", path, &error))?;
        tracing::error!(
            queue_id = name, file = %to.display(), fault,
            "body file of a message quarantined; send the message again by hand or inform its sender"
        );
        Ok(())
    }
}

/// The message that a body file belongs to.
enum BodyOwner {
    /// A message of the queue.
    Known,
    /// A message whose row cannot be read.
    Unreadable,
    /// No message of the queue: the log says that it was removed, or has its content.
    Nobody,
    /// No message that the log or the database knows.
    Unknown,
}

enum BodyName {
    Part,
    Body(QueueId),
}

impl BodyName {
    /// Accepts only names that the spool itself writes.
    fn parse(name: &str) -> Option<Self> {
        let (stem, part) = match name.split_once('.') {
            Some((stem, PART_EXTENSION)) => (stem, true),
            Some(_) => return None,
            None => (name, false),
        };
        let id = QueueId::parse(stem).filter(|id| id.to_string() == stem)?;
        Some(if part { Self::Part } else { Self::Body(id) })
    }
}

fn make_folder(folder: &Path) -> Result<(), SpoolError> {
    files::create_folder(folder).map_err(|error| io_error("create", folder, &error))
}

fn lock(folder: &Path) -> Result<FolderLock, SpoolError> {
    offline::lock(folder).map_err(|error| match error {
        OfflineError::InUse { process, .. } => SpoolError::Io(format!(
            "the spool {} is in use by another gatepost (process {process}); stop it, or give this one a \
             [spool] path of its own",
            folder.display(),
        )),
        OfflineError::Spool(error) => error,
        other => SpoolError::Io(other.to_string()),
    })
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, SpoolError> {
    let failed = |error| io_error("list", folder, &error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        found.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    Ok(found)
}

fn remove(path: &Path) -> bool {
    let removed = std::fs::remove_file(path);
    if let Err(error) = &removed {
        tracing::warn!(file = %path.display(), %error, "cannot remove a leftover file");
    }
    removed.is_ok()
}

fn report_foreign(path: &Path) {
    tracing::warn!(file = %path.display(), "foreign file in the spool; move it elsewhere");
}
