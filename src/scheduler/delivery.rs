//! One job of one lane: load the message, hand it to [`crate::outbound`], settle the result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::envelope::Envelope;
use crate::outbound::{Attempt, Report};
use crate::outcome::{Outcome, Persistence, Scope};
use crate::spool::{Entry, SpoolError};

use super::lanes::{Health, Item, Job, LaneId};
use super::settle::{self, Left};
use super::{Cargo, Context, Event, Live};

/// When the spool cannot be read, the message is tried again after this long.
const SPOOL_PAUSE: Duration = Duration::from_mins(1);

/// The place of an attempt in its lane. It is given back whatever becomes of the attempt.
struct Slot {
    context: Arc<Context>,
    lane: Option<LaneId>,
}

impl Slot {
    fn give_back(mut self, health: Health) {
        self.tell(health);
    }

    fn tell(&mut self, health: Health) {
        if let Some(lane) = self.lane.take() {
            // The scheduler is gone only when the process is about to be.
            let _ = self.context.events.send(Event::Finished(lane, health));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.tell(Health::Up);
    }
}

/// Does a job from beginning to end.
pub(super) async fn work(context: Arc<Context>, live: Arc<Live>, job: Job<Cargo>) {
    let (item, left) = match job {
        Job::Deliver(lane, item) => {
            let slot = Slot { context: Arc::clone(&context), lane: Some(lane) };
            let left = deliver(&context, &live, &item, slot).await;
            (item, left)
        }
        Job::Aged(item, due, down) => {
            let left = match prepare(&context, &live, &item).await {
                Ok(Some(attempt)) => settle::age(&context, &live, &attempt, down, due, item.expires).await,
                Ok(None) => Left::Nothing,
                Err(left) => left,
            };
            (item, left)
        }
    };
    let Item { id, host, expires, cargo, .. } = item;
    drop((live, cargo));
    let left = match left {
        Left::Nothing => None,
        Left::Until { due, deadline } => Some((Item { id, host, deadline, expires, cargo: None }, due)),
    };
    let _ = context.events.send(Event::Settled(id, left));
}

async fn deliver(context: &Arc<Context>, live: &Live, item: &Item<Cargo>, slot: Slot) -> Left {
    let attempt = match prepare(context, live, item).await {
        Ok(Some(attempt)) => attempt,
        Ok(None) => return Left::Nothing,
        Err(left) => return left,
    };
    let report = context.outbound.deliver(attempt.clone()).await;
    slot.give_back(health(&report));
    (context.observer)(&attempt, &report);
    settle::settle(context, live, &attempt, &report, item.expires).await
}

/// The attempt for an item: `None` where nothing is left to do, an error where the spool failed.
async fn prepare(context: &Context, live: &Live, item: &Item<Cargo>) -> Result<Option<Attempt>, Left> {
    let entry = match live.entry.get_or_try_init(|| load(context, live)).await {
        Ok(entry) => Arc::clone(entry),
        // The spool has set it aside and said so, or an operator removed it.
        Err(SpoolError::Damaged { .. } | SpoolError::Missing(_)) => return Ok(None),
        Err(error) => {
            tracing::error!(queue_id = %item.id, %error, "a message could not be read from the spool; it is tried again in a minute");
            let due = Instant::now() + SPOOL_PAUSE;
            return Err(Left::Until { due, deadline: due.max(item.expires) });
        }
    };
    let state = live.envelope.lock().await;
    let envelope: &Envelope = state.as_ref().unwrap_or(&entry.envelope);
    let settings = context.settings.load();
    let attempt = super::orders::attempt(&settings.connectors, &entry, envelope, &item.host);
    Ok((!attempt.recipients.is_empty()).then_some(attempt))
}

async fn load(context: &Context, live: &Live) -> Result<Arc<Entry>, SpoolError> {
    context.spool.load(live.id).await.map(Arc::new)
}

/// Whether the destination as a whole could be used: it is down where no recipient's fate was decided
/// on a session, and nothing that was said concerned this message alone.
fn health(report: &Report) -> Health {
    let mut last = None;
    for result in &report.results {
        match (&result.outcome, &result.via) {
            (Outcome::Deferred(failure), None) if matches!(failure.scope, Scope::Hop | Scope::Destination) => {
                last = Some(failure);
            }
            _ => return Health::Up,
        }
    }
    last.map_or(Health::Up, |failure| Health::Down(settle::trouble(failure, &report.trail, Persistence::Transient)))
}
