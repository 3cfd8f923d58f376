//! The spool as it lies on disk, for commands that read it from outside. Nothing is changed.
//!
//! The log is read first. What moves to the database meanwhile is then seen twice, but never not at
//! all.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;

use super::super::log::LogFolder;
use super::super::{SpoolError, StoredMessage};
use super::index::{HeldMessage, Pending};
use super::paths::SpoolPaths;
use super::quarantine::name;
use super::replay::{ReplayedLog, read_log};
use super::row::{self, RowError, StoredContent};
use super::schema;
use super::view::{held_content, stored};
use crate::smtp::envelope::QueueId;
use crate::storage::files::with_suffix;
use crate::storage::sqlite::OpenError;

/// The number of times that the log is read while its segments come and go.
const TRIES: usize = 20;
/// The number of rows that are read at once.
const PAGE: usize = 500;

/// The right to a spool while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageAccess {
    /// The folder is locked, so no relay changes it.
    Locked,
    /// A relay may be running on it.
    Shared,
}

/// The spool as it lies on disk.
#[derive(Debug)]
pub(super) struct SpoolImage {
    pub(super) paths: SpoolPaths,
    /// The log as it was read.
    pub(super) replayed: ReplayedLog,
    /// The damage that keeps the database from being opened.
    pub(super) database_fault: Option<String>,
    log: LogFolder,
    database: Option<Connection>,
    /// The index of the database's write-ahead log, if reading it created the file.
    new_index: Option<PathBuf>,
}

/// A message of the spool.
#[derive(Debug)]
pub(super) struct ImageEntry {
    /// The queue id, or the number of the row if that is none.
    pub(super) name: String,
    /// The message as it waits now, or the damage.
    pub(super) head: Result<StoredMessage, String>,
    /// The message as the log has it, if the log has it.
    held: Option<Arc<HeldMessage>>,
}

impl SpoolImage {
    /// Reads the log and opens the database.
    pub(super) fn open(paths: SpoolPaths, access: ImageAccess) -> Result<Self, SpoolError> {
        let log = LogFolder::existing(&paths.log);
        let mut read = read_log(&log, &paths);
        for _ in 0..TRIES {
            if read.is_ok() {
                break;
            }
            read = read_log(&log, &paths);
        }
        let has_wal = std::fs::metadata(&paths.wal).is_ok_and(|wal| wal.len() > 0);
        let index = with_suffix(&paths.database, "-shm");
        let is_locked = access == ImageAccess::Locked;
        let new_index = (is_locked && !index.exists()).then_some(index);
        let mut image = Self {
            log,
            replayed: read?,
            database: None,
            database_fault: None,
            new_index,
            paths,
        };
        match schema::open_for_reading(&image.paths, is_locked && !has_wal) {
            Ok(database) => image.database = database,
            Err(error) => image.database_fault = Some(damage_of(&image.paths, error)?),
        }
        Ok(image)
    }

    /// Returns the first faults of the structure of the database, at most `limit`. Each page is read.
    pub(super) fn structure_faults(&self, limit: u32) -> Result<Vec<String>, SpoolError> {
        let Some(connection) = &self.database else {
            return Ok(Vec::new());
        };
        let mut faults: Vec<String> = Vec::new();
        let is_fault = |line: &&str| *line != "ok" && !line.starts_with("*** in database");
        let mut check = |sql: &str| {
            let mut check = connection.prepare(sql)?;
            let mut rows = check.query([])?;
            while let Some(row) = rows.next()? {
                let text: String = row.get(0)?;
                for fault in text.lines().filter(is_fault) {
                    if !faults.iter().any(|known| known == fault) {
                        faults.push(fault.to_owned());
                    }
                }
            }
            Ok(())
        };
        // In a database with a view, SQLite checks the list of free pages only with the second.
        let all = format!("PRAGMA integrity_check({limit})");
        let checked = check(&all).and_then(|()| check("PRAGMA integrity_check(sqlite_schema)"));
        match checked {
            Ok(()) => {}
            Err(error) if schema::is_unreadable(&error) => faults.push(error.to_string()),
            Err(error) => return Err(schema::database_error(&self.paths, "check", &error)),
        }
        faults.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(faults)
    }

