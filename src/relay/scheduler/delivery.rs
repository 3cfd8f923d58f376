//! The task of one job: loads the message, runs the attempt, and stores the result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::relay::outbound::{AttemptLimit, EventOrigin};
use crate::smtp::envelope::Envelope;
use crate::storage::spool::SpoolError;

use super::active_message::{ActiveMessage, LoadedMessage};
use super::attempt::{AttemptSlot, PlannedAttempt};
use super::context::{Context, Event};
use super::health::health;
use super::queues::{Item, Job};
use super::recipient_events::MessageSchedule;
use super::result::{self, RemainingWork};
use super::{attempt, damage, recipient_events, retry_schedule};

/// The wait before a message is retried that could not be read from the spool.
const SPOOL_PAUSE: Duration = Duration::from_mins(1);

/// An attempt that starts so shortly before its message expires may be the last one. It may end
/// after that time, or find the destination down, whose backoff is up to 15 minutes and a tenth.
const LAST: Duration = Duration::from_mins(30);

/// A guard of a running job. If the task panics, the guard queues the item again; otherwise the
/// message would wait in the spool until the next start.
struct JobGuard {
    context: Arc<Context>,
    item: Option<Item<LoadedMessage>>,
}

impl JobGuard {
    fn of(context: &Arc<Context>, item: &Item<LoadedMessage>) -> Self {
        let item = Item {
            host: item.host.clone(),
            user_connector: item.user_connector.clone(),
            loaded: None,
            ..*item
        };
        Self {
            context: Arc::clone(context),
            item: Some(item),
        }
    }

    fn finish(mut self, remaining: RemainingWork) {
        let Some(item) = self.item.take() else { return };
        let id = item.id();
        let remaining = match remaining {
            // After `NotStored` the next start or owner continues from the spool.
            RemainingWork::Nothing | RemainingWork::NotStored => None,
            RemainingWork::Retry { due, deadline } => Some((Item { deadline, ..item }, due)),
        };
        let _ = self.context.events.send(Event::Settled(id, remaining));
    }
}

impl Drop for JobGuard {
    fn drop(&mut self) {
        // A runtime that shuts down drops tasks too; the next start continues from the spool.
        let Some(item) = self.item.take().filter(|_| std::thread::panicking()) else {
            return;
        };
        tracing::error!(queue_id = %item.id(), "delivery task panicked, a bug in Gatepost; the message is retried later");
        let settings = self.context.running.load();
        let schedule = settings.schedule(&item.host, item.user_connector.as_deref());
        let due = Instant::now() + retry_schedule::wait(schedule.retry, 1);
        let _ = self
            .context
            .events
            .send(Event::Settled(item.id(), Some((item, due))));
    }
}

/// Runs a job to its end. `limit` is the time limit of the attempt.
pub(super) async fn work(
    context: Arc<Context>,
    message: Arc<ActiveMessage>,
    job: Job<LoadedMessage>,
    limit: AttemptLimit,
) {
    let (Job::Deliver(_, item) | Job::DeadlineReached(item, ..)) = &job;
    let guard = JobGuard::of(&context, item);
    let remaining = match job {
        Job::Deliver(token, item) => {
            let slot = AttemptSlot::new(&context, token, &item);
            deliver(&context, &message, &item, slot, &limit).await
        }
        Job::DeadlineReached(item, due, down) => match prepare(&context, &message, &item).await {
            Ok(Some(planned)) => {
                result::store_deadline(
                    &context,
                    &message,
                    &planned.attempt,
                    down,
                    due,
                    item.expires,
                )
                .await
            }
            Ok(None) => RemainingWork::Nothing,
            Err(remaining) => remaining,
        },
    };
    // Dropped before the event, so that the scheduler finds the last reference gone.
    drop(message);
    guard.finish(remaining);
}

async fn deliver(
    context: &Arc<Context>,
    message: &ActiveMessage,
    item: &Item<LoadedMessage>,
    slot: AttemptSlot,
    limit: &AttemptLimit,
) -> RemainingWork {
    let mut planned = match prepare(context, message, item).await {
        Ok(Some(planned)) => planned,
        Ok(None) => return RemainingWork::Nothing,
        Err(remaining) => return remaining,
    };
    planned.attempt.may_be_last = item.expires.saturating_duration_since(Instant::now()) < LAST;
    let report = attempt::run(context, &planned, limit).await;
    let settings = context.running.load();
    let schedule = MessageSchedule {
        settings: &settings,
        times: settings.schedule(&item.host, item.user_connector.as_deref()),
        now: Instant::now(),
        expires: item.expires,
    };
    let events = recipient_events::of_attempt(schedule, &planned, &report, EventOrigin::Attempt);
    slot.give_back(health(&events));
    context.outbound.observers().observe_recipients(&events);
    result::store_result(context, message, schedule, &events).await
}

/// Returns the attempt for an item, or `None` when no recipient of it is pending.
///
/// # Errors
/// The work that remains when the message could not be read.
async fn prepare(
    context: &Arc<Context>,
    message: &ActiveMessage,
    item: &Item<LoadedMessage>,
) -> Result<Option<PlannedAttempt>, RemainingWork> {
    let entry = match message.load(&*context.spool).await {
        Ok(entry) => Arc::clone(entry),
        // The spool has quarantined the content and logged it.
        Err(SpoolError::Damaged {
            remaining: Some(remaining),
            ..
        }) => {
            return damage::give_up(context, message, *remaining).await;
        }
        // The spool has quarantined the message and logged it, or an operator removed it.
        Err(
            SpoolError::Damaged {
                remaining: None, ..
            }
            | SpoolError::Missing(_),
        ) => return Ok(None),
        Err(error) => {
            tracing::error!(queue_id = %item.id(), %error, "cannot read message from the spool; retrying in a minute");
            let due = Instant::now() + SPOOL_PAUSE;
            return Err(RemainingWork::Retry {
                due,
                deadline: due.max(item.expires),
            });
        }
    };
    let current = message.envelope();
    let envelope: &Envelope = current.as_deref().unwrap_or(&entry.envelope);
    let planned = attempt::of_pending(&entry, envelope, &item.host);
    Ok((!planned.attempt.recipients.is_empty()).then_some(planned))
}
