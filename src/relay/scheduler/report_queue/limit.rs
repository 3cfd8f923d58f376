//! The rate limit of reports to senders: per minute in all, and per minute to one domain.
//!
//! Each rate is a token bucket that holds the reports of a minute and refills evenly. A report that
//! finds it empty reserves the next free time. Mail of strangers has buckets of its own, so that
//! reports to invented senders do not delay reports about mail of our clients. Time comes in as an
//! argument.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::smtp::address::Host;
use crate::smtp::envelope::ClientOrigin;

/// The period of the rates.
const PERIOD: Duration = Duration::from_mins(1);
/// The most domains of one origin with a bucket of their own. Further domains of that origin share
/// one.
const DOMAINS_MAX: usize = 10_000;

/// The properties of a report's addressee that rates depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::relay::scheduler) struct Addressee {
    /// The domain of the sender.
    pub(in crate::relay::scheduler) host: Host,
    /// The kind of client that brought the message.
    pub(in crate::relay::scheduler) origin: ClientOrigin,
}

/// The configured rates of reports per minute.
#[derive(Debug, Clone, Copy)]
pub(in crate::relay::scheduler) struct ReportRates {
    all: u32,
    domain: u32,
}

impl ReportRates {
    pub(in crate::relay::scheduler) fn of(limits: &Limits) -> Self {
        Self {
            all: limits.dsn_per_minute,
            domain: limits.dsn_per_minute_per_domain,
        }
    }
}

/// A token bucket, stored as the time at which it is full again.
#[derive(Debug, Clone, Copy)]
struct Bucket(Instant);

impl Bucket {
    /// Returns the first time from `now` on at which the bucket has a token.
    fn next_token_at(self, now: Instant, per_period: u32) -> Instant {
        let others = PERIOD.saturating_sub(interval(per_period));
        self.0.checked_sub(others).map_or(now, |at| at.max(now))
    }

    /// Reserves the next token and returns its time.
    fn take(&mut self, now: Instant, per_period: u32) -> Instant {
        let at = self.next_token_at(now, per_period);
        self.0 = self.0.max(now) + interval(per_period);
        at
    }
}

/// Returns the time between two tokens.
fn interval(per_period: u32) -> Duration {
    PERIOD / per_period.max(1)
}

/// The buckets for mail of one origin.
#[derive(Debug)]
struct Buckets {
    all: Bucket,
    /// The buckets of domains. A full bucket is not stored.
    domains: HashMap<Host, Bucket>,
    /// The same domains, by the time at which their buckets are full again.
    full_at: BTreeSet<(Instant, Host)>,
    /// The bucket of the domains without one of their own.
    others: Bucket,
}

impl Buckets {
    fn new(now: Instant) -> Self {
        let full = Bucket(now);
        Self {
            all: full,
            domains: HashMap::new(),
            full_at: BTreeSet::new(),
            others: full,
        }
    }

    /// Removes the domains whose buckets are full again.
    fn forget_full(&mut self, now: Instant) {
        while self.full_at.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, host)) = self.full_at.pop_first()
        {
            self.domains.remove(&host);
        }
    }

    /// Returns the first time from `now` on at which the domain has a token.
    fn next_domain_token_at(&mut self, host: &Host, now: Instant, per_period: u32) -> Instant {
        self.forget_full(now);
        let has_place = self.domains.len() < DOMAINS_MAX;
        let unknown = if has_place { Bucket(now) } else { self.others };
        self.domains
            .get(host)
            .copied()
            .unwrap_or(unknown)
            .next_token_at(now, per_period)
    }

    /// Reserves the next token of a domain and returns its time.
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
pub(in crate::relay::scheduler) struct Limiter {
    known: Buckets,
    strangers: Buckets,
}

impl Limiter {
    pub(in crate::relay::scheduler) fn new(now: Instant) -> Self {
        Self {
            known: Buckets::new(now),
            strangers: Buckets::new(now),
        }
    }

    fn of(&mut self, origin: ClientOrigin) -> &mut Buckets {
        match origin {
            ClientOrigin::Known => &mut self.known,
            ClientOrigin::Stranger => &mut self.strangers,
        }
    }

    /// Takes a token of the domain and one of all reports, if both are free now. Returns false
    /// otherwise.
    pub(in crate::relay::scheduler) fn take(
        &mut self,
        to: &Addressee,
        rates: ReportRates,
        now: Instant,
    ) -> bool {
        let buckets = self.of(to.origin);
        let in_all = buckets.all.next_token_at(now, rates.all) <= now;
        if !in_all || buckets.next_domain_token_at(&to.host, now, rates.domain) > now {
            return false;
        }
        buckets.take_of_domain(&to.host, now, rates.domain);
        buckets.all.take(now, rates.all);
        true
    }

    /// Reserves the next token of the domain and returns its time.
    pub(super) fn take_of_domain(
        &mut self,
        to: &Addressee,
        rates: ReportRates,
        now: Instant,
    ) -> Instant {
        self.of(to.origin)
            .take_of_domain(&to.host, now, rates.domain)
    }

