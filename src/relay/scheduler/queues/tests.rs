//! Tests of the destination queues, with time as an argument.

use std::time::{Duration, Instant};

use super::parts::REMEMBERED_MAX;
use super::queue::Spread;
use super::*;
use crate::smtp::address::{Domain, Host};
use crate::smtp::envelope::{AttemptFailure, QueueId};
use crate::smtp::reply::{EnhancedStatusCode, Status};
use crate::storage::spool::{Claim, ClusterShare};

const SECOND: Duration = Duration::from_secs(1);
const NONE: [u64; 0] = [];
/// The concurrent attempts: 400 for named destinations (200 places), and 600 for others (300
/// places).
const ATTEMPTS: u32 = 1000;
const RETRY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(20)];

fn host(name: &str) -> Host {
    Host::Domain(Domain::parse(name).expect("valid"))
}

fn item(number: u64, name: &str, expires: Instant) -> Item<()> {
    let id = QueueId::from_number(number).expect("small");
    Item {
        claim: Claim::of_test(id),
        host: host(name),
        user_connector: None,
        is_relaxed: false,
        place: 0,
        deadline: expires,
        expires,
        expire: 100_000 * SECOND,
        loaded: (),
    }
}

fn attempt_failure(text: &str) -> AttemptFailure {
    AttemptFailure {
        at: jiff::Timestamp::UNIX_EPOCH,
        status: EnhancedStatusCode::transient(Status(4, 1)),
        text: text.into(),
        explanation: None,
        host: None,
        reply: None,
    }
}

/// Returns the destination of a domain. Domains under `smart.example` share smart hosts.
fn destination(host: &Host) -> Destination {
    let is_shared = host.to_string().ends_with("smart.example");
    if is_shared {
        Destination::SmartHosts("smart".into())
    } else {
        Destination::Domain(host.clone())
    }
}

struct QueueBench {
    queues: DestinationQueues<()>,
    start: Instant,
    limit: u32,
}

impl QueueBench {
    fn new() -> Self {
        Self::spread(|wait| wait)
    }

    fn spread(spread: Spread) -> Self {
        let start = Instant::now();
        Self {
            queues: DestinationQueues::new(start, spread, ATTEMPTS),
            start,
            limit: 1,
        }
    }

    /// Adds a message. From now on `limit` is the connection limit of every destination.
    fn push(&mut self, number: u64, name: &str, due: u32, limit: u32) {
        self.limit = limit;
        let item = item(number, name, self.start + 100_000 * SECOND);
        self.queues.push(item, self.at(due));
    }

    fn next(&mut self, second: u32) -> Option<Job<()>> {
        let limit = self.limit;
        self.queues.next(self.at(second), |item| Placement {
            destination: destination(&item.host),
            limit,
            share: if item.host.to_string().contains("named") {
                Share::Named
            } else {
                Share::ByMx
            },
        })
    }

    fn at(&self, second: u32) -> Instant {
        self.start + second * SECOND
    }

    /// Ends an attempt at a second: this one or, if it has ended before, the oldest for the same
    /// destination.
    fn ends(&mut self, token: AttemptToken, second: u32, health: Health) {
        self.ends_with(token, second, health, &RETRY);
    }

    fn ends_with(&mut self, token: AttemptToken, second: u32, health: Health, retry: &[Duration]) {
        let attempt = if self.queues.attempts.is_under_way(token.attempt) {
            token.attempt
        } else {
            self.queues
                .attempts
                .oldest_of(token.queue)
                .expect("an attempt is under way")
        };
        self.queues.finished(
            AttemptToken { attempt, ..token },
            self.at(second),
            health,
            retry,
        );
    }

    /// Returns the numbers of the messages with a job at a second, each with its token. A deadline
    /// adds 1000.
    fn due_at(&mut self, second: u32) -> Vec<(u64, AttemptToken)> {
        let mut jobs = Vec::new();
        while let Some(job) = self.next(second) {
            match job {
                Job::Deliver(queue, item) => jobs.push((item.id().number(), queue)),
                Job::DeadlineReached(item, _, _) => {
                    jobs.push((item.id().number() + 1000, AttemptToken::NONE));
                }
            }
        }
        jobs
    }

    fn numbers_at(&mut self, second: u32) -> Vec<u64> {
        self.due_at(second)
            .into_iter()
            .map(|(number, _)| number)
            .collect()
    }
}

