//! Stores the result of an attempt, or of a deadline.

use std::sync::Arc;
use std::time::Instant;

use crate::relay::outbound::{Attempt, RecipientEvent};
use crate::relay::scheduler::active_message::ActiveMessage;
use crate::relay::scheduler::context::Context;
use crate::relay::scheduler::recipient_events::MessageSchedule;
use crate::smtp::envelope::AttemptFailure;

use super::remaining::RemainingWork;
use super::writer::ResultWriter;

/// Stores the result of an attempt, from the events of its recipients; there is at least one. A
/// write that fails is retried. If the process ends first, the message is delivered again: it may
/// arrive twice, but is never lost.
pub(in crate::relay::scheduler) async fn store_result(
    context: &Arc<Context>,
    message: &ActiveMessage,
    schedule: MessageSchedule<'_>,
    events: &[RecipientEvent<'_>],
) -> RemainingWork {
    let Some(first) = events.first() else {
        return RemainingWork::Nothing;
    };
    let mut state = message.envelope.lock().await;
    let envelope = state.get_or_insert_with(|| first.attempt.entry.envelope.clone());
    let mut writer = ResultWriter::new(schedule, first.attempt, first.connector, envelope);
    for event in events {
        writer.add_result(envelope, event);
    }
    writer.finish(context, envelope, events).await
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
    let mut state = message.envelope.lock().await;
    let envelope = state.get_or_insert_with(|| attempt.entry.envelope.clone());
    let schedule = MessageSchedule {
        settings: &settings,
        now: Instant::now(),
        expires,
    };
    let mut writer = ResultWriter::new(
        schedule,
        attempt,
        settings.connectors.for_host(&attempt.host),
        envelope,
    );
    let add = |recipient: &usize| writer.add_deadline(envelope, *recipient, down.as_ref(), due);
    let events: Vec<_> = attempt.recipients.iter().filter_map(add).collect();
    context.outbound.observers().observe_recipients(&events);
    writer.finish(context, envelope, &events).await
}
