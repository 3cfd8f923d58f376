//! The messages whose reports are not stored yet: which of them is due, and which must wait.
//!
//! A report waits for those of the message's other recipients, so that they become one, and for the rate ([`limit`]).
//! What failed without a sender waits for the postmaster's next digest, and so does mail of strangers for whose report
//! there is no place to wait ([`backlog`]). All of it is durable before it comes here, in the message's own entry
//! ([`crate::envelope::Recipient::owed`]), and a start finds it there. Time comes in as an argument: no clock, no I/O, no
//! tasks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::envelope::QueueId;

mod backlog;
mod counts;
mod limit;

use backlog::Backlog;
pub(super) use counts::Counts;
pub use counts::ReportCounts;
pub(super) use limit::{Addressee, Limiter, Rates};

/// Failed messages that make a digest before its time.
const DIGEST_FULL: usize = 100;
/// Octets of failed messages that make a digest before its time.
const DIGEST_OCTETS: u64 = 256 << 20;
/// Failed messages in one digest, at most.
const DIGEST_MAX: usize = 500;
/// The time between two digests, at least.
const DIGEST_PAUSE: Duration = Duration::from_mins(1);
/// The same while there is enough for another full digest.
const DIGEST_PAUSE_CROWDED: Duration = Duration::from_secs(5);
/// The wait for an operator's order on the message to be carried out.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// The reports that are owed about a message.
#[derive(Debug)]
pub(super) enum Debt {
    /// Nothing any more.
    Nothing,
    /// A report to its sender.
    Report {
        /// The sender.
        to: Addressee,
        /// The wait for reports about the message's other recipients.
        wait: Duration,
        /// The octets of a stranger's message of which nothing else is left: there is a limit to such mail.
        kept: Option<u64>,
    },
    /// A place in the postmaster's digest.
    Digest {
        /// The time after which it is due.
        wait: Duration,
        /// The octets of the message.
        octets: u64,
    },
}

/// The stage of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits for other recipients' reports.
    Gathering,
    /// It waits for its domain's rate.
    Domain,
    /// It waits for the rate of all reports, or is due.
    All,
    /// It is being stored.
    UnderWay {
        /// More was owed meanwhile.
        more: bool,
    },
}

#[derive(Debug)]
struct Waiting {
    to: Addressee,
    stage: Stage,
    /// The octets that it has in the backlog of strangers' mail, if it has a place there.
    kept: Option<u64>,
    /// Its key in `due`, unless it is under way.
    due: Instant,
}

/// Everything that is owed.
#[derive(Debug)]
pub(super) struct Owed {
    reports: HashMap<QueueId, Waiting>,
    due: BTreeSet<(Instant, QueueId)>,
    backlog: Backlog,
    /// The messages for the digest, each with its octets.
    digest: BTreeMap<QueueId, u64>,
    digest_octets: u64,
    digest_due: Option<Instant>,
    /// No digest is begun before this.
    digest_pause: Instant,
    digest_under_way: bool,
    counts: Counts,
}

impl Owed {
    pub(super) fn new(now: Instant, counts: Counts) -> Self {
        Self {
            reports: HashMap::new(),
            due: BTreeSet::new(),
            backlog: Backlog::default(),
            digest: BTreeMap::new(),
            digest_octets: 0,
            digest_due: None,
            digest_pause: now,
            digest_under_way: false,
            counts,
        }
    }

    /// Notes what is owed about a message now. What waits already goes on waiting, and takes this along.
    pub(super) fn note(&mut self, id: QueueId, debt: Debt, now: Instant) {
        match debt {
            Debt::Nothing => {
                self.leave_digest(id);
                if self.reports.get(&id).is_some_and(|waiting| !matches!(waiting.stage, Stage::UnderWay { .. })) {
                    self.forget(id);
                }
            }
            // It is told of there.
            Debt::Report { .. } if self.digest.contains_key(&id) => {}
            Debt::Report { to, wait, kept } => match self.reports.get_mut(&id) {
                Some(Waiting { stage: Stage::UnderWay { more }, .. }) => *more = true,
                Some(waiting) => {
                    let is_news = waiting.kept.is_none();
                    if let Some(octets) = kept.filter(|_| is_news) {
                        if self.backlog.take(&to.host, octets) {
                            waiting.kept = kept;
                        } else {
                            self.forget(id);
                            self.divert(id, octets, now);
                        }
                    }
                }
                None => match kept {
                    Some(octets) if !self.backlog.take(&to.host, octets) => self.divert(id, octets, now),
                    kept => self.wait(id, to, kept, now + wait),
                },
            },
            Debt::Digest { wait, octets } => self.join_digest(id, octets, now + wait),
        }
        self.count();
    }

    /// Lets a message go into the next digest in place of a report to its sender.
    fn divert(&mut self, id: QueueId, octets: u64, now: Instant) {
        self.counts.diverted();
        self.join_digest(id, octets, now + DIGEST_PAUSE);
    }

    fn join_digest(&mut self, id: QueueId, octets: u64, due: Instant) {
        self.leave_digest(id);
        self.digest.insert(id, octets);
        self.digest_octets = self.digest_octets.saturating_add(octets);
        self.digest_due = Some(self.digest_due.map_or(due, |earlier| earlier.min(due)));
    }

