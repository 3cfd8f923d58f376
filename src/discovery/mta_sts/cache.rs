//! The cache of policies and of failed fetches, in memory. No I/O and no clock: callers pass the
//! time.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::failure::MtaStsFailure;
use super::policy::{MtaStsMode, MtaStsPolicy};
use crate::smtp::address::Domain;

/// The maximum number of policies.
// Rule: RFC 8461 §10.3.
const POLICIES_MAX: usize = 10_000;
/// The approximate maximum memory of all policies in octets. A policy normally takes some hundred
/// octets; the largest are removed first, since only a hostile one is large.
const WEIGHT_MAX: usize = 32 << 20;
/// The maximum number of failures.
// Rule: RFC 8461 §10.3.
const FAILURES_MAX: usize = 10_000;

/// The interval at which the record of a policy in use is checked.
const CHECK_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
/// The maximum age of a policy before it is fetched again (RFC 8461 §3.3 suggests daily).
const REFRESH_INTERVAL: SignedDuration = SignedDuration::from_hours(24);
/// Policies with a shorter `max_age` are not fetched in advance. The next delivery fetches them.
const REFRESH_MIN_AGE: SignedDuration = SignedDuration::from_hours(1);
/// The time without use after which a policy is not fetched in advance any more.
const UNUSED_AFTER: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The lifetime of a failed fetch (RFC 8461 §3.3 suggests five minutes).
const FETCH_RETRY: SignedDuration = SignedDuration::from_mins(5);
/// The lifetime of a failed DNS lookup. It is shorter, since DNS recovers sooner and mail goes
/// without the policy meanwhile.
const LOOKUP_RETRY: SignedDuration = SignedDuration::from_secs(30);
/// The number of rounds, of a minute each, in which a policy must be found expired before it is
/// removed. If the clock is ahead for a while, as at a start without a network, policies survive
/// until it is corrected.
const EXPIRED_ROUNDS: u32 = 24 * 60;
/// The maximum pause between failed fetches while a policy is in force.
const RETRY_MAX: SignedDuration = SignedDuration::from_hours(1);

/// A policy with its times.
#[derive(Debug, Clone)]
pub(super) struct CachedPolicy {
    pub(super) policy: Arc<MtaStsPolicy>,
    /// The time of the last delivery that asked for it.
    pub(super) used: Timestamp,
    /// The time of the last check of its record.
    checked: Timestamp,
    /// The time at which it is fetched again.
    refresh: Timestamp,
    /// True if `used` is newer than on disk.
    unsaved: bool,
    /// The number of consecutive rounds in which the policy was found expired.
    expired_rounds: u32,
}

/// A failed fetch with its end of life.
#[derive(Debug)]
struct CachedFailure {
    failure: Arc<MtaStsFailure>,
    until: Timestamp,
    times: u32,
}

/// The result of a search in the cache.
#[derive(Debug)]
pub(super) enum CacheLookup {
    /// An unexpired policy. With `check`, its record is due to be checked.
    Policy {
        policy: Arc<MtaStsPolicy>,
        check: bool,
    },
    /// No policy, and a failure that still counts.
    Failed(Arc<MtaStsFailure>),
    /// Neither a policy nor a failure: a fetch is needed.
    Miss,
}

/// The policies and failures of all domains.
// Rule: RFC 8461 §3.3, §8.1.
#[derive(Debug, Default)]
pub(super) struct PolicyCache {
    policies: HashMap<Domain, CachedPolicy>,
    failures: HashMap<Domain, CachedFailure>,
    weight: usize,
    /// The seed that spreads refreshes, so that policies fetched together are not refreshed
    /// together.
    spread: RandomState,
}

impl PolicyCache {
    /// Searches the cache for a delivery, and records the use of the policy.
    pub(super) fn look_up(&mut self, domain: &Domain, now: Timestamp) -> CacheLookup {
        let failed = self.failure(domain, now).cloned();
        if let Some(entry) = self.policies.get_mut(domain) {
            (entry.used, entry.unsaved) = (now, true);
            if now < entry.policy.expires() {
                let check =
                    failed.is_none() && now.duration_since(entry.checked).abs() >= CHECK_INTERVAL;
                if check {
                    // Later callers do not start the same check.
                    entry.checked = now;
                }
                return CacheLookup::Policy {
                    policy: Arc::clone(&entry.policy),
                    check,
                };
            }
        }
        failed.map_or(CacheLookup::Miss, CacheLookup::Failed)
    }

