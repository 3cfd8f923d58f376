//! A seed is played: clients send, and what the seed wants happens to the daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost::storage::evidence::{Period, deliveries};
use serde_json::Value;

use super::ledger::Ledger;
use super::mail::message;
use super::peer::Peers;
use super::resolver::Resolver;
use super::seed::{Seed, chance};
use super::verdict::{Left, Life, Played, Sent};
use super::world::World;
use crate::support::certificates::{Authority, key_pin};
use crate::support::client::{Client, Verdict};
use crate::support::disk::{Ballast, Mounted};
use crate::support::faketime::faketime;
use crate::support::message::Message;
use crate::support::relay::{Relay, program};
use crate::support::{place, within};

/// The size of a world, and the events that may happen in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) messages: usize,
    pub(crate) destinations: usize,
    pub(crate) clients: usize,
    /// The number of events in the daemon's life: while clients send, and afterwards.
    pub(crate) events: (usize, usize),
    /// `[queue] expire`. A world lasts about ten seconds longer.
    pub(crate) expire: Duration,
    /// The disk may fill up and the clock may jump, where that can be done.
    pub(crate) disk_and_clock: bool,
}

impl Extent {
    pub(crate) const SMALL: Self = Self {
        messages: 500,
        destinations: 30,
        clients: 4,
        events: (3, 2),
        expire: Duration::from_secs(10),
        disk_and_clock: false,
    };
    pub(crate) const LARGE: Self = Self {
        messages: 10_000,
        destinations: 60,
        clients: 8,
        events: (8, 3),
        expire: Duration::from_secs(25),
        disk_and_clock: true,
    };
}

/// `[timeouts] final_reply`: an answer that takes longer counts as lost.
pub(crate) const FINAL_REPLY: Duration = Duration::from_secs(6);
/// The time for the rest when all has happened: the last message expires, is tried once more,
/// and is reported.
const DRAINS: Duration = Duration::from_secs(75);
/// A disk that the spool and the evidence have for themselves.
const DISK: u64 = 400 << 20;

/// Something that happens to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Kill,
    Stop,
    /// SIGHUP: it reads its configuration again.
    Reload,
    /// An operator has everything tried at once.
    Retry,
    /// It does not run for some milliseconds, and then goes on.
    Stall(u64),
    /// The disk is full for some milliseconds.
    FullDisk(u64),
    /// The clock jumps back by some seconds and stays there, or ahead for a moment.
    Clock(i64),
}

/// The world, the processes and the files of a play.
struct Stage {
    seed: Seed,
    extent: Extent,
    folder: PathBuf,
    /// Lines of the configuration that stay the same.
    fixed: String,
    /// The address of the daemon; `None` while it does not run.
    relay: Mutex<Option<SocketAddr>>,
    attempted: AtomicUsize,
    over: AtomicBool,
    lives: Mutex<Vec<Life>>,
    /// Times in which nobody is served: the daemon is down, or stalled, or its disk is full.
    pauses: Mutex<Vec<(Instant, Instant)>>,
    /// Seconds by which the clock has been set back so far, below zero.
    behind: Mutex<i64>,
    disk: Option<Mounted>,
    faketime: Option<PathBuf>,
}

/// Plays a seed and judges what came of it.
pub(crate) fn play(seed: Seed, extent: Extent) {
    println!(
        "seed {}: GATEPOST_SEED={} makes the same world again",
        seed.0, seed.0
    );
    let began = Instant::now();
    let home = place();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads");
    let world = Arc::new(World::new(seed, extent.destinations));
    let (authority, ledger) = (
        Authority::root("The Test Authority"),
        Arc::new(Ledger::default()),
    );
    let (peers, resolver) = {
        let _inside = runtime.enter();
        let peers = Peers::start(&world, &authority, &ledger);
        let digest = |site: usize| digest(&peers.good[site].chain[0]);
        let resolver = runtime.block_on(Resolver::start(&world, &world.zones(peers.port, digest)));
        (peers, resolver)
    };
    let stage = Stage::new(
        seed,
        extent,
        home.path(),
        &world,
        (&authority, &peers, &resolver),
    );
    let outcome = stage.run(&world, &ledger);
    let faults = match outcome {
        Ok(played) => {
            println!(
                "seed {}: {} ({} s)",
                seed.0,
                played.summary(),
                began.elapsed().as_secs()
            );
            played.faults()
        }
        Err(fault) => vec![fault],
    };
    if !faults.is_empty() {
        // The small disk goes with the stage.
        let _copied = Command::new("cp")
            .args(["-a", "disk", "kept"])
            .current_dir(home.path())
            .status();
        drop(stage);
        let kept = home.keep();
        panic!(
            "seed {}: {} faults; {}\n{}",
            seed.0,
            faults.len(),
            kept.display(),
            shortened(&faults)
        );
    }
}

