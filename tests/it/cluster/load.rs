//! Clients that send mail to whichever relays answer, and the judgement of what has arrived.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::NEVER;
use super::node::SharedAddress;
use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::sink::Sink;
use crate::support::{Dice, within};

const CLIENTS: u64 = 9;
/// The wait of a client after a rejection; a mail server waits longer.
const BACKOFF: Duration = Duration::from_millis(50);

/// The domain to which nothing may go in the clear, which is all that the sink speaks.
pub(super) const FORCED: &str = "forced.example";

/// Clients at work.
pub(super) struct Load {
    shared: Arc<LoadState>,
    clients: Vec<JoinHandle<Known>>,
}

struct LoadState {
    relays: Vec<SharedAddress>,
    is_over: AtomicBool,
    accepted: AtomicUsize,
}

/// Everything that the clients know of their messages.
#[derive(Debug, Default)]
pub(super) struct Known {
    accepted: usize,
    /// The recipients of what was accepted.
    owed: Vec<String>,
    /// Rejections that were not temporary.
    refused: Vec<String>,
    deferred: usize,
    lost: usize,
}

/// What became of the mail.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) accepted: usize,
    /// Rejections with a temporary reply.
    pub(super) deferred: usize,
    /// Recipients that had a message more than once, each time from another start of a relay.
    pub(super) duplicates: usize,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            accepted,
            deferred,
            duplicates,
        } = self;
        write!(
            f,
            "{accepted} messages accepted, 0 lost, {duplicates} copies too many, {deferred} deferred"
        )
    }
}

impl Load {
    /// Starts the clients. The names of their messages begin with `name`.
    pub(super) fn start(name: &str, relays: Vec<SharedAddress>) -> Self {
        let shared = Arc::new(LoadState {
            relays,
            is_over: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
        });
        let client = |number| {
            let (shared, name) = (Arc::clone(&shared), name.to_owned());
            std::thread::spawn(move || shared.send(&name, number))
        };
        Self {
            clients: (0..CLIENTS).map(client).collect(),
            shared,
        }
    }

    /// Waits until so many more have been accepted.
    pub(super) fn wait_for_accepted(&self, more: usize) {
        let accepted = || self.shared.accepted.load(Ordering::Relaxed);
        let end = accepted() + more;
        assert!(
            within(NEVER, || accepted() >= end),
            "only {} of {end} messages were accepted",
            accepted()
        );
    }

    /// Ends the clients.
    pub(super) fn end(self) -> Known {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let mut all = Known::default();
        for client in self.clients {
            let known = client.join().expect("a client does not panic");
            all.accepted += known.accepted;
            all.owed.extend(known.owed);
            all.refused.extend(known.refused);
            all.deferred += known.deferred;
            all.lost += known.lost;
        }
        all
    }
}

impl LoadState {
    /// One client: message after message, over a connection as long as it holds.
    fn send(&self, name: &str, number: u64) -> Known {
        let mut dice = Dice::new(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 7);
        let (mut known, mut client, mut count) = (Known::default(), None, 0);
        while !self.is_over.load(Ordering::Relaxed) {
            let Some(mut open) = client.take().or_else(|| self.connect(&mut dice)) else {
                std::thread::sleep(BACKOFF);
                continue;
            };
            let message = draw(&mut dice, &format!("{name}-{number}-{count}"));
            count += 1;
            match open.send(&message) {
                Verdict::Accepted(_) => {
                    known.accepted += 1;
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    known.owed.extend(message.recipients);
                    // Now and then the client goes to another relay.
                    client = Some(open).filter(|_| dice.below(8) > 0);
                }
                Verdict::Refused(reply) if reply.starts_with('4') => {
                    known.deferred += 1;
                    std::thread::sleep(BACKOFF);
                }
                Verdict::Refused(reply) => known.refused.push(reply),
                Verdict::Lost => known.lost += 1,
            }
        }
        known
    }

    fn connect(&self, dice: &mut Dice) -> Option<Client> {
        let at = usize::try_from(dice.below(self.relays.len() as u64)).unwrap_or_default();
        let address = *self.relays[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Client::connect(address?).ok()
    }
}

/// A message: most are small, some have their content in pieces; some go to two places, some to one
/// that they never reach.
fn draw(dice: &mut Dice, name: &str) -> Message {
    let size = match dice.below(20) {
        0 => 130_000 + dice.below(400_000),
        1 | 2 => dice.below(100_000),
        _ => 300 + dice.below(8000),
    };
    let domains: &[&str] = match dice.below(20) {
        0 => &["a.example", FORCED],
        1..=3 => &["a.example", "b.example"],
        _ => &["a.example"],
    };
    Message::new(name, domains, usize::try_from(size).unwrap_or(usize::MAX))
}

impl Known {
    /// Waits until all that was accepted has arrived, and judges what has.
    pub(super) fn judge(self, sink: &Sink) -> Outcome {
        let is_forced = |to: &String| to.ends_with(FORCED);
        let owed: Vec<_> = self.owed.into_iter().filter(|to| !is_forced(to)).collect();
        let missing = sink.wait_for(&owed, NEVER);
        assert!(
            missing.is_empty(),
            "{} recipients never had what was accepted: {:?}",
            missing.len(),
            &missing[..missing.len().min(10)]
        );
        let refused = &self.refused;
        assert!(
            refused.is_empty(),
            "nothing was wrong with these: {refused:?}"
        );
        let tally = sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
        let in_the_clear: Vec<_> = tally.keys().filter(|to| is_forced(to)).collect();
        assert!(in_the_clear.is_empty(), "in the clear: {in_the_clear:?}");
        let mut duplicates = 0;
        for (recipient, relays) in &tally {
            let starts: HashSet<&String> = relays.iter().collect();
            assert!(
                starts.len() == relays.len(),
                "{recipient} had one message twice from one start: {relays:?}"
            );
            duplicates += relays.len() - 1;
        }
        Outcome {
            accepted: self.accepted,
            deferred: self.deferred,
            duplicates,
        }
    }
}
