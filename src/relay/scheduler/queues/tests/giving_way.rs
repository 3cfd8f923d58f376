//! Tests of the order among messages to many domains and others that are due at the same time.

use super::*;

/// Adds a message to so many domains, all due at `second`.
fn push_to_many(bench: &mut QueueBench, number: u64, domains: u16, end: &str, second: u32) {
    for place in 0..domains {
        let name = format!("d{place}-{number}.{end}");
        let item = Item {
            place,
            ..item(number, &name, bench.start + 100_000 * SECOND)
        };
        bench.queues.push(item, bench.at(second));
    }
}

#[test]
fn mail_to_one_domain_passes_a_message_to_many_at_the_same_smart_hosts() {
    let mut bench = QueueBench::new();
    bench.limit = 1;
    for number in 1..=5 {
        push_to_many(&mut bench, number, 1000, "smart.example", 0);
    }
    let mut running = bench.due_at(0);
    // A second of attempts is behind them, and the end is far.
    for _ in 0..1000 {
        let (_, token) = running.remove(0);
        bench.ends(token, 1, Health::Up);
        running = bench.due_at(1);
    }
    bench.push(9, "smart.example", 1, 1);
    let (_, token) = running.remove(0);
    bench.ends(token, 1, Health::Up);
    assert_eq!(bench.numbers_at(1), [9]);
}

#[test]
fn mail_to_one_domain_passes_a_message_to_many_that_wait_for_places() {
    let mut bench = QueueBench::new();
    for number in 1..=5 {
        push_to_many(&mut bench, number, 1000, "example", 0);
    }
    let running = bench.due_at(0);
    assert_eq!(running.len(), 300, "every place is in use");
    bench.push(9, "other.example", 1, 1);
    assert_eq!(bench.numbers_at(1), NONE);
    let mut served = running;
    for _ in 0..2 {
        for (_, token) in served.drain(..) {
            bench.ends(token, 1, Health::Up);
        }
        served = bench.due_at(1);
    }
    let passes = served.iter().any(|(number, _)| *number == 9);
    assert!(passes, "before most of the others");
}

#[test]
fn a_destination_in_the_wait_list_moves_forward_for_mail_to_one_domain() {
    let mut bench = QueueBench::new();
    for number in 1..=5 {
        push_to_many(&mut bench, number, 1000, "example", 0);
    }
    let running = bench.due_at(0);
    bench.push(9, "d999-5.example", 0, 1);
    assert_eq!(bench.numbers_at(0), NONE);
    for (_, token) in running.into_iter().take(5) {
        bench.ends(token, 0, Health::Up);
    }
    // The first domain of each of the others, and then this one.
    assert_eq!(bench.numbers_at(0), [2, 3, 4, 5, 9]);
}

#[test]
fn a_message_to_many_domains_gives_way_for_ten_seconds_at_most() {
    let mut bench = QueueBench::new();
    bench.limit = 1;
    push_to_many(&mut bench, 1, u16::MAX, "smart.example", 0);
    let mut running = bench.due_at(0);
    for number in 2..=9 {
        bench.push(number, "smart.example", 11, 1);
    }
    for _ in 0..2000 {
        let (number, token) = running.remove(0);
        assert_eq!(number, 1);
        bench.ends(token, 11, Health::Up);
        running = bench.due_at(11);
    }
}

#[test]
fn a_due_time_is_kept_while_an_item_gives_way() {
    let mut bench = QueueBench::new();
    bench.limit = 1;
    push_to_many(&mut bench, 1, 1000, "smart.example", 3);
    bench.due_at(3);
    let ids = [QueueId::from_number(1).expect("small")].into();
    let waiting = bench.queues.take(&ids);
    assert!(waiting.len() > 900);
    for (_, due) in waiting {
        assert_eq!(due, bench.at(3));
    }
}
