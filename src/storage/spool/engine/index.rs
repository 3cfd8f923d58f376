//! The index of the log: the part of the queue that the log has and the database does not have yet.
//!
//! A message is in the index from its commit until it is removed, or until the mover has written it
//! to the database. A change to a message of the database is in the index until the mover has
//! applied it. The index also knows which segments of the log are still needed. Its size is bounded
//! by the size of the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::super::log::LoggedMessage;
use super::row::EnvelopeText;
use crate::smtp::envelope::QueueId;

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
    pub(super) fn new(
        logged: &LoggedMessage,
        envelope: EnvelopeText,
        content: HeldContent,
    ) -> Self {
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
    /// The message is not in the database.
    Message(Arc<HeldMessage>),
    /// The message has this envelope, and another in the database.
    Envelope(EnvelopeText),
    /// The message is not in the queue any more.
    Removed,
}

/// A difference that the mover applies to the database.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) id: QueueId,
    pub(super) pending: Pending,
    version: u64,
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
    /// The segment of the latest record.
    latest: u64,
    since: Instant,
    version: u64,
    /// True while the mover writes an earlier version of it to the database.
    is_moving: bool,
    /// True if the database may have the message although the log alone is known to: a move may
    /// have failed halfway, or an earlier process may have moved it there and have ended before its
    /// segment was removed.
    may_be_stored: bool,
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
}