#[test]
fn no_message_is_tried_before_its_time() {
    let mut bench = QueueBench::new();
    bench.push(1, "a.example", 5, 9);
    assert_eq!(bench.numbers_at(4), NONE);
    assert_eq!(bench.queues.next_wake(), Some(bench.start + 5 * SECOND));
    assert_eq!(bench.numbers_at(5), [1]);
}

#[test]
fn a_long_queue_does_not_delay_a_short_one() {
    let mut bench = QueueBench::new();
    for number in 0..100 {
        bench.push(number, "long.example", 0, 50);
    }
    bench.push(500, "short.example", 0, 50);
    let order = bench.numbers_at(0);
    assert_eq!(
        order,
        [0, 500, 1, 2, 3, 4],
        "round robin, and no more than the initial concurrency"
    );
}

#[test]
fn the_connection_limit_is_kept() {
    let mut bench = QueueBench::new();
    for number in 0..5 {
        bench.push(number, "a.example", 0, 2);
    }
    let first = bench.due_at(0);
    assert_eq!(first.len(), 2);
    assert_eq!(bench.numbers_at(9), NONE);
    bench.ends(first[0].1, 0, Health::Up);
    assert_eq!(bench.numbers_at(9), [2]);
}

/// What runs above a lower limit goes on, and nothing begins beside it.
#[test]
fn a_node_has_its_part_of_the_connection_limit_from_the_next_job_on() {
    let mut bench = QueueBench::new();
    for number in 0..9 {
        bench.push(number, "a.example", 0, 4);
    }
    assert!(bench.queues.set_cluster_share(ClusterShare::new(2, 1)));
    let mut jobs = bench.due_at(0);
    assert_eq!(jobs.len(), 2);
    assert!(!bench.queues.set_cluster_share(ClusterShare::new(2, 1)));
    bench.queues.set_cluster_share(ClusterShare::ALL);
    jobs.extend(bench.due_at(0));
    assert_eq!(jobs.len(), 4, "the other node is gone");
    bench.queues.set_cluster_share(ClusterShare::new(4, 3));
    for (ended, expected) in [(0, &[][..]), (1, &[]), (2, &[]), (3, &[4])] {
        bench.ends(jobs[ended].1, 0, Health::Up);
        assert_eq!(bench.numbers_at(0), expected, "{ended}");
    }
}

#[test]
fn successes_raise_the_concurrency_up_to_the_limit() {
    let mut bench = QueueBench::new();
    for number in 0..100 {
        bench.push(number, "a.example", 0, 8);
    }
    let queue = bench.due_at(0)[0].1;
    let mut under_way = 5;
    for most in [6, 7, 8, 8] {
        bench.ends(queue, 0, Health::Up);
        under_way += bench.numbers_at(0).len() - 1;
        assert_eq!(under_way, most);
    }
}

#[test]
fn a_destination_that_is_down_is_tried_once_not_per_message() {
    let mut bench = QueueBench::new();
    for number in 0..5 {
        bench.push(number, "a.example", 0, 1);
    }
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, Health::Down(attempt_failure("refused")));
    assert_eq!(bench.numbers_at(9), NONE);
    assert_eq!(bench.numbers_at(10), [1]);
    bench.ends(queue, 10, Health::Down(attempt_failure("refused")));
    assert_eq!(
        bench.numbers_at(29),
        NONE,
        "the second wait is the longer one"
    );
    assert_eq!(bench.numbers_at(30), [2]);
    bench.ends(queue, 30, Health::Unknown);
    assert_eq!(
        bench.numbers_at(30),
        [3],
        "nothing was learnt, so one more probe runs"
    );
    bench.ends(queue, 30, Health::Up);
    assert_eq!(bench.numbers_at(30), [4]);
}

#[test]
fn the_backoff_of_a_destination_has_a_random_part_at_every_step() {
    let mut bench = QueueBench::spread(|wait| wait + wait / 10);
    bench.push(1, "a.example", 0, 1);
    bench.push(2, "a.example", 0, 1);
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, Health::Down(attempt_failure("refused")));
    assert_eq!(bench.numbers_at(10), NONE);
    assert_eq!(bench.numbers_at(11), [2]);
    bench.push(3, "a.example", 11, 1);
    // The hour of the schedule is cut to 15 minutes, before the random part.
    let hour = [Duration::from_hours(1)];
    bench.ends_with(queue, 11, Health::Down(attempt_failure("refused")), &hour);
    assert_eq!(bench.numbers_at(11 + 989), NONE);
    assert_eq!(bench.numbers_at(11 + 990), [3]);
}

