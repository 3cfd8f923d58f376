//! The liveness of the services and their workload, for systemd's watchdog and status.
//!
//! The scheduler answers from its loop, and the spool from its writing thread. Listeners are not
//! probed, since a listener that panics ends the daemon. Nothing is repaired here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::policy::failure::{Cause, RecipientOutcome};
use crate::relay::scheduler::{self, Observer};
use crate::storage::spool::SqliteSpool;

/// The workload of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// Deliveries that wait: one for each message and recipient domain.
    pub waiting: usize,
    /// Running deliveries.
    pub under_way: usize,
    /// Attempts since the start that a TLS policy refused.
    pub refused: u64,
}

/// The service that did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unresponsive {
    /// The scheduler's loop is stuck.
    #[error("the scheduler does not respond")]
    Scheduler,
    /// The spool's writer is stuck.
    #[error("the spool's writer does not respond; check its disk")]
    Spool,
}

/// Probes the services of the daemon.
#[derive(Debug, Clone)]
pub struct LivenessProbe {
    scheduler: scheduler::SchedulerProbe,
    spool: Arc<SqliteSpool>,
    refused: Arc<AtomicU64>,
}

impl LivenessProbe {
    pub(super) fn new(
        scheduler: scheduler::SchedulerProbe,
        spool: Arc<SqliteSpool>,
        refused: Arc<AtomicU64>,
    ) -> Self {
        Self {
            scheduler,
            spool,
            refused,
        }
    }

    /// Waits until each service has answered, at most `max_wait`.
    ///
    /// # Errors
    /// The service that did not.
    pub async fn probe(&self, max_wait: Duration) -> Result<Liveness, Unresponsive> {
        let (scheduler, spool) = tokio::join!(
            timeout(max_wait, self.scheduler.probe()),
            timeout(max_wait, self.spool.ping())
        );
        let Ok(Some(work)) = scheduler else {
            return Err(Unresponsive::Scheduler);
        };
        let Ok(Ok(())) = spool else {
            return Err(Unresponsive::Spool);
        };
        let refused = self.refused.load(Ordering::Relaxed);
        Ok(Liveness {
            waiting: work.waiting,
            under_way: work.under_way,
            refused,
        })
    }
}

/// Returns an observer that counts the attempts refused by a TLS policy and passes all of them on
/// to `observer`.
pub(super) fn count_refusals(observer: Observer) -> (Arc<AtomicU64>, Observer) {
    let refused = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&refused);
    let counting: Observer = Arc::new(move |attempt, report| {
        if report
            .results
            .iter()
            .any(|result| is_refusal(&result.outcome))
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
        observer(attempt, report);
    });
    (refused, counting)
}

fn is_refusal(outcome: &RecipientOutcome) -> bool {
    match outcome {
        RecipientOutcome::Delivered(_) => false,
        RecipientOutcome::Deferred(failure)
        | RecipientOutcome::Held(failure)
        | RecipientOutcome::Bounced(failure) => match failure.cause {
            Cause::Policy(_) | Cause::RequireTls(_) => true,
            Cause::Reply { .. } | Cause::Ourselves(_) | Cause::Discovery(_) | Cause::Other(_) => {
                false
            }
        },
    }
}
