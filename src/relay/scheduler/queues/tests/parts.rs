//! Tests that a refused part of a destination's mail does not delay other mail.

use super::*;

const LOST: &str = "lost.smart.example";
const FINE: &str = "fine.smart.example";

/// Returns a refusal of one domain's mail.
fn of_domain(name: &str) -> Health {
    Health::Refused(
        Part {
            domain: Some(host(name)),
            spares_relaxed: false,
        },
        attempt_failure("lost its TLS"),
    )
}

/// Returns a refusal of all mail without `TLS-Required: No`.
fn of_published() -> Health {
    Health::Refused(
        Part {
            domain: None,
            spares_relaxed: true,
        },
        attempt_failure("DANE"),
    )
}

impl QueueBench {
    /// Adds a message with `TLS-Required: No`.
    fn push_relaxed(&mut self, number: u64, name: &str, due: u32) {
        let item = Item {
            is_relaxed: true,
            ..item(number, name, self.start + 100_000 * SECOND)
        };
        self.queues.push(item, self.at(due));
    }

    /// Returns the backoff of mail for a domain at a second: reason, end and part.
    fn wait(
        &self,
        name: &str,
        is_relaxed: bool,
        second: u32,
    ) -> Option<(String, u64, Option<String>)> {
        let host = host(name);
        let (until, wait) =
            self.queues
                .backoff(&destination(&host), &host, is_relaxed, self.at(second))?;
        let until = until.duration_since(self.start).as_secs();
        Some((
            wait.last.text.clone(),
            until,
            wait.part.map(ToString::to_string),
        ))
    }
}

#[test]
fn a_refused_domain_waits_alone_and_is_probed_once_per_backoff() {
    let mut bench = QueueBench::new();
    for number in 0..300 {
        bench.push(number, LOST, 0, 1);
    }
    bench.push(1000, FINE, 0, 1);
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, of_domain(LOST));
    let fine = bench.due_at(0);
    assert_eq!(
        fine.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        [1000],
        "299 were before it"
    );
    bench.push(1001, FINE, 1, 1);
    assert_eq!(bench.numbers_at(1), NONE, "there is one connection");
    bench.ends(fine[0].1, 1, Health::Up);
    assert_eq!(bench.numbers_at(1), [1001]);
    bench.ends(fine[0].1, 2, Health::Up);
    assert_eq!(bench.numbers_at(9), NONE);
    let probe = bench.due_at(10);
    assert_eq!(probe.len(), 1);
    bench.ends(probe[0].1, 10, of_domain(LOST));
    assert_eq!(
        bench.numbers_at(29),
        NONE,
        "the second wait is the longer one"
    );
    let probe = bench.due_at(30);
    assert_eq!(probe.len(), 1);
    bench.ends(probe[0].1, 30, Health::Up);
    assert_eq!(bench.due_at(30).len(), 1);
}

#[test]
fn new_mail_for_a_refused_domain_waits_too() {
    let mut bench = QueueBench::new();
    bench.push(1, LOST, 0, 9);
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, of_domain(LOST));
    bench.push(2, LOST, 1, 9);
    bench.push(3, LOST, 2, 9);
    assert_eq!(bench.numbers_at(9), NONE);
    assert_eq!(bench.queues.next_wake(), Some(bench.at(10)));
    assert!(
        !bench
            .queues
            .is_tried_soon(&destination(&host(LOST)), &host(LOST), false)
    );
    assert!(
        bench
            .queues
            .is_tried_soon(&destination(&host(FINE)), &host(FINE), false)
    );
    let probe = bench.due_at(10);
    assert_eq!(
        probe.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        [2],
        "one probe"
    );
    bench.ends(probe[0].1, 11, Health::Unknown);
    let probe = bench.due_at(11);
    assert_eq!(
        probe.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        [3],
        "nothing was learnt"
    );
}

#[test]
fn a_part_and_the_rest_take_turns_within_one_connection_limit() {
    let mut bench = QueueBench::new();
    bench.push(1, LOST, 0, 1);
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, of_domain(LOST));
    for number in 10..20 {
        bench.push(number, LOST, 1, 1);
        bench.push(number + 90, FINE, 10, 1);
    }
    let mut probe = bench.due_at(10);
    let mut order = Vec::new();
    for second in 10..18 {
        assert_eq!(probe.len(), 1, "at {second}");
        order.push(probe[0].0 >= 100);
        bench.ends(probe[0].1, second, Health::Up);
        probe = bench.due_at(second);
    }
    let changes = order.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes >= 6, "{order:?}");
}

