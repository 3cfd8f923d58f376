//! The counter: collects observations and stores their counts in batches, every few
//! seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::count::CountBatch;
use super::count_access::{BatchError, CountAccess};
use super::observation::Observation;
use super::store::Uncounted;

/// The interval at which counts are written: the most that a crash can lose.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// The most different counts in a batch.
const BATCH_MAX: usize = 4096;

/// The counter of observations.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) observations: mpsc::Receiver<Observation>,
    pub(super) dropped: Arc<AtomicU64>,
    pub(super) store: CountAccess,
    pub(super) batch: CountBatch,
    /// True if the last batch could not be stored and waits.
    pub(super) is_failing: bool,
}

impl Counter {
    /// Counts until `end`, and then the observations that are still waiting.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let mut flush = tokio::time::interval(FLUSH_INTERVAL);
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = end.cancelled() => break,
                _ = flush.tick() => self.flush().await,
                observation = self.observations.recv() => match observation {
                    Some(observation) => self.add(observation).await,
                    None => break,
                },
            }
        }
        self.count_all().await;
        if !self.batch.0.is_empty() {
            let sessions = self.batch.sessions();
            tracing::error!(
                sessions,
                "TLS results lost; these sessions are missing in reports"
            );
        }
    }

    /// Counts all observations made so far.
    pub(super) async fn count_all(&mut self) {
        while let Ok(observation) = self.observations.try_recv() {
            self.add(observation).await;
        }
        self.flush().await;
    }

    /// Adds an observation, and stores the batch when it is full. While batches cannot be stored, a
    /// full one is tried by the clock alone, and further observations are dropped.
    async fn add(&mut self, observation: Observation) {
        if self.batch.0.len() < BATCH_MAX {
            self.batch.add(observation);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if self.batch.0.len() >= BATCH_MAX && !self.is_failing {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(
                sessions = dropped,
                "TLS results dropped, too many at once or for too long; these sessions are missing in reports"
            );
        }
        if self.batch.0.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let sessions = batch.sessions();
        let was_failing = std::mem::take(&mut self.is_failing);
        // A batch that may have been stored is not tried again: nothing may be counted twice.
        match self.store.add(batch).await {
            Ok(Uncounted {
                above_limits: 0,
                late: 0,
            }) => {}
            Ok(Uncounted { above_limits, late }) => {
                tracing::warn!(
                    beyond = above_limits,
                    late,
                    "TLS results not counted: above the limits of a day, or after its report"
                );
            }
            Err(BatchError {
                error,
                batch: Some(batch),
            }) => {
                self.batch = batch;
                self.is_failing = true;
                if !was_failing {
                    tracing::warn!(sessions, %error, "TLS results cannot be counted now; they wait");
                }
            }
            Err(BatchError { error, batch: None }) => {
                tracing::error!(sessions, %error, "TLS results lost; these sessions are missing in reports");
            }
        }
    }
}
