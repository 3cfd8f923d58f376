//! The counter: collects observations and writes their counts to disk in batches, every few
//! seconds, on a blocking thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::civil::Date;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::observation::{
    AppliedPolicy, Observation, ReportedPolicy, SessionFailure, SessionResult,
};
use super::report::day_of;
use super::store::{CountStore, Uncounted};
use crate::smtp::address::Domain;

/// The interval at which counts are written: the most that a crash can lose.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// The most different counts in a batch.
const BATCH_MAX: usize = 4096;
/// The most characters of a host name.
const NAME_MAX: usize = 255;
/// The most characters of a failure reason code.
const CODE_MAX: usize = 100;
/// The most characters of additional information.
const INFORMATION_MAX: usize = 300;
/// The most strings of a policy.
const STRINGS_MAX: usize = 64;
/// The most characters of one string of a policy.
const STRING_MAX: usize = 1100;

/// The key under which sessions are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CountKey {
    pub(super) day: Date,
    pub(super) domain: Domain,
    pub(super) policy: Arc<AppliedPolicy>,
    /// The failure, or `None` for successful sessions.
    pub(super) failure: Option<SessionFailure>,
}

/// Counts that are not on disk yet.
#[derive(Debug, Default)]
pub(super) struct CountBatch(HashMap<CountKey, u64>);

impl CountBatch {
    pub(super) fn add(&mut self, observation: Observation) {
        let Observation {
            at,
            domain,
            policy,
            session,
        } = observation;
        let failure = match session {
            SessionResult::Succeeded => None,
            SessionResult::Failed(failure) => Some(truncate_failure(failure)),
        };
        let policy = if fits(&policy) {
            policy
        } else {
            Arc::new(truncate_policy(&policy))
        };
        *self
            .0
            .entry(CountKey {
                day: day_of(at),
                domain,
                policy,
                failure,
            })
            .or_default() += 1;
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&CountKey, u64)> {
        self.0.iter().map(|(key, sessions)| (key, *sessions))
    }

    fn sessions(&self) -> u64 {
        self.0.values().sum()
    }
}

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
                tracing::error!(sessions, %death, "TLS results lost; these sessions are missing in reports")
            }
        }
    }
}

/// Limits the length of each text of a failure and removes control characters.
fn truncate_failure(failure: SessionFailure) -> SessionFailure {
    let truncate = |text: Option<String>, most: usize| {
        text.map(|text| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(most)
                .collect::<String>()
        })
        .filter(|text| !text.is_empty())
    };
    let SessionFailure {
        result,
        sending_ip,
        mx,
        helo,
        receiving_ip,
        reason,
        information,
    } = failure;
    SessionFailure {
        result,
        sending_ip,
        mx: truncate(mx, NAME_MAX),
        helo: truncate(helo, NAME_MAX),
        receiving_ip,
        reason: truncate(reason, CODE_MAX),
        information: truncate(information, INFORMATION_MAX),
    }
}

fn fits(policy: &AppliedPolicy) -> bool {
    let fit = |strings: &[String]| {
        strings.len() <= STRINGS_MAX && strings.iter().all(|one| one.len() <= STRING_MAX)
    };
    match &policy.found {
        ReportedPolicy::Tlsa(records) => fit(records),
        ReportedPolicy::Sts { lines, mx } => fit(lines) && fit(mx),
        ReportedPolicy::Nothing => true,
    }
}

fn truncate_policy(policy: &AppliedPolicy) -> AppliedPolicy {
    let truncate = |strings: &[String]| {
        strings
            .iter()
            .take(STRINGS_MAX)
            .map(|one| one.chars().take(STRING_MAX / 4).collect())
            .collect::<Vec<String>>()
    };
    let found = match &policy.found {
        ReportedPolicy::Tlsa(records) => ReportedPolicy::Tlsa(truncate(records)),
        ReportedPolicy::Sts { lines, mx } => ReportedPolicy::Sts {
            lines: truncate(lines),
            mx: truncate(mx),
        },
        ReportedPolicy::Nothing => ReportedPolicy::Nothing,
    };
    AppliedPolicy {
        domain: policy.domain.clone(),
        found,
    }
}
