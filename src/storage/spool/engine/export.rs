//! The export of a spool in the form of version 1, which has no log: the way back to the version
//! before.
//!
//! The new folder is a complete spool. It has all messages that wait, and copies of the stores beside
//! the queue. Its `queue.db` gets that name last, so an export that was interrupted is no spool.
//! Nothing in the old folder changes.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crc32fast::Hasher;
use rusqlite::{Connection, params};

use super::super::file::sync_folder;
use super::super::{SpoolError, StoredMessage};
use super::check::{described, segment};
use super::image::{ImageAccess, ImageEntry, SpoolImage};
use super::offline::{OfflineError, OfflineSpool};
use super::paths::SpoolPaths;
use super::row::{EnvelopeText, IN_FILE, IN_ROW, RowError, StoredContent, fixed_crc, row_id};
use super::swap;
use crate::storage::files::parent;
use crate::storage::ownership;

/// The tables of version 1. They are never changed.
const TABLES: &str = include_str!("version1.sql");
/// The application id of version 1.
const APPLICATION_ID: i32 = 0x4750_5354;
/// The number of messages in one transaction.
const TRANSACTION: u64 = 1000;
/// The number of octets that are copied at once.
const BLOCK: usize = 512 * 1024;
/// The stores beside the queue whose form did not change, in files of their own.
const FILES: [&str; 3] = ["leaps.json", "dnssec.json", "monitor.json"];
/// The stores beside the queue whose form did not change, as databases.
const DATABASES: [&str; 3] = ["history.db", "policies.db", "tlsrpt.db"];

/// The result of an export.
#[derive(Debug, Default)]
pub struct SpoolExport {
    /// The number of messages.
    pub messages: u64,
    /// The octets of their content.
    pub octets: u64,
    /// The names of the stores beside the queue that were copied.
    pub stores: Vec<String>,
    /// The entries that cannot be read. They are not in the export.
    pub unreadable: Vec<UnreadableEntry>,
    /// The messages that go by connectors of users. They are not in the export: the earlier version
    /// ignores such a connector, and would send them to other hosts under another demand.
    pub by_users: Vec<UserRoutedMessage>,
}

/// A message that goes by the connector of the user who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRoutedMessage {
    /// The queue id.
    pub id: String,
    /// The name of the connector.
    pub connector: String,
}

/// A part of a spool that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableEntry {
    /// The queue id of a message, or the name of a file in the spool.
    pub name: String,
    /// The damage.
    pub fault: String,
}

/// The reason why a spool cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The spool cannot be used.
    #[error(transparent)]
    Source(#[from] OfflineError),
    /// The new folder cannot be used.
    #[error("cannot export to {}: {fault}", folder.display())]
    Target {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        fault: String,
    },
}

impl From<SpoolError> for ExportError {
    fn from(error: SpoolError) -> Self {
        Self::Source(error.into())
    }
}

/// Writes all that waits in the spool `folder` to the new folder `target`, in the form of version 1.
/// `target` must be missing or empty. Blocks.
///
/// # Errors
/// [`ExportError`]; an incomplete export may stay in `target` then.
pub fn export(folder: &Path, target: &Path) -> Result<SpoolExport, ExportError> {
    let source = OfflineSpool::lock(folder)?;
    if swap::is_pending(&source.paths)? {
        return Err(OfflineError::RepairPending(folder.to_owned()).into());
    }
    prepare(&source.paths, target)?;
    let image = SpoolImage::open(source.paths.clone(), ImageAccess::Locked)?;
    let mut done = SpoolExport {
        unreadable: damage(&image)?,
        ..SpoolExport::default()
    };
    let mut writer = Version1Writer::create(target)?;
    image.each(|entry| {
        if let Ok(stored) = &entry.head
            && let Some(connector) = &stored.envelope.connector
        {
            done.by_users.push(UserRoutedMessage {
                id: stored.id.to_string(),
                connector: connector.to_string(),
            });
            return Ok(());
        }
        match writer.add(&image, &entry)? {
            Ok(octets) => {
                done.messages += 1;
                done.octets += octets;
            }
            Err(fault) => done.unreadable.push(UnreadableEntry {
                name: entry.name,
                fault,
            }),
        }
        Ok::<_, ExportError>(())
    })?;
    copy_stores(folder, target, &mut done)?;
    writer.finish(source.paths.last_change().max(image.replayed.changed))?;
    Ok(done)
}

/// Checks that the new folder can have the export, and creates it.
fn prepare(paths: &SpoolPaths, target: &Path) -> Result<(), ExportError> {
    let refused = |fault: &str| target_error(target, fault);
    // What does not exist is in no spool, or its parent is.
    let canonical = |path: &Path| std::fs::canonicalize(path).ok();
    let place = canonical(target).or_else(|| canonical(parent(target)));
    let spool = canonical(&paths.folder);
    if spool.is_some_and(|spool| place.is_some_and(|place| place.starts_with(spool))) {
        return Err(refused("it is in the spool itself"));
    }
    match std::fs::read_dir(target) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(refused("it is not empty; name a new folder"));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let created = DirBuilder::new().mode(0o700).create(target);
            created.map_err(|error| refused(&format!("the folder cannot be made: {error}")))?;
        }
        Err(error) => return Err(refused(&error.to_string())),
    }
    ownership::check(target).map_err(|fault| refused(&fault.to_string()))
}

