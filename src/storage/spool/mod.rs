//! The spool: stores accepted messages durably until they are delivered.
//!
//! A message comes in as a [`Draft`]. [`Spool::commit`] makes it durable and returns a [`Receipt`],
//! which only the spool can make and without which no final 250 is written. That keeps the promise
//! of RFC 5321 §6.1: a server that has answered 250 is responsible for the message. The scheduler
//! decides what happens to a message afterwards, and shows the [`Claim`] on it with each change: a
//! message has one owner at a time, and the spool decides who that is. The spool does not interpret
//! the content.

mod body;
mod claim;
mod cluster_nodes;
mod cluster_share;
mod draft;
mod engine;
mod entry;
mod envelope_parts;
mod error;
mod file;
mod free_space;
mod ids;
mod interface;
mod lease;
pub mod log;
mod message;
mod node_orders;
mod ownership_change;
mod quota;
mod relocation;
mod set_aside;
mod shared;
#[cfg(test)]
pub(crate) mod suite;

pub use super::clock_jumps::ClockJumps;
pub use body::{Body, BodyReader, FileBody, LARGE_CHUNK};
pub use claim::{Claim, Claimed};
pub use cluster_nodes::{ClusterNode, ClusterNodes, MessageOwner, NodeDrain, NodeRemoval};
pub use cluster_share::ClusterShare;
pub use draft::{Draft, LARGE_BLOCK};
pub use engine::{
    ExportError, OfflineError, Options, SpoolCheck, SpoolExport, SpoolFinding, SpoolRemedy,
    SpoolRepair, SpoolStats, SqliteSpool, UnreadableEntry, UserRoutedMessage, check_spool, export,
    plan_repair, read_queue, repair_spool,
};
pub use entry::Entry;
pub use error::SpoolError;
pub use file::SpoolFuture;
pub use interface::{EventFuture, Receipt, Spool};
pub use lease::{BootTime, HeldLease, Lease, LeaseTerm};
pub use message::StoredMessage;
pub use node_orders::{NodeAnswer, NodeOrder, NodeOrders};
pub use ownership_change::OwnershipChange;
pub use relocation::{MoveError, QueueMove, move_to_database, move_to_folder};
pub use set_aside::SetAside;
pub use shared::{SharedOptions, SharedSpool};
