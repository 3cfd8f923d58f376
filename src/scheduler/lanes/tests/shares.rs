//! Who finds a place among many that hang.

use super::*;

/// Pushes a message each for so many destinations; each is named by `prefix` and its number.
fn push_many(bench: &mut Bench, prefix: &str, destinations: u64, second: u32, limit: u32) {
    for number in 0..destinations {
        bench.push(100_000 + number, &format!("{prefix}{number}.example"), second, limit);
    }
}

#[test]
fn named_destinations_do_not_wait_for_others() {
    let mut bench = Bench::new();
    push_many(&mut bench, "hangs", 1000, 0, 9);
    assert_eq!(bench.due_at(0).len(), 300, "each place is taken");
    push_many(&mut bench, "named", 1000, 0, 9);
    assert_eq!(bench.due_at(0).len(), 200, "and nor do others wait for them");
    assert_eq!(bench.numbers_at(1), NONE);
}

#[test]
fn slow_attempts_leave_their_places() {
    let mut bench = Bench::new();
    push_many(&mut bench, "hangs", 400, 0, 9);
    assert_eq!(bench.due_at(0).len(), 300);
    assert_eq!(bench.numbers_at(1), NONE);
    assert_eq!(bench.lanes.next_wake(), Some(bench.at(2)), "then they are slow");
    assert_eq!(bench.due_at(2).len(), 100);
    bench.push(1, "new.example", 3, 9);
    assert_eq!(bench.numbers_at(3), [1]);
    let [_, by_mx] = bench.lanes.in_use();
    assert_eq!((by_mx.share, by_mx.most, by_mx.running, by_mx.slow, by_mx.waiting), (Share::ByMx, 600, 401, 300, 0));
}

#[test]
fn a_slow_destination_begins_no_further_attempt_where_many_are_slow_whatever_it_did_before() {
    let mut bench = Bench::new();
    // Sixty destinations that have earned twenty attempts each.
    for round in 0..60 {
        push_many(&mut bench, "worked", 60, round, 20);
        for (_, ticket) in bench.due_at(round) {
            bench.ends(ticket, round, Health::Up);
        }
    }
    for _ in 0..30 {
        push_many(&mut bench, "worked", 60, 60, 20);
    }
    let hanging = bench.due_at(60);
    assert_eq!(hanging.len(), 225, "the last places are for destinations with nothing under way");
    bench.push(1, "new.example", 61, 20);
    assert_eq!(bench.numbers_at(61), [1]);
    assert_eq!(bench.numbers_at(62), NONE, "they are slow, and hold more than half of what slow attempts may");
    push_many(&mut bench, "quick", 299, 62, 20);
    assert_eq!(bench.due_at(62).len(), 299, "every place but that of the new one is free");
    bench.ends(hanging[0].1, 63, Health::Unknown);
    assert_eq!(bench.numbers_at(63), NONE, "224 of them are still more than 150");
}

#[test]
fn slow_destinations_go_on_while_few_are_slow() {
    let mut bench = Bench::new();
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
fn the_longest_slow_attempts_end_where_others_find_no_place() {
    let mut bench = Bench::new();
    push_many(&mut bench, "hangs", 650, 0, 9);
    let mut hanging = bench.due_at(0);
    assert_eq!(bench.lanes.choose_to_end(|_| true), [], "none of them is slow");
    hanging.extend(bench.due_at(2));
    assert_eq!(hanging.len(), 600);
    hanging.extend(bench.due_at(4));
    assert_eq!(hanging.len(), 600, "as many as there may be");
    bench.push(1, "new.example", 5, 9);
    assert_eq!(bench.numbers_at(5), NONE);
    // Fifty-one wait. The oldest has begun to send its message.
    let spared = hanging[0].1.attempt;
    let ended = bench.lanes.choose_to_end(|attempt| attempt != spared);
    let oldest: Vec<_> = hanging[1..52].iter().map(|(_, ticket)| ticket.attempt).collect();
    assert_eq!(ended, oldest);
    assert_eq!(bench.lanes.choose_to_end(|attempt| attempt != spared), [], "they are named once");
    for (_, ticket) in &hanging[1..52] {
        bench.ends(*ticket, 5, Health::Down(trouble("slow")));
    }
    let begun = bench.numbers_at(5);
    assert_eq!((begun.len(), begun.last()), (51, Some(&1)), "in the order in which they came");
}

#[test]
fn the_destination_with_the_most_slow_attempts_gives_way_first() {
    let mut bench = Bench::new();
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
    let greedy: Vec<_> =
        all.iter().filter(|(number, _)| (10..15).contains(number)).map(|(_, ticket)| ticket.attempt).collect();
    let ended = bench.lanes.choose_to_end(|_| true);
    assert_eq!(ended[..4], greedy[..4], "its last one is in turn with the others");
    assert_eq!(ended[4], all[0].1.attempt, "the oldest of those that are alone");
}

#[test]
fn a_destination_that_is_named_from_now_on_takes_its_attempts_along() {
    let mut bench = Bench::new();
    for number in 0..9 {
        bench.push(number, "a.example", 0, 5);
    }
    assert_eq!(bench.due_at(0).len(), 5);
    bench.lanes.begin_anew(|_| ());
    let jobs = |bench: &mut Bench, second: u32| {
        let now = bench.at(second);
        let place =
            |host: &Host| Place { destination: Destination::Domain(host.clone()), limit: 6, share: Share::Named };
        std::iter::from_fn(|| bench.lanes.next(now, place)).count()
    };
    assert_eq!(jobs(&mut bench, 3), 0, "five is all that it has earned");
    let running = bench.lanes.in_use().map(|share| (share.running, share.slow));
    assert_eq!(running, [(5, 5), (0, 0)]);
}

#[test]
fn fewer_attempts_hold_for_those_that_begin_from_now_on() {
    let mut bench = Bench::new();
    push_many(&mut bench, "a", 100, 0, 1);
    let first = bench.due_at(0);
    assert_eq!(first.len(), 100);
    bench.lanes.resize(100);
    bench.push(1, "new.example", 0, 1);
    assert_eq!(bench.numbers_at(0), NONE, "60 are of this share, and 30 of them places");
    for (_, ticket) in &first[..71] {
        bench.ends(*ticket, 0, Health::Up);
    }
    assert_eq!(bench.numbers_at(0), [1]);
}
