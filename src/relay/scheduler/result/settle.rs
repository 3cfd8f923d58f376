//! Stores the changes of a message, gathered from its jobs: reports to the sender, evidence, and
//! the new state in the spool.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::relay::running_config::Snapshot;
use crate::relay::scheduler::active_message::ActiveMessage;
use crate::relay::scheduler::context::{Context, Event};
use crate::relay::scheduler::message_change::{
    MessageChange, ReportStep, Settled, StateWrite, StoreResult,
};
use crate::relay::scheduler::retry_schedule::wait;
use crate::smtp::address::Host;
use crate::smtp::envelope::{Envelope, Recipient};
use crate::storage::evidence::EvidenceRecord;
use crate::storage::spool::{Claim, Entry, SpoolError};

use super::dsn::{self as sender_reports, RateCheck, WrittenReport};
use super::evidence::{EvidenceRecorded, wait_for_evidence, write_evidence};

/// The pause between two writes of one message. Many jobs of one message that end one after the
/// other share a few writes. A crash meanwhile repeats their attempts, as one just before a write
/// does.
const PAUSE: Duration = Duration::from_millis(50);
/// The wait before a result is written again.
const WRITE_PAUSE: Duration = Duration::from_secs(5);

/// Stores a change of a message, together with those of its other jobs that come meanwhile. Returns
/// `None` when the job that stored it has panicked.
pub(in crate::relay::scheduler) async fn settle(
    context: &Context,
    message: &ActiveMessage,
    change: MessageChange,
) -> Option<Settled> {
    let entry = Arc::clone(&change.entry);
    let write = async |changes: Vec<MessageChange>| {
        let stored = store_changes(context, message, &entry, changes).await;
        let settled = stored.unwrap_or_else(|| {
            tracing::error!(queue_id = %message.id(), "attempt result not stored because its evidence cannot be written; the attempt may be repeated after the restart");
            Settled {
                state: StateWrite::Aborted,
                reports: StoreResult::All,
            }
        });
        (settled, PAUSE)
    };
    message.changes.settle(change, &context.ending, write).await
}

/// The changes of several jobs, made to an envelope.
struct AppliedChanges {
    /// The evidence, each record with its time.
    evidence: Vec<(Timestamp, EvidenceRecord)>,
    /// The time at which the message expires, if a report may be due.
    until: Option<Timestamp>,
    /// True if one of the changes is a result.
    has_result: bool,
    /// True if after one of the results the report has no other recipient to wait for.
    is_last: bool,
    /// True if the owed reports are due.
    is_due: bool,
}

impl AppliedChanges {
    /// Makes changes to an envelope, in their order.
    fn of(changes: Vec<MessageChange>, envelope: &mut Envelope) -> Self {
        let mut applied = Self {
            evidence: Vec::new(),
            until: None,
            has_result: false,
            is_last: false,
            is_due: false,
        };
        for change in changes {
            let (evidence, reports) = change.apply(envelope);
            applied.evidence.extend(evidence);
            match reports {
                ReportStep::AfterResult { hosts, until } => {
                    applied.has_result = true;
                    applied.is_last |= is_owed(envelope) && !may_follow(envelope, &hosts);
                    applied.until = applied.until.max(Some(until));
                }
                ReportStep::Due { until } => {
                    applied.is_due = true;
                    applied.until = applied.until.max(Some(until));
                }
                ReportStep::InDigest(_) => {}
            }
        }
        applied
    }
}

/// Returns true if the result of another recipient domain than these may cause another report.
fn may_follow(envelope: &Envelope, hosts: &[Host]) -> bool {
    let follows = |recipient: &Recipient| {
        recipient.state.is_open() && !hosts.contains(recipient.mailbox.host())
    };
    envelope.recipients.iter().any(follows)
}

/// Stores the evidence, and then or in the same transaction the new state, together with the reports that may be stored now.
/// Returns `None` when the evidence cannot be written and the process ends.
async fn store_changes(
    context: &Context,
    message: &ActiveMessage,
    entry: &Entry,
    changes: Vec<MessageChange>,
) -> Option<Settled> {
    let stored = message.envelope();
    let stored = stored.as_deref().unwrap_or(&entry.envelope);
    let mut envelope = stored.clone();
    let mut applied = AppliedChanges::of(changes, &mut envelope);
    let has_owed = is_owed(stored) || is_owed(&envelope);
    if has_owed && !wait_for_evidence(context).await {
        return None;
    }
    let settings = context.running.load();
    let mut reports = DueReports::none();
    if has_owed {
        reports = due_reports(context, &settings, entry, &mut envelope, &applied).await;
    }
    let evidence = std::mem::take(&mut applied.evidence);
    let recorded = write_evidence(context, entry, &mut envelope, evidence).await?;
    let states = (stored, &mut envelope);
    let state = write_result(context, message.claim, states, &mut reports, recorded).await;
    let DueReports { result, wait, .. } = reports;
    if state != StateWrite::Aborted {
        if context.evidence.is_kept() {
            context.acceptances.update(message.id(), stored, &envelope);
        }
        if has_owed && applied.has_result {
            let owed = sender_reports::owed_reports(&envelope, entry.size, &settings, wait);
            // The channel is closed only when the process ends; owed reports are in the spool.
            let _ = context.events.send(Event::ReportsOwed(message.claim, owed));
        }
        message.replace_envelope(envelope);
    }
    Some(Settled {
        state,
        reports: result,
    })
}

