//! Everything that must be true of a world that was played. Clients and hosts are believed; the
//! daemon's own account is compared with theirs.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use gatepost::storage::evidence::{DeliveryRecord, RecordedAssurance, RecordedOutcome};

use super::ledger::{Answer, Arrival, Reported, Seen, Session};
use super::mail::is_relaxed;
use super::play::FINAL_REPLY;
use super::world::{Destination, Policy, Shown, World};
use crate::support::client::Verdict;

/// The time before a kill in which an answer may have come that the daemon did not write down.
const UNWRITTEN: Duration = Duration::from_secs(3);

/// A message as its client knows it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) name: String,
    pub(crate) recipients: Vec<String>,
    /// `None`: the client went away in the middle of it.
    pub(crate) verdict: Option<Verdict>,
    pub(crate) began: Instant,
    pub(crate) at: Instant,
}

/// One start of the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) name: String,
    pub(crate) ended: Option<Instant>,
    pub(crate) killed: bool,
}

impl Life {
    /// Returns true if it ended between two moments.
    fn was_cut(&self, after: Instant, before: Instant) -> bool {
        self.ended
            .is_some_and(|ended| ended > after && ended < before)
    }
}

/// A recipient that is still in the queue.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    pub(crate) recipient: String,
    pub(crate) held: bool,
    pub(crate) reason: String,
}

/// All that is known in the end.
#[derive(Debug, Clone)]
pub(crate) struct Played {
    pub(crate) world: World,
    /// `[queue] expire`. Mail for healthy destinations arrives within half of it.
    pub(crate) expire: Duration,
    pub(crate) sent: Vec<Sent>,
    pub(crate) seen: Seen,
    pub(crate) lives: Vec<Life>,
    pub(crate) pauses: Vec<(Instant, Instant)>,
    pub(crate) left: Vec<Left>,
    /// Nothing but held messages is left.
    pub(crate) drained: bool,
    pub(crate) records: Vec<DeliveryRecord>,
}

/// Everything that is known of each recipient.
struct Index<'a> {
    arrivals: HashMap<&'a str, Vec<&'a Arrival>>,
    failed: HashMap<&'a str, Vec<&'a Reported>>,
    left: HashMap<&'a str, &'a Left>,
}

impl Index<'_> {
    fn arrivals(&self, recipient: &str) -> &[&Arrival] {
        self.arrivals.get(recipient).map_or(&[], Vec::as_slice)
    }

    fn failed(&self, recipient: &str) -> &[&Reported] {
        self.failed.get(recipient).map_or(&[], Vec::as_slice)
    }
}

