//! The recipients of one attempt: those without an outcome, and the results of the others.
//!
//! [`failure::decide`] decides what a failure means, once for each failure and recipient.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use crate::config::OnFailure;
use crate::policy::failure::{
    self, Cause, Failure, NextStep, Persistence, RecipientOutcome, Scope,
};
use crate::policy::tls::TlsPolicy;
use crate::smtp::client::{DialogueStage, RecipientStatus, TransactionEnd};
use crate::smtp::reply::{Reply, Status};

use super::attempt::{RecipientResult, Via};
use super::cleared::{Interruption, SendResult};

/// The end of a reason if it is not known whether the host accepted the message.
pub(super) const MAY_BE_DELIVERED: &str =
    "; the message may have been delivered, and may be delivered again";

/// The possibilities that remain in the same attempt after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remaining {
    /// Another hop, or another address of this one, remains.
    Hop,
    /// No hop remains.
    NoHop,
    /// Further hops would not help, or would do harm. Earlier failures do not count.
    Useless,
}

impl Remaining {
    /// Returns `Hop` if there is another hop or address, otherwise `NoHop`.
    pub(super) fn hop_if(has_next: bool) -> Self {
        if has_next { Self::Hop } else { Self::NoHop }
    }

    /// Returns `Useless` if that is the case, otherwise what remains.
    fn useless_if(self, is_useless: bool) -> Self {
        if is_useless { Self::Useless } else { self }
    }

    /// Returns what remains after a failure of a host. If the host is this relay itself, the hops
    /// after it are not used (RFC 5321 §5.1).
    pub(super) fn after(failure: &Failure, has_next: bool) -> Self {
        Self::hop_if(has_next && !failure.is_ourselves())
    }
}

/// The recipients of an attempt in progress, and the results so far.
pub(super) struct PendingRecipients {
    pending: Vec<PendingRecipient>,
    results: Vec<RecipientResult>,
    trail: Vec<Arc<Failure>>,
    /// True after the first hop.
    has_had_hop: bool,
    /// The policy of the current hop, once it is known.
    policy: Option<Arc<TlsPolicy>>,
    on_failure: OnFailure,
}

/// A recipient without an outcome.
struct PendingRecipient {
    recipient: usize,
    /// The most significant failure so far.
    reason: Option<Reason>,
    /// All failures so far.
    trail: Vec<Arc<Failure>>,
    /// True if a session ended with the reply to this recipient, or while that reply was awaited.
    apart: bool,
    /// The answer of the current hop.
    answer: HopAnswer,
    /// True if an earlier hop may accept the message later: it could not be asked, or gave another
    /// answer than that it is unable to.
    may_accept_later: bool,
}

/// The answer of a hop about a recipient. Of the answers of its addresses the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum HopAnswer {
    /// The hop could not be asked.
    NotAsked,
    /// The hop cannot receive such a message at any time: it lacks an extension, or the message is
    /// too large.
    Unable,
    /// The hop gave any other answer.
    Other,
}

impl PendingRecipient {
    fn add_answer(&mut self, reason: &Reason) {
        self.answer = self.answer.max(reason.answer);
    }

    /// Sets the persistence of a failure by which a hop is unable to receive the message. It is
    /// permanent only if every hop is unable to; a hop that could not be asked may be able to.
    fn with_persistence(&self, mut reason: Reason) -> Reason {
        if reason.answer == HopAnswer::Unable {
            let is_final = self.answer == HopAnswer::Unable && !self.may_accept_later;
            reason.failure.persistence = if is_final {
                Persistence::Permanent
            } else {
                Persistence::Transient
            };
        }
        reason
    }
}

/// A failure, and the session on which it happened.
#[derive(Clone)]
struct Reason {
    failure: Failure,
    /// The answer of the hop that the failure shows.
    answer: HopAnswer,
    via: Option<Arc<Via>>,
    policy: Option<Arc<TlsPolicy>>,
}

impl Reason {
    fn new(failure: Failure, via: Option<Arc<Via>>, policy: Option<Arc<TlsPolicy>>) -> Self {
        let answer = match (&failure.cause, &via) {
            (Cause::RequireTls(_), _) => HopAnswer::Unable,
            // On a session, the only permanent failures without a reply are missing extensions and
            // sizes.
            (Cause::Other(_), Some(_)) if failure.persistence == Persistence::Permanent => {
                HopAnswer::Unable
            }
            (Cause::Reply { .. }, _) => HopAnswer::Other,
            (
                Cause::Policy(_)
                | Cause::Login(_)
                | Cause::Ourselves(_)
                | Cause::Discovery(_)
                | Cause::Other(_),
                _,
            ) => HopAnswer::NotAsked,
        };
        Self {
            failure,
            answer,
            via,
            policy,
        }
    }

