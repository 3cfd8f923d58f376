//! The use of the delivery attempts, published by the scheduler and read by status and metrics
//! without waiting.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::queues::{Share, ShareUse};

/// The use of one share of the delivery attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareUsage {
    /// The share.
    pub share: Share,
    /// The most attempts that may run.
    pub most: u32,
    /// The running attempts.
    pub running: u32,
    /// The slow attempts among them.
    pub slow: u32,
    /// The destinations with mail that is due that wait for an attempt to become free.
    pub waiting: usize,
    /// The time since when some destination has waited without a break.
    pub full_for: Option<Duration>,
}

/// The latest values from the scheduler. Every clone shares them.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage(Arc<Mutex<[Option<UsageSample>; 2]>>);

#[derive(Debug, Clone, Copy)]
struct UsageSample {
    used: ShareUse,
    full_since: Option<Instant>,
}

impl Usage {
    fn samples(&self) -> MutexGuard<'_, [Option<UsageSample>; 2]> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the current use.
    pub(super) fn publish(&self, shares: [ShareUse; 2]) {
        let mut samples = self.samples();
        for (before, used) in samples.iter_mut().zip(shares) {
            let full_since = before
                .and_then(|before| before.full_since)
                .or_else(|| Some(Instant::now()));
            *before = Some(UsageSample {
                used,
                full_since: full_since.filter(|_| used.waiting > 0),
            });
        }
    }

    /// Returns the latest values; none before the scheduler runs.
    pub(super) fn read(&self) -> Vec<ShareUsage> {
        let usage = |UsageSample { used, full_since }| ShareUsage {
            share: used.share,
            most: used.most,
            running: used.running,
            slow: used.slow,
            waiting: used.waiting,
            full_for: full_since.map(|since: Instant| since.elapsed()),
        };
        self.samples()
            .iter()
            .flatten()
            .copied()
            .map(usage)
            .collect()
    }
}
