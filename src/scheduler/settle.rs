//! Writing down what an attempt, or a message's age, came to: states, the next time, removal.
//!
//! The order keeps the promise: a report is durable before the recipient that it is about is marked as
//! failed, or is owed in the message's own entry together with that mark; the evidence of an attempt is durable before
//! the queue has its result; and a message is removed only when nothing of it is left to do.

mod close;

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use crate::config::{Connector, WarnAfter, write_duration};
use crate::dsn::{self, Action};
use crate::envelope::{AttemptFailure, Envelope, Recipient, RecipientState};
use crate::evidence;
use crate::failure::{Persistence, RecipientOutcome};
use crate::outbound::{Attempt, RecipientResult, Report};
use crate::running_config::Snapshot;
use crate::smtp::reply::{EnhancedStatusCode, Status};

use super::journal::Journal;
use super::lanes::Item;
use super::notice::Change;
use super::trouble::{host, is_of_content, trouble};
use super::waits::wait;
use super::witness::Witness;
use super::{Context, Live};
pub(super) use close::write_down;

/// What is left to do for the recipients of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// The process ends, and the result could not be written: the spool has what was before, and the next start
    /// goes on from there.
    Unwritten,
    /// Another attempt.
    Until {
        /// When.
        due: Instant,
        /// When its age matters next, tried or not.
        deadline: Instant,
    },
}

impl Left {
    /// Another attempt at `due`, or earlier where that is already so.
    fn and(self, due: Instant, deadline: Instant) -> Self {
        match self {
            Self::Nothing | Self::Unwritten => Self::Until { due, deadline },
            Self::Until { due: earlier, deadline: sooner } => {
                Self::Until { due: due.min(earlier), deadline: deadline.min(sooner) }
            }
        }
    }
}

/// Writes an attempt's result into the spool. Whatever cannot be written is tried again: the message
/// may then arrive twice, but it is never lost.
pub(super) async fn settle(
    context: &Arc<Context>,
    live: &Live,
    attempt: &Attempt,
    report: &Report,
    expires: Instant,
) -> Left {
    let settings = context.running.load();
    let mut state = live.envelope.lock().await;
    let envelope = state.get_or_insert_with(|| attempt.entry.envelope.clone());
    let mut books = Books::open(&settings, attempt, Some(report), expires, envelope);
    for result in &report.results {
        books.enter(envelope, result);
    }
    books.close(context, envelope).await
}

/// Deals with the age of a message that cannot be tried now: its sender is told that it is late, or
/// it is given up. `down` is why its destination is, where it is.
pub(super) async fn age(
    context: &Arc<Context>,
    live: &Live,
    attempt: &Attempt,
    down: Option<AttemptFailure>,
    due: Instant,
    expires: Instant,
) -> Left {
    let settings = context.running.load();
    let mut state = live.envelope.lock().await;
    let envelope = state.get_or_insert_with(|| attempt.entry.envelope.clone());
    let mut books = Books::open(&settings, attempt, None, expires, envelope);
    for recipient in &attempt.recipients {
        books.age(envelope, *recipient, down.as_ref(), due);
    }
    books.close(context, envelope).await
}

/// When the sender of a message is told of its delay, by the clock that `expires` is on.
pub(super) fn warn_at(settings: &Snapshot, expires: Instant) -> Option<Instant> {
    let queue = &settings.config.queue;
    match queue.warn_after {
        WarnAfter::Age(age) if age < queue.expire => {
            // Before the machine was started is as good as now.
            Some(expires.checked_sub(queue.expire.saturating_sub(age)).unwrap_or_else(Instant::now))
        }
        WarnAfter::Age(_) | WarnAfter::Never => None,
    }
}

