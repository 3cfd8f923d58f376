//! Tests of the queue of reports, with time as an argument.

use std::time::{Duration, Instant};

use super::queue::DIGEST_OCTETS;
use super::*;
use crate::config;
use crate::smtp::address::{Domain, Host};
use crate::smtp::envelope::{ClientOrigin, QueueId};
use crate::storage::spool::Claim;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const GATHER: Duration = Duration::from_secs(30);

struct ReportBench {
    owed: ReportQueue,
    counts: ReportCounters,
    limiter: Limiter,
    rates: ReportRates,
    start: Instant,
    busy: Vec<QueueId>,
}

impl ReportBench {
    /// Creates a queue with these rates per minute, in all and for each domain.
    fn new(all: u32, domain: u32) -> Self {
        let text = format!(
            "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n[limits]\ndsn_per_minute = {all}\n\
             dsn_per_minute_per_domain = {domain}\n[[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n"
        );
        let (config, _) =
            config::parse(&text, std::path::Path::new("gatepost.toml")).expect("good");
        let (start, counts) = (Instant::now(), ReportCounters::default());
        let rates = ReportRates::of(&config.limits);
        let owed = ReportQueue::new(start, counts.clone());
        Self {
            owed,
            counts,
            limiter: Limiter::new(start),
            rates,
            start,
            busy: Vec::new(),
        }
    }

    fn at(&self, second: u32) -> Instant {
        self.start + second * SECOND
    }

    fn owes(&mut self, number: u64, domain: &str, second: u32, wait: Duration) {
        let to = Addressee {
            host: Host::Domain(Domain::parse(domain).expect("valid")),
            origin: ClientOrigin::Known,
        };
        self.owed.update(
            claim(number),
            OwedReports::Report {
                to,
                wait,
                kept: None,
            },
            self.at(second),
        );
    }

    /// Adds the report of a stranger's message of `kept` octets; `None` means that recipients of it
    /// are pending.
    fn comes_back(&mut self, number: u64, domain: &str, second: u32, kept: Option<u64>) {
        let to = Addressee {
            host: Host::Domain(Domain::parse(domain).expect("valid")),
            origin: ClientOrigin::Stranger,
        };
        self.owed.update(
            claim(number),
            OwedReports::Report {
                to,
                wait: GATHER,
                kept,
            },
            self.at(second),
        );
    }

    fn lost(&mut self, number: u64, second: u32, wait: Duration) {
        self.lost_of(number, second, wait, 1000);
    }

    fn lost_of(&mut self, number: u64, second: u32, wait: Duration, octets: u64) {
        self.owed.update(
            claim(number),
            OwedReports::Digest { wait, octets },
            self.at(second),
        );
    }

    /// Returns the messages whose reports start at a second.
    fn next(&mut self, second: u32) -> Vec<u64> {
        let now = self.at(second);
        let mut begun = Vec::new();
        while let Some(claim) = self
            .owed
            .next_report(now, &mut self.limiter, self.rates, |id| {
                self.busy.contains(&id)
            })
        {
            begun.push(claim.id().number());
        }
        begun
    }

    /// Returns the number of messages in the digest that starts at a second.
    fn digest(&mut self, second: u32) -> usize {
        let now = self.at(second);
        self.owed
            .next_digest(now, |id| self.busy.contains(&id))
            .map_or(0, |claims| claims.len())
    }

    fn reported(&mut self, number: u64, again: Option<Duration>, second: u32) {
        let now = self.at(second);
        self.owed.reported(id(number), again, now);
    }
}

fn claim(number: u64) -> Claim {
    Claim::of_test(id(number))
}

fn id(number: u64) -> QueueId {
    QueueId::from_number(number).expect("small")
}

#[test]
fn reports_about_one_message_are_merged() {
    let mut bench = ReportBench::new(600, 60);
    for second in 0..30 {
        bench.owes(1, "a.example", second, GATHER);
        assert_eq!(bench.next(second), [0; 0], "others may join");
    }
    assert_eq!(bench.owed.next_wake(), Some(bench.at(30)));
    assert_eq!(bench.next(30), [1]);
    // A report that comes while it is stored goes into the next one.
    bench.owes(1, "a.example", 30, GATHER);
    assert_eq!(bench.next(100), [0; 0]);
    bench.reported(1, None, 100);
    assert_eq!(bench.next(100), [1]);
    bench.reported(1, None, 101);
    assert_eq!(bench.owed.next_wake(), None);
    assert_eq!(bench.counts.read(), ReportCounts::default());
}

