//! Stores a result: reports to the sender, evidence, and the new state in the spool.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::relay::outbound::RecipientEvent;
use crate::relay::scheduler::context::{Context, Event};
use crate::relay::scheduler::retry_schedule::wait;
use crate::smtp::dsn::{self, Action};
use crate::smtp::envelope::{Envelope, QueueId, Recipient, RecipientState, ReportForm};
use crate::storage::spool::SpoolError;

use super::dsn::{self as sender_reports, RateCheck, ReportCandidate, StoreResult};
use super::evidence::{EvidenceRecorded, wait_for_evidence, write_evidence};
use super::remaining::RemainingWork;
use super::writer::{PreviousState, ResultWriter};

/// The wait before a result is written again.
const WRITE_PAUSE: Duration = Duration::from_secs(5);

impl ResultWriter<'_> {
    /// Stores the reports that may be stored now, then the evidence, then the new state with the
    /// reports still owed.
    pub(super) async fn finish(
        mut self,
        context: &Arc<Context>,
        envelope: &mut Envelope,
        events: &[RecipientEvent<'_>],
    ) -> RemainingWork {
        let has_news = [&self.failed, &self.late, &self.held, &self.relayed]
            .iter()
            .any(|changes| !changes.is_empty());
        let has_owed = has_news || self.before.iter().any(|before| before.owed.is_some());
        let id = self.attempt.entry.id;
        if has_owed && !wait_for_evidence(context).await {
            return restore(id, self.before, envelope);
        }
        let is_reported = self.mark_failed(context, envelope).await;
        self.mark_owed(envelope);
        if has_news
            && sender_reports::is_confidential(self.schedule.settings, envelope, self.connector)
        {
            envelope.confidential = true;
        }
        let wait = if has_owed {
            self.store_reports(context, envelope).await
        } else {
            Duration::ZERO
        };
        let Some(recorded) = write_evidence(
            context,
            &self.attempt.entry,
            envelope,
            events,
            self.at,
            is_reported,
        )
        .await
        else {
            return restore(id, self.before, envelope);
        };
        // The acceptance is recorded now, unless evidence is off.
        if context.evidence.is_kept() {
            envelope.arrival = None;
        }
        match write_result(context, id, envelope, recorded).await {
            StateWrite::Done => {
                if has_owed {
                    let owed = sender_reports::owed_reports(
                        envelope,
                        self.attempt.entry.size,
                        self.schedule.settings,
                        wait,
                    );
                    // The channel is closed only when the process ends; owed reports are in the
                    // spool.
                    let _ = context.events.send(Event::ReportsOwed(id, owed));
                }
                self.remaining
            }
            StateWrite::Aborted => RemainingWork::NotStored,
        }
    }

    /// Marks the bounced recipients as failed and their reports as owed. A report of ours that was
    /// rejected for its content is stored again as plain text. Returns false when that fails; its
    /// recipients then stay as they were.
    async fn mark_failed(&mut self, context: &Context, envelope: &mut Envelope) -> bool {
        let failed = std::mem::take(&mut self.failed);
        let may_resend_as_text = envelope.report == Some(ReportForm::Full)
            && failed.iter().any(|change| change.is_of_content);
        let mut is_sent_as_text = false;
        if may_resend_as_text {
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
                    self.keep_in_queue(envelope, failed);
                    return false;
                }
            }
        }
        let Envelope {
            reverse_path,
            recipients,
            ..
        } = envelope;
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
        true
    }

    /// Keeps recipients that cannot bounce yet.
    fn keep_in_queue(&mut self, envelope: &mut Envelope, failed: Vec<ReportCandidate>) {
        let all = envelope.recipients.len();
        for ReportCandidate {
            recipient,
            attempts,
            mut history,
            last,
            ..
        } in failed
        {
            let Some(recipient) = envelope.recipients.get_mut(recipient) else {
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
        let soon = self.schedule.now + wait(&self.schedule.settings.config.queue.retry, 1);
        self.remaining = self.remaining.and(soon, self.schedule.expires.max(soon));
    }

    /// Marks the reports about delayed, held and relayed recipients as owed.
    fn mark_owed(&mut self, envelope: &mut Envelope) {
        for change in self
            .late
            .drain(..)
            .chain(self.held.drain(..))
            .chain(self.relayed.drain(..))
        {
            let Some(recipient) = envelope.recipients.get_mut(change.recipient) else {
                continue;
            };
            recipient.owed = Some(Box::new(change.last));
            if let RecipientState::Pending { warned, .. } = &mut recipient.state {
                *warned = true;
            }
        }
    }

    /// Stores the owed reports, unless they wait for reports about other recipients. Returns the
    /// wait before the next attempt to store them.
    async fn store_reports(&self, context: &Context, envelope: &mut Envelope) -> Duration {
        let queue = &self.schedule.settings.config.queue;
        if envelope.reverse_path.mailbox().is_none() {
            return Duration::ZERO;
        }
        let host = &self.attempt.host;
        let may_follow =
            |recipient: &Recipient| recipient.state.is_open() && recipient.mailbox.host() != host;
        if envelope.recipients.iter().any(may_follow) {
            return queue.dsn_gather;
        }
        let until = Timestamp::now()
            + self
                .schedule
                .expires
                .saturating_duration_since(self.schedule.now);
        let entry = &self.attempt.entry;
        match sender_reports::store(
            context,
            self.schedule.settings,
            entry,
            envelope,
            until,
            RateCheck::Needed,
        )
        .await
        {
            StoreResult::All | StoreResult::OverRate => Duration::ZERO,
            StoreResult::Failed => wait(&queue.retry, 1),
        }
    }
}

/// Restores the recipients after their result could not be stored because the process ends. The
/// result of another destination may still be stored, and must not include this one.
fn restore(id: QueueId, before: Vec<PreviousState>, envelope: &mut Envelope) -> RemainingWork {
    tracing::error!(queue_id = %id, "attempt result not stored because its evidence cannot be written; the attempt may be repeated after the restart");
    for PreviousState { at, state, owed } in before {
        if let Some(recipient) = envelope.recipients.get_mut(at) {
            (recipient.state, recipient.owed) = (state, owed);
        }
    }
    RemainingWork::NotStored
}

/// The result of a write into the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay::scheduler) enum StateWrite {
    Done,
    /// The process is ending.
    Aborted,
}