#[test]
fn there_is_no_wake_up_without_a_job() {
    let mut bench = QueueBench::new();
    bench.push(1, "a.example", 0, 1);
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, Health::Down(attempt_failure("refused")));
    bench.push(1, "a.example", 50, 1);
    // The backoff ends at second 10, but no message is due before second 50.
    for second in [0, 10, 11, 49] {
        assert_eq!(bench.numbers_at(second), NONE);
        assert_eq!(bench.queues.next_wake(), Some(bench.at(50)), "at {second}");
    }
    bench.push(2, "b.example", 20, 1);
    assert_eq!(bench.numbers_at(20), [2]);
    assert_eq!(
        bench.queues.next_wake(),
        Some(bench.at(50)),
        "the end of its attempt will wake b.example"
    );
}

#[test]
fn three_broken_sessions_in_a_row_start_a_backoff() {
    let mut bench = QueueBench::new();
    for number in 0..9 {
        bench.push(number, "a.example", 0, 1);
    }
    let queue = bench.due_at(0)[0].1;
    for (health, next) in [
        (Health::SessionBroken(attempt_failure("421")), &[1][..]),
        (Health::SessionBroken(attempt_failure("421")), &[2]),
        (Health::Up, &[3]),
        (Health::SessionBroken(attempt_failure("421")), &[4]),
        (Health::SessionBroken(attempt_failure("421")), &[5]),
        (Health::SessionBroken(attempt_failure("421")), &[]),
    ] {
        bench.ends(queue, 0, health);
        assert_eq!(bench.numbers_at(0), next);
    }
    assert_eq!(bench.numbers_at(10), [6]);
    bench.ends(queue, 10, Health::SessionBroken(attempt_failure("421")));
    assert_eq!(
        bench.numbers_at(10),
        NONE,
        "it was down, and one broken session is enough then"
    );
}

#[test]
fn a_deadline_is_kept_during_a_backoff() {
    let mut bench = QueueBench::new();
    bench.push(1, "a.example", 0, 1);
    let queue = bench.due_at(0)[0].1;
    let brief = item(2, "a.example", bench.at(3));
    bench.queues.push(brief, bench.at(2));
    bench.ends(queue, 0, Health::Down(attempt_failure("refused")));
    assert_eq!(bench.numbers_at(2), NONE);
    assert_eq!(bench.queues.next_wake(), Some(bench.at(3)));
    assert_eq!(bench.numbers_at(3), [1002]);
}

#[test]
fn an_expired_message_waits_for_its_last_attempt_while_the_destination_is_up() {
    let mut bench = QueueBench::new();
    bench.push(1, "a.example", 0, 1);
    let queue = bench.due_at(0)[0].1;
    let tardy = Item {
        deadline: bench.at(2),
        ..item(2, "a.example", bench.at(9))
    };
    for item in [tardy, item(3, "a.example", bench.at(3))] {
        bench.queues.push(item, bench.start);
    }
    assert_eq!(bench.numbers_at(2), [1002], "the report of delay is due");
    assert_eq!(bench.numbers_at(4), NONE);
    assert_eq!(bench.queues.next_wake(), None);
    bench.ends(queue, 4, Health::Up);
    assert_eq!(bench.numbers_at(4), [3]);
}

#[test]
fn a_report_of_delay_does_not_wait_for_an_expired_message() {
    let mut bench = QueueBench::new();
    bench.push(1, "a.example", 0, 1);
    let queue = bench.due_at(0)[0].1;
    let tardy = Item {
        deadline: bench.at(5),
        ..item(3, "a.example", bench.at(9))
    };
    for item in [item(2, "a.example", bench.at(3)), tardy] {
        bench.queues.push(item, bench.start);
    }
    assert_eq!(bench.numbers_at(4), NONE, "the only attempt allowed hangs");
    assert_eq!(bench.queues.next_wake(), Some(bench.at(5)));
    assert_eq!(bench.numbers_at(5), [1003], "the report of delay is due");
    bench.ends(queue, 6, Health::Up);
    assert_eq!(bench.numbers_at(6), [2]);
}

#[test]
fn a_new_expiry_applies_to_waiting_messages() {
    let mut bench = QueueBench::new();
    bench.push(1, "a.example", 0, 1);
    let queue = bench.due_at(0)[0].1;
    bench.push(2, "a.example", 0, 1);
    bench.push(3, "later.example", 50, 1);
    bench.ends(queue, 0, Health::Down(attempt_failure("refused")));
    assert_eq!(bench.numbers_at(0), NONE);
    let soon = bench.at(20);
    bench
        .queues
        .reload(|item| (item.deadline, item.expires) = (soon, soon));
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, Health::Up);
    assert_eq!(bench.numbers_at(19), NONE);
    assert_eq!(
        bench.numbers_at(20),
        [3],
        "an expired message gets a last attempt"
    );
}

