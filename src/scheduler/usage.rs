//! How much of the delivery attempts is in use: told by the scheduler, read by those who watch without waiting for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lanes::{Share, ShareUse};
use super::orders::Operator;

/// One share of the delivery attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareUsage {
    /// Which.
    pub share: Share,
    /// Attempts that may be under way.
    pub most: u32,
    /// Attempts under way.
    pub running: u32,
    /// Of these, the slow ones.
    pub slow: u32,
    /// Destinations that find no place for an attempt although mail for them is due.
    pub waiting: usize,
    /// For how long there have been such destinations.
    pub full_for: Option<Duration>,
}

/// What the scheduler has told last.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage(Arc<Mutex<[Option<Noted>; 2]>>);

#[derive(Debug, Clone, Copy)]
struct Noted {
    used: ShareUse,
    full_since: Option<Instant>,
}

impl Usage {
    fn noted(&self) -> MutexGuard<'_, [Option<Noted>; 2]> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
    /// How much of each share of the delivery attempts is in use; nothing before the scheduler runs.
    #[must_use]
    pub fn usage(&self) -> Vec<ShareUsage> {
        self.usage.read()
    }
}
