//! A sign of life of the scheduler, from its own loop: how much waits, and how much is under way.

use tokio::sync::{mpsc, oneshot};

/// Questions that may wait; one asker is what there is.
const WAITING_MAX: usize = 4;

/// How much there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Deliveries that wait for their time: one for each message and recipient domain.
    pub waiting: usize,
    /// Deliveries under way.
    pub under_way: usize,
}

/// Who asks.
pub(super) type Feel = oneshot::Sender<Work>;

/// A hand on the scheduler's pulse.
#[derive(Debug, Clone)]
pub struct Pulse(mpsc::Sender<Feel>);

pub(super) fn channel() -> (Pulse, mpsc::Receiver<Feel>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Pulse(sender), receiver)
}

impl Pulse {
    /// Waits for the loop to answer; `None` where it has ended.
    pub async fn feel(&self) -> Option<Work> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}

impl super::Scheduler {
    /// A hand on its pulse.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    pub(super) fn beat(&self, answer: Feel) {
        // The asker may have run out of patience.
        let _ = answer.send(Work { waiting: self.lanes.len(), under_way: self.jobs });
    }
}
