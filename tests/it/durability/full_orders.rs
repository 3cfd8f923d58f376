//! A small disk that mail fills to the last octet, in every order of events: it is worked off, and
//! mail is accepted again without a restart.
//!
//! In each order nothing that was accepted is lost, nothing arrives twice unless the relay was
//! killed, each delivery is on record, and the chain of the evidence is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use orders::{
    EvidencePlace, ForeignFile, Interruption, Mail, NextHop, ORDERS, Order, OtherProgram,
};

use super::home::Home;
use super::servers::ClosedPort;
use super::side_by_side;
use crate::support::chain::write_large_day;
use crate::support::client::{Client, Verdict};
use crate::support::config::ConfigBuilder;
use crate::support::database_lock::DatabaseLock;
use crate::support::disk::Mounted;
use crate::support::message::{Message, SENDER, recognise};
use crate::support::relay::Relay;
use crate::support::sink::Sink;
use crate::support::{place, within_every};

mod orders;

/// The time after which something counts as never; many times what it takes.
const NEVER: Duration = Duration::from_mins(4);
/// The most messages that any of these disks accepts.
const MOST: usize = 20_000;
/// The pause between two tries of a client, and the most tries until mail is accepted again. A
/// measurement of the disk is valid for shorter, and so is the pause of a mover that failed.
const PAUSE: Duration = Duration::from_millis(300);
const TRIES: usize = 100;
/// The pause between two questions that take some work: all of the queue is read, or all of the log.
const POLL: Duration = Duration::from_millis(100);
/// More than the evidence of a test.
const NO_LIMIT: u64 = 1 << 30;

/// The number of records in a large day, and their recipient.
const LARGE_DAY: usize = 100;
const IN_LARGE_DAY: &str = "a@a.example";

/// The replies of the next hop.
#[derive(Debug, Default)]
struct HopReplies {
    accepts: AtomicBool,
    rejects_others: AtomicBool,
    accepts_what_stays: AtomicBool,
    deferred: AtomicUsize,
}

impl HopReplies {
    /// Accepts mail from now on.
    fn open(&self, next_hop: NextHop) {
        let rejects = next_hop == NextHop::Rejects;
        self.rejects_others.store(rejects, Ordering::SeqCst);
        self.accepts.store(true, Ordering::SeqCst);
    }

    fn of(&self, recipient: &str) -> Option<&'static str> {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        if recipient == SENDER {
            return None;
        }
        let accepts = if recipient.ends_with("@stays.example") {
            &self.accepts_what_stays
        } else {
            &self.accepts
        };
        if !is_set(accepts) {
            self.deferred.fetch_add(1, Ordering::SeqCst);
            return Some("451 4.3.0 later");
        }
        let is_rejected = is_set(&self.rejects_others) && is_rejected(recipient);
        is_rejected.then_some("550 5.1.1 no such user")
    }
}

fn is_rejected(recipient: &str) -> bool {
    recipient.starts_with("odd")
}

/// A relay with its spool on a small disk.
struct Run<'a> {
    order: &'a Order,
    home: &'a Home,
    sink: &'a Sink,
    replies: &'a HopReplies,
    relay: Option<Relay>,
    /// The number of starts.
    lives: usize,
    /// The recipients of what was accepted.
    owed: Vec<String>,
}

