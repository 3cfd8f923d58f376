//! A record of each message: the time of its 250, the time of its arrival, and the number of
//! arrivals. It counts and does not judge.

use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// One row for each message, written by client and sink in parallel. Relaxed ordering is
/// sufficient: each time stamp is independent, and the rows are read when both are done.
pub(crate) struct Ledger {
    opened: Instant,
    /// The nanoseconds since `opened`; 0 until the event.
    accepted: Box<[AtomicU64]>,
    arrived: Box<[AtomicU64]>,
    acceptances: AtomicUsize,
    arrivals: AtomicUsize,
    duplicates: AtomicUsize,
    strangers: AtomicUsize,
    recipients: AtomicUsize,
    connections: AtomicUsize,
    refusals: AtomicUsize,
    first_refusal: Mutex<Option<String>>,
}

impl Ledger {
    /// Creates a ledger for this number of messages.
    pub(crate) fn new(messages: usize) -> Self {
        let column = || (0..messages).map(|_| AtomicU64::new(0)).collect();
        Self {
            opened: Instant::now(),
            accepted: column(),
            arrived: column(),
            acceptances: AtomicUsize::new(0),
            arrivals: AtomicUsize::new(0),
            duplicates: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
            recipients: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            first_refusal: Mutex::new(None),
        }
    }

    /// Returns the nanoseconds since the ledger was opened; never 0.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Records that the relay accepted this message.
    pub(crate) fn accepted(&self, number: usize) {
        self.accepted[number].store(self.now(), Relaxed);
        self.acceptances.fetch_add(1, Relaxed);
    }

    /// Records that the relay did not accept this message; the reason of the first one is kept.
    pub(crate) fn refused(&self, error: &io::Error) {
        self.refusals.fetch_add(1, Relaxed);
        if let Ok(mut first) = self.first_refusal.lock() {
            first.get_or_insert_with(|| error.to_string());
        }
    }

    /// Records that the relay connected to the sink.
    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// Records that a message arrived at the sink, for so many recipients; `None` for one that was
    /// never sent.
    pub(crate) fn arrived(&self, number: Option<usize>, recipients: usize) {
        self.recipients.fetch_add(recipients, Relaxed);
        let Some(row) = number.and_then(|number| self.arrived.get(number)) else {
            self.strangers.fetch_add(1, Relaxed);
            return;
        };
        let counter = match row.compare_exchange(0, self.now(), Relaxed, Relaxed) {
            Ok(_) => &self.arrivals,
            Err(_) => &self.duplicates,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Returns the number of recipients for which messages have arrived.
    pub(crate) fn recipients(&self) -> usize {
        self.recipients.load(Relaxed)
    }

    /// Returns a number that grows with each event, and whether all accepted messages have arrived.
    pub(crate) fn progress(&self) -> (usize, bool) {
        let (accepted, arrived) = (self.acceptances.load(Relaxed), self.arrivals.load(Relaxed));
        (
            accepted + arrived + self.refusals.load(Relaxed) + self.duplicates.load(Relaxed),
            arrived >= accepted,
        )
    }

    /// Returns the results of these messages, which were sent from `began` (see [`Self::now`]) on.
    /// Lost, duplicated, refused and foreign ones are counted over all messages.
    pub(crate) fn passage(&self, messages: Range<usize>, began: u64) -> Passage {
        let stamps = |column: &[AtomicU64]| -> Vec<u64> {
            column[messages.clone()]
                .iter()
                .map(|stamp| stamp.load(Relaxed))
                .collect()
        };
        let (accepted, arrived) = (stamps(&self.accepted), stamps(&self.arrived));
        let mut delays: Vec<Duration> = accepted
            .iter()
            .zip(&arrived)
            .filter(|&(&accepted, &arrived)| accepted != 0 && arrived != 0)
            // A message can arrive before the client has read its 250.
            .map(|(&accepted, &arrived)| Duration::from_nanos(arrived.saturating_sub(accepted)))
            .collect();
        delays.sort_unstable();
        let lost = self
            .accepted
            .iter()
            .zip(&self.arrived)
            .filter(|(accepted, arrived)| {
                accepted.load(Relaxed) != 0 && arrived.load(Relaxed) == 0
            });
        Passage {
            accepted: Pace::of(&accepted, began),
            delivered: Pace::of(&arrived, began),
            p50: percentile(&delays, 50),
            p99: percentile(&delays, 99),
            lost: lost.count(),
            duplicated: self.duplicates.load(Relaxed),
            refused: self.refusals.load(Relaxed),
            strangers: self.strangers.load(Relaxed),
            connections: self.connections.load(Relaxed),
            first_refusal: self
                .first_refusal
                .lock()
                .ok()
                .and_then(|first| first.clone()),
        }
    }
}

/// A number of messages, and the time that they took.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) messages: usize,
    /// The time from the first connection to the last message.
    pub(crate) took: Duration,
}

impl Pace {
    fn of(stamps: &[u64], began: u64) -> Self {
        let messages = stamps.iter().filter(|&&stamp| stamp != 0).count();
        let last = stamps.iter().copied().max().unwrap_or(0);
        Self {
            messages,
            took: Duration::from_nanos(last.saturating_sub(began)),
        }
    }

    /// Returns the messages per second; 0 if there were none.
    pub(crate) fn rate(self) -> f64 {
        if self.took.is_zero() {
            0.0
        } else {
            self.messages as f64 / self.took.as_secs_f64()
        }
    }
}

/// The results of one trial.
pub(crate) struct Passage {
    pub(crate) accepted: Pace,
    pub(crate) delivered: Pace,
    /// The times from the 250 at the client to the final dot at the sink.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// The accepted messages that never arrived.
    pub(crate) lost: usize,
    /// The arrivals after the first of a message.
    pub(crate) duplicated: usize,
    /// The messages that were sent and not accepted.
    pub(crate) refused: usize,
    /// The arrivals that are foreign or damaged, such as bounces.
    pub(crate) strangers: usize,
    /// The connections from the relay to the sink, over all messages.
    pub(crate) connections: usize,
    pub(crate) first_refusal: Option<String>,
}

impl Passage {
    /// Returns whether each message was accepted and arrived exactly once.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.refused + self.strangers == 0
    }
}

/// Returns the given percentile.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent).div_ceil(100).saturating_sub(1))
        .copied()
        .unwrap_or_default()
}
