//! Writes to the tables of the database. The mover alone makes them.

use rusqlite::{Connection, params};

use super::super::SpoolError;
use super::index::{EnvelopeChange, HeldContent, HeldMessage, Move, Pending};
use super::parts::{self, PendingParts};
use super::row::{IN_FILE, IN_ROW, MARK_REMOVED, fixed_crc, row_id};
use super::schema::is_unreadable;
use crate::smtp::envelope::QueueId;

/// The reason why differences were not applied.
#[derive(Debug)]
pub(super) enum ApplyError {
    /// The database cannot be written.
    Database(rusqlite::Error),
    /// The content of a message cannot be read now.
    Content(SpoolError),
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Applies all of these differences in one transaction, or none. `content` returns the content of a
/// message that is not in a body file; `None` if it is lost.
///
/// Each difference may have been applied before.
pub(super) fn apply(
    connection: &Connection,
    moves: &[Move],
    mut content: impl FnMut(&HeldMessage) -> Result<Option<Vec<u8>>, SpoolError>,
) -> Result<(), ApplyError> {
    in_transaction(connection, || {
        moves
            .iter()
            .try_for_each(|change| apply_one(connection, change, &mut content))
    })
}

fn apply_one(
    connection: &Connection,
    change: &Move,
    content: &mut impl FnMut(&HeldMessage) -> Result<Option<Vec<u8>>, SpoolError>,
) -> Result<(), ApplyError> {
    let id = change.id;
    match &change.pending {
        Pending::Message(message, parts) => {
            let content = match message.content {
                HeldContent::Log { .. } => content(message).map_err(ApplyError::Content)?,
                HeldContent::BodyFile => None,
            };
            put(connection, id, (message, parts), content.as_deref())?;
        }
        Pending::Envelope(change) => update(connection, id, change)?,
        Pending::Removed => delete(connection, row_id(id))?,
    }
    Ok(())
}

/// Makes these changes in one transaction, or none of them.
fn in_transaction<E: From<rusqlite::Error>>(
    connection: &Connection,
    changes: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    run(connection, "BEGIN IMMEDIATE")?;
    let result = changes().and_then(|()| Ok(run(connection, "COMMIT")?));
    if result.is_err() && !connection.is_autocommit() {
        // If the rollback fails as well, the transaction is still open, which the caller treats as
        // fatal.
        let _still_open = run(connection, "ROLLBACK");
    }
    result
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

fn put(
    connection: &Connection,
    id: QueueId,
    (message, parts): (&HeldMessage, &PendingParts),
    content: Option<&[u8]>,
) -> rusqlite::Result<()> {
    let place = match message.content {
        HeldContent::Log { .. } => IN_ROW,
        HeldContent::BodyFile => IN_FILE,
    };
    if let Some(content) = content {
        let mut body =
            connection.prepare_cached("INSERT OR REPLACE INTO body (id, data) VALUES (?1, ?2)")?;
        body.execute(params![row_id(id), content])?;
    }
    // It was checked when the message came in.
    let size = i64::try_from(message.size).unwrap_or(i64::MAX);
    let mut row = connection.prepare_cached(
        "INSERT OR REPLACE INTO message \
         (id, accepted, size, content, content_crc, fixed_crc, envelope, envelope_crc) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    row.execute(params![
        row_id(id),
        message.accepted,
        size,
        place,
        message.content_crc,
        fixed_crc(id, message.accepted, message.size, message.content_crc),
        &*message.envelope.json,
        message.envelope.crc,
    ])?;
    parts::delete(connection, row_id(id))?;
    parts::write(connection, id, row_id(id), parts)
}

fn update(connection: &Connection, id: QueueId, change: &EnvelopeChange) -> rusqlite::Result<()> {
    if let Some(unit) = &change.unit {
        let mut update = connection
            .prepare_cached("UPDATE message SET envelope = ?2, envelope_crc = ?3 WHERE id = ?1")?;
        update.execute(params![row_id(id), &*unit.json, unit.crc])?;
        parts::delete(connection, row_id(id))?;
    }
    parts::write(connection, id, row_id(id), &change.parts)
}

/// Deletes a row, whatever its id is.
pub(super) fn delete(connection: &Connection, row: i64) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM body WHERE id = ?1",
        "DELETE FROM message WHERE id = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([row])?;
    }
    parts::delete(connection, row)
}

/// Deletes the row of a quarantined message in one transaction. One that cannot be deleted stays
/// complete, so that a repair which can read it finds all of it; false is returned then.
pub(super) fn evict(connection: &Connection, row: i64) -> rusqlite::Result<bool> {
    match in_transaction(connection, || delete(connection, row)) {
        Ok(()) => Ok(true),
        Err(error) if is_unreadable(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Marks a row as removed that cannot be deleted, because a page that is needed for that cannot be
/// read: no scan yields it then, and no repair. Returns false if its own page cannot be read either.
///
/// After a page that cannot be read, SQLite lets a transaction write nothing more; this statement is a
/// transaction of its own.
pub(super) fn mark_removed(connection: &Connection, id: QueueId) -> rusqlite::Result<bool> {
    let marked = connection
        .prepare_cached(MARK_REMOVED)?
        .execute([row_id(id)]);
    match marked {
        Ok(_) => Ok(true),
        Err(error) if is_unreadable(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
