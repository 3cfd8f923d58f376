//! Relays that die, hang and come back.

use super::{Cluster, LATER, LEASE, NEVER};
use crate::support::within;

/// The copies too many that a death may cause: what the relay was sending at that moment. It sends to one
/// destination over at most 20 connections by default, and there are three.
const IN_FLIGHT: usize = 60;

#[test]
#[ignore = "needs PostgreSQL"]
fn kill_9_of_a_relay_loses_nothing() {
    let mut cluster = Cluster::start(3);
    let outcome = cluster.under_load("kill9", |cluster, load| {
        for number in [0, 1] {
            cluster.nodes[number].kill();
            load.wait_for_accepted(300);
        }
        // One comes back with what it owned or others have adopted; one stays dead.
        cluster.nodes[0].start();
    });
    assert!(outcome.duplicates <= 2 * IN_FLIGHT, "{outcome}");
}

/// It wakes up in the middle of what it did, with a queue that others have delivered.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_relay_that_hangs_beyond_its_lease_sends_nothing_of_others_when_it_wakes() {
    let mut cluster = Cluster::start(3);
    let outcome = cluster.under_load("stopped", |cluster, load| {
        cluster.nodes[0].running().signal("STOP");
        let statement = "SELECT fenced FROM gatepost.node WHERE name = 'relay-1'";
        let primary = &cluster.primary.0;
        assert!(within(NEVER, || primary.query(statement).as_deref() == Ok("t")));
        std::thread::sleep(LEASE);
        load.wait_for_accepted(100);
        cluster.nodes[0].running().signal("CONT");
        cluster.nodes[0].running().hears("a new one");
    });
    assert!(outcome.duplicates <= IN_FLIGHT, "{outcome}");
}

/// Waiting mail is delivered by another, and not once more by the one that wakes up and finds it due.
#[test]
#[ignore = "needs PostgreSQL"]
fn what_others_have_delivered_is_not_delivered_by_a_relay_that_wakes() {
    let mut cluster = Cluster::start(2);
    cluster.defer_later(true);
    let mut expected = Vec::new();
    for number in 0..100 {
        let name = format!("waiting-{number}");
        cluster.put(0, &name, LATER);
        expected.push(format!("{name}@{LATER}"));
    }
    cluster.nodes[0].running().signal("STOP");
    let statement = "SELECT fenced FROM gatepost.node WHERE name = 'relay-1'";
    let primary = &cluster.primary.0;
    assert!(within(NEVER, || primary.query(statement).as_deref() == Ok("t")));
    cluster.defer_later(false);
    let expected: Vec<_> = expected.iter().map(|to| (to.as_str(), 1)).collect();
    cluster.wait_for_tally(&expected);

    cluster.nodes[0].running().signal("CONT");
    // Its retries are due by far.
    std::thread::sleep(LEASE);
    let t = cluster.tally();
    println!(
        "tally {} dup {:?}",
        t.len(),
        t.iter().filter(|(_, n)| **n > 1).collect::<Vec<_>>()
    );
    if t.iter().any(|(_, n)| *n > 1) {
        println!("{:?}", cluster.sink.tally());
        for n in &mut cluster.nodes {
            n.running().has_said("zz");
            let l = n.running().said().to_owned();
            println!("{l}");
        }
    }
    cluster.wait_for_tally(&expected);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_rolling_restart_repeats_nothing() {
    let mut cluster = Cluster::start(3);
    let outcome = cluster.under_load("rolling", |cluster, load| {
        for number in 0..3 {
            cluster.nodes[number].stop();
            load.wait_for_accepted(100);
            cluster.nodes[number].start();
            load.wait_for_accepted(50);
        }
    });
    assert_eq!(outcome.duplicates, 0, "{outcome}");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_second_relay_of_the_same_name_is_refused() {
    let mut cluster = Cluster::start(1);
    let mut second = cluster.place_node(2);
    second.name = "relay-1".to_owned();
    let end = second.try_start(&[]).expect_err("the name is used");
    assert!(
        end.log.contains("another node has the name relay-1"),
        "{}",
        end.log
    );
    cluster.under_load("name", |_, _| {});
}
