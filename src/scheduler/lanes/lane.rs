//! One lane: what is known of a destination, and how many attempts that allows.

use std::collections::VecDeque;
use std::time::Duration;

use crate::envelope::AttemptFailure;

use super::part::Part;
use super::share::{Counts, Row, Share};
use super::{Destination, LaneId};

/// A destination that is down is asked again at least this often, but for what [`Spread`] adds, however long the
/// schedule's waits: new mail should not wait hours for a server that is back.
const LONGEST_BACK_OFF: Duration = Duration::from_mins(15);
/// Attempts at the same time for a destination of which nothing is known; each one that goes well earns
/// it one more.
const WINDOW: u32 = 5;
/// Sessions that break one after another until a destination counts as down.
const SHAKEN_MAX: u32 = 3;

/// Makes a wait a little longer, each time by another measure, so that those who fell together do not come back
/// together.
pub(in crate::scheduler) type Spread = fn(Duration) -> Duration;

/// A moment, in milliseconds since the lanes were made: half the size of an `Instant`.
pub(super) type Millis = u64;

/// What an attempt told about the destination as a whole.
#[derive(Debug)]
pub(in crate::scheduler) enum Health {
    /// It took a message, or judged one.
    Up,
    /// No hop could be used; why.
    Down(AttemptFailure),
    /// A session broke before anything was decided on it. One message may be to blame for that, several
    /// are not.
    Shaken(AttemptFailure),
    /// This part of its mail is refused, and what that says of the rest is nothing.
    Refused(Part, AttemptFailure),
    /// Nothing: it was not asked.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Down {
    pub(super) until: Millis,
    failures: usize,
    pub(super) last: AttemptFailure,
}

/// A destination, or a part of its mail.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) destination: Destination,
    /// Attempts at the same time, at most.
    pub(super) limit: u32,
    /// How many of them the destination has earned.
    window: u32,
    /// The share that its attempts are of.
    pub(super) share: Share,
    /// Attempts under way.
    pub(super) active: u32,
    /// Of these, the slow ones.
    pub(super) slow: u32,
    pub(super) waiting: usize,
    /// When its latest attempt ended.
    pub(super) used: Millis,
    /// Sessions that broke since something last went well.
    shaken: u32,
    pub(super) down: Option<Box<Down>>,
    /// The row in which it waits for a place, and its place in that.
    pub(super) row: Option<(Row, u64)>,
    pub(super) in_turn: bool,
    pub(super) wake: Option<Millis>,
    /// The destination and the part of its mail, where this is the lane of a part.
    pub(super) part: Option<Box<(LaneId, Part)>>,
    /// Lanes of parts of this destination.
    pub(super) parts: u32,
    /// Those of them, and this one, that wait for a connection, where there are such lanes.
    pub(super) blocked: VecDeque<LaneId>,
    pub(super) is_blocked: bool,
}

impl Lane {
    /// Of a destination of which nothing is known.
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

    /// Its attempts under way.
    pub(super) fn counts(&self) -> Counts {
        Counts::of(self.active, self.slow)
    }

    /// How many attempts may be under way.
    pub(super) fn room(&self, now: Millis) -> u32 {
        match &self.down {
            Some(down) if now < down.until => 0,
            // One attempt finds out whether the destination is back.
            Some(_) => 1,
            None => self.window.min(self.limit),
        }
    }

    /// An attempt has ended, and told this of the destination.
    pub(super) fn ended(&mut self, now: Millis, health: Health, retry: &[Duration], spread: Spread) {
        self.used = now;
        match health {
            // A part has a lane of its own.
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

    fn falls(&mut self, now: Millis, last: AttemptFailure, retry: &[Duration], spread: Spread) {
        // Attempts that were already under way when the first one failed tell nothing new.
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
