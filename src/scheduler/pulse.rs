//! The liveness probe of the scheduler, answered by its loop with the number of waiting and running deliveries.

use tokio::sync::{mpsc, oneshot};

/// The number of probes that may wait. The watchdog is the only caller.
const WAITING_MAX: usize = 4;

/// The amount of work of the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// The waiting deliveries: one for each message and recipient domain.
    pub waiting: usize,
    /// The running jobs.
    pub under_way: usize,
}

/// The channel for the answer to a probe.
pub(super) type Feel = oneshot::Sender<Work>;

/// The handle that probes the scheduler.
#[derive(Debug, Clone)]
pub struct Pulse(mpsc::Sender<Feel>);

/// Creates a probe and the queue of its requests.
pub(super) fn channel() -> (Pulse, mpsc::Receiver<Feel>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Pulse(sender), receiver)
}

impl Pulse {
    /// Waits for an answer of the loop. Returns `None` when the loop has ended.
    pub async fn feel(&self) -> Option<Work> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}

impl super::Scheduler {
    /// Returns the liveness probe of this scheduler.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Answers a liveness probe.
    pub(super) fn beat(&self, answer: Feel) {
        // The caller may have given up waiting.
        let _ = answer.send(Work { waiting: self.lanes.len(), under_way: self.jobs });
    }
}
