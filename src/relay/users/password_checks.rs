//! The limit on checks of passwords, which cost processor time and memory by design.
//!
//! Two groups wait apart from each other: clients that have logged in as this user before, and all
//! others. A flood of strangers thus keeps no known client waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The number of checks of each group that run at the same time.
const AT_ONCE: usize = 2;
/// The number of clients of each group that may wait.
const WAITING_MAX: usize = 64;
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The checks of both groups.
#[derive(Debug, Default)]
pub struct PasswordChecks {
    known: CheckQueue,
    others: CheckQueue,
}

#[derive(Debug)]
struct CheckQueue {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for CheckQueue {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// The right to check one password; given back when dropped.
#[derive(Debug)]
pub struct CheckPermit {
    _permit: OwnedSemaphorePermit,
}

impl PasswordChecks {
    /// Waits for the right to check a password. `None` if too many wait already, or for too long.
    pub async fn permit(&self, is_known: bool) -> Option<CheckPermit> {
        let queue = if is_known { &self.known } else { &self.others };
        queue.permit().await
    }
}

/// A place among those that wait.
struct WaitingPlace<'a>(&'a AtomicUsize);

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CheckQueue {
    async fn permit(&self) -> Option<CheckPermit> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _place = WaitingPlace(&self.waiting);
        if before >= WAITING_MAX {
            return None;
        }
        let permit = timeout(WAIT_MAX, Arc::clone(&self.permits).acquire_owned()).await;
        // The semaphore is never closed.
        permit
            .ok()?
            .ok()
            .map(|permit| CheckPermit { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn strangers_wait_apart_and_not_without_limit() {
        let checks = Arc::new(PasswordChecks::default());
        let first = checks
            .permit(false)
            .now_or_never()
            .flatten()
            .expect("the first");
        let _second = checks
            .permit(false)
            .now_or_never()
            .flatten()
            .expect("the second");
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let checks = Arc::clone(&checks);
                tokio::spawn(async move { checks.permit(false).await.is_some() })
            })
            .collect();
        // A scheduler runs a part of the tasks at a time.
        for _ in 0..WAITING_MAX {
            tokio::task::yield_now().await;
        }
        // It does not wait either.
        assert!(
            matches!(checks.permit(false).now_or_never(), Some(None)),
            "too many wait"
        );
        assert!(
            checks.permit(true).now_or_never().flatten().is_some(),
            "known clients do not"
        );
        drop(first);
        let mut given = 0;
        for waiting in waiting {
            given += usize::from(waiting.await.expect("no panic"));
        }
        assert_eq!(given, WAITING_MAX, "each gives its permit back in turn");
    }
}
