//! Carries out an order on one message: hold, release, remove, bounce.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::policy::failure::{Failure, Scope};
use crate::relay::scheduler::active_message::{ActiveMessage, LoadedMessage};
use crate::relay::scheduler::context::{AfterOrder, Context, Event};
use crate::relay::scheduler::queues::Item;
use crate::relay::scheduler::result::{self, RemainingWork};
use crate::smtp::envelope::{QueueId, RecipientState};
use crate::smtp::reply::Status;
use crate::storage::spool::{SpoolError, StoredMessage};

use super::order::{Order, OrderOutcome, OrderRefused};

/// The wait before the state of a message is read again.
const READ_PAUSE: Duration = Duration::from_secs(5);

/// Queues a message again from the spool after the task of an order panicked. Only the spool has
/// its true state.
pub(super) async fn requeue_from_spool(context: &Context, id: QueueId) {
    tracing::error!(queue_id = %id, "operator's order panicked, a bug in Gatepost; resuming the message from the spool");
    let remaining = loop {
        match stored(context, id).await {
            Ok(Some(stored)) => break AfterOrder::Requeue(Box::new(stored)),
            Ok(None) | Err(SpoolError::Closed) => break AfterOrder::Nothing,
            Err(error) => {
                tracing::error!(queue_id = %id, %error, "cannot read message from the spool; retrying");
                let pause = tokio::time::timeout(READ_PAUSE, context.ending.cancelled());
                // At shutdown: the next start resumes it.
                if pause.await.is_ok() {
                    break AfterOrder::Nothing;
                }
            }
        }
    };
    let _ = context.events.send(Event::Ordered(id, remaining));
}

/// Returns a message as stored in the spool, without its content.
async fn stored(context: &Context, id: QueueId) -> Result<Option<StoredMessage>, SpoolError> {
    let before = id.number().checked_sub(1).and_then(QueueId::from_number);
    Ok(context
        .spool
        .scan(before, 1)
        .await?
        .into_iter()
        .next()
        .filter(|stored| stored.id == id))
}

/// Returns true for a message that was just accepted and is not in the queue yet. The scheduler
/// would then queue the accepted state and ignore the order. `items` are its waiting items.
async fn is_not_queued_yet(
    context: &Context,
    id: QueueId,
    items: &[(Item<LoadedMessage>, Instant)],
) -> Result<bool, SpoolError> {
    if !items.is_empty() {
        return Ok(false);
    }
    let stored = stored(context, id).await?;
    Ok(stored.is_some_and(|stored| {
        stored
            .envelope
            .recipients
            .iter()
            .any(|recipient| recipient.state.is_pending())
    }))
}

/// Carries out an order on one message with these waiting items, and reports the end to the
/// scheduler.
pub(super) async fn run_order(
    context: Arc<Context>,
    order: Order,
    id: QueueId,
    items: Vec<(Item<LoadedMessage>, Instant)>,
) -> OrderOutcome {
    let carried = match is_not_queued_yet(&context, id, &items).await {
        Ok(false) => carry_out(&context, order, id).await,
        Ok(true) => Err((OrderRefused::Busy, AfterOrder::Nothing)),
        Err(error) => Err((error.into(), AfterOrder::Nothing)),
    };
    let (result, remaining) = match carried {
        Err((refused, AfterOrder::Nothing)) => (Err(refused), AfterOrder::SameItems(items)),
        Err((refused, remaining)) => (Err(refused), drop_items(remaining, items)),
        Ok(remaining) => (Ok(()), drop_items(remaining, items)),
    };
    let _ = context.events.send(Event::Ordered(id, remaining));
    (id, result)
}

/// Drops the items from before and returns `remaining`. The items hold the outdated message in
/// memory, where a later job must not find it.
fn drop_items(remaining: AfterOrder, items: Vec<(Item<LoadedMessage>, Instant)>) -> AfterOrder {
    drop(items);
    remaining
}

