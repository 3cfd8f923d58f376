//! The recipients of one attempt: who is still to be delivered, and what became of the others.
//!
//! What a failure means is asked of [`failure::decide`], once for each failure and recipient; nothing is
//! decided here.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use crate::config::OnFailure;
use crate::failure::{self, Cause, Failure, NextStep, Persistence, RecipientOutcome, Scope};
use crate::smtp::client::{DialogueStage, RecipientStatus, TransactionEnd};
use crate::smtp::reply::{Reply, Status};
use crate::tls::TlsPolicy;

use super::cleared::{Handed, Interruption};
use super::{RecipientResult, Via};

/// What may follow a failure in the same attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Further {
    /// Another hop, or another address of this one.
    Hop,
    /// No hop is left.
    NoHop,
    /// No hop would do better, or it would do harm: what earlier hops said does not matter.
    Nothing,
}

impl Further {
    /// Whether there is another hop or address.
    pub(super) fn hop_if(more: bool) -> Self {
        if more { Self::Hop } else { Self::NoHop }
    }

    /// What may follow the failure of a host as such: where that is ourselves, nothing does, for what follows is not
    /// better (RFC 5321 §5.1).
    pub(super) fn after(failure: &Failure, more: bool) -> Self {
        Self::hop_if(more && !failure.is_ourselves())
    }
}

/// The state of an attempt.
pub(super) struct Ledger {
    open: Vec<Open>,
    results: Vec<RecipientResult>,
    trail: Vec<Arc<Failure>>,
    /// Whether there was a hop before the one at hand.
    is_under_way: bool,
    /// What the hop at hand must show, as soon as that is known.
    policy: Option<Arc<TlsPolicy>>,
    on_failure: OnFailure,
}

/// A recipient without a result.
struct Open {
    recipient: usize,
    /// The most telling failure so far, where there was one.
    reason: Option<Reason>,
    /// Every failure so far.
    trail: Vec<Arc<Failure>>,
    /// Whether a session ended with its answer, or while that was awaited.
    apart: bool,
    /// What the hop at hand has said.
    here: Word,
    /// Whether a hop before it may take the message another time: it could not be asked, or said something
    /// else than that it is unable to.
    may_yet: bool,
}

/// What a hop has said of a recipient; of the words of its addresses the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    /// Nothing: it could not be asked.
    Nothing,
    /// That it cannot take such a message: the message is not made for it, whenever it is asked.
    Unable,
    /// Anything else.
    Answer,
}

impl Open {
    fn hears(&mut self, reason: &Reason) {
        self.here = self.here.max(reason.word);
    }

    /// That a hop cannot take the message, or does not promise what it requires, is final where every hop said so:
    /// one that could not be asked may be the one that can.
    fn tempered(&self, mut reason: Reason) -> Reason {
        if reason.word == Word::Unable {
            let is_final = self.here == Word::Unable && !self.may_yet;
            reason.failure.persistence = if is_final { Persistence::Permanent } else { Persistence::Transient };
        }
        reason
    }
}

/// A failure, and the session that it happened on.
#[derive(Clone)]
struct Reason {
    failure: Failure,
    /// What it says of the host.
    word: Word,
    via: Option<Arc<Via>>,
    policy: Option<Arc<TlsPolicy>>,
}

impl Reason {
    fn new(failure: Failure, via: Option<Arc<Via>>, policy: Option<Arc<TlsPolicy>>) -> Self {
        let word = match (&failure.cause, &via) {
            (Cause::RequireTls(_), _) => Word::Unable,
            // On a session, only what the peer does not offer will not pass.
            (Cause::Other(_), Some(_)) if failure.persistence == Persistence::Permanent => Word::Unable,
            (Cause::Reply { .. }, _) => Word::Answer,
            (Cause::Policy(_) | Cause::Ourselves(_) | Cause::Discovery(_) | Cause::Other(_), _) => Word::Nothing,
        };
        Self { failure, word, via, policy }
    }

    /// How much a failure tells: that a host could not be reached says less than what another one
    /// answered, and that less than a demand which was not met. What was said on a cleared session, where
    /// the demand was met, counts before all of them; that a host is ourselves, after all.
    fn weight(&self) -> u8 {
        match (&self.via, &self.failure.cause) {
            (Some(_), _) => 4,
            (None, Cause::Policy(_) | Cause::RequireTls(_)) => 3,
            (None, Cause::Reply { .. }) => 2,
            (None, Cause::Discovery(_) | Cause::Other(_)) => 1,
            (None, Cause::Ourselves(_)) => 0,
        }
    }

