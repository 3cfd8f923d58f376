//! Queries for the status of messages that only the scheduler knows: running jobs, and destinations
//! in backoff.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::smtp::address::Host;
use crate::smtp::envelope::{AttemptFailure, QueueId, TlsRequirement};
use crate::storage::spool::ClockJumps;

/// The status of several messages at one moment.
#[derive(Debug)]
pub struct StatusReply {
    pub(super) clock_jumps: ClockJumps,
    /// The status of each message of the query, in the same order.
    pub messages: Vec<MessageStatus>,
}

impl StatusReply {
    /// Returns the time at which a message accepted at `accepted` expires for the last of the recipient
    /// domains that its status was asked for.
    #[must_use]
    pub fn expires(&self, status: &MessageStatus, accepted: Timestamp) -> Timestamp {
        self.clock_jumps
            .deadline(accepted, status.expire, Timestamp::now())
    }
}

/// The status of one message.
#[derive(Debug)]
pub struct MessageStatus {
    /// The longest `expire` of the recipient domains.
    pub(super) expire: Duration,
    /// True while an attempt or an operator's order on it is running.
    pub busy: bool,
    /// The status of each recipient domain of the query, in the same order.
    pub destinations: Vec<DestinationStatus>,
}

/// The status of the destination of one recipient domain.
#[derive(Debug)]
pub struct DestinationStatus {
    /// The name of the connector by which the mail goes.
    pub connector: String,
    /// The backoff, if the mail is in one now.
    pub backoff: Option<BackoffStatus>,
}

/// The backoff of a destination, or of a part of its mail.
#[derive(Debug)]
pub struct BackoffStatus {
    /// The end of the backoff.
    pub until: Timestamp,
    /// The failure that caused it.
    pub last: AttemptFailure,
    /// A description of the part of the mail that is in backoff; `None` for all mail of the
    /// destination.
    pub part: Option<String>,
}

/// A query for one message, or for mail like it.
#[derive(Debug)]
pub struct StatusQuery {
    /// The id of the message; `None` for a message that does not exist yet.
    pub id: Option<QueueId>,
    /// The recipient domains.
    pub hosts: Vec<Host>,
    /// The name of the connector of the user who sent the message, if the user has one.
    pub user_connector: Option<Box<str>>,
    /// The TLS requirement of the message (RFC 8689).
    pub tls: TlsRequirement,
}

/// A query with the channel for its answer.
#[derive(Debug)]
pub(in crate::relay::scheduler) struct StatusRequest {
    pub(super) messages: Vec<StatusQuery>,
    pub(super) answer: oneshot::Sender<StatusReply>,
}
