//! The policies that are known, in memory, and the failures that are remembered: who is fresh, who is
//! due, who must go. No I/O; the time comes in.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::failure::Failure;
use super::policy::{Mode, Policy};
use crate::address::Domain;

/// Policies that are kept, at most.
const POLICIES_MAX: usize = 10_000;
/// Octets that they may take up together, roughly. Policies are some hundred octets; only one that is
/// meant to fill our memory is not, and the heaviest go first.
const WEIGHT_MAX: usize = 32 << 20;
/// Failures that are remembered, at most.
const TROUBLES_MAX: usize = 10_000;

/// How often a policy in use is held against the domain's record.
const CHECKED_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// How long after a fetch a policy is fetched again at the latest (RFC 8461 §3.3 suggests daily).
const REFRESHED_EVERY: SignedDuration = SignedDuration::from_hours(24);
/// A policy that is kept for less than this is not fetched in advance: who sends to it will.
const TOO_SHORT: SignedDuration = SignedDuration::from_hours(1);
/// Policies that nobody has asked for in this time are not fetched in advance.
const UNUSED: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long a failed fetch is remembered (RFC 8461 §3.3 suggests five minutes).
const FAILED_FETCH: SignedDuration = SignedDuration::from_mins(5);
/// How long a failed lookup is: DNS recovers sooner, and mail meanwhile goes without the policy.
const FAILED_LOOKUP: SignedDuration = SignedDuration::from_secs(30);
/// In so many rounds, of a minute each, a policy must be found to have expired before it is dropped: a clock that is
/// ahead, as at a start without a network, may be put right meanwhile, and without its policy mail would go unprotected.
const ROUNDS_OVER: u32 = 24 * 60;
/// How long the pause grows to where a policy in the cache makes waiting harmless.
const PAUSE_MAX: SignedDuration = SignedDuration::from_hours(1);

/// A policy with its dates.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) policy: Arc<Policy>,
    /// When somebody last asked for it.
    pub(super) used: Timestamp,
    /// When it was last held against the domain's record.
    checked: Timestamp,
    /// When it is to be fetched again.
    refresh: Timestamp,
    /// Whether `used` is newer than what the disk has.
    unsaved: bool,
    /// In so many rounds it was found to have expired.
    over: u32,
}

/// A failure and until when it counts.
#[derive(Debug)]
struct Trouble {
    failure: Arc<Failure>,
    until: Timestamp,
    times: u32,
}

/// What is known of a domain.
#[derive(Debug)]
pub(super) enum Known {
    /// A policy that counts; it may be time to hold it against the record.
    Policy { policy: Arc<Policy>, check: bool },
    /// No policy, and the last try failed a short while ago.
    Failed(Arc<Failure>),
    /// Nothing that would spare a lookup.
    Nothing,
}

/// What a try came to that did not bring a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// A policy in the cache is still in force; whether its mode makes the failure worth an alarm.
    Cached(Mode),
    /// There is none.
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Shelf {
    kept: HashMap<Domain, Kept>,
    troubles: HashMap<Domain, Trouble>,
    weight: usize,
    /// Spreads the refreshes, so that what was fetched in one hour is not fetched again in one.
    spread: RandomState,
}

impl Shelf {
    /// What is known, for somebody who is about to send mail.
    pub(super) fn look(&mut self, domain: &Domain, now: Timestamp) -> Known {
        let troubled = self.trouble(domain, now).cloned();
        if let Some(kept) = self.kept.get_mut(domain) {
            (kept.used, kept.unsaved) = (now, true);
            if now < kept.policy.expires() {
                let check = troubled.is_none() && now.duration_since(kept.checked).abs() >= CHECKED_EVERY;
                if check {
                    // Whoever comes next need not start the same.
                    kept.checked = now;
                }
                return Known::Policy { policy: Arc::clone(&kept.policy), check };
            }
        }
        troubled.map_or(Known::Nothing, Known::Failed)
    }

    /// How many policies are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The policy in force, without leaving a trace.
    pub(super) fn policy(&self, domain: &Domain, now: Timestamp) -> Option<&Arc<Policy>> {
        self.kept.get(domain).map(|kept| &kept.policy).filter(|policy| now < policy.expires())
    }

    /// When somebody last asked for a domain's policy, which may have expired since.
    pub(super) fn used(&self, domain: &Domain) -> Option<Timestamp> {
        self.kept.get(domain).map(|kept| kept.used)
    }

    /// The last failure, while it counts.
    pub(super) fn trouble(&self, domain: &Domain, now: Timestamp) -> Option<&Arc<Failure>> {
        // One from a time when the clock was ahead does not count until the clock is there again.
        let counts = |trouble: &&Trouble| now < trouble.until && trouble.until.duration_since(now) <= PAUSE_MAX;
        self.troubles.get(domain).filter(counts).map(|trouble| &trouble.failure)
    }

    /// Takes a policy in, new or from disk. Returns whose policies had to go for it.
    pub(super) fn put(&mut self, policy: Arc<Policy>, used: Timestamp) -> Vec<Domain> {
        let domain = policy.domain().clone();
        self.troubles.remove(&domain);
        let refresh = self.refresh(&policy);
        self.weight += policy.weight();
        let checked = policy.fetched();
        let kept = Kept { policy, used, checked, refresh, unsaved: false, over: 0 };
        if let Some(old) = self.kept.insert(domain, kept) {
            self.weight -= old.policy.weight();
        }
        self.make_room(POLICIES_MAX, WEIGHT_MAX)
    }

