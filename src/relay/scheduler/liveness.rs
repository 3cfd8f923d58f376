//! The liveness probe of the scheduler, answered by its loop with the number of waiting and running
//! deliveries.

use tokio::sync::{mpsc, oneshot};

/// The number of probes that may wait. The watchdog is the only caller.
const WAITING_MAX: usize = 4;

/// The amount of work of the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// The waiting deliveries: one for each message and recipient domain.
    pub waiting: usize,
    /// The running jobs.
    pub under_way: usize,
}

/// The channel for the answer to a probe.
pub(super) type ProbeReply = oneshot::Sender<Workload>;

/// The handle that probes the scheduler.
#[derive(Debug, Clone)]
pub struct SchedulerProbe(mpsc::Sender<ProbeReply>);

/// Creates a probe and the queue of its requests.
pub(super) fn channel() -> (SchedulerProbe, mpsc::Receiver<ProbeReply>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (SchedulerProbe(sender), receiver)
}

impl SchedulerProbe {
    /// Waits for an answer of the loop. Returns `None` when the loop has ended.
    pub async fn probe(&self) -> Option<Workload> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}
