//! What operators see and do.

use super::Cluster;
use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::within;

/// Puts mail into the queue that is not delivered.
fn put_forced(cluster: &mut Cluster, node: usize, name: &str) -> String {
    let address = cluster.nodes[node].running().address;
    let mut client = Client::connect(address).expect("it listens");
    match client.send(&Message::new(name, &[super::load::FORCED], 500)) {
        Verdict::Accepted(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn every_relay_shows_the_messages_of_all() {
    let mut cluster = Cluster::start(2);
    let ids = [
        put_forced(&mut cluster, 0, "one"),
        put_forced(&mut cluster, 1, "two"),
    ];
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
    let ids = ["one", "two", "three"].map(|name| put_forced(&mut cluster, 0, name));
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
