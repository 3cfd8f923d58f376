//! The policies that are known, in memory, and the failures that are remembered: who is fresh, who is
//! due, who must go. No I/O; the time comes in.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::failure::StsFailure;
use super::policy::{StsMode, StsPolicy};
use crate::address::Domain;

/// Policies that are entry, at most.
const POLICIES_MAX: usize = 10_000;
/// Octets that they may take up together, roughly. Policies are some hundred octets; only one that is
/// meant to fill our memory is not, and the heaviest go first.
const WEIGHT_MAX: usize = 32 << 20;
/// Failures that are remembered, at most.
const FAILURES_MAX: usize = 10_000;

/// How often a policy in use is held against the domain's record.
const CHECK_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
/// How long after a fetch a policy is fetched again at the latest (RFC 8461 §3.3 suggests daily).
const REFRESH_INTERVAL: SignedDuration = SignedDuration::from_hours(24);
/// A policy that is entry for less than this is not fetched in advance: who sends to it will.
const REFRESH_MIN_AGE: SignedDuration = SignedDuration::from_hours(1);
/// Policies that nobody has asked for in this time are not fetched in advance.
const UNUSED_AFTER: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long a failed fetch is remembered (RFC 8461 §3.3 suggests five minutes).
const FETCH_RETRY: SignedDuration = SignedDuration::from_mins(5);
/// How long a failed lookup is: DNS recovers sooner, and mail meanwhile goes without the policy.
const LOOKUP_RETRY: SignedDuration = SignedDuration::from_secs(30);
/// In so many rounds, of a minute each, a policy must be found to have expired before it is dropped: a clock that is
/// ahead, as at a start without a network, may be put right meanwhile, and without its policy mail would go unprotected.
const EXPIRED_ROUNDS: u32 = 24 * 60;
/// How long the pause grows to where a policy in the cache makes waiting harmless.
const RETRY_MAX: SignedDuration = SignedDuration::from_hours(1);

/// A policy with its dates.
#[derive(Debug, Clone)]
pub(super) struct CachedPolicy {
    pub(super) policy: Arc<StsPolicy>,
    /// When somebody last asked for it.
    pub(super) used: Timestamp,
    /// When it was last held against the domain's record.
    checked: Timestamp,
    /// When it is to be fetched again.
    refresh: Timestamp,
    /// Whether `used` is newer than what the disk has.
    unsaved: bool,
    /// In so many rounds it was found to have expired.
    expired_rounds: u32,
}

/// A failure and until when it counts.
#[derive(Debug)]
struct CachedFailure {
    failure: Arc<StsFailure>,
    until: Timestamp,
    times: u32,
}

/// What is known of a domain.
#[derive(Debug)]
pub(super) enum CacheLookup {
    /// A policy that counts; it may be time to hold it against the record.
    Policy { policy: Arc<StsPolicy>, check: bool },
    /// No policy, and the last try failed a short while ago.
    Failed(Arc<StsFailure>),
    /// Nothing that would spare a lookup.
    Miss,
}

#[derive(Debug, Default)]
pub(super) struct PolicyCache {
    policies: HashMap<Domain, CachedPolicy>,
    failures: HashMap<Domain, CachedFailure>,
    weight: usize,
    /// Spreads the refreshes, so that what was fetched in one hour is not fetched again in one.
    spread: RandomState,
}

impl PolicyCache {
    /// What is known, for somebody who is about to send mail.
    pub(super) fn look_up(&mut self, domain: &Domain, now: Timestamp) -> CacheLookup {
        let failed = self.failure(domain, now).cloned();
        if let Some(entry) = self.policies.get_mut(domain) {
            (entry.used, entry.unsaved) = (now, true);
            if now < entry.policy.expires() {
                let check = failed.is_none() && now.duration_since(entry.checked).abs() >= CHECK_INTERVAL;
                if check {
                    // Whoever comes next need not start the same.
                    entry.checked = now;
                }
                return CacheLookup::Policy { policy: Arc::clone(&entry.policy), check };
            }
        }
        failed.map_or(CacheLookup::Miss, CacheLookup::Failed)
    }

    /// How many policies are entry.
    pub(super) fn len(&self) -> usize {
        self.policies.len()
    }

    /// The policy in force, without leaving a trace.
    pub(super) fn policy(&self, domain: &Domain, now: Timestamp) -> Option<&Arc<StsPolicy>> {
        self.policies.get(domain).map(|entry| &entry.policy).filter(|policy| now < policy.expires())
    }

    /// When somebody last asked for a domain's policy, which may have expired since.
    pub(super) fn used(&self, domain: &Domain) -> Option<Timestamp> {
        self.policies.get(domain).map(|entry| entry.used)
    }

    /// The last failure, while it counts.
    pub(super) fn failure(&self, domain: &Domain, now: Timestamp) -> Option<&Arc<StsFailure>> {
        // One from a time when the clock was ahead does not count until the clock is there again.
        let counts = |failure: &&CachedFailure| now < failure.until && failure.until.duration_since(now) <= RETRY_MAX;
        self.failures.get(domain).filter(counts).map(|failure| &failure.failure)
    }

    /// Takes a policy in, new or from disk. Returns whose policies had to go for it.
    pub(super) fn put(&mut self, policy: Arc<StsPolicy>, used: Timestamp) -> Vec<Domain> {
        let domain = policy.domain().clone();
        self.failures.remove(&domain);
        let refresh = self.refresh(&policy);
        self.weight += policy.weight();
        let checked = policy.fetched();
        let entry = CachedPolicy { policy, used, checked, refresh, unsaved: false, expired_rounds: 0 };
        if let Some(old) = self.policies.insert(domain, entry) {
            self.weight -= old.policy.weight();
        }
        self.evict(POLICIES_MAX, WEIGHT_MAX)
    }

