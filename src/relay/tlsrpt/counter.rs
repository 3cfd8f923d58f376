//! The counter: collects observations and writes their counts to disk in batches, every few
//! seconds, on a blocking thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::count::CountBatch;
use super::observation::Observation;
use super::store::{CountStore, Uncounted};

/// The interval at which counts are written: the most that a crash can lose.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// The most different counts in a batch.
const BATCH_MAX: usize = 4096;

/// The counter of observations.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) observations: mpsc::Receiver<Observation>,
    pub(super) dropped: Arc<AtomicU64>,
    pub(super) store: Arc<CountStore>,
    pub(super) batch: CountBatch,
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
                    Some(observation) => self.batch.add(observation),
                    None => break,
                },
            }
            if self.batch.0.len() >= BATCH_MAX {
                self.flush().await;
            }
        }
        self.count_all().await;
    }

    /// Counts all observations made so far.
    pub(super) async fn count_all(&mut self) {
        while let Ok(observation) = self.observations.try_recv() {
            self.batch.add(observation);
            if self.batch.0.len() >= BATCH_MAX {
                self.flush().await;
            }
        }
        self.flush().await;
    }

    async fn flush(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(
                sessions = dropped,
                "TLS results dropped, too many at once; these sessions are missing in reports"
            );
        }
        if self.batch.0.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let (store, sessions) = (Arc::clone(&self.store), batch.sessions());
        // A batch that fails is not retried: it may have been written, and nothing may be counted
        // twice.
        match tokio::task::spawn_blocking(move || store.add(&batch)).await {
            Ok(Ok(Uncounted {
                above_limits: 0,
                late: 0,
            })) => {}
            Ok(Ok(Uncounted { above_limits, late })) => {
                tracing::warn!(
                    beyond = above_limits,
                    late,
                    "TLS results not counted: above the limits of a day, or after its report"
                );
            }
            Ok(Err(error)) => {
                tracing::error!(sessions, %error, "TLS results lost; these sessions are missing in reports");
            }
            Err(death) => {
                tracing::error!(sessions, %death, "TLS results lost; these sessions are missing in reports");
            }
        }
    }
}