    fn leave_digest(&mut self, id: QueueId) {
        let octets = self.digest.remove(&id).unwrap_or_default();
        self.digest_octets = self.digest_octets.saturating_sub(octets);
    }

    fn wait(&mut self, id: QueueId, to: Addressee, kept: Option<u64>, due: Instant) {
        self.due.insert((due, id));
        self.reports.insert(id, Waiting { to, stage: Stage::Gathering, kept, due });
    }

    /// Forgets what waits of a message.
    fn forget(&mut self, id: QueueId) -> Option<Waiting> {
        let waiting = self.reports.remove(&id)?;
        self.due.remove(&(waiting.due, id));
        if let Some(octets) = waiting.kept {
            self.backlog.give_back(&waiting.to.host, octets);
        }
        Some(waiting)
    }

    fn count(&self) {
        self.counts.waiting(self.reports.len(), self.digest.len());
    }

    /// The next message whose report is to be stored now; [`Owed::reported`] must be called afterwards. A message that
    /// `is_busy` with an order of an operator's waits a little.
    pub(super) fn next_report(
        &mut self,
        now: Instant,
        limiter: &mut Limiter,
        rates: Rates,
        is_busy: impl Fn(QueueId) -> bool,
    ) -> Option<QueueId> {
        while let Some((_, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.pop_first();
            let Some(waiting) = self.reports.get_mut(&id) else { continue };
            let before = waiting.stage;
            let mut at = now;
            if waiting.stage == Stage::Gathering {
                waiting.stage = Stage::Domain;
                at = limiter.take_of_domain(&waiting.to, rates, now);
            }
            if at <= now && waiting.stage == Stage::Domain {
                waiting.stage = Stage::All;
                at = limiter.take_of_all(&waiting.to, rates, now);
            }
            if at > now && before == Stage::Gathering {
                self.counts.delayed();
            }
            if at <= now && !is_busy(id) {
                waiting.stage = Stage::UnderWay { more: false };
                return Some(id);
            }
            waiting.due = if at > now { at } else { now + BUSY_PAUSE };
            self.due.insert((waiting.due, id));
        }
        None
    }

    /// A report is stored, or could not be. `again`: something is owed still, and is tried after this time.
    pub(super) fn reported(&mut self, id: QueueId, again: Option<Duration>, now: Instant) {
        let Some(Waiting { to, stage, kept, .. }) = self.forget(id) else { return };
        let more = stage == Stage::UnderWay { more: true };
        if let Some(wait) = again.or(more.then_some(Duration::ZERO)) {
            // Its place was free a moment ago.
            let kept = kept.filter(|octets| self.backlog.take(&to.host, *octets));
            self.wait(id, to, kept, now + wait);
        }
        self.count();
    }

    /// The messages for a digest that is to be stored now; [`Owed::digested`] must be called afterwards. A message that
    /// `is_busy` stays for the next one.
    pub(super) fn next_digest(&mut self, now: Instant, is_busy: impl Fn(QueueId) -> bool) -> Option<Vec<QueueId>> {
        if self.digest_wake().is_none_or(|at| at > now) {
            return None;
        }
        let ids: Vec<_> = self.digest.keys().copied().filter(|id| !is_busy(*id)).take(DIGEST_MAX).collect();
        for id in &ids {
            self.leave_digest(*id);
        }
        self.digest_pause = now
            + match ids.len() {
                0 => BUSY_PAUSE,
                _ if self.digest.len() >= DIGEST_MAX || self.digest_octets >= DIGEST_OCTETS => DIGEST_PAUSE_CROWDED,
                _ => DIGEST_PAUSE,
            };
        if self.digest.is_empty() {
            self.digest_due = None;
        }
        self.digest_under_way = !ids.is_empty();
        self.count();
        self.digest_under_way.then_some(ids)
    }

    /// A digest is stored; these messages are not in it, and go into the next one.
    pub(super) fn digested(&mut self, left: Vec<QueueId>, now: Instant) {
        self.digest_under_way = false;
        for id in left {
            self.note(id, Debt::Digest { wait: Duration::ZERO, octets: 0 }, now);
        }
    }

    /// Lets what waits for other reports or for the digest go as soon as the rate allows, for an operator; says whether
    /// anything is owed about the message.
    pub(super) fn hasten(&mut self, id: QueueId, now: Instant) -> bool {
        if let Some(waiting) = self.reports.get_mut(&id) {
            if waiting.stage == Stage::Gathering {
                self.due.remove(&(waiting.due, id));
                waiting.due = now;
                self.due.insert((now, id));
            }
            return true;
        }
        let is_for_digest = self.digest.contains_key(&id);
        if is_for_digest {
            self.digest_due = Some(now);
        }
        is_for_digest
    }

    fn digest_wake(&self) -> Option<Instant> {
        let due = self.digest_due.filter(|_| !self.digest_under_way)?;
        let is_full = self.digest.len() >= DIGEST_FULL || self.digest_octets >= DIGEST_OCTETS;
        Some(if is_full { self.digest_pause } else { self.digest_pause.max(due) })
    }

    /// Returns the time at which the next report or digest is due.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due).into_iter().chain(self.digest_wake()).min()
    }
}

#[cfg(test)]
mod tests;