/// Of each kind of fault the first few.
fn shortened(faults: &[String]) -> String {
    let kind = |fault: &String| fault.split(':').next().unwrap_or_default().to_owned();
    let mut kinds: Vec<_> = faults.iter().map(kind).collect();
    kinds.dedup();
    let some = |word: &String| {
        let all: Vec<_> = faults
            .iter()
            .filter(|fault| kind(fault) == *word)
            .map(String::as_str)
            .collect();
        format!(
            "{} × {word}\n{}",
            all.len(),
            all[..all.len().min(4)].join("\n")
        )
    };
    kinds.iter().map(some).collect::<Vec<_>>().join("\n")
}

/// The digest that a TLSA record has of a complete certificate.
fn digest(certificate: &[u8]) -> String {
    data_encoding::HEXLOWER
        .encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate).as_ref())
}

impl Stage {
    fn new(
        seed: Seed,
        extent: Extent,
        folder: &Path,
        world: &World,
        (authority, peers, resolver): (&Authority, &Peers, &Resolver),
    ) -> Self {
        let write = |name: &str, text: String| {
            std::fs::write(folder.join(name), text).expect("the folder is ours");
        };
        write("ca.pem", authority.pem());
        write("anchor", resolver.anchor.clone());
        write("clock", "+0".to_owned());
        std::fs::create_dir(folder.join("disk")).expect("the folder is ours");
        let disk = extent
            .disk_and_clock
            .then(|| Mounted::on(folder.join("disk"), DISK))
            .flatten();
        let faketime = extent.disk_and_clock.then(faketime).flatten();
        let connectors = world.connectors(peers.port, |site| key_pin(&peers.good[site].chain[0]));
        let fixed = format!(
            "postmaster = \"postmaster@example.com\"\n[tls]\ntrust = \"ca.pem\"\n[admin]\nsocket = \"admin.sock\"\nhttp = \"\"\n\
             [spool]\npath = \"disk/spool\"\n[evidence]\npath = \"disk/evidence\"\n\
             [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n\
             [dns]\nservers = [\"{}\"]\ntrust_anchor = \"anchor\"\n\
             [queue]\nretry = [\"300ms\", \"1s\", \"2s\"]\nexpire = \"{}s\"\nwarn_after = \"never\"\n\
             dsn_gather = \"500ms\"\npostmaster_digest = \"2s\"\n\
             [limits]\ndsn_per_minute = 100000\ndsn_per_minute_per_domain = 100000\n\
             [timeouts]\nconnect = \"2s\"\nreply = \"3s\"\nhandshake = \"3s\"\ndata_block = \"3s\"\nfinal_reply = \"{}s\"\n\
             drain = \"2s\"\n[log]\nformat = \"text\"\n{connectors}",
            resolver.address,
            extent.expire.as_secs(),
            FINAL_REPLY.as_secs(),
        );
        Self {
            seed,
            extent,
            folder: folder.to_owned(),
            fixed,
            relay: Mutex::default(),
            attempted: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            lives: Mutex::default(),
            pauses: Mutex::default(),
            behind: Mutex::default(),
            disk,
            faketime,
        }
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("gatepost.toml")
    }

    /// Starts the daemon under a name of its own.
    fn start(&self) -> Result<Relay, String> {
        let number = locked(&self.lives).len();
        let name = format!("life{number}.example");
        std::fs::write(
            self.configuration(),
            format!("hostname = \"{name}\"\n{}", self.fixed),
        )
        .expect("ours");
        let mut under = Vec::new();
        if let Some(library) = &self.faketime {
            under = vec![
                "env".to_owned(),
                format!("LD_PRELOAD={}", library.display()),
            ];
            under.push(format!(
                "FAKETIME_TIMESTAMP_FILE={}",
                self.folder.join("clock").display()
            ));
            under.extend(
                [
                    "FAKETIME_NO_CACHE=1",
                    "DONT_FAKE_MONOTONIC=1",
                    "NO_FAKE_STAT=1",
                ]
                .map(str::to_owned),
            );
        }
        let relay = Relay::run(&self.configuration(), &under)
            .map_err(|end| format!("{name} did not start:\n{}", end.log))?;
        locked(&self.lives).push(Life {
            name,
            ended: None,
            killed: false,
        });
        *locked(&self.relay) = Some(relay.address);
        Ok(relay)
    }

