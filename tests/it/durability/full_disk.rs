//! The disk fills up: 452 4.3.1 before a message and in the middle of one, the queue is worked off
//! without an octet to spare, and mail is taken again when there is room. Nobody lends a hand.
//!
//! The spool gets a small file system of its own, which takes root; once with the evidence, once
//! without.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::home::Home;
use super::servers::ClosedPort;
use crate::support::chain::write_large_day;
use crate::support::client::{Client, Verdict, send_all};
use crate::support::config::ConfigBuilder;
use crate::support::disk::{Ballast, Mounted};
use crate::support::message::Message;
use crate::support::relay::{Relay, program};
use crate::support::sink::Sink;
use crate::support::{place, within};

/// A disk for the spool alone.
const SMALL: u64 = 64 << 20;
/// One for the evidence as well, which keeps [`EVIDENCE`] in reserve where there is ten times as
/// much. What is kept for the queue must be more than that, or mail is taken when it is given up.
const LARGE: u64 = 400 << 20;
const EVIDENCE: u64 = 16 << 20;
/// Of such disks a twentieth is kept for working the queue off, and a fiftieth is the spool's
/// reserve.
const fn kept(disk: u64) -> u64 {
    disk / 20
}
const _: () = assert!(kept(LARGE) > EVIDENCE);
/// What is free in addition to that while a disk still takes small messages: more than the log of
/// the spool allocates ahead at that time.
const MARGIN: u64 = 4 << 20;
/// A message that is larger than that.
const TOO_LARGE: usize = 8 << 20;
/// The time after which something counts as never; many times what it takes.
const NEVER: Duration = Duration::from_mins(4);
/// A look at the disk is believed for 100 ms.
const NOTICED: Duration = Duration::from_millis(200);

#[test]
#[ignore = "needs root: .ci/durability"]
fn a_full_disk_refuses_mail_and_works_the_queue_off() {
    let folder = place();
    let disk = folder.path().join("disk");
    let home = |sink: &Sink, closed: &ClosedPort| Home {
        folder: folder.path().to_owned(),
        spool: disk.join("spool"),
        sink: sink.address,
        down: closed.address,
    };
    fill_up(&disk, SMALL, home);
}

#[test]
#[ignore = "needs root: .ci/durability"]
fn a_disk_that_is_full_takes_the_evidence_of_what_is_worked_off() {
    let folder = place();
    let disk = folder.path().join("disk");
    let home = |sink: &Sink, closed: &ClosedPort| Home {
        folder: disk.clone(),
        spool: disk.join("spool"),
        sink: sink.address,
        down: closed.address,
    };
    fill_up(&disk, LARGE, home);
}

fn fill_up(disk: &Path, size: u64, home: impl Fn(&Sink, &ClosedPort) -> Home) {
    fs::create_dir(disk).expect("a folder");
    let Some(mounted) = Mounted::on(disk.to_owned(), size) else {
        return;
    };
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let home = home(&sink, &closed);
    let mut relay =
        Relay::start(&home, "full.example", &[]).unwrap_or_else(|end| panic!("{}", end.log));
    let reserve = home.evidence().join("reserve");
    let octets = |file: &Path| fs::metadata(file).map_or(0, |file| file.len());
    let of_the_spool = home.spool.join("reserve");
    assert_eq!(
        (octets(&reserve), octets(&of_the_spool) > 0),
        (EVIDENCE, true)
    );
    let ballast = Ballast::at(home.spool.join("bodies/ballast"));
    let mut owed = fill(&mut relay, &ballast, kept(size));
    sink.serve(closed.open());
    let missing = sink.wait_for(&owed, NEVER);
    assert!(
        missing.is_empty(),
        "the queue is not worked off on a full disk: {missing:?}"
    );
    assert!(
        within(NEVER, || matches!(home.queued(), Ok(0))),
        "{:?} entries are left",
        home.queued()
    );
    assert!(
        reserve.exists() || reserve.starts_with(disk),
        "it is given up, and its own disk was never full"
    );

    ballast.drop_all();
    let after = Message::new("after", &["a.example"], 300_000);
    let mut client = Client::connect(relay.address).expect("it still listens");
    let taken = within(NEVER, || {
        matches!(client.send(&after), Verdict::Accepted(_))
    });
    assert!(taken, "there is room again, and no mail is taken");
    owed.extend(after.recipients);
    let missing = sink.wait_for(&owed, NEVER);
    assert!(missing.is_empty(), "{missing:?}");
    home.expect_clean(relay)
        .unwrap_or_else(|fault| panic!("{fault}"));
    home.expect_recorded(&owed, &sink.times())
        .unwrap_or_else(|fault| panic!("{fault}"));
    let tally = sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(tally.len(), owed.len(), "what was refused must not arrive");
    assert!(
        tally.values().all(|relays| relays.len() == 1),
        "each arrives once: {tally:?}"
    );
    drop(mounted);
}

