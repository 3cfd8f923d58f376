//! Databases that go away, and networks.

use super::{Cluster, LEASE, NEVER};
use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::within;

/// As in [`super::deaths`].
const IN_FLIGHT: usize = 60;

#[test]
#[ignore = "needs PostgreSQL"]
fn a_relay_cut_from_the_database_loses_nothing_and_accepts_nothing() {
    let mut cluster = Cluster::start(3);
    let outcome = cluster.under_load("cut", |cluster, load| {
        for wire in &cluster.nodes[0].wires {
            wire.cut();
        }
        load.wait_for_accepted(300);
        let statement = "SELECT fenced FROM gatepost.node WHERE name = 'relay-1'";
        let primary = &cluster.primary.0;
        assert!(within(NEVER, || primary.query(statement).as_deref() == Ok("t")));
        let address = cluster.nodes[0].running().address;
        let mut client = Client::connect(address).expect("it listens");
        let verdict = client.send(&Message::new("cut-alone", &["a.example"], 500));
        assert!(
            matches!(&verdict, Verdict::Refused(reply) if reply.starts_with("451 4.3.0")),
            "{verdict:?}"
        );
        for wire in &cluster.nodes[0].wires {
            wire.heal();
        }
        cluster.nodes[0].running().hears("a new one");
    });
    assert!(outcome.duplicates <= IN_FLIGHT, "{outcome}");
}

/// All leases are over when the database comes back: nobody adopts anything before it has been there for
/// one lease, and each relay keeps what it has.
#[test]
#[ignore = "needs PostgreSQL"]
fn an_outage_longer_than_the_lease_repeats_nothing() {
    let mut cluster = Cluster::start(3);
    let outcome = cluster.under_load("outage", |cluster, _| {
        cluster.primary.0.kill();
        std::thread::sleep(2 * LEASE);
        cluster.primary.0.begin();
        for node in &mut cluster.nodes {
            node.running().hears("the database is back");
        }
    });
    assert_eq!(outcome.duplicates, 0, "{outcome}");
    let fenced = "SELECT count(*) FROM gatepost.node WHERE fenced";
    assert_eq!(cluster.primary.0.query(fenced).as_deref(), Ok("0"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_standby_takes_over_when_the_primary_dies() {
    let mut cluster = Cluster::start(3);
    let outcome = cluster.under_load("promote", |cluster, load| {
        cluster.primary.0.kill();
        cluster.standby.promote();
        load.wait_for_accepted(300);
    });
    assert_eq!(outcome.duplicates, 0, "{outcome}");
}

/// Commits wait for a standby that is gone: nothing is accepted, and nothing is lost or repeated when it
/// is back.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_standby_that_is_gone_holds_every_250_back() {
    let mut cluster = Cluster::start(2);
    let outcome = cluster.under_load("standby", |cluster, _| {
        cluster.standby.0.kill();
        std::thread::sleep(2 * LEASE);
        let before = cluster.sink.arrivals().len();
        let address = cluster.nodes[0].running().address;
        let mut client = Client::connect(address).expect("it listens");
        let verdict = client.send(&Message::new("standby-alone", &["a.example"], 500));
        assert!(
            matches!(&verdict, Verdict::Refused(reply) if reply.starts_with('4')),
            "{verdict:?}"
        );
        std::thread::sleep(LEASE);
        assert_eq!(
            cluster.sink.arrivals().len(),
            before,
            "no MAIL FROM without a lease"
        );
        cluster.standby.0.begin();
    });
    assert!(outcome.duplicates <= IN_FLIGHT, "{outcome}");
}
