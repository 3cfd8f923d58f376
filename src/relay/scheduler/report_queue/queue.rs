//! The queue of reports: when each report, and the next digest, is due.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::smtp::envelope::QueueId;
use crate::storage::spool::Claim;

use super::backlog::Backlog;
use super::counts::ReportCounters;
use super::limit::{Addressee, Limiter, ReportRates};

/// The number of failed messages that makes a digest due at once.
const DIGEST_FULL: usize = 100;
/// The octets of failed messages that make a digest due at once.
pub(super) const DIGEST_OCTETS: u64 = 256 << 20;
/// The most failed messages in one digest.
const DIGEST_MAX: usize = 500;
/// The least time between two digests.
const DIGEST_PAUSE: Duration = Duration::from_mins(1);
/// The least time between two digests while another full one is waiting.
const DIGEST_PAUSE_CROWDED: Duration = Duration::from_secs(5);
/// The wait while an operator's order on the message is in progress.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// The reports that are owed about a message.
#[derive(Debug)]
pub(in crate::relay::scheduler) enum OwedReports {
    /// No report.
    Nothing,
    /// A report to its sender.
    Report {
        /// The sender.
        to: Addressee,
        /// The wait for reports about the message's other recipients.
        wait: Duration,
        /// The octets of a stranger's message that stays in the spool only for its report; such
        /// mail is limited.
        kept: Option<u64>,
    },
    /// An entry in the postmaster's digest.
    Digest {
        /// The time after which it is due.
        wait: Duration,
        /// The octets of the message.
        octets: u64,
    },
}

/// The stage of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReportStage {
    /// It waits for reports about other recipients.
    Gathering,
    /// It waits for the rate limit of its domain.
    Domain,
    /// It waits for the rate limit of all reports, or is due.
    All,
    /// It is being stored.
    UnderWay {
        /// Another report became due meanwhile.
        more: bool,
    },
}

/// A message whose report waits.
#[derive(Debug)]
struct WaitingReport {
    claim: Claim,
    to: Addressee,
    stage: ReportStage,
    /// The octets that it counts for in the backlog, if it counts there.
    kept: Option<u64>,
    /// Its key in `due`, unless it is being stored.
    due: Instant,
}

/// The reports that wait to be stored.
// Rule: RFC 5321 §4.4.
#[derive(Debug)]
pub(in crate::relay::scheduler) struct ReportQueue {
    reports: HashMap<QueueId, WaitingReport>,
    due: BTreeSet<(Instant, QueueId)>,
    backlog: Backlog,
    /// The messages for the digest, each with its octets.
    digest: BTreeMap<QueueId, (Claim, u64)>,
    digest_octets: u64,
    digest_due: Option<Instant>,
    /// No digest starts before this time.
    digest_pause: Instant,
    digest_under_way: bool,
    counts: ReportCounters,
}

