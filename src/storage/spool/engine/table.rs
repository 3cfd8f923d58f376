//! Writes to the tables of the database. The mover alone makes them.

use rusqlite::{Connection, params};

use super::index::{EnvelopeChange, HeldContent, HeldMessage, Move, Pending};
use super::parts::{self, PendingParts};
use super::row::{IN_FILE, IN_ROW, MARK_REMOVED, fixed_crc, row_id};
use super::schema::is_unreadable;
use crate::smtp::envelope::QueueId;

type Update = fn(&Connection, QueueId, &EnvelopeChange) -> rusqlite::Result<()>;
type Delete = fn(&Connection, i64) -> rusqlite::Result<()>;

/// Applies all of these differences in one transaction, or none. `content` returns the content of a
/// message that is not in a body file; `None` if it cannot be read any more.
///
/// Each difference may have been applied before.
pub(super) fn apply(
    connection: &Connection,
    moves: &[Move],
    mut content: impl FnMut(&HeldMessage) -> Option<Vec<u8>>,
) -> rusqlite::Result<()> {
    let result = apply_with(
        connection,
        moves,
        &mut content,
        (update as Update, delete as Delete),
    );
    if result.as_ref().is_err_and(is_unreadable) {
        let around_damage = (
            update_around_damage as Update,
            delete_around_damage as Delete,
        );
        return apply_with(connection, moves, &mut content, around_damage);
    }
    result
}

fn apply_with(
    connection: &Connection,
    moves: &[Move],
    content: &mut impl FnMut(&HeldMessage) -> Option<Vec<u8>>,
    (update, delete): (Update, Delete),
) -> rusqlite::Result<()> {
    run(connection, "BEGIN IMMEDIATE")?;
    let done = moves.iter().try_for_each(|change| {
        let id = change.id;
        match &change.pending {
            Pending::Message(message, parts) => {
                let content = match message.content {
                    HeldContent::Log { .. } => content(message),
                    HeldContent::BodyFile => None,
                };
                put(connection, id, (message, parts), content.as_deref())
            }
            Pending::Envelope(change) => update(connection, id, change),
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

/// As [`update`], when a page of the database cannot be read. A state that cannot be written must
/// not keep all others from the database.
fn update_around_damage(
    connection: &Connection,
    id: QueueId,
    change: &EnvelopeChange,
) -> rusqlite::Result<()> {
    let result = separately(connection, || update(connection, id, change));
    if result.as_ref().is_err_and(is_unreadable) {
        tracing::error!(
            queue_id = %id,
            "state of a message cannot be stored, since a page of the spool database cannot be read; it may be delivered again"
        );
        return Ok(());
    }
    result
}

/// Removes a row when a page of the database cannot be read. What cannot be deleted stays in the
/// database, where no scan yields it.
pub(super) fn delete_around_damage(connection: &Connection, row: i64) -> rusqlite::Result<()> {
    if separately(connection, || delete(connection, row)).is_ok() {
        return Ok(());
    }
    // A row with the mark is known as removed, also to a repair; a content without its row is not.
    for sql in [MARK_REMOVED, "DELETE FROM message WHERE id = ?1"] {
        let remove = || connection.prepare_cached(sql)?.execute([row]).map(drop);
        match separately(connection, remove) {
            Ok(()) => break,
            Err(error) if is_unreadable(&error) => {}
            Err(error) => return Err(error),
        }
    }
    tracing::warn!(
        row,
        "removed message stays in the spool database in part, since a page cannot be read"
    );
    Ok(())
}

/// Makes one change that has no effect if it fails.
fn separately(
    connection: &Connection,
    change: impl FnOnce() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    if connection.is_autocommit() {
        // A statement of its own is a transaction of its own.
        return change();
    }
    run(connection, "SAVEPOINT one_change")?;
    let result = change();
    if result.is_err() {
        run(connection, "ROLLBACK TO one_change")?;
    }
    run(connection, "RELEASE one_change")?;
    result
}
