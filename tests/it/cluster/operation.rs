//! What operators see and do.

use super::Cluster;
use super::load::FORCED;
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
