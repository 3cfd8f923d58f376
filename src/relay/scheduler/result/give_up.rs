//! Bounces a message without an attempt: an operator gave it up, or its content was damaged.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::policy::failure::{Failure, RecipientOutcome};
use crate::relay::outbound::{AttemptResult, EventOrigin, RecipientResult};
use crate::relay::running_config::Snapshot;
use crate::relay::scheduler::active_message::ActiveMessage;
use crate::relay::scheduler::attempt::PlannedAttempt;
use crate::relay::scheduler::context::Context;
use crate::relay::scheduler::message_change::MessageChange;
use crate::relay::scheduler::recipient_events::MessageSchedule;
use crate::relay::scheduler::{attempt, recipient_events};
use crate::smtp::address::Host;
use crate::storage::spool::Entry;

use super::remaining::RemainingWork;
use super::store::{result_change, store_change};

/// Bounces every open recipient of a message for the same reason, in one write.
pub(in crate::relay::scheduler) async fn give_up(
    context: &Arc<Context>,
    message: &ActiveMessage,
    entry: &Arc<Entry>,
    failure: &Failure,
) -> RemainingWork {
    let current = message.envelope();
    let envelope = current.as_deref().unwrap_or(&entry.envelope);
    let mut hosts: Vec<&Host> = envelope
        .recipients
        .iter()
        .filter(|recipient| recipient.state.is_open())
        .map(|recipient| recipient.mailbox.host())
        .collect();
    let mut seen = HashSet::new();
    hosts.retain(|host| seen.insert(*host));
    let (settings, now) = (context.running.load(), Instant::now());
    let schedule_of = |times| MessageSchedule {
        settings: &settings,
        times,
        now,
        expires: now,
    };
    let mut all: Option<(MessageChange, RemainingWork)> = None;
    for host in hosts {
        let schedule = schedule_of(settings.schedule(host, envelope.connector.as_deref()));
        let planned = attempt::of_open(entry, envelope, host);
        let report = bounced(&planned, &settings, failure);
        let events =
            recipient_events::of_attempt(schedule, &planned, &report, EventOrigin::GivenUp);
        context.outbound.observers().observe_recipients(&events);
        let Some((change, remaining)) = result_change(context, message, schedule, &events).await
        else {
            return RemainingWork::NotStored;
        };
        all = Some(match all {
            None => (change, remaining),
            Some((earlier, others)) => (earlier.and(change), others.or(remaining)),
        });
    }
    match all {
        None => RemainingWork::Nothing,
        change => {
            let schedule = schedule_of(settings.config.queue.own_schedule());
            store_change(context, message, schedule, change).await
        }
    }
}

/// Returns the result of an attempt in which every recipient fails for this reason.
fn bounced(planned: &PlannedAttempt, settings: &Arc<Snapshot>, failure: &Failure) -> AttemptResult {
    let result = |at: &usize| RecipientResult {
        recipient: *at,
        outcome: RecipientOutcome::Bounced(failure.clone()),
        via: None,
        policy: None,
        trail: Vec::new(),
        apart: false,
    };
    AttemptResult {
        results: planned.attempt.recipients.iter().map(result).collect(),
        trail: Vec::new(),
        connector: planned.attempt.connector(&settings.connectors),
        snapshot: Arc::clone(settings),
    }
}
