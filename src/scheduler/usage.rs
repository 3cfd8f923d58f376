//! The use of the delivery attempts, published by the scheduler and read by status and metrics without waiting.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lanes::{Share, ShareUse};
use super::orders::Operator;

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
pub(super) struct Usage(Arc<Mutex<[Option<Noted>; 2]>>);

#[derive(Debug, Clone, Copy)]
struct Noted {
    used: ShareUse,
    full_since: Option<Instant>,
}

impl Usage {
    fn noted(&self) -> MutexGuard<'_, [Option<Noted>; 2]> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the current use.
    pub(super) fn note(&self, shares: [ShareUse; 2]) {
        let mut noted = self.noted();
        for (before, used) in noted.iter_mut().zip(shares) {
            let full_since = before.and_then(|before| before.full_since).or_else(|| Some(Instant::now()));
            *before = Some(Noted { used, full_since: full_since.filter(|_| used.waiting > 0) });
        }
    }

    fn read(&self) -> Vec<ShareUsage> {
        let usage = |Noted { used, full_since }| ShareUsage {
            share: used.share,
            most: used.most,
            running: used.running,
            slow: used.slow,
            waiting: used.waiting,
            full_for: full_since.map(|since: Instant| since.elapsed()),
        };
        self.noted().iter().flatten().copied().map(usage).collect()
    }
}

impl Operator {
    /// Returns the use of each share of the delivery attempts; empty before the scheduler runs.
    #[must_use]
    pub fn usage(&self) -> Vec<ShareUsage> {
        self.usage.read()
    }
}
