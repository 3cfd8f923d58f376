//! The index of the log: the part of the queue that the log has and the database does not have yet.
//!
//! A message is in the index from its commit until it is removed, or until the mover has written it
//! to the database. A change to a message of the database is in the index until the mover has
//! applied it. A change that cannot be written stays in the index, and
//! [`unwritten`](super::unwritten) has it in place of the log. The index also knows which segments of
//! the log are still needed. Its size is bounded by the size of the log, and by the number of messages
//! whose pages cannot be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::super::log::{ContentPlace, EnvelopePart, LoggedMessage};
use super::kept::KeptChange;
use super::parts::PendingParts;
use super::row::{EnvelopeText, RowError};
use crate::smtp::envelope::{Envelope, QueueId};

/// The segment of changes that the file of unwritten changes has, and the log no longer needs.
const UNLOGGED: u64 = u64::MAX;
/// The octets that a row needs in the database besides its content and its envelope; an upper
/// bound.
const ROW: u64 = 256;

/// A message that the log alone has.
#[derive(Debug, Clone)]
pub(super) struct HeldMessage {
    pub(super) accepted: i64,
    pub(super) size: u64,
    pub(super) content_crc: u32,
    pub(super) envelope: EnvelopeText,
    pub(super) content: HeldContent,
}

impl HeldMessage {
    /// Returns a message of the log. Its record is in this segment, and its content, if that was in the
    /// same batch, at this offset.
    pub(super) fn new(
        logged: &LoggedMessage,
        envelope: EnvelopeText,
        (segment, offset): (u64, u64),
    ) -> Self {
        let content = match logged.content {
            ContentPlace::BodyFile => HeldContent::BodyFile,
            ContentPlace::Here(_) => HeldContent::Log { segment, offset },
            ContentPlace::At(offset) => HeldContent::Log { segment, offset },
        };
        Self {
            accepted: logged.accepted,
            size: logged.size,
            content_crc: logged.content_crc,
            envelope,
            content,
        }
    }
}

/// The place of the content of a message that the log alone has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeldContent {
    /// The octets at this offset of a segment.
    Log { segment: u64, offset: u64 },
    /// A file of its own.
    BodyFile,
}

/// The difference between the queue and the database for one message.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    /// The message is not in the database. The parts replace those of its envelope.
    Message(Arc<HeldMessage>, PendingParts),
    /// The message has another envelope in the database.
    Envelope(EnvelopeChange),
    /// The message is not in the queue any more.
    Removed,
}

/// The difference between the envelope of a message and the one in the database.
#[derive(Debug, Clone)]
pub(super) struct EnvelopeChange {
    /// The envelope as a unit, if that was replaced.
    pub(super) unit: Option<EnvelopeText>,
    /// The parts that were replaced after that.
    pub(super) parts: PendingParts,
}

/// A difference that the mover applies to the database.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) id: QueueId,
    pub(super) pending: Pending,
    /// True if the file of unwritten changes has it already.
    pub(super) is_kept: bool,
    version: u64,
}

impl Move {
    /// Returns whether it changes a message that the database has.
    pub(super) fn is_change(&self) -> bool {
        !matches!(self.pending, Pending::Message(..))
    }

    /// Returns the change, if it changes a message that the database has.
    pub(super) fn kept_change(&self) -> Option<KeptChange> {
        match &self.pending {
            Pending::Message(..) => None,
            Pending::Removed => Some(KeptChange::Removed),
            Pending::Envelope(change) => Some(KeptChange::Envelope {
                unit: change.unit.as_ref().map(|unit| Arc::clone(&unit.json)),
                parts: change.parts.envelope_parts(),
            }),
        }
    }
}

/// The result of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MoveEnd {
    /// The database has the difference durably.
    Written,
    /// The database is as before.
    Unchanged,
    /// The move failed, and the database may have the difference all the same.
    Uncertain,
    /// The database cannot have the difference, and the file of unwritten changes has it.
    Kept,
}

/// The differences that the mover is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum MoveScope {
    /// All that are at least as old as this, if anything can be.
    Since(Option<Instant>),
    /// All that an older segment than the active one has.
    SealedSegments,
    /// All.
    All,
}