#[test]
fn a_reload_clears_the_backoff() {
    let mut bench = QueueBench::new();
    for number in 0..3 {
        bench.push(number, "a.example", 0, 2);
    }
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, Health::Down(attempt_failure("refused")));
    assert_eq!(bench.numbers_at(0), NONE);
    bench.queues.reload(|_| ());
    bench.limit = 1;
    assert_eq!(
        bench.numbers_at(0),
        NONE,
        "one attempt is still under way, and that is the new limit"
    );
    bench.ends(queue, 0, Health::Down(attempt_failure("the old way")));
    assert_eq!(
        bench.numbers_at(0),
        [2],
        "a result from before the reload is ignored"
    );
}

#[test]
fn an_empty_queue_is_removed_after_a_while() {
    let mut bench = QueueBench::new();
    bench.push(1, "a.example", 0, 1);
    bench.push(2, "b.example", 0, 1);
    let jobs = bench.due_at(0);
    bench.ends(jobs[0].1, 0, Health::Up);
    bench.ends(jobs[1].1, 0, Health::Down(attempt_failure("refused")));
    for (second, queues, next) in [(0, 2, 900), (900, 1, 910)] {
        assert_eq!(bench.numbers_at(second), NONE);
        assert_eq!(bench.queues.all.len(), queues, "at {second}");
        assert_eq!(
            bench.queues.next_wake(),
            Some(bench.at(next)),
            "at {second}"
        );
    }
    assert_eq!(bench.numbers_at(910), NONE);
    let DestinationQueues {
        all,
        names,
        parked,
        due,
        delays,
        expiries,
        turn,
        wakes,
        ..
    } = bench.queues;
    assert!(all.is_empty() && names.is_empty() && wakes.is_empty());
    assert!(
        parked.is_empty()
            && due.is_empty()
            && delays.is_empty()
            && expiries.is_empty()
            && turn.is_empty()
    );
}

#[test]
fn the_count_of_failures_is_kept_until_the_next_attempt() {
    let mut bench = QueueBench::new();
    for (second, next) in [(0, 20), (20, 50)] {
        bench.push(1, "a.example", second, 1);
        let queue = bench.due_at(second)[0].1;
        bench.ends(queue, second, Health::Down(attempt_failure("refused")));
        assert_eq!(bench.numbers_at(next - 1), NONE);
    }
    bench.push(2, "a.example", 20, 1);
    assert_eq!(
        bench.numbers_at(39),
        NONE,
        "the second wait is the longer one"
    );
    assert_eq!(bench.numbers_at(40), [2]);
}

#[test]
fn an_item_that_is_not_due_has_no_queue_and_can_be_taken() {
    let mut bench = QueueBench::new();
    for number in 0..100 {
        bench.push(number, &format!("{number}.example"), 50, 1);
    }
    let late = Item {
        deadline: bench.at(20),
        ..item(200, "late.example", bench.at(1000))
    };
    bench.queues.push(late, bench.at(60));
    assert_eq!(bench.numbers_at(0), NONE);
    assert_eq!((bench.queues.len(), bench.queues.all.len()), (101, 0));
    assert_eq!(bench.queues.next_wake(), Some(bench.at(20)));
    assert_eq!(bench.numbers_at(20), [1200], "the report of delay is due");
    let wanted = [1, 99]
        .map(|number| QueueId::from_number(number).expect("small"))
        .into();
    let taken: Vec<_> = bench
        .queues
        .take(&wanted)
        .iter()
        .map(|(item, due)| (item.id().number(), *due))
        .collect();
    assert_eq!(taken, [(1, bench.at(50)), (99, bench.at(50))]);
    assert_eq!(bench.numbers_at(50).len(), 98);
}

#[test]
fn a_running_probe_causes_no_wake_up() {
    let mut bench = QueueBench::new();
    for number in 0..3 {
        bench.push(number, "a.example", 0, 1);
    }
    let first = bench.due_at(0);
    bench.ends(first[0].1, 0, Health::Down(attempt_failure("refused")));
    assert_eq!(bench.due_at(10).len(), 1, "the probe");
    assert_eq!(bench.numbers_at(11), NONE);
    assert!(
        bench
            .queues
            .next_wake()
            .is_none_or(|wake| wake > bench.at(11))
    );
}

mod giving_way;
mod parts;
mod shares;