/// Reckons the age of what waits by these settings, where that was done by others. Who is too old now is
/// tried once more, as after a restart.
pub(super) fn reckon<T>(settings: &Snapshot, item: &mut Item<T>) {
    let (before, expire) = (item.expire, settings.config.queue.expire);
    let awaits_notice = item.deadline < item.expires;
    let later = item.expires + expire.saturating_sub(before);
    // Before the machine was started is as good as now.
    item.expires = later.checked_sub(before.saturating_sub(expire)).unwrap_or_else(Instant::now);
    item.expire = expire;
    item.deadline = warn_at(settings, item.expires).filter(|_| awaits_notice).unwrap_or(item.expires);
}

/// The entries that are made in the state of one attempt's recipients.
struct Books<'a> {
    settings: &'a Snapshot,
    attempt: &'a Attempt,
    /// The connector under which the attempt was judged.
    connector: &'a Connector,
    now: Instant,
    expires: Instant,
    warn_at: Option<Instant>,
    left: Left,
    failed: Vec<Change>,
    late: Vec<Change>,
    held: Vec<Change>,
    relayed: Vec<Change>,
    witness: Witness<'a>,
    /// What is changed here, as it was before.
    before: Vec<Before>,
}

/// A recipient before an attempt.
struct Before {
    at: usize,
    state: RecipientState,
    owed: Option<Box<AttemptFailure>>,
}

impl<'a> Books<'a> {
    fn open(
        settings: &'a Snapshot,
        attempt: &'a Attempt,
        report: Option<&'a Report>,
        expires: Instant,
        envelope: &Envelope,
    ) -> Self {
        let before = envelope.recipients.iter().enumerate().filter_map(|(at, recipient)| {
            let is_concerned = recipient.owed.is_some() || attempt.recipients.contains(&at);
            is_concerned.then(|| Before { at, state: recipient.state.clone(), owed: recipient.owed.clone() })
        });
        let warn_at = warn_at(settings, expires);
        Self {
            settings,
            attempt,
            connector: report.map_or_else(|| settings.connectors.for_host(&attempt.host), |report| &report.connector),
            now: Instant::now(),
            expires,
            warn_at,
            left: Left::Nothing,
            failed: Vec::new(),
            late: Vec::new(),
            held: Vec::new(),
            relayed: Vec::new(),
            witness: Witness::new(settings, attempt, report),
            before: before.collect(),
        }
    }