#[derive(Debug)]
struct IndexSlot {
    pending: Pending,
    /// The oldest segment that is needed for this entry.
    segment: u64,
    /// The latest record with the envelope as a unit.
    unit: UnitRecord,
    since: Instant,
    version: u64,
    /// True while the mover writes an earlier version of it to the database.
    is_moving: bool,
    /// True if the database may have the message although the log alone is known to: a move may
    /// have failed halfway, or an earlier process may have moved it there and have ended before its
    /// segment was removed.
    may_be_stored: bool,
    /// True if this version of it cannot be written.
    is_unwritable: bool,
}

/// The record with the envelope of a message as a unit.
#[derive(Debug, Clone, Copy, Default)]
struct UnitRecord {
    segment: u64,
    /// The version of the index at the time of the record.
    version: u64,
}

/// The index of the log.
#[derive(Debug, Default)]
pub(super) struct LogIndex {
    slots: BTreeMap<QueueId, IndexSlot>,
    /// The number of entries that need each segment.
    holds: BTreeMap<u64, u64>,
    /// The sizes of the segments in octets.
    segments: BTreeMap<u64, u64>,
    active: Option<u64>,
    version: u64,
    octets: u64,
    /// The number of entries that cannot be written.
    unwritable: usize,
}

impl Pending {
    pub(super) fn octets(&self) -> u64 {
        match self {
            Self::Message(message, parts) => {
                let content = match message.content {
                    HeldContent::Log { .. } => message.size,
                    HeldContent::BodyFile => 0,
                };
                content + message.envelope.json.len() as u64 + ROW + parts.octets()
            }
            Self::Envelope(change) => {
                let unit = change.unit.as_ref();
                unit.map_or(0, |unit| unit.json.len() as u64 + ROW) + change.parts.octets()
            }
            Self::Removed => 0,
        }
    }
}

impl HeldMessage {
    /// Returns the envelope with these parts.
    pub(super) fn read_envelope(&self, parts: &PendingParts) -> Result<Envelope, RowError> {
        let mut envelope = self.envelope.read()?;
        parts.merge(&mut envelope).map_err(RowError::Damage)?;
        Ok(envelope)
    }
}

impl EnvelopeChange {
    /// Makes the envelope of the database into the one that the message has.
    pub(super) fn apply(&self, envelope: &mut Envelope) -> Result<(), RowError> {
        if let Some(unit) = &self.unit {
            *envelope = unit.read()?;
        }
        self.parts.merge(envelope).map_err(RowError::Damage)
    }

    /// Returns the part of the change that came after this version of the index.
    fn since(&self, version: u64, unit: UnitRecord) -> Self {
        Self {
            unit: self.unit.clone().filter(|_| unit.version > version),
            parts: self.parts.since(version),
        }
    }

    /// Returns the oldest segment that is needed for the change.
    fn oldest_segment(&self, unit: UnitRecord) -> Option<u64> {
        let unit = self.unit.as_ref().map(|_| unit.segment);
        let parts = self.parts.oldest_segment();
        unit.into_iter().chain(parts).min()
    }
}

impl LogIndex {
    /// Returns the difference for one message; `None` if the database is right about it.
    pub(super) fn get(&self, id: QueueId) -> Option<&Pending> {
        self.slots.get(&id).map(|slot| &slot.pending)
    }

    /// Returns all differences after `after`, in the order of their ids.
    pub(super) fn after(
        &self,
        after: Option<QueueId>,
    ) -> impl Iterator<Item = (QueueId, &Pending)> {
        let slots = self.slots.iter();
        slots
            .skip_while(move |(id, _)| after.is_some_and(|after| **id <= after))
            .map(|(id, slot)| (*id, &slot.pending))
    }

    /// Returns whether there is nothing to move.
    pub(super) fn is_settled(&self) -> bool {
        self.slots.len() == self.unwritable
    }

    /// Returns the octets that the entries will need in the database.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Adds a new message whose record is in `segment`.
    pub(super) fn add(&mut self, id: QueueId, message: HeldMessage, segment: u64) {
        let pending = Pending::Message(Arc::new(message), PendingParts::default());
        self.put(id, pending, segment);
        self.set_unit(id, segment);
    }

