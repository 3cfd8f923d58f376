//! The form of one record: a message, its new envelope, parts of that, or its removal.
//!
//! An envelope is an octet with the version of its codec, and then its octets. Version 1 is JSON,
//! as in the database.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::frame::{Frame, long_at, number_at};
use crate::smtp::envelope::QueueId;

/// The version of the envelope codec that this program writes: JSON.
const JSON: u8 = 1;

const MESSAGE: u32 = 1;
const ENVELOPE: u32 = 2;
const REMOVED: u32 = 3;
const PARTS: u32 = 5;
/// The kind of the frame that ends a batch.
pub(super) const BATCH_END: u32 = 4;

/// The value of a message's content place if the content follows its head.
const INLINE: u8 = 0;
/// The value of a message's content place if the content is in a file of its own.
const IN_BODY_FILE: u8 = 1;
/// The octets before the JSON of a part.
const PART_HEAD: usize = 8;
/// The octets before the envelope of a message.
const FIXED: usize = 32;

/// A record of the log. It says everything about its subject, or about a part of it, so that to
/// apply it twice, or to apply later ones alone, has the same result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRecord {
    /// A message was accepted.
    Message(LoggedMessage),
    /// The envelope of a message was replaced.
    Envelope {
        /// The queue id of the message.
        id: QueueId,
        /// The new envelope as JSON.
        envelope: Arc<str>,
    },
    /// Parts of the envelope of a message were replaced.
    Parts {
        /// The queue id of the message.
        id: QueueId,
        /// The new parts.
        parts: Vec<EnvelopePart>,
    },
    /// A message was removed from the queue.
    Removed {
        /// The queue id of the message.
        id: QueueId,
    },
}

/// A part of an envelope in its stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopePart {
    /// The place of the part in the envelope.
    pub place: PartPlace,
    /// The part as JSON.
    pub json: Arc<str>,
}

/// The place of a part in an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartPlace {
    /// Everything but the recipients.
    Message,
    /// The state of the recipient with this index.
    Recipient(u32),
}

/// A message as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedMessage {
    /// The queue id.
    pub id: QueueId,
    /// The time at which the message was accepted, in milliseconds since 1970.
    pub accepted: i64,
    /// The size of the content in octets.
    pub size: u64,
    /// The CRC-32 of the content.
    pub content_crc: u32,
    /// The envelope as JSON.
    pub envelope: Arc<str>,
    /// The place of the content.
    pub content: ContentPlace,
}

/// The place of a message's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentPlace {
    /// The octets themselves, in a message that is to be written.
    Here(Bytes),
    /// The offset of the octets in the segment, in a message that was read back.
    At(u64),
    /// A file of its own in the folder of bodies.
    BodyFile,
}

impl LogRecord {
    /// Returns the queue id of the message that the record is about.
    #[must_use]
    pub fn id(&self) -> QueueId {
        match self {
            Self::Message(message) => message.id,
            Self::Envelope { id, .. } | Self::Parts { id, .. } | Self::Removed { id } => *id,
        }
    }

    /// Returns the kind of the record's frame.
    pub(super) fn kind(&self) -> u32 {
        match self {
            Self::Message(_) => MESSAGE,
            Self::Envelope { .. } => ENVELOPE,
            Self::Parts { .. } => PARTS,
            Self::Removed { .. } => REMOVED,
        }
    }

    /// Returns the lengths of the head and of the tail in octets.
    pub(super) fn lengths(&self) -> (usize, usize) {
        match self {
            Self::Message(message) => (
                FIXED + 1 + message.envelope.len(),
                message.content.octets().len(),
            ),
            Self::Envelope { envelope, .. } => (8 + 1 + envelope.len(), 0),
            Self::Parts { parts, .. } => {
                let octets = parts.iter().map(|part| PART_HEAD + part.json.len());
                (8 + 1 + octets.sum::<usize>(), 0)
            }
            Self::Removed { .. } => (8, 0),
        }
    }

