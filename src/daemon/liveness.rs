//! The liveness of the services and their workload, for systemd's watchdog and status.
//!
//! The scheduler answers from its loop, and the spool from its writing thread. Listeners are not
//! probed, since a listener that panics ends the daemon. Nothing is repaired here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::relay::outbound::Outbound;
use crate::relay::scheduler;
use crate::storage::spool::Spool;

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
    #[error("the spool's writer does not respond; check its disk, or its database")]
    Spool,
}

/// Probes the services of the daemon.
#[derive(Clone)]
pub struct LivenessProbe {
    scheduler: scheduler::SchedulerProbe,
    spool: Arc<dyn Spool>,
    outbound: Arc<Outbound>,
}

impl fmt::Debug for LivenessProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LivenessProbe").finish_non_exhaustive()
    }
}

impl LivenessProbe {
    pub(super) fn new(
        scheduler: scheduler::SchedulerProbe,
        spool: Arc<dyn Spool>,
        outbound: Arc<Outbound>,
    ) -> Self {
        Self {
            scheduler,
            spool,
            outbound,
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
        let refused = self.outbound.refused_attempts();
        Ok(Liveness {
            waiting: work.waiting,
            under_way: work.under_way,
            refused,
        })
    }
}
