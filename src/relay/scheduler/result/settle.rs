//! Stores the changes of a message, gathered from its jobs: reports to the sender, evidence, and
//! the new state in the spool.

use std::io::{self, Write};
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
use crate::smtp::envelope::{Envelope, QueueId, Recipient};
use crate::storage::evidence::EvidenceRecord;
use crate::storage::spool::{Entry, SpoolError};

use super::dsn::{self as sender_reports, RateCheck};
use super::evidence::{EvidenceRecorded, wait_for_evidence, write_evidence};

/// The pause after a write of an envelope of at most [`PAUSE_UNIT`], for each such part of it, and
/// at most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_UNIT: usize = 64 * 1024;
const PAUSE_MAX: Duration = Duration::from_millis(250);
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
            tracing::error!(queue_id = %message.id, "attempt result not stored because its evidence cannot be written; the attempt may be repeated after the restart");
            Settled {
                state: StateWrite::Aborted,
                reports: StoreResult::All,
            }
        });
        let octets = message
            .envelope()
            .map_or(0, |envelope| envelope_octets(&envelope));
        (settled, pause_after(octets))
    };
    message.changes.settle(change, &context.ending, write).await
}

/// Returns the pause after a write of an envelope of so many octets. Many jobs of one message that
/// end one after the other share a few writes, and the larger the envelope, the fewer. A crash
/// meanwhile repeats their attempts, as one just before a write does.
fn pause_after(octets: usize) -> Duration {
    let units = u32::try_from(octets.div_ceil(PAUSE_UNIT)).unwrap_or(u32::MAX);
    PAUSE.saturating_mul(units.max(1)).min(PAUSE_MAX)
}

/// Returns the size of the stored form of an envelope in octets; 0 when nothing of it is stored any
/// more, or for a single recipient, whose next result is far.
fn envelope_octets(envelope: &Envelope) -> usize {
    let mut counter = OctetCounter(0);
    if envelope.recipients.len() > 1 && envelope.is_open() {
        // Neither counting nor writing an envelope can fail.
        let _ = serde_json::to_writer(&mut counter, envelope);
    }
    counter.0
}

/// A writer that counts octets.
struct OctetCounter(usize);

impl Write for OctetCounter {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0 += octets.len();
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

/// Stores the reports that may be stored now, then the evidence, then the new state with the
/// reports still owed. Returns `None` when the evidence cannot be written and the process ends.
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
    let (reports, wait) = if has_owed {
        store_reports(context, &settings, entry, &mut envelope, &applied).await
    } else {
        (StoreResult::All, Duration::ZERO)
    };
    let evidence = std::mem::take(&mut applied.evidence);
    let recorded = write_evidence(context, entry, &mut envelope, evidence).await?;
    let state = write_result(context, entry.id, &envelope, recorded).await;
    if state == StateWrite::Done {
        if has_owed && applied.has_result {
            let owed = sender_reports::owed_reports(&envelope, entry.size, &settings, wait);
            // The channel is closed only when the process ends; owed reports are in the spool.
            let _ = context.events.send(Event::ReportsOwed(entry.id, owed));
        }
        message.replace_envelope(envelope);
    }
    Some(Settled { state, reports })
}

/// Returns true if the message owes a report.
fn is_owed(envelope: &Envelope) -> bool {
    envelope
        .recipients
        .iter()
        .any(|recipient| recipient.owed.is_some())
}

/// Stores the owed reports, unless they wait for reports about other recipients. Returns the wait
/// before the next attempt to store them, too.
async fn store_reports(
    context: &Context,
    settings: &Snapshot,
    entry: &Entry,
    envelope: &mut Envelope,
    applied: &AppliedChanges,
) -> (StoreResult, Duration) {
    let Some(until) = applied.until else {
        return (StoreResult::All, Duration::ZERO);
    };
    if envelope.reverse_path.mailbox().is_none() {
        return (StoreResult::All, Duration::ZERO);
    }
    let queue = &settings.config.queue;
    let rate_check = if applied.is_due {
        RateCheck::Done
    } else if applied.is_last {
        RateCheck::Needed
    } else {
        return (StoreResult::All, queue.dsn_gather);
    };
    let stored = sender_reports::store(context, settings, entry, envelope, until, rate_check).await;
    let wait = match stored {
        StoreResult::All | StoreResult::OverRate => Duration::ZERO,
        StoreResult::Failed => wait(&queue.retry, 1),
    };
    (stored, wait)
}

/// Stores the new state of a message, or removes it when it is finished. It retries until it
/// succeeds or the process ends: no other job may change the message before that. Evidence of a
/// recipient exists before the queue drops it: `_recorded` proves that.
async fn write_result(
    context: &Context,
    id: QueueId,
    envelope: &Envelope,
    _recorded: EvidenceRecorded,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::{Mailbox, ReversePath};
    use crate::smtp::envelope::RecipientState;

    #[test]
    fn a_large_envelope_is_written_less_often() {
        for (octets, millis) in [
            (0, 50),
            (100, 50),
            (64 * 1024, 50),
            (64 * 1024 + 1, 100),
            (200_000, 200),
            (10_000_000, 250),
            (usize::MAX, 250),
        ] {
            assert_eq!(pause_after(octets), Duration::from_millis(millis));
        }
    }

    #[test]
    fn the_size_of_an_envelope_is_that_of_its_stored_form() {
        let recipient = Recipient::new(Mailbox::parse("b@example.net").expect("valid"));
        let sender = ReversePath::parse("a@example.org").expect("valid");
        let mut envelope = Envelope::new(sender, vec![recipient; 50]);
        let stored = serde_json::to_string(&envelope).expect("serialises");
        assert_eq!(envelope_octets(&envelope), stored.len());
        for recipient in &mut envelope.recipients {
            recipient.state = RecipientState::Delivered;
        }
        assert_eq!(envelope_octets(&envelope), 0, "it is removed");
    }
}
