//! The log of the spool: what is accepted and what becomes of it, in the order in which it became
//! durable.
//!
//! The log is a sequence of segments, files of a fixed size in the folder `log`. A batch is one
//! contiguous write with one sync; it counts as a unit or not at all. The space of a segment is
//! allocated before its first batch, so an append changes no metadata of the file.
//!
//! - `frame` is the form of a segment: its header and the checksums that tell its records from
//!   the rest of a file that was used before.
//! - `record` is the form of one record.
//! - `batch` encodes batches and [`recover`] reads a segment back. Both work on octets alone.
//! - `segment` is the segment that is being written, `contents` reads the contents of messages, and
//!   `folder` is the folder of all segments.
//!
//! Nothing here knows the queue. What works on files blocks.

mod batch;
mod contents;
mod folder;
mod frame;
mod record;
mod recover;
mod segment;
#[cfg(test)]
mod tests;

pub use batch::BatchEncoder;
pub use contents::SegmentReader;
pub use folder::LogFolder;
pub use frame::{DATA_START, HeaderFault, SegmentHeader};
pub use record::{ContentPlace, EnvelopePart, LogRecord, LoggedMessage, PartPlace};
pub use recover::{LogDamage, PlacedRecord, RecoveredSegment, recover};
pub use segment::{AppendError, SegmentFile};