#[test]
fn mail_does_not_move_back_and_forth_between_two_refused_parts() {
    let mut bench = QueueBench::new();
    bench.push(1, LOST, 0, 2);
    bench.push(2, FINE, 0, 2);
    let both = bench.due_at(0);
    assert_eq!(
        both.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        [1, 2]
    );
    bench.ends(both[0].1, 0, of_domain(LOST));
    bench.ends(both[1].1, 0, of_published());
    bench.push(3, LOST, 1, 2);
    assert_eq!(bench.numbers_at(1), NONE);
    assert_eq!(bench.numbers_at(10), [3]);
}

#[test]
fn mail_of_two_refused_parts_waits_for_the_longer_backoff() {
    for longer_first in [true, false] {
        let mut bench = QueueBench::new();
        bench.push(1, LOST, 0, 2);
        let queue = bench.due_at(0)[0].1;
        bench.ends(
            queue,
            0,
            if longer_first {
                of_published()
            } else {
                of_domain(LOST)
            },
        );
        bench.push_relaxed(2, LOST, 0);
        bench.push(3, FINE, 0, 2);
        let others = bench.due_at(if longer_first { 0 } else { 3 });
        let (number, queue) = others[0];
        assert_eq!(number, if longer_first { 2 } else { 3 });
        bench.ends(
            queue,
            3,
            if longer_first {
                of_domain(LOST)
            } else {
                of_published()
            },
        );
        bench.push(4, LOST, 4, 2);
        assert_eq!(bench.numbers_at(4), NONE);
        assert_eq!(
            bench.wait(LOST, false, 4).map(|(_, until, _)| until),
            Some(13)
        );
        let tried = |second, bench: &mut QueueBench| bench.numbers_at(second).contains(&4);
        assert!(!tried(12, &mut bench), "the longer backoff holds");
        assert!(tried(13, &mut bench));
    }
}

#[test]
fn a_part_waits_for_its_destination_too() {
    let mut bench = QueueBench::new();
    bench.push(1, LOST, 0, 1);
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, of_domain(LOST));
    bench.push(2, LOST, 1, 1);
    bench.push(3, FINE, 5, 1);
    let fine = bench.due_at(5)[0].1;
    bench.ends(fine, 5, Health::Down(attempt_failure("refused")));
    assert_eq!(
        bench.wait(LOST, false, 5),
        Some(("refused".to_owned(), 15, None))
    );
    bench.push(4, FINE, 5, 1);
    assert_eq!(bench.numbers_at(14), NONE);
    let probe = bench.due_at(15);
    assert_eq!(probe.len(), 1, "one probe for both");
    assert_eq!(bench.numbers_at(16), NONE);
    bench.ends(probe[0].1, 16, Health::Up);
    assert_eq!(bench.due_at(16).len(), 1);
}

#[test]
fn a_part_that_had_no_connection_is_tried_when_the_backoff_of_its_destination_ends() {
    let mut bench = QueueBench::new();
    bench.push(1, LOST, 0, 2);
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, of_domain(LOST));
    bench.push(2, FINE, 0, 2);
    bench.push(3, FINE, 0, 2);
    let fine = bench.due_at(0);
    assert_eq!(fine.len(), 2);
    bench.ends(fine[0].1, 5, Health::Down(attempt_failure("refused")));
    bench.push(4, LOST, 6, 2);
    assert_eq!(
        bench.numbers_at(6),
        NONE,
        "the attempt under way is the only one that the destination may have"
    );
    bench.ends(fine[1].1, 12, Health::Unknown);
    assert_eq!(bench.numbers_at(12), NONE, "the destination is in backoff");
    assert_eq!(bench.numbers_at(15), [4]);
}

#[test]
fn mail_with_tls_required_no_does_not_wait_for_other_mail() {
    let mut bench = QueueBench::new();
    for number in 0..5 {
        bench.push(number, "a.example", 0, 1);
    }
    let queue = bench.due_at(0)[0].1;
    bench.push_relaxed(100, "a.example", 0);
    bench.ends(queue, 0, of_published());
    let relaxed = bench.due_at(0);
    assert_eq!(
        relaxed
            .iter()
            .map(|(number, _)| *number)
            .collect::<Vec<_>>(),
        [100]
    );
    bench.ends(relaxed[0].1, 0, Health::Up);
    assert_eq!(
        bench.numbers_at(9),
        NONE,
        "its success shows nothing of other mail"
    );
    bench.push_relaxed(101, "a.example", 9);
    assert_eq!(bench.numbers_at(9), [101]);
}

