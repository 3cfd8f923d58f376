//! Collects the outcomes of one attempt: the new state of each recipient, its log line, its
//! evidence and its report.

use std::time::Instant;

use jiff::Timestamp;

use crate::config::{Connector, write_duration};
use crate::policy::failure::{Persistence, RecipientOutcome};
use crate::relay::outbound::{Attempt, AttemptResult, RecipientResult};
use crate::relay::running_config::Snapshot;
use crate::relay::scheduler::attempt_failure::{attempt_failure, host, is_of_content};
use crate::relay::scheduler::deadlines::warn_at;
use crate::relay::scheduler::retry_schedule::wait;
use crate::smtp::dsn::{self, Action};
use crate::smtp::envelope::{AttemptFailure, Envelope, Recipient, RecipientState};
use crate::smtp::reply::{EnhancedStatusCode, Reply, Status};
use crate::storage::evidence;

use super::dsn::RecipientChange;
use super::evidence::EvidenceBatch;
use super::log::DeliveryLog;
use super::remaining::RemainingWork;

/// Collects the outcomes of one attempt, until they are stored.
pub(super) struct ResultWriter<'a> {
    pub(super) settings: &'a Snapshot,
    pub(super) attempt: &'a Attempt,
    /// The connector that the attempt used.
    pub(super) connector: &'a Connector,
    pub(super) now: Instant,
    pub(super) expires: Instant,
    pub(super) warn_at: Option<Instant>,
    pub(super) remaining: RemainingWork,
    pub(super) failed: Vec<RecipientChange>,
    pub(super) late: Vec<RecipientChange>,
    pub(super) held: Vec<RecipientChange>,
    pub(super) relayed: Vec<RecipientChange>,
    pub(super) evidence: EvidenceBatch<'a>,
    /// The states before the attempt, to restore when the result cannot be stored.
    pub(super) before: Vec<PreviousState>,
}

/// The state of a recipient before an attempt.
pub(super) struct PreviousState {
    pub(super) at: usize,
    pub(super) state: RecipientState,
    pub(super) owed: Option<Box<AttemptFailure>>,
}

impl<'a> ResultWriter<'a> {
    /// Starts a result. `report` is `None` for a deadline without an attempt.
    pub(super) fn new(
        settings: &'a Snapshot,
        attempt: &'a Attempt,
        report: Option<&'a AttemptResult>,
        expires: Instant,
        envelope: &Envelope,
    ) -> Self {
        let before = envelope
            .recipients
            .iter()
            .enumerate()
            .filter_map(|(at, recipient)| {
                let is_concerned = recipient.owed.is_some() || attempt.recipients.contains(&at);
                is_concerned.then(|| PreviousState {
                    at,
                    state: recipient.state.clone(),
                    owed: recipient.owed.clone(),
                })
            });
        let warn_at = warn_at(settings, expires);
        Self {
            settings,
            attempt,
            connector: report.map_or_else(
                || settings.connectors.for_host(&attempt.host),
                |report| &report.connector,
            ),
            now: Instant::now(),
            expires,
            warn_at,
            remaining: RemainingWork::Nothing,
            failed: Vec::new(),
            late: Vec::new(),
            held: Vec::new(),
            relayed: Vec::new(),
            evidence: EvidenceBatch::new(settings, attempt, report),
            before: before.collect(),
        }
    }