    fn refresh(&self, policy: &Policy) -> Timestamp {
        let life = policy.expires().duration_since(policy.fetched());
        if life < TOO_SHORT {
            return Timestamp::MAX;
        }
        let span = life.min(REFRESHED_EVERY).as_secs();
        // From three quarters of it to the whole, but well before the end.
        let dice = i64::try_from(self.spread.hash_one((policy.domain(), policy.fetched())) % 200).unwrap_or(0);
        let wait = SignedDuration::from_secs(span / 1000 * (750 + dice));
        policy.fetched().checked_add(wait).unwrap_or(Timestamp::MAX)
    }

    fn make_room(&mut self, policies: usize, weight: usize) -> Vec<Domain> {
        let mut gone = Vec::new();
        while self.kept.len() > policies || self.weight > weight {
            let all = self.kept.iter();
            let last = if self.weight > weight {
                all.max_by_key(|(_, kept)| kept.policy.weight())
            } else {
                all.min_by_key(|(_, kept)| (kept.over == 0, kept.policy.mode() != Mode::None, kept.used))
            };
            let Some(domain) = last.map(|(domain, _)| domain.clone()) else { break };
            self.remove(&domain);
            gone.push(domain);
        }
        gone
    }

    fn remove(&mut self, domain: &Domain) {
        if let Some(kept) = self.kept.remove(domain) {
            self.weight -= kept.policy.weight();
        }
    }

    /// Notes that the record was looked up, and gave no reason to fetch anything.
    pub(super) fn confirm(&mut self, domain: &Domain, now: Timestamp) {
        self.troubles.remove(domain);
        if let Some(kept) = self.kept.get_mut(domain) {
            kept.checked = now;
            if kept.refresh <= now {
                // There was nothing to fetch: next time, before the end if there is time.
                kept.refresh = now.checked_add(PAUSE_MAX).unwrap_or(Timestamp::MAX);
            }
        }
    }

    /// Remembers a failure for a while, a longer one with each time where a policy is in force.
    pub(super) fn fail(&mut self, domain: &Domain, failure: &Arc<Failure>, now: Timestamp) -> Held {
        let held = self.policy(domain, now).map_or(Held::Nothing, |policy| Held::Cached(policy.mode()));
        let times = self.troubles.get(domain).map_or(0, |trouble| trouble.times).saturating_add(1);
        let first = match **failure {
            Failure::Lookup(_) | Failure::CutShort => FAILED_LOOKUP,
            Failure::Fetch(_) | Failure::ContentType(_) | Failure::Invalid(_) | Failure::Overrun(_) => FAILED_FETCH,
        };
        let pause = match held {
            Held::Nothing => first,
            Held::Cached(_) => (FAILED_FETCH * 2_i32.pow(times.min(5) - 1)).min(PAUSE_MAX),
        };
        let until = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        if self.troubles.len() >= TROUBLES_MAX && !self.troubles.contains_key(domain) {
            self.forget_one_trouble(now);
        }
        self.troubles.insert(domain.clone(), Trouble { failure: Arc::clone(failure), until, times });
        held
    }

    fn forget_one_trouble(&mut self, now: Timestamp) {
        self.troubles.retain(|_, trouble| now < trouble.until);
        if self.troubles.len() >= TROUBLES_MAX {
            let soonest = self.troubles.iter().min_by_key(|(_, trouble)| trouble.until);
            if let Some(domain) = soonest.map(|(domain, _)| domain.clone()) {
                self.troubles.remove(&domain);
            }
        }
    }

    /// Whose policies are to be fetched again now, the most urgent first.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Domain> {
        let wanted =
            |kept: &Kept| kept.refresh <= now && now < kept.policy.expires() && now.duration_since(kept.used) < UNUSED;
        let mut due: Vec<_> = self
            .kept
            .iter()
            .filter(|(domain, kept)| wanted(kept) && self.trouble(domain, now).is_none())
            .map(|(domain, kept)| (kept.policy.expires(), domain.clone()))
            .collect();
        due.sort();
        due.into_iter().map(|(_, domain)| domain).collect()
    }

    /// Drops what has not counted for long, and says whose policies those were. To be called once a round.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Domain> {
        let over = |(domain, kept): (&Domain, &mut Kept)| {
            kept.over = if kept.policy.expires() <= now { kept.over + 1 } else { 0 };
            (kept.over >= ROUNDS_OVER).then(|| domain.clone())
        };
        let gone: Vec<_> = self.kept.iter_mut().filter_map(over).collect();
        for domain in &gone {
            self.remove(domain);
        }
        // A trouble outlives its pause by as much again, so that the next pause grows.
        let long_ago = now.checked_sub(PAUSE_MAX).unwrap_or(Timestamp::MIN);
        self.troubles.retain(|_, trouble| long_ago < trouble.until);
        gone
    }

    /// The dates of use that the disk does not have; from now on it does.
    pub(super) fn take_unsaved(&mut self) -> Vec<(Domain, Timestamp)> {
        let unsaved = |(domain, kept): (&Domain, &mut Kept)| {
            std::mem::take(&mut kept.unsaved).then(|| (domain.clone(), kept.used))
        };
        self.kept.iter_mut().filter_map(unsaved).collect()
    }

    /// Everything, for a disk that has lost it.
    pub(super) fn all(&self) -> Vec<(Arc<Policy>, Timestamp)> {
        self.kept.values().map(|kept| (Arc::clone(&kept.policy), kept.used)).collect()
    }
}

#[cfg(test)]
mod tests;