/// Returns true if the message owes a report.
fn is_owed(envelope: &Envelope) -> bool {
    envelope
        .recipients
        .iter()
        .any(|recipient| recipient.owed.is_some())
}

/// The reports that are stored with a state.
struct DueReports {
    written: Vec<WrittenReport>,
    result: StoreResult,
    /// The wait before the next attempt to store those that are still owed.
    wait: Duration,
}

impl DueReports {
    fn none() -> Self {
        Self {
            written: Vec::new(),
            result: StoreResult::All,
            wait: Duration::ZERO,
        }
    }
}

/// Writes the owed reports, unless they wait for reports about other recipients, and clears them
/// from the envelope.
async fn due_reports(
    context: &Context,
    settings: &Snapshot,
    entry: &Entry,
    envelope: &mut Envelope,
    applied: &AppliedChanges,
) -> DueReports {
    let mut reports = DueReports::none();
    let Some(until) = applied.until else {
        return reports;
    };
    if envelope.reverse_path.mailbox().is_none() {
        return reports;
    }
    let queue = &settings.config.queue;
    let rate_check = if applied.is_due {
        RateCheck::Done
    } else if applied.is_last {
        RateCheck::Needed
    } else {
        reports.wait = queue.dsn_gather;
        return reports;
    };
    let (written, result) =
        sender_reports::write(context, settings, entry, envelope, until, rate_check).await;
    DueReports {
        written,
        result,
        wait: match result {
            StoreResult::All | StoreResult::OverRate => Duration::ZERO,
            StoreResult::Failed => wait(&queue.retry, 1),
        },
    }
}

/// Returns an envelope with the recipients that have ended as in `envelope`, and the others as they
/// are stored; `stored` itself if none has ended.
fn ended(stored: &Envelope, envelope: &Envelope) -> Envelope {
    let mut ended = envelope.clone();
    for (recipient, before) in ended.recipients.iter_mut().zip(&stored.recipients) {
        if !recipient.has_ended() {
            before.clone_into(recipient);
        }
    }
    if ended.recipients == stored.recipients {
        stored.clone()
    } else {
        ended
    }
}

/// Stores the new state of a message with its reports, or removes it when it is finished. `stored`
/// is its state in the spool, and `envelope` is so afterwards. Reports for which there is no room stay
/// owed. If there is none for a state either, the recipients that have ended are stored alone: nobody
/// waits for the others. It retries until it succeeds or the process ends: no other job may change the
/// message before that. Evidence of a recipient exists before the queue drops it, or is stored in the
/// same transaction: `recorded` proves that.
async fn write_result(
    context: &Context,
    claim: Claim,
    (stored, envelope): (&Envelope, &mut Envelope),
    reports: &mut DueReports,
    recorded: EvidenceRecorded,
) -> StateWrite {
    let id = claim.id();
    let (mut done, mut waiting, mut stuck) = (StateWrite::Done, None, None);
    loop {
        let written = std::mem::take(&mut reports.written);
        let (drafts, about): (Vec<_>, Vec<_>) =
            written.into_iter().map(WrittenReport::split).unzip();
        let has_changed = !drafts.is_empty() || envelope != stored || !stored.is_open();
        if !has_changed && recorded.is_complete() {
            return done;
        }
        let after = envelope.is_open().then_some(&*envelope);
        let settled = recorded.settle(context, claim, stored, after, drafts);
        match settled.await {
            Ok(entries) => {
                for ((_, entry), about) in entries.into_iter().zip(about) {
                    about.queue(context, id, entry);
                }
                return done;
            }
            // An operator removed the message.
            Err(SpoolError::Missing(_)) => {
                recorded.write_delivered(context).await;
                return StateWrite::Done;
            }
            Err(SpoolError::Closed) => return StateWrite::Aborted,
            // While the lease is over, the result waits for it to hold again, as for room on a disk.
            Err(SpoolError::OfAnother(reason)) if about.is_empty() => {
                tracing::error!(queue_id = %id, reason, "attempt result not stored, the message is not this relay's any more; its next owner may deliver it again");
                // The channel is closed only when the process ends.
                let _ = context.events.send(Event::NotOwner(id));
                recorded.write_delivered(context).await;
                return StateWrite::Aborted;
            }
            Err(error) if !about.is_empty() => {
                tracing::error!(queue_id = %id, %error, "cannot store report to the sender; retrying");
                let settings = context.running.load();
                let queue = &settings.config.queue;
                for about in about {
                    about.owe(envelope, id, queue.expire);
                }
                (reports.result, reports.wait) = (StoreResult::Failed, wait(&queue.retry, 1));
            }
            Err(SpoolError::Full(_)) if *envelope != ended(stored, envelope) => {
                *envelope = ended(stored, envelope);
                done = StateWrite::Postponed;
            }
            Err(error) => {
                if context.ending.is_cancelled() {
                    tracing::error!(queue_id = %id, %error, "attempt result not stored; the attempt may be repeated after the restart");
                    return StateWrite::Aborted;
                }
                waiting.get_or_insert_with(|| context.waiting_results.begin(id, &error));
                if !recorded.is_complete() {
                    stuck.get_or_insert_with(|| context.evidence.wait_joined());
                }
                let pause = tokio::time::timeout(WRITE_PAUSE, context.ending.cancelled());
                // Either way, try again; at shutdown for the last time.
                let _ = pause.await;
            }
        }
    }
}
