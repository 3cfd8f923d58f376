//! The spool's folder: who has it, what belongs in it, and what is left over from a crash.
//!
//! ```text
//! lock       held by the running instance, with its process id
//! queue.db   the database, with queue.db-wal and queue.db-shm
//! reserve    takes up room that states and removals may have when the disk is full
//! quota-probe  is written, and removed, to find out whether a quota is used up
//! bodies/    content over 128 KiB: <id>; while it comes in: <id>.part
//! leaps.json   leaps of the clock, where there were any
//! aside/     damaged entries: <id>.json (envelope), <id>.eml (content), <id>.txt (what is wrong)
//! policies.db   what domains publish (`discovery`'s own), with policies.db-wal and policies.db-shm
//! history.db what domains' TLS was like before; none of the spool's business
//! dnssec.json that DNSSEC validation has worked; likewise
//! monitor.json what is watched; likewise
//! ```
//!
//! Everything else is foreign: reported and left alone.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::SpoolError;
use super::super::file::{fault, sync_folder};
use super::row::{IN_FILE, row_id};
use super::schema::{Database, database_error};
use crate::envelope::QueueId;
use crate::ownership;

/// What is where.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) folder: PathBuf,
    pub(super) database: PathBuf,
    pub(super) wal: PathBuf,
    pub(super) reserve: PathBuf,
    pub(super) leaps: PathBuf,
    pub(super) bodies: PathBuf,
    pub(super) aside: PathBuf,
}

const LOCK: &str = "lock";
/// What belongs in the folder.
const OURS: [&str; 25] = [
    LOCK,
    "queue.db",
    "queue.db-wal",
    "queue.db-shm",
    "queue.db-journal",
    "reserve",
    "quota-probe",
    "leaps.json",
    "leaps.json.new",
    "bodies",
    "aside",
    "policies.db",
    "policies.db-wal",
    "policies.db-shm",
    "tlsrpt.db",
    "tlsrpt.db-wal",
    "tlsrpt.db-shm",
    "tlsrpt.db.damaged",
    // The downgrade memory, which lives beside the spool.
    "history.db",
    "history.db-wal",
    "history.db-shm",
    // That DNSSEC validation has worked, likewise.
    "dnssec.json",
    "dnssec.json.new",
    // What is watched, likewise.
    "monitor.json",
    "monitor.json.new",
];
const PART: &str = "part";

impl Paths {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            database: folder.join("queue.db"),
            wal: folder.join("queue.db-wal"),
            reserve: folder.join("reserve"),
            leaps: folder.join("leaps.json"),
            bodies: folder.join("bodies"),
            aside: folder.join("aside"),
        }
    }

    pub(super) fn body(&self, id: QueueId) -> PathBuf {
        self.bodies.join(id.to_string())
    }
}

/// The folder, and the lock on it.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) paths: Paths,
    _lock: File,
}

impl Home {
    /// Makes the folder where it is missing, and takes it for this instance.
    pub(super) fn take(folder: &Path) -> Result<Self, SpoolError> {
        let paths = Paths::new(folder);
        make_folder(folder)?;
        ownership::check(folder).map_err(|fault| SpoolError::Io(format!("the spool {fault}")))?;
        let lock = take_lock(&folder.join(LOCK), folder)?;
        for folder in [&paths.bodies, &paths.aside] {
            make_folder(folder)?;
        }
        sync_folder(folder)?;
        let mode = std::fs::metadata(folder).map_err(|error| fault("look at", folder, &error))?.mode();
        if mode & 0o007 != 0 {
            tracing::warn!(folder = %folder.display(), "others may look into the spool; chmod 700 keeps mail private");
        }
        Ok(Self { paths, _lock: lock })
    }

    /// When the database was last written to.
    pub(super) fn written(&self) -> Option<SystemTime> {
        let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        modified(&self.paths.database).max(modified(&self.paths.wal))
    }

    /// Clears what a crash left behind, and reports what is not ours.
    pub(super) fn tidy(&self, database: &Database) -> Result<(), SpoolError> {
        for (name, path) in entries(&self.paths.folder)? {
            if !OURS.contains(&name.as_str()) {
                report_foreign(&path);
            }
        }
        let (mut drafts, mut bodies) = (0_u64, 0_u64);
        for (name, path) in entries(&self.paths.bodies)? {
            match BodyName::parse(&name) {
                Some(BodyName::Part) => drafts += u64::from(remove(&path)),
                Some(BodyName::Body(id)) if self.is_known(database, id)? => {}
                // A new database beside old bodies: somebody lost it, and these may be all there is.
                Some(BodyName::Body(_)) if database.is_new => self.rescue(&name, &path)?,
                Some(BodyName::Body(_)) => bodies += u64::from(remove(&path)),
                None => report_foreign(&path),
            }
        }
        if drafts + bodies > 0 {
            tracing::info!(drafts, bodies, "files of messages that were never acknowledged or are gone were removed");
        }
        Ok(())
    }

    fn is_known(&self, database: &Database, id: QueueId) -> Result<bool, SpoolError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM message WHERE id = ?1 AND content = ?2)";
        let known = database.connection.query_row(sql, (row_id(id), IN_FILE), |row| row.get(0));
        known.map_err(|error| database_error(&self.paths, "look a body file up in", &error))
    }

    fn rescue(&self, name: &str, path: &Path) -> Result<(), SpoolError> {
        let to = self.paths.aside.join(format!("{name}.eml"));
        std::fs::rename(path, &to).map_err(|error| fault("move aside", path, &error))?;
        tracing::error!(
            file = %to.display(),
            "body file without a database was set aside; its envelope is lost with the old queue.db"
        );
        Ok(())
    }
}

enum BodyName {
    Part,
    Body(QueueId),
}

impl BodyName {
    /// Only what we would write ourselves.
    fn parse(name: &str) -> Option<Self> {
        let (stem, part) = match name.split_once('.') {
            Some((stem, PART)) => (stem, true),
            Some(_) => return None,
            None => (name, false),
        };
        let id = QueueId::parse(stem).filter(|id| id.to_string() == stem)?;
        Some(if part { Self::Part } else { Self::Body(id) })
    }
}

fn make_folder(folder: &Path) -> Result<(), SpoolError> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| fault("create", folder, &error))?;
    // The new name must outlive a power failure, like everything that is put behind it.
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

fn take_lock(path: &Path, folder: &Path) -> Result<File, SpoolError> {
    let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = open.map_err(|error| fault("open", path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message: it may be half written.
            let _unreadable = (&mut file).take(20).read_to_string(&mut pid);
            return Err(SpoolError::Io(format!(
                "the spool {} is in use by another gatepost (process {}); stop it, or give this one a [spool] path of its own",
                folder.display(),
                pid.trim(),
            )));
        }
        Err(TryLockError::Error(error)) => return Err(fault("lock", path, &error)),
    }
    // The process id helps people only; a full disk must not keep the queue from being worked off.
    let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = noted {
        tracing::debug!(file = %path.display(), %error, "process id not noted in the lock file");
    }
    Ok(file)
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, SpoolError> {
    let failed = |error| fault("list", folder, &error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(found)
}

fn remove(path: &Path) -> bool {
    let removed = std::fs::remove_file(path);
    if let Err(error) = &removed {
        tracing::warn!(file = %path.display(), %error, "leftover file not removed");
    }
    removed.is_ok()
}

fn report_foreign(path: &Path) {
    tracing::warn!(file = %path.display(), "foreign file in the spool was left alone; move it elsewhere");
}
