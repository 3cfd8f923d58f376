//! The queues of the destinations: the order of due messages, concurrency and backoff.
//!
//! An item that is not due waits in one list by time, and a due one in the queue of its
//! destination. The queues are served round robin. No step goes past the front of a list, except
//! for operators' orders and a reload. Time comes in as an argument and jobs come out: no clock, no
//! I/O, no tasks, so tests need not wait.

mod attempts;
mod ids;
mod item;
mod parked;
mod part;
mod parts;
mod queue;
mod share;
mod table;
mod turns;

#[cfg(test)]
mod tests;

pub(super) use attempts::ShareUse;
pub(super) use ids::{AttemptId, AttemptToken};
pub(super) use item::{Destination, Item, Job, Placement};
pub(super) use part::Part;
pub(super) use queue::Health;
pub use share::Share;
pub(super) use table::DestinationQueues;