    /// Returns the significance of a failure. A failure on a cleared session, where the demand was
    /// met, counts most; then an unmet demand, a reply, an unreachable host; a hop that is this
    /// relay itself counts least.
    fn weight(&self) -> u8 {
        match (&self.via, &self.failure.cause) {
            (Some(_), _) => 4,
            (None, Cause::Policy(_) | Cause::RequireTls(_)) => 3,
            (None, Cause::Reply { .. } | Cause::Login(_)) => 2,
            (None, Cause::Discovery(_) | Cause::Other(_)) => 1,
            (None, Cause::Ourselves(_)) => 0,
        }
    }

    /// Returns the more significant of two failures; of equals, the later one. If one host does not
    /// meet the policy and another is unable to receive the message, the policy failure counts, so
    /// that `on_failure` decides.
    fn or_stronger(self, earlier: Option<Self>) -> Self {
        let Some(earlier) = earlier else { return self };
        let is_policy = |reason: &Self| matches!(reason.failure.cause, Cause::Policy(_));
        let is_earlier_stronger = match (earlier.answer, self.answer) {
            (_, HopAnswer::Unable) if is_policy(&earlier) => true,
            (HopAnswer::Unable, _) if is_policy(&self) => false,
            _ => earlier.weight() > self.weight(),
        };
        if is_earlier_stronger { earlier } else { self }
    }
}

impl PendingRecipients {
    /// Creates the state for an attempt with `recipients`. `apart` are those at which sessions
    /// ended before.
    pub(super) fn new(recipients: &[usize], apart: &[usize], on_failure: OnFailure) -> Self {
        let fresh = |recipient: &usize| PendingRecipient {
            recipient: *recipient,
            reason: None,
            trail: Vec::new(),
            apart: apart.contains(recipient),
            answer: HopAnswer::NotAsked,
            may_accept_later: false,
        };
        let pending = recipients.iter().map(fresh).collect();
        let (results, trail) = (Vec::with_capacity(recipients.len()), Vec::new());
        Self {
            pending,
            results,
            trail,
            has_had_hop: false,
            policy: None,
            on_failure,
        }
    }

    /// Begins a new hop; the failures from now on are its failures.
    pub(super) fn begin_hop(&mut self) {
        for pending in &mut self.pending {
            pending.may_accept_later |= self.has_had_hop && pending.answer != HopAnswer::Unable;
            pending.answer = HopAnswer::NotAsked;
        }
        self.has_had_hop = true;
        self.policy = None;
    }

    /// Records the policy of the current hop.
    pub(super) fn set_policy(&mut self, policy: &TlsPolicy) {
        self.policy = Some(Arc::new(policy.clone()));
    }

    /// The policy of the current hop, once it is known.
    pub(super) fn policy(&self) -> Option<&Arc<TlsPolicy>> {
        self.policy.as_ref()
    }

    /// Returns the recipients without an outcome, in the order of the attempt.
    pub(super) fn pending(&self) -> Vec<usize> {
        self.pending
            .iter()
            .map(|pending| pending.recipient)
            .collect()
    }

    /// Removes the recipients that need a transaction of their own, and returns them in random
    /// order, so that a recipient that ends the session does not always keep the same others from
    /// being named.
    pub(super) fn take_separate(&self, recipients: &mut Vec<usize>) -> Vec<usize> {
        let is_apart = |recipient: &mut usize| {
            self.pending
                .iter()
                .any(|pending| pending.recipient == *recipient && pending.apart)
        };
        let mut apart: Vec<(u64, usize)> = recipients
            .extract_if(.., is_apart)
            .map(|recipient| (random(), recipient))
            .collect();
        apart.sort_unstable();
        apart.into_iter().map(|(_, recipient)| recipient).collect()
    }

    /// Returns whether every recipient has an outcome.
    pub(super) fn is_complete(&self) -> bool {
        self.pending.is_empty()
    }

    /// Ends the attempt and returns the results and all failures. Recipients without an outcome are
    /// deferred.
    pub(super) fn into_parts(mut self) -> (Vec<RecipientResult>, Vec<Arc<Failure>>) {
        if !self.is_complete() {
            let text = "no host of the destination could be tried";
            self.fail_all(
                Failure::transient(Scope::Destination, Status(4, 0), text),
                Remaining::NoHop,
            );
        }
        (self.results, self.trail)
    }

