//! What an operator does to the queue: try now, hold, release, remove, bounce.
//!
//! An order names messages by their ids; which those are was decided by who gives it. A message that is
//! being delivered at the moment is not touched: its fate is about to be known.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::connector::Connectors;
use crate::envelope::{Envelope, QueueId, RecipientState};
use crate::outbound::{Attempt, RecipientResult, Report};
use crate::outcome::{Failure, Outcome, Scope};
use crate::smtp::reply::Status;
use crate::spool::{SpoolError, Stored};

use super::{Context, Event, Live, destinations, settle};

/// Orders that may wait for the scheduler.
const WAITING_MAX: usize = 16;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Forget every wait, the destination's included, and dial now.
    Retry,
    /// Keep the message, and try nothing until it is released.
    Hold,
    /// End a hold.
    Release,
    /// Delete the message; nobody is told.
    Remove,
    /// Give the message up; its sender is told.
    Bounce,
}

/// Why an order was not carried out on a message.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// An attempt is under way.
    #[error("it is being delivered at this moment; look again in a minute")]
    Busy,
    /// Nothing of it waits for what the order ends.
    #[error("{0}")]
    Pointless(&'static str),
    /// The spool.
    #[error("{0}")]
    Spool(#[from] SpoolError),
    /// The scheduler is ending.
    #[error("the daemon is stopping")]
    Stopping,
}

/// What became of an order for one message.
pub type Answer = (QueueId, Result<(), Refused>);

/// Gives orders to a running scheduler.
#[derive(Debug, Clone)]
pub struct Operator(mpsc::Sender<Request>);

/// An order on its way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) order: Order,
    pub(super) ids: Vec<QueueId>,
    pub(super) answer: oneshot::Sender<Vec<Answer>>,
}

pub(super) fn channel() -> (Operator, mpsc::Receiver<Request>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Operator(sender), receiver)
}

impl Operator {
    /// Carries an order out, and tells what became of it, message by message.
    pub async fn order(&self, order: Order, ids: Vec<QueueId>) -> Vec<Answer> {
        let stopping = |ids: Vec<QueueId>| ids.into_iter().map(|id| (id, Err(Refused::Stopping))).collect();
        let (answer, answered) = oneshot::channel();
        let request = Request { order, ids: ids.clone(), answer };
        if self.0.send(request).await.is_err() {
            return stopping(ids);
        }
        answered.await.unwrap_or_else(|_| stopping(ids))
    }
}

impl super::Scheduler {
    pub(super) fn take_order(&mut self, request: Request) {
        let Request { order, ids, answer } = request;
        let busy = |id: &QueueId| self.active.contains_key(id);
        let (busy, free): (Vec<_>, Vec<_>) = ids.into_iter().partition(busy);
        let mut answers: Vec<Answer> = busy.into_iter().map(|id| (id, Err(Refused::Busy))).collect();
        let wanted: HashSet<QueueId> = free.iter().copied().collect();
        let items = match order {
            Order::Release => Vec::new(),
            Order::Retry | Order::Hold | Order::Remove | Order::Bounce => self.lanes.take(&wanted),
        };
        if order == Order::Retry {
            let now = Instant::now();
            let waiting: HashSet<QueueId> = items.iter().map(|(item, _)| item.id).collect();
            for (item, _) in items {
                let destination = self.destination(&item.host);
                self.enqueue(item, now);
                self.lanes.revive(&destination);
            }
            let pointless = || Refused::Pointless("nothing of it waits for delivery; is it held?");
            answers.extend(free.into_iter().map(|id| (id, waiting.contains(&id).then_some(()).ok_or_else(pointless))));
            // The asker may have gone away.
            let _ = answer.send(answers);
            return;
        }
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            for id in free {
                answers.push((id, carry_out(&context, order, id).await));
            }
            // Where an order failed, what it had taken out of the queue goes back.
            for (item, due) in items {
                let failed = answers.iter().any(|(id, result)| *id == item.id && result.is_err());
                if failed {
                    let _ = context.events.send(Event::Settled(item.id, Some((item, due))));
                }
            }
            let _ = answer.send(answers);
        });
    }
}