fn target_error(target: &Path, fault: &str) -> ExportError {
    ExportError::Target {
        folder: target.to_owned(),
        fault: fault.to_owned(),
    }
}

/// Returns the damage that may hide messages altogether.
fn damage(image: &SpoolImage) -> Result<Vec<UnreadableEntry>, SpoolError> {
    let mut damage = Vec::new();
    let mut add = |name: String, fault: String| damage.push(UnreadableEntry { name, fault });
    if let Some(fault) = &image.database_fault {
        add("queue.db".to_owned(), fault.clone());
    }
    for fault in image.structure_faults(1)? {
        add(
            "queue.db".to_owned(),
            format!("{fault}; messages may be missing"),
        );
    }
    for found in &image.replayed.damage {
        let (number, cause) = described(found);
        add(segment(number), cause);
    }
    Ok(damage)
}

/// Copies the stores beside the queue.
fn copy_stores(folder: &Path, target: &Path, done: &mut SpoolExport) -> Result<(), ExportError> {
    let databases = DATABASES
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("{name}-wal")]);
    let files = FILES.iter().map(|name| (*name).to_owned());
    for name in files.chain(databases) {
        let (from, to) = (folder.join(&name), target.join(&name));
        match copy(&from, &to) {
            Ok(None) => {}
            Ok(Some(_)) => done.stores.push(name),
            Err(CopyFault::Source(error)) => {
                let fault = error.to_string();
                done.unreadable.push(UnreadableEntry { name, fault });
            }
            Err(CopyFault::Target(error)) => return Err(write_error(target, &to, &error)),
        }
    }
    done.stores.retain(|name| !name.ends_with("-wal"));
    Ok(())
}

fn write_error(target: &Path, file: &Path, error: &io::Error) -> ExportError {
    target_error(target, &format!("cannot write {}: {error}", file.display()))
}

/// The side on which a copy failed.
#[derive(Debug)]
enum CopyFault {
    Source(io::Error),
    Target(io::Error),
}

/// Copies a file durably, with a new name. Returns its size and checksum; `None` if it is missing.
fn copy(from: &Path, to: &Path) -> Result<Option<(u64, u32)>, CopyFault> {
    let mut source = match File::open(from) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CopyFault::Source(error)),
    };
    let mut options = File::options();
    let created = options.write(true).create_new(true).mode(0o600).open(to);
    let mut target = created.map_err(CopyFault::Target)?;
    let copied = copy_octets(&mut source, &mut target);
    if let Err(CopyFault::Source(_)) = &copied {
        std::fs::remove_file(to).map_err(CopyFault::Target)?;
    }
    copied.map(Some)
}

fn copy_octets(source: &mut File, target: &mut File) -> Result<(u64, u32), CopyFault> {
    let (mut block, mut size, mut crc) = (vec![0; BLOCK], 0, Hasher::new());
    loop {
        let read = match source.read(&mut block) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyFault::Source(error)),
        };
        crc.update(&block[..read]);
        size += read as u64;
        target
            .write_all(&block[..read])
            .map_err(CopyFault::Target)?;
    }
    target.sync_all().map_err(CopyFault::Target)?;
    Ok((size, crc.finalize()))
}

/// A queue in the form of version 1 that is being written.
struct Version1Writer {
    folder: PathBuf,
    connection: Connection,
    /// The database, under the name that it has until it is complete.
    file: PathBuf,
    bodies: PathBuf,
    /// The messages in the open transaction.
    open: u64,
}

impl Version1Writer {
    fn create(folder: &Path) -> Result<Self, ExportError> {
        let bodies = folder.join("bodies");
        let made = DirBuilder::new().mode(0o700).create(&bodies);
        made.map_err(|error| write_error(folder, &bodies, &error))?;
        let file = folder.join("queue.db.part");
        let created = Connection::open(&file).and_then(|connection| {
            // The file counts only when it is complete and synced, so it needs no journal.
            connection.pragma_update(None, "journal_mode", "OFF")?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            connection.pragma_update(None, "page_size", 4096)?;
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            connection.execute_batch(TABLES)?;
            connection.pragma_update(None, "application_id", APPLICATION_ID)?;
            connection.pragma_update(None, "user_version", 1)?;
            connection.execute_batch("BEGIN")?;
            Ok(connection)
        });
        let connection = created.map_err(|error| database_error(folder, &error))?;
        Ok(Self {
            folder: folder.to_owned(),
            connection,
            file,
            bodies,
            open: 0,
        })
    }