/// Stores the result of an attempt in the spool. Evidence of a recipient exists before the queue
/// drops it: `recorded` proves that.
async fn write_result(
    context: &Context,
    id: QueueId,
    envelope: &Envelope,
    _recorded: EvidenceRecorded,
) -> StateWrite {
    write_state(context, id, envelope).await
}

/// Stores the new state of a message, or removes it when it is finished. It retries until it
/// succeeds or the process ends: no other job may work on the message before that.
pub(in crate::relay::scheduler) async fn write_state(
    context: &Context,
    id: QueueId,
    envelope: &Envelope,
) -> StateWrite {
    loop {
        let written = if envelope.is_open() {
            context.spool.record(id, envelope.clone()).await
        } else {
            context.spool.remove(id).await
        };
        match written {
            // An operator removed the message.
            Ok(()) | Err(SpoolError::Missing(_)) => return StateWrite::Done,
            Err(SpoolError::Closed) => return StateWrite::Aborted,
            Err(error) => {
                if context.ending.is_cancelled() {
                    tracing::error!(queue_id = %id, %error, "attempt result not stored; the attempt may be repeated after the restart");
                    return StateWrite::Aborted;
                }
                tracing::error!(queue_id = %id, %error, "cannot store attempt result; retrying");
                let pause = tokio::time::timeout(WRITE_PAUSE, context.ending.cancelled());
                // Either way, try again; at shutdown for the last time.
                let _ = pause.await;
            }
        }
    }
}
