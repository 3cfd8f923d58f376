//! The recipients of one attempt: who is still to be delivered, and what became of the others.
//!
//! What a failure means is asked of [`outcome::judge`], once for each failure and recipient; nothing is
//! decided here.

use std::sync::Arc;

use crate::config::OnFailure;
use crate::outcome::{self, Failure, Outcome, Scope, Step};
use crate::smtp::client::{Ending, RecipientStatus, Stage};
use crate::smtp::reply::{Reply, Status};

use super::cleared::{Handed, Interruption};
use super::{RecipientResult, Report, Via};

/// The state of an attempt.
pub(super) struct Ledger {
    /// Indices of recipients without a result, in the order of the attempt.
    open: Vec<usize>,
    results: Vec<RecipientResult>,
    trail: Vec<Failure>,
    on_failure: OnFailure,
}

impl Ledger {
    pub(super) fn new(recipients: &[usize], on_failure: OnFailure) -> Self {
        Self { open: recipients.to_vec(), results: Vec::with_capacity(recipients.len()), trail: Vec::new(), on_failure }
    }

    /// Recipients without a result.
    pub(super) fn open(&self) -> &[usize] {
        &self.open
    }

    /// Everybody has a result.
    pub(super) fn into_report(self) -> Report {
        debug_assert!(self.open.is_empty(), "recipients were forgotten: {:?}", self.open);
        Report { results: self.results, trail: self.trail }
    }

    /// One failure for all these recipients. `hops_left` says whether another hop or address can be tried.
    pub(super) fn fail(&mut self, who: &[usize], failure: &Failure, via: Option<&Arc<Via>>, hops_left: bool) {
        if who.is_empty() {
            return;
        }
        self.trail.push(failure.clone());
        let outcome = match outcome::judge(failure, hops_left, self.on_failure) {
            Step::NextHop => return,
            Step::Defer => Outcome::Deferred,
            Step::Hold => Outcome::Held,
            Step::Bounce => Outcome::Bounced,
        };
        for recipient in who {
            self.close(*recipient, outcome(failure.clone()), via.cloned());
        }
    }

    /// One failure for everybody who is left.
    pub(super) fn fail_all(&mut self, failure: &Failure, hops_left: bool) {
        let everybody = self.open.clone();
        self.fail(&everybody, failure, None, hops_left);
    }

    fn deliver(&mut self, who: &[usize], reply: &Reply, via: &Arc<Via>) {
        for recipient in who {
            self.close(*recipient, Outcome::Delivered(reply.clone()), Some(Arc::clone(via)));
        }
    }

    fn close(&mut self, recipient: usize, outcome: Outcome, via: Option<Arc<Via>>) {
        self.open.retain(|open| *open != recipient);
        self.results.push(RecipientResult { recipient, outcome, via });
    }

    /// Enters what a transaction with `who` came to; returns those who belong into a further one.
    pub(super) fn settle(&mut self, who: &[usize], handed: Handed, via: &Arc<Via>, hops_left: bool) -> Vec<usize> {
        let Handed { results, interruption, .. } = handed;
        // Those whom the end of the transaction concerns, and those it had no room for.
        let (mut others, mut overflow) = (Vec::new(), Vec::new());
        for (status, recipient) in results.recipients.into_iter().zip(who) {
            match status {
                RecipientStatus::Refused(reply) => {
                    let failure = Failure::reply(Scope::Recipient, Stage::Rcpt.name(), reply);
                    self.fail(&[*recipient], &failure.with_peer(via.peer.as_str()), Some(via), hops_left);
                }
                RecipientStatus::Overflow => overflow.push(*recipient),
                RecipientStatus::Accepted | RecipientStatus::Open => others.push(*recipient),
            }
        }
        let (failure, hops_left) = match (results.ending, interruption) {
            (Ending::Taken(reply), _) => {
                self.deliver(&others, &reply, via);
                return overflow;
            }
            // Nobody is left but those who were refused one by one.
            (Ending::NoRecipient, _) if others.is_empty() => return overflow,
            (Ending::Refused { stage, reply }, _) => (Failure::reply(Scope::Message, stage.name(), reply), hops_left),
            (Ending::Closing { stage, reply }, _) => (Failure::reply(Scope::Hop, stage.name(), reply), hops_left),
            (Ending::Unfinished | Ending::NoRecipient, Some(interruption)) => interrupted(&interruption, hops_left),
            (Ending::Unfinished | Ending::NoRecipient, None) => {
                (Failure::transient(Scope::Hop, Status(5, 0), "the session came to no end"), hops_left)
            }
        };
        others.append(&mut overflow);
        self.fail(&others, &failure.with_peer(via.peer.as_str()), Some(via), hops_left);
        Vec::new()
    }
}

/// What an interruption means, and whether another hop may be tried after it.
fn interrupted(interruption: &Interruption, hops_left: bool) -> (Failure, bool) {
    match interruption {
        // RFC 5321 §4.5.3.2.6: the message may have been taken. Another hop would make a second copy
        // likely; the next attempt makes it possible, and losing the message impossible.
        Interruption::Connection(broken) if broken.at() == Stage::Dot => {
            let mut failure = broken.failure();
            failure.cause = outcome::Cause::Other(format!(
                "{broken}; the message may have been delivered, and may be delivered once more"
            ));
            (failure, false)
        }
        Interruption::Connection(broken) => (broken.failure(), hops_left),
        // Our own trouble: no hop will do better.
        Interruption::Spool(fault) => {
            (Failure::transient(Scope::Message, Status(3, 0), format!("the spool cannot be read: {fault}")), false)
        }
    }
}
