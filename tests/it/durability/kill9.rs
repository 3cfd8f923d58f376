//! kill -9 at any moment loses nothing: eight clients send, the daemon is killed several times and
//! started again, and in the end every message that was answered with 250 is at the sink, complete,
//! and on record.
//!
//! Clients never send a message twice, so one that arrives twice was repeated by the relay. It may
//! do that for one reason only: it was killed between the sink's 250 and its own record of it. Each
//! start of the relay has a name of its own, and the sink remembers it: two copies from one start
//! have no such excuse, and fail the test.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::home::Home;
use super::servers::ClosedPort;
use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::relay::Relay;
use crate::support::sink::Sink;
use crate::support::{Dice, place, within};

const CLIENTS: u64 = 8;
/// Kills; `.ci/durability` asks for more with KILLS in the environment.
const KILLS: u64 = 4;
/// Messages that are accepted between a start and its kill, at most; and at least in all lives
/// together, or the test proves nothing.
const LONGEST_LIFE: u64 = 120;
const ENOUGH: usize = 100;
/// Milliseconds between the last of them and the kill, at most.
const DELAY: u64 = 30;
/// The time after which something counts as never; many times what it takes.
const NEVER: Duration = Duration::from_mins(4);

/// The state that the clients share.
#[derive(Debug)]
struct Crowd {
    /// The address of the relay; `None` while there is none.
    relay: Mutex<Option<SocketAddr>>,
    over: AtomicBool,
    /// The number of messages that were accepted.
    accepted: AtomicUsize,
}

