//! Collects the outcomes of one attempt: the new state of each recipient, and the report about it
//! that the sender must get.

use std::time::Instant;

use jiff::Timestamp;

use crate::config::Connector;
use crate::relay::outbound::{Attempt, RecipientEnding, RecipientEvent};
use crate::relay::scheduler::deadlines::warn_at;
use crate::relay::scheduler::recipient_events::{MessageSchedule, of_expiry};
use crate::smtp::dsn::{self, Action};
use crate::smtp::envelope::{AttemptFailure, Envelope, Recipient, RecipientState};
use crate::smtp::reply::{EnhancedStatusCode, Reply, Status};

use super::dsn::ReportCandidate;
use super::remaining::RemainingWork;

/// Collects the outcomes of one attempt, until they are stored.
// Rule: RFC 5321 §4.5.4.1.
pub(super) struct ResultWriter<'a> {
    pub(super) schedule: MessageSchedule<'a>,
    pub(super) attempt: &'a Attempt,
    /// The time of the result.
    pub(super) at: Timestamp,
    /// The connector that the attempt used.
    pub(super) connector: &'a Connector,
    pub(super) warn_at: Option<Instant>,
    pub(super) remaining: RemainingWork,
    /// The recipients that are given up.
    pub(super) failed: Vec<ReportCandidate>,
    /// The recipients for which a report of delay is due.
    pub(super) late: Vec<ReportCandidate>,
    /// The recipients that are held, and for which the sender gets a report.
    pub(super) held: Vec<ReportCandidate>,
    /// The recipients for which the sender requested a report that the message was relayed.
    pub(super) relayed: Vec<ReportCandidate>,
}

/// The recipients of an attempt, each with its index in the envelope, in the order of the indices.
/// Their states change here until they are stored; no other job changes them meanwhile.
pub(super) struct AttemptRecipients(pub(super) Vec<(usize, Recipient)>);

impl AttemptRecipients {
    /// Copies the recipients of an attempt from the envelope.
    pub(super) fn of(attempt: &Attempt, envelope: &Envelope) -> Self {
        let recipient = |at: &usize| Some((*at, envelope.recipients.get(*at)?.clone()));
        Self(attempt.recipients.iter().filter_map(recipient).collect())
    }

    /// Returns the recipient with this index in the envelope.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Recipient> {
        let found = self.0.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        self.0.get_mut(found).map(|(_, recipient)| recipient)
    }
}

impl<'a> ResultWriter<'a> {
    /// Starts a result.
    pub(super) fn new(
        schedule: MessageSchedule<'a>,
        attempt: &'a Attempt,
        connector: &'a Connector,
    ) -> Self {
        Self {
            schedule,
            attempt,
            at: Timestamp::now(),
            connector,
            warn_at: warn_at(schedule.times, schedule.expires),
            remaining: RemainingWork::Nothing,
            failed: Vec::new(),
            late: Vec::new(),
            held: Vec::new(),
            relayed: Vec::new(),
        }
    }

    /// Adds the outcome of one recipient.
    pub(super) fn add_result(
        &mut self,
        recipients: &mut AttemptRecipients,
        event: &RecipientEvent<'_>,
    ) {
        let all = self.attempt.entry.envelope.recipients.len();
        let (at, attempts) = (event.recipient, event.attempts);
        let Some(recipient) = recipients.get_mut(at) else {
            return;
        };
        let (warned, mut history) = match &mut recipient.state {
            RecipientState::Pending {
                warned, history, ..
            } => (*warned, std::mem::take(history)),
            // A held recipient gets an outcome only if an operator bounces it.
            RecipientState::Held { history, .. } => (true, std::mem::take(history)),
            RecipientState::Delivered | RecipientState::Failed => return,
        };
        match &event.ending {
            RecipientEnding::Delivered(reply) => {
                self.relay(event, recipient, reply);
                recipient.owed = None;
                recipient.state = RecipientState::Delivered;
            }
            RecipientEnding::Bounced {
                last,
                is_of_content,
            } => {
                let (last, is_of_content) = (last.clone(), *is_of_content);
                self.failed.push(ReportCandidate {
                    recipient: at,
                    attempts,
                    history,
                    last,
                    is_of_content,
                });
            }
            RecipientEnding::Held { last } => {
                // The time of an operator's decision is unknown, so the sender gets the report now.
                if self.warn_at.is_some() && !warned && self.wants(recipient, Action::Delayed(None))
                {
                    self.held.push(ReportCandidate::notice(at, last.clone()));
                }
                recipient.owed = None;
                history.push(last.clone(), all);
                recipient.state = RecipientState::Held { attempts, history };
            }
            RecipientEnding::Deferred { last, due, next } => {
                self.check_delay(at, recipient, warned, last.clone());
                history.push(last.clone(), all);
                let apart = event.result.is_some_and(|result| result.apart);
                recipient.state = RecipientState::Pending {
                    attempts,
                    next: Some(*next),
                    history,
                    warned,
                    apart,
                };
                self.remaining = self.remaining.and(*due, self.schedule.expires);
            }
        }
    }

