//! Stores the result of an attempt, or of a deadline: the state of each recipient, the next
//! attempt, or the removal.
//!
//! The order of writes matters. A report to the sender is stored before its recipient is marked as
//! failed, or is recorded as owed in the same write. Evidence is stored before the queue has the
//! result. A message is removed only when no recipient is open and no report is owed.

mod dsn;
mod evidence;
mod give_up;
mod remaining;
mod store;
mod write;
mod writer;

pub(super) use dsn::{
    RateCheck, StoreResult, enqueue as enqueue_report, owed_reports, postmaster, read_front,
    store as store_reports,
};
pub(super) use evidence::{EvidenceFailure, wait_for_evidence, write_acceptance, write_removal};
pub(super) use give_up::give_up;
pub(super) use remaining::RemainingWork;
pub(super) use store::{store_deadline, store_result};
pub(super) use write::write_state;