    /// Adds a message of an earlier process, whose record is in `segment`. The database may have
    /// it, too.
    pub(super) fn add_found(&mut self, id: QueueId, message: HeldMessage, segment: u64) {
        self.add(id, message, segment);
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.may_be_stored = true;
        }
    }

    /// Replaces the envelope of a message that is in the queue. The record is in `segment`.
    pub(super) fn replace(&mut self, id: QueueId, envelope: EnvelopeText, segment: u64) {
        let slot = self.slots.get(&id);
        if let Some((Pending::Message(message, _), oldest)) =
            slot.map(|slot| (&slot.pending, slot.segment))
        {
            let message = HeldMessage {
                envelope,
                ..HeldMessage::clone(message)
            };
            let pending = Pending::Message(Arc::new(message), PendingParts::default());
            self.put(id, pending, oldest);
        } else {
            let change = EnvelopeChange {
                unit: Some(envelope),
                parts: PendingParts::default(),
            };
            self.put(id, Pending::Envelope(change), segment);
        }
        self.set_unit(id, segment);
    }

    /// Replaces parts of the envelope of a message that is in the queue. The record is in
    /// `segment`.
    pub(super) fn replace_parts(&mut self, id: QueueId, new: &[EnvelopePart], segment: u64) {
        // The one that `put` gives to the entry.
        let version = self.version + 1;
        match self.slots.get(&id).map(|slot| (slot, slot.pending.clone())) {
            Some((slot, Pending::Message(message, mut parts))) => {
                let oldest = slot.segment;
                parts.replace(new, segment, version);
                self.put(id, Pending::Message(message, parts), oldest);
            }
            Some((slot, Pending::Envelope(mut change))) => {
                change.parts.replace(new, segment, version);
                let oldest = change.oldest_segment(slot.unit).unwrap_or(segment);
                self.put(id, Pending::Envelope(change), oldest);
            }
            Some((_, Pending::Removed)) => {}
            None => {
                let mut parts = PendingParts::default();
                parts.replace(new, segment, version);
                let change = EnvelopeChange { unit: None, parts };
                self.put(id, Pending::Envelope(change), segment);
            }
        }
    }

    /// Removes a message. The record is in `segment`. Nothing remains of one that the database
    /// never had.
    pub(super) fn remove(&mut self, id: QueueId, segment: u64) {
        let is_only_here = self.slots.get(&id).is_some_and(|slot| {
            matches!(slot.pending, Pending::Message(..)) && !slot.is_moving && !slot.may_be_stored
        });
        if is_only_here {
            self.drop_slot(id);
        } else {
            self.put(id, Pending::Removed, segment);
        }
    }

    /// Removes a message, which the database may have. The record is in `segment`.
    pub(super) fn remove_everywhere(&mut self, id: QueueId, segment: u64) {
        self.put(id, Pending::Removed, segment);
    }

    /// Adds changes that the file of unwritten changes has. They are tried again.
    pub(super) fn add_kept(&mut self, id: QueueId, change: &KeptChange) {
        match change {
            KeptChange::Removed => self.remove_everywhere(id, UNLOGGED),
            KeptChange::Envelope { unit, parts } => {
                if let Some(unit) = unit {
                    self.replace(id, EnvelopeText::from_json(id, unit.clone()), UNLOGGED);
                }
                if !parts.is_empty() {
                    self.replace_parts(id, parts, UNLOGGED);
                }
            }
        }
    }

    /// Sets the difference for a message. `segment` is the oldest segment that is needed for it.
    fn put(&mut self, id: QueueId, pending: Pending, segment: u64) {
        self.version += 1;
        let before = self.slots.get(&id);
        let since = before.map_or_else(Instant::now, |slot| slot.since);
        let is_moving = before.is_some_and(|slot| slot.is_moving);
        let may_be_stored = before.is_some_and(|slot| slot.may_be_stored);
        let unit = before.map_or_else(UnitRecord::default, |slot| slot.unit);
        self.drop_slot(id);
        self.octets += pending.octets();
        *self.holds.entry(segment).or_default() += 1;
        let slot = IndexSlot {
            pending,
            segment,
            unit,
            since,
            version: self.version,
            is_moving,
            may_be_stored,
            is_unwritable: false,
        };
        self.slots.insert(id, slot);
    }

    /// Records that the latest record about a message, in `segment`, has its envelope as a unit.
    fn set_unit(&mut self, id: QueueId, segment: u64) {
        if let Some(slot) = self.slots.get_mut(&id) {
            let version = slot.version;
            slot.unit = UnitRecord { segment, version };
        }
    }

    fn drop_slot(&mut self, id: QueueId) {
        let Some(slot) = self.slots.remove(&id) else {
            return;
        };
        self.octets = self.octets.saturating_sub(slot.pending.octets());
        self.unwritable -= usize::from(slot.is_unwritable);
        if let Some(count) = self.holds.get_mut(&slot.segment) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(&slot.segment);
            }
        }
    }

    /// Returns the next differences for one transaction of at most about `octets`. They count as
    /// being moved until [`LogIndex::settle`].
    pub(super) fn take(&mut self, scope: MoveScope, octets: u64, count: usize) -> Vec<Move> {
        let active = self.active.unwrap_or(u64::MAX);
        let mut moves = Vec::new();
        let mut sum = 0;
        for (id, slot) in &mut self.slots {
            let is_due = match scope {
                MoveScope::Since(time) => time.is_some_and(|time| slot.since <= time),
                MoveScope::SealedSegments => slot.segment < active,
                MoveScope::All => true,
            };
            if slot.is_moving || slot.is_unwritable || !is_due {
                continue;
            }
            sum += slot.pending.octets();
            if !moves.is_empty() && (sum > octets || moves.len() >= count) {
                break;
            }
            slot.is_moving = true;
            moves.push(Move {
                id: *id,
                pending: slot.pending.clone(),
                is_kept: slot.segment == UNLOGGED,
                version: slot.version,
            });
        }
        moves
    }

    /// Records the end of moves. What changed meanwhile is now a difference to what was written.
    pub(super) fn settle(&mut self, moves: &[Move], end: MoveEnd) {
        for done in moves {
            let Some(slot) = self.slots.get_mut(&done.id) else {
                continue;
            };
            slot.is_moving = false;
            match end {
                MoveEnd::Written => {}
                MoveEnd::Unchanged => continue,
                MoveEnd::Uncertain => {
                    slot.may_be_stored = true;
                    continue;
                }
                MoveEnd::Kept => {
                    if slot.version == done.version {
                        self.keep_unwritable(done.id);
                    }
                    continue;
                }
            }
            if slot.version == done.version {
                self.drop_slot(done.id);
                continue;
            }
            let all = match &slot.pending {
                Pending::Message(message, parts) => EnvelopeChange {
                    unit: Some(message.envelope.clone()),
                    parts: parts.clone(),
                },
                Pending::Envelope(change) => change.clone(),
                Pending::Removed => continue,
            };
            let unit = slot.unit;
            let change = all.since(done.version, unit);
            self.drop_slot(done.id);
            if let Some(segment) = change.oldest_segment(unit) {
                self.put(done.id, Pending::Envelope(change), segment);
                if let Some(slot) = self.slots.get_mut(&done.id) {
                    slot.unit = unit;
                }
            }
        }
    }

    /// Keeps the difference for a message, which needs no segment and is not moved until it changes.
    fn keep_unwritable(&mut self, id: QueueId) {
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        let mut pending = slot.pending.clone();
        if let Pending::Envelope(change) = &mut pending {
            change.parts.set_segment(UNLOGGED);
        }
        self.put(id, pending, UNLOGGED);
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.unit.segment = UNLOGGED;
            slot.is_unwritable = true;
            self.unwritable += 1;
        }
    }

    /// Adds a segment to the log, and makes it the one that is written to.
    pub(super) fn begin_segment(&mut self, number: u64, size: u64) {
        self.segments.insert(number, size);
        self.active = Some(number);
    }

    /// Adds a segment that an earlier process left.
    pub(super) fn add_segment(&mut self, number: u64, size: u64) {
        self.segments.insert(number, size);
    }

    /// Records that nothing is written to the log any more.
    pub(super) fn end_segment(&mut self) {
        self.active = None;
    }

    /// Returns the oldest segment, if nothing needs it.
    pub(super) fn retirable(&self) -> Option<u64> {
        let oldest = *self.segments.keys().next()?;
        let needed = self.holds.keys().next().is_some_and(|held| *held <= oldest);
        (!needed && self.active != Some(oldest)).then_some(oldest)
    }

    /// Records that a segment is not in the log any more.
    pub(super) fn retire_segment(&mut self, number: u64) {
        self.segments.remove(&number);
    }

    /// Returns whether the log has a segment besides the one that is written to, so that the mover
    /// can make room.
    pub(super) fn can_shrink(&self) -> bool {
        self.segments
            .keys()
            .any(|segment| self.active != Some(*segment))
    }

    /// Returns the numbers of the segments of the log.
    pub(super) fn segment_numbers(&self) -> impl Iterator<Item = u64> {
        self.segments.keys().copied()
    }

    /// Returns the number of segments of the log.
    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Returns the size of the log in octets.
    pub(super) fn log_octets(&self) -> u64 {
        self.segments.values().sum()
    }
}

#[cfg(test)]
mod tests;