impl Run<'_> {
    fn configure(&self, max_size: u64) -> PathBuf {
        let path = |folder: &Path| format!("path = \"{}\"", folder.display());
        let evidence = format!("{}\nmax_size = {max_size}", path(&self.home.evidence()));
        let limits = "dsn_per_minute = 100000\ndsn_per_minute_per_domain = 100000";
        let down = format!(
            "[[connector]]\nname = \"down\"\ndomains = [\"down.example\"]\n[connector.outbound]\n\
             route = [\"{}\"]\ntls = \"off\"",
            self.home.down
        );
        ConfigBuilder::new()
            .hostname(&format!("life{}.example", self.lives))
            .listener("127.0.0.1:0")
            .table("spool", &path(&self.home.spool))
            .table("evidence", &evidence)
            .table("admin", "socket = \"\"\nhttp = \"\"")
            .table("relay", "networks = [\"127.0.0.0/8\"]")
            .table("queue", "retry = [\"3s\"]\ndsn_gather = \"1s\"")
            .table("limits", limits)
            .table("log", "format = \"text\"")
            .relays_to(self.home.sink)
            .with(&down)
            .write(&self.home.folder)
    }

    fn start(&mut self) -> Result<(), String> {
        self.lives += 1;
        let relay = Relay::run(&self.configure(NO_LIMIT), &[]);
        self.relay = Some(relay.map_err(|end| format!("no start {}:\n{}", self.lives, end.log))?);
        Ok(())
    }

    fn relay(&mut self) -> &mut Relay {
        self.relay.as_mut().expect("it was started")
    }

    fn interrupt(&mut self, interruption: Interruption) -> Result<(), String> {
        let relay = self.relay.take().expect("it was started");
        let end = match interruption {
            Interruption::Restart => relay.terminate(),
            Interruption::Kill => relay.kill(),
        };
        end.check()?;
        self.start()
    }

    fn message(&self, at: usize) -> Message {
        let name = if at % 2 == 1 {
            format!("odd{at}")
        } else {
            format!("m{at}")
        };
        let domain = if self.order.tenth_stays && at.is_multiple_of(10) {
            "stays.example"
        } else {
            "down.example"
        };
        match self.order.mail {
            Mail::Of(size) => Message::new(&name, &[domain], size),
            Mail::ManyRecipients(_) if at == 0 => {
                let mut message = Message::new(&name, &[], 3000);
                message.recipients = (0..1000)
                    .map(|to| format!("{name}+{to}@{domain}"))
                    .collect();
                message
            }
            Mail::ManyRecipients(size) => Message::new(&name, &[domain], size),
            Mail::Mixed => Message::new(&name, &[domain], [3000, 20_000, 100_000, 300_000][at % 4]),
        }
    }

    /// Sends mail until it is rejected.
    fn fill(&mut self) -> Result<(), String> {
        let address = self.relay().address;
        let mut client = Client::connect(address).map_err(|error| error.to_string())?;
        for at in 0..MOST {
            let message = self.message(at);
            match client.send(&message) {
                Verdict::Accepted(_) => self.owed.extend(message.recipients),
                Verdict::Refused(reply) if reply.starts_with("452 4.3.1 ") && at > 30 => {
                    return Ok(());
                }
                other => return Err(format!("message {at} while the disk fills: {other:?}")),
            }
        }
        Err("the disk never fills".to_owned())
    }

    /// The recipients that are neither rejected nor stay, or those that stay.
    fn due(&self, stay: bool) -> Vec<&str> {
        let rejects = self.order.next_hop == NextHop::Rejects;
        self.owed
            .iter()
            .map(String::as_str)
            .filter(|to| to.ends_with("@stays.example") == stay)
            .filter(|to| !(rejects && is_rejected(to)))
            .collect()
    }

    /// Waits until so many of the recipients in `due` have their mail.
    fn has_arrived(&self, count: usize) -> Result<(), String> {
        let due: BTreeSet<&str> = self.due(false).into_iter().collect();
        let (mut seen, mut missing) = (0, due.clone());
        let mut had = 0;
        let arrived = self.sink.wait_until(NEVER, |arrivals| {
            for arrival in &arrivals[seen..] {
                missing.remove(arrival.recipient.as_str());
            }
            seen = arrivals.len();
            had = due.len() - missing.len();
            had >= count.min(due.len())
        });
        let text = || format!("{had} of {} have their mail, not {count}", due.len());
        arrived.then_some(()).ok_or_else(text)
    }

    /// Makes a foreign file larger until not an octet is free. The relay is stopped meanwhile, so
    /// that the file gets what is free, but nothing that the relay gives up.
    fn use_up(&mut self, foreign: &mut ForeignSpace) {
        self.relay().while_stopped(|| foreign.fill());
    }

    /// Waits until the next hop has deferred all mail, or so often that the spool has no room for more
    /// results of it.
    fn wait_for_deferrals(&mut self, foreign: &mut ForeignSpace) -> Result<(), String> {
        let mut wanted = self.owed.len();
        if self.order.foreign == Some(ForeignFile::BeforeDeferral) {
            self.use_up(foreign);
            wanted *= 5;
        }
        let deferred = || self.replies.deferred.load(Ordering::SeqCst);
        let relay = self.relay.as_mut().expect("it was started");
        let is_tried = within_every(POLL, NEVER, || {
            deferred() >= wanted || relay.has_said("hardly any room")
        });
        let text = || format!("{} deferrals, not {wanted}", deferred());
        is_tried.then_some(()).ok_or_else(text)
    }

    /// Works the queue off.
    fn deliver(&mut self, foreign: &mut ForeignSpace, open: impl FnOnce()) -> Result<(), String> {
        let all = self.due(false).len();
        if self.order.foreign == Some(ForeignFile::BeforeDelivery) {
            self.use_up(foreign);
        }
        let max_size = self.order.evidence == EvidencePlace::MaxSize;
        if max_size {
            self.limit_evidence()?;
        }
        open();
        if max_size {
            self.relay().hears("cannot write evidence");
            self.reload(NO_LIMIT);
        }
        for tenth in 1..9 {
            self.has_arrived(all * tenth / 10)?;
            if self.order.foreign == Some(ForeignFile::WhileDelivering) {
                self.use_up(foreign);
            }
            if let (5, Some(interruption)) = (tenth, self.order.interruption) {
                self.interrupt(interruption)?;
            }
        }
        self.has_arrived(all)
    }

    /// Lets the evidence have a few more octets than it has.
    fn limit_evidence(&mut self) -> Result<(), String> {
        let files = fs::read_dir(self.home.evidence()).map_err(|error| error.to_string())?;
        let records = files.flatten().filter(|file| {
            let path = file.path();
            path.extension().is_some_and(|end| end == "jsonl")
        });
        let octets: u64 = records
            .map(|file| file.metadata().map_or(0, |file| file.len()))
            .sum();
        self.reload(octets + 20_000);
        Ok(())
    }

    fn reload(&mut self, max_size: u64) {
        self.configure(max_size);
        self.relay().signal("HUP");
        self.relay().hears("configuration reloaded");
    }

    fn queue_has(&self, count: usize) -> Result<(), String> {
        let mut queued = Err("not asked".to_owned());
        let has = within_every(POLL, NEVER, || {
            queued = self.home.queued().map_err(|error| error.to_string());
            queued == Ok(count)
        });
        has.then_some(())
            .ok_or_else(|| format!("{queued:?} entries are left, not {count}"))
    }

    /// Fills the disk, works the queue off, and sends mail again. Returns the number of tries until
    /// mail was accepted again.
    fn play(&mut self, closed: ClosedPort, foreign: &mut ForeignSpace) -> Result<usize, String> {
        let (sink, replies, next_hop) = (self.sink, self.replies, self.order.next_hop);
        let spool = &self.home.spool;
        let mut other = self.order.other.map(|other| match other {
            OtherProgram::Reads => DatabaseLock::reader(spool),
            OtherProgram::LocksCheckpoints => DatabaseLock::checkpoints(spool),
        });
        self.fill()?;
        if next_hop == NextHop::Defers {
            self.wait_for_deferrals(foreign)?;
        }
        self.deliver(foreign, || {
            replies.open(next_hop);
            if next_hop != NextHop::Defers {
                sink.serve(closed.open());
            }
        })?;
        if next_hop == NextHop::Rejects {
            // Reports about much mail need more room than the log has.
            end(&mut other);
        }
        self.queue_has(self.due(true).len())?;
        end(&mut other);
        if self.order.foreign == Some(ForeignFile::AfterDelivery) {
            // The mover rests.
            std::thread::sleep(PAUSE * 5);
            self.use_up(foreign);
        }
        let tries = self.accepts_again()?;
        replies.accepts_what_stays.store(true, Ordering::SeqCst);
        self.queue_has(0)?;
        Ok(tries)
    }

    /// Sends one more message, at most [`TRIES`] times. Returns the number of tries.
    fn accepts_again(&mut self) -> Result<usize, String> {
        let after = Message::new("after", &["down.example"], 20_000);
        let address = self.relay().address;
        let mut last = None;
        for tried in 1..=TRIES {
            let client = Client::connect(address).map_err(|error| error.to_string());
            match client?.send(&after) {
                Verdict::Accepted(_) => {
                    self.owed.extend(after.recipients);
                    return Ok(tried);
                }
                other => last = Some(other),
            }
            std::thread::sleep(PAUSE);
        }
        Err(format!("no mail is accepted again: {last:?}"))
    }

    /// Ends the relay, and checks what has arrived and what is on record.
    fn finish(mut self) -> Result<(), String> {
        let relay = self.relay.take().expect("it was started");
        self.home.expect_clean(relay)?;
        let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut reports = String::new();
        for arrival in self.sink.arrivals() {
            if arrival.sender.is_empty() {
                reports.push_str(&String::from_utf8_lossy(&arrival.content));
                continue;
            }
            let name = recognise(&arrival.content)?;
            let local = arrival.recipient.split(['@', '+']).next();
            if local != Some(&name) || arrival.sender != SENDER {
                return Err(format!("{name} came to {}", arrival.recipient));
            }
            arrived
                .entry(arrival.recipient)
                .or_default()
                .push(arrival.relay);
        }
        let due = [self.due(false), self.due(true)].concat();
        let mut times = self.sink.times();
        times.insert(IN_LARGE_DAY.to_owned(), LARGE_DAY);
        self.home.expect_recorded(&due, &times)?;
        let expected: BTreeSet<&str> = due.into_iter().collect();
        let had: BTreeSet<&str> = arrived.keys().map(String::as_str).collect();
        if had != expected {
            let wrong: Vec<_> = had.symmetric_difference(&expected).collect();
            return Err(format!("lost, or not accepted and delivered: {wrong:?}"));
        }
        self.expect_no_copies(&arrived)?;
        self.expect_reports(&reports)
    }

    /// A kill alone makes copies, and each of another start.
    fn expect_no_copies(&self, arrived: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
        let most = match self.order.interruption {
            Some(Interruption::Kill) => 2,
            Some(Interruption::Restart) | None => 1,
        };
        let is_wrong = |relays: &Vec<String>| {
            let lives: BTreeSet<&String> = relays.iter().collect();
            relays.len() > most || lives.len() != relays.len()
        };
        let copies: Vec<_> = arrived
            .iter()
            .filter(|(_, relays)| is_wrong(relays))
            .collect();
        let text = || format!("arrived more than once: {copies:?}");
        copies.is_empty().then_some(()).ok_or_else(text)
    }

    /// The sender has a report for each recipient that was rejected, and for no other.
    fn expect_reports(&self, reports: &str) -> Result<(), String> {
        let rejects = self.order.next_hop == NextHop::Rejects;
        let expected: BTreeSet<&str> = self
            .owed
            .iter()
            .map(String::as_str)
            .filter(|to| rejects && is_rejected(to))
            .collect();
        let field = "Final-Recipient: rfc822;";
        let named: Vec<&str> = reports
            .lines()
            .filter_map(|line| line.strip_prefix(field))
            .map(str::trim)
            .collect();
        let all: BTreeSet<&str> = named.iter().copied().collect();
        if all != expected {
            let wrong: Vec<_> = all.symmetric_difference(&expected).collect();
            return Err(format!("reports are missing, or too many: {wrong:?}"));
        }
        if named.len() > all.len() && self.order.interruption != Some(Interruption::Kill) {
            return Err("a recipient has two reports".to_owned());
        }
        Ok(())
    }
}

