//! The form of a message in the database, and its checks. No other module knows the columns.
//!
//! Besides the checksum of the content there are two: one over the columns that never change, and
//! one over the envelope, which is replaced when a recipient's state changes, unless the change is
//! written as [`super::parts`]. Both include the id, so that a row under a wrong id is detected.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::super::body::file_damage;
use super::super::envelope_parts::changed_parts;
pub(super) use super::super::ids::{queue_id, row_id};
use super::super::log::EnvelopePart;
use super::super::{SpoolError, StoredMessage};
use super::parts;
use super::paths::SpoolPaths;
use super::schema::{database_error, is_unreadable};
use crate::smtp::envelope::{Envelope, QueueId};

/// An envelope in its stored form, with its checksum.
#[derive(Debug, Clone)]
pub(super) struct EnvelopeText {
    pub(super) json: Arc<str>,
    pub(super) crc: u32,
}

impl EnvelopeText {
    pub(super) fn new(id: QueueId, envelope: &Envelope) -> Result<Self, SpoolError> {
        let json = serde_json::to_string(envelope).map_err(|error| not_json(id, &error))?;
        Ok(Self::from_json(id, json.into()))
    }

    pub(super) fn from_json(id: QueueId, json: Arc<str>) -> Self {
        let crc = envelope_crc(id, &json);
        Self { json, crc }
    }

    /// Returns the envelope.
    pub(super) fn read(&self) -> Result<Envelope, RowError> {
        read_envelope(&self.json)
    }
}

fn not_json(id: QueueId, error: &serde_json::Error) -> SpoolError {
    SpoolError::Io(format!(
        "the envelope of {id} cannot be written as JSON: {error}"
    ))
}

/// The update of a stored envelope.
#[derive(Debug)]
pub(super) enum EnvelopeUpdate {
    /// The envelope as a unit.
    Unit(EnvelopeText),
    /// The parts that have changed.
    Parts(Vec<EnvelopePart>),
}

impl EnvelopeUpdate {
    /// Returns the update that makes the envelope `before` of a message into `after`.
    pub(super) fn between(
        id: QueueId,
        before: &Envelope,
        after: &Envelope,
    ) -> Result<Self, SpoolError> {
        match changed_parts(before, after).map_err(|error| not_json(id, &error))? {
            Some(parts) => Ok(Self::Parts(parts)),
            None => EnvelopeText::new(id, after).map(Self::Unit),
        }
    }
}

/// The reason why a row cannot be used.
#[derive(Debug)]
pub(super) enum RowError {
    /// The row is damaged; the text describes the damage.
    Damage(String),
    /// The row could not be read.
    Spool(SpoolError),
}

/// The content of a stored message: the octets, or the file that holds them.
#[derive(Debug)]
pub(super) enum StoredContent {
    Row(Bytes),
    File { path: PathBuf, crc: u32 },
}

/// The value of `message.content` if the content is in table `body`.
pub(super) const IN_ROW: &str = "row";
/// The value of `message.content` if the content is in a file.
pub(super) const IN_FILE: &str = "file";

/// Rounds a time down to milliseconds, the precision of the database.
pub(super) fn to_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

pub(super) fn fixed_crc(id: QueueId, accepted: i64, size: u64, content_crc: u32) -> u32 {
    let mut crc = Hasher::new();
    crc.update(&id.number().to_le_bytes());
    crc.update(&accepted.to_le_bytes());
    crc.update(&size.to_le_bytes());
    crc.update(&content_crc.to_le_bytes());
    crc.finalize()
}

fn envelope_crc(id: QueueId, json: &str) -> u32 {
    let mut crc = Hasher::new();
    crc.update(&id.number().to_le_bytes());
    crc.update(&(json.len() as u64).to_le_bytes());
    crc.update(json.as_bytes());
    crc.finalize()
}

/// Returns the highest id in the database.
pub(super) fn highest(
    connection: &Connection,
    paths: &SpoolPaths,
) -> Result<Option<QueueId>, SpoolError> {
    let highest = |table: &str| {
        let sql = format!("SELECT max(id) FROM {table}");
        connection.query_row(&sql, [], |row| row.get::<_, Option<i64>>(0))
    };
    let found = match highest("message") {
        // The content of a message that cannot be read has the same id. Ids are drawn above the
        // time of the last change as well.
        Err(error) if is_unreadable(&error) => highest("body").unwrap_or(None),
        found => found.map_err(|error| database_error(paths, "read the highest id of", &error))?,
    };
    Ok(found.and_then(queue_id))
}

fn row_error(paths: &SpoolPaths, what: &str, error: &rusqlite::Error) -> RowError {
    if is_unreadable(error) {
        return damage(format!("its page of the database cannot be read: {error}"));
    }
    RowError::Spool(database_error(paths, what, error))
}