    /// Records one failure for all these recipients.
    pub(super) fn fail(
        &mut self,
        recipients: &[usize],
        failure: Failure,
        via: Option<&Arc<Via>>,
        remaining: Remaining,
    ) {
        if recipients.is_empty() {
            return;
        }
        let reason = Reason::new(failure.clone(), via.cloned(), self.policy.clone());
        let failure = Arc::new(failure);
        self.trail.push(Arc::clone(&failure));
        for recipient in recipients {
            let Some(at) = self
                .pending
                .iter()
                .position(|pending| pending.recipient == *recipient)
            else {
                continue;
            };
            let pending = &mut self.pending[at];
            pending.trail.push(Arc::clone(&failure));
            pending.add_answer(&reason);
            let reason = pending.with_persistence(reason.clone());
            let step = failure::decide(
                &reason.failure,
                remaining == Remaining::Hop,
                self.on_failure,
            );
            let earlier = pending.reason.take();
            match (step, remaining) {
                (NextStep::NextHop, _) => pending.reason = Some(reason.or_stronger(earlier)),
                (NextStep::Defer, Remaining::Hop | Remaining::NoHop) => {
                    self.finish(at, reason.or_stronger(earlier));
                }
                (NextStep::Defer, Remaining::Useless) | (NextStep::Hold | NextStep::Bounce, _) => {
                    self.finish(at, reason);
                }
            }
        }
    }

    /// Records one failure for all recipients without an outcome.
    pub(super) fn fail_all(&mut self, failure: Failure, remaining: Remaining) {
        self.fail(&self.pending(), failure, None, remaining);
    }

    /// Finishes a recipient for which no further hop remains. The failure judge decides the
    /// outcome.
    fn finish(&mut self, at: usize, reason: Reason) {
        let reason = self.pending[at].with_persistence(reason);
        let is_final = reason.answer == HopAnswer::Unable
            && reason.failure.persistence == Persistence::Permanent;
        let Reason {
            mut failure,
            via,
            policy,
            ..
        } = reason;
        if is_final && matches!(failure.cause, Cause::Other(_)) {
            // Every hop was unable to receive the message, so the failure concerns the message.
            failure.scope = Scope::Message;
        }
        let outcome = match failure::decide(&failure, false, self.on_failure) {
            NextStep::Bounce => RecipientOutcome::Bounced(failure),
            NextStep::Hold => RecipientOutcome::Held(failure),
            NextStep::Defer | NextStep::NextHop => RecipientOutcome::Deferred(failure),
        };
        let PendingRecipient {
            recipient,
            trail,
            apart,
            ..
        } = self.pending.remove(at);
        self.results.push(RecipientResult {
            recipient,
            outcome,
            via,
            policy,
            trail,
            apart,
        });
    }

    fn record_delivered(&mut self, recipients: &[usize], reply: &Reply, via: &Arc<Via>) {
        self.pending
            .retain(|pending| !recipients.contains(&pending.recipient));
        let delivered = |recipient: &usize| RecipientResult {
            recipient: *recipient,
            outcome: RecipientOutcome::Delivered(reply.clone()),
            via: Some(Arc::clone(via)),
            policy: self.policy.clone(),
            trail: Vec::new(),
            apart: false,
        };
        self.results.extend(recipients.iter().map(delivered));
    }

    /// Records the recipients that have a reply of their own. Returns those that the end of the
    /// transaction concerns, and those that exceeded the peer's limit of recipients.
    fn record_replies(
        &mut self,
        statuses: Vec<RecipientStatus>,
        recipients: &[usize],
        via: &Arc<Via>,
        answered: Remaining,
    ) -> (Vec<usize>, Vec<usize>) {
        let (mut others, mut overflow) = (Vec::new(), Vec::new());
        for (status, recipient) in statuses.into_iter().zip(recipients) {
            match status {
                RecipientStatus::Rejected(reply) => {
                    let failure = reply_failure(Scope::Recipient, DialogueStage::Rcpt, reply, via);
                    self.fail(
                        &[*recipient],
                        failure.with_peer(&via.peer),
                        Some(via),
                        answered,
                    );
                }
                RecipientStatus::Delivered(reply) => {
                    self.record_delivered(&[*recipient], &reply, via);
                }
                RecipientStatus::Undelivered(reply) => {
                    let failure = reply_failure(Scope::Recipient, DialogueStage::Dot, reply, via);
                    self.fail(
                        &[*recipient],
                        failure.with_peer(&via.peer),
                        Some(via),
                        answered,
                    );
                }
                RecipientStatus::Overflow => overflow.push(*recipient),
                RecipientStatus::Accepted | RecipientStatus::Pending => others.push(*recipient),
            }
        }
        (others, overflow)
    }

