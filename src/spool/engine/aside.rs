//! Damaged entries: taken out of the queue, kept whole for people, told in the log.
//!
//! Files first, then the row: a crash in between leaves the row, and it is set aside again.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::oneshot;

use super::super::file::{fault, sync_folder};
use super::super::{SpoolError, Stored};
use super::Core;
use super::queue::Op;
use super::row::{self, RowError};
use super::schema::database_error;
use crate::envelope::QueueId;

/// The next messages after `after`. Damaged ones are set aside on the way.
pub(super) fn scan(
    core: &Core,
    connection: &Connection,
    after: Option<QueueId>,
    limit: usize,
) -> Result<Vec<Stored>, SpoolError> {
    let mut after = after.map_or(i64::MIN, row::row_id);
    loop {
        let page = row::page(connection, &core.paths, after, limit)?;
        let Some(last) = page.last().map(|(raw, _)| *raw) else { return Ok(Vec::new()) };
        let mut sound = Vec::with_capacity(page.len());
        for (raw, stored) in page {
            match stored {
                Ok(stored) => sound.push(stored),
                Err(RowError::Damage(fault)) => aside_or_left(core, connection, raw, &fault)?,
                Err(RowError::Spool(error)) => return Err(error),
            }
        }
        // Nothing but damage on this page is not the end.
        if !sound.is_empty() || limit == 0 {
            return Ok(sound);
        }
        after = last;
    }
}

/// Sets a row aside where that can be done; it must not keep the rest of the queue from going out.
fn aside_or_left(core: &Core, connection: &Connection, raw: i64, fault: &str) -> Result<(), SpoolError> {
    let mut done = set_row_aside(core, connection, raw, fault);
    if matches!(done, Err(SpoolError::Full(_))) && core.drafts.room.release() {
        done = set_row_aside(core, connection, raw, fault);
    }
    match done {
        Ok(_) => Ok(()),
        Err(SpoolError::Closed) => Err(SpoolError::Closed),
        Err(error) => {
            tracing::error!(
                queue_id = name(raw), fault, %error,
                "damaged message not set aside; it stays in the queue, undelivered, and the next start tries again: mend what is in the way, then restart gatepost"
            );
            Ok(())
        }
    }
}

/// Sets one message aside, and gives the error that tells it: [`SpoolError::Missing`] where it was
/// removed meanwhile.
pub(super) fn set_aside(core: &Core, connection: &Connection, id: QueueId, fault: &str) -> SpoolError {
    match set_row_aside(core, connection, row::row_id(id), fault) {
        Ok(Some(aside)) => SpoolError::Damaged { id, fault: fault.to_owned(), aside },
        Ok(None) => SpoolError::Missing(id),
        Err(error) => error,
    }
}

/// Where it is now; `None` where there is no such row any more.
fn set_row_aside(core: &Core, connection: &Connection, raw: i64, fault: &str) -> Result<Option<String>, SpoolError> {
    let (id, name) = (row::queue_id(raw), name(raw));
    let place = Place { folder: &core.paths.aside, name: &name };
    if !place.write_row(core, connection, raw, fault)? {
        return Ok(None);
    }
    if let Some(id) = id {
        place.move_body(&core.paths.body(id))?;
    }
    sync_folder(&core.paths.aside)?;
    let (reply, answer) = oneshot::channel();
    core.queue.push(Op::Evict(raw, reply))?;
    answer.blocking_recv().unwrap_or(Err(SpoolError::Closed))?;
    core.counters.set_aside.fetch_add(1, Ordering::Relaxed);
    let aside = place.file("*").display().to_string();
    tracing::error!(
        queue_id = name,
        fault,
        files = aside,
        "damaged message set aside; look at its files there and send it again by hand, or tell its sender"
    );
    Ok(Some(aside))
}

fn name(raw: i64) -> String {
    row::queue_id(raw).map_or_else(|| format!("row{raw}"), |id| id.to_string())
}

struct Place<'a> {
    folder: &'a Path,
    name: &'a str,
}

impl Place<'_> {
    fn file(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.name))
    }

    fn write(&self, kind: &str, content: &[u8]) -> Result<(), SpoolError> {
        let path = self.file(kind);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
        written.map_err(|error| fault("write", &path, &error))
    }

    /// Writes what the row says, as far as it says anything. Whether it is there.
    fn write_row(&self, core: &Core, connection: &Connection, raw: i64, fault: &str) -> Result<bool, SpoolError> {
        let failed = |error| database_error(&core.paths, "read a damaged row of", &error);
        let sql = "SELECT m.*, b.data FROM message m LEFT JOIN body b ON b.id = m.id WHERE m.id = ?1";
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
        let Some(columns) = found.optional().map_err(failed)? else { return Ok(false) };
        let mut report = format!("{}: {fault}\n\n", self.name);
        for (name, text, octets) in columns {
            // Writing to a String cannot fail.
            let _ = writeln!(report, "{name}: {text}");
            match (name.as_str(), octets) {
                ("envelope", Some(octets)) => self.write("json", &octets)?,
                ("data", Some(octets)) => self.write("eml", &octets)?,
                _ => {}
            }
        }
        self.write("txt", report.as_bytes())?;
        Ok(true)
    }

    fn move_body(&self, body: &Path) -> Result<(), SpoolError> {
        match std::fs::rename(body, self.file("eml")) {
            Ok(()) => sync_folder(body.parent().unwrap_or(Path::new("."))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(fault("move aside", body, &error)),
        }
    }
}
