//! The errors of the spool.

use super::message::StoredMessage;
use crate::smtp::envelope::QueueId;

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
    /// The lease of this owner is over, or the spool is not its own any more. Nothing was written. The
    /// text is the reason, with the remedy.
    #[error("this relay is not the owner: {0}")]
    NotOwner(String),
    /// This message is not this owner's any more, whatever the lease is. Nothing was written. The text is
    /// the reason.
    #[error("this relay is not the owner: {0}")]
    OfAnother(String),
    /// This relay drains: it hands its messages to others and accepts none.
    #[error(
        "this relay drains: it hands its queue to the other nodes; gatepost node drain --end ends that"
    )]
    Draining,
    /// Any other error: the file, what was tried, and the error of the system.
    #[error("{0}")]
    Io(String),
    /// The writer has ended, and the process is about to end.
    #[error("the spool has been closed")]
    Closed,
}
