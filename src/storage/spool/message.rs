//! A message in the spool, without its content.

use jiff::Timestamp;

use crate::smtp::envelope::{Envelope, QueueId};

/// A message in the spool, without its content.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// The queue id.
    pub id: QueueId,
    /// The time at which the message was accepted.
    pub accepted: Timestamp,
    /// The envelope, with the state of each recipient.
    pub envelope: Envelope,
    /// The size of the content in octets.
    pub size: u64,
}