    /// Adds a recipient whose deadline has passed. Returns its event if the message has expired.
    pub(super) fn add_deadline(
        &mut self,
        envelope: &Envelope,
        at: usize,
        down: Option<&AttemptFailure>,
        due: Instant,
    ) -> Option<RecipientEvent<'a>> {
        let recipient = envelope.recipients.get(at)?;
        let RecipientState::Pending {
            attempts,
            history,
            warned,
            ..
        } = &recipient.state
        else {
            return None;
        };
        let mut last = down
            .or(history.last())
            .cloned()
            .unwrap_or_else(|| AttemptFailure {
                at: Timestamp::now(),
                status: EnhancedStatusCode::transient(Status(4, 5)),
                text: "every connection to the destination was in use".to_owned(),
                explanation: None,
                host: None,
                reply: None,
            });
        // A backoff may concern several domains; the recipient's own failure names its domain.
        if let Some(own) = history.last().filter(|own| own.text == last.text) {
            last.explanation.clone_from(&own.explanation);
        }
        if !self.schedule.is_over() {
            self.check_delay(at, recipient, *warned, last);
            self.remaining = self.remaining.and(due, self.schedule.expires);
            return None;
        }
        let event = of_expiry(self.schedule, (self.attempt, self.connector), at, last)?;
        let last = event.ending.failure()?.clone();
        let (attempts, history) = (*attempts, history.clone());
        self.failed.push(ReportCandidate {
            recipient: at,
            attempts,
            history,
            last,
            is_of_content: false,
        });
        Some(event)
    }

    /// Adds a report of delay when it is due and not yet sent. Before it is due, its time becomes a
    /// deadline of the message.
    fn check_delay(
        &mut self,
        at: usize,
        recipient: &Recipient,
        warned: bool,
        last: AttemptFailure,
    ) {
        let Some(warn_at) = self.warn_at.filter(|_| !warned) else {
            return;
        };
        if self.schedule.now < warn_at {
            self.remaining = self.remaining.and(self.schedule.expires, warn_at);
        } else if self.wants(recipient, Action::Delayed(None)) {
            self.late.push(ReportCandidate::notice(at, last));
        }
    }

    /// Adds a report of relaying (RFC 3461 §6.2) when the sender requested one and the host does
    /// not offer DSN.
    fn relay(&mut self, event: &RecipientEvent<'_>, recipient: &Recipient, reply: &Reply) {
        let via = event.result.and_then(|result| result.via.as_ref());
        let Some(via) = via.filter(|via| !via.offers_dsn) else {
            return;
        };
        if self.wants(recipient, Action::Relayed) {
            let last = AttemptFailure {
                at: Timestamp::now(),
                status: EnhancedStatusCode::success(Status(0, 0)),
                text: format!("{} accepted it: {reply}", via.peer),
                explanation: None,
                host: Some(via.peer.host_name()),
                reply: Some(reply.clone()),
            };
            self.relayed
                .push(ReportCandidate::notice(event.recipient, last));
        }
    }

    /// Returns true when the sender requested this kind of report.
    fn wants(&self, recipient: &Recipient, action: Action) -> bool {
        dsn::is_requested(&self.attempt.entry.envelope.reverse_path, recipient, action)
    }
}