    fn log(&self) -> DeliveryLog<'a> {
        DeliveryLog {
            attempt: self.attempt,
            connector: self.connector,
        }
    }

    /// Adds the outcome of one recipient.
    pub(super) fn add_result(&mut self, envelope: &mut Envelope, result: &'a RecipientResult) {
        let all = envelope.recipients.len();
        let Some(recipient) = envelope.recipients.get_mut(result.recipient) else {
            return;
        };
        let (attempts, warned, mut history) = match &mut recipient.state {
            RecipientState::Pending {
                attempts,
                warned,
                history,
                ..
            } => (*attempts, *warned, std::mem::take(history)),
            // An operator bounces it.
            RecipientState::Held { attempts, history } => {
                (*attempts, true, std::mem::take(history))
            }
            RecipientState::Delivered | RecipientState::Failed => return,
        };
        let attempts = attempts.saturating_add(1);
        match &result.outcome {
            RecipientOutcome::Delivered(reply) => {
                self.log().delivered(result, &recipient.mailbox, reply);
                self.relay(result, recipient, reply);
                self.evidence.delivered(result, attempts, reply);
                recipient.owed = None;
                recipient.state = RecipientState::Delivered;
            }
            RecipientOutcome::Bounced(failure) => {
                let last = attempt_failure(failure, &result.trail, Persistence::Permanent);
                self.evidence
                    .failed(result, attempts, evidence::RecordedOutcome::Bounced, &last);
                let is_of_content = is_of_content(failure) && result.via.is_some();
                let at = result.recipient;
                self.give_up(
                    recipient,
                    Some(result),
                    RecipientChange {
                        recipient: at,
                        attempts,
                        history,
                        last,
                        is_of_content,
                    },
                );
            }
            RecipientOutcome::Held(failure) => {
                let last = attempt_failure(failure, &result.trail, Persistence::Transient);
                self.log().held(result, &recipient.mailbox, &last);
                self.evidence
                    .failed(result, attempts, evidence::RecordedOutcome::Held, &last);
                // The time of an operator's decision is unknown, so the sender gets the report now.
                if self.warn_at.is_some() && !warned && self.wants(recipient, Action::Delayed(None))
                {
                    self.held
                        .push(RecipientChange::notice(result.recipient, last.clone()));
                }
                recipient.owed = None;
                history.push(last, all);
                recipient.state = RecipientState::Held { attempts, history };
            }
            RecipientOutcome::Deferred(failure) => {
                let last = attempt_failure(failure, &result.trail, Persistence::Transient);
                if self.now >= self.expires {
                    let last = self.expired(last);
                    self.evidence.failed(
                        result,
                        attempts,
                        evidence::RecordedOutcome::Bounced,
                        &last,
                    );
                    let at = result.recipient;
                    let change = RecipientChange {
                        recipient: at,
                        attempts,
                        history,
                        last,
                        is_of_content: false,
                    };
                    return self.give_up(recipient, Some(result), change);
                }
                let due = (self.now + wait(&self.settings.config.queue.retry, attempts))
                    .min(self.expires);
                let next = Timestamp::now() + due.saturating_duration_since(self.now);
                self.log().deferred(result, &recipient.mailbox, &last, next);
                self.evidence
                    .failed(result, attempts, evidence::RecordedOutcome::Deferred, &last);
                self.check_delay(result.recipient, recipient, warned, last.clone());
                history.push(last, all);
                let apart = result.apart;
                recipient.state = RecipientState::Pending {
                    attempts,
                    next: Some(next),
                    history,
                    warned,
                    apart,
                };
                self.remaining = self.remaining.and(due, self.expires);
            }
        }
    }

    /// Adds a recipient whose deadline has passed.
    pub(super) fn add_deadline(
        &mut self,
        envelope: &mut Envelope,
        at: usize,
        down: Option<&AttemptFailure>,
        due: Instant,
    ) {
        let Some(recipient) = envelope.recipients.get_mut(at) else {
            return;
        };
        let RecipientState::Pending {
            attempts,
            history,
            warned,
            ..
        } = &recipient.state
        else {
            return;
        };
        let (attempts, warned, history) = (*attempts, *warned, history.clone());
        let last = down
            .or(history.last())
            .cloned()
            .unwrap_or_else(|| AttemptFailure {
                at: Timestamp::now(),
                status: EnhancedStatusCode::transient(Status(4, 5)),
                text: "every connection to the destination was in use".to_owned(),
                host: None,
                reply: None,
            });
        if self.now >= self.expires {
            let last = self.expired(last);
            self.evidence.expired(at, &last);
            let change = RecipientChange {
                recipient: at,
                attempts,
                history,
                last,
                is_of_content: false,
            };
            return self.give_up(recipient, None, change);
        }
        self.check_delay(at, recipient, warned, last);
        self.remaining = self.remaining.and(due, self.expires);
    }

    /// Adds a recipient that bounces.
    fn give_up(
        &mut self,
        recipient: &Recipient,
        result: Option<&RecipientResult>,
        change: RecipientChange,
    ) {
        self.log().failed(result, &recipient.mailbox, &change.last);
        self.failed.push(change);
    }

    /// Adds a report of delay when it is due and not yet sent.
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
        if self.now < warn_at {
            self.remaining = self.remaining.and(self.expires, warn_at);
        } else if self.wants(recipient, Action::Delayed(None)) {
            self.late.push(RecipientChange::notice(at, last));
        }
    }

    /// Adds a report of relaying (RFC 3461 §6.2) when the sender requested one and the host does
    /// not offer DSN.
    fn relay(&mut self, result: &RecipientResult, recipient: &Recipient, reply: &Reply) {
        let Some(via) = result.via.as_ref().filter(|via| !via.offers_dsn) else {
            return;
        };
        if self.wants(recipient, Action::Relayed) {
            let last = AttemptFailure {
                at: Timestamp::now(),
                status: EnhancedStatusCode::success(Status(0, 0)),
                text: format!("{} accepted it: {reply}", via.peer),
                host: Some(host(&via.peer)),
                reply: Some(reply.clone()),
            };
            self.relayed
                .push(RecipientChange::notice(result.recipient, last));
        }
    }

    /// Returns true when the sender requested this kind of report.
    fn wants(&self, recipient: &Recipient, action: Action) -> bool {
        dsn::is_requested(&self.attempt.entry.envelope.reverse_path, recipient, action)
    }

    /// Returns the failure of an expired message: 5.4.7, with the last reason.
    fn expired(&self, last: AttemptFailure) -> AttemptFailure {
        let age = write_duration(self.settings.config.queue.expire);
        AttemptFailure {
            status: EnhancedStatusCode::permanent(Status(4, 7)),
            text: format!(
                "not delivered within {age}; the last attempt failed because: {} ({})",
                last.text, last.status
            ),
            ..last
        }
    }
}