/// Everything that the clients know of their messages.
#[derive(Debug, Default)]
struct Known {
    accepted: usize,
    /// The recipients of what was accepted.
    owed: Vec<String>,
    refused: Vec<String>,
    lost: usize,
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let (given, kills) = (number("SEED"), number("KILLS").unwrap_or(KILLS));
    let now = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(1, |time| time.as_secs())
    };
    let seed: u64 = given.unwrap_or_else(now);
    println!(
        "seed {seed}; with SEED={seed} in the environment the clients and the kills are the same again"
    );
    let began = Instant::now();
    let folder = place();
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let spool = folder.path().join("spool");
    let home = Home {
        folder: folder.path().to_owned(),
        spool,
        sink: sink.address,
        down: closed.address,
    };
    let crowd = Crowd {
        relay: Mutex::new(None),
        over: AtomicBool::new(false),
        accepted: AtomicUsize::new(0),
    };
    let known = std::thread::scope(|scope| {
        let start = |number| {
            scope.spawn({
                let crowd = &crowd;
                move || crowd.send(seed, number)
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(start).collect();
        let lived: Result<(), String> =
            (0..kills).try_for_each(|life| crowd.live_and_die(&home, seed, (life, kills)));
        crowd.over.store(true, Ordering::Relaxed);
        let all = clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"));
        let known = all.fold(Known::default(), Known::and);
        lived.map(|()| known)
    });
    let known = known.unwrap_or_else(|fault| panic!("{fault}"));
    sink.serve(closed.open());
    finish(&home, &sink, &known);
    println!("{:.1} s in all", began.elapsed().as_secs_f64());
}

impl Known {
    fn and(mut self, other: Self) -> Self {
        self.accepted += other.accepted;
        self.owed.extend(other.owed);
        self.refused.extend(other.refused);
        self.lost += other.lost;
        self
    }
}

impl Crowd {
    fn at(&self, address: Option<SocketAddr>) {
        *self.relay.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// One start of the relay, and its kill at a random moment: after a number of messages that the
    /// dice choose, not after a time, in which a busy computer does little. The last life is long
    /// enough for [`ENOUGH`].
    fn live_and_die(
        &self,
        home: &Home,
        seed: u64,
        (life, lives): (u64, u64),
    ) -> Result<(), String> {
        let mut dice = Dice::new(seed.wrapping_mul(31).wrapping_add(life));
        let accepted = || self.accepted.load(Ordering::Relaxed);
        let length = usize::try_from(dice.below(LONGEST_LIFE)).unwrap_or(ENOUGH);
        let mut end = accepted() + length;
        if life + 1 == lives {
            end = end.max(ENOUGH + 1);
        }
        let relay = Relay::start(home, &format!("life{life}.example"), &[]);
        let relay = relay.map_err(|end| format!("life {life} did not begin:\n{}", end.log))?;
        self.at(Some(relay.address));
        // A record that the last kill has torn is set aside and logged by now.
        home.expect_chain()
            .map_err(|fault| format!("life {life}: {fault}"))?;
        if !within(NEVER, || accepted() >= end) {
            return Err(format!(
                "life {life}: {} of {end} messages were accepted",
                accepted()
            ));
        }
        std::thread::sleep(Duration::from_millis(dice.below(DELAY)));
        self.at(None);
        relay
            .kill()
            .check()
            .map_err(|fault| format!("life {life}: {fault}"))
    }

    /// One client: message after message, over a connection as long as it holds.
    fn send(&self, seed: u64, number: u64) -> Known {
        let mut dice = Dice::new(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let (mut known, mut client, mut count) = (Known::default(), None, 0);
        while !self.over.load(Ordering::Relaxed) {
            let Some(mut open) = client.take().or_else(|| self.connect()) else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let message = draw(&mut dice, &format!("c{number}-{count}"));
            count += 1;
            match open.send(&message) {
                Verdict::Accepted(_) => {
                    known.accepted += 1;
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    known.owed.extend(message.recipients);
                }
                Verdict::Refused(reply) => known.refused.push(reply),
                Verdict::Lost => {
                    known.lost += 1;
                    continue;
                }
            }
            client = Some(open);
        }
        known
    }

    fn connect(&self) -> Option<Client> {
        let address = *self.relay.lock().unwrap_or_else(PoisonError::into_inner);
        Client::connect(address?).ok()
    }
}

/// A message: most are small, some have a body file; some go to two places, some to one that is
/// down.
fn draw(dice: &mut Dice, name: &str) -> Message {
    let size = match dice.below(10) {
        0 => 130_000 + dice.below(300_000),
        1 | 2 => dice.below(100_000),
        _ => 300 + dice.below(8000),
    };
    let domains: &[&str] = match dice.below(12) {
        0 => &["a.example", "down.example"],
        1..=3 => &["a.example", "b.example"],
        _ => &["a.example"],
    };
    Message::new(name, domains, usize::try_from(size).unwrap_or(usize::MAX))
}

/// The last start: everything that was accepted comes out, and nothing is left.
fn finish(home: &Home, sink: &Sink, known: &Known) {
    let relay = Relay::start(home, "last.example", &[])
        .unwrap_or_else(|end| panic!("no last start:\n{}", end.log));
    let missing = sink.wait_for(&known.owed, NEVER);
    let clean = home.expect_clean(relay);
    assert!(
        missing.is_empty(),
        "accepted, but never arrived: {missing:?}"
    );
    clean.unwrap_or_else(|fault| panic!("{fault}"));
    assert!(
        known.refused.is_empty(),
        "nothing was wrong with these messages: {:?}",
        known.refused
    );
    assert!(
        known.accepted > ENOUGH,
        "only {} messages were accepted: this proves nothing",
        known.accepted
    );

    let tally = sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
    home.expect_recorded(known.owed.iter().chain(tally.keys()), &sink.times())
        .unwrap_or_else(|fault| panic!("{fault}"));
    let owed: HashSet<&str> = known.owed.iter().map(String::as_str).collect();
    let unasked = tally
        .keys()
        .filter(|recipient| !owed.contains(recipient.as_str()))
        .count();
    let again: Vec<_> = tally
        .iter()
        .filter(|(_, relays)| relays.len() > 1)
        .collect();
    for (recipient, relays) in &again {
        let lives: HashSet<&String> = relays.iter().collect();
        assert!(
            lives.len() == relays.len(),
            "{recipient} had one message twice from one start: {relays:?}"
        );
    }
    println!(
        "{} messages accepted for {} recipients: all arrived. {} sent without an answer, of which {unasked} copies arrived: \
         the relay was killed after it had stored them and before the client heard so.",
        known.accepted,
        owed.len(),
        known.lost,
    );
    println!(
        "{} duplicates: each was delivered by two starts of the relay; the first was killed between the sink's 250 and \
         its own record of it. {again:?}",
        again.len(),
    );
}
