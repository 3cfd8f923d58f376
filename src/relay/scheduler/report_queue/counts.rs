//! The counts of stored and waiting reports, written by the scheduler and read without waiting for
//! it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The reports to senders and to the postmaster since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportCounts {
    /// The messages whose report to the sender waits, for other reports or for the rate limit.
    pub waiting: u64,
    /// The failed messages that wait for the postmaster's next digest.
    pub for_digest: u64,
    /// The reports to senders that were stored.
    pub stored: u64,
    /// The reports that waited for the rate limit.
    pub delayed: u64,
    /// The recipients that were merged into the report of another recipient.
    pub merged: u64,
    /// The digests that were stored for the postmaster.
    pub digests: u64,
    /// The messages of strangers that went into the digest because too many reports waited.
    pub diverted: u64,
}

/// The live counters behind [`ReportCounts`]. Every clone shares them.
#[derive(Debug, Clone, Default)]
pub(in crate::relay::scheduler) struct ReportCounters(Arc<ReportCells>);

#[derive(Debug, Default)]
struct ReportCells {
    waiting: AtomicU64,
    for_digest: AtomicU64,
    stored: AtomicU64,
    delayed: AtomicU64,
    merged: AtomicU64,
    digests: AtomicU64,
    diverted: AtomicU64,
}

impl ReportCounters {
    /// Sets the number of waiting messages.
    pub(super) fn waiting(&self, for_sender: usize, for_digest: usize) {
        self.0.waiting.store(for_sender as u64, Relaxed);
        self.0.for_digest.store(for_digest as u64, Relaxed);
    }

    pub(super) fn diverted(&self) {
        self.0.diverted.fetch_add(1, Relaxed);
    }

    pub(super) fn delayed(&self) {
        self.0.delayed.fetch_add(1, Relaxed);
    }

    /// Counts a stored report about so many recipients.
    pub(in crate::relay::scheduler) fn stored(&self, recipients: usize) {
        self.0.stored.fetch_add(1, Relaxed);
        self.0
            .merged
            .fetch_add(recipients.saturating_sub(1) as u64, Relaxed);
    }

    pub(in crate::relay::scheduler) fn digest(&self) {
        self.0.digests.fetch_add(1, Relaxed);
    }

    pub(in crate::relay::scheduler) fn read(&self) -> ReportCounts {
        let ReportCells {
            waiting,
            for_digest,
            stored,
            delayed,
            merged,
            digests,
            diverted,
        } = &*self.0;
        ReportCounts {
            waiting: waiting.load(Relaxed),
            for_digest: for_digest.load(Relaxed),
            stored: stored.load(Relaxed),
            delayed: delayed.load(Relaxed),
            merged: merged.load(Relaxed),
            digests: digests.load(Relaxed),
            diverted: diverted.load(Relaxed),
        }
    }
}
