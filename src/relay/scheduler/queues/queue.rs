//! The state of one destination: its health, and the concurrency that follows from it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::smtp::envelope::AttemptFailure;
use crate::storage::spool::ClusterShare;

use super::ids::{DestinationId, Millis, WaitPosition};
use super::item::Destination;
use super::part::Part;
use super::share::{AttemptCounts, Share, WaitList};

/// The longest backoff of a destination, before [`Spread`]. The schedule may be longer, but new
/// mail should not wait hours for a server that is up again.
const MAX_BACKOFF: Duration = Duration::from_mins(15);
/// The initial concurrency of a destination. Each successful attempt raises it by one, up to the
/// limit.
const INITIAL_CONCURRENCY: u32 = 5;
/// The number of sessions that break in a row before a destination counts as down.
const BROKEN_SESSIONS_MAX: u32 = 3;

/// Adds a random part to a wait, so that destinations that failed together are not retried
/// together.
pub(in crate::relay::scheduler) type Spread = fn(Duration) -> Duration;

/// The health of a destination that an attempt showed.
#[derive(Debug)]
pub(in crate::relay::scheduler) enum Health {
    /// A message was accepted or definitively rejected.
    Up,
    /// No hop could be used, for this reason.
    Down(AttemptFailure),
    /// A session broke before any outcome. One message may have caused it, so a single one is not a
    /// failure of the destination.
    SessionBroken(AttemptFailure),
    /// This part of its mail is refused; nothing is known of the rest.
    Refused(Part, AttemptFailure),
    /// The attempt shows nothing about the destination.
    Unknown,
}

/// The backoff of a destination.
#[derive(Debug)]
pub(super) struct Backoff {
    pub(super) until: Millis,
    failures: usize,
    pub(super) last: AttemptFailure,
}

/// The state of a destination, or of a refused part of its mail.
#[derive(Debug)]
pub(super) struct DestinationQueue {
    pub(super) destination: Destination,
    /// The configured limit of concurrent attempts, of all nodes of a cluster together.
    pub(super) limit: u32,
    /// The concurrency reached by successful attempts.
    concurrency: u32,
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
    broken_sessions: u32,
    pub(super) backoff: Option<Box<Backoff>>,
    /// The wait list in which it waits for a place, and its position there.
    pub(super) wait_list: Option<(WaitList, WaitPosition)>,
    pub(super) in_turn: bool,
    pub(super) wake: Option<Millis>,
    /// The destination and the part of its mail, for the queue of a part.
    pub(super) part: Option<Box<(DestinationId, Part)>>,
    /// The number of queues of parts of this destination.
    pub(super) parts: u32,
    /// The queues of this destination that wait for a connection, if it has parts.
    pub(super) blocked: VecDeque<DestinationId>,
    pub(super) is_blocked: bool,
}

impl DestinationQueue {
    /// Creates the state of an unknown destination.
    pub(super) fn new(destination: Destination) -> Self {
        Self {
            destination,
            limit: 1,
            concurrency: INITIAL_CONCURRENCY,
            share: Share::ByMx,
            active: 0,
            slow: 0,
            waiting: 0,
            used: 0,
            broken_sessions: 0,
            backoff: None,
            wait_list: None,
            in_turn: false,
            wake: None,
            part: None,
            parts: 0,
            blocked: VecDeque::new(),
            is_blocked: false,
        }
    }

    /// Returns the counts of its running attempts.
    pub(super) fn counts(&self) -> AttemptCounts {
        AttemptCounts::of(self.active, self.slow)
    }

    /// Returns the end of its backoff, if that is still to come.
    pub(super) fn backoff_end(&self, now: Millis) -> Option<Millis> {
        self.backoff
            .as_ref()
            .map(|backoff| backoff.until)
            .filter(|until| now < *until)
    }

    /// Returns the concurrency allowed at a time to a node with this part of the limits.
    pub(super) fn allowed(&self, now: Millis, cluster: ClusterShare) -> u32 {
        match &self.backoff {
            Some(backoff) if now < backoff.until => 0,
            // After the backoff, one attempt probes the destination.
            Some(_) => 1,
            None => self.concurrency.min(cluster.of(self.limit)),
        }
    }

    /// Records the health that an attempt showed.
    pub(super) fn record(
        &mut self,
        now: Millis,
        health: Health,
        retry: &[Duration],
        spread: Spread,
    ) {
        self.used = now;
        match health {
            // A part has a queue of its own.
            Health::Unknown | Health::Refused(..) => {}
            Health::Up => {
                self.backoff = None;
                self.broken_sessions = 0;
                self.concurrency = self
                    .concurrency
                    .saturating_add(1)
                    .min(self.limit.max(INITIAL_CONCURRENCY));
            }
            Health::Down(last) => self.start_backoff(now, last, retry, spread),
            Health::SessionBroken(last) => {
                self.broken_sessions += 1;
                if self.broken_sessions >= BROKEN_SESSIONS_MAX || self.backoff.is_some() {
                    self.start_backoff(now, last, retry, spread);
                }
            }
        }
    }

    /// Starts a backoff.
    fn start_backoff(
        &mut self,
        now: Millis,
        last: AttemptFailure,
        retry: &[Duration],
        spread: Spread,
    ) {
        // Attempts that ran while the first one failed do not count again.
        if self
            .backoff
            .as_ref()
            .is_some_and(|backoff| now < backoff.until)
        {
            return;
        }
        let failures = self.backoff.as_ref().map_or(0, |backoff| backoff.failures);
        let wait = retry
            .get(failures)
            .or(retry.last())
            .map_or(MAX_BACKOFF, |wait| *wait);
        let until = now
            + spread(wait.min(MAX_BACKOFF))
                .as_millis()
                .try_into()
                .unwrap_or(0);
        self.backoff = Some(Box::new(Backoff {
            until,
            failures: failures + 1,
            last,
        }));
        self.concurrency = INITIAL_CONCURRENCY;
    }
}