    /// Visits each message that waits, and each row that is damaged.
    pub(super) fn each<E: From<SpoolError>>(
        &self,
        mut visit: impl FnMut(ImageEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(connection) = &self.database {
            self.each_row(connection, &mut visit)?;
        }
        for (id, pending) in self.replayed.index.after(None) {
            let Pending::Message(message, parts) = pending else {
                continue;
            };
            let fault = || "its envelope in the log of the spool cannot be read".to_owned();
            visit(ImageEntry {
                name: id.to_string(),
                head: stored(id, message, parts).ok_or_else(fault),
                held: Some(Arc::clone(message)),
            })?;
        }
        Ok(())
    }

    fn each_row<E: From<SpoolError>>(
        &self,
        connection: &Connection,
        visit: &mut impl FnMut(ImageEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = i64::MIN;
        loop {
            let (page, is_all) = match row::page(connection, &self.paths, after, PAGE) {
                Ok(page) => (page, false),
                Err(RowError::Damage(_)) => {
                    let page = row::page_around_damage(connection, &self.paths, after, usize::MAX)?;
                    (page, true)
                }
                Err(RowError::Spool(error)) => return Err(error.into()),
            };
            let Some(last) = page.last().map(|(raw, _)| *raw) else {
                return Ok(());
            };
            after = last;
            for (raw, head) in page {
                if let Some(entry) = self.row_entry(raw, head)? {
                    visit(entry)?;
                }
            }
            if is_all {
                return Ok(());
            }
        }
    }

    /// Returns the message of a row as it waits now; `None` if it was removed, or if the log has it.
    fn row_entry(
        &self,
        raw: i64,
        head: Result<StoredMessage, RowError>,
    ) -> Result<Option<ImageEntry>, SpoolError> {
        let pending = row::queue_id(raw).and_then(|id| self.replayed.index.get(id));
        let head = match pending {
            Some(Pending::Removed | Pending::Message(..)) => return Ok(None),
            Some(Pending::Envelope(change)) => head.and_then(|mut stored| {
                change.apply(&mut stored.envelope)?;
                Ok(stored)
            }),
            None => head,
        };
        let head = match head {
            Ok(stored) => Ok(stored),
            Err(RowError::Damage(fault)) => Err(fault),
            Err(RowError::Spool(error)) => return Err(error),
        };
        let name = name(raw);
        Ok(Some(ImageEntry {
            name,
            head,
            held: None,
        }))
    }

    /// Returns the content of a message. Only the length of a body file is checked.
    pub(super) fn content(
        &self,
        id: QueueId,
        entry: &ImageEntry,
    ) -> Result<StoredContent, RowError> {
        let damaged = |fault: &str| RowError::Damage(fault.to_owned());
        if let Some(held) = entry.held.as_deref()
            && let Some(content) =
                held_content(&self.log, &self.paths, id, held).map_err(RowError::Spool)?
        {
            return Ok(content);
        }
        let in_log = "its content in the log of the spool is damaged";
        let Some(connection) = &self.database else {
            return Err(damaged(in_log));
        };
        match row::load(connection, &self.paths, id) {
            Ok((_, content)) => Ok(content),
            Err(RowError::Spool(SpoolError::Missing(_))) => Err(damaged(in_log)),
            Err(error) => Err(error),
        }
    }
}

impl Drop for SpoolImage {
    fn drop(&mut self) {
        self.database = None;
        if let Some(index) = self.new_index.take() {
            // Without it, the next start makes it anew; so does a start with it.
            let _absent = std::fs::remove_file(index);
        }
    }
}

/// Returns the damage of a database that cannot be opened, or the error if it is not damaged.
fn damage_of(paths: &SpoolPaths, error: OpenError) -> Result<String, SpoolError> {
    match error.damage() {
        Some(fault) => Ok(fault),
        None => Err(schema::open_error(paths, error)),
    }
}