    /// Ends it, in order or at once; whatever it said is kept.
    fn end(&self, relay: &mut Relay, kill: bool) -> Result<(), String> {
        *locked(&self.relay) = None;
        relay.signal(if kill { "KILL" } else { "TERM" });
        let at = Instant::now();
        let end = relay.has_said_all();
        let mut lives = locked(&self.lives);
        let life = lives.last_mut().expect("it has begun");
        (life.ended, life.killed) = (Some(if kill { at } else { Instant::now() }), kill);
        let file = self.folder.join(format!("{}.log", life.name));
        std::fs::write(file, &end.log).map_err(|error| error.to_string())?;
        end.check()
    }

    fn run(&self, world: &World, ledger: &Ledger) -> Result<Played, String> {
        let mut relay = self.start()?;
        let mut sent = Vec::new();
        let result = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..self.extent.clients)
                .map(|client| scope.spawn(move || self.send(world, client)))
                .collect();
            let result = self.live(&mut relay);
            // A daemon that did not come back gets no more mail.
            self.over.store(result.is_err(), Ordering::SeqCst);
            for client in clients {
                sent.extend(client.join().expect("a client does not panic"));
            }
            result
        });
        result?;
        for at in 0..self.extent.events.1 {
            let dice = &mut self.seed.dice(&format!("late/{at}"));
            std::thread::sleep(Duration::from_millis(dice.below(3000)));
            self.happens(&mut relay, self.draw(dice))?;
        }
        let mut left = Vec::new();
        let drained = within(DRAINS, || {
            std::thread::sleep(Duration::from_millis(300));
            // It may not answer while it is busy; it is asked again.
            self.left().is_ok_and(|now| {
                left = now;
                left.iter().all(|one| one.held) && self.owes_no_report()
            })
        });
        if relay.has_ended() {
            return Err("the daemon has ended by itself".to_owned());
        }
        self.end(&mut relay, false)?;
        self.is_whole()?;
        let mut records = Vec::new();
        let reading = deliveries(
            &self.folder.join("disk/evidence"),
            Period::ALL,
            |_, _, delivery| {
                records.push(delivery);
            },
        );
        let bad = reading.map_err(|error| error.to_string())?.bad;
        if bad > 0 {
            return Err(format!("{bad} lines of the evidence are no records"));
        }
        let seen = ledger.note(|seen| seen.clone());
        let (lives, pauses) = (locked(&self.lives).clone(), locked(&self.pauses).clone());
        Ok(Played {
            world: world.clone(),
            expire: self.extent.expire,
            sent,
            seen,
            lives,
            pauses,
            left,
            drained,
            records,
        })
    }

    /// Lets the events happen, each when so much has been sent.
    fn live(&self, relay: &mut Relay) -> Result<(), String> {
        let count = self.extent.events.0;
        for at in 0..count {
            let dice = &mut self.seed.dice(&format!("event/{at}"));
            let share = self.extent.messages / (count + 1);
            let due =
                share * (at + 1) + usize::try_from(dice.below(share as u64 / 2)).expect("small");
            let came = within(Duration::from_mins(2), || {
                self.attempted.load(Ordering::SeqCst) >= due || relay.has_ended()
            });
            if !came {
                return Err("no message is accepted or refused any more".to_owned());
            }
            std::thread::sleep(Duration::from_millis(dice.below(50)));
            // Every world dies at least once.
            let event = if at == 0 {
                Event::Kill
            } else {
                self.draw(dice)
            };
            self.happens(relay, event)?;
        }
        Ok(())
    }

    fn draw(&self, dice: &mut crate::support::Dice) -> Event {
        let jump = i64::try_from(dice.below(3000)).expect("small");
        let event = match dice.below(12) {
            0..=3 => Event::Kill,
            4 => Event::Stop,
            5 => Event::Reload,
            6 => Event::Retry,
            7 => Event::Stall(200 + dice.below(1500)),
            8 | 9 => Event::FullDisk(500 + dice.below(2500)),
            _ => Event::Clock(if chance(dice, 50) { jump } else { -jump }),
        };
        match event {
            Event::FullDisk(_) if self.disk.is_none() => Event::Kill,
            Event::Clock(_) if self.faketime.is_none() => Event::Stop,
            event => event,
        }
    }

    fn happens(&self, relay: &mut Relay, event: Event) -> Result<(), String> {
        let from = Instant::now();
        println!(
            "seed {}: {event:?} after {} messages",
            self.seed.0,
            self.attempted.load(Ordering::SeqCst)
        );
        if relay.has_ended() {
            return Err(format!(
                "the daemon had ended by itself before {event:?}; it said:\n{}",
                relay.said()
            ));
        }
        match event {
            Event::Kill | Event::Stop => {
                self.end(relay, event == Event::Kill)?;
                *relay = self.start()?;
            }
            Event::Reload => relay.signal("HUP"),
            // Some of it may be under way, which it says.
            Event::Retry => drop(self.command(&["queue", "retry", "--all"])),
            Event::Stall(time) => {
                relay.signal("STOP");
                std::thread::sleep(Duration::from_millis(time));
                relay.signal("CONT");
            }
            Event::FullDisk(time) => {
                let ballast = Ballast::at(self.folder.join("disk/ballast"));
                ballast.fill(Duration::from_millis(time));
                ballast.drop_all();
            }
            Event::Clock(seconds) => self.jump(seconds),
        }
        locked(&self.pauses).push((from, Instant::now()));
        Ok(())
    }
}