/// A relay with all it has on a small disk, and mail in its queue.
struct Cramped {
    mounted: Mounted,
    home: Home,
    ballast: Ballast,
    sink: Sink,
    closed: ClosedPort,
    relay: Relay,
    owed: Vec<String>,
}

fn cramped(disk: &Path) -> Option<Cramped> {
    fs::create_dir(disk).expect("a folder");
    let mounted = Mounted::on(disk.to_owned(), SMALL)?;
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let home = Home {
        folder: disk.to_owned(),
        spool: disk.join("spool"),
        sink: sink.address,
        down: closed.address,
    };
    let relay =
        Relay::start(&home, "before.example", &[]).unwrap_or_else(|end| panic!("{}", end.log));
    let ballast = Ballast::at(home.spool.join("bodies/ballast"));
    let messages: Vec<_> = (0..20_usize)
        .map(|at| Message::new(&format!("m{at}"), &["down.example"], 3000 + at % 4 * 60_000))
        .collect();
    let verdicts = send_all(relay.address, &messages);
    assert!(
        verdicts
            .iter()
            .all(|verdict| matches!(verdict, Verdict::Accepted(_))),
        "{verdicts:?}"
    );
    let owed = messages
        .into_iter()
        .flat_map(|message| message.recipients)
        .collect();
    Some(Cramped {
        mounted,
        home,
        ballast,
        sink,
        closed,
        relay,
        owed,
    })
}

/// The queue itself fills the disk, and is delivered. Then there is room again, inside the database
/// and in the log, and mail is accepted without a restart; also where a program reads the database
/// all the while.
#[test]
#[ignore = "needs root: .ci/durability"]
fn a_disk_that_its_own_queue_filled_takes_mail_again() {
    for is_read in [false, true] {
        let folder = place();
        let disk = folder.path().join("disk");
        fs::create_dir(&disk).expect("a folder");
        let Some(mounted) = Mounted::on(disk.clone(), SMALL) else {
            return;
        };
        let (sink, closed) = (Sink::start(), ClosedPort::take());
        let home = Home {
            folder: folder.path().to_owned(),
            spool: disk.join("spool"),
            sink: sink.address,
            down: closed.address,
        };
        let relay =
            Relay::start(&home, "own.example", &[]).unwrap_or_else(|end| panic!("{}", end.log));
        let reader = rusqlite::Connection::open(home.spool.join("queue.db")).expect("a database");
        if is_read {
            let read = reader.execute_batch("BEGIN; SELECT count(*) FROM message");
            read.expect("readable");
        }
        let mut owed = fill_with_mail(relay.address);
        sink.serve(closed.open());
        let missing = sink.wait_for(&owed, NEVER);
        assert!(
            missing.is_empty(),
            "read: {is_read}, not delivered: {missing:?}"
        );
        let is_empty = within(NEVER, || matches!(home.queued(), Ok(0)));
        assert!(is_empty, "{:?} entries are left", home.queued());
        drop(reader);
        let after = Message::new("after", &["a.example"], 100_000);
        let mut client = Client::connect(relay.address).expect("it still listens");
        let accepted = within(NEVER, || {
            matches!(client.send(&after), Verdict::Accepted(_))
        });
        assert!(
            accepted,
            "read: {is_read}, the queue is empty, and no mail is accepted"
        );
        owed.extend(after.recipients);
        let missing = sink.wait_for(&owed, NEVER);
        assert!(missing.is_empty(), "{missing:?}");
        home.expect_clean(relay)
            .unwrap_or_else(|fault| panic!("{fault}"));
        let tally = sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
        assert!(
            tally.values().all(|relays| relays.len() == 1),
            "each arrives once: {tally:?}"
        );
        drop(mounted);
    }
}