    /// Returns the number of policies.
    pub(super) fn len(&self) -> usize {
        self.policies.len()
    }

    /// Returns the unexpired policy of a domain without recording a use.
    pub(super) fn policy(&self, domain: &Domain, now: Timestamp) -> Option<&Arc<MtaStsPolicy>> {
        self.policies
            .get(domain)
            .map(|entry| &entry.policy)
            .filter(|policy| now < policy.expires())
    }

    /// Returns the time of the last use of a domain's policy, expired or not.
    pub(super) fn used(&self, domain: &Domain) -> Option<Timestamp> {
        self.policies.get(domain).map(|entry| entry.used)
    }

    /// Returns the policy of a domain, expired or not, with its last use.
    pub(super) fn stored(&self, domain: &Domain) -> Option<(Arc<MtaStsPolicy>, Timestamp)> {
        let entry = self.policies.get(domain)?;
        Some((Arc::clone(&entry.policy), entry.used))
    }

    /// Returns the last failure of a domain while it counts.
    pub(super) fn failure(&self, domain: &Domain, now: Timestamp) -> Option<&Arc<MtaStsFailure>> {
        // A failure recorded while the clock was ahead must not count until the clock gets there
        // again.
        let counts = |failure: &&CachedFailure| {
            now < failure.until && failure.until.duration_since(now) <= RETRY_MAX
        };
        self.failures
            .get(domain)
            .filter(counts)
            .map(|failure| &failure.failure)
    }

    /// Inserts a policy. Returns the domains whose policies were removed to make space for it.
    pub(super) fn put(&mut self, policy: Arc<MtaStsPolicy>, used: Timestamp) -> Vec<Domain> {
        let domain = policy.domain().clone();
        self.failures.remove(&domain);
        let refresh = self.refresh_time(&policy);
        self.weight += policy.weight();
        let checked = policy.fetched();
        let entry = CachedPolicy {
            policy,
            used,
            checked,
            refresh,
            unsaved: false,
            expired_rounds: 0,
        };
        if let Some(old) = self.policies.insert(domain, entry) {
            self.weight -= old.policy.weight();
        }
        self.evict(POLICIES_MAX, WEIGHT_MAX)
    }

    fn refresh_time(&self, policy: &MtaStsPolicy) -> Timestamp {
        let life = policy.expires().duration_since(policy.fetched());
        if life < REFRESH_MIN_AGE {
            return Timestamp::MAX;
        }
        let span = life.min(REFRESH_INTERVAL).as_secs();
        // The refresh happens at a random point between 75 % and 95 % of the interval.
        let offset = i64::try_from(self.spread.hash_one((policy.domain(), policy.fetched())) % 200)
            .unwrap_or(0);
        let wait = SignedDuration::from_secs(span / 1000 * (750 + offset));
        policy.fetched().checked_add(wait).unwrap_or(Timestamp::MAX)
    }

    fn evict(&mut self, policies: usize, weight: usize) -> Vec<Domain> {
        let mut removed = Vec::new();
        while self.policies.len() > policies || self.weight > weight {
            let all = self.policies.iter();
            let last = if self.weight > weight {
                all.max_by_key(|(_, entry)| entry.policy.weight())
            } else {
                all.min_by_key(|(_, entry)| {
                    (
                        entry.expired_rounds == 0,
                        entry.policy.mode() != MtaStsMode::None,
                        entry.used,
                    )
                })
            };
            let Some(domain) = last.map(|(domain, _)| domain.clone()) else {
                break;
            };
            self.remove(&domain);
            removed.push(domain);
        }
        removed
    }

    fn remove(&mut self, domain: &Domain) {
        if let Some(entry) = self.policies.remove(domain) {
            self.weight -= entry.policy.weight();
        }
    }

    /// Records that the domain's record was looked up and gave no reason for a fetch.
    pub(super) fn confirm(&mut self, domain: &Domain, now: Timestamp) {
        self.failures.remove(domain);
        if let Some(entry) = self.policies.get_mut(domain) {
            entry.checked = now;
            if entry.refresh <= now {
                // The policy host was not asked. The policy is due again in an hour, before it
                // expires if possible.
                entry.refresh = now.checked_add(RETRY_MAX).unwrap_or(Timestamp::MAX);
            }
        }
    }