    /// The more telling of two; of equals, the later. Where one host does not meet the policy and another cannot take
    /// the message, the policy is what keeps it here, and `on_failure` decides.
    fn or_earlier(self, earlier: Option<Self>) -> Self {
        let Some(earlier) = earlier else { return self };
        let is_policy = |reason: &Self| matches!(reason.failure.cause, Cause::Policy(_));
        let earlier_tells_more = match (earlier.word, self.word) {
            (_, Word::Unable) if is_policy(&earlier) => true,
            (Word::Unable, _) if is_policy(&self) => false,
            _ => earlier.weight() > self.weight(),
        };
        if earlier_tells_more { earlier } else { self }
    }
}

impl Ledger {
    /// `apart`: those of the recipients with which sessions ended before.
    pub(super) fn new(recipients: &[usize], apart: &[usize], on_failure: OnFailure) -> Self {
        let fresh = |recipient: &usize| Open {
            recipient: *recipient,
            reason: None,
            trail: Vec::new(),
            apart: apart.contains(recipient),
            here: Word::Nothing,
            may_yet: false,
        };
        let open = recipients.iter().map(fresh).collect();
        let (results, trail) = (Vec::with_capacity(recipients.len()), Vec::new());
        Self { open, results, trail, is_under_way: false, policy: None, on_failure }
    }

    /// From now on failures are those of another hop.
    pub(super) fn hop(&mut self) {
        for open in &mut self.open {
            open.may_yet |= self.is_under_way && open.here != Word::Unable;
            open.here = Word::Nothing;
        }
        self.is_under_way = true;
        self.policy = None;
    }

    /// What that hop must show.
    pub(super) fn demands(&mut self, policy: &TlsPolicy) {
        self.policy = Some(Arc::new(policy.clone()));
    }

    /// Recipients without a result, in the order of the attempt.
    pub(super) fn open(&self) -> Vec<usize> {
        self.open.iter().map(|open| open.recipient).collect()
    }

    /// Takes those out who go into a transaction of their own. Their order is another each time, so that one who
    /// ends the session does not always keep the same others from being named.
    pub(super) fn take_apart(&self, who: &mut Vec<usize>) -> Vec<usize> {
        let is_apart = |who: &mut usize| self.open.iter().any(|open| open.recipient == *who && open.apart);
        let mut apart: Vec<(u64, usize)> = who.extract_if(.., is_apart).map(|who| (random(), who)).collect();
        apart.sort_unstable();
        apart.into_iter().map(|(_, who)| who).collect()
    }

    /// Whether everybody has a result.
    pub(super) fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// Ends the attempt: the results, and every failure on the way. Nobody is left without a result.
    pub(super) fn into_parts(mut self) -> (Vec<RecipientResult>, Vec<Arc<Failure>>) {
        if !self.is_complete() {
            let text = "no host of the destination could be tried";
            self.fail_all(Failure::transient(Scope::Destination, Status(4, 0), text), Further::NoHop);
        }
        (self.results, self.trail)
    }

    /// One failure for all these recipients.
    pub(super) fn fail(&mut self, who: &[usize], failure: Failure, via: Option<&Arc<Via>>, further: Further) {
        if who.is_empty() {
            return;
        }
        let reason = Reason::new(failure.clone(), via.cloned(), self.policy.clone());
        let failure = Arc::new(failure);
        self.trail.push(Arc::clone(&failure));
        for recipient in who {
            let Some(at) = self.open.iter().position(|open| open.recipient == *recipient) else { continue };
            let open = &mut self.open[at];
            open.trail.push(Arc::clone(&failure));
            open.hears(&reason);
            let reason = open.tempered(reason.clone());
            let step = failure::decide(&reason.failure, further == Further::Hop, self.on_failure);
            let earlier = open.reason.take();
            match (step, further) {
                (NextStep::NextHop, _) => open.reason = Some(reason.or_earlier(earlier)),
                (NextStep::Defer, Further::Hop | Further::NoHop) => self.end(at, reason.or_earlier(earlier)),
                (NextStep::Defer, Further::Nothing) | (NextStep::Hold | NextStep::Bounce, _) => self.end(at, reason),
            }
        }
    }

    /// One failure for everybody who is left.
    pub(super) fn fail_all(&mut self, failure: Failure, further: Further) {
        self.fail(&self.open(), failure, None, further);
    }

    /// No further hop for this recipient: the judge has the last word on why.
    fn end(&mut self, at: usize, reason: Reason) {
        let reason = self.open[at].tempered(reason);
        let is_final = reason.word == Word::Unable && reason.failure.persistence == Persistence::Permanent;
        let Reason { mut failure, via, policy, .. } = reason;
        if is_final && matches!(failure.cause, Cause::Other(_)) {
            // Said of the message by every hop, and not only of one of them.
            failure.scope = Scope::Message;
        }
        let outcome = match failure::decide(&failure, false, self.on_failure) {
            NextStep::Bounce => RecipientOutcome::Bounced(failure),
            NextStep::Hold => RecipientOutcome::Held(failure),
            NextStep::Defer | NextStep::NextHop => RecipientOutcome::Deferred(failure),
        };
        let Open { recipient, trail, apart, .. } = self.open.remove(at);
        self.results.push(RecipientResult { recipient, outcome, via, policy, trail, apart });
    }