/// Returns the ids of all rows after row `after` that can be found although pages of the database
/// cannot be read: both tables have them, and each can be read from both ends.
pub(super) fn ids_around_damage(connection: &Connection, after: i64) -> BTreeSet<i64> {
    let mut ids = BTreeSet::new();
    for table in ["message", "body"] {
        for order in ["ASC", "DESC"] {
            let sql = format!("SELECT id FROM {table} WHERE id > ?1 ORDER BY id {order}");
            let Ok(mut statement) = connection.prepare(&sql) else {
                continue;
            };
            let Ok(rows) = statement.query_map([after], |row| row.get::<_, i64>(0)) else {
                continue;
            };
            ids.extend(rows.map_while(Result::ok));
        }
    }
    ids
}

const LOAD: &str = "SELECT id, accepted, size, fixed_crc, content, content_crc, envelope, envelope_crc, data \
                    FROM message LEFT JOIN body USING (id) WHERE id = ?1 AND content NOT IN ('del', 'gone')";
const HEAD: &str = "SELECT id, accepted, size, fixed_crc, content, content_crc, envelope, envelope_crc \
                    FROM message WHERE id = ?1 AND content NOT IN ('del', 'gone')";
const SCAN: &str = "SELECT id, accepted, size, fixed_crc, content, content_crc, envelope, envelope_crc \
                    FROM message WHERE id > ?1 AND content NOT IN ('del', 'gone') ORDER BY id LIMIT ?2";
/// Marks a row as removed without changing its size. SQLite then writes its page alone, whereas a
/// deletion may need the pages beside it, which cannot be read.
pub(super) const MARK_REMOVED: &str =
    "UPDATE message SET content = CASE content WHEN 'row' THEN 'del' ELSE 'gone' END WHERE id = ?1";

/// Deletes the rows that are marked as removed, and parts without a message. All pages must be sound.
pub(super) fn purge_removed(connection: &Connection, paths: &SpoolPaths) -> Result<(), SpoolError> {
    let marked = "content IN ('del', 'gone')";
    let purged = connection.execute_batch(&format!(
        "DELETE FROM body WHERE id IN (SELECT id FROM message WHERE {marked}); \
         DELETE FROM message WHERE {marked}; \
         DELETE FROM recipient WHERE message NOT IN (SELECT id FROM message)"
    ));
    purged.map_err(|error| database_error(paths, "remove rows of", &error))
}

/// Loads one message with its content, and checks both.
pub(super) fn load(
    connection: &Connection,
    paths: &SpoolPaths,
    id: QueueId,
) -> Result<(StoredMessage, StoredContent), RowError> {
    let failed = |error| row_error(paths, "read from", &error);
    let mut statement = connection.prepare_cached(LOAD).map_err(failed)?;
    let found = statement.query_row([row_id(id)], |row| {
        let head = merged(connection, row, paths);
        Ok(head.and_then(|head| with_content(head, row)))
    });
    found
        .optional()
        .map_err(failed)?
        .unwrap_or(Err(RowError::Spool(SpoolError::Missing(id))))
}

/// Returns a page of messages after row `after`, each with its row id. Checks everything but the
/// content.
#[expect(
    clippy::type_complexity,
    reason = "a list of results, each with its key"
)]
pub(super) fn page(
    connection: &Connection,
    paths: &SpoolPaths,
    after: i64,
    limit: usize,
) -> Result<Vec<(i64, Result<StoredMessage, RowError>)>, RowError> {
    let failed = |error| row_error(paths, "list the messages of", &error);
    let mut statement = connection.prepare_cached(SCAN).map_err(failed)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map([after, limit], |row| {
        let stored = merged(connection, row, paths).map(|head| head.stored);
        Ok((row.get(0)?, stored))
    });
    rows.and_then(Iterator::collect).map_err(failed)
}

/// As [`page`], row by row, since a page of the database cannot be read.
#[expect(
    clippy::type_complexity,
    reason = "a list of results, each with its key"
)]
pub(super) fn page_around_damage(
    connection: &Connection,
    paths: &SpoolPaths,
    after: i64,
    limit: usize,
) -> Result<Vec<(i64, Result<StoredMessage, RowError>)>, SpoolError> {
    let mut page = Vec::new();
    for raw in ids_around_damage(connection, after) {
        match head(connection, paths, raw) {
            // The content of a message that was removed.
            Ok(None) => {}
            Ok(Some(stored)) => page.push((raw, Ok(stored))),
            Err(RowError::Damage(fault)) => page.push((raw, Err(RowError::Damage(fault)))),
            Err(RowError::Spool(error)) => return Err(error),
        }
        if page.len() >= limit {
            break;
        }
    }
    Ok(page)
}

/// The columns that describe the content of a message.
#[derive(Debug)]
pub(super) struct ContentColumns {
    /// [`IN_ROW`] or [`IN_FILE`].
    pub(super) place: String,
    pub(super) size: u64,
    pub(super) crc: u32,
}

