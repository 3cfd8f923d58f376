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

use std::path::{Path, PathBuf};
use std::time::Duration;

use load::{Load, Outcome};
use node::Node;
use server::{Primary, Standby};
use wire::Wire;

use crate::support::sink::Sink;

/// The lease of the relays.
const LEASE: Duration = Duration::from_secs(3);
/// The time after which something counts as never; many times what it takes.
const NEVER: Duration = Duration::from_mins(2);

/// A primary, its standby, and relays that share the queue.
struct Cluster {
    // Dropped in this order: the relays first.
    nodes: Vec<Node>,
    primary: Primary,
    standby: Standby,
    sink: Sink,
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
        let mut cluster = Self {
            nodes: Vec::new(),
            primary,
            standby,
            sink: Sink::start(),
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
