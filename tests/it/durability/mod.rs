//! 250 means on disk, and delivered means on record: proofs with the real daemon.
//!
//! - [`kill9`]: eight clients send while it is killed at random, again and again.
//! - [`order`]: in the trace of an undisturbed exchange, what a message consists of is synced
//!   between its last octet and its 250.
//! - [`evidence`]: in such a trace, each delivery is on record, synced, before the queue forgets
//!   it; and it is so with each call on the evidence failed, or made the daemon's last.
//! - [`power`]: that trace is replayed up to a moment, what was not synced by then is forgotten,
//!   and a relay is started on what a disk would still have had.
//! - [`quarantine`]: as [`power`], while a repair sets damage aside.
//! - [`faults`]: each write, sync, rename and unlink in the spool in turn fails, or is the last
//!   thing the daemon does.
//! - [`full_disk`]: a disk that fills up, and has room again; [`full_orders`]: in every order of
//!   events.
//!
//! In all of them evidence is kept, and in the end everything that has arrived is on record, no
//! more often than it arrived, and `gatepost evidence verify` finds nothing wrong.
//!
//! All but the first need strace, or root, and minutes: `cargo test` leaves them to
//! `.ci/durability`.

mod disk;
mod evidence;
mod faults;
mod full_disk;
mod full_orders;
mod home;
mod kill9;
mod order;
mod power;
mod quarantine;
mod servers;
mod strace;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::support::client::Verdict;
use crate::support::message::Message;

/// The scripted exchange: small ones and such with a body file, to one domain and to several, and
/// to a destination that is down, so that states are recorded as well as messages removed.
fn script() -> Vec<Message> {
    vec![
        // First, so that the queue's log has no other entry yet, and its calls have the same
        // numbers each time.
        Message::new("large", &["a.example"], 300_000),
        Message::new("small", &["a.example"], 700),
        Message::new(
            "small-to-three",
            &["a.example", "b.example", "down.example"],
            800,
        ),
        Message::new("large-to-two", &["a.example", "down.example"], 200_000),
    ]
}

/// The recipients of those that were accepted.
fn owed<'a>(messages: &'a [Message], verdicts: &[Verdict]) -> Vec<&'a str> {
    let accepted = messages
        .iter()
        .zip(verdicts)
        .filter(|(_, verdict)| matches!(verdict, Verdict::Accepted(_)));
    accepted
        .flat_map(|(message, _)| message.recipients.iter().map(String::as_str))
        .collect()
}

/// The time that a message may need to its destination; many times the usual one.
const ARRIVES: Duration = Duration::from_secs(20);
/// Daemons at the same time. They wait for disk and clock more than they work.
const AT_ONCE: usize = 6;

/// A failing run waits long for what never comes: after so many, no more are begun.
const ENOUGH_FAULTS: usize = 6;

/// Does `work` for each item, several at a time, and gives what it said in the order of the items.
fn side_by_side<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<R, String> + Sync,
) -> Vec<Result<R, String>> {
    let waiting = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let next = || {
        let done = done.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = done
            .iter()
            .filter(|(_, result): &&(usize, Result<R, String>)| result.is_err())
            .count();
        drop(done);
        (faults < ENOUGH_FAULTS)
            .then(|| {
                waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .next()
            })
            .flatten()
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((at, item)) = next() {
                    let result = work(item);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Those whose destination is not down.
fn reachable<'a>(recipients: &[&'a str]) -> Vec<&'a str> {
    recipients
        .iter()
        .copied()
        .filter(|to| !to.ends_with("@down.example"))
        .collect()
}