/// Carries out an order on one message and returns the work that remains.
///
/// # Errors
/// The refusal, and the work that remains; `Nothing` means the items from before.
async fn carry_out(
    context: &Arc<Context>,
    order: Order,
    id: QueueId,
) -> Result<AfterOrder, (OrderRefused, AfterOrder)> {
    let as_before = |refused: OrderRefused| (refused, AfterOrder::Nothing);
    match order {
        Order::Remove => {
            result::write_removal(context, id)
                .await
                .map_err(|failure| as_before(failure.into()))?;
            context
                .spool
                .remove(id)
                .await
                .map_err(|error| as_before(error.into()))?;
            tracing::warn!(queue_id = %id, "message removed by an operator");
            Ok(AfterOrder::Nothing)
        }
        Order::Hold => {
            hold(context, id).await.map_err(as_before)?;
            tracing::info!(queue_id = %id, "message held by an operator");
            Ok(AfterOrder::Nothing)
        }
        Order::Release => {
            let stored = release(context, id).await.map_err(as_before)?;
            tracing::info!(queue_id = %id, "message released by an operator");
            Ok(AfterOrder::Requeue(Box::new(stored)))
        }
        Order::Bounce => match bounce(context, id).await? {
            None => {
                tracing::warn!(queue_id = %id, "message bounced by an operator");
                Ok(AfterOrder::Nothing)
            }
            Some(stored) => Err((
                OrderRefused::ReportNotStored,
                AfterOrder::Requeue(Box::new(stored)),
            )),
        },
        // The scheduler carries it out itself.
        Order::Retry => Ok(AfterOrder::Nothing),
    }
}

/// Holds the pending recipients.
async fn hold(context: &Context, id: QueueId) -> Result<StoredMessage, OrderRefused> {
    change(
        context,
        id,
        "no recipient waits for delivery",
        |state| match state {
            RecipientState::Pending {
                attempts, history, ..
            } => Some(RecipientState::Held {
                attempts: *attempts,
                history: history.clone(),
            }),
            RecipientState::Held { .. } | RecipientState::Delivered | RecipientState::Failed => {
                None
            }
        },
    )
    .await
}

/// Makes the held recipients pending.
async fn release(context: &Context, id: QueueId) -> Result<StoredMessage, OrderRefused> {
    change(context, id, "it is not held", |state| match state {
        RecipientState::Held { attempts, history } => {
            let history = history.clone();
            Some(RecipientState::Pending {
                attempts: *attempts,
                next: None,
                history,
                warned: true,
                apart: false,
            })
        }
        RecipientState::Pending { .. } | RecipientState::Delivered | RecipientState::Failed => None,
    })
    .await
}

/// Changes the state of every recipient for which `new` returns one, and stores it. `pointless` is
/// the text of the refusal when there is no such recipient.
async fn change(
    context: &Context,
    id: QueueId,
    pointless: &'static str,
    new: impl Fn(&RecipientState) -> Option<RecipientState>,
) -> Result<StoredMessage, OrderRefused> {
    let entry = context.spool.load(id).await?;
    let mut envelope = entry.envelope.clone();
    let mut changed = false;
    for recipient in &mut envelope.recipients {
        if let Some(state) = new(&recipient.state) {
            recipient.state = state;
            // The owed report was about the earlier state.
            recipient.owed = None;
            changed = true;
        }
    }
    if !changed {
        return Err(OrderRefused::NothingToDo(pointless));
    }
    let (before, after) = (&entry.envelope, Some(&envelope));
    context.spool.settle(id, before, after, Vec::new()).await?;
    Ok(StoredMessage {
        id,
        accepted: entry.accepted,
        envelope,
        size: entry.size,
    })
}

/// Bounces every open recipient. Returns the message if recipients remain because the report to the
/// sender could not be stored.
///
/// # Errors
/// The refusal, and the work that remains.
async fn bounce(
    context: &Arc<Context>,
    id: QueueId,
) -> Result<Option<StoredMessage>, (OrderRefused, AfterOrder)> {
    let entry = Arc::new(match context.spool.load(id).await {
        Ok(entry) => entry,
        Err(SpoolError::Damaged {
            remaining: Some(remaining),
            ..
        }) => remaining.without_content(),
        Err(error) => return Err((error.into(), AfterOrder::Nothing)),
    });
    let message = ActiveMessage::new(
        id,
        OnceCell::new_with(Some(Arc::clone(&entry))),
        0,
        &context.in_memory,
    );
    let failure = Failure::permanent(
        Scope::Message,
        Status(3, 0),
        "given up by the administrator of the relay",
    );
    let is_left = match result::give_up(context, &message, &entry, &failure).await {
        RemainingWork::Nothing => false,
        RemainingWork::Retry { .. } => true,
        // The next start resumes from the spool; the state in memory may be outdated.
        RemainingWork::NotStored => {
            return Err((OrderRefused::Stopping, AfterOrder::SameItems(Vec::new())));
        }
    };
    let envelope = message.envelope().filter(|envelope| {
        is_left
            || envelope
                .recipients
                .iter()
                .any(|recipient| recipient.state.is_open())
    });
    Ok(envelope.map(|envelope| StoredMessage {
        id,
        accepted: entry.accepted,
        envelope: (*envelope).clone(),
        size: entry.size,
    }))
}
