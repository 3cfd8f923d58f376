//! Bounces a message without an attempt: an operator gave it up, or its content was damaged.

use std::sync::Arc;
use std::time::Instant;

use crate::policy::failure::{Failure, RecipientOutcome};
use crate::relay::outbound::{AttemptResult, EventOrigin, RecipientResult};
use crate::relay::scheduler::active_message::ActiveMessage;
use crate::relay::scheduler::context::Context;
use crate::relay::scheduler::recipient_events::MessageSchedule;
use crate::relay::scheduler::{attempt, recipient_events};
use crate::storage::spool::Entry;

use super::remaining::RemainingWork;
use super::store::store_result;

/// Bounces every open recipient of a message for the same reason, one recipient domain after the
/// other.
pub(in crate::relay::scheduler) async fn give_up(
    context: &Arc<Context>,
    message: &ActiveMessage,
    entry: &Arc<Entry>,
    failure: &Failure,
) -> RemainingWork {
    let mut hosts = Vec::new();
    let envelope = message
        .envelope
        .lock()
        .await
        .clone()
        .unwrap_or_else(|| entry.envelope.clone());
    for recipient in envelope
        .recipients
        .iter()
        .filter(|recipient| recipient.state.is_open())
    {
        if !hosts.contains(recipient.mailbox.host()) {
            hosts.push(recipient.mailbox.host().clone());
        }
    }
    let mut remaining = RemainingWork::Nothing;
    for host in hosts {
        let settings = context.running.load();
        let planned = attempt::of_open(entry, &envelope, &host);
        let result = |at: &usize| RecipientResult {
            recipient: *at,
            outcome: RecipientOutcome::Bounced(failure.clone()),
            via: None,
            policy: None,
            trail: Vec::new(),
            apart: false,
        };
        let results = planned.attempt.recipients.iter().map(result).collect();
        let connector = Arc::clone(settings.connectors.for_host(&host));
        let report = AttemptResult {
            results,
            trail: Vec::new(),
            connector,
            snapshot: Arc::clone(&settings),
        };
        let now = Instant::now();
        let schedule = MessageSchedule {
            settings: &settings,
            now,
            expires: now,
        };
        let events =
            recipient_events::of_attempt(schedule, &planned, &report, EventOrigin::GivenUp);
        context.outbound.observers().observe_recipients(&events);
        match store_result(context, message, schedule, &events).await {
            RemainingWork::Nothing => {}
            until @ RemainingWork::Retry { .. } => remaining = until,
            RemainingWork::NotStored => return RemainingWork::NotStored,
        }
    }
    remaining
}
