//! Disks that are full, clocks that are wrong, and backups that are restored.

use std::time::Duration;

use super::node::Node;
use super::{Cluster, LATER, NEVER};
use crate::support::client::{Client, Verdict};
use crate::support::disk::{Ballast, Mounted};
use crate::support::faketime::faketime;
use crate::support::message::Message;
use crate::support::within;

/// As in [`super::deaths`].
const IN_FLIGHT: usize = 60;
/// The size of the disk that becomes full, in octets. The database alone needs a quarter of it.
const DISK: u64 = 64 << 20;

/// Starts a relay with a clock that is ten minutes ahead.
fn start_ahead(node: &mut Node) {
    let library = faketime().expect("Debian's package faketime is installed");
    let under = [
        "env",
        &format!("LD_PRELOAD={}", library.display()),
        "FAKETIME=+10m",
        "DONT_FAKE_MONOTONIC=1",
        "NO_FAKE_STAT=1",
    ];
    node.try_start(&under.map(str::to_owned))
        .unwrap_or_else(|end| panic!("it did not start:\n{}", end.log));
}

/// Leases are of the database's clock and of the time since the boot, so nobody is taken for dead, and
/// who dies is noticed.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_relay_with_a_clock_ten_minutes_off_shares_the_queue() {
    let mut cluster = Cluster::start(2);
    let mut ahead = cluster.place_node(3);
    start_ahead(&mut ahead);
    cluster.nodes.push(ahead);
    let outcome = cluster.under_load("clock", |_, load| load.wait_for_accepted(300));
    assert_eq!(outcome.duplicates, 0, "{outcome}");
    let fenced = "SELECT count(*) FROM gatepost.node WHERE fenced";
    assert_eq!(cluster.primary.0.query(fenced).as_deref(), Ok("0"));
    let log = cluster.nodes[2].running().said().to_owned();
    assert!(is_ahead(&log), "its clock is that of the machine:\n{log}");

    let outcome = cluster.under_load("clock-dead", |cluster, load| {
        // One with the right clock, whose mail the other two adopt, and then the one that is ahead.
        for number in [0, 2] {
            cluster.nodes[number].kill();
            load.wait_for_accepted(300);
        }
    });
    assert!(outcome.duplicates <= 2 * IN_FLIGHT, "{outcome}");
}

/// Returns whether the first line of a log has a time that is still to come.
fn is_ahead(log: &str) -> bool {
    let first = log.split_whitespace().next().unwrap_or_default();
    let time: Option<jiff::Timestamp> = first.parse().ok();
    time.is_some_and(|time| time > jiff::Timestamp::now() + Duration::from_mins(2))
}

/// Mail is rejected with a temporary reply, what was accepted stays, and all goes on when there is space.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_full_database_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).expect("ours");
    let Some(_mounted) = Mounted::on(disk.clone(), DISK) else {
        return;
    };
    let mut cluster = Cluster::start_on(2, Some(&disk));
    let outcome = cluster.under_load("full", |cluster, load| {
        let ballast = Ballast::at(disk.join("ballast"));
        ballast.fill(Duration::from_secs(3));
        let refused = || {
            let address = cluster.nodes[0].running().address;
            let mut client = Client::connect(address).expect("it listens");
            let large = Message::new("full-alone", &["a.example"], 400_000);
            matches!(client.send(&large), Verdict::Refused(reply) if reply.starts_with("452 4.3.1"))
        };
        assert!(within(NEVER, refused), "nothing was rejected");
        for node in &mut cluster.nodes {
            assert!(!node.running().has_ended(), "it goes on");
        }
        ballast.drop_all();
        load.wait_for_accepted(300);
    });
    assert_eq!(outcome.duplicates, 0, "{outcome}");
}

/// docs/cluster.md: what was delivered after the backup was made is delivered again, and nothing else.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_restored_backup_repeats_what_was_delivered_after_it() {
    let mut cluster = Cluster::start(2);
    cluster.defer_later(true);
    cluster.put(0, "one", LATER);
    cluster.put(1, "two", LATER);
    cluster.put(0, "before", "a.example");
    cluster.wait_for_tally(&[("before@a.example", 1)]);
    cluster.nodes.iter_mut().for_each(Node::stop);
    let backup = cluster.primary.0.dump();

    cluster.defer_later(false);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.put(1, "after", "a.example");
    let once = [("before@a.example", 1), ("after@a.example", 1)];
    let delivered = [("one@later.example", 1), ("two@later.example", 1)];
    cluster.wait_for_tally(&[&once[..], &delivered].concat());
    cluster.nodes.iter_mut().for_each(Node::stop);

    cluster.primary.0.restore(&backup);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.put(0, "at-last", "a.example");
    let again = [
        ("one@later.example", 2),
        ("two@later.example", 2),
        ("at-last@a.example", 1),
    ];
    cluster.wait_for_tally(&[&once[..], &again].concat());
    let (status, printed) = cluster.nodes[0].command(&["evidence", "verify"]);
    assert_eq!(status, Some(0), "{printed}");
}
