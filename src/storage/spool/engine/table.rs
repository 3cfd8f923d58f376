//! Writes to the tables of the database. The mover alone makes them.

use rusqlite::{Connection, params};

use super::index::{HeldContent, HeldMessage, Move, Pending};
use super::row::{EnvelopeText, IN_FILE, IN_ROW, fixed_crc, row_id};
use crate::smtp::envelope::QueueId;

/// Applies all of these differences in one transaction, or none. `content` returns the content of a
/// message that is not in a body file; `None` if it cannot be read any more.
///
/// Each difference may have been applied before.
pub(super) fn apply(
    connection: &Connection,
    moves: &[Move],
    mut content: impl FnMut(&HeldMessage) -> Option<Vec<u8>>,
) -> rusqlite::Result<()> {
    run(connection, "BEGIN IMMEDIATE")?;
    let done = moves.iter().try_for_each(|change| {
        let id = change.id;
        match &change.pending {
            Pending::Message(message) => {
                let content = match message.content {
                    HeldContent::Log { .. } => content(message),
                    HeldContent::BodyFile => None,
                };
                put(connection, id, message, content.as_deref())
            }
            Pending::Envelope(envelope) => update(connection, id, envelope),
            Pending::Removed => delete(connection, row_id(id)),
        }
    });
    let result = done.and_then(|()| run(connection, "COMMIT"));
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
    message: &HeldMessage,
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
    Ok(())
}

fn update(connection: &Connection, id: QueueId, envelope: &EnvelopeText) -> rusqlite::Result<()> {
    let mut update = connection
        .prepare_cached("UPDATE message SET envelope = ?2, envelope_crc = ?3 WHERE id = ?1")?;
    update.execute(params![row_id(id), &*envelope.json, envelope.crc])?;
    Ok(())
}

/// Deletes a row, whatever its id is.
pub(super) fn delete(connection: &Connection, row: i64) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM body WHERE id = ?1",
        "DELETE FROM message WHERE id = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([row])?;
    }
    Ok(())
}
