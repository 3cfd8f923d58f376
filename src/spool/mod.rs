//! The spool: where a message is safe before it is answered for.
//!
//! A message comes in as a [`Draft`], becomes durable with [`Spool::commit`] and is then told by a
//! [`Receipt`], which nothing else can make and without which no final 250 is written. What is done
//! with a message afterwards is the scheduler's affair; what is in it is nobody's. RFC 5321 §6.1
//! (responsibility for a message once 250 was said) is the promise that is kept here.

use std::future::Future;
use std::pin::Pin;

use jiff::Timestamp;

use crate::envelope::{Envelope, QueueId};

mod body;
mod draft;
mod engine;
mod file;
mod ids;
mod leaps;
mod quota;
mod room;

pub use body::{Body, BodyReader, FileBody};
pub use draft::Draft;
pub use engine::{Options, SpoolStats, SqliteSpool};
pub use leaps::Leaps;

/// A future that a [`Spool`] hands out.
pub type SpoolFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SpoolError>> + Send + 'a>>;

/// What went wrong with the spool. All of it is our own trouble: transient towards others.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk is full.
    #[error("the spool's disk is full: {0}")]
    Full(String),
    /// An entry is damaged and was set aside.
    #[error("queue entry {id} is damaged ({fault}); it was set aside in {aside}")]
    Damaged {
        /// Which.
        id: QueueId,
        /// What is wrong with it.
        fault: String,
        /// Where it is now.
        aside: String,
    },
    /// There is no such entry.
    #[error("there is no queue entry {0}")]
    Missing(QueueId),
    /// Anything else: file, what was tried, what the system said.
    #[error("{0}")]
    Io(String),
    /// The writer has ended; the process is about to.
    #[error("the spool has been closed")]
    Closed,
}

/// Proof that a message and its envelope are durable. Only the spool makes one.
#[derive(Debug)]
pub struct Receipt {
    id: QueueId,
}

impl Receipt {
    /// The message's name in the queue.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }
}

/// A message in the spool.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub id: QueueId,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Its envelope, with each recipient's state.
    pub envelope: Envelope,
    /// Octets of its content.
    pub size: u64,
    /// Its content.
    pub body: Body,
}

/// What a spool can do. The embedded engine is one; a spool that relays share can be another.
pub trait Spool: Send + Sync + 'static {
    /// Starts a message.
    fn draft(&self) -> Draft;
    /// Starts a report about a message that is in the spool. It may take some of the room that is kept
    /// from new mail, so that a full disk does not keep undeliverable mail in the queue.
    fn draft_report(&self) -> Draft {
        self.draft()
    }
    /// Whether a message of `octets` (0 where its size was not declared) may come in: cheap, for the
    /// answer to MAIL and DATA.
    ///
    /// # Errors
    /// [`SpoolError::Full`].
    fn admit(&self, octets: u64) -> Result<(), SpoolError> {
        let _ = octets;
        Ok(())
    }
    /// The leaps of the clock, by which no message grows older.
    fn leaps(&self) -> Leaps {
        Leaps::default()
    }
    /// Makes a message durable. When this returns `Ok`, it survives kill -9 and power loss.
    fn commit(&self, draft: Draft, envelope: Envelope) -> SpoolFuture<'_, (Receipt, Entry)>;
    /// Replaces the envelope (states of recipients) of a message, durably.
    fn record(&self, id: QueueId, envelope: Envelope) -> SpoolFuture<'_, ()>;
    /// Removes a message, durably.
    fn remove(&self, id: QueueId) -> SpoolFuture<'_, ()>;
    /// Loads a message.
    fn load(&self, id: QueueId) -> SpoolFuture<'_, Entry>;
    /// The next messages after `after` in the order of their ids, at most `limit`, without content:
    /// an empty list is the end. Damaged entries are set aside, logged and skipped.
    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<Stored>>;
}

/// A message as [`Spool::scan`] tells it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its name.
    pub id: QueueId,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Its envelope.
    pub envelope: Envelope,
    /// Octets of its content.
    pub size: u64,
}
