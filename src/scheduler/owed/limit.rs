//! The rate of reports to senders: so many a minute in all, and so many a minute to one domain.
//!
//! Each rate is a bucket that holds the reports of a minute and is filled evenly. Whoever finds it empty gets the moment
//! at which there is room again, and nobody else gets the same. Mail of strangers has buckets and a table of its own, so
//! that reports to senders that it invents hold up no report about our own mail. Time comes in as an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::address::Host;
use crate::config::Limits;
use crate::envelope::ClientOrigin;

/// The time that the rates are for.
const PERIOD: Duration = Duration::from_mins(1);
/// Domains of one origin whose buckets are kept apart; the others of that origin share one.
const DOMAINS_MAX: usize = 10_000;

/// The addressee of a report, as far as rates depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::scheduler) struct Addressee {
    /// The domain of the sender.
    pub(in crate::scheduler) host: Host,
    /// The kind of client that brought the message.
    pub(in crate::scheduler) origin: ClientOrigin,
}

/// The reports that may be made in a minute.
#[derive(Debug, Clone, Copy)]
pub(in crate::scheduler) struct Rates {
    all: u32,
    domain: u32,
}

impl Rates {
    pub(in crate::scheduler) fn of(limits: &Limits) -> Self {
        Self { all: limits.dsn_per_minute, domain: limits.dsn_per_minute_per_domain }
    }
}

/// The moment at which a bucket is full again: all that is kept of it.
#[derive(Debug, Clone, Copy)]
struct Bucket(Instant);

impl Bucket {
    /// The first moment from `now` on at which there is room.
    fn room_at(self, now: Instant, per_period: u32) -> Instant {
        let others = PERIOD.saturating_sub(interval(per_period));
        self.0.checked_sub(others).map_or(now, |at| at.max(now))
    }

    /// Takes the first room there is; says when that is.
    fn take(&mut self, now: Instant, per_period: u32) -> Instant {
        let at = self.room_at(now, per_period);
        self.0 = self.0.max(now) + interval(per_period);
        at
    }
}

fn interval(per_period: u32) -> Duration {
    PERIOD / per_period.max(1)
}

/// The buckets for mail of one origin.
#[derive(Debug)]
struct Buckets {
    all: Bucket,
    /// Those of domains, unless they are full: a full bucket is as good as none.
    domains: HashMap<Host, Bucket>,
    /// The same domains, in the order in which their buckets are full again.
    full_at: BTreeSet<(Instant, Host)>,
    /// The bucket of the domains that are not kept apart.
    others: Bucket,
}

impl Buckets {
    fn new(now: Instant) -> Self {
        let full = Bucket(now);
        Self { all: full, domains: HashMap::new(), full_at: BTreeSet::new(), others: full }
    }

    /// Forgets the domains whose buckets are full again, each once for each time that it came in.
    fn forget_full(&mut self, now: Instant) {
        while self.full_at.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, host)) = self.full_at.pop_first()
        {
            self.domains.remove(&host);
        }
    }

    /// The first moment from `now` on at which the domain has room.
    fn room_of_domain(&mut self, host: &Host, now: Instant, per_period: u32) -> Instant {
        self.forget_full(now);
        let has_place = self.domains.len() < DOMAINS_MAX;
        let unknown = if has_place { Bucket(now) } else { self.others };
        self.domains.get(host).copied().unwrap_or(unknown).room_at(now, per_period)
    }

    /// Takes the first room of the domain; says when that is.
    fn take_of_domain(&mut self, host: &Host, now: Instant, per_period: u32) -> Instant {
        self.forget_full(now);
        let known = self.domains.get(host).copied();
        if known.is_none() && self.domains.len() >= DOMAINS_MAX {
            return self.others.take(now, per_period);
        }
        if let Some(before) = known {
            self.full_at.remove(&(before.0, host.clone()));
        }
        let mut bucket = known.unwrap_or(Bucket(now));
        let at = bucket.take(now, per_period);
        self.full_at.insert((bucket.0, host.clone()));
        self.domains.insert(host.clone(), bucket);
        at
    }
}

/// The buckets of all reports.
#[derive(Debug)]
pub(in crate::scheduler) struct Limiter {
    known: Buckets,
    strangers: Buckets,
}

impl Limiter {
    pub(in crate::scheduler) fn new(now: Instant) -> Self {
        Self { known: Buckets::new(now), strangers: Buckets::new(now) }
    }

    fn of(&mut self, origin: ClientOrigin) -> &mut Buckets {
        match origin {
            ClientOrigin::Known => &mut self.known,
            ClientOrigin::Stranger => &mut self.strangers,
        }
    }

    /// Takes room for a report if there is some now; says whether there was.
    pub(in crate::scheduler) fn take(&mut self, to: &Addressee, rates: Rates, now: Instant) -> bool {
        let buckets = self.of(to.origin);
        let in_all = buckets.all.room_at(now, rates.all) <= now;
        if !in_all || buckets.room_of_domain(&to.host, now, rates.domain) > now {
            return false;
        }
        buckets.take_of_domain(&to.host, now, rates.domain);
        buckets.all.take(now, rates.all);
        true
    }

