//! The form of a segment: a header, then frames, each with one record.
//!
//! A frame has its own small header with a checksum, so that a scan can look for the next frame
//! after damage without reading much. The checksums include the number of the segment, a random
//! salt and the offset in the file. So neither octets of the file's earlier use nor a message whose
//! content imitates a frame are ever accepted as a record.

use crc32fast::Hasher;

/// The offset of the first frame in a segment. The header has this block for itself.
pub const DATA_START: u64 = 4096;
/// The version of the form that this program writes. It reads all from [`FIRST_FORM`] on.
const FORM: u32 = 2;
/// The first version of the form. It had no records of parts.
const FIRST_FORM: u32 = 1;
const MAGIC: &[u8; 8] = b"GPSTLOG\n";
/// The octets of the header that are used.
const HEADER: usize = 48;

/// The first octets of each frame.
pub(super) const MARKER: u32 = 0x5350_4721;
/// The size of a frame's own header in octets.
pub(super) const FRAME_HEADER: usize = 24;
/// The alignment of frames in octets.
pub(super) const ALIGN: usize = 8;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The number of the segment. Each is greater than all before it.
    pub number: u64,
    /// A random number that the checksums of the segment include.
    pub salt: u64,
    /// The end of the last batch in the segment before, as an offset in that file; 0 if there was
    /// none. It shows whether batches are missing there.
    pub previous_end: u64,
}

/// The reason why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// The file has no sound header.
    #[error("its header is damaged")]
    Damaged,
    /// The segment has a form that this program does not know.
    #[error(
        "it has form {0}, and this gatepost reads forms 1 and 2; run the newer gatepost that wrote it"
    )]
    OtherForm(u32),
}

impl SegmentHeader {
    /// Returns the header as it is written to the start of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(HEADER);
        octets.extend_from_slice(MAGIC);
        octets.extend_from_slice(&FORM.to_le_bytes());
        octets.extend_from_slice(&0_u32.to_le_bytes());
        for value in [self.number, self.salt, self.previous_end] {
            octets.extend_from_slice(&value.to_le_bytes());
        }
        let crc = crc32fast::hash(&octets);
        octets.extend_from_slice(&crc.to_le_bytes());
        octets.resize(HEADER, 0);
        octets
    }

    /// Reads the header at the start of a segment.
    ///
    /// # Errors
    /// [`HeaderFault`].
    pub fn decode(octets: &[u8]) -> Result<Self, HeaderFault> {
        let crc = number_at(octets, 40).ok_or(HeaderFault::Damaged)?;
        if !octets.starts_with(MAGIC) || crc32fast::hash(&octets[..40]) != crc {
            return Err(HeaderFault::Damaged);
        }
        let form = number_at(octets, 8).ok_or(HeaderFault::Damaged)?;
        if !(FIRST_FORM..=FORM).contains(&form) {
            return Err(HeaderFault::OtherForm(form));
        }
        let long = |at| long_at(octets, at).ok_or(HeaderFault::Damaged);
        Ok(Self {
            number: long(16)?,
            salt: long(24)?,
            previous_end: long(32)?,
        })
    }

    fn frame_crc(&self, offset: u64, header: &[u8]) -> u32 {
        let mut crc = Hasher::new();
        crc.update(&self.salt.to_le_bytes());
        crc.update(&self.number.to_le_bytes());
        crc.update(&offset.to_le_bytes());
        crc.update(header);
        crc.finalize()
    }

    fn head_crc(&self, offset: u64, head: &[u8]) -> u32 {
        let mut crc = Hasher::new();
        crc.update(&offset.to_le_bytes());
        crc.update(&self.salt.rotate_left(32).to_le_bytes());
        crc.update(head);
        crc.finalize()
    }
}

/// A frame in the octets of a segment. Its own header is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u32,
    /// The part of the record with a checksum in the frame.
    pub(super) head: &'a [u8],
    /// The part whose checksum the head has: the content of a message.
    pub(super) tail: &'a [u8],
    /// True if the head has the checksum stored with it.
    pub(super) is_sound: bool,
    /// The offset of the tail in the segment.
    pub(super) tail_at: u64,
    /// The offset of the next frame.
    pub(super) next: u64,
}

/// Returns the number of octets of a frame, with its padding.
pub(super) fn frame_len(head: usize, tail: usize) -> usize {
    (FRAME_HEADER + head + tail).next_multiple_of(ALIGN)
}

/// Appends a frame to `octets`. It will stand at `offset` in the segment.
///
/// Returns `None`, and appends nothing, if a part is 4 GiB or more.
pub(super) fn push(
    octets: &mut Vec<u8>,
    segment: &SegmentHeader,
    offset: u64,
    kind: u32,
    head: &[u8],
    tail: &[u8],
) -> Option<()> {
    let lengths = (
        u32::try_from(head.len()).ok()?,
        u32::try_from(tail.len()).ok()?,
    );
    let start = octets.len();
    let head_crc = segment.head_crc(offset, head);
    for value in [MARKER, kind, lengths.0, lengths.1, head_crc] {
        octets.extend_from_slice(&value.to_le_bytes());
    }
    let crc = segment.frame_crc(offset, &octets[start..]);
    octets.extend_from_slice(&crc.to_le_bytes());
    octets.extend_from_slice(head);
    octets.extend_from_slice(tail);
    octets.resize(start + frame_len(head.len(), tail.len()), 0);
    Some(())
}

/// Returns the frame at `offset`, if there is one.
pub(super) fn frame_at<'a>(
    octets: &'a [u8],
    segment: &SegmentHeader,
    offset: u64,
) -> Option<Frame<'a>> {
    let at = usize::try_from(offset).ok()?;
    let found = octets.get(at..)?;
    if number_at(found, 0)? != MARKER {
        return None;
    }
    let header = found.get(..FRAME_HEADER)?;
    if number_at(header, 20)? != segment.frame_crc(offset, &header[..20]) {
        return None;
    }
    let length = |at| number_at(header, at).and_then(|length| usize::try_from(length).ok());
    let (head, tail) = (length(8)?, length(12)?);
    let middle = FRAME_HEADER.checked_add(head)?;
    let end = middle.checked_add(tail)?;
    let (head, tail) = (found.get(FRAME_HEADER..middle)?, found.get(middle..end)?);
    let is_sound = number_at(header, 16)? == segment.head_crc(offset, head);
    let length = frame_len(head.len(), tail.len());
    Some(Frame {
        kind: number_at(header, 4)?,
        head,
        tail,
        is_sound,
        tail_at: offset + middle as u64,
        next: offset + length as u64,
    })
}

/// Returns the number of four octets at `at`.
pub(super) fn number_at(octets: &[u8], at: usize) -> Option<u32> {
    let octets = octets.get(at..at.checked_add(4)?)?;
    octets.try_into().ok().map(u32::from_le_bytes)
}

/// Returns the number of eight octets at `at`.
pub(super) fn long_at(octets: &[u8], at: usize) -> Option<u64> {
    let octets = octets.get(at..at.checked_add(8)?)?;
    octets.try_into().ok().map(u64::from_le_bytes)
}