/// Sends mail for a destination that is down until it is rejected. Returns the recipients of what
/// was accepted.
fn fill_with_mail(relay: SocketAddr) -> Vec<String> {
    let mut client = Client::connect(relay).expect("it listens");
    let mut owed = Vec::new();
    for at in 0..2000 {
        let message = Message::new(&format!("m{at}"), &["down.example"], 100_000);
        match client.send(&message) {
            Verdict::Accepted(_) => owed.extend(message.recipients),
            Verdict::Refused(reply) => {
                assert!(reply.starts_with("452 4.3.1 "), "{reply}");
                assert!(owed.len() > 20, "only {} were accepted", owed.len());
                return owed;
            }
            Verdict::Lost => panic!("the session ended"),
        }
    }
    panic!("a small disk never fills")
}

/// The file that evidence is written to.
fn page(home: &Home) -> PathBuf {
    let files = fs::read_dir(home.evidence())
        .expect("it is kept")
        .flatten()
        .map(|entry| entry.path());
    files
        .filter(|file| file.extension().is_some_and(|end| end == "jsonl"))
        .max()
        .expect("a page")
}

#[test]
#[ignore = "needs root: .ci/durability"]
fn a_relay_starts_on_a_full_disk_and_works_its_queue_off() {
    let folder = place();
    let Some(cramped) = cramped(&folder.path().join("disk")) else {
        return;
    };
    let Cramped {
        mounted,
        home,
        ballast,
        sink,
        closed,
        relay,
        owed,
    } = cramped;
    // An orderly end takes the log and its index away, and the next start makes them anew.
    relay
        .terminate()
        .check()
        .unwrap_or_else(|fault| panic!("{fault}"));
    let page = page(&home);
    let torn = fs::read(&page)
        .map(|records| records[..200].to_vec())
        .expect("a record");
    fs::File::options()
        .append(true)
        .open(page)
        .and_then(|mut page| page.write_all(&torn))
        .expect("half a record");
    ballast.leave(0);

    let relay =
        Relay::start(&home, "after.example", &[]).unwrap_or_else(|end| panic!("{}", end.log));
    let verdict = Client::connect(relay.address)
        .expect("it listens")
        .send(&Message::new("no", &["a.example"], 500));
    assert!(
        matches!(&verdict, Verdict::Refused(reply) if reply.starts_with("452 4.3.1 ")),
        "{verdict:?}"
    );
    sink.serve(closed.open());
    let missing = sink.wait_for(&owed, NEVER);
    assert!(
        missing.is_empty(),
        "the queue is not worked off: {missing:?}"
    );
    assert!(
        within(NEVER, || matches!(home.queued(), Ok(0))),
        "{:?} entries are left",
        home.queued()
    );
    ballast.drop_all();
    home.expect_clean(relay)
        .unwrap_or_else(|fault| panic!("{fault}"));
    home.expect_recorded(&owed, &sink.times())
        .unwrap_or_else(|fault| panic!("{fault}"));
    drop(mounted);
}

#[test]
#[ignore = "needs root: .ci/durability"]
fn a_kill_while_evidence_waits_for_room_tears_no_record() {
    let folder = place();
    let Some(cramped) = cramped(&folder.path().join("disk")) else {
        return;
    };
    let Cramped {
        mounted,
        home,
        ballast,
        sink,
        closed,
        mut relay,
        owed,
    } = cramped;
    relay.while_stopped(|| {
        for reserve in [home.evidence().join("reserve"), home.spool.join("reserve")] {
            fs::remove_file(reserve).expect("there is one");
        }
        ballast.leave(0);
    });
    sink.serve(closed.open());
    relay.hears("cannot write evidence");
    relay.kill();
    let records = fs::read(page(&home)).expect("it is there");
    assert!(records.ends_with(b"}\n"), "half a record was left behind");

    ballast.drop_all();
    let relay =
        Relay::start(&home, "after.example", &[]).unwrap_or_else(|end| panic!("{}", end.log));
    let missing = sink.wait_for(&owed, NEVER);
    assert!(missing.is_empty(), "{missing:?}");
    home.expect_clean(relay)
        .unwrap_or_else(|fault| panic!("{fault}"));
    home.expect_recorded(&owed, &sink.times())
        .unwrap_or_else(|fault| panic!("{fault}"));
    drop(mounted);
}