#[test]
fn a_report_over_the_rate_of_its_domain_waits_and_delays_no_other() {
    let mut bench = ReportBench::new(600, 6);
    for number in 1..=9 {
        bench.owes(number, "a.example", 0, Duration::ZERO);
    }
    bench.owes(10, "b.example", 0, Duration::ZERO);
    assert_eq!(bench.next(0), [1, 2, 3, 4, 5, 6, 10]);
    assert_eq!(bench.owed.next_wake(), Some(bench.at(10)));
    assert_eq!(
        (bench.next(9), bench.next(10), bench.next(20)),
        (vec![], vec![7], vec![8])
    );
    // Another report about the same message joins, and the reserved time stays.
    bench.owes(9, "a.example", 25, GATHER);
    assert_eq!((bench.next(29), bench.next(30)), (vec![], vec![9]));
    assert_eq!(bench.counts.read().delayed, 3);
}

#[test]
fn the_rate_of_all_reports_applies_after_that_of_the_domain() {
    let mut bench = ReportBench::new(6, 2);
    for number in 1..=3 {
        bench.owes(number, "a.example", 0, Duration::ZERO);
    }
    for number in 4..=7 {
        bench.owes(number, &format!("d{number}.example"), 0, Duration::ZERO);
    }
    // The third report to a.example reserves no token of all reports while it waits for its domain.
    assert_eq!(bench.next(0), [1, 2, 4, 5, 6, 7]);
    bench.owes(8, "d8.example", 1, Duration::ZERO);
    assert_eq!((bench.next(9), bench.next(10)), (vec![], vec![8]));
    assert_eq!((bench.next(29), bench.next(30)), (vec![], vec![3]));
}

#[test]
fn a_report_that_was_not_stored_is_retried_and_a_cleared_one_is_removed() {
    let mut bench = ReportBench::new(600, 60);
    bench.owes(1, "a.example", 0, Duration::ZERO);
    bench.owes(2, "a.example", 0, GATHER);
    assert_eq!(bench.next(0), [1]);
    bench.reported(1, Some(60 * SECOND), 1);
    bench
        .owed
        .update(claim(2), OwedReports::Nothing, bench.at(2));
    assert_eq!(bench.counts.read().waiting, 1);
    assert_eq!((bench.next(60), bench.next(61)), (vec![], vec![1]));
    // For a report that is being stored, the end of its task decides.
    bench
        .owed
        .update(claim(1), OwedReports::Nothing, bench.at(61));
    assert_eq!(bench.counts.read().waiting, 1);
    bench.reported(1, None, 62);
    assert_eq!(
        (bench.counts.read().waiting, bench.owed.next_wake()),
        (0, None)
    );
}

#[test]
fn a_report_waits_for_an_order_and_an_operator_may_make_it_due() {
    let mut bench = ReportBench::new(600, 60);
    bench.owes(1, "a.example", 0, Duration::ZERO);
    bench.busy = vec![id(1)];
    assert_eq!((bench.next(0), bench.next(1)), (vec![], vec![]));
    bench.busy.clear();
    assert_eq!((bench.next(2), bench.counts.read().delayed), (vec![1], 0));
    bench.owes(2, "a.example", 2, HOUR);
    assert!(bench.owed.expedite(id(2), bench.at(3)) && !bench.owed.expedite(id(3), bench.at(3)));
    assert_eq!(bench.next(3), [2]);
}

#[test]
fn a_digest_is_due_after_its_interval() {
    let mut bench = ReportBench::new(600, 60);
    bench.lost(1, 0, HOUR);
    bench.lost(2, 1800, HOUR);
    assert_eq!(bench.owed.next_wake(), Some(bench.at(3600)));
    assert_eq!((bench.digest(3599), bench.digest(3600)), (0, 2));
    // Another message fails while the digest is stored, and message 2 does not get into the digest.
    bench.lost(3, 3601, HOUR);
    assert_eq!(bench.digest(9000), 0);
    let now = bench.at(9000);
    bench.owed.digested(vec![claim(2)], now);
    assert_eq!((bench.digest(9000), bench.counts.read().for_digest), (2, 0));
    let now = bench.at(9001);
    bench.owed.digested(Vec::new(), now);
    // A message that is removed meanwhile does not get into the digest.
    bench.lost(4, 9001, HOUR);
    bench
        .owed
        .update(claim(4), OwedReports::Nothing, bench.at(9002));
    assert_eq!(
        (bench.digest(20_000), bench.counts.read().for_digest),
        (0, 0)
    );
}

