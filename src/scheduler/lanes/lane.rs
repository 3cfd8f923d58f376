//! The state of one destination: its health, and the concurrency that follows from it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::envelope::AttemptFailure;

use super::part::Part;
use super::share::{Counts, Row, Share};
use super::{Destination, LaneId};

/// The longest backoff of a destination, before [`Spread`]. The schedule may be longer, but new mail should not wait
/// hours for a server that is up again.
const LONGEST_BACK_OFF: Duration = Duration::from_mins(15);
/// The initial concurrency of a destination. Each successful attempt raises it by one, up to the limit.
const WINDOW: u32 = 5;
/// The number of sessions that break in a row before a destination counts as down.
const SHAKEN_MAX: u32 = 3;

/// Adds a random part to a wait, so that destinations that failed together are not retried together.
pub(in crate::scheduler) type Spread = fn(Duration) -> Duration;

/// A time in milliseconds since the queues were created: half the size of an `Instant`.
pub(super) type Millis = u64;

/// The health of a destination that an attempt showed.
#[derive(Debug)]
pub(in crate::scheduler) enum Health {
    /// A message was accepted or definitively rejected.
    Up,
    /// No hop could be used, for this reason.
    Down(AttemptFailure),
    /// A session broke before any outcome. One message may have caused it, so a single one is not a failure of the
    /// destination.
    Shaken(AttemptFailure),
    /// This part of its mail is refused; nothing is known of the rest.
    Refused(Part, AttemptFailure),
    /// Nothing was learnt.
    Unknown,
}

/// The backoff of a destination.
#[derive(Debug)]
pub(super) struct Down {
    pub(super) until: Millis,
    failures: usize,
    pub(super) last: AttemptFailure,
}

/// The state of a destination, or of a refused part of its mail.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) destination: Destination,
    /// The configured limit of concurrent attempts.
    pub(super) limit: u32,
    /// The concurrency reached by successful attempts.
    window: u32,
    /// The share of its attempts.
    pub(super) share: Share,
    /// The running attempts.
    pub(super) active: u32,
    /// The slow attempts among them.
    pub(super) slow: u32,
    pub(super) waiting: usize,
    /// The end of the latest attempt.
    pub(super) used: Millis,
    /// The sessions that broke since the last success.
    shaken: u32,
    pub(super) down: Option<Box<Down>>,
    /// The row in which it waits for a place, and its position there.
    pub(super) row: Option<(Row, u64)>,
    pub(super) in_turn: bool,
    pub(super) wake: Option<Millis>,
    /// The destination and the part of its mail, for the queue of a part.
    pub(super) part: Option<Box<(LaneId, Part)>>,
    /// The number of queues of parts of this destination.
    pub(super) parts: u32,
    /// The queues of this destination that wait for a connection, if it has parts.
    pub(super) blocked: VecDeque<LaneId>,
    pub(super) is_blocked: bool,
}

impl Lane {
    /// Creates the state of an unknown destination.
    pub(super) fn new(destination: Destination) -> Self {
        Self {
            destination,
            limit: 1,
            window: WINDOW,
            share: Share::ByMx,
            active: 0,
            slow: 0,
            waiting: 0,
            used: 0,
            shaken: 0,
            down: None,
            row: None,
            in_turn: false,
            wake: None,
            part: None,
            parts: 0,
            blocked: VecDeque::new(),
            is_blocked: false,
        }
    }

    /// Returns the counts of its running attempts.
    pub(super) fn counts(&self) -> Counts {
        Counts::of(self.active, self.slow)
    }

    /// Returns the concurrency allowed at a time.
    pub(super) fn room(&self, now: Millis) -> u32 {
        match &self.down {
            Some(down) if now < down.until => 0,
            // After the backoff, one attempt probes the destination.
            Some(_) => 1,
            None => self.window.min(self.limit),
        }
    }

    /// Records the health that an attempt showed.
    pub(super) fn ended(&mut self, now: Millis, health: Health, retry: &[Duration], spread: Spread) {
        self.used = now;
        match health {
            // A part has a queue of its own.
            Health::Unknown | Health::Refused(..) => {}
            Health::Up => {
                self.down = None;
                self.shaken = 0;
                self.window = self.window.saturating_add(1).min(self.limit.max(WINDOW));
            }
            Health::Down(last) => self.falls(now, last, retry, spread),
            Health::Shaken(last) => {
                self.shaken += 1;
                if self.shaken >= SHAKEN_MAX || self.down.is_some() {
                    self.falls(now, last, retry, spread);
                }
            }
        }
    }

    /// Starts a backoff.
    fn falls(&mut self, now: Millis, last: AttemptFailure, retry: &[Duration], spread: Spread) {
        // Attempts that ran while the first one failed do not count again.
        if self.down.as_ref().is_some_and(|down| now < down.until) {
            return;
        }
        let failures = self.down.as_ref().map_or(0, |down| down.failures);
        let wait = retry.get(failures).or(retry.last()).map_or(LONGEST_BACK_OFF, |wait| *wait);
        let until = now + spread(wait.min(LONGEST_BACK_OFF)).as_millis().try_into().unwrap_or(0);
        self.down = Some(Box::new(Down { until, failures: failures + 1, last }));
        self.window = WINDOW;
    }
}
