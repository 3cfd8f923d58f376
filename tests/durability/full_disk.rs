//! The disk fills up: 452 4.3.1 before a message and in the middle of one, the queue is worked off
//! without an octet to spare, and mail is taken again when there is room. Nobody lends a hand.
//!
//! The spool gets a small file system of its own, which takes root.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::relay::{Home, Relay};
use crate::support::sink::{ClosedPort, Sink};
use crate::support::{place, within};

/// Of such a disk a twentieth is kept for working the queue off, and a fiftieth is the reserve.
const DISK: u64 = 64 << 20;
const KEPT: u64 = DISK / 20;
/// A look at the disk is believed for 100 ms.
const NOTICED: Duration = Duration::from_millis(200);

/// A file system in memory; it goes when this does.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where we may not.
    fn on(folder: PathBuf) -> Option<Self> {
        let size = format!("size={DISK},mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "gatepost-test"]).arg(&folder).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then(|| Self(folder))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a relay that is still being killed must not keep it.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} is still mounted", self.0.display());
    }
}

/// A file that takes up room.
struct Ballast(PathBuf);

impl Ballast {
    /// Grows it until `left` octets are free.
    fn leave(&self, left: u64) {
        let length = fs::metadata(&self.0).map_or(0, |file| file.len());
        let file = fs::File::options().create(true).truncate(false).write(true).open(&self.0).expect("the ballast");
        let free = free(&self.0);
        assert!(free >= left, "{free} octets are free and {left} should be");
        let command =
            Command::new("fallocate").args(["--length", &(length + free - left).to_string()]).arg(&self.0).status();
        assert!(command.is_ok_and(|status| status.success()), "{} was not made larger", self.0.display());
        drop(file);
    }

    fn drop_all(self) {
        fs::remove_file(self.0).expect("the ballast");
    }
}

/// Octets that are free where a file is.
fn free(file: &Path) -> u64 {
    let told = Command::new("stat").args(["--file-system", "--format", "%a %S"]).arg(file).output().expect("stat");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let numbers: Vec<u64> = told.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [blocks, size] = numbers[..] else { panic!("stat said {told:?}") };
    blocks * size
}

#[test]
#[ignore = "needs root: .ci/durability"]
fn a_full_disk_refuses_mail_and_works_the_queue_off() {
    let folder = place();
    let spool = folder.path().join("spool");
    fs::create_dir(&spool).expect("a folder");
    let Some(mounted) = Mounted::on(spool.clone()) else {
        println!("SKIPPED: a small file system for the spool could not be mounted; run this as root");
        return;
    };
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let home = Home { folder: folder.path().to_owned(), spool, sink: sink.address, down: closed.address };
    let relay = Relay::start(&home, "full.example", &[]).unwrap_or_else(|end| panic!("{}", end.log));
    let ballast = Ballast(home.spool.join("bodies/ballast"));
    let mut owed = fill(relay.address, &ballast);
    sink.serve(closed.open());
    let missing = sink.wait_for(&owed, Duration::from_mins(1));
    assert!(missing.is_empty(), "the queue is not worked off on a full disk: {missing:?}");
    assert!(within(Duration::from_secs(20), || matches!(home.queued(), Ok(0))), "{:?} entries are left", home.queued());

    ballast.drop_all();
    let after = Message::new("after", &["a.example"], 300_000);
    let mut client = Client::connect(relay.address).expect("it still listens");
    let taken = within(Duration::from_secs(10), || matches!(client.send(&after), Verdict::Accepted(_)));
    assert!(taken, "there is room again, and no mail is taken");
    owed.extend(after.recipients);
    let missing = sink.wait_for(&owed, Duration::from_secs(20));
    assert!(missing.is_empty(), "{missing:?}");
    home.expect_clean(relay).unwrap_or_else(|fault| panic!("{fault}"));
    let tally = sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(tally.len(), owed.len(), "what was refused must not arrive");
    assert!(tally.values().all(|relays| relays.len() == 1), "each arrives once: {tally:?}");
    drop(mounted);
}

/// Fills the disk step by step, and tells whom is owed what was accepted on the way.
fn fill(relay: SocketAddr, ballast: &Ballast) -> Vec<String> {
    let mut client = Client::connect(relay).expect("it listens");
    let mut owed = Vec::new();
    let mut accept = |client: &mut Client, name: &str, size| {
        let message = Message::new(name, &["down.example"], size);
        let verdict = client.send(&message);
        assert!(matches!(verdict, Verdict::Accepted(_)), "{name}: {verdict:?}");
        owed.extend(message.recipients);
    };
    for count in 0..20 {
        accept(&mut client, &format!("early{count}"), if count % 4 == 0 { 200_000 } else { 3000 });
    }
    // Room for small ones, not for a large one that does not say how large it is.
    ballast.leave(KEPT + (2 << 20));
    std::thread::sleep(NOTICED);
    accept(&mut client, "still", 3000);
    let large = Message::new("too-large", &["a.example"], 5 << 20);
    let verdict = client.send(&large);
    assert!(matches!(&verdict, Verdict::Refused(reply) if reply.starts_with("452 4.3.1 ")), "during DATA: {verdict:?}");
    accept(&mut client, "in-the-same-session", 3000);

    // No room at all: nothing is begun that could not be finished.
    ballast.leave(0);
    std::thread::sleep(NOTICED);
    let small = Message::new("too-late", &["a.example"], 500);
    let verdict = client.send(&small);
    assert!(matches!(&verdict, Verdict::Refused(reply) if reply.starts_with("452 4.3.1 ")), "before DATA: {verdict:?}");
    owed
}
