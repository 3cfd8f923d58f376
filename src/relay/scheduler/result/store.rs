//! Stores the result of an attempt, or of a deadline.

use std::sync::Arc;
use std::time::Instant;

use crate::relay::outbound::{Attempt, AttemptResult};
use crate::relay::scheduler::active_message::ActiveMessage;
use crate::relay::scheduler::context::Context;
use crate::smtp::envelope::AttemptFailure;

use super::remaining::RemainingWork;
use super::writer::ResultWriter;

/// Stores the result of an attempt. A write that fails is retried. If the process ends first, the
/// message is delivered again: it may arrive twice, but is never lost.
pub(in crate::relay::scheduler) async fn store_result(
    context: &Arc<Context>,
    message: &ActiveMessage,
    attempt: &Attempt,
    report: &AttemptResult,
    expires: Instant,
) -> RemainingWork {
    let settings = context.running.load();
    let mut state = message.envelope.lock().await;
    let envelope = state.get_or_insert_with(|| attempt.entry.envelope.clone());
    let mut writer = ResultWriter::new(&settings, attempt, Some(report), expires, envelope);
    for result in &report.results {
        writer.add_result(envelope, result);
    }
    writer.finish(context, envelope).await
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
    let mut writer = ResultWriter::new(&settings, attempt, None, expires, envelope);
    for recipient in &attempt.recipients {
        writer.add_deadline(envelope, *recipient, down.as_ref(), due);
    }
    writer.finish(context, envelope).await
}
