//! Observations in, counts to disk: a batch every few seconds, written off the async threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::civil::Date;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::observation::{Failure, Found, Observation, Policy, Session};
use super::report::day_of;
use super::store::{Left, Store};
use crate::address::Domain;

/// How often counts go to disk: what a crash can lose.
const FLUSH: Duration = Duration::from_secs(5);
/// Different counts of one batch, at most.
const BATCH: usize = 4096;
/// Characters of a host's name, of a code and of words, at most.
const NAME_MAX: usize = 255;
const CODE_MAX: usize = 100;
const WORDS_MAX: usize = 300;
/// Strings of a policy, and characters of one, at most.
const STRINGS_MAX: usize = 64;
const STRING_MAX: usize = 1100;

/// What is counted apart from everything else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) day: Date,
    pub(super) domain: Domain,
    pub(super) policy: Arc<Policy>,
    /// Nothing for sessions that succeeded.
    pub(super) failure: Option<Failure>,
}

/// Counts that are not on disk yet.
#[derive(Debug, Default)]
pub(super) struct Batch(HashMap<Key, u64>);

impl Batch {
    pub(super) fn add(&mut self, observation: Observation) {
        let Observation { at, domain, policy, session } = observation;
        let failure = match session {
            Session::Succeeded => None,
            Session::Failed(failure) => Some(clipped(failure)),
        };
        let policy = if fits(&policy) { policy } else { Arc::new(cut(&policy)) };
        *self.0.entry(Key { day: day_of(at), domain, policy, failure }).or_default() += 1;
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.0.iter().map(|(key, sessions)| (key, *sessions))
    }

    fn sessions(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Takes observations in and writes what they come to.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) seen: mpsc::Receiver<Observation>,
    pub(super) dropped: Arc<AtomicU64>,
    pub(super) store: Arc<Store>,
    pub(super) batch: Batch,
}

impl Counter {
    /// Counts until `end`, and then what is still there.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = end.cancelled() => break,
                _ = flush.tick() => self.flush().await,
                seen = self.seen.recv() => match seen {
                    Some(observation) => self.batch.add(observation),
                    None => break,
                },
            }
            if self.batch.0.len() >= BATCH {
                self.flush().await;
            }
        }
        self.count_all().await;
    }

    /// Counts everything that has been observed so far.
    pub(super) async fn count_all(&mut self) {
        while let Ok(observation) = self.seen.try_recv() {
            self.batch.add(observation);
            if self.batch.0.len() >= BATCH {
                self.flush().await;
            }
        }
        self.flush().await;
    }

    async fn flush(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(sessions = dropped, "TLS results came faster than they are counted; these are in no report");
        }
        if self.batch.0.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let (store, sessions) = (Arc::clone(&self.store), batch.sessions());
        // A batch that fails is not tried again: whether it was written is not known, and nothing may
        // count twice.
        match tokio::task::spawn_blocking(move || store.add(&batch)).await {
            Ok(Ok(Left { beyond: 0, late: 0 })) => {}
            Ok(Ok(Left { beyond, late })) => {
                tracing::warn!(
                    beyond,
                    late,
                    "TLS results were not counted: beyond the bounds of a day, or after its report"
                );
            }
            Ok(Err(error)) => {
                tracing::error!(sessions, %error, "TLS results are lost; these sessions are in no report");
            }
            Err(death) => tracing::error!(sessions, %death, "TLS results are lost; these sessions are in no report"),
        }
    }
}

/// A failure whose texts cannot grow, on one line each.
fn clipped(failure: Failure) -> Failure {
    let clip = |text: Option<String>, most: usize| {
        text.map(|text| text.chars().filter(|c| !c.is_control()).take(most).collect::<String>())
            .filter(|text| !text.is_empty())
    };
    let Failure { result, sending_ip, mx, helo, receiving_ip, reason, information } = failure;
    Failure {
        result,
        sending_ip,
        mx: clip(mx, NAME_MAX),
        helo: clip(helo, NAME_MAX),
        receiving_ip,
        reason: clip(reason, CODE_MAX),
        information: clip(information, WORDS_MAX),
    }
}

fn fits(policy: &Policy) -> bool {
    let fit = |strings: &[String]| strings.len() <= STRINGS_MAX && strings.iter().all(|one| one.len() <= STRING_MAX);
    match &policy.found {
        Found::Tlsa(records) => fit(records),
        Found::Sts { lines, mx } => fit(lines) && fit(mx),
        Found::Nothing => true,
    }
}

fn cut(policy: &Policy) -> Policy {
    let cut = |strings: &[String]| {
        strings.iter().take(STRINGS_MAX).map(|one| one.chars().take(STRING_MAX / 4).collect()).collect::<Vec<String>>()
    };
    let found = match &policy.found {
        Found::Tlsa(records) => Found::Tlsa(cut(records)),
        Found::Sts { lines, mx } => Found::Sts { lines: cut(lines), mx: cut(mx) },
        Found::Nothing => Found::Nothing,
    };
    Policy { domain: policy.domain.clone(), found }
}
