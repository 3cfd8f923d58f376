//! What became of each message: when its 250 came, when it arrived, how often. Not a judge: it counts.

use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// One row for each message, written by client and sink at once. Relaxed order is enough: each stamp is a
/// value of its own, and the rows are read when both are done.
pub(crate) struct Ledger {
    opened: Instant,
    /// Nanoseconds since `opened`; 0 while it has not happened.
    accepted: Box<[AtomicU64]>,
    arrived: Box<[AtomicU64]>,
    acceptances: AtomicUsize,
    arrivals: AtomicUsize,
    duplicates: AtomicUsize,
    strangers: AtomicUsize,
    connections: AtomicUsize,
    refusals: AtomicUsize,
    first_refusal: Mutex<Option<String>>,
}

impl Ledger {
    /// A ledger for so many messages.
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
            connections: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            first_refusal: Mutex::new(None),
        }
    }

    /// Nanoseconds since the ledger was opened; never 0.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// The relay said 250 to this message.
    pub(crate) fn accepted(&self, number: usize) {
        self.accepted[number].store(self.now(), Relaxed);
        self.acceptances.fetch_add(1, Relaxed);
    }

    /// The relay did not say 250 to this message; why is told for the first of them.
    pub(crate) fn refused(&self, error: &io::Error) {
        self.refusals.fetch_add(1, Relaxed);
        if let Ok(mut first) = self.first_refusal.lock() {
            first.get_or_insert_with(|| error.to_string());
        }
    }

    /// The relay has connected to the sink.
    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// A message is at the sink; `None` for one that was never sent to it.
    pub(crate) fn arrived(&self, number: Option<usize>) {
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

    /// A number that grows whenever something happens; and whether all that was accepted has arrived.
    pub(crate) fn progress(&self) -> (usize, bool) {
        let (accepted, arrived) = (self.acceptances.load(Relaxed), self.arrivals.load(Relaxed));
        (accepted + arrived + self.refusals.load(Relaxed) + self.duplicates.load(Relaxed), arrived >= accepted)
    }

    /// What became of these messages, which were sent from `began` (see [`Self::now`]) on. Lost, duplicated,
    /// refused and strange ones are counted over all that were ever sent.
    pub(crate) fn passage(&self, messages: Range<usize>, began: u64) -> Passage {
        let stamps = |column: &[AtomicU64]| -> Vec<u64> {
            column[messages.clone()].iter().map(|stamp| stamp.load(Relaxed)).collect()
        };
        let (accepted, arrived) = (stamps(&self.accepted), stamps(&self.arrived));
        let mut delays: Vec<Duration> = accepted
            .iter()
            .zip(&arrived)
            .filter(|&(&accepted, &arrived)| accepted != 0 && arrived != 0)
            // It can be there before the client has read the 250.
            .map(|(&accepted, &arrived)| Duration::from_nanos(arrived.saturating_sub(accepted)))
            .collect();
        delays.sort_unstable();
        let lost = self
            .accepted
            .iter()
            .zip(&self.arrived)
            .filter(|(accepted, arrived)| accepted.load(Relaxed) != 0 && arrived.load(Relaxed) == 0);
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
            first_refusal: self.first_refusal.lock().ok().and_then(|first| first.clone()),
        }
    }
}

/// How many in which time.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) messages: usize,
    /// From the first connection to the last of them.
    pub(crate) took: Duration,
}

impl Pace {
    fn of(stamps: &[u64], began: u64) -> Self {
        let messages = stamps.iter().filter(|&&stamp| stamp != 0).count();
        let last = stamps.iter().copied().max().unwrap_or(0);
        Self { messages, took: Duration::from_nanos(last.saturating_sub(began)) }
    }

    /// Messages a second; 0 if there were none.
    pub(crate) fn rate(self) -> f64 {
        if self.took.is_zero() { 0.0 } else { self.messages as f64 / self.took.as_secs_f64() }
    }
}

/// What became of the messages of one trial.
pub(crate) struct Passage {
    pub(crate) accepted: Pace,
    pub(crate) delivered: Pace,
    /// From the 250 that the client read to the final dot at the sink.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Accepted and never arrived.
    pub(crate) lost: usize,
    /// Arrivals beyond the first.
    pub(crate) duplicated: usize,
    /// Sent and not accepted.
    pub(crate) refused: usize,
    /// Arrived and not ours, or damaged: bounces, say.
    pub(crate) strangers: usize,
    /// From the relay to the sink, for all that were ever sent.
    pub(crate) connections: usize,
    pub(crate) first_refusal: Option<String>,
}

impl Passage {
    /// Whether each message was accepted, and arrived exactly once.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.refused + self.strangers == 0
    }
}

/// The smallest that is not exceeded by so many of a hundred.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}