impl Played {
    fn index(&self) -> Index<'_> {
        let mut index = Index {
            arrivals: HashMap::new(),
            failed: HashMap::new(),
            left: HashMap::new(),
        };
        for arrival in &self.seen.arrivals {
            index
                .arrivals
                .entry(&arrival.recipient)
                .or_default()
                .push(arrival);
        }
        for report in self
            .seen
            .reports
            .iter()
            .filter(|report| report.action == "failed")
        {
            index
                .failed
                .entry(&report.recipient)
                .or_default()
                .push(report);
        }
        index.left = self
            .left
            .iter()
            .map(|left| (left.recipient.as_str(), left))
            .collect();
        index
    }

    /// Every promise that was not kept.
    pub(crate) fn faults(&self) -> Vec<String> {
        let index = self.index();
        let mut faults = self.lost(&index);
        faults.extend(self.twice(&index));
        faults.extend(self.weak());
        faults.extend(self.forgotten());
        faults.extend(self.misrecorded(&index));
        faults.extend(self.waited(&index));
        faults.extend(self.given_up(&index));
        faults.extend(self.invented(&index));
        faults.extend(self.vacuous());
        faults
    }

    /// The accepted messages, recipient by recipient.
    fn accepted(&self) -> impl Iterator<Item = (&Sent, &str)> {
        let accepted = self
            .sent
            .iter()
            .filter(|sent| matches!(sent.verdict, Some(Verdict::Accepted(_))));
        accepted.flat_map(|sent| sent.recipients.iter().map(move |to| (sent, to.as_str())))
    }

    fn destination(&self, recipient: &str) -> &Destination {
        self.world
            .of(recipient)
            .expect("mail is sent to destinations")
    }

    /// Each accepted message was delivered, bounced, or is still held.
    fn lost(&self, index: &Index<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        for (sent, to) in self.accepted() {
            let delivered = index
                .arrivals(to)
                .iter()
                .any(|one| matches!(one.answer, Answer::Taken(_)));
            if !delivered && index.failed(to).is_empty() && !index.left.contains_key(to) {
                faults.push(format!(
                    "LOST: {} was accepted for {to}: not delivered, not bounced, not queued",
                    sent.name
                ));
            }
        }
        let stuck = self.left.iter().filter(|left| !left.held && !self.drained);
        faults.extend(stuck.map(|left| {
            format!(
                "STUCK: {} is neither delivered nor given up: {}",
                left.recipient, left.reason
            )
        }));
        faults
    }

    /// Returns true if the daemon may not know that a message was accepted by its host.
    fn is_unknown(&self, arrival: &Arrival) -> bool {
        let Answer::Taken(taken) = arrival.answer else {
            return true;
        };
        if taken.duration_since(arrival.at) + Duration::from_secs(1) >= FINAL_REPLY {
            return true;
        }
        let life = self
            .lives
            .iter()
            .find(|life| life.name == arrival.session.life);
        life.is_none_or(|life| {
            // An orderly end cuts short what has not ended after `drain`; what was answered before
            // is written down. Results of one message wait for one another for a quarter of a
            // second, and a busy machine is slow to write.
            let unwritten = if life.killed {
                UNWRITTEN
            } else {
                Duration::from_secs(1)
            };
            // Nothing can be written down on a full disk, nor while the daemon stands still.
            life.ended.is_some_and(|cut| {
                cut.saturating_duration_since(taken) <= unwritten + self.paused(taken, cut)
            })
        })
    }

    /// Nobody gets a message twice, or a report of failure beside it.
    fn twice(&self, index: &Index<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        for (to, arrivals) in &index.arrivals {
            if self.world.of(to).is_none() {
                continue;
            }
            let known = arrivals
                .iter()
                .position(|arrival| !self.is_unknown(arrival));
            let Some(known) = known else { continue };
            let first = arrivals[known];
            if let Some(again) = arrivals.get(known + 1) {
                let (one, two) = (&first.session, &again.session);
                faults.push(format!(
                    "TWICE: {to} was taken from {one:?} at {:?} and came again from {two:?}",
                    first.at
                ));
            }
            if let Some(report) = index.failed(to).first() {
                faults.push(format!(
                    "TWICE: {to} was taken from {:?} and reported as {report:?}",
                    first.session
                ));
            }
            if index.left.contains_key(to) {
                faults.push(format!(
                    "TWICE: {to} was taken from {:?} and is still in the queue",
                    first.session
                ));
            }
        }
        for (sent, to) in self.accepted() {
            let reports = index.failed(to);
            // A report is delivered before the queue knows of that: a kill in between brings it once
            // more.
            let killed = |life: &&Life| {
                life.killed
                    && reports
                        .last()
                        .is_some_and(|last| life.was_cut(sent.at, last.at))
            };
            let excuses = self.lives.iter().filter(killed).count();
            let ids: HashSet<_> = reports.iter().map(|report| &report.id).collect();
            let copies = |id: &&String| reports.iter().filter(|report| report.id == **id).count();
            if ids.len() > 1 || ids.iter().any(|id| copies(id) > 1 + excuses) {
                faults.push(format!(
                    "TWICE: {to} was reported as failed {} times: {reports:?}",
                    reports.len()
                ));
            }
        }
        faults
    }

    /// No host hears of mail over a session that is weaker than its policy.
    fn weak(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for named in &self.seen.named {
            let session = &named.session;
            let shown = session.tls.as_ref().map(|tls| tls.shown);
            let (admits, what) = if let Some(to) = &named.recipient {
                let admits = |policy: Policy| {
                    policy.admits(shown) || (policy.is_published() && is_relaxed(to))
                };
                (
                    self.world.of(to).is_none_or(|one| admits(one.policy)),
                    to.as_str(),
                )
            } else {
                let mut policies = self.world.policies(session.site).peekable();
                let admits = |policy: Policy| policy.is_published() || policy.admits(shown);
                (
                    policies.peek().is_none() || policies.any(admits),
                    "MAIL FROM",
                )
            };
            if !admits {
                let policy = named
                    .recipient
                    .as_ref()
                    .and_then(|to| self.world.of(to))
                    .map(|one| one.policy);
                faults.push(format!(
                    "WEAK: {what} was said in {session:?}, and the policy is {policy:?}"
                ));
            }
        }
        faults
    }

    /// If a downgrade is refused, no host that has accepted mail over TLS is ever sent mail in the
    /// clear.
    fn forgotten(&self) -> Vec<String> {
        let minds = |to: &str| {
            self.world
                .of(to)
                .filter(|one| one.policy == Policy::Remembered)
        };
        let mut since: HashMap<(&str, usize), Instant> = HashMap::new();
        for arrival in &self.seen.arrivals {
            let Some(destination) = minds(&arrival.recipient) else {
                continue;
            };
            if arrival.session.tls.is_some() && !self.is_unknown(arrival) {
                let known = (destination.domain.as_str(), arrival.session.site);
                since
                    .entry(known)
                    .and_modify(|at| *at = arrival.at.min(*at))
                    .or_insert(arrival.at);
            }
        }
        let mut faults = Vec::new();
        for named in &self.seen.named {
            let Some(to) = named
                .recipient
                .as_deref()
                .filter(|_| named.session.tls.is_none())
            else {
                continue;
            };
            let known =
                minds(to).and_then(|one| since.get(&(one.domain.as_str(), named.session.site)));
            // The memory is written behind the delivery, and a kill may come first.
            if known.is_some_and(|since| *since + UNWRITTEN < named.at) {
                faults.push(format!(
                    "WEAK: {to} in {:?}, and the host had taken TLS before",
                    named.session
                ));
            }
        }
        faults
    }

    /// Each delivery on record has arrived as recorded, and each arrival is on record.
    fn misrecorded(&self, index: &Index<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        let mut recorded: HashMap<&str, usize> = HashMap::new();
        let delivered = self
            .records
            .iter()
            .filter(|record| record.outcome == RecordedOutcome::Delivered);
        for record in delivered.filter(|record| self.world.of(&record.to).is_some()) {
            *recorded.entry(&record.to).or_default() += 1;
            let arrivals = index.arrivals(&record.to);
            if !arrivals
                .iter()
                .any(|arrival| self.agrees(record, &arrival.session))
            {
                let sessions: Vec<_> = arrivals.iter().map(|arrival| &arrival.session).collect();
                faults.push(format!("RECORD: {record:?} and the hosts saw {sessions:?}"));
            }
        }
        for (to, arrivals) in &index.arrivals {
            if self.world.of(to).is_none() {
                continue;
            }
            let taken = arrivals
                .iter()
                .filter(|arrival| matches!(arrival.answer, Answer::Taken(_)))
                .count();
            let known = arrivals
                .iter()
                .filter(|arrival| !self.is_unknown(arrival))
                .count();
            let records = recorded.get(to).copied().unwrap_or_default();
            if records > taken || records < known.min(1) {
                faults.push(format!(
                    "RECORD: {to} has {records} records of delivery, and {taken} were taken"
                ));
            }
        }
        let never = recorded.keys().filter(|to| index.arrivals(to).is_empty());
        faults.extend(
            never.map(|to| format!("RECORD: {to} is on record as delivered, and nothing arrived")),
        );
        faults
    }

    /// Returns true if a record is of this session.
    fn agrees(&self, record: &DeliveryRecord, session: &Session) -> bool {
        let address = self.world.sites[session.site].address.to_string();
        let is_there = record
            .address
            .as_ref()
            .is_some_and(|at| at.split(':').next() == Some(&address));
        let Some(said) = &record.session else {
            return false;
        };
        let same = match (&said.tls, &session.tls) {
            (None, None) => said.level == RecordedAssurance::Clear,
            (Some(said), Some(tls)) => {
                let key = said
                    .certificate
                    .as_ref()
                    .is_some_and(|shown| shown.spki == tls.key);
                key && said.version == tls.version && said.cipher == tls.cipher
            }
            _ => false,
        };
        let shown = session.tls.as_ref().map(|tls| tls.shown);
        let is_earned = match said.level {
            RecordedAssurance::Clear => shown.is_none(),
            RecordedAssurance::Tls => shown.is_some(),
            RecordedAssurance::Trusted => matches!(shown, Some(Shown::Good | Shown::WrongName)),
            RecordedAssurance::Verified | RecordedAssurance::Pinned | RecordedAssurance::Dane => {
                shown == Some(Shown::Good)
            }
        };
        is_there && same && is_earned
    }

    /// Time between two moments in which nobody was served.
    fn paused(&self, from: Instant, to: Instant) -> Duration {
        let overlap = |(began, ended): &(Instant, Instant)| {
            ended.min(&to).saturating_duration_since(*began.max(&from))
        };
        self.pauses.iter().map(overlap).sum()
    }

    /// Nobody healthy waits for anybody sick.
    fn waited(&self, index: &Index<'_>) -> Vec<String> {
        let late = self
            .latencies(index)
            .filter(|(_, wait)| *wait > self.expire / 2);
        late.map(|(to, wait)| {
            format!(
                "LATE: {to} is healthy and waited {:.1} s",
                wait.as_secs_f64()
            )
        })
        .collect()
    }

    fn latencies<'a>(&'a self, index: &'a Index<'_>) -> impl Iterator<Item = (&'a str, Duration)> {
        let healthy = self
            .accepted()
            .filter(move |(_, to)| self.destination(to).is_healthy);
        healthy.filter_map(move |(sent, to)| {
            let arrived = index.arrivals(to).first()?.at;
            Some((
                to,
                arrived
                    .saturating_duration_since(sent.at)
                    .saturating_sub(self.paused(sent.at, arrived)),
            ))
        })
    }

    /// Each bounce has a reason: a refusal, or the message has expired.
    fn given_up(&self, index: &Index<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        for (sent, to) in self.accepted() {
            let destination = self.destination(to);
            let Some(report) = index.failed(to).first() else {
                continue;
            };
            let waited = report.at.saturating_duration_since(sent.began);
            let may = destination.may_reject
                || (!destination.is_healthy && destination.on_failure == "bounce");
            if destination.is_healthy || (!may && waited + Duration::from_secs(2) < self.expire) {
                let what = format!("{} after {:.1} s", report.status, waited.as_secs_f64());
                faults.push(format!("BOUNCED: {to} with {what}, and {destination:?}"));
            }
        }
        let held = self.left.iter().filter(|left| left.held);
        let held = held.filter(|left| {
            self.world
                .of(&left.recipient)
                .is_some_and(|one| one.on_failure != "hold")
        });
        faults.extend(held.map(|left| {
            format!(
                "HELD: {} is held without a reason: {}",
                left.recipient, left.reason
            )
        }));
        faults
    }

    /// Nothing arrives that was not accepted, or that is incomplete.
    fn invented(&self, index: &Index<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        for sent in &self.sent {
            let unaccepted = matches!(sent.verdict, None | Some(Verdict::Refused(_)));
            for to in sent
                .recipients
                .iter()
                .filter(|to| unaccepted && !index.arrivals(to).is_empty())
            {
                faults.push(format!(
                    "INVENTED: {to} was not accepted ({:?}), and arrived",
                    sent.verdict
                ));
            }
        }
        for arrival in &self.seen.arrivals {
            let local = arrival
                .recipient
                .split(['@', '.'])
                .next()
                .unwrap_or_default();
            match &arrival.content {
                Err(fault) => faults.push(format!("CHANGED: {}: {fault}", arrival.recipient)),
                Ok(name) if !name.is_empty() && name != local => {
                    faults.push(format!("CHANGED: {name} came for {}", arrival.recipient));
                }
                Ok(_) => {}
            }
        }
        faults
    }

    /// A world in which nothing went wrong proves nothing.
    fn vacuous(&self) -> Vec<String> {
        let (accepted, taken) = (
            self.accepted().count(),
            self.count(|one| matches!(one.answer, Answer::Taken(_))),
        );
        let lost = self.count(|one| one.answer == Answer::Lost);
        let enough = accepted * 10 > self.sent.len() * 9
            && taken * 3 > accepted
            && !self.seen.reports.is_empty();
        let enough = enough
            && lost + self.count(|one| one.answer == Answer::Refused) > 0
            && self.lives.iter().any(|life| life.killed);
        (!enough)
            .then(|| format!("VACUOUS: {}", self.summary()))
            .into_iter()
            .collect()
    }

    fn count(&self, of: impl Fn(&Arrival) -> bool) -> usize {
        self.seen
            .arrivals
            .iter()
            .filter(|one| self.world.of(&one.recipient).is_some() && of(one))
            .count()
    }

    pub(crate) fn summary(&self) -> String {
        let index = self.index();
        let repeated = index
            .arrivals
            .iter()
            .filter(|(to, all)| self.world.of(to).is_some() && all.len() > 1)
            .count();
        let slowest = self
            .latencies(&index)
            .map(|(_, wait)| wait)
            .max()
            .unwrap_or_default();
        format!(
            "{} messages, {} recipients accepted; {} arrivals taken, {} answers lost, {} refused at the dot, {repeated} came \
             more than once; {} bounced, {} left; {} starts; healthy mail waited {:.1} s at most",
            self.sent.len(),
            self.accepted().count(),
            self.count(|one| matches!(one.answer, Answer::Taken(_))),
            self.count(|one| one.answer == Answer::Lost),
            self.count(|one| one.answer == Answer::Refused),
            index.failed.len(),
            self.left.len(),
            self.lives.len(),
            slowest.as_secs_f64(),
        )
    }
}