    /// Returns the head, and the content that follows it.
    pub(super) fn encode(&self) -> (Vec<u8>, &[u8]) {
        let mut head = Vec::with_capacity(self.lengths().0);
        head.extend_from_slice(&self.id().number().to_le_bytes());
        match self {
            Self::Message(message) => {
                head.extend_from_slice(&message.accepted.to_le_bytes());
                head.extend_from_slice(&message.size.to_le_bytes());
                head.extend_from_slice(&message.content_crc.to_le_bytes());
                let place = match message.content {
                    ContentPlace::Here(_) | ContentPlace::At(_) => INLINE,
                    ContentPlace::BodyFile => IN_BODY_FILE,
                };
                head.extend_from_slice(&[place, 0, 0, 0, JSON]);
                head.extend_from_slice(message.envelope.as_bytes());
                (head, message.content.octets())
            }
            Self::Envelope { envelope, .. } => {
                head.push(JSON);
                head.extend_from_slice(envelope.as_bytes());
                (head, &[])
            }
            Self::Parts { parts, .. } => {
                head.push(JSON);
                for part in parts {
                    // A frame with a part of 4 GiB does not fit a batch.
                    let length = u32::try_from(part.json.len()).unwrap_or(u32::MAX);
                    head.extend_from_slice(&part.place.number().to_le_bytes());
                    head.extend_from_slice(&length.to_le_bytes());
                    head.extend_from_slice(part.json.as_bytes());
                }
                (head, &[])
            }
            Self::Removed { .. } => (head, &[]),
        }
    }

    /// Returns the record in a frame with a sound head. `None`: this program does not know its
    /// form.
    pub(super) fn decode(frame: &Frame<'_>) -> Option<Self> {
        let head = frame.head;
        let id = subject(head)?;
        match frame.kind {
            MESSAGE => {
                let accepted = i64::from_le_bytes(head.get(8..16)?.try_into().ok()?);
                Timestamp::from_millisecond(accepted).ok()?;
                let content = match *head.get(28)? {
                    INLINE => ContentPlace::At(frame.tail_at),
                    IN_BODY_FILE => ContentPlace::BodyFile,
                    _ => return None,
                };
                Some(Self::Message(LoggedMessage {
                    id,
                    accepted,
                    size: long_at(head, 16)?,
                    content_crc: number_at(head, 24)?,
                    envelope: envelope(head.get(FIXED..)?)?,
                    content,
                }))
            }
            ENVELOPE => Some(Self::Envelope {
                id,
                envelope: envelope(head.get(8..)?)?,
            }),
            PARTS => Some(Self::Parts {
                id,
                parts: parts(head.get(8..)?)?,
            }),
            REMOVED => Some(Self::Removed { id }),
            _ => None,
        }
    }

    /// Returns whether the content that stands in the frame is the one that was written.
    pub(super) fn has_sound_content(&self, frame: &Frame<'_>) -> bool {
        match self {
            Self::Message(message) => match message.content {
                ContentPlace::BodyFile => true,
                ContentPlace::Here(_) | ContentPlace::At(_) => {
                    frame.tail.len() as u64 == message.size
                        && crc32fast::hash(frame.tail) == message.content_crc
                }
            },
            Self::Envelope { .. } | Self::Parts { .. } | Self::Removed { .. } => true,
        }
    }
}

impl ContentPlace {
    fn octets(&self) -> &[u8] {
        match self {
            Self::Here(octets) => octets,
            Self::At(_) | Self::BodyFile => &[],
        }
    }
}

/// Returns the queue id at the start of a head, which may be damaged.
pub(super) fn subject(head: &[u8]) -> Option<QueueId> {
    QueueId::from_number(long_at(head, 0)?)
}

impl PartPlace {
    fn number(self) -> u32 {
        match self {
            Self::Message => u32::MAX,
            Self::Recipient(at) => at,
        }
    }

    fn of_number(number: u32) -> Self {
        if number == u32::MAX {
            Self::Message
        } else {
            Self::Recipient(number)
        }
    }
}

fn parts(octets: &[u8]) -> Option<Vec<EnvelopePart>> {
    let (version, mut octets) = octets.split_first()?;
    if *version != JSON {
        return None;
    }
    let mut parts = Vec::new();
    while !octets.is_empty() {
        let place = PartPlace::of_number(number_at(octets, 0)?);
        let length = usize::try_from(number_at(octets, 4)?).ok()?;
        let (json, others) = octets.get(PART_HEAD..)?.split_at_checked(length)?;
        let json = Arc::from(std::str::from_utf8(json).ok()?);
        parts.push(EnvelopePart { place, json });
        octets = others;
    }
    Some(parts)
}

fn envelope(octets: &[u8]) -> Option<Arc<str>> {
    let (version, json) = octets.split_first()?;
    let json = std::str::from_utf8(json).ok()?;
    (*version == JSON).then(|| Arc::from(json))
}
