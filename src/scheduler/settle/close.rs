//! The end of an attempt: what its senders are owed, the new state, and the write into the spool.

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

/// Between two tries to write a result.
const WRITE_PAUSE: Duration = Duration::from_secs(5);

impl Books<'_> {
    /// Stores the reports that can be stored now, then the new state with those that are owed.
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
        // Whoever looks for what became of a recipient finds it before the queue forgets.
        if !self.witness.testify(&context.evidence, envelope, told).await {
            return unwritten(id, self.before, envelope);
        }
        // That is on record now, unless no evidence is kept for the time being.
        if context.evidence.is_kept() {
            envelope.arrival = None;
        }
        match write_down(context, id, envelope).await {
            Written::Yes => {
                if has_debt {
                    let debt = reporting::debt(envelope, self.attempt.entry.size, self.settings, wait);
                    // The scheduler is gone only when the process is about to be; what is owed is in the spool.
                    let _ = context.events.send(Event::Owes(id, debt));
                }
                self.left
            }
            Written::No => Left::Unwritten,
        }
    }

    /// Marks those as failed that are given up, and owes the reports about them. Returns false where a report of ours
    /// that was refused for its content could not be stored in its plain form; its recipients are then as they were.
    async fn settle_failed(&mut self, context: &Context, envelope: &mut Envelope) -> bool {
        let failed = std::mem::take(&mut self.failed);
        let may_simplify =
            envelope.report == Some(ReportForm::Full) && failed.iter().any(|change| change.is_of_content);
        let mut is_told = false;
        if may_simplify {
            match notice::simplify(context, self.settings, &self.attempt.entry, envelope).await {
                Ok(is_stored) => is_told = is_stored,
                Err(error) => {
                    tracing::error!(queue_id = %self.attempt.entry.id, %error, "report in plain text not stored; it is tried again");
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
                    "double bounce: mail from the null sender failed; the postmaster's next digest tells of it"
                );
            }
            recipient.owed = Some(Box::new(last));
        }
        true
    }

    /// Keeps recipients that cannot be given up yet.
    fn keep(&mut self, envelope: &mut Envelope, failed: Vec<Change>) {
        let all = envelope.recipients.len();
        for Change { recipient, attempts, mut history, last, .. } in failed {
            let Some(recipient) = envelope.recipients.get_mut(recipient) else { continue };
            history.push(last, all);
            recipient.state = match recipient.state {
                // Who was held and could not be given up stays held.
                RecipientState::Held { .. } => RecipientState::Held { attempts, history },
                RecipientState::Pending { .. } | RecipientState::Delivered | RecipientState::Failed => {
                    RecipientState::Pending { attempts, next: None, history, warned: true, apart: false }
                }
            };
        }
        let soon = self.now + wait(&self.settings.config.queue.retry, 1);
        self.left = self.left.and(soon, self.expires.max(soon));
    }

    /// Owes the reports about recipients that are late, held, or were passed on.
    fn owe_others(&mut self, envelope: &mut Envelope) {
        for change in self.late.drain(..).chain(self.held.drain(..)).chain(self.relayed.drain(..)) {
            let Some(recipient) = envelope.recipients.get_mut(change.recipient) else { continue };
            recipient.owed = Some(Box::new(change.last));
            if let RecipientState::Pending { warned, .. } = &mut recipient.state {
                *warned = true;
            }
        }
    }

    /// Stores what is owed to the sender, unless the report is to wait for those about other recipients. Returns the
    /// wait before the next try.
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

/// The end comes first, and the recipients are as they were. Another destination's attempt may still be written down,
/// and must not take this one with it.
fn unwritten(id: QueueId, before: Vec<Before>, envelope: &mut Envelope) -> Left {
    tracing::error!(queue_id = %id, "the result of an attempt is not written down, for its evidence is not; the attempt may be repeated after the restart");
    for Before { at, state, owed } in before {
        if let Some(recipient) = envelope.recipients.get_mut(at) {
            (recipient.state, recipient.owed) = (state, owed);
        }
    }
    Left::Unwritten
}

/// The answer to whether a result is in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) enum Written {
    Yes,
    /// The process is about to end.
    No,
}

/// Writes the new state, or the end, of a message; again and again where that fails, for until it is
/// written the message must not be looked at anew.
pub(in crate::scheduler) async fn write_down(context: &Context, id: QueueId, envelope: &Envelope) -> Written {
    loop {
        let written = if envelope.is_open() {
            context.spool.record(id, envelope.clone()).await
        } else {
            context.spool.remove(id).await
        };
        match written {
            // What an operator has removed has no result any more.
            Ok(()) | Err(SpoolError::Missing(_)) => return Written::Yes,
            Err(SpoolError::Closed) => return Written::No,
            Err(error) => {
                if context.ending.is_cancelled() {
                    tracing::error!(queue_id = %id, %error, "the result of an attempt was not written; the attempt may be repeated after the restart");
                    return Written::No;
                }
                tracing::error!(queue_id = %id, %error, "the result of an attempt cannot be written; trying again");
                let pause = tokio::time::timeout(WRITE_PAUSE, context.ending.cancelled());
                // Time over, or one last try before the end.
                let _ = pause.await;
            }
        }
    }
}