#[test]
fn a_full_digest_goes_at_once_but_at_most_one_a_minute() {
    let mut bench = ReportBench::new(600, 60);
    for number in 0..99 {
        bench.lost(number, 0, HOUR);
    }
    assert_eq!(bench.digest(0), 0);
    bench.lost(99, 1, HOUR);
    assert_eq!(bench.digest(1), 100);
    bench.owed.digested(Vec::new(), bench.at(2));
    for number in 100..900 {
        bench.lost(number, 2, HOUR);
    }
    assert_eq!(
        (bench.digest(60), bench.owed.next_wake()),
        (0, Some(bench.at(61)))
    );
    assert_eq!(bench.digest(61), 500);
    bench.owed.digested(Vec::new(), bench.at(62));
    assert_eq!((bench.digest(120), bench.digest(121)), (0, 300));
}

#[test]
fn a_digest_that_was_not_stored_is_retried_after_a_minute() {
    let mut bench = ReportBench::new(600, 60);
    bench.lost(1, 0, Duration::ZERO);
    bench.lost(2, 0, Duration::ZERO);
    bench.busy = vec![id(2)];
    assert_eq!(bench.digest(0), 1);
    let now = bench.at(1);
    bench.owed.digested(vec![claim(1)], now);
    bench.busy.clear();
    assert_eq!((bench.digest(59), bench.digest(60)), (0, 2));
}

#[test]
fn the_octets_of_messages_also_make_a_digest_full() {
    let mut bench = ReportBench::new(600, 60);
    bench.lost_of(1, 0, HOUR, DIGEST_OCTETS - 1);
    assert_eq!(bench.digest(0), 0);
    bench.lost_of(2, 0, HOUR, 1);
    assert_eq!(bench.digest(0), 2);
    bench.owed.digested(Vec::new(), bench.at(1));
    bench.lost_of(3, 1, HOUR, DIGEST_OCTETS - 1);
    assert_eq!(
        (bench.digest(3600), bench.digest(3601)),
        (0, 1),
        "messages of the last digest do not count"
    );
}

#[test]
fn full_digests_follow_each_other_after_five_seconds() {
    let mut bench = ReportBench::new(600, 60);
    for number in 0..1200 {
        bench.lost(number, 0, HOUR);
    }
    assert_eq!(bench.digest(0), 500);
    bench.owed.digested(Vec::new(), bench.at(1));
    assert_eq!((bench.digest(4), bench.digest(5)), (0, 500));
    bench.owed.digested(Vec::new(), bench.at(6));
    assert_eq!((bench.digest(64), bench.digest(65)), (0, 200));
}

#[test]
fn mail_of_strangers_over_the_backlog_limit_goes_into_the_digest() {
    let mut bench = ReportBench::new(600, 60);
    let most = backlog::OF_DOMAIN_MAX as u64;
    for number in 0..most + 10 {
        bench.comes_back(number, "a.example", 0, Some(1000));
    }
    bench.comes_back(5000, "b.example", 0, Some(1000));
    for number in 6000..6010 {
        bench.owes(number, "a.example", 0, GATHER);
    }
    let counts = bench.counts.read();
    assert_eq!(
        (counts.waiting, counts.for_digest, counts.diverted),
        (most + 11, 10, 10)
    );
    assert_eq!(
        (bench.digest(59), bench.digest(60)),
        (0, 10),
        "a minute is enough"
    );
    bench.owed.digested(Vec::new(), bench.at(61));
    // No report follows about the messages of the digest.
    let begun = bench.next(30);
    assert!(
        begun
            .iter()
            .all(|number| !(most..most + 10).contains(number)),
        "{begun:?}"
    );
    // A stored report frees a place, and one that was not stored keeps its place.
    bench.reported(0, None, 62);
    bench.reported(1, Some(SECOND), 62);
    bench.comes_back(7000, "a.example", 62, Some(1000));
    bench.comes_back(7001, "a.example", 62, Some(1000));
    assert_eq!(
        (bench.counts.read().for_digest, bench.counts.read().diverted),
        (1, 11)
    );
}

#[test]
fn a_message_counts_in_the_backlog_once_no_recipient_is_pending() {
    let mut bench = ReportBench::new(600, 60);
    let most = backlog::OF_DOMAIN_MAX as u64;
    bench.comes_back(5000, "a.example", 0, None);
    for number in 0..most {
        bench.comes_back(number, "a.example", 0, Some(1000));
    }
    assert_eq!(
        bench.counts.read().diverted,
        0,
        "it is in the queue for other recipients too"
    );
    bench.comes_back(5000, "a.example", 1, Some(1000));
    bench.comes_back(5000, "a.example", 2, Some(1000));
    let counts = bench.counts.read();
    assert_eq!(
        (counts.waiting, counts.for_digest, counts.diverted),
        (most, 1, 1),
        "it is reported once, in the digest"
    );
    bench
        .owed
        .update(claim(5000), OwedReports::Nothing, bench.at(3));
    assert_eq!((bench.digest(3600), bench.counts.read().for_digest), (0, 0));
}
