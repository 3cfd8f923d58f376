//! The time of the report to the postmaster about quarantined messages.

use std::time::{Duration, Instant};

/// The next report about quarantined messages.
#[derive(Debug)]
pub(super) struct QuarantineReport {
    /// True until the spool has been read, which finds most of the damage.
    is_reading: bool,
    is_under_way: bool,
    due: Option<Instant>,
}

impl QuarantineReport {
    /// Creates it for a spool that has not been read yet.
    pub(super) fn new() -> Self {
        Self {
            is_reading: true,
            is_under_way: false,
            due: None,
        }
    }

    /// Records that the spool has been read.
    pub(super) fn spool_read(&mut self) {
        self.is_reading = false;
    }

    /// Returns the time at which the report is due, if there is one.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_under_way)
    }

    /// Returns whether the report is due. It is so after `wait`, counted from the first call that
    /// finds the spool read.
    pub(super) fn is_due(&mut self, now: Instant, wait: Duration) -> bool {
        !self.is_reading && !self.is_under_way && *self.due.get_or_insert(now + wait) <= now
    }

    /// Forgets its time, since there is nothing to report.
    pub(super) fn forget(&mut self) {
        self.due = None;
    }

    /// Records that the task of the report has begun.
    pub(super) fn begin(&mut self) {
        self.is_under_way = true;
    }

    /// Records that the task has ended. `again` is the time of the next one, if it failed.
    pub(super) fn end(&mut self, again: Option<Instant>) {
        self.is_under_way = false;
        self.due = again;
    }
}
