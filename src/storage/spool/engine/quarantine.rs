//! The quarantine: the data of damaged entries is kept for a person to inspect, and the log names
//! them. Entries with damaged envelopes leave the queue.
//!
//! A message with a sound envelope stays in the queue, without its content, until the scheduler has
//! written its record to the evidence and stored the reports to its sender.
//!
//! The files are written before the row is deleted. After a crash in between, or if it cannot be
//! deleted, the row is still there and is quarantined again, and nobody is informed twice.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::oneshot;

use super::super::body::Quarantine;
use super::super::file::{io_error, sync_folder};
use super::super::{SpoolError, SpoolFuture, StoredMessage};
use super::index::Pending;
use super::parts;
use super::paths::SpoolPaths;
use super::row::{self, RowError};
use super::schema::{database_error, is_unreadable};
use super::shared::Core;
use super::signal::MoverOrder;
use super::unreported::mark_message;
use crate::smtp::envelope::QueueId;
use crate::storage::quarantine;

/// The row of a message.
const MESSAGE: &str = "SELECT * FROM message WHERE id = ?1";
/// The row of a content.
const BODY: &str = "SELECT data FROM body WHERE id = ?1";

/// Quarantines a row, unless that was done and it stays. If that fails the row stays, logged, for it must not keep the rest of the
/// queue from delivery.
pub(super) fn quarantine_or_skip(
    core: &Core,
    connection: &Connection,
    raw: i64,
    fault: &str,
) -> Result<(), SpoolError> {
    if core.stuck_rows().contains(&raw) {
        return Ok(());
    }
    let mut result = quarantine_row(core, connection, raw, fault);
    if matches!(result, Err(SpoolError::Full(_))) && core.release_reserve() {
        result = quarantine_row(core, connection, raw, fault);
    }
    match result {
        Ok(_) => Ok(()),
        Err(SpoolError::Closed) => Err(SpoolError::Closed),
        Err(error) => {
            tracing::error!(
                queue_id = name(raw), fault, %error,
                "cannot quarantine a damaged message, which stays in the queue undelivered; correct the error, then restart gatepost"
            );
            Ok(())
        }
    }
}

/// Quarantines one message and returns the error that describes it: [`SpoolError::Missing`] if the
/// message was removed meanwhile. A message with a sound envelope stays in the queue.
pub(super) fn quarantine_message(
    core: &Core,
    connection: &Connection,
    id: QueueId,
    fault: &str,
) -> SpoolError {
    match quarantine_row(core, connection, row::row_id(id), fault) {
        Ok(Some((files, remaining))) => SpoolError::Damaged {
            id,
            fault: fault.to_owned(),
            files,
            remaining: remaining.map(Box::new),
        },
        Ok(None) => SpoolError::Missing(id),
        Err(error) => error,
    }
}

/// Returns the path of the quarantined files with a wildcard, and the message without its content
/// if its envelope is sound. Returns `None` if the row does not exist any more.
fn quarantine_row(
    core: &Core,
    connection: &Connection,
    raw: i64,
    fault: &str,
) -> Result<Option<(String, Option<StoredMessage>)>, SpoolError> {
    // What seems damaged may be in the folder of somebody else.
    if !core.held_folder.is_ours() {
        return Err(core.held_folder.lease().refusal());
    }
    let (id, name) = (row::queue_id(raw), name(raw));
    let files = QuarantineFiles {
        folder: &core.paths.quarantine,
        name: &name,
    };
    // The entry may stay in the queue for a while; only its first fault is recorded.
    let has_files = files.file("txt").is_file();
    let head = row::head(connection, &core.paths, raw);
    // After the content, the envelope may be damaged as well.
    let is_lost = matches!(head, Err(RowError::Damage(_)));
    let has_new_mark = is_lost && core.unreported.add(&name, fault)?;
    let is_new = has_new_mark || !has_files;
    if !has_files && !files.write_row(&core.paths, connection, raw, fault)? {
        return Ok(None);
    }
    if let Some(id) = id {
        files.move_body(&core.paths.body(id))?;
    }
    sync_folder(&core.paths.quarantine)?;
    let remaining = match head {
        Ok(remaining) => remaining.map(|stored| current(core, stored)),
        Err(RowError::Damage(_)) => None,
        Err(RowError::Spool(error)) => return Err(error),
    };
    if remaining.is_none() {
        let (reply, answer) = oneshot::channel();
        core.mover.order(MoverOrder::Evict(raw, reply));
        answer.blocking_recv().unwrap_or(Err(SpoolError::Closed))?;
    }
    let paths = files.file("*").display().to_string();
    if is_new {
        core.counters.quarantined.fetch_add(1, Ordering::Relaxed);
        log_quarantine(&name, fault, &paths, remaining.is_some());
    }
    Ok(Some((paths, remaining)))
}

/// Writes what a row has to the quarantine, also a content without a message, and leaves the row.
/// Returns whether there is anything. The folder must be synced afterwards.
pub(super) fn set_aside(
    paths: &SpoolPaths,
    connection: &Connection,
    raw: i64,
    fault: &str,
) -> Result<bool, SpoolError> {
    let name = name(raw);
    let files = QuarantineFiles {
        folder: &paths.quarantine,
        name: &name,
    };
    let mut report = format!("{name}: {fault}\n\n");
    let mut is_any = false;
    for sql in [MESSAGE, BODY] {
        is_any |= files.write_columns(paths, connection, (sql, raw), &mut report)?;
    }
    if let Some(id) = row::queue_id(raw) {
        let to = files.file("eml");
        let body = paths.body(id);
        let moved = quarantine::move_file(&body, &to);
        is_any |= moved.map_err(|error| io_error("quarantine", &body, &error))?;
    }
    if is_any {
        report.push_str(&parts_text(paths, connection, raw)?);
        files.write("txt", report.as_bytes())?;
        mark_message(&paths.quarantine, &name, fault)?;
    }
    Ok(is_any)
}

