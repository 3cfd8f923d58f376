//! Stores the result of an attempt, or of a deadline: the state of each recipient, the next
//! attempt, or the removal.
//!
//! Changes of one message that come while another one is being stored are stored together, and no
//! lock is held meanwhile. The order of writes matters. Evidence is stored before the queue has the
//! result, or in the same transaction if both are in one database. A report to the sender is stored in the same step as the new state of its recipient, or
//! recorded there as owed. A message is removed only when no recipient is open and no report is
//! owed.

mod dsn;
mod evidence;
mod give_up;
mod remaining;
mod settle;
mod store;
mod write;
mod writer;

pub(super) use dsn::{enqueue as enqueue_report, owed_reports, postmaster, read_front};
pub(super) use evidence::{EvidenceFailure, remove_recorded, wait_for_evidence};
pub(super) use give_up::give_up;
pub(super) use remaining::RemainingWork;
pub(super) use settle::settle;
pub(super) use store::{store_deadline, store_result};