#[test]
fn a_destination_that_is_down_is_down_for_all_mail() {
    let mut bench = QueueBench::new();
    bench.push(1, "a.example", 0, 1);
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, Health::Down(attempt_failure("refused")));
    bench.push_relaxed(100, "a.example", 0);
    assert_eq!(bench.numbers_at(9), NONE);
    assert_eq!(bench.numbers_at(10), [100]);
}

#[test]
fn a_backoff_is_reported_for_the_mail_that_waits() {
    let mut bench = QueueBench::new();
    bench.push(1, LOST, 0, 9);
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, of_domain(LOST));
    let lost = (
        "lost its TLS".to_owned(),
        10,
        Some(format!("mail for {LOST}")),
    );
    assert_eq!(bench.wait(LOST, false, 0), Some(lost.clone()));
    assert_eq!(
        bench.wait(LOST, true, 0),
        Some(lost),
        "the downgrade memory applies to it too"
    );
    assert_eq!(bench.wait(FINE, false, 0), None);
    bench.push(2, "a.example", 0, 9);
    let queue = bench.due_at(0)[0].1;
    bench.ends(queue, 0, of_published());
    let part = "mail without \"TLS-Required: No\"".to_owned();
    assert_eq!(
        bench.wait("a.example", false, 0),
        Some(("DANE".to_owned(), 10, Some(part)))
    );
    assert_eq!(bench.wait("a.example", true, 0), None);
}

#[test]
fn a_report_of_delay_names_the_refusal() {
    let mut bench = QueueBench::new();
    bench.push(1, LOST, 0, 1);
    let queue = bench.due_at(0)[0].1;
    let tardy = Item {
        deadline: bench.at(2),
        ..item(2, LOST, bench.at(5))
    };
    bench.queues.push(tardy, bench.start);
    bench.ends(queue, 0, of_domain(LOST));
    let ending = item(3, LOST, bench.at(5));
    bench.queues.push(ending, bench.start);
    for (second, number) in [(2, 2), (5, 3)] {
        let Some(Job::DeadlineReached(item, _, last)) = bench.next(second) else {
            panic!("at {second}")
        };
        assert_eq!(last.map(|last| last.text), Some("lost its TLS".to_owned()));
        assert_eq!(item.id().number(), number);
        assert!(bench.next(second).is_none());
    }
}

#[test]
fn an_operator_and_a_reload_clear_the_backoff_of_a_part() {
    let mut bench = QueueBench::new();
    for anew in [false, true] {
        bench.push(1, LOST, 0, 1);
        let queue = bench.due_at(0)[0].1;
        bench.ends(queue, 0, of_domain(LOST));
        bench.push(2, LOST, 1, 1);
        assert_eq!(bench.numbers_at(1), NONE);
        if anew {
            bench.queues.reload(|_| ());
        } else {
            bench
                .queues
                .clear_backoff(&destination(&host(LOST)), &host(LOST), false);
        }
        let again = bench.due_at(1);
        assert_eq!(again.len(), 1, "{anew}");
        bench.ends(again[0].1, 1, Health::Up);
    }
}

#[test]
fn a_part_is_removed_with_its_destination() {
    let mut bench = QueueBench::new();
    for number in 0..100 {
        let name = format!("lost{number}.smart.example");
        bench.push(number, &name, 0, 9);
        let queue = bench.due_at(0)[0].1;
        bench.ends(queue, 0, of_domain(&name));
    }
    assert_eq!(bench.numbers_at(0), NONE);
    assert_eq!(bench.queues.all.len(), 101);
    assert_eq!(bench.numbers_at(909), NONE);
    assert_eq!(
        bench.queues.all.len(),
        101,
        "kept as long as a backoff of its own would be"
    );
    assert_eq!(bench.numbers_at(910), NONE);
    let DestinationQueues {
        all,
        names,
        parts,
        wakes,
        ..
    } = bench.queues;
    assert!(all.is_empty() && names.is_empty() && parts.is_empty() && wakes.is_empty());
}

#[test]
fn the_number_of_parts_is_limited() {
    let mut bench = QueueBench::new();
    for number in 0..REMEMBERED_MAX as u64 + 5 {
        let name = format!("lost{number}.smart.example");
        bench.push(number, &name, 0, 9);
        let queue = bench.due_at(0)[0].1;
        bench.ends(queue, 0, of_domain(&name));
    }
    assert_eq!(bench.queues.all.len(), REMEMBERED_MAX + 1);
}