/// Returns the readable parts of an envelope as text.
fn parts_text(paths: &SpoolPaths, connection: &Connection, raw: i64) -> Result<String, SpoolError> {
    match parts::stored_text(connection, raw) {
        Ok(parts) => Ok(parts),
        Err(error) if is_unreadable(&error) => Ok(format!("parts: cannot be read: {error}\n")),
        Err(error) => Err(database_error(paths, "read a damaged row of", &error)),
    }
}

/// Returns a message of the database with the envelope that it has now.
fn current(core: &Core, mut stored: StoredMessage) -> StoredMessage {
    let pending = core.index().get(stored.id).cloned();
    if let Some(Pending::Envelope(change)) = pending {
        let mut envelope = stored.envelope.clone();
        if change.apply(&mut envelope).is_ok() {
            stored.envelope = envelope;
        }
    }
    stored
}

fn log_quarantine(name: &str, fault: &str, files: &str, stays_queued: bool) {
    if stays_queued {
        tracing::error!(
            queue_id = name,
            fault,
            files,
            "content of a message is damaged and quarantined; the message is bounced to its sender"
        );
    } else {
        tracing::error!(
            queue_id = name,
            fault,
            files,
            "damaged message quarantined; inspect its files, then send it again by hand or inform its sender"
        );
    }
}

/// Returns the name of a row in the quarantine: its queue id, if it is one.
pub(super) fn name(raw: i64) -> String {
    row::queue_id(raw).map_or_else(|| format!("row{raw}"), |id| id.to_string())
}

impl Quarantine for Core {
    fn quarantine(&self, id: QueueId, fault: String) -> SpoolFuture<'static, SpoolError> {
        let core = self.me.upgrade();
        Box::pin(async move {
            let core = core.ok_or(SpoolError::Closed)?;
            let readers = Arc::clone(&core);
            readers
                .readers
                .run(move |connection| Ok(quarantine_message(&core, connection, id, &fault)))
                .await
        })
    }
}

struct QuarantineFiles<'a> {
    folder: &'a Path,
    name: &'a str,
}

impl QuarantineFiles<'_> {
    fn file(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.name))
    }

    fn write(&self, kind: &str, content: &[u8]) -> Result<(), SpoolError> {
        let path = self.file(kind);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
        written.map_err(|error| io_error("write", &path, &error))
    }

    /// Writes the columns of the row to files, as far as they can be read. Returns whether the row
    /// exists.
    fn write_row(
        &self,
        paths: &SpoolPaths,
        connection: &Connection,
        raw: i64,
        fault: &str,
    ) -> Result<bool, SpoolError> {
        let mut report = format!("{}: {fault}\n\n", self.name);
        if !self.write_columns(paths, connection, (MESSAGE, raw), &mut report)? {
            return Ok(false);
        }
        self.write_columns(paths, connection, (BODY, raw), &mut report)?;
        report.push_str(&parts_text(paths, connection, raw)?);
        self.write("txt", report.as_bytes())?;
        Ok(true)
    }

    /// Writes the columns of one row of a query to files and to the report. Returns whether there is
    /// such a row; one that cannot be read counts as one.
    fn write_columns(
        &self,
        paths: &SpoolPaths,
        connection: &Connection,
        (sql, raw): (&str, i64),
        report: &mut String,
    ) -> Result<bool, SpoolError> {
        let failed = |error| database_error(paths, "read a damaged row of", &error);
        let mut statement = connection.prepare(sql).map_err(failed)?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let found = statement.query_row([raw], |row| {
            let mut columns = Vec::with_capacity(names.len());
            for (at, name) in names.iter().enumerate() {
                let (text, octets) = match row.get_ref(at)? {
                    ValueRef::Null => ("nothing".to_owned(), None),
                    ValueRef::Integer(number) => (number.to_string(), None),
                    ValueRef::Real(number) => (number.to_string(), None),
                    ValueRef::Text(octets) | ValueRef::Blob(octets) => {
                        (format!("{} octets", octets.len()), Some(octets.to_vec()))
                    }
                };
                columns.push((name.clone(), text, octets));
            }
            Ok(columns)
        });
        let columns = match found.optional() {
            Ok(Some(columns)) => columns,
            Ok(None) => return Ok(false),
            Err(error) if is_unreadable(&error) => {
                // Writing to a String cannot fail.
                let _ = writeln!(report, "{}: cannot be read: {error}", names.join(", "));
                return Ok(true);
            }
            Err(error) => return Err(failed(error)),
        };
        for (name, text, octets) in columns {
            // Writing to a String cannot fail.
            let _ = writeln!(report, "{name}: {text}");
            match (name.as_str(), octets) {
                ("envelope", Some(octets)) => self.write("json", &octets)?,
                ("data", Some(octets)) => self.write("eml", &octets)?,
                _ => {}
            }
        }
        Ok(true)
    }

    fn move_body(&self, body: &Path) -> Result<(), SpoolError> {
        let moved = quarantine::move_file(body, &self.file("eml"));
        moved
            .map(drop)
            .map_err(|error| io_error("quarantine", body, &error))
    }
}
