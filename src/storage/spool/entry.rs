//! A message in the spool, with its content.

use bytes::Bytes;
use jiff::Timestamp;

use super::body::Body;
use super::message::StoredMessage;
use crate::smtp::envelope::{Envelope, QueueId};

/// A message in the spool, with its content.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The queue id.
    pub id: QueueId,
    /// The time at which the message was accepted.
    pub accepted: Timestamp,
    /// The envelope, with the state of each recipient.
    pub envelope: Envelope,
    /// The size of the content in octets.
    pub size: u64,
    /// The content.
    pub body: Body,
}

impl StoredMessage {
    /// Returns the entry of a message whose content cannot be read, with no content.
    #[must_use]
    pub fn without_content(self) -> Entry {
        let Self {
            id,
            accepted,
            envelope,
            size,
        } = self;
        Entry {
            id,
            accepted,
            envelope,
            size,
            body: Body::Memory(Bytes::new()),
        }
    }
}
