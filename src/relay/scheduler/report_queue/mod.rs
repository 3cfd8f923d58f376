//! The queue of reports that are not stored yet.
//!
//! A report waits for reports about the message's other recipients, to be merged with them, and for
//! the rate limit ([`limit`]). Failed mail with the null sender waits for the postmaster's next
//! digest, and so does mail of strangers over the limit of waiting reports ([`backlog`]). All of it
//! is stored in the envelope ([`crate::smtp::envelope::Recipient::owed`]) before it is queued here,
//! so a restart finds it. Time comes in as an argument: no clock, no I/O, no tasks.

mod backlog;
mod counts;
mod limit;
mod queue;

#[cfg(test)]
mod tests;

pub(super) use counts::ReportCounters;
pub use counts::ReportCounts;
pub(super) use limit::{Addressee, Limiter, ReportRates};
pub(super) use queue::{OwedReports, ReportQueue};