async fn carry_out(context: &Arc<Context>, order: Order, id: QueueId) -> Result<(), Refused> {
    match order {
        Order::Remove => {
            context.spool.remove(id).await?;
            tracing::warn!(queue_id = %id, "message removed by an operator");
        }
        Order::Hold => {
            change(context, id, "nothing of it waits for delivery", |state| match state {
                RecipientState::Pending { attempts, history, .. } => {
                    Some(RecipientState::Held { attempts: *attempts, history: history.clone() })
                }
                RecipientState::Held { .. } | RecipientState::Delivered | RecipientState::Failed => None,
            })
            .await?;
            tracing::info!(queue_id = %id, "message held by an operator");
        }
        Order::Release => {
            let stored = change(context, id, "it is not held", |state| match state {
                RecipientState::Held { attempts, history } => Some(RecipientState::Pending {
                    attempts: *attempts,
                    next: None,
                    history: history.clone(),
                    warned: true,
                }),
                RecipientState::Pending { .. } | RecipientState::Delivered | RecipientState::Failed => None,
            })
            .await?;
            tracing::info!(queue_id = %id, "message released by an operator");
            let _ = context.events.send(Event::Released(Box::new(stored)));
        }
        Order::Bounce => {
            bounce(context, id).await?;
            tracing::warn!(queue_id = %id, "message bounced by an operator");
        }
        // Carried out by the scheduler itself, which alone knows the waits.
        Order::Retry => {}
    }
    Ok(())
}

/// Changes the state of every recipient that `new` has another one for, and records it.
async fn change(
    context: &Context,
    id: QueueId,
    pointless: &'static str,
    new: impl Fn(&RecipientState) -> Option<RecipientState>,
) -> Result<Stored, Refused> {
    let entry = context.spool.load(id).await?;
    let mut envelope = entry.envelope;
    let mut changed = false;
    for recipient in &mut envelope.recipients {
        if let Some(state) = new(&recipient.state) {
            recipient.state = state;
            changed = true;
        }
    }
    if !changed {
        return Err(Refused::Pointless(pointless));
    }
    context.spool.record(id, envelope.clone()).await?;
    Ok(Stored { id, accepted: entry.accepted, envelope, size: entry.size })
}

/// Gives up every recipient whose fate is open, as if each had been refused for good.
async fn bounce(context: &Arc<Context>, id: QueueId) -> Result<(), Refused> {
    let mut entry = context.spool.load(id).await?;
    for recipient in &mut entry.envelope.recipients {
        if let RecipientState::Held { attempts, history } = &recipient.state {
            let (attempts, history) = (*attempts, history.clone());
            recipient.state = RecipientState::Pending { attempts, next: None, history, warned: true };
        }
    }
    let entry = Arc::new(entry);
    let live = Live::new(id, OnceCell::new_with(Some(Arc::clone(&entry))), 0, context);
    for waiting in destinations(&entry.envelope) {
        let attempt = attempt(&context.settings.load().connectors, &entry, &entry.envelope, &waiting.host);
        let failure = Failure::permanent(Scope::Message, Status(3, 0), "given up by the administrator of the relay");
        let result =
            |at: &usize| RecipientResult { recipient: *at, outcome: Outcome::Bounced(failure.clone()), via: None };
        let report = Report { results: attempt.recipients.iter().map(result).collect(), trail: Vec::new() };
        settle::settle(context, &live, &attempt, &report, Instant::now()).await;
    }
    Ok(())
}

/// The attempt that would serve one recipient domain of a message.
pub(super) fn attempt(
    connectors: &Connectors,
    entry: &Arc<crate::spool::Entry>,
    envelope: &Envelope,
    host: &crate::address::Host,
) -> Attempt {
    let mine = |(at, recipient): (usize, &crate::envelope::Recipient)| {
        (recipient.state.is_pending() && recipient.mailbox.host() == host).then_some(at)
    };
    let recipients = envelope.recipients.iter().enumerate().filter_map(mine).collect();
    let connector = Arc::clone(connectors.for_host(host));
    Attempt { entry: Arc::clone(entry), recipients, host: host.clone(), connector }
}