impl Pending {
    fn octets(&self) -> u64 {
        match self {
            Self::Message(message) => {
                let content = match message.content {
                    HeldContent::Log { .. } => message.size,
                    HeldContent::BodyFile => 0,
                };
                content + message.envelope.json.len() as u64 + ROW
            }
            Self::Envelope(envelope) => envelope.json.len() as u64 + ROW,
            Self::Removed => 0,
        }
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

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the octets that the entries will need in the database.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Adds a new message whose record is in `segment`.
    pub(super) fn add(&mut self, id: QueueId, message: HeldMessage, segment: u64) {
        self.put(id, Pending::Message(Arc::new(message)), segment, segment);
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
        match self
            .slots
            .get(&id)
            .map(|slot| (&slot.pending, slot.segment))
        {
            Some((Pending::Message(message), oldest)) => {
                let message = HeldMessage {
                    envelope,
                    ..HeldMessage::clone(message)
                };
                self.put(id, Pending::Message(Arc::new(message)), oldest, segment);
            }
            _ => self.put(id, Pending::Envelope(envelope), segment, segment),
        }
    }

    /// Removes a message. The record is in `segment`. Nothing remains of one that the database
    /// never had.
    pub(super) fn remove(&mut self, id: QueueId, segment: u64) {
        let is_only_here = self.slots.get(&id).is_some_and(|slot| {
            matches!(slot.pending, Pending::Message(_)) && !slot.is_moving && !slot.may_be_stored
        });
        if is_only_here {
            self.drop_slot(id);
        } else {
            self.put(id, Pending::Removed, segment, segment);
        }
    }

    /// Removes a message, which the database may have. The record is in `segment`.
    pub(super) fn remove_everywhere(&mut self, id: QueueId, segment: u64) {
        self.put(id, Pending::Removed, segment, segment);
    }

    fn put(&mut self, id: QueueId, pending: Pending, segment: u64, latest: u64) {
        self.version += 1;
        let before = self.slots.get(&id);
        let since = before.map_or_else(Instant::now, |slot| slot.since);
        let is_moving = before.is_some_and(|slot| slot.is_moving);
        let may_be_stored = before.is_some_and(|slot| slot.may_be_stored);
        self.drop_slot(id);
        self.octets += pending.octets();
        *self.holds.entry(segment).or_default() += 1;
        let slot = IndexSlot {
            pending,
            segment,
            latest,
            since,
            version: self.version,
            is_moving,
            may_be_stored,
        };
        self.slots.insert(id, slot);
    }

    fn drop_slot(&mut self, id: QueueId) {
        let Some(slot) = self.slots.remove(&id) else {
            return;
        };
        self.octets = self.octets.saturating_sub(slot.pending.octets());
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
            if slot.is_moving || !is_due {
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
                version: slot.version,
            });
        }
        moves
    }

    /// Records that the differences are durably in the database, or (`false`) that they could not
    /// be written. What changed meanwhile is now a difference to what was written.
    pub(super) fn settle(&mut self, moves: &[Move], is_written: bool) {
        for done in moves {
            let Some(slot) = self.slots.get_mut(&done.id) else {
                continue;
            };
            slot.is_moving = false;
            if !is_written {
                slot.may_be_stored = true;
                continue;
            }
            if slot.version == done.version {
                self.drop_slot(done.id);
            } else if let Pending::Message(message) = &slot.pending {
                let (envelope, latest) = (message.envelope.clone(), slot.latest);
                self.put(done.id, Pending::Envelope(envelope), latest, latest);
            }
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

    /// Returns the size of the log in octets.
    pub(super) fn log_octets(&self) -> u64 {
        self.segments.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> QueueId {
        QueueId::from_number(number).expect("small")
    }

    fn text(json: &str) -> EnvelopeText {
        EnvelopeText::from_json(id(1), json.into())
    }

    fn held(segment: u64) -> HeldMessage {
        HeldMessage {
            accepted: 0,
            size: 100,
            content_crc: 0,
            envelope: text("first"),
            content: HeldContent::Log { segment, offset: 0 },
        }
    }

    fn index(segments: u64) -> LogIndex {
        let mut index = LogIndex::default();
        for number in 1..=segments {
            index.begin_segment(number, 10);
        }
        index
    }

    /// A message that came and went leaves nothing to do, and frees its segment.
    #[test]
    fn a_removed_message_needs_no_segment() {
        let mut index = index(2);
        index.add(id(1), held(1), 1);
        index.replace(id(1), text("second"), 2);
        assert_eq!((index.retirable(), index.octets() > 0), (None, true));
        index.remove(id(1), 2);
        assert!(index.is_empty());
        assert_eq!((index.retirable(), index.octets()), (Some(1), 0));
        index.retire_segment(1);
        assert_eq!(index.retirable(), None, "the active one stays");
    }

    /// A crash can come between the move of a message to the database and the removal of its
    /// segment. Its removal must reach the database, or the next start delivers it again.
    #[test]
    fn the_removal_of_a_message_of_an_earlier_process_reaches_the_database() {
        let mut index = index(2);
        index.add_found(id(1), held(1), 1);
        index.replace(id(1), text("second"), 2);
        index.remove(id(1), 2);
        assert!(matches!(index.get(id(1)), Some(Pending::Removed)));
    }

    /// Segments leave the log in their order, so that a removal outlives the message.
    #[test]
    fn a_segment_waits_for_the_older_ones() {
        let mut index = index(3);
        index.add(id(1), held(1), 1);
        index.add(id(2), held(2), 2);
        index.remove(id(2), 3);
        assert_eq!(index.retirable(), None);
        let moves = index.take(MoveScope::SealedSegments, 10_000, 10);
        index.settle(&moves, true);
        assert_eq!(index.retirable(), Some(1));
    }

    /// Whatever happens to a message while it is being moved is a difference to the database
    /// afterwards.
    #[test]
    fn changes_during_a_move_are_kept() {
        let mut index = index(2);
        for number in [1, 2, 3] {
            index.add(id(number), held(1), 1);
        }
        let moves = index.take(MoveScope::All, 10_000, 10);
        assert_eq!(moves.len(), 3);
        assert!(index.take(MoveScope::All, 10_000, 10).is_empty());
        index.replace(id(1), text("second"), 2);
        index.remove(id(2), 2);
        index.settle(&moves, true);
        assert!(matches!(index.get(id(1)), Some(Pending::Envelope(new)) if &*new.json == "second"));
        assert!(matches!(index.get(id(2)), Some(Pending::Removed)));
        assert!(index.get(id(3)).is_none());
        assert_eq!(index.retirable(), Some(1));
    }

    /// A move that failed changes nothing, and is tried again.
    #[test]
    fn a_failed_move_is_repeated() {
        let mut index = index(1);
        index.add(id(1), held(1), 1);
        let moves = index.take(MoveScope::All, 10_000, 10);
        index.settle(&moves, false);
        assert!(matches!(index.get(id(1)), Some(Pending::Message(_))));
        assert_eq!(index.take(MoveScope::All, 10_000, 10).len(), 1);
    }

    /// A transaction has a bounded size, but always at least one entry.
    #[test]
    fn a_transaction_is_bounded() {
        let mut index = index(1);
        for number in 1..=5 {
            index.add(id(number), held(1), 1);
        }
        assert_eq!(index.take(MoveScope::All, 10_000, 2).len(), 2);
        assert_eq!(index.take(MoveScope::All, 1, 10).len(), 1);
    }
}
