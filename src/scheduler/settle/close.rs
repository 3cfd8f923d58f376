//! Stores a result: reports to the sender, evidence, and the new state in the spool.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Before, Books, Left};
use crate::dsn::{self, Action};
use crate::envelope::{Envelope, QueueId, RecipientState, ReportForm};
use crate::scheduler::notice::{self, Change, Room, Stored};
use crate::scheduler::waits::wait;
use crate::scheduler::{Context, Event, reporting, witness};
use crate::spool::SpoolError;

/// The wait before a result is written again.
const WRITE_PAUSE: Duration = Duration::from_secs(5);

impl Books<'_> {
    /// Stores the reports that may be stored now, then the evidence, then the new state with the reports still owed.
    pub(super) async fn close(mut self, context: &Arc<Context>, envelope: &mut Envelope) -> Left {
        let has_news = [&self.failed, &self.late, &self.held, &self.relayed].iter().any(|changes| !changes.is_empty());
        let has_debt = has_news || self.before.iter().any(|before| before.owed.is_some());
        let id = self.attempt.entry.id;
        if has_debt && !witness::evidence_flows(context).await {
            return unwritten(id, self.before, envelope);
        }
        let told = self.settle_failed(context, envelope).await;
        self.owe_others(envelope);
        if has_news && notice::is_confidential(self.settings, envelope, self.connector) {
            envelope.confidential = true;
        }
        let wait = if has_debt { self.store_reports(context, envelope).await } else { Duration::ZERO };
        // Evidence of a recipient exists before the queue drops it.
        if !self.witness.testify(&context.evidence, envelope, told).await {
            return unwritten(id, self.before, envelope);
        }
        // The acceptance is recorded now, unless evidence is off.
        if context.evidence.is_kept() {
            envelope.arrival = None;
        }
        match write_down(context, id, envelope).await {
            Written::Yes => {
                if has_debt {
                    let debt = reporting::debt(envelope, self.attempt.entry.size, self.settings, wait);
                    // The channel is closed only when the process ends; owed reports are in the spool.
                    let _ = context.events.send(Event::Owes(id, debt));
                }
                self.left
            }
            Written::No => Left::Unwritten,
        }
    }

    /// Marks the bounced recipients as failed and their reports as owed. A report of ours that was rejected for its
    /// content is stored again as plain text. Returns false when that fails; its recipients then stay as they were.
    async fn settle_failed(&mut self, context: &Context, envelope: &mut Envelope) -> bool {
        let failed = std::mem::take(&mut self.failed);
        let may_simplify =
            envelope.report == Some(ReportForm::Full) && failed.iter().any(|change| change.is_of_content);
        let mut is_told = false;
        if may_simplify {
            match notice::simplify(context, self.settings, &self.attempt.entry, envelope).await {
                Ok(is_stored) => is_told = is_stored,
                Err(error) => {
                    tracing::error!(queue_id = %self.attempt.entry.id, %error, "cannot store plain-text report; retrying");
                    self.keep(envelope, failed);
                    return false;
                }
            }
        }
        let Envelope { reverse_path, recipients, .. } = envelope;
        let postmaster = reporting::postmaster(self.settings);
        for Change { recipient, last, .. } in failed {
            let Some(recipient) = recipients.get_mut(recipient) else { continue };
            recipient.state = RecipientState::Failed;
            recipient.owed = None;
            if is_told || !dsn::is_requested(reverse_path, recipient, Action::Failed) {
                continue;
            }
            let (id, to) = (self.attempt.entry.id, &recipient.mailbox);
            if reverse_path.mailbox().is_none() && (*to == postmaster || *to == self.settings.config.postmaster) {
                tracing::error!(queue_id = %id, %to, "double bounce: bounce to postmaster failed; discarding it");
                continue;
            }
            if reverse_path.mailbox().is_none() {
                tracing::warn!(
                    queue_id = %id, failed = %to,
                    "double bounce: mail from the null sender failed; it goes into the postmaster's next digest"
                );
            }
            recipient.owed = Some(Box::new(last));
        }
        true
    }

    /// Keeps recipients that cannot bounce yet.
    fn keep(&mut self, envelope: &mut Envelope, failed: Vec<Change>) {
        let all = envelope.recipients.len();
        for Change { recipient, attempts, mut history, last, .. } in failed {
            let Some(recipient) = envelope.recipients.get_mut(recipient) else { continue };
            history.push(last, all);
            recipient.state = match recipient.state {
                // A held recipient stays held.
                RecipientState::Held { .. } => RecipientState::Held { attempts, history },
                RecipientState::Pending { .. } | RecipientState::Delivered | RecipientState::Failed => {
                    RecipientState::Pending { attempts, next: None, history, warned: true, apart: false }
                }
            };
        }
        let soon = self.now + wait(&self.settings.config.queue.retry, 1);
        self.left = self.left.and(soon, self.expires.max(soon));
    }

    /// Marks the reports about delayed, held and relayed recipients as owed.
    fn owe_others(&mut self, envelope: &mut Envelope) {
        for change in self.late.drain(..).chain(self.held.drain(..)).chain(self.relayed.drain(..)) {
            let Some(recipient) = envelope.recipients.get_mut(change.recipient) else { continue };
            recipient.owed = Some(Box::new(change.last));
            if let RecipientState::Pending { warned, .. } = &mut recipient.state {
                *warned = true;
            }
        }
    }

    /// Stores the owed reports, unless they wait for reports about other recipients. Returns the wait before the next
    /// attempt to store them.
    async fn store_reports(&self, context: &Context, envelope: &mut Envelope) -> Duration {
        let queue = &self.settings.config.queue;
        if envelope.reverse_path.mailbox().is_none() {
            return Duration::ZERO;
        }
        let host = &self.attempt.host;
        let may_follow =
            |recipient: &crate::envelope::Recipient| recipient.state.is_open() && recipient.mailbox.host() != host;
        if envelope.recipients.iter().any(may_follow) {
            return queue.dsn_gather;
        }
        let until = Timestamp::now() + self.expires.saturating_duration_since(self.now);
        let entry = &self.attempt.entry;
        match notice::store(context, self.settings, entry, envelope, until, Room::Wanted).await {
            Stored::All | Stored::OverRate => Duration::ZERO,
            Stored::Failed => wait(&queue.retry, 1),
        }
    }
}

