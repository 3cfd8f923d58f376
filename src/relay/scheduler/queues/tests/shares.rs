//! Tests of the shares: destinations that get a place while many others hang.

use super::*;

/// Adds one message for each of so many destinations, named by `prefix` and a number.
fn push_many(bench: &mut QueueBench, prefix: &str, destinations: u64, second: u32, limit: u32) {
    for number in 0..destinations {
        bench.push(
            100_000 + number,
            &format!("{prefix}{number}.example"),
            second,
            limit,
        );
    }
}

#[test]
fn named_destinations_do_not_wait_for_others() {
    let mut bench = QueueBench::new();
    push_many(&mut bench, "hangs", 1000, 0, 9);
    assert_eq!(bench.due_at(0).len(), 300, "every place is in use");
    push_many(&mut bench, "named", 1000, 0, 9);
    assert_eq!(
        bench.due_at(0).len(),
        200,
        "the shares do not wait for each other"
    );
    assert_eq!(bench.numbers_at(1), NONE);
}

#[test]
fn slow_attempts_free_their_places() {
    let mut bench = QueueBench::new();
    push_many(&mut bench, "hangs", 400, 0, 9);
    assert_eq!(bench.due_at(0).len(), 300);
    assert_eq!(bench.numbers_at(1), NONE);
    assert_eq!(
        bench.queues.next_wake(),
        Some(bench.at(2)),
        "then they are slow"
    );
    assert_eq!(bench.due_at(2).len(), 100);
    bench.push(1, "new.example", 3, 9);
    assert_eq!(bench.numbers_at(3), [1]);
    let [_, by_mx] = bench.queues.in_use();
    assert_eq!(
        (
            by_mx.share,
            by_mx.most,
            by_mx.running,
            by_mx.slow,
            by_mx.waiting
        ),
        (Share::ByMx, 600, 401, 300, 0)
    );
}

#[test]
fn a_slow_destination_starts_no_further_attempt_while_many_are_slow() {
    let mut bench = QueueBench::new();
    // Sixty destinations that have reached a concurrency of twenty each.
    for round in 0..60 {
        push_many(&mut bench, "worked", 60, round, 20);
        for (_, token) in bench.due_at(round) {
            bench.ends(token, round, Health::Up);
        }
    }
    for _ in 0..30 {
        push_many(&mut bench, "worked", 60, 60, 20);
    }
    let hanging = bench.due_at(60);
    assert_eq!(
        hanging.len(),
        225,
        "the last places are for destinations without a running attempt"
    );
    bench.push(1, "new.example", 61, 20);
    assert_eq!(bench.numbers_at(61), [1]);
    assert_eq!(
        bench.numbers_at(62),
        NONE,
        "slow destinations have too many attempts"
    );
    push_many(&mut bench, "quick", 299, 62, 20);
    assert_eq!(
        bench.due_at(62).len(),
        299,
        "every place but that of the new destination is free"
    );
    bench.ends(hanging[0].1, 63, Health::Unknown);
    assert_eq!(
        bench.numbers_at(63),
        NONE,
        "224 of them are still more than 150"
    );
}

#[test]
fn a_slow_destination_continues_while_few_are_slow() {
    let mut bench = QueueBench::new();
    for number in 0..20 {
        bench.push(number, "slow.example", 0, 5);
    }
    let first = bench.due_at(0);
    assert_eq!(first.len(), 5);
    assert_eq!(bench.numbers_at(10), NONE, "that is its own limit");
    bench.ends(first[0].1, 10, Health::Unknown);
    assert_eq!(bench.numbers_at(10), [5]);
}

#[test]
fn the_longest_slow_attempts_end_when_others_get_no_place() {
    let mut bench = QueueBench::new();
    push_many(&mut bench, "hangs", 650, 0, 9);
    let mut hanging = bench.due_at(0);
    assert_eq!(
        bench.queues.choose_to_end(|_| true),
        [],
        "none of them is slow"
    );
    hanging.extend(bench.due_at(2));
    assert_eq!(hanging.len(), 600);
    hanging.extend(bench.due_at(4));
    assert_eq!(hanging.len(), 600, "the most that may run");
    bench.push(1, "new.example", 5, 9);
    assert_eq!(bench.numbers_at(5), NONE);
    // Fifty-one destinations wait. The oldest attempt has started to send its message.
    let spared = hanging[0].1.attempt;
    let ended = bench.queues.choose_to_end(|attempt| attempt != spared);
    let oldest: Vec<_> = hanging[1..52]
        .iter()
        .map(|(_, token)| token.attempt)
        .collect();
    assert_eq!(ended, oldest);
    assert_eq!(
        bench.queues.choose_to_end(|attempt| attempt != spared),
        [],
        "each is returned once"
    );
    for (_, token) in &hanging[1..52] {
        bench.ends(*token, 5, Health::Down(attempt_failure("slow")));
    }
    let begun = bench.numbers_at(5);
    assert_eq!(
        (begun.len(), begun.last()),
        (51, Some(&1)),
        "in the order in which they came"
    );
}

#[test]
fn the_destination_with_the_most_slow_attempts_ends_one_first() {
    let mut bench = QueueBench::new();
    bench.push(1, "patient.example", 0, 9);
    for number in 0..5 {
        bench.push(10 + number, "greedy.example", 1, 9);
    }
    let mut all = bench.due_at(0);
    all.extend(bench.due_at(1));
    push_many(&mut bench, "hangs", 700, 1, 1);
    all.extend(bench.due_at(1));
    all.extend(bench.due_at(3));
    bench.numbers_at(5);
    let greedy: Vec<_> = all
        .iter()
        .filter(|(number, _)| (10..15).contains(number))
        .map(|(_, token)| token.attempt)
        .collect();
    let ended = bench.queues.choose_to_end(|_| true);
    assert_eq!(
        ended[..4],
        greedy[..4],
        "its last one counts like those of the others"
    );
    assert_eq!(ended[4], all[0].1.attempt, "the oldest of the single ones");
}

#[test]
fn a_destination_that_changes_its_share_takes_its_attempts_along() {
    let mut bench = QueueBench::new();
    for number in 0..9 {
        bench.push(number, "a.example", 0, 5);
    }
    assert_eq!(bench.due_at(0).len(), 5);
    bench.queues.reload(|_| ());
    let jobs = |bench: &mut QueueBench, second: u32| {
        let now = bench.at(second);
        let placement = |item: &Item<()>| Placement {
            destination: Destination::Domain(item.host.clone()),
            limit: 6,
            share: Share::Named,
        };
        std::iter::from_fn(|| bench.queues.next(now, placement)).count()
    };
    assert_eq!(jobs(&mut bench, 3), 0, "five is its concurrency");
    let running = bench
        .queues
        .in_use()
        .map(|share| (share.running, share.slow));
    assert_eq!(running, [(5, 5), (0, 0)]);
}

#[test]
fn a_lower_limit_applies_to_new_attempts() {
    let mut bench = QueueBench::new();
    push_many(&mut bench, "a", 100, 0, 1);
    let first = bench.due_at(0);
    assert_eq!(first.len(), 100);
    bench.queues.resize(100);
    bench.push(1, "new.example", 0, 1);
    assert_eq!(
        bench.numbers_at(0),
        NONE,
        "this share has 60 attempts, 30 of them places"
    );
    for (_, token) in &first[..71] {
        bench.ends(*token, 0, Health::Up);
    }
    assert_eq!(bench.numbers_at(0), [1]);
}