    /// Records the result of a transaction with these recipients; returns those that need a further
    /// transaction. `answered` is what remains after a reply of the peer, `unanswered` after any
    /// other failure.
    pub(super) fn record_transaction(
        &mut self,
        recipients: &[usize],
        sent: SendResult,
        via: &Arc<Via>,
        answered: Remaining,
        unanswered: Remaining,
    ) -> Vec<usize> {
        let may_be_accepted = sent.may_be_accepted;
        let unanswered = unanswered.useless_if(may_be_accepted);
        let SendResult {
            results,
            interruption,
            ..
        } = sent;
        let (mut others, mut overflow) =
            self.record_replies(results.recipients, recipients, via, answered);
        let (failure, remaining) = match (results.ending, interruption) {
            (TransactionEnd::Accepted(reply), _) => {
                self.record_delivered(&others, &reply, via);
                return overflow;
            }
            // Every recipient has a reply of its own.
            (TransactionEnd::NoRecipient | TransactionEnd::EachAnswered, _)
                if others.is_empty() =>
            {
                return overflow;
            }
            (TransactionEnd::Rejected { stage, reply }, _) => {
                (reply_failure(Scope::Message, stage, reply, via), answered)
            }
            (TransactionEnd::Closing { stage, reply }, _) => {
                (reply_failure(Scope::Hop, stage, reply, via), answered)
            }
            (
                TransactionEnd::Unfinished
                | TransactionEnd::NoRecipient
                | TransactionEnd::EachAnswered,
                Some(interruption),
            ) => interrupted(&interruption, may_be_accepted, unanswered),
            (
                TransactionEnd::Unfinished
                | TransactionEnd::NoRecipient
                | TransactionEnd::EachAnswered,
                None,
            ) => (
                Failure::transient(
                    Scope::Hop,
                    Status(5, 0),
                    "the session ended without a result",
                ),
                unanswered,
            ),
        };
        others.append(&mut overflow);
        if let Some(last) = results
            .last_named
            .and_then(|at| recipients.get(at).copied())
        {
            // The reply to one recipient does not apply to the others.
            others.retain(|other| *other != last);
            self.mark_apart(last);
            self.fail(
                &[last],
                failure.clone().with_peer(&via.peer),
                Some(via),
                remaining,
            );
            let text = format!("the session ended at another recipient: {failure}");
            let failure = Failure::transient(Scope::Hop, Status(4, 2), text);
            self.fail(&others, failure.with_peer(&via.peer), Some(via), unanswered);
        } else {
            self.fail(&others, failure.with_peer(&via.peer), Some(via), remaining);
        }
        Vec::new()
    }

    fn mark_apart(&mut self, recipient: usize) {
        if let Some(pending) = self
            .pending
            .iter_mut()
            .find(|pending| pending.recipient == recipient)
        {
            pending.apart = true;
        }
    }
}

/// Returns a random number for spreading load; it needs no secrecy. Each `RandomState` has keys of
/// its own.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Returns the failure for a negative reply. If TLS failed on this session and the reply demands
/// it, the failure is temporary.
fn reply_failure(scope: Scope, stage: DialogueStage, reply: Reply, via: &Via) -> Failure {
    Failure::reply_in_session(scope, stage.name(), reply, via.clearance.outcome())
}

/// Returns the failure for an interruption, and what remains after it.
fn interrupted(
    interruption: &Interruption,
    may_be_accepted: bool,
    remaining: Remaining,
) -> (Failure, Remaining) {
    match interruption {
        // RFC 5321 §4.5.3.2.6: the peer may have accepted the message. Trying another hop now would
        // probably duplicate it; a later attempt may duplicate it too, but the message is not lost.
        Interruption::Connection(broken) if may_be_accepted => {
            let mut failure = broken.failure();
            failure.cause = Cause::Other(format!("{broken}{MAY_BE_DELIVERED}"));
            (failure, Remaining::Useless)
        }
        Interruption::Connection(broken) => (broken.failure(), remaining),
        // The fault is ours, so no other hop would help.
        Interruption::Spool(fault) => {
            let text = format!("cannot read the spool: {fault}");
            (
                Failure::transient(Scope::Message, Status(3, 0), text),
                Remaining::Useless,
            )
        }
        Interruption::NotOwner(refusal) => {
            let text = format!("the message was not sent: {refusal}");
            (
                Failure::transient(Scope::Message, Status(3, 0), text),
                Remaining::Useless,
            )
        }
    }
}
