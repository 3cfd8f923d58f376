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
