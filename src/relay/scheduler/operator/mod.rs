//! Operators' orders on the queue (retry, hold, release, remove, bounce) and their queries.
//!
//! An order names messages by their ids. It is refused for a message that is being delivered.

mod carry_out;
mod handle;
mod order;
mod requests;
mod status;

pub use handle::Operator;
pub(super) use handle::{Request, channel};
pub use order::{Order, OrderOutcome, OrderRefused};
pub use status::{BackoffStatus, DestinationStatus, MessageStatus, StatusQuery, StatusReply};
