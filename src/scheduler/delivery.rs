//! One job of one lane: load the message, hand it to [`crate::outbound`], settle the result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::envelope::Envelope;
use crate::outbound::{Attempt, Report};
use crate::outcome::{Outcome, Persistence, Scope};
use crate::spool::{Entry, SpoolError};

use super::lanes::{Health, Item, Job, Ticket};
use super::settle::{self, Left};
use super::{Cargo, Context, Event, Live, waits};

/// When the spool cannot be read, the message is tried again after this long.
const SPOOL_PAUSE: Duration = Duration::from_mins(1);

/// An attempt that begins so shortly before its message expires may be the last: it may end afterwards, or find a
/// destination down, which is then left alone for up to a quarter of an hour and a tenth more.
const LAST: Duration = Duration::from_mins(30);

/// The place of an attempt in its lane. It is given back whatever becomes of the attempt.
struct Slot {
    context: Arc<Context>,
    ticket: Option<Ticket>,
}

impl Slot {
    fn give_back(mut self, health: Health) {
        self.tell(health);
    }

    fn tell(&mut self, health: Health) {
        if let Some(ticket) = self.ticket.take() {
            // The scheduler is gone only when the process is about to be.
            let _ = self.context.events.send(Event::Finished(ticket, health));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.tell(Health::Unknown);
    }
}

/// A job in hand. Should the work on it die, it is done again later: the spool has the message, but only
/// the next start would look there.
struct Charge {
    context: Arc<Context>,
    item: Option<Item<Cargo>>,
}

impl Charge {
    fn of(context: &Arc<Context>, item: &Item<Cargo>) -> Self {
        let item = Item { host: item.host.clone(), cargo: None, ..*item };
        Self { context: Arc::clone(context), item: Some(item) }
    }

    fn settled(mut self, left: Left) {
        let Some(item) = self.item.take() else { return };
        let id = item.id;
        let left = match left {
            // What is not written down the next start finds in the spool.
            Left::Nothing | Left::Unwritten => None,
            Left::Until { due, deadline } => Some((Item { deadline, ..item }, due)),
        };
        let _ = self.context.events.send(Event::Settled(id, left));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // A runtime that ends drops its work half way, too: then the next start does it.
        let Some(item) = self.item.take().filter(|_| std::thread::panicking()) else { return };
        tracing::error!(queue_id = %item.id, "the work on a message died, and is done again later");
        let due = Instant::now() + waits::wait(&self.context.settings.load().config.queue.retry, 1);
        let _ = self.context.events.send(Event::Settled(item.id, Some((item, due))));
    }
}

/// Does a job from beginning to end.
pub(super) async fn work(context: Arc<Context>, live: Arc<Live>, job: Job<Cargo>) {
    let (Job::Deliver(_, item) | Job::Aged(item, ..)) = &job;
    let charge = Charge::of(&context, item);
    let left = match job {
        Job::Deliver(ticket, item) => {
            let slot = Slot { context: Arc::clone(&context), ticket: Some(ticket) };
            deliver(&context, &live, &item, slot).await
        }
        Job::Aged(item, due, down) => match prepare(&context, &live, &item).await {
            Ok(Some(attempt)) => settle::age(&context, &live, &attempt, down, due, item.expires).await,
            Ok(None) => Left::Nothing,
            Err(left) => left,
        },
    };
    // Nobody else holds it any more when the scheduler hears of this.
    drop(live);
    charge.settled(left);
}

async fn deliver(context: &Arc<Context>, live: &Live, item: &Item<Cargo>, slot: Slot) -> Left {
    let mut attempt = match prepare(context, live, item).await {
        Ok(Some(attempt)) => attempt,
        Ok(None) => return Left::Nothing,
        Err(left) => return left,
    };
    attempt.may_be_last = item.expires.saturating_duration_since(Instant::now()) < LAST;
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

/// Whether the destination as a whole could be used: not where no recipient's fate was decided, and
/// nothing that was said concerned this message alone.
fn health(report: &Report) -> Health {
    let mut last = None;
    let mut spoken = false;
    for result in &report.results {
        match &result.outcome {
            Outcome::Deferred(failure)
                if matches!(failure.scope, Scope::Hop | Scope::Destination) && !failure.is_unpromised() =>
            {
                last = Some((failure, &result.trail));
                spoken |= result.via.is_some();
            }
            Outcome::Deferred(_) | Outcome::Delivered(_) | Outcome::Held(_) | Outcome::Bounced(_) => return Health::Up,
        }
    }
    let Some((failure, trail)) = last else { return Health::Unknown };
    let trouble = settle::trouble(failure, trail, Persistence::Transient);
    if spoken { Health::Shaken(trouble) } else { Health::Down(trouble) }
}
