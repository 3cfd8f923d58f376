//! What operators see and do.

use super::Cluster;
use super::load::FORCED;
use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::within;

#[test]
#[ignore = "needs PostgreSQL"]
fn every_relay_shows_the_messages_of_all() {
    let mut cluster = Cluster::start(2);
    let ids = [cluster.put(0, "one", FORCED), cluster.put(1, "two", FORCED)];
    for node in &cluster.nodes {
        let shown = || {
            let (_, printed) = node.command(&["queue", "list", "--json"]);
            ids.iter().all(|id| printed.contains(id.as_str()))
        };
        assert!(
            within(super::NEVER, shown),
            "{}",
            node.command(&["queue", "list"]).1
        );
    }
}

/// From one relay with a folder to a cluster: what waits keeps its ids, and is delivered once.
#[test]
#[ignore = "needs PostgreSQL"]
fn the_queue_of_a_single_relay_moves_into_the_database() {
    let mut cluster = Cluster::start(0);
    let mut node = cluster.place_node(1);
    node.has_database = false;
    node.start();
    cluster.nodes.push(node);
    let ids = ["one", "two", "three"].map(|name| cluster.put(0, name, FORCED));
    let node = &mut cluster.nodes[0];
    let (status, printed) = node.command(&["spool", "move", "--from", "path", "--to", "url"]);
    assert_eq!(status, Some(2), "{printed}");
    assert!(printed.contains("has no [spool] url"), "{printed}");
    node.has_database = true;
    node.configure();
    let (status, printed) = node.command(&["spool", "move", "--from", "path", "--to", "url"]);
    assert_eq!(status, Some(2), "{printed}");
    assert!(
        printed.contains("in use by a running gatepost"),
        "{printed}"
    );
    node.stop();
    let end = node.try_start(&[]).expect_err("its queue is not moved yet");
    assert!(end.log.contains("gatepost spool move"), "{}", end.log);
    let (status, printed) = node.command(&["spool", "move", "--from", "path", "--to", "url"]);
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.starts_with("moved 3 messages"), "{printed}");
    node.start();
    let shown = || {
        let (_, printed) = node.command(&["queue", "list", "--json"]);
        ids.iter().all(|id| printed.contains(id.as_str()))
    };
    assert!(
        within(super::NEVER, shown),
        "{}",
        node.command(&["queue", "list"]).1
    );
    node.stop();
    let (status, printed) = node.command(&["spool", "move", "--from", "url", "--to", "path"]);
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.starts_with("moved 3 messages"), "{printed}");
    node.has_database = false;
    node.start();
    let shown = || {
        let (_, printed) = node.command(&["queue", "list", "--json"]);
        ids.iter().all(|id| printed.contains(id.as_str()))
    };
    assert!(
        within(super::NEVER, shown),
        "{}",
        node.command(&["queue", "list"]).1
    );
}

/// A relay is drained under load and stays so over a restart; the other delivers what waited.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_drained_relay_hands_its_queue_over_and_nothing_is_sent_twice() {
    let mut cluster = Cluster::start(2);
    let waiting = ["one", "two", "three"].map(|name| cluster.put(0, name, FORCED));
    let outcome = cluster.under_load("drain", |cluster, load| {
        let (status, printed) = cluster.nodes[1].command(&["node", "drain", "relay-1"]);
        assert_eq!(status, Some(0), "{printed}");
        assert!(printed.starts_with("relay-1 drains"), "{printed}");
        load.wait_for_accepted(200);
        assert_drained(cluster, &waiting);
        let (status, printed) = cluster.nodes[0].command(&["node", "drain", "relay-2"]);
        assert_eq!(status, Some(1), "{printed}");
        assert!(printed.contains("no other node"), "{printed}");
        cluster.nodes[0].stop();
        cluster.nodes[0].start();
        assert_drained(cluster, &waiting);
        let (status, printed) = cluster.nodes[0].command(&["node", "drain", "--end"]);
        assert_eq!(status, Some(0), "{printed}");
        assert_eq!(printed, "relay-1 accepts mail again\n");
        let ready = || cluster.nodes[0].command(&["status", "--ready"]).0 == Some(0);
        assert!(within(super::NEVER, ready), "it is not ready");
        cluster.put(0, "four", FORCED);
    });
    assert_eq!(outcome.duplicates, 0);
}

/// Waits until the first relay rejects mail and the second has these messages and all others.
fn assert_drained(cluster: &mut Cluster, waiting: &[String]) {
    let is_unready = || cluster.nodes[0].command(&["status", "--ready"]).0 == Some(1);
    assert!(within(super::NEVER, is_unready), "it is ready");
    let address = cluster.nodes[0].running().address;
    let mut client = Client::connect(address).expect("it listens");
    let refused = match client.send(&Message::new("late", &["a.example"], 500)) {
        Verdict::Refused(reply) => reply,
        other => panic!("{other:?}"),
    };
    assert!(refused.starts_with("451 4.3.2 "), "{refused}");
    let (status, printed) = cluster.nodes[0].command(&["status", "--ready"]);
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("this relay drains"), "{printed}");
    let nodes = || cluster.nodes[0].command(&["node", "list", "--json"]).1;
    let is_empty = || {
        let nodes: serde_json::Value = serde_json::from_str(&nodes()).expect("JSON");
        nodes[0]["draining"] == true && nodes[0]["messages"] == 0
    };
    assert!(within(super::NEVER, is_empty), "{}", nodes());
    for id in waiting {
        let (_, printed) = cluster.nodes[0].command(&["queue", "show", id, "--json"]);
        assert!(printed.contains("relay-2"), "{printed}");
    }
}