    fn refresh(&self, policy: &StsPolicy) -> Timestamp {
        let life = policy.expires().duration_since(policy.fetched());
        if life < REFRESH_MIN_AGE {
            return Timestamp::MAX;
        }
        let span = life.min(REFRESH_INTERVAL).as_secs();
        // From three quarters of it to the whole, but well before the end.
        let dice = i64::try_from(self.spread.hash_one((policy.domain(), policy.fetched())) % 200).unwrap_or(0);
        let wait = SignedDuration::from_secs(span / 1000 * (750 + dice));
        policy.fetched().checked_add(wait).unwrap_or(Timestamp::MAX)
    }

    fn evict(&mut self, policies: usize, weight: usize) -> Vec<Domain> {
        let mut gone = Vec::new();
        while self.policies.len() > policies || self.weight > weight {
            let all = self.policies.iter();
            let last = if self.weight > weight {
                all.max_by_key(|(_, entry)| entry.policy.weight())
            } else {
                all.min_by_key(|(_, entry)| {
                    (entry.expired_rounds == 0, entry.policy.mode() != StsMode::None, entry.used)
                })
            };
            let Some(domain) = last.map(|(domain, _)| domain.clone()) else { break };
            self.remove(&domain);
            gone.push(domain);
        }
        gone
    }

    fn remove(&mut self, domain: &Domain) {
        if let Some(entry) = self.policies.remove(domain) {
            self.weight -= entry.policy.weight();
        }
    }

    /// Notes that the record was looked up, and gave no reason to fetch anything.
    pub(super) fn confirm(&mut self, domain: &Domain, now: Timestamp) {
        self.failures.remove(domain);
        if let Some(entry) = self.policies.get_mut(domain) {
            entry.checked = now;
            if entry.refresh <= now {
                // There was nothing to fetch: next time, before the end if there is time.
                entry.refresh = now.checked_add(RETRY_MAX).unwrap_or(Timestamp::MAX);
            }
        }
    }

    /// Remembers a failure for a while, a longer one with each time where a policy is in force.
    pub(super) fn fail(&mut self, domain: &Domain, failure: &Arc<StsFailure>, now: Timestamp) -> Option<StsMode> {
        let mode = self.policy(domain, now).map(|policy| policy.mode());
        let times = self.failures.get(domain).map_or(0, |failure| failure.times).saturating_add(1);
        let first = match **failure {
            StsFailure::Lookup(_) | StsFailure::CutShort => LOOKUP_RETRY,
            StsFailure::Fetch(_) | StsFailure::ContentType(_) | StsFailure::Invalid(_) | StsFailure::Overrun(_) => {
                FETCH_RETRY
            }
        };
        let pause = match mode {
            None => first,
            Some(_) => (FETCH_RETRY * 2_i32.pow(times.min(5) - 1)).min(RETRY_MAX),
        };
        let until = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        if self.failures.len() >= FAILURES_MAX && !self.failures.contains_key(domain) {
            self.evict_failure(now);
        }
        self.failures.insert(domain.clone(), CachedFailure { failure: Arc::clone(failure), until, times });
        mode
    }

    fn evict_failure(&mut self, now: Timestamp) {
        self.failures.retain(|_, failure| now < failure.until);
        if self.failures.len() >= FAILURES_MAX {
            let soonest = self.failures.iter().min_by_key(|(_, failure)| failure.until);
            if let Some(domain) = soonest.map(|(domain, _)| domain.clone()) {
                self.failures.remove(&domain);
            }
        }
    }

    /// Whose policies are to be fetched again now, the most urgent first.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Domain> {
        let wanted = |entry: &CachedPolicy| {
            entry.refresh <= now && now < entry.policy.expires() && now.duration_since(entry.used) < UNUSED_AFTER
        };
        let mut due: Vec<_> = self
            .policies
            .iter()
            .filter(|(domain, entry)| wanted(entry) && self.failure(domain, now).is_none())
            .map(|(domain, entry)| (entry.policy.expires(), domain.clone()))
            .collect();
        due.sort();
        due.into_iter().map(|(_, domain)| domain).collect()
    }

    /// Drops what has not counted for long, and says whose policies those were. To be called once a round.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Domain> {
        let expired_rounds = |(domain, entry): (&Domain, &mut CachedPolicy)| {
            entry.expired_rounds = if entry.policy.expires() <= now { entry.expired_rounds + 1 } else { 0 };
            (entry.expired_rounds >= EXPIRED_ROUNDS).then(|| domain.clone())
        };
        let gone: Vec<_> = self.policies.iter_mut().filter_map(expired_rounds).collect();
        for domain in &gone {
            self.remove(domain);
        }
        // A failure outlives its pause by as much again, so that the next pause grows.
        let long_ago = now.checked_sub(RETRY_MAX).unwrap_or(Timestamp::MIN);
        self.failures.retain(|_, failure| long_ago < failure.until);
        gone
    }

    /// The dates of use that the disk does not have; from now on it does.
    pub(super) fn take_unsaved(&mut self) -> Vec<(Domain, Timestamp)> {
        let unsaved = |(domain, entry): (&Domain, &mut CachedPolicy)| {
            std::mem::take(&mut entry.unsaved).then(|| (domain.clone(), entry.used))
        };
        self.policies.iter_mut().filter_map(unsaved).collect()
    }

    /// Everything, for a disk that has lost it.
    pub(super) fn all(&self) -> Vec<(Arc<StsPolicy>, Timestamp)> {
        self.policies.values().map(|entry| (Arc::clone(&entry.policy), entry.used)).collect()
    }
}

#[cfg(test)]
mod tests;