/// A relay with its spool and its evidence on a small disk. The configuration is not on that disk.
fn full_of_evidence(folder: &Path, disk: &Path, sink: &Sink, days_ago: i64) -> PathBuf {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(disk.join("evidence"))
        .expect("a new disk");
    write_large_day(&disk.join("evidence"), 300, days_ago);
    let table = |name| format!("path = \"{}\"", disk.join(name).display());
    ConfigBuilder::new()
        .listener("127.0.0.1:0")
        .table("spool", &table("spool"))
        .table("evidence", &table("evidence"))
        .table("admin", "socket = \"run/admin.sock\"\nhttp = \"\"")
        .table("relay", "networks = [\"127.0.0.0/8\"]")
        .table("log", "format = \"text\"")
        .relays_to(sink.address)
        .write(folder)
}

#[test]
#[ignore = "needs root: .ci/durability"]
fn a_full_disk_of_evidence_rejects_mail_until_days_are_archived() {
    goes_on_after_archive(1, &[], "300 older records were archived");
}

/// One day alone fills the disk.
#[test]
#[ignore = "needs root: .ci/durability"]
fn a_full_disk_of_one_day_rejects_mail_until_that_day_is_archived() {
    goes_on_after_archive(0, &["--today"], " older records were archived");
}

/// Fills a disk with evidence of the day so many days ago, and archives it with these options. `words`
/// are what `verify` says then.
fn goes_on_after_archive(days_ago: i64, options: &[&str], words: &str) {
    let folder = place();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let Some(mounted) = Mounted::on(disk.clone(), SMALL) else {
        return;
    };
    let sink = Sink::start();
    let config = full_of_evidence(folder.path(), &disk, &sink, days_ago);
    let mut relay = Relay::run(&config, &[]).unwrap_or_else(|end| panic!("{}", end.log));
    let mut client = Client::connect(relay.address).expect("it listens");
    let first = Message::new("first", &["a.example"], 500);
    let verdict = client.send(&first);
    assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
    if days_ago > 0 {
        // With the first record of today, yesterday is over.
        relay.hears("compressed a day of evidence");
    }
    let late = Message::new("late", &["a.example"], 500);
    let after = Message::new("after", &["a.example"], 3000);
    assert_eq!(client.begin(&late).expect("replies"), None);
    let ballast = Ballast::at(disk.join("ballast"));
    // A relay that runs would make the reserve anew before the disk is full.
    relay.while_stopped(|| {
        fs::remove_file(disk.join("evidence/reserve")).expect("there is one");
        ballast.leave(256 << 10);
    });
    let verdict = client.complete(&late).expect("a reply");
    let mut owed = [first.recipients, after.recipients.clone()].concat();
    if matches!(verdict, Verdict::Accepted(_)) {
        owed.extend(late.recipients);
    }
    relay.while_stopped(|| ballast.leave(0));
    send_until_refused(&mut client, &mut owed);

    // Copies go to another disk. The full one needs no space for it.
    let archive = folder.path().join("archive");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command.arg("evidence").args(arguments).arg("--config");
        let output = command.arg(&config).output().expect("gatepost runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{errors}");
        text
    };
    let target = archive.to_str().expect("UTF-8");
    run(&[&["archive", target], options].concat());
    let goes_on = within(NEVER, || {
        matches!(client.send(&after), Verdict::Accepted(_))
    });
    assert!(goes_on, "days were archived, and no mail is accepted");
    let missing = sink.wait_for(&owed, NEVER);
    assert!(missing.is_empty(), "{missing:?}");
    relay
        .terminate()
        .check()
        .unwrap_or_else(|fault| panic!("{fault}"));
    let text = run(&["verify"]);
    assert!(text.contains(words), "{text}");
    let all = format!("{} recipients", 300 + owed.len());
    let text = run(&["verify", "--archive", target]);
    assert!(
        text.contains(&all) && text.contains("number 1 of"),
        "{text}"
    );
    drop((mounted, ballast));
}