    /// Reserves the next token of all reports and returns its time. Call it at the time of the
    /// domain's token.
    pub(super) fn take_of_all(
        &mut self,
        to: &Addressee,
        rates: ReportRates,
        now: Instant,
    ) -> Instant {
        self.of(to.origin).all.take(now, rates.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::Domain;

    const SECOND: Duration = Duration::from_secs(1);

    fn to(name: &str, origin: ClientOrigin) -> Addressee {
        Addressee {
            host: Host::Domain(Domain::parse(name).expect("valid")),
            origin,
        }
    }

    fn known(name: &str) -> Addressee {
        to(name, ClientOrigin::Known)
    }

    #[test]
    fn a_minutes_reports_may_go_at_once_and_then_one_after_the_other() {
        let (start, rates) = (
            Instant::now(),
            ReportRates {
                all: 1000,
                domain: 6,
            },
        );
        let mut limiter = Limiter::new(start);
        for _ in 0..6 {
            assert!(limiter.take(&known("a.example"), rates, start));
        }
        assert!(!limiter.take(&known("a.example"), rates, start + 9 * SECOND));
        assert!(
            limiter.take(&known("b.example"), rates, start),
            "another domain has its own"
        );
        assert!(limiter.take(&known("a.example"), rates, start + 10 * SECOND));
        assert!(!limiter.take(&known("a.example"), rates, start + 10 * SECOND));
        for _ in 0..6 {
            assert!(
                limiter.take(&known("a.example"), rates, start + 100 * SECOND),
                "the bucket is full, and holds no more than a minute's reports"
            );
        }
        assert!(!limiter.take(&known("a.example"), rates, start + 100 * SECOND));
    }

    #[test]
    fn a_reserved_token_is_not_given_to_another_report() {
        let (start, rates) = (
            Instant::now(),
            ReportRates {
                all: 1000,
                domain: 6,
            },
        );
        let mut limiter = Limiter::new(start);
        let at: Vec<u64> = (0..9)
            .map(|_| (limiter.take_of_domain(&known("a.example"), rates, start) - start).as_secs())
            .collect();
        assert_eq!(at, [0, 0, 0, 0, 0, 0, 10, 20, 30]);
        assert!(
            !limiter.take(&known("a.example"), rates, start + 35 * SECOND),
            "every token is reserved"
        );
        assert!(limiter.take(&known("a.example"), rates, start + 40 * SECOND));
    }

    #[test]
    fn all_reports_have_a_common_limit_and_strangers_do_not_use_up_ours() {
        let (start, rates) = (Instant::now(), ReportRates { all: 60, domain: 1 });
        let mut limiter = Limiter::new(start);
        let stranger = |number: u32| to(&format!("d{number}.example"), ClientOrigin::Stranger);
        for number in 0..60 {
            assert!(limiter.take(&stranger(number), rates, start));
        }
        assert!(!limiter.take(&stranger(60), rates, start));
        assert!(
            limiter.take(&stranger(60), rates, start + SECOND),
            "a refused report takes no token of its domain"
        );
        assert_eq!(
            limiter.take_of_all(&stranger(61), rates, start + SECOND),
            start + 2 * SECOND
        );
        assert!(limiter.take(&known("d0.example"), rates, start));
    }

    #[test]
    fn the_number_of_domains_with_a_bucket_is_limited() {
        let (start, rates) = (
            Instant::now(),
            ReportRates {
                all: 1_000_000,
                domain: 1,
            },
        );
        let mut limiter = Limiter::new(start);
        let domain = |number: usize| known(&format!("d{number}.example"));
        for number in 0..DOMAINS_MAX {
            assert!(limiter.take(&domain(number), rates, start));
        }
        assert!(
            limiter.take(&domain(DOMAINS_MAX), rates, start),
            "the other domains share a bucket"
        );
        assert!(!limiter.take(&domain(DOMAINS_MAX + 1), rates, start));
        assert_eq!(limiter.known.domains.len(), DOMAINS_MAX);
        assert!(limiter.take(&domain(DOMAINS_MAX + 1), rates, start + PERIOD));
        assert!(limiter.known.domains.len() < 10, "full buckets are removed");
        assert_eq!(limiter.known.domains.len(), limiter.known.full_at.len());
    }

    #[test]
    fn strangers_with_too_many_domains_do_not_delay_reports_about_our_mail() {
        let (start, rates) = (
            Instant::now(),
            ReportRates {
                all: 1_000_000,
                domain: 1,
            },
        );
        let mut limiter = Limiter::new(start);
        for number in 0..DOMAINS_MAX + 100 {
            limiter.take_of_domain(
                &to(&format!("d{number}.example"), ClientOrigin::Stranger),
                rates,
                start,
            );
        }
        for number in 0..10 {
            let ours = known(&format!("ours{number}.example"));
            assert_eq!(
                limiter.take_of_domain(&ours, rates, start),
                start,
                "{number}"
            );
        }
        // A bucket that is full again frees a place for a new domain.
        let later = start + PERIOD;
        assert_eq!(
            limiter.take_of_domain(&to("new.example", ClientOrigin::Stranger), rates, later),
            later
        );
    }
}
