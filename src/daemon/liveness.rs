//! Whether the parts that matter are alive, and how much there is to do: for systemd's watchdog and status.
//!
//! The parts answer for themselves: the scheduler from its loop, the spool from the thread that writes. A
//! listener that dies ends the daemon, so it need not be asked. Nothing is mended here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::failure::{Cause, RecipientOutcome};
use crate::scheduler::{self, Observer};
use crate::spool::SqliteSpool;

/// How much there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// Deliveries that wait for their time: one for each message and recipient domain.
    pub waiting: usize,
    /// Deliveries under way.
    pub under_way: usize,
    /// Attempts since the start that a TLS policy refused.
    pub refused: u64,
}

/// Which part gave no sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unresponsive {
    /// The scheduler's loop does not turn.
    #[error("the scheduler gives no sign of life")]
    Scheduler,
    /// The spool's writer does not come to the end of what it writes.
    #[error("the spool's writer gives no sign of life; does its disk answer?")]
    Spool,
}

/// A hand on the daemon's pulse.
#[derive(Debug, Clone)]
pub struct LivenessProbe {
    scheduler: scheduler::Pulse,
    spool: Arc<SqliteSpool>,
    refused: Arc<AtomicU64>,
}

impl LivenessProbe {
    pub(super) fn new(scheduler: scheduler::Pulse, spool: Arc<SqliteSpool>, refused: Arc<AtomicU64>) -> Self {
        Self { scheduler, spool, refused }
    }

    /// Waits until each part has given a sign of life, `patience` at most.
    ///
    /// # Errors
    /// The part that gave none.
    pub async fn feel(&self, patience: Duration) -> Result<Liveness, Unresponsive> {
        let (scheduler, spool) =
            tokio::join!(timeout(patience, self.scheduler.feel()), timeout(patience, self.spool.ping()));
        let Ok(Some(work)) = scheduler else { return Err(Unresponsive::Scheduler) };
        let Ok(Ok(())) = spool else { return Err(Unresponsive::Spool) };
        let refused = self.refused.load(Ordering::Relaxed);
        Ok(Liveness { waiting: work.waiting, under_way: work.under_way, refused })
    }
}

/// An observer that counts the attempts that a TLS policy refused before it passes them on.
pub(super) fn count_refusals(observer: Observer) -> (Arc<AtomicU64>, Observer) {
    let refused = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&refused);
    let counting: Observer = Arc::new(move |attempt, report| {
        if report.results.iter().any(|result| is_refusal(&result.outcome)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        observer(attempt, report);
    });
    (refused, counting)
}

fn is_refusal(outcome: &RecipientOutcome) -> bool {
    match outcome {
        RecipientOutcome::Delivered(_) => false,
        RecipientOutcome::Deferred(failure) | RecipientOutcome::Held(failure) | RecipientOutcome::Bounced(failure) => {
            match failure.cause {
                Cause::Policy(_) | Cause::RequireTls(_) => true,
                Cause::Reply { .. } | Cause::Ourselves(_) | Cause::Discovery(_) | Cause::Other(_) => false,
            }
        }
    }
}
