//! Stores the result of an attempt, or of a deadline.

use std::sync::Arc;
use std::time::Instant;

use crate::relay::outbound::{Attempt, RecipientEvent};
use crate::relay::scheduler::active_message::ActiveMessage;
use crate::relay::scheduler::context::Context;
use crate::relay::scheduler::message_change::{MessageChange, Settled, StateWrite};
use crate::relay::scheduler::recipient_events::MessageSchedule;
use crate::relay::scheduler::retry_schedule::wait;
use crate::smtp::envelope::AttemptFailure;

use super::remaining::RemainingWork;
use super::settle::settle;
use super::writer::{AttemptRecipients, ResultWriter};

/// Stores the result of an attempt, from the events of its recipients; there is at least one. A
/// write that fails is retried. If the process ends first, the message is delivered again: it may
/// arrive twice, but is never lost.
pub(in crate::relay::scheduler) async fn store_result(
    context: &Arc<Context>,
    message: &ActiveMessage,
    schedule: MessageSchedule<'_>,
    events: &[RecipientEvent<'_>],
) -> RemainingWork {
    if events.is_empty() {
        return RemainingWork::Nothing;
    }
    let change = result_change(context, message, schedule, events).await;
    store_change(context, message, schedule, change).await
}

/// Returns the change that the result of an attempt makes to its message, and the work that remains
/// once it is stored; `None` when the process is ending, or without events.
pub(super) async fn result_change(
    context: &Arc<Context>,
    message: &ActiveMessage,
    schedule: MessageSchedule<'_>,
    events: &[RecipientEvent<'_>],
) -> Option<(MessageChange, RemainingWork)> {
    let first = events.first()?;
    let current = message.envelope();
    let envelope = current.as_deref().unwrap_or(&first.attempt.entry.envelope);
    let mut recipients = AttemptRecipients::of(first.attempt, envelope);
    let mut writer = ResultWriter::new(schedule, first.attempt, first.connector);
    for event in events {
        writer.add_result(&mut recipients, event);
    }
    writer.finish(context, envelope, recipients, events).await
}

/// Stores a change of a message. Returns the work that remains.
pub(super) async fn store_change(
    context: &Context,
    message: &ActiveMessage,
    schedule: MessageSchedule<'_>,
    change: Option<(MessageChange, RemainingWork)>,
) -> RemainingWork {
    let Some((change, remaining)) = change else {
        return RemainingWork::NotStored;
    };
    match settle(context, message, change).await {
        Some(Settled { state, .. }) => match (state, remaining) {
            (StateWrite::Done, _) | (StateWrite::Postponed, RemainingWork::Retry { .. }) => {
                remaining
            }
            (StateWrite::Postponed, _) => retry(schedule),
            (StateWrite::Aborted, _) => RemainingWork::NotStored,
        },
        // The job that stored it has panicked, which is in the log; the attempt is repeated.
        None => retry(schedule),
    }
}

/// Returns the work after a result that is not stored: another attempt, as after a first deferral.
fn retry(schedule: MessageSchedule<'_>) -> RemainingWork {
    let due = schedule.now + wait(schedule.times.retry, 1);
    RemainingWork::Retry {
        due,
        deadline: schedule.expires.max(due),
    }
}

/// Handles the deadline of a message that cannot be tried now: reports the delay to the sender, or
/// bounces an expired message. `down` is the reason of the destination's backoff, if it is in one.
pub(in crate::relay::scheduler) async fn store_deadline(
    context: &Arc<Context>,
    message: &ActiveMessage,
    attempt: &Attempt,
    down: Option<AttemptFailure>,
    due: Instant,
    expires: Instant,
) -> RemainingWork {
    let settings = context.running.load();
    let current = message.envelope();
    let envelope = current.as_deref().unwrap_or(&attempt.entry.envelope);
    let schedule = MessageSchedule {
        settings: &settings,
        times: settings.schedule(&attempt.host, attempt.user_connector()),
        now: Instant::now(),
        expires,
    };
    let connector = attempt.connector(&settings.connectors);
    let mut writer = ResultWriter::new(schedule, attempt, &connector);
    let add = |recipient: &usize| writer.add_deadline(envelope, *recipient, down.as_ref(), due);
    let events: Vec<_> = attempt.recipients.iter().filter_map(add).collect();
    context.outbound.observers().observe_recipients(&events);
    let recipients = AttemptRecipients::of(attempt, envelope);
    let change = writer.finish(context, envelope, recipients, &events).await;
    store_change(context, message, schedule, change).await
}