/// Restores the recipients after their result could not be stored because the process ends. The result of another
/// destination may still be stored, and must not include this one.
fn unwritten(id: QueueId, before: Vec<Before>, envelope: &mut Envelope) -> Left {
    tracing::error!(queue_id = %id, "attempt result not stored because its evidence cannot be written; the attempt may be repeated after the restart");
    for Before { at, state, owed } in before {
        if let Some(recipient) = envelope.recipients.get_mut(at) {
            (recipient.state, recipient.owed) = (state, owed);
        }
    }
    Left::Unwritten
}

/// The result of a write into the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) enum Written {
    Yes,
    /// The process is ending.
    No,
}

/// Stores the new state of a message, or removes it when it is finished. It retries until it succeeds or the process
/// ends: no other job may work on the message before that.
pub(in crate::scheduler) async fn write_down(context: &Context, id: QueueId, envelope: &Envelope) -> Written {
    loop {
        let written = if envelope.is_open() {
            context.spool.record(id, envelope.clone()).await
        } else {
            context.spool.remove(id).await
        };
        match written {
            // An operator removed the message.
            Ok(()) | Err(SpoolError::Missing(_)) => return Written::Yes,
            Err(SpoolError::Closed) => return Written::No,
            Err(error) => {
                if context.ending.is_cancelled() {
                    tracing::error!(queue_id = %id, %error, "attempt result not stored; the attempt may be repeated after the restart");
                    return Written::No;
                }
                tracing::error!(queue_id = %id, %error, "cannot store attempt result; retrying");
                let pause = tokio::time::timeout(WRITE_PAUSE, context.ending.cancelled());
                // Either way, try again; at shutdown for the last time.
                let _ = pause.await;
            }
        }
    }
}