/// Returns the columns that describe the content of a message whose row is sound.
pub(super) fn content_columns(
    connection: &Connection,
    id: QueueId,
) -> rusqlite::Result<ContentColumns> {
    let sql = "SELECT content, size, content_crc FROM message WHERE id = ?1";
    connection.query_row(sql, [row_id(id)], |row| {
        Ok(ContentColumns {
            place: row.get(0)?,
            size: row.get(1)?,
            crc: row.get(2)?,
        })
    })
}

/// Returns a message without its content; `None` if there is no such row.
pub(super) fn head(
    connection: &Connection,
    paths: &SpoolPaths,
    raw: i64,
) -> Result<Option<StoredMessage>, RowError> {
    let failed = |error| row_error(paths, "read from", &error);
    let mut statement = connection.prepare_cached(HEAD).map_err(failed)?;
    let found = statement.query_row([raw], |row| {
        Ok(merged(connection, row, paths).map(|head| head.stored))
    });
    found.optional().map_err(failed)?.transpose()
}

struct RowHead {
    stored: StoredMessage,
    content_crc: u32,
    file: Option<PathBuf>,
}

/// Returns a row, checked, with the parts of its envelope and without the content. The statement of
/// the row is not at its end, so the parts are read in the same transaction.
fn merged(connection: &Connection, row: &Row<'_>, paths: &SpoolPaths) -> Result<RowHead, RowError> {
    let mut head = checked(row, paths)?;
    let StoredMessage { id, envelope, .. } = &mut head.stored;
    parts::merge_stored(connection, *id, row_id(*id), envelope)
        .map_err(|error| row_error(paths, "read the envelope of a message from", &error))?
        .map_err(damage)?;
    Ok(head)
}

/// The columns of a row, checked, without the content.
fn checked(row: &Row<'_>, paths: &SpoolPaths) -> Result<RowHead, RowError> {
    let raw: i64 = column(row, 0)?;
    let id = queue_id(raw).ok_or_else(|| damage(format!("{raw} is no queue id")))?;
    let (millis, octets, content_crc): (i64, i64, u32) =
        (column(row, 1)?, column(row, 2)?, column(row, 5)?);
    // A negative size has the same octets as the number that it cannot be.
    if column::<u32>(row, 3)? != fixed_crc(id, millis, octets.cast_unsigned(), content_crc) {
        return Err(damage(
            "its fixed part does not have the checksum stored with it",
        ));
    }
    let bad_value = |_| {
        damage(format!(
            "accepted at {millis} with {octets} octets: that cannot be"
        ))
    };
    let size = u64::try_from(octets).map_err(bad_value)?;
    let accepted =
        Timestamp::from_millisecond(millis).map_err(|_| damage(format!("{millis} is no time")))?;
    let json: String = column(row, 6)?;
    if column::<u32>(row, 7)? != envelope_crc(id, &json) {
        return Err(damage(
            "its envelope does not have the checksum stored with it",
        ));
    }
    let envelope = read_envelope(&json)?;
    let location: String = column(row, 4)?;
    let file = match location.as_str() {
        IN_ROW => None,
        IN_FILE => Some(paths.body(id)),
        other => {
            return Err(damage(format!(
                "its content has the unknown location {other:?}"
            )));
        }
    };
    Ok(RowHead {
        stored: StoredMessage {
            id,
            accepted,
            envelope,
            size,
        },
        content_crc,
        file,
    })
}

fn with_content(head: RowHead, row: &Row<'_>) -> Result<(StoredMessage, StoredContent), RowError> {
    let RowHead {
        stored,
        content_crc,
        file,
    } = head;
    if let Some(path) = file {
        // A file whose metadata cannot be read may be sound: reading it returns the error.
        return match file_damage(&path, stored.size) {
            Ok(Some(fault)) => Err(damage(fault)),
            Ok(None) | Err(_) => Ok((
                stored,
                StoredContent::File {
                    path,
                    crc: content_crc,
                },
            )),
        };
    }
    let data: Option<Vec<u8>> = column(row, 8)?;
    let data = data.ok_or_else(|| damage("its content is missing"))?;
    if data.len() as u64 != stored.size {
        return Err(damage(format!(
            "its content has {} octets where {} were stored",
            data.len(),
            stored.size
        )));
    }
    let crc = crc32fast::hash(&data);
    if crc != content_crc {
        return Err(damage(format!(
            "the checksum of its content is {crc:08x} where {content_crc:08x} was stored"
        )));
    }
    Ok((stored, StoredContent::Row(Bytes::from(data))))
}

fn read_envelope(json: &str) -> Result<Envelope, RowError> {
    serde_json::from_str(json)
        .map_err(|error| damage(format!("its envelope cannot be read: {error}")))
}

fn column<T: rusqlite::types::FromSql>(row: &Row<'_>, at: usize) -> Result<T, RowError> {
    row.get(at)
        .map_err(|error| damage(format!("its row cannot be read: {error}")))
}

fn damage(fault: impl Into<String>) -> RowError {
    RowError::Damage(fault.into())
}
