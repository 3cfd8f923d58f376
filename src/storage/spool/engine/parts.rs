//! The parts of the envelope of a message to many recipients, so that a result costs as much as it
//! changes.
//!
//! A part replaces a part of the envelope that is stored as a unit: the state and the owed report
//! of one recipient, or everything but the recipients. The log has parts in records of their own
//! and the database has them in rows of their own. A message to few recipients has no parts; its
//! envelope is replaced as a unit.

use std::collections::BTreeMap;
use std::sync::Arc;

use crc32fast::Hasher;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::super::log::{EnvelopePart, PartPlace};
use crate::smtp::envelope::{AttemptFailure, Envelope, QueueId, RecipientState};

/// The most recipients of a message without parts.
const FEW: usize = 16;
/// The number in the database of the part that has everything but the recipients.
const MESSAGE: i64 = -1;
/// The octets that a part needs in the database besides its JSON; an upper bound.
const PART_ROW: u64 = 64;

/// The stored form of a recipient's part.
#[derive(Debug, Serialize, Deserialize)]
struct RecipientPart {
    state: RecipientState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owed: Option<Box<AttemptFailure>>,
}

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

/// Returns whether a message with this envelope may have parts.
fn has_parts(envelope: &Envelope) -> bool {
    envelope.recipients.len() > FEW
}

/// Returns the parts in which two envelopes of a message differ; `None` if the envelope is to be
/// replaced as a unit.
pub(super) fn changed_parts(
    before: &Envelope,
    after: &Envelope,
) -> serde_json::Result<Option<Vec<EnvelopePart>>> {
    if !has_parts(after) || before.recipients.len() != after.recipients.len() {
        return Ok(None);
    }
    let mut parts = Vec::new();
    let message = without_recipients(after);
    if without_recipients(before) != message {
        parts.push(part(PartPlace::Message, &message)?);
    }
    let pairs = before.recipients.iter().zip(&after.recipients);
    for (at, (before, after)) in (0..).zip(pairs) {
        if (&before.state, &before.owed) != (&after.state, &after.owed) {
            let (state, owed) = (after.state.clone(), after.owed.clone());
            let place = PartPlace::Recipient(at);
            parts.push(part(place, &RecipientPart { state, owed })?);
        }
    }
    Ok(Some(parts))
}

fn part(place: PartPlace, value: &impl Serialize) -> serde_json::Result<EnvelopePart> {
    let json = serde_json::to_string(value)?.into();
    Ok(EnvelopePart { place, json })
}

/// Returns an envelope without its recipients.
fn without_recipients(envelope: &Envelope) -> Envelope {
    let Envelope {
        reverse_path,
        recipients: _,
        body,
        smtputf8,
        needs,
        ret,
        envid,
        tls,
        message_id,
        report,
        arrival,
        received,
        origin,
        confidential,
        connector,
    } = envelope;
    Envelope {
        reverse_path: reverse_path.clone(),
        recipients: Vec::new(),
        body: *body,
        smtputf8: *smtputf8,
        needs: *needs,
        ret: *ret,
        envid: envid.clone(),
        tls: *tls,
        message_id: message_id.clone(),
        report: *report,
        arrival: arrival.clone(),
        received: received.clone(),
        origin: *origin,
        confidential: *confidential,
        connector: connector.clone(),
    }
}

/// Puts a part in the place of the one of an envelope.
fn merge_part(envelope: &mut Envelope, place: PartPlace, json: &str) -> Result<(), String> {
    let unreadable = |error: serde_json::Error| {
        let part = part_number(place);
        format!("part {part} of its envelope cannot be read: {error}")
    };
    match place {
        PartPlace::Message => {
            let recipients = std::mem::take(&mut envelope.recipients);
            *envelope = serde_json::from_str(json).map_err(unreadable)?;
            envelope.recipients = recipients;
        }
        PartPlace::Recipient(at) => {
            let recipient = usize::try_from(at)
                .ok()
                .and_then(|at| envelope.recipients.get_mut(at))
                .ok_or_else(|| format!("it has no recipient {at}, and a part about it"))?;
            let RecipientPart { state, owed } = serde_json::from_str(json).map_err(unreadable)?;
            (recipient.state, recipient.owed) = (state, owed);
        }
    }
    Ok(())
}

/// Returns the number of a part in the database.
fn part_number(place: PartPlace) -> i64 {
    match place {
        PartPlace::Message => MESSAGE,
        PartPlace::Recipient(at) => i64::from(at),
    }
}

fn place_of(number: i64) -> Option<PartPlace> {
    if number == MESSAGE {
        return Some(PartPlace::Message);
    }
    u32::try_from(number).ok().map(PartPlace::Recipient)
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