    fn deliver(&mut self, who: &[usize], reply: &Reply, via: &Arc<Via>) {
        self.open.retain(|open| !who.contains(&open.recipient));
        let delivered = |recipient: &usize| RecipientResult {
            recipient: *recipient,
            outcome: RecipientOutcome::Delivered(reply.clone()),
            via: Some(Arc::clone(via)),
            policy: self.policy.clone(),
            trail: Vec::new(),
            apart: false,
        };
        self.results.extend(who.iter().map(delivered));
    }

    /// Enters what a transaction with `who` came to; returns those who belong into a further one. `answered`:
    /// what may follow the peer's own words; `unanswered`: what may follow anything else.
    pub(super) fn settle(
        &mut self,
        who: &[usize],
        handed: Handed,
        via: &Arc<Via>,
        answered: Further,
        unanswered: Further,
    ) -> Vec<usize> {
        let Handed { results, interruption, .. } = handed;
        // Those whom the end of the transaction concerns, and those it had no room for.
        let (mut others, mut overflow) = (Vec::new(), Vec::new());
        for (status, recipient) in results.recipients.into_iter().zip(who) {
            match status {
                RecipientStatus::Rejected(reply) => {
                    let failure = answer(Scope::Recipient, DialogueStage::Rcpt, reply, via);
                    self.fail(&[*recipient], failure.with_peer(via.peer.as_str()), Some(via), answered);
                }
                RecipientStatus::Overflow => overflow.push(*recipient),
                RecipientStatus::Accepted | RecipientStatus::Pending => others.push(*recipient),
            }
        }
        let (failure, further) = match (results.ending, interruption) {
            (TransactionEnd::Accepted(reply), _) => {
                self.deliver(&others, &reply, via);
                return overflow;
            }
            // Nobody is left but those who were refused one by one.
            (TransactionEnd::NoRecipient, _) if others.is_empty() => return overflow,
            (TransactionEnd::Rejected { stage, reply }, _) => (answer(Scope::Message, stage, reply, via), answered),
            (TransactionEnd::Closing { stage, reply }, _) => (answer(Scope::Hop, stage, reply, via), answered),
            (TransactionEnd::Unfinished | TransactionEnd::NoRecipient, Some(interruption)) => {
                interrupted(&interruption, unanswered)
            }
            (TransactionEnd::Unfinished | TransactionEnd::NoRecipient, None) => {
                (Failure::transient(Scope::Hop, Status(5, 0), "the session came to no end"), unanswered)
            }
        };
        others.append(&mut overflow);
        if let Some(last) = results.last_named.and_then(|at| who.get(at).copied()) {
            // What one recipient is answered is not said of the others.
            others.retain(|other| *other != last);
            self.set_apart(last);
            self.fail(&[last], failure.clone().with_peer(via.peer.as_str()), Some(via), further);
            let text = format!("the session ended at another recipient: {failure}");
            let failure = Failure::transient(Scope::Hop, Status(4, 2), text);
            self.fail(&others, failure.with_peer(via.peer.as_str()), Some(via), unanswered);
        } else {
            self.fail(&others, failure.with_peer(via.peer.as_str()), Some(via), further);
        }
        Vec::new()
    }

    fn set_apart(&mut self, recipient: usize) {
        if let Some(open) = self.open.iter_mut().find(|open| open.recipient == recipient) {
            open.apart = true;
        }
    }
}

/// A number that spreads load; nothing secret hangs on it. Each `RandomState` has keys of its own.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What a negative answer means on this session: where TLS failed there and the answer demands it, it may pass.
fn answer(scope: Scope, stage: DialogueStage, reply: Reply, via: &Via) -> Failure {
    Failure::reply_in_session(scope, stage.name(), reply, via.clearance.outcome())
}

/// What an interruption means, and what may follow it.
fn interrupted(interruption: &Interruption, further: Further) -> (Failure, Further) {
    match interruption {
        // RFC 5321 §4.5.3.2.6: the message may have been taken. Another hop would make a second copy
        // likely; the next attempt makes it possible, and losing the message impossible.
        Interruption::Connection(broken) if broken.at() == DialogueStage::Dot => {
            let mut failure = broken.failure();
            failure.cause =
                Cause::Other(format!("{broken}; the message may have been delivered, and may be delivered once more"));
            (failure, Further::Nothing)
        }
        Interruption::Connection(broken) => (broken.failure(), further),
        // Our own trouble: no hop will do better.
        Interruption::Spool(fault) => {
            let text = format!("the spool cannot be read: {fault}");
            (Failure::transient(Scope::Message, Status(3, 0), text), Further::Nothing)
        }
    }
}