    fn journal(&self) -> Journal<'a> {
        Journal { attempt: self.attempt, connector: self.connector }
    }

    fn enter(&mut self, envelope: &mut Envelope, result: &'a RecipientResult) {
        let all = envelope.recipients.len();
        let Some(recipient) = envelope.recipients.get_mut(result.recipient) else { return };
        let (attempts, warned, mut history) = match &mut recipient.state {
            RecipientState::Pending { attempts, warned, history, .. } => (*attempts, *warned, std::mem::take(history)),
            // An operator gives it up.
            RecipientState::Held { attempts, history } => (*attempts, true, std::mem::take(history)),
            RecipientState::Delivered | RecipientState::Failed => return,
        };
        let attempts = attempts.saturating_add(1);
        match &result.outcome {
            RecipientOutcome::Delivered(reply) => {
                self.journal().delivered(result, &recipient.mailbox, reply);
                self.relay(result, recipient, reply);
                self.witness.delivered(result, attempts, reply);
                recipient.owed = None;
                recipient.state = RecipientState::Delivered;
            }
            RecipientOutcome::Bounced(failure) => {
                let last = trouble(failure, &result.trail, Persistence::Permanent);
                self.witness.failed(result, attempts, evidence::RecordedOutcome::Bounced, &last);
                let is_of_content = is_of_content(failure) && result.via.is_some();
                let at = result.recipient;
                self.give_up(recipient, Some(result), Change { recipient: at, attempts, history, last, is_of_content });
            }
            RecipientOutcome::Held(failure) => {
                let last = trouble(failure, &result.trail, Persistence::Transient);
                self.journal().held(result, &recipient.mailbox, &last);
                self.witness.failed(result, attempts, evidence::RecordedOutcome::Held, &last);
                // Nobody knows when an operator will decide, so the sender is told now.
                if self.warn_at.is_some() && !warned && self.wants(recipient, Action::Delayed(None)) {
                    self.held.push(Change::notice(result.recipient, last.clone()));
                }
                recipient.owed = None;
                history.push(last, all);
                recipient.state = RecipientState::Held { attempts, history };
            }
            RecipientOutcome::Deferred(failure) => {
                let last = trouble(failure, &result.trail, Persistence::Transient);
                if self.now >= self.expires {
                    let last = self.expired(last);
                    self.witness.failed(result, attempts, evidence::RecordedOutcome::Bounced, &last);
                    let at = result.recipient;
                    let change = Change { recipient: at, attempts, history, last, is_of_content: false };
                    return self.give_up(recipient, Some(result), change);
                }
                let due = (self.now + wait(&self.settings.config.queue.retry, attempts)).min(self.expires);
                let next = Timestamp::now() + due.saturating_duration_since(self.now);
                self.journal().deferred(result, &recipient.mailbox, &last, next);
                self.witness.failed(result, attempts, evidence::RecordedOutcome::Deferred, &last);
                self.check_delay(result.recipient, recipient, warned, last.clone());
                history.push(last, all);
                let apart = result.apart;
                recipient.state = RecipientState::Pending { attempts, next: Some(next), history, warned, apart };
                self.left = self.left.and(due, self.expires);
            }
        }
    }

    fn age(&mut self, envelope: &mut Envelope, at: usize, down: Option<&AttemptFailure>, due: Instant) {
        let Some(recipient) = envelope.recipients.get_mut(at) else { return };
        let RecipientState::Pending { attempts, history, warned, .. } = &recipient.state else { return };
        let (attempts, warned, history) = (*attempts, *warned, history.clone());
        let last = down.or(history.last()).cloned().unwrap_or_else(|| AttemptFailure {
            at: Timestamp::now(),
            status: EnhancedStatusCode::transient(Status(4, 5)),
            text: "every connection to the destination was in use".to_owned(),
            host: None,
            reply: None,
        });
        if self.now >= self.expires {
            let last = self.expired(last);
            self.witness.too_old(at, &last);
            let change = Change { recipient: at, attempts, history, last, is_of_content: false };
            return self.give_up(recipient, None, change);
        }
        self.check_delay(at, recipient, warned, last);
        self.left = self.left.and(due, self.expires);
    }

    fn give_up(&mut self, recipient: &Recipient, result: Option<&RecipientResult>, change: Change) {
        self.journal().failed(result, &recipient.mailbox, &change.last);
        self.failed.push(change);
    }

    /// Notes that the sender must be told of a delay, once.
    fn check_delay(&mut self, at: usize, recipient: &Recipient, warned: bool, last: AttemptFailure) {
        let Some(warn_at) = self.warn_at.filter(|_| !warned) else { return };
        if self.now < warn_at {
            self.left = self.left.and(self.expires, warn_at);
        } else if self.wants(recipient, Action::Delayed(None)) {
            self.late.push(Change::notice(at, last));
        }
    }

    /// Notes that the sender wants to know of success and nobody else will tell.
    fn relay(&mut self, result: &RecipientResult, recipient: &Recipient, reply: &crate::smtp::reply::Reply) {
        let Some(via) = result.via.as_ref().filter(|via| !via.offers_dsn) else { return };
        if self.wants(recipient, Action::Relayed) {
            let last = AttemptFailure {
                at: Timestamp::now(),
                status: EnhancedStatusCode::success(Status(0, 0)),
                text: format!("{} took it: {reply}", via.peer),
                host: Some(host(&via.peer)),
                reply: Some(reply.clone()),
            };
            self.relayed.push(Change::notice(result.recipient, last));
        }
    }

    fn wants(&self, recipient: &Recipient, action: Action) -> bool {
        dsn::is_requested(&self.attempt.entry.envelope.reverse_path, recipient, action)
    }

    /// The failure of a message whose time is over: 5.4.7, with the last reason.
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
