//! Completes a result: the new state of each recipient, the reports that are owed, and the
//! evidence.

use std::sync::Arc;

use jiff::Timestamp;

use crate::relay::outbound::RecipientEvent;
use crate::relay::scheduler::context::Context;
use crate::relay::scheduler::message_change::{MessageChange, RecipientChange, ReportStep};
use crate::relay::scheduler::retry_schedule::wait;
use crate::smtp::dsn::{self, Action};
use crate::smtp::envelope::{Envelope, RecipientState, ReportForm};

use super::dsn::{self as sender_reports, ReportCandidate};
use super::evidence::{delivery_records, wait_for_evidence};
use super::remaining::RemainingWork;
use super::writer::{AttemptRecipients, ResultWriter};

impl ResultWriter<'_> {
    /// Returns the change that the result makes to the message, and the work that remains once it
    /// is stored. `envelope` is the envelope from before. Returns `None` when the process is
    /// ending.
    pub(super) async fn finish(
        mut self,
        context: &Arc<Context>,
        envelope: &Envelope,
        mut recipients: AttemptRecipients,
        events: &[RecipientEvent<'_>],
    ) -> Option<(MessageChange, RemainingWork)> {
        let has_news = [&self.failed, &self.late, &self.held, &self.relayed]
            .iter()
            .any(|changes| !changes.is_empty());
        let is_reported = self.mark_failed(context, envelope, &mut recipients).await?;
        self.mark_owed(&mut recipients);
        let is_confidential = has_news
            && sender_reports::is_confidential(self.schedule.settings, envelope, self.connector);
        let remaining_time = self
            .schedule
            .expires
            .saturating_duration_since(self.schedule.now);
        let change = MessageChange {
            entry: Arc::clone(&self.attempt.entry),
            recipients: recipients
                .0
                .into_iter()
                .map(|(at, after)| RecipientChange::between(at, envelope.recipients.get(at), after))
                .collect(),
            evidence: delivery_records(context, envelope, events, self.at, is_reported),
            is_confidential,
            reports: ReportStep::AfterResult {
                hosts: vec![self.attempt.host.clone()],
                until: Timestamp::now() + remaining_time,
            },
        };
        Some((change, self.remaining))
    }

    /// Marks the bounced recipients as failed and their reports as owed. A report of ours that was
    /// rejected for its content is stored again as plain text. Returns false when that fails, or when
    /// the spool has no room for a report; the recipients then stay in the queue. Returns `None` when
    /// the process is ending.
    async fn mark_failed(
        &mut self,
        context: &Context,
        envelope: &Envelope,
        recipients: &mut AttemptRecipients,
    ) -> Option<bool> {
        let failed = std::mem::take(&mut self.failed);
        if !failed.is_empty() && context.spool.is_stuck() {
            self.postpone(envelope, recipients, &failed);
            return Some(false);
        }
        let may_resend_as_text = envelope.report == Some(ReportForm::Full)
            && failed.iter().any(|change| change.is_of_content);
        let mut is_sent_as_text = false;
        if may_resend_as_text {
            if !wait_for_evidence(context).await {
                return None;
            }
            match sender_reports::resend_as_text(
                context,
                self.schedule.settings,
                &self.attempt.entry,
                envelope,
            )
            .await
            {
                Ok(is_stored) => is_sent_as_text = is_stored,
                Err(error) => {
                    tracing::error!(queue_id = %self.attempt.entry.id, %error, "cannot store plain-text report; retrying");
                    self.keep_in_queue(envelope.recipients.len(), recipients, failed);
                    return Some(false);
                }
            }
        }
        let reverse_path = &envelope.reverse_path;
        let postmaster = sender_reports::postmaster(self.schedule.settings);
        for ReportCandidate {
            recipient, last, ..
        } in failed
        {
            let Some(recipient) = recipients.get_mut(recipient) else {
                continue;
            };
            recipient.state = RecipientState::Failed;
            recipient.owed = None;
            if is_sent_as_text || !dsn::is_requested(reverse_path, recipient, Action::Failed) {
                continue;
            }
            let (id, to) = (self.attempt.entry.id, &recipient.mailbox);
            if reverse_path.mailbox().is_none()
                && (*to == postmaster || *to == self.schedule.settings.config.postmaster)
            {
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
        Some(true)
    }

    /// Leaves recipients as they are in `envelope`, for another attempt: their report, or that it is
    /// owed, would use up the room for other results.
    fn postpone(
        &mut self,
        envelope: &Envelope,
        recipients: &mut AttemptRecipients,
        failed: &[ReportCandidate],
    ) {
        let id = self.attempt.entry.id;
        tracing::warn!(queue_id = %id, recipients = failed.len(), "bounce postponed until the spool has room for its report; the recipients are tried again");
        for ReportCandidate { recipient, .. } in failed {
            let before = envelope.recipients.get(*recipient);
            if let (Some(recipient), Some(before)) = (recipients.get_mut(*recipient), before) {
                before.clone_into(recipient);
            }
        }
        let soon = self.schedule.now + wait(self.schedule.times.retry, 1);
        self.remaining = self.remaining.and(soon, self.schedule.expires.max(soon));
    }

    /// Keeps recipients that cannot bounce yet. The message has `all` recipients.
    fn keep_in_queue(
        &mut self,
        all: usize,
        recipients: &mut AttemptRecipients,
        failed: Vec<ReportCandidate>,
    ) {
        for ReportCandidate {
            recipient,
            attempts,
            mut history,
            last,
            ..
        } in failed
        {
            let Some(recipient) = recipients.get_mut(recipient) else {
                continue;
            };
            history.push(last, all);
            recipient.state = match recipient.state {
                // A held recipient stays held.
                RecipientState::Held { .. } => RecipientState::Held { attempts, history },
                RecipientState::Pending { .. }
                | RecipientState::Delivered
                | RecipientState::Failed => RecipientState::Pending {
                    attempts,
                    next: None,
                    history,
                    warned: true,
                    apart: false,
                },
            };
        }
        let soon = self.schedule.now + wait(self.schedule.times.retry, 1);
        self.remaining = self.remaining.and(soon, self.schedule.expires.max(soon));
    }

    /// Marks the reports about delayed, held and relayed recipients as owed.
    fn mark_owed(&mut self, recipients: &mut AttemptRecipients) {
        for change in self
            .late
            .drain(..)
            .chain(self.held.drain(..))
            .chain(self.relayed.drain(..))
        {
            let Some(recipient) = recipients.get_mut(change.recipient) else {
                continue;
            };
            recipient.owed = Some(Box::new(change.last));
            if let RecipientState::Pending { warned, .. } = &mut recipient.state {
                *warned = true;
            }
        }
    }
}
