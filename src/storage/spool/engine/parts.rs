//! The [`envelope_parts`](super::super::envelope_parts) that the log has in records of their own and the
//! database in rows of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crc32fast::Hasher;
use rusqlite::{Connection, Row, params};

use super::super::envelope_parts::{has_parts, merge_part, part_number, place_of};
use super::super::log::{EnvelopePart, PartPlace};
use crate::smtp::envelope::{Envelope, QueueId};

/// The octets that a part needs in the database besides its JSON; an upper bound.
const PART_ROW: u64 = 64;

/// The parts of an envelope that the log has and the database does not have yet.
#[derive(Debug, Clone, Default)]
pub(super) struct PendingParts(Option<Arc<BTreeMap<PartPlace, PendingPart>>>);

/// A part, with its place in the log.
#[derive(Debug, Clone)]
struct PendingPart {
    json: Arc<str>,
    /// The segment with its record.
    segment: u64,
    /// The version of the index at the time of its record.
    version: u64,
}

impl PendingParts {
    /// Replaces parts. Their record is in `segment`.
    pub(super) fn replace(&mut self, parts: &[EnvelopePart], segment: u64, version: u64) {
        let all = Arc::make_mut(self.0.get_or_insert_default());
        for part in parts {
            let pending = PendingPart {
                json: Arc::clone(&part.json),
                segment,
                version,
            };
            all.insert(part.place, pending);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (PartPlace, &PendingPart)> {
        let parts = self.0.iter().flat_map(|parts| parts.iter());
        parts.map(|(place, part)| (*place, part))
    }

    /// Returns the parts that were replaced after this version of the index.
    pub(super) fn since(&self, version: u64) -> Self {
        let later = self.iter().filter(|(_, part)| part.version > version);
        let later: BTreeMap<_, _> = later.map(|(place, part)| (place, part.clone())).collect();
        Self((!later.is_empty()).then(|| Arc::new(later)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Returns the parts as the log has them.
    pub(super) fn envelope_parts(&self) -> Vec<EnvelopePart> {
        let part = |(place, part): (PartPlace, &PendingPart)| EnvelopePart {
            place,
            json: Arc::clone(&part.json),
        };
        self.iter().map(part).collect()
    }

    /// Sets the segment that has the parts.
    pub(super) fn set_segment(&mut self, segment: u64) {
        if let Some(parts) = &mut self.0 {
            for part in Arc::make_mut(parts).values_mut() {
                part.segment = segment;
            }
        }
    }

    /// Returns the oldest segment with the record of a part.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.iter().map(|(_, part)| part.segment).min()
    }

    /// Returns the octets that the parts will need in the database.
    pub(super) fn octets(&self) -> u64 {
        self.iter()
            .map(|(_, part)| part.json.len() as u64 + PART_ROW)
            .sum()
    }

    /// Returns the parts as text.
    #[cfg(test)]
    pub(super) fn texts(&self) -> Vec<(PartPlace, String)> {
        let text = |(place, part): (PartPlace, &PendingPart)| (place, part.json.to_string());
        self.iter().map(text).collect()
    }

    /// Puts the parts in the place of those of an envelope.
    ///
    /// # Errors
    /// The damage, if a part cannot be read.
    pub(super) fn merge(&self, envelope: &mut Envelope) -> Result<(), String> {
        self.iter()
            .try_for_each(|(place, part)| merge_part(envelope, place, &part.json))
    }
}

fn part_crc(id: QueueId, part: i64, json: &str) -> u32 {
    let mut crc = Hasher::new();
    crc.update(&id.number().to_le_bytes());
    crc.update(&part.to_le_bytes());
    crc.update(&(json.len() as u64).to_le_bytes());
    crc.update(json.as_bytes());
    crc.finalize()
}

/// Writes parts of the envelope of a message to the database, if the message is there.
pub(super) fn write(
    connection: &Connection,
    id: QueueId,
    row: i64,
    parts: &PendingParts,
) -> rusqlite::Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let mut message = connection.prepare_cached("SELECT 1 FROM message WHERE id = ?1")?;
    if !message.exists([row])? {
        return Ok(());
    }
    let mut replace = connection.prepare_cached(
        "INSERT OR REPLACE INTO recipient (message, part, status, crc) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (place, part) in parts.iter() {
        let number = part_number(place);
        let crc = part_crc(id, number, &part.json);
        replace.execute(params![row, number, &*part.json, crc])?;
    }
    Ok(())
}

/// Deletes all parts of the envelope of a message from the database.
pub(super) fn delete(connection: &Connection, row: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM recipient WHERE message = ?1")?
        .execute([row])
        .map(drop)
}

/// Puts the parts of an envelope that the database has in the place of those of the envelope. The
/// caller is reading the row of the message, so both are of the same state.
///
/// # Errors
/// The error of the database. The inner error is the damage, if a part is damaged.
pub(super) fn merge_stored(
    connection: &Connection,
    id: QueueId,
    row: i64,
    envelope: &mut Envelope,
) -> rusqlite::Result<Result<(), String>> {
    if !has_parts(envelope) {
        return Ok(Ok(()));
    }
    let sql = "SELECT part, status, crc FROM recipient WHERE message = ?1";
    let mut statement = match connection.prepare_cached(sql) {
        Ok(statement) => statement,
        // A database of an earlier version, which is read from outside.
        Err(_) if !connection.table_exists(None, "recipient")? => return Ok(Ok(())),
        Err(error) => return Err(error),
    };
    let mut rows = statement.query([row])?;
    while let Some(row) = rows.next()? {
        if let Err(fault) = merge_row(row, id, envelope) {
            return Ok(Err(fault));
        }
    }
    Ok(Ok(()))
}

/// Puts the part of one row in its place.
fn merge_row(row: &Row<'_>, id: QueueId, envelope: &mut Envelope) -> Result<(), String> {
    let unreadable =
        |error: rusqlite::Error| format!("a part of its envelope cannot be read: {error}");
    let part: i64 = row.get(0).map_err(unreadable)?;
    let json: String = row.get(1).map_err(unreadable)?;
    let stored: u32 = row.get(2).map_err(unreadable)?;
    if stored != part_crc(id, part, &json) {
        return Err(format!(
            "part {part} of its envelope does not have the checksum stored with it"
        ));
    }
    let place = place_of(part).ok_or_else(|| format!("its envelope has no part {part}"))?;
    merge_part(envelope, place, &json)
}

/// Returns the parts of the envelope of a row as text, one on each line.
pub(super) fn stored_text(connection: &Connection, row: i64) -> rusqlite::Result<String> {
    let mut statement = connection
        .prepare("SELECT part, CAST(status AS BLOB) FROM recipient WHERE message = ?1")?;
    let lines = statement.query_map([row], |row| {
        let (part, status): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let status = String::from_utf8_lossy(&status);
        Ok(format!("part {part}: {status}\n"))
    })?;
    lines.collect()
}