/// Sends messages to a full disk until one is refused, and adds the recipients of the others to `owed`:
/// the disk is measured now and then, and on a busy computer a message may come before that.
fn send_until_refused(client: &mut Client, owed: &mut Vec<String>) {
    let is_refused = (0..20).any(|at| {
        std::thread::sleep(NOTICED);
        let small = Message::new(&format!("no{at}"), &["a.example"], 500);
        match client.send(&small) {
            Verdict::Accepted(_) => {
                owed.extend(small.recipients);
                false
            }
            verdict => {
                let is_full =
                    matches!(&verdict, Verdict::Refused(reply) if reply.starts_with("452 4.3.1 "));
                assert!(is_full, "{verdict:?}");
                true
            }
        }
    });
    assert!(is_refused, "mail is accepted on a full disk");
}

/// Fills the disk step by step, and returns the recipients of what was accepted meanwhile.
fn fill(relay: &mut Relay, ballast: &Ballast, kept: u64) -> Vec<String> {
    let mut client = Client::connect(relay.address).expect("it listens");
    let mut owed = Vec::new();
    let mut accept = |client: &mut Client, name: &str, size| {
        let message = Message::new(name, &["down.example"], size);
        let verdict = client.send(&message);
        assert!(
            matches!(verdict, Verdict::Accepted(_)),
            "{name}: {verdict:?}"
        );
        owed.extend(message.recipients);
    };
    for count in 0..20 {
        accept(
            &mut client,
            &format!("early{count}"),
            if count % 4 == 0 { 200_000 } else { 3000 },
        );
    }
    // Room for small ones, not for a large one that does not say how large it is.
    relay.while_stopped(|| ballast.leave(kept + MARGIN));
    std::thread::sleep(NOTICED);
    accept(&mut client, "still", 3000);
    let large = Message::new("too-large", &["a.example"], TOO_LARGE);
    let verdict = client.send(&large);
    assert!(
        matches!(&verdict, Verdict::Refused(reply) if reply.starts_with("452 4.3.1 ")),
        "during DATA: {verdict:?}"
    );
    // What was written of it counts as used until the disk is measured again.
    std::thread::sleep(NOTICED);
    accept(&mut client, "in-the-same-session", 3000);

    // No room at all: nothing is begun that could not be finished.
    relay.while_stopped(|| ballast.leave(0));
    std::thread::sleep(NOTICED);
    let small = Message::new("too-late", &["a.example"], 500);
    let verdict = client.send(&small);
    assert!(
        matches!(&verdict, Verdict::Refused(reply) if reply.starts_with("452 4.3.1 ")),
        "before DATA: {verdict:?}"
    );
    owed
}

impl Ballast {
    /// Makes it larger, so that `left` octets are free. Nobody else may use the disk meanwhile.
    pub(crate) fn leave(&self, left: u64) {
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.0)
            .expect("the ballast");
        let length = file.metadata().expect("it is open").len();
        let free = free(&self.0);
        assert!(free >= left, "{free} octets are free and {left} should be");
        let grown = Command::new("fallocate")
            .args(["--length", &(length + free - left).to_string()])
            .arg(&self.0)
            .status();
        assert!(
            grown.is_ok_and(|grown| grown.success()),
            "{} was not made larger",
            self.0.display()
        );
    }
}

/// Octets that are free where a file is.
fn free(file: &Path) -> u64 {
    let told = Command::new("stat")
        .args(["--file-system", "--format", "%a %S"])
        .arg(file)
        .output()
        .expect("stat");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let numbers: Vec<u64> = told
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    let [blocks, size] = numbers[..] else {
        panic!("stat said {told:?}")
    };
    blocks * size
}
