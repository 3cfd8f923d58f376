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
use crate::storage::spool::{Claim, Claimed, SpoolError, StoredMessage};

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

/// Returns a message of this relay as stored in the spool, without its content.
async fn stored(
    context: &Context,
    id: QueueId,
) -> Result<Option<Claimed<StoredMessage>>, SpoolError> {
    match context.spool.claimed(id).await {
        Ok(stored) => Ok(Some(stored)),
        Err(SpoolError::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns true for a message that was just accepted and is not in the queue yet. The scheduler
/// would then queue the accepted state and ignore the order. `items` are its waiting items.
fn is_not_queued_yet(stored: &StoredMessage, items: &[(Item<LoadedMessage>, Instant)]) -> bool {
    let mut recipients = stored.envelope.recipients.iter();
    items.is_empty() && recipients.any(|recipient| recipient.state.is_pending())
}

/// Returns the claim on the message that an order is about.
async fn claim_for_order(
    context: &Context,
    id: QueueId,
    items: &[(Item<LoadedMessage>, Instant)],
) -> Result<Claim, OrderRefused> {
    if let Some((item, _)) = items.first() {
        return Ok(item.claim);
    }
    let stored = context.spool.claimed(id).await?;
    if is_not_queued_yet(&stored, items) {
        return Err(OrderRefused::Busy);
    }
    Ok(stored.claim)
}

/// Carries out an order on one message with these waiting items, and reports the end to the
/// scheduler.
pub(super) async fn run_order(
    context: Arc<Context>,
    order: Order,
    id: QueueId,
    items: Vec<(Item<LoadedMessage>, Instant)>,
) -> OrderOutcome {
    let carried = match claim_for_order(&context, id, &items).await {
        Ok(claim) => carry_out(&context, order, claim).await,
        Err(refused) => Err((refused, AfterOrder::Nothing)),
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
    claim: Claim,
) -> Result<AfterOrder, (OrderRefused, AfterOrder)> {
    let id = claim.id();
    let as_before = |refused: OrderRefused| (refused, AfterOrder::Nothing);
    match order {
        Order::Remove => {
            result::remove_recorded(context, claim)
                .await
                .map_err(|failure| as_before(failure.into()))?;
            tracing::warn!(queue_id = %id, "message removed by an operator");
            Ok(AfterOrder::Nothing)
        }
        Order::Hold => {
            hold(context, claim).await.map_err(as_before)?;
            tracing::info!(queue_id = %id, "message held by an operator");
            Ok(AfterOrder::Nothing)
        }
        Order::Release => {
            let stored = release(context, claim).await.map_err(as_before)?;
            tracing::info!(queue_id = %id, "message released by an operator");
            Ok(AfterOrder::Requeue(Box::new(stored)))
        }
        Order::Bounce => match bounce(context, claim).await? {
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
async fn hold(context: &Context, claim: Claim) -> Result<Claimed<StoredMessage>, OrderRefused> {
    change(
        context,
        claim,
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
async fn release(context: &Context, claim: Claim) -> Result<Claimed<StoredMessage>, OrderRefused> {
    change(context, claim, "it is not held", |state| match state {
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
    claim: Claim,
    pointless: &'static str,
    new: impl Fn(&RecipientState) -> Option<RecipientState>,
) -> Result<Claimed<StoredMessage>, OrderRefused> {
    let entry = context.spool.load(claim.id()).await?;
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
    let settled = context.spool.settle(claim, before, after, Vec::new());
    settled.await?;
    let message = StoredMessage {
        id: entry.id,
        accepted: entry.accepted,
        envelope,
        size: entry.size,
    };
    Ok(Claimed { claim, message })
}

/// Bounces every open recipient. Returns the message if recipients remain because the report to the
/// sender could not be stored.
///
/// # Errors
/// The refusal, and the work that remains.
async fn bounce(
    context: &Arc<Context>,
    claim: Claim,
) -> Result<Option<Claimed<StoredMessage>>, (OrderRefused, AfterOrder)> {
    let entry = Arc::new(match context.spool.load(claim.id()).await {
        Ok(entry) => entry,
        Err(SpoolError::Damaged {
            remaining: Some(remaining),
            ..
        }) => remaining.without_content(),
        Err(error) => return Err((error.into(), AfterOrder::Nothing)),
    });
    let message = ActiveMessage::new(
        claim,
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
    let envelope = message.envelope();
    let envelope = envelope.as_deref().unwrap_or(&entry.envelope);
    let mut recipients = envelope.recipients.iter();
    let is_open = is_left || recipients.any(|recipient| recipient.state.is_open());
    Ok(is_open.then(|| Claimed {
        claim,
        message: StoredMessage {
            id: entry.id,
            accepted: entry.accepted,
            envelope: envelope.clone(),
            size: entry.size,
        },
    }))
}
