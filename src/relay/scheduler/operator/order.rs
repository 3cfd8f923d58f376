//! The orders that an operator gives, and the reasons for which one is refused.

use serde::{Deserialize, Serialize};

use crate::relay::scheduler::result::EvidenceFailure;
use crate::smtp::envelope::QueueId;
use crate::storage::spool::SpoolError;

/// The kinds of orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Try to deliver now, even when the destination is in backoff.
    Retry,
    /// Keep the message without attempts until it is released.
    Hold,
    /// End a hold.
    Release,
    /// Delete the message, without a report to the sender.
    Remove,
    /// Bounce the message, with a report to the sender.
    Bounce,
}

/// The reason for which an order was not carried out on a message.
#[derive(Debug, thiserror::Error)]
pub enum OrderRefused {
    /// An attempt or another order is running, or the message has just been accepted and is not
    /// scheduled yet.
    #[error(
        "message is busy (being delivered, or another command is running); try again in a few minutes"
    )]
    Busy,
    /// No recipient of the message is in the state that the order changes.
    #[error("{0}")]
    NothingToDo(&'static str),
    /// The report to its sender could not be stored.
    #[error("cannot store the report to the sender; the message stays in the queue, see the log")]
    ReportNotStored,
    /// The spool failed.
    #[error("{0}")]
    Spool(#[from] SpoolError),
    /// The task panicked.
    #[error(
        "the order failed half way, a bug in Gatepost; see the log, and check the message with `gatepost queue show`"
    )]
    Panicked,
    /// The scheduler is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The result of an order for one message.
pub type OrderOutcome = (QueueId, Result<(), OrderRefused>);

impl From<EvidenceFailure> for OrderRefused {
    fn from(failure: EvidenceFailure) -> Self {
        match failure {
            EvidenceFailure::Spool(error) => Self::Spool(error),
            EvidenceFailure::Stopping => Self::Stopping,
        }
    }
}