impl Stage {
    /// Back, and time goes on from there; or ahead for a moment. A clock that stays ahead ages what
    /// waits, as it must.
    fn jump(&self, seconds: i64) {
        let file = self.folder.join("clock");
        let set = |seconds: i64| {
            // In one step: the daemon reads it at any time.
            let new = self.folder.join("clock.new");
            std::fs::write(&new, format!("{seconds:+}"))
                .and_then(|()| std::fs::rename(&new, &file))
                .expect("ours");
        };
        let mut behind = locked(&self.behind);
        // Signatures in the DNS begin two hours ago.
        if seconds < 0 && *behind + seconds > -6000 {
            *behind += seconds;
            return set(*behind);
        }
        set(*behind + seconds.abs());
        std::thread::sleep(Duration::from_millis(500));
        set(*behind);
    }

    /// Returns the messages that wait in the queue, as `gatepost queue list` lists them.
    fn left(&self) -> Result<Vec<Left>, String> {
        let text = self.command(&["queue", "list", "--json"])?;
        let messages = serde_json::from_str(&text).map_err(|error| error.to_string());
        let messages: Vec<Value> = messages?;
        let recipients = messages
            .iter()
            .flat_map(|message| message["recipients"].as_array().into_iter().flatten());
        let is_open = |one: &&Value| matches!(one["state"].as_str(), Some("waiting" | "held"));
        let left = |one: &Value| Left {
            recipient: one["address"].as_str().unwrap_or_default().to_owned(),
            held: one["state"] == "held",
            reason: one["reason"]["text"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        };
        Ok(recipients.filter(is_open).map(left).collect())
    }

    /// A failed recipient's report may wait for those about other recipients of its message.
    fn owes_no_report(&self) -> bool {
        let status = self.command(&["status", "--json"]).unwrap_or_default();
        serde_json::from_str(&status).is_ok_and(|status: Value| status["reports"]["waiting"] == 0)
    }

    /// The evidence and the database are as they should be, and no body is left behind without a
    /// message.
    fn is_whole(&self) -> Result<(), String> {
        self.command(&["evidence", "verify"])?;
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let file = self.folder.join("disk/spool/queue.db");
        let database = rusqlite::Connection::open_with_flags(file, flags)
            .map_err(|error| error.to_string())?;
        let verdict: Result<String, _> =
            database.query_row("PRAGMA integrity_check", [], |row| row.get(0));
        if !verdict.as_ref().is_ok_and(|verdict| verdict == "ok") {
            return Err(format!("the database: {verdict:?}"));
        }
        let aside = std::fs::read_dir(self.folder.join("disk/spool/aside"))
            .map_err(|error| error.to_string())?
            .count();
        if aside > 0 {
            return Err(format!("{aside} files were set aside"));
        }
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(program());
        let output = command
            .args(words)
            .arg("--config")
            .arg(self.configuration())
            .output();
        let output = output.map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => Ok(said),
            _ => Err(format!(
                "{words:?}: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }

    /// One client: its messages, each once, over connections that last as long as they do.
    fn send(&self, world: &World, client: usize) -> Vec<Sent> {
        let (mut open, mut sent) = (None, Vec::new());
        for number in (client..self.extent.messages).step_by(self.extent.clients) {
            let (message, abandoned) = message(world, number);
            let Some(mut connection) = open.take().or_else(|| self.connect()) else {
                break;
            };
            let began = Instant::now();
            let verdict = if abandoned {
                connection.abandon(&message);
                None
            } else {
                let verdict = connection.send(&message);
                open = Some(connection).filter(|_| verdict != Verdict::Lost);
                if matches!(verdict, Verdict::Refused(_)) {
                    // The disk is full: what is sent in the meantime is refused as well.
                    std::thread::sleep(Duration::from_millis(100));
                }
                Some(verdict)
            };
            self.attempted.fetch_add(1, Ordering::SeqCst);
            let Message {
                name, recipients, ..
            } = message;
            sent.push(Sent {
                name,
                recipients,
                verdict,
                began,
                at: Instant::now(),
            });
        }
        sent
    }

    fn connect(&self) -> Option<Client> {
        while !self.over.load(Ordering::SeqCst) {
            let address = *locked(&self.relay);
            if let Some(client) = address.and_then(|address| Client::connect(address).ok()) {
                return Some(client);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
