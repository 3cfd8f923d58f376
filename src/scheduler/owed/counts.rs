//! Counts of the reports that were made and that wait: written by the scheduler, read without waiting for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The reports to senders and to the postmaster since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportCounts {
    /// Messages whose report to the sender waits, for other recipients' reports or for the rate.
    pub waiting: u64,
    /// Failed messages that wait for the postmaster's next digest.
    pub for_digest: u64,
    /// Reports that were stored for senders.
    pub stored: u64,
    /// Reports that had to wait for the rate.
    pub delayed: u64,
    /// Recipients whose report went into that of another recipient.
    pub merged: u64,
    /// Digests that were stored for the postmaster.
    pub digests: u64,
    /// Messages of strangers that went into the digest, since too many reports waited.
    pub diverted: u64,
}

/// The same while they are counted. Every clone is the same.
#[derive(Debug, Clone, Default)]
pub(in crate::scheduler) struct Counts(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: AtomicU64,
    for_digest: AtomicU64,
    stored: AtomicU64,
    delayed: AtomicU64,
    merged: AtomicU64,
    digests: AtomicU64,
    diverted: AtomicU64,
}

impl Counts {
    /// Notes how many messages wait now.
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

    /// Counts a report that tells a sender of so many recipients.
    pub(in crate::scheduler) fn stored(&self, recipients: usize) {
        self.0.stored.fetch_add(1, Relaxed);
        self.0.merged.fetch_add(recipients.saturating_sub(1) as u64, Relaxed);
    }

    pub(in crate::scheduler) fn digest(&self) {
        self.0.digests.fetch_add(1, Relaxed);
    }

    pub(in crate::scheduler) fn read(&self) -> ReportCounts {
        let Inner { waiting, for_digest, stored, delayed, merged, digests, diverted } = &*self.0;
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
