//! Reads a segment back from its octets.
//!
//! A batch counts only if all of it is there. Where it is not, the reason may be a crash in the
//! middle of the write, which nobody was ever given a receipt for, or damage to a batch that was
//! durable. It is damage if a complete batch follows, or if the next segment says that the log
//! reached further: the log is written in order, and each batch is synced before the next. Then the
//! records that are sound still count, and the octets that are not are reported. A block that the disk
//! cannot read is damage as well: it was readable when it was written.

use std::ops::Range;

use super::batch::BatchEnd;
use super::frame::{ALIGN, DATA_START, FRAME_HEADER, Frame, MARKER, SegmentHeader, frame_at};
use super::record::{BATCH_END, LogRecord, subject};
use crate::smtp::envelope::QueueId;

/// A record at its place in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedRecord {
    /// The offset of the record's frame in the segment.
    pub offset: u64,
    /// The record.
    pub record: LogRecord,
}

/// Octets of a segment that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDamage {
    /// The offset of the first octet.
    pub from: u64,
    /// The offset after the last octet.
    pub to: u64,
    /// The queue id of the message that they were about, if that can be read. It may be wrong.
    pub id: Option<QueueId>,
}

/// The contents of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveredSegment {
    /// The records that count, in the order in which they were written. The content of a message
    /// may be damaged: its checksum shows that.
    pub records: Vec<PlacedRecord>,
    /// The damage.
    pub damage: Vec<LogDamage>,
    /// The offset after the last batch that counts.
    pub end: u64,
    /// The number of octets after `end` that belong to a batch which never became durable.
    pub torn: u64,
}

/// The part of the segment after the last batch that counts.
#[derive(Debug, Default)]
struct Doubtful {
    records: Vec<PlacedRecord>,
    damage: Vec<LogDamage>,
    /// The offsets of messages whose content is damaged.
    bad_content: Vec<u64>,
}

/// Reads a segment. `octets` is all of its file and `header` its header. `reached` is the end of
/// this segment as the next one has it in its header, if there is one. The places in `unreadable`, in
/// their order, are zero in `octets`, since the disk cannot read them.
#[must_use]
pub fn recover(
    octets: &[u8],
    header: &SegmentHeader,
    reached: Option<u64>,
    unreadable: &[Range<u64>],
) -> RecoveredSegment {
    let mut recovered = RecoveredSegment {
        end: DATA_START,
        ..RecoveredSegment::default()
    };
    let mut reached = reached.unwrap_or(0);
    let (mut doubtful, mut at) = (Doubtful::default(), DATA_START);
    loop {
        let Some(frame) = frame_at(octets, header, at) else {
            let next = next_frame(octets, header, at);
            let to = next.unwrap_or_else(|| reached.max(end_of_unreadable(unreadable, at)));
            if to > at {
                doubtful.lose(at, to, None);
            }
            let Some(next) = next else { break };
            at = next;
            continue;
        };
        if frame.kind == BATCH_END {
            let end = BatchEnd::decode(frame.head).filter(|_| frame.is_sound);
            if end.is_some_and(|end| doubtful.ends_with(end)) {
                recovered.accept(std::mem::take(&mut doubtful));
                recovered.end = frame.next;
            }
        } else {
            doubtful.add(&frame, at);
        }
        at = frame.next;
    }
    let is_unread =
        |place: &Range<u64>| place.end > recovered.end && place.start < at + FRAME_HEADER as u64;
    if unreadable.iter().any(is_unread) {
        reached = reached.max(at).max(end_of_unreadable(unreadable, at));
    }
    if reached > recovered.end {
        doubtful.cut(reached);
        recovered.accept(doubtful);
        recovered.end = reached;
    }
    recovered.torn = at.saturating_sub(recovered.end);
    recovered
}

/// Returns the end of the place that cannot be read in which a frame at `at` would begin; 0 if there
/// is none.
fn end_of_unreadable(unreadable: &[Range<u64>], at: u64) -> u64 {
    let header = at..at + FRAME_HEADER as u64;
    let mut places = unreadable.iter();
    places
        .find(|place| place.start < header.end && place.end > header.start)
        .map_or(0, |place| place.end)
}

/// Returns the offset of the next frame after `at`.
fn next_frame(octets: &[u8], header: &SegmentHeader, at: u64) -> Option<u64> {
    let first = usize::try_from(at).ok()?.checked_add(ALIGN)?;
    // Most of a segment is unused space, which is searched fastest by the marker.
    memchr::memmem::find_iter(octets.get(first..)?, &MARKER.to_le_bytes())
        .map(|found| first + found)
        .filter(|offset| offset % ALIGN == 0)
        .map(|offset| offset as u64)
        .find(|offset| frame_at(octets, header, *offset).is_some())
}

impl Doubtful {
    fn add(&mut self, frame: &Frame<'_>, at: u64) {
        let record = frame.is_sound.then(|| LogRecord::decode(frame)).flatten();
        let Some(record) = record else {
            self.lose(at, frame.next, subject(frame.head));
            return;
        };
        if !record.has_sound_content(frame) {
            self.bad_content.push(at);
        }
        self.records.push(PlacedRecord { offset: at, record });
    }

    fn lose(&mut self, from: u64, to: u64, id: Option<QueueId>) {
        self.damage.push(LogDamage { from, to, id });
    }

    /// Returns whether the last records are the complete batch that this is the end of.
    fn ends_with(&self, end: BatchEnd) -> bool {
        let records = self.records.iter().rev();
        let count = records
            .take_while(|placed| placed.offset >= end.start)
            .count();
        u32::try_from(count) == Ok(end.count)
            && self.damage.iter().all(|damage| damage.to <= end.start)
            && self.bad_content.iter().all(|offset| *offset < end.start)
    }

    /// Leaves out what lies after the offset that the log reached.
    fn cut(&mut self, reached: u64) {
        self.records.retain(|placed| placed.offset < reached);
        self.damage.retain(|damage| damage.from < reached);
        for damage in &mut self.damage {
            damage.to = damage.to.min(reached);
        }
    }
}

impl RecoveredSegment {
    fn accept(&mut self, doubtful: Doubtful) {
        self.records.extend(doubtful.records);
        self.damage.extend(doubtful.damage);
    }
}