impl ReportQueue {
    pub(in crate::relay::scheduler) fn new(now: Instant, counts: ReportCounters) -> Self {
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

    /// Updates the reports owed about a message. A report that already waits keeps its time and
    /// includes the new ones.
    pub(in crate::relay::scheduler) fn update(
        &mut self,
        claim: Claim,
        debt: OwedReports,
        now: Instant,
    ) {
        let id = claim.id();
        match debt {
            OwedReports::Nothing => {
                self.leave_digest(id);
                if self
                    .reports
                    .get(&id)
                    .is_some_and(|waiting| !matches!(waiting.stage, ReportStage::UnderWay { .. }))
                {
                    self.forget(id);
                }
            }
            // The digest will contain it.
            OwedReports::Report { .. } if self.digest.contains_key(&id) => {}
            OwedReports::Report { to, wait, kept } => match self.reports.get_mut(&id) {
                Some(WaitingReport {
                    stage: ReportStage::UnderWay { more },
                    ..
                }) => *more = true,
                Some(waiting) => {
                    let is_news = waiting.kept.is_none();
                    if let Some(octets) = kept.filter(|_| is_news) {
                        if self.backlog.take(&to.host, octets) {
                            waiting.kept = kept;
                        } else {
                            self.forget(id);
                            self.divert(claim, octets, now);
                        }
                    }
                }
                None => match kept {
                    Some(octets) if !self.backlog.take(&to.host, octets) => {
                        self.divert(claim, octets, now);
                    }
                    kept => self.wait(claim, to, kept, now + wait),
                },
            },
            OwedReports::Digest { wait, octets } => self.join_digest(claim, octets, now + wait),
        }
        self.count();
    }

    /// Puts a message into the next digest in place of a report to its sender.
    fn divert(&mut self, claim: Claim, octets: u64, now: Instant) {
        self.counts.diverted();
        self.join_digest(claim, octets, now + DIGEST_PAUSE);
    }

    fn join_digest(&mut self, claim: Claim, octets: u64, due: Instant) {
        self.leave_digest(claim.id());
        self.digest.insert(claim.id(), (claim, octets));
        self.digest_octets = self.digest_octets.saturating_add(octets);
        self.digest_due = Some(self.digest_due.map_or(due, |earlier| earlier.min(due)));
    }

    fn leave_digest(&mut self, id: QueueId) {
        let octets = self.digest.remove(&id).map_or(0, |(_, octets)| octets);
        self.digest_octets = self.digest_octets.saturating_sub(octets);
    }

    fn wait(&mut self, claim: Claim, to: Addressee, kept: Option<u64>, due: Instant) {
        self.due.insert((due, claim.id()));
        self.reports.insert(
            claim.id(),
            WaitingReport {
                claim,
                to,
                stage: ReportStage::Gathering,
                kept,
                due,
            },
        );
    }

    /// Removes the waiting report of a message.
    fn forget(&mut self, id: QueueId) -> Option<WaitingReport> {
        let waiting = self.reports.remove(&id)?;
        self.due.remove(&(waiting.due, id));
        if let Some(octets) = waiting.kept {
            self.backlog.give_back(&waiting.to.host, octets);
        }
        Some(waiting)
    }

    /// Forgets the report of a message that is another owner's, also one that is being stored. Returns
    /// whether there was one.
    pub(in crate::relay::scheduler) fn lose(&mut self, id: QueueId) -> bool {
        let is_for_digest = self.digest.contains_key(&id);
        self.leave_digest(id);
        let had_report = self.forget(id).is_some();
        if had_report || is_for_digest {
            self.count();
        }
        had_report || is_for_digest
    }

    /// Returns the claims on the messages whose report waits.
    pub(in crate::relay::scheduler) fn claims(&self) -> impl Iterator<Item = Claim> {
        let reports = self.reports.values().map(|waiting| waiting.claim);
        reports.chain(self.digest.values().map(|(claim, _)| *claim))
    }

    fn count(&self) {
        self.counts.waiting(self.reports.len(), self.digest.len());
    }

    /// Returns the next message whose report is due. Call [`ReportQueue::reported`] when its task
    /// ends. `is_busy` returns true for a message with an operator's order in progress, which
    /// waits.
    pub(in crate::relay::scheduler) fn next_report(
        &mut self,
        now: Instant,
        limiter: &mut Limiter,
        rates: ReportRates,
        is_busy: impl Fn(QueueId) -> bool,
    ) -> Option<Claim> {
        while let Some((_, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.pop_first();
            let Some(waiting) = self.reports.get_mut(&id) else {
                continue;
            };
            let before = waiting.stage;
            let mut at = now;
            if waiting.stage == ReportStage::Gathering {
                waiting.stage = ReportStage::Domain;
                at = limiter.take_of_domain(&waiting.to, rates, now);
            }
            if at <= now && waiting.stage == ReportStage::Domain {
                waiting.stage = ReportStage::All;
                at = limiter.take_of_all(&waiting.to, rates, now);
            }
            if at > now && before == ReportStage::Gathering {
                self.counts.delayed();
            }
            if at <= now && !is_busy(id) {
                waiting.stage = ReportStage::UnderWay { more: false };
                return Some(waiting.claim);
            }
            waiting.due = if at > now { at } else { now + BUSY_PAUSE };
            self.due.insert((waiting.due, id));
        }
        None
    }

    /// Ends the task of a report. With `again`, a report is still owed and is retried after that
    /// time.
    pub(in crate::relay::scheduler) fn reported(
        &mut self,
        id: QueueId,
        again: Option<Duration>,
        now: Instant,
    ) {
        let Some(WaitingReport {
            claim,
            to,
            stage,
            kept,
            ..
        }) = self.forget(id)
        else {
            return;
        };
        let more = stage == ReportStage::UnderWay { more: true };
        if let Some(wait) = again.or(more.then_some(Duration::ZERO)) {
            // Its place in the backlog was just given back.
            let kept = kept.filter(|octets| self.backlog.take(&to.host, *octets));
            self.wait(claim, to, kept, now + wait);
        }
        self.count();
    }

    /// Returns the messages for a digest that is due. Call [`ReportQueue::digested`] when its task
    /// ends. A message for which `is_busy` returns true stays for the next digest.
    pub(in crate::relay::scheduler) fn next_digest(
        &mut self,
        now: Instant,
        is_busy: impl Fn(QueueId) -> bool,
    ) -> Option<Vec<Claim>> {
        if self.digest_wake().is_none_or(|at| at > now) {
            return None;
        }
        let claims: Vec<_> = self
            .digest
            .values()
            .map(|(claim, _)| *claim)
            .filter(|claim| !is_busy(claim.id()))
            .take(DIGEST_MAX)
            .collect();
        for claim in &claims {
            self.leave_digest(claim.id());
        }
        self.digest_pause = now
            + match claims.len() {
                0 => BUSY_PAUSE,
                _ if self.digest.len() >= DIGEST_MAX || self.digest_octets >= DIGEST_OCTETS => {
                    DIGEST_PAUSE_CROWDED
                }
                _ => DIGEST_PAUSE,
            };
        if self.digest.is_empty() {
            self.digest_due = None;
        }
        self.digest_under_way = !claims.is_empty();
        self.count();
        self.digest_under_way.then_some(claims)
    }

    /// Ends the task of a digest. The messages in `remaining` are not in it and go into the next
    /// one.
    pub(in crate::relay::scheduler) fn digested(&mut self, remaining: Vec<Claim>, now: Instant) {
        self.digest_under_way = false;
        for claim in remaining {
            self.update(
                claim,
                OwedReports::Digest {
                    wait: Duration::ZERO,
                    octets: 0,
                },
                now,
            );
        }
    }

    /// Makes the report or digest of a message due now, within the rate limit, for an operator.
    /// Returns false when no report is owed about the message.
    pub(in crate::relay::scheduler) fn expedite(&mut self, id: QueueId, now: Instant) -> bool {
        if let Some(waiting) = self.reports.get_mut(&id) {
            if waiting.stage == ReportStage::Gathering {
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

    /// Returns the time at which the next digest is due.
    fn digest_wake(&self) -> Option<Instant> {
        let due = self.digest_due.filter(|_| !self.digest_under_way)?;
        let is_full = self.digest.len() >= DIGEST_FULL || self.digest_octets >= DIGEST_OCTETS;
        Some(if is_full {
            self.digest_pause
        } else {
            self.digest_pause.max(due)
        })
    }

    /// Returns the time at which the next report or digest is due.
    pub(in crate::relay::scheduler) fn next_wake(&self) -> Option<Instant> {
        self.due
            .first()
            .map(|(due, _)| *due)
            .into_iter()
            .chain(self.digest_wake())
            .min()
    }
}
