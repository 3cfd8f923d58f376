//! Encodes a batch: its records, and the frame that ends it.
//!
//! The end names the start of the batch and the number of its records. A batch whose end, or any
//! record of which, is not there never became durable.

use super::frame::{SegmentHeader, frame_len, long_at, number_at, push};
use super::record::{BATCH_END, LogRecord};

/// The length in octets of the end of a batch without its frame.
const END: usize = 16;

/// A batch that is being encoded for one place in one segment.
#[derive(Debug)]
pub struct BatchEncoder {
    segment: SegmentHeader,
    start: u64,
    octets: Vec<u8>,
    count: u32,
}

/// The end of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchEnd {
    pub(super) start: u64,
    pub(super) count: u32,
}

impl BatchEncoder {
    /// Starts a batch at the offset `start` of a segment. `buffer` is used for its octets.
    #[must_use]
    pub fn new(segment: SegmentHeader, start: u64, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self {
            segment,
            start,
            octets: buffer,
            count: 0,
        }
    }

    /// Returns the number of octets that a record needs in a batch.
    #[must_use]
    pub fn octets_of(record: &LogRecord) -> u64 {
        let (head, tail) = record.lengths();
        frame_len(head, tail) as u64
    }

    /// Returns the number of octets that a batch needs besides its records.
    #[must_use]
    pub fn overhead() -> u64 {
        frame_len(END, 0) as u64
    }

    /// Appends a record. Returns the offset in the segment at which its content will stand, and
    /// `None` if the record is too large for any batch.
    #[must_use]
    pub fn push(&mut self, record: &LogRecord) -> Option<u64> {
        let (head, tail) = record.encode();
        let offset = self.start + self.octets.len() as u64;
        push(
            &mut self.octets,
            &self.segment,
            offset,
            record.kind(),
            &head,
            tail,
        )?;
        self.count += 1;
        Some(offset + (super::frame::FRAME_HEADER + head.len()) as u64)
    }

    /// Returns the offset in the segment at which the batch starts.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Ends the batch and returns its octets, for one write at its start.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let mut end = Vec::with_capacity(END);
        end.extend_from_slice(&self.start.to_le_bytes());
        end.extend_from_slice(&self.count.to_le_bytes());
        end.extend_from_slice(&0_u32.to_le_bytes());
        let offset = self.start + self.octets.len() as u64;
        // An end is small, so it always fits a frame.
        let _fits = push(
            &mut self.octets,
            &self.segment,
            offset,
            BATCH_END,
            &end,
            &[],
        );
        self.octets
    }
}

impl BatchEnd {
    pub(super) fn decode(head: &[u8]) -> Option<Self> {
        Some(Self {
            start: long_at(head, 0)?,
            count: number_at(head, 8)?,
        })
    }
}