    /// Takes the next room of the domain; says when that is.
    pub(super) fn take_of_domain(&mut self, to: &Addressee, rates: Rates, now: Instant) -> Instant {
        self.of(to.origin).take_of_domain(&to.host, now, rates.domain)
    }

    /// Takes the next room among all reports, to be asked when the domain's has come; says when that is.
    pub(super) fn take_of_all(&mut self, to: &Addressee, rates: Rates, now: Instant) -> Instant {
        self.of(to.origin).all.take(now, rates.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Domain;

    const SECOND: Duration = Duration::from_secs(1);

    fn to(name: &str, origin: ClientOrigin) -> Addressee {
        Addressee { host: Host::Domain(Domain::parse(name).expect("valid")), origin }
    }

    fn known(name: &str) -> Addressee {
        to(name, ClientOrigin::Known)
    }

    #[test]
    fn a_minutes_reports_may_go_at_once_and_then_one_after_the_other() {
        let (start, rates) = (Instant::now(), Rates { all: 1000, domain: 6 });
        let mut limiter = Limiter::new(start);
        for _ in 0..6 {
            assert!(limiter.take(&known("a.example"), rates, start));
        }
        assert!(!limiter.take(&known("a.example"), rates, start + 9 * SECOND));
        assert!(limiter.take(&known("b.example"), rates, start), "another domain has its own");
        assert!(limiter.take(&known("a.example"), rates, start + 10 * SECOND));
        assert!(!limiter.take(&known("a.example"), rates, start + 10 * SECOND));
        for _ in 0..6 {
            assert!(limiter.take(&known("a.example"), rates, start + 100 * SECOND), "it is full again, and no more");
        }
        assert!(!limiter.take(&known("a.example"), rates, start + 100 * SECOND));
    }

    #[test]
    fn whoever_waits_for_room_has_it_alone() {
        let (start, rates) = (Instant::now(), Rates { all: 1000, domain: 6 });
        let mut limiter = Limiter::new(start);
        let at: Vec<u64> =
            (0..9).map(|_| (limiter.take_of_domain(&known("a.example"), rates, start) - start).as_secs()).collect();
        assert_eq!(at, [0, 0, 0, 0, 0, 0, 10, 20, 30]);
        assert!(!limiter.take(&known("a.example"), rates, start + 35 * SECOND), "all of it is promised");
        assert!(limiter.take(&known("a.example"), rates, start + 40 * SECOND));
    }

    #[test]
    fn all_reports_together_have_their_own_limit_and_strangers_take_nothing_of_ours() {
        let (start, rates) = (Instant::now(), Rates { all: 60, domain: 1 });
        let mut limiter = Limiter::new(start);
        let stranger = |number: u32| to(&format!("d{number}.example"), ClientOrigin::Stranger);
        for number in 0..60 {
            assert!(limiter.take(&stranger(number), rates, start));
        }
        assert!(!limiter.take(&stranger(60), rates, start));
        assert!(limiter.take(&stranger(60), rates, start + SECOND), "what is refused takes nothing of its domain's");
        assert_eq!(limiter.take_of_all(&stranger(61), rates, start + SECOND), start + 2 * SECOND);
        assert!(limiter.take(&known("d0.example"), rates, start));
    }

    #[test]
    fn the_domains_that_are_kept_apart_are_bounded() {
        let (start, rates) = (Instant::now(), Rates { all: 1_000_000, domain: 1 });
        let mut limiter = Limiter::new(start);
        let domain = |number: usize| known(&format!("d{number}.example"));
        for number in 0..DOMAINS_MAX {
            assert!(limiter.take(&domain(number), rates, start));
        }
        assert!(limiter.take(&domain(DOMAINS_MAX), rates, start), "there is one for all others");
        assert!(!limiter.take(&domain(DOMAINS_MAX + 1), rates, start));
        assert_eq!(limiter.known.domains.len(), DOMAINS_MAX);
        assert!(limiter.take(&domain(DOMAINS_MAX + 1), rates, start + PERIOD));
        assert!(limiter.known.domains.len() < 10, "those that are full again are forgotten");
        assert_eq!(limiter.known.domains.len(), limiter.known.full_at.len());
    }

    #[test]
    fn strangers_who_name_more_domains_than_are_kept_apart_hold_up_no_report_about_our_own_mail() {
        let (start, rates) = (Instant::now(), Rates { all: 1_000_000, domain: 1 });
        let mut limiter = Limiter::new(start);
        for number in 0..DOMAINS_MAX + 100 {
            limiter.take_of_domain(&to(&format!("d{number}.example"), ClientOrigin::Stranger), rates, start);
        }
        for number in 0..10 {
            let ours = known(&format!("ours{number}.example"));
            assert_eq!(limiter.take_of_domain(&ours, rates, start), start, "{number}");
        }
        // One that is full again makes room for another, whatever waits with the others.
        let later = start + PERIOD;
        assert_eq!(limiter.take_of_domain(&to("new.example", ClientOrigin::Stranger), rates, later), later);
    }
}
