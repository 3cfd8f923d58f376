//! Several relays share a queue in a PostgreSQL database, and nothing is lost whatever dies.
//!
//! [`server`] is a primary with a synchronous standby, [`wire`] the network between a relay and them,
//! which can be cut, and [`node`] a relay. [`load`] sends mail to whichever relays answer, and judges
//! what has arrived. The tests themselves are in [`deaths`], [`outages`], [`disasters`] and [`operation`].
//!
//! All of them need PostgreSQL's programs and minutes: `cargo test` leaves them to `.ci/cluster`.

mod deaths;
mod disasters;
mod load;
mod node;
mod operation;
mod outages;
mod server;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use load::{Load, Outcome};
use node::Node;
use server::{Primary, Standby};
use wire::Wire;

use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::sink::Sink;
use crate::support::within;

/// The lease of the relays.
const LEASE: Duration = Duration::from_secs(3);
/// The time after which something counts as never; many times what it takes.
const NEVER: Duration = Duration::from_mins(2);

/// The domain whose mail the sink may defer.
const LATER: &str = "later.example";

/// A primary, its standby, and relays that share the queue.
struct Cluster {
    // Dropped in this order: the relays first.
    nodes: Vec<Node>,
    primary: Primary,
    standby: Standby,
    sink: Sink,
    /// True while the sink defers what is for [`LATER`].
    is_deferring: Arc<AtomicBool>,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts the servers, and this many relays.
    fn start(nodes: usize) -> Self {
        Self::start_on(nodes, None)
    }

    /// Starts the servers, and this many relays. The primary has the database in this folder, if one is
    /// given.
    fn start_on(nodes: usize, disk: Option<&Path>) -> Self {
        // The server's user must get there, which may not be so where programs are built.
        let folder = tempfile::tempdir().expect("a folder");
        let primary = Primary::start(&folder.path().join("primary"));
        if let Some(disk) = disk {
            primary.move_database(disk);
        }
        let standby = Standby::start(&folder.path().join("standby"), &primary, disk);
        let is_deferring = Arc::new(AtomicBool::new(false));
        let is_now = Arc::clone(&is_deferring);
        let sink = Sink::replying(move |recipient| {
            let is_later = recipient.ends_with(LATER) && is_now.load(Ordering::Relaxed);
            is_later.then_some("451 4.2.0 later")
        });
        let mut cluster = Self {
            nodes: Vec::new(),
            primary,
            standby,
            sink,
            is_deferring,
            folder,
        };
        for number in 1..=nodes {
            let mut node = cluster.place_node(number);
            node.start();
            cluster.nodes.push(node);
        }
        cluster
    }

    /// Makes the place of a relay, which does not run yet.
    fn place_node(&self, number: usize) -> Node {
        let wires = [self.primary.port(), self.standby.port()].map(Wire::to);
        Node::place(&self.node_folder(number), number, wires, self.sink.address)
    }

    fn node_folder(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("node{number}"))
    }

    /// Sets whether the sink defers what is for [`LATER`].
    fn defer_later(&self, is_deferring: bool) {
        self.is_deferring.store(is_deferring, Ordering::Relaxed);
    }

    /// Sends a message to a relay, which accepts it. Returns its queue id.
    fn put(&mut self, node: usize, name: &str, domain: &str) -> String {
        let address = self.nodes[node].running().address;
        let mut client = Client::connect(address).expect("it listens");
        match client.send(&Message::new(name, &[domain], 500)) {
            Verdict::Accepted(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Returns how many times each recipient has had its message.
    fn tally(&self) -> BTreeMap<String, usize> {
        let tally = self.sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
        let counts = tally.into_iter().map(|(to, relays)| (to, relays.len()));
        counts.collect()
    }

    /// Waits until each of these recipients, and nobody else, has had its message so many times.
    fn wait_for_tally(&self, expected: &[(&str, usize)]) {
        let expected = expected
            .iter()
            .map(|(to, times)| ((*to).to_owned(), *times));
        let expected: BTreeMap<_, _> = expected.collect();
        let is_as_expected = within(NEVER, || self.tally() == expected);
        let had = self.tally();
        let differs = |to: &&String| had.get(*to) != expected.get(*to);
        let differing: Vec<_> = had.keys().chain(expected.keys()).filter(differs).collect();
        assert!(
            is_as_expected,
            "other numbers than expected for {differing:?} in {had:?}"
        );
    }

    /// Sends mail while `disturb` runs, and judges what has arrived in the end. `disturb` gets the load,
    /// to wait for mail to be accepted.
    fn under_load(&mut self, name: &str, disturb: impl FnOnce(&mut Self, &Load)) -> Outcome {
        let load = Load::start(name, self.nodes.iter().map(Node::address).collect());
        load.wait_for_accepted(200);
        disturb(self, &load);
        load.wait_for_accepted(200);
        let known = load.end();
        let outcome = known.judge(&self.sink);
        println!("{name}: {outcome}");
        outcome
    }
}
