//! The spool: stores accepted messages durably until they are delivered.
//!
//! A message comes in as a [`Draft`]. [`Spool::commit`] makes it durable and returns a [`Receipt`],
//! which only the spool can make and without which no final 250 is written. That keeps the promise
//! of RFC 5321 §6.1: a server that has answered 250 is responsible for the message. The scheduler
//! decides what happens to a message afterwards. Nobody interprets its content.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use jiff::Timestamp;

use crate::smtp::envelope::{Envelope, QueueId};

mod body;
mod draft;
mod engine;
mod file;
mod free_space;
mod ids;
mod quota;

pub use super::clock_jumps::ClockJumps;
pub use body::{Body, BodyReader, FileBody};
pub use draft::Draft;
pub use engine::{Options, SpoolStats, SqliteSpool};

/// The future that the methods of [`Spool`] return.
pub type SpoolFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SpoolError>> + Send + 'a>>;

/// The errors of the spool. Each is a local and temporary problem: peers get a 4xx reply.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk is full.
    #[error("the spool's disk is full: {0}")]
    Full(String),
    /// An entry is damaged. Its data was quarantined.
    #[error("queue entry {id} is damaged ({fault}); it was quarantined as {files}")]
    Damaged {
        /// The id of the entry.
        id: QueueId,
        /// A description of the damage.
        fault: String,
        /// The quarantined files, as a path with a wildcard.
        files: String,
        /// The message without its content, if its envelope is sound. It stays in the queue until
        /// it is removed, so that its reports and records are not lost. `None`: the entry was
        /// removed from the queue.
        remaining: Option<Box<StoredMessage>>,
    },
    /// There is no such entry.
    #[error("there is no queue entry {0}")]
    Missing(QueueId),
    /// Any other error: the file, what was tried, and the error of the system.
    #[error("{0}")]
    Io(String),
    /// The writer has ended, and the process is about to end.
    #[error("the spool has been closed")]
    Closed,
}

/// Proof that a message and its envelope are durable. Only the spool makes one.
#[derive(Debug)]
pub struct Receipt {
    id: QueueId,
}

impl Receipt {
    /// Returns the queue id of the message.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }
}

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

/// The interface of a spool. The embedded engine implements it; a spool shared by several relays
/// could, too.
pub trait Spool: Send + Sync + 'static {
    /// Starts a message.
    fn draft(&self) -> Draft;
    /// Starts a report about a message that is in the spool. It may use half of the disk space that
    /// new mail must leave free, so that a full disk does not keep undeliverable mail in the queue.
    fn draft_report(&self) -> Draft {
        self.draft()
    }
    /// Checks that there is disk space for a message of `octets` (0 if the client did not declare a
    /// size). This is cheap; it serves the replies to MAIL and DATA.
    ///
    /// # Errors
    /// [`SpoolError::Full`] if there is not.
    fn admit(&self, octets: u64) -> Result<(), SpoolError> {
        let _ = octets;
        Ok(())
    }
    /// Returns the clock jumps, which do not count towards a message's age.
    fn clock_jumps(&self) -> ClockJumps {
        ClockJumps::default()
    }
    /// Makes a message durable. When this returns `Ok`, the message survives kill -9 and power
    /// loss.
    fn commit(&self, draft: Draft, envelope: Envelope) -> SpoolFuture<'_, (Receipt, Entry)>;
    /// Replaces the envelope of a message, with the states of its recipients, durably.
    fn record(&self, id: QueueId, envelope: Envelope) -> SpoolFuture<'_, ()>;
    /// Removes a message, durably.
    fn remove(&self, id: QueueId) -> SpoolFuture<'_, ()>;
    /// Loads a message. One with damaged content is quarantined, see [`SpoolError::Damaged`].
    /// Damage within a file is found only when the content is read.
    fn load(&self, id: QueueId) -> SpoolFuture<'_, Entry>;
    /// Returns at most `limit` messages after `after`, in the order of their ids, without their
    /// content. An empty list is the end. Entries with damaged envelopes are quarantined, logged
    /// and skipped.
    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<StoredMessage>>;
}

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