    /// Records a failed fetch. The pause before the next fetch doubles with each failure while a
    /// policy is in force. Returns the mode of that policy.
    pub(super) fn fail(
        &mut self,
        domain: &Domain,
        failure: &Arc<MtaStsFailure>,
        now: Timestamp,
    ) -> Option<MtaStsMode> {
        let mode = self.policy(domain, now).map(|policy| policy.mode());
        let times = self
            .failures
            .get(domain)
            .map_or(0, |failure| failure.times)
            .saturating_add(1);
        let first = match **failure {
            MtaStsFailure::Lookup(_) | MtaStsFailure::CutShort => LOOKUP_RETRY,
            MtaStsFailure::Fetch(_)
            | MtaStsFailure::ContentType(_)
            | MtaStsFailure::Invalid(_)
            | MtaStsFailure::Overrun(_) => FETCH_RETRY,
        };
        let pause = match mode {
            None => first,
            Some(_) => (FETCH_RETRY * 2_i32.pow(times.min(5) - 1)).min(RETRY_MAX),
        };
        let until = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        if self.failures.len() >= FAILURES_MAX && !self.failures.contains_key(domain) {
            self.evict_failure(now);
        }
        self.failures.insert(
            domain.clone(),
            CachedFailure {
                failure: Arc::clone(failure),
                until,
                times,
            },
        );
        mode
    }

    fn evict_failure(&mut self, now: Timestamp) {
        self.failures.retain(|_, failure| now < failure.until);
        if self.failures.len() >= FAILURES_MAX {
            let soonest = self
                .failures
                .iter()
                .min_by_key(|(_, failure)| failure.until);
            if let Some(domain) = soonest.map(|(domain, _)| domain.clone()) {
                self.failures.remove(&domain);
            }
        }
    }

    /// Returns the domains whose policies are due to be fetched again; those that expire first come
    /// first.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Domain> {
        let is_due = |entry: &CachedPolicy| {
            entry.refresh <= now
                && now < entry.policy.expires()
                && now.duration_since(entry.used) < UNUSED_AFTER
        };
        let mut due: Vec<_> = self
            .policies
            .iter()
            .filter(|(domain, entry)| is_due(entry) && self.failure(domain, now).is_none())
            .map(|(domain, entry)| (entry.policy.expires(), domain.clone()))
            .collect();
        due.sort();
        due.into_iter().map(|(_, domain)| domain).collect()
    }

    /// Removes policies that expired long ago and returns their domains. Called once a round.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Domain> {
        let count_round = |(domain, entry): (&Domain, &mut CachedPolicy)| {
            entry.expired_rounds = if entry.policy.expires() <= now {
                entry.expired_rounds + 1
            } else {
                0
            };
            (entry.expired_rounds >= EXPIRED_ROUNDS).then(|| domain.clone())
        };
        let removed: Vec<_> = self.policies.iter_mut().filter_map(count_round).collect();
        for domain in &removed {
            self.remove(domain);
        }
        // A failure is kept for a while after its pause, so that the next pause is longer.
        let long_ago = now.checked_sub(RETRY_MAX).unwrap_or(Timestamp::MIN);
        self.failures.retain(|_, failure| long_ago < failure.until);
        removed
    }

    /// Returns the times of use that the disk does not have, and counts them as saved.
    pub(super) fn take_unsaved(&mut self) -> Vec<(Domain, Timestamp)> {
        let unsaved = |(domain, entry): (&Domain, &mut CachedPolicy)| {
            std::mem::take(&mut entry.unsaved).then(|| (domain.clone(), entry.used))
        };
        self.policies.iter_mut().filter_map(unsaved).collect()
    }

    /// Returns all policies with their last use, to write them to a new file.
    pub(super) fn all(&self) -> Vec<(Arc<MtaStsPolicy>, Timestamp)> {
        self.policies
            .values()
            .map(|entry| (Arc::clone(&entry.policy), entry.used))
            .collect()
    }
}

#[cfg(test)]
mod tests;