    /// Writes a message. Returns the octets of its content, or the damage if it cannot be read.
    fn add(
        &mut self,
        image: &SpoolImage,
        entry: &ImageEntry,
    ) -> Result<Result<u64, String>, ExportError> {
        let stored = match &entry.head {
            Ok(stored) => stored,
            Err(fault) => return Ok(Err(fault.clone())),
        };
        let content = match image.content(stored.id, entry) {
            Ok(content) => content,
            Err(RowError::Damage(fault)) => return Ok(Err(fault)),
            Err(RowError::Spool(error)) => return Err(error.into()),
        };
        let crc = match &content {
            StoredContent::Row(octets) => crc32fast::hash(octets),
            StoredContent::File { path, crc } => {
                if let Err(fault) = self.add_body(stored, path, *crc)? {
                    return Ok(Err(fault));
                }
                *crc
            }
        };
        self.add_row(stored, &content, crc)?;
        Ok(Ok(stored.size))
    }

    /// Copies a body file. Returns the damage if it cannot be read.
    fn add_body(
        &self,
        stored: &StoredMessage,
        from: &Path,
        crc: u32,
    ) -> Result<Result<(), String>, ExportError> {
        let to = self.bodies.join(stored.id.to_string());
        let fault = match copy(from, &to) {
            Ok(Some(copied)) if copied == (stored.size, crc) => return Ok(Ok(())),
            Ok(Some((size, _))) if size != stored.size => {
                let expected = stored.size;
                format!("its body file has {size} octets where {expected} were stored")
            }
            Ok(Some(_)) => "its body file does not have the checksum stored with it".to_owned(),
            Ok(None) => "its body file is missing".to_owned(),
            Err(CopyFault::Source(error)) => format!("its body file cannot be read: {error}"),
            Err(CopyFault::Target(error)) => return Err(write_error(&self.folder, &to, &error)),
        };
        match std::fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(write_error(&self.folder, &to, &error))
            }
            Ok(()) | Err(_) => Ok(Err(fault)),
        }
    }

    fn add_row(
        &mut self,
        stored: &StoredMessage,
        content: &StoredContent,
        crc: u32,
    ) -> Result<(), ExportError> {
        let envelope = EnvelopeText::new(stored.id, &stored.envelope)?;
        let written = self.insert(stored, &envelope, content, crc);
        written.map_err(|error| database_error(&self.folder, &error))
    }

    fn insert(
        &mut self,
        stored: &StoredMessage,
        envelope: &EnvelopeText,
        content: &StoredContent,
        crc: u32,
    ) -> rusqlite::Result<()> {
        let (id, accepted) = (stored.id, stored.accepted.as_millisecond());
        let place = match content {
            StoredContent::Row(_) => IN_ROW,
            StoredContent::File { .. } => IN_FILE,
        };
        let mut row = self.connection.prepare_cached(
            "INSERT INTO message \
             (id, accepted, size, content, content_crc, fixed_crc, envelope, envelope_crc) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        row.execute(params![
            row_id(id),
            accepted,
            // It was stored as such a number.
            i64::try_from(stored.size).unwrap_or(i64::MAX),
            place,
            crc,
            fixed_crc(id, accepted, stored.size, crc),
            &*envelope.json,
            envelope.crc,
        ])?;
        if let StoredContent::Row(octets) = content {
            let sql = "INSERT INTO body (id, data) VALUES (?1, ?2)";
            let mut body = self.connection.prepare_cached(sql)?;
            body.execute(params![row_id(id), &octets[..]])?;
        }
        self.open += 1;
        if self.open == TRANSACTION {
            self.open = 0;
            self.connection.execute_batch("COMMIT; BEGIN")?;
        }
        Ok(())
    }

    /// Completes the export: from here on it is a spool.
    fn finish(self, changed: Option<SystemTime>) -> Result<(), ExportError> {
        let Self {
            folder,
            connection,
            file,
            bodies,
            ..
        } = self;
        let closed = connection
            .execute_batch("COMMIT")
            .and_then(|()| connection.close().map_err(|(_, error)| error));
        closed.map_err(|error| database_error(&folder, &error))?;
        let complete = folder.join("queue.db");
        let written = File::options().write(true).open(&file).and_then(|open| {
            if let Some(changed) = changed {
                open.set_modified(changed)?;
            }
            open.sync_all()
        });
        written.map_err(|error| write_error(&folder, &file, &error))?;
        sync_folder(&bodies)?;
        sync_folder(&folder)?;
        std::fs::rename(&file, &complete)
            .map_err(|error| write_error(&folder, &complete, &error))?;
        sync_folder(&folder)?;
        Ok(())
    }
}

fn database_error(folder: &Path, error: &rusqlite::Error) -> ExportError {
    let file = folder.join("queue.db.part");
    target_error(folder, &format!("cannot write {}: {error}", file.display()))
}