/// Ends the other program, if it still runs.
fn end(other: &mut Option<DatabaseLock>) {
    if let Some(other) = other.take() {
        other.end();
    }
}

/// A file of another program.
struct ForeignSpace(fs::File);

impl ForeignSpace {
    fn at(path: &Path) -> Self {
        Self(fs::File::create(path).expect("a name"))
    }

    /// Makes it larger until not an octet is free.
    fn fill(&mut self) {
        for block in [64 * 1024, 4096, 1] {
            while self.0.write_all(&vec![0; block]).is_ok() {}
        }
    }
}

/// Carries an order out. Returns the number of messages, and of tries until mail was accepted again.
fn carry_out(order: &Order) -> Result<(usize, usize), String> {
    let folder = place();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let Some(mounted) = Mounted::on(disk.clone(), order.disk << 20) else {
        return Ok((0, 0));
    };
    let replies = Arc::new(HopReplies::default());
    let sink = Sink::replying({
        let replies = Arc::clone(&replies);
        move |recipient| replies.of(recipient)
    });
    let closed = ClosedPort::take();
    let is_closed = order.next_hop != NextHop::Defers;
    let home = Home {
        folder: match order.evidence {
            EvidencePlace::Beside => disk.clone(),
            EvidencePlace::Apart | EvidencePlace::MaxSize => folder.path().to_owned(),
        },
        spool: disk.join("spool"),
        sink: sink.address,
        down: if is_closed {
            closed.address
        } else {
            sink.address
        },
    };
    if order.evidence == EvidencePlace::MaxSize {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(home.evidence())
            .expect("a new folder");
        write_large_day(&home.evidence(), LARGE_DAY, 0);
    }
    let mut foreign = ForeignSpace::at(&disk.join("foreign"));
    let mut run = Run {
        order,
        home: &home,
        sink: &sink,
        replies: &replies,
        relay: None,
        lives: 0,
        owed: Vec::new(),
    };
    run.start()?;
    let tries = run.play(closed, &mut foreign).map_err(|fault| {
        let log = run
            .relay
            .take()
            .map_or_else(String::new, |relay| relay.kill().log);
        // What it says of each message is too much.
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| !line.contains("queue_id="))
            .collect();
        format!("{fault}; the relay logged:\n{}", lines.join("\n"))
    })?;
    let accepted = run.owed.len();
    run.finish()?;
    drop(mounted);
    Ok((accepted, tries))
}

#[test]
#[ignore = "needs root: .ci/durability"]
fn a_full_disk_is_worked_off_in_every_order_of_events() {
    let only = std::env::var("ORDER").unwrap_or_default();
    let orders = ORDERS.iter().map(|order| (order, format!("{order:?}")));
    let chosen = orders.filter(|(_, text)| text.contains(&only)).collect();
    let results = side_by_side(chosen, |(order, text)| match carry_out(order) {
        Ok((accepted, tries)) => {
            println!("{text}: {accepted} recipients, then {tries} tries");
            Ok(())
        }
        Err(fault) => Err(format!("{text}: {fault}")),
    });
    let faults: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
