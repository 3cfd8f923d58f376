//! Operators' orders on the queue: retry, hold, release, remove, bounce.
//!
//! An order names messages by their ids. It is refused for a message that is being delivered.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::policy::failure::{Failure, RecipientOutcome, Scope};
use crate::relay::outbound::{Attempt, AttemptResult, RecipientResult};
use crate::smtp::envelope::{Envelope, QueueId, RecipientState};
use crate::smtp::reply::Status;
use crate::storage::spool::{Entry, SpoolError, StoredMessage};

use super::query::StatusRequest;
use super::queues::Item;
use super::report_queue::{ReportCounters, ReportCounts};
use super::usage::Usage;
use super::{ActiveMessage, Context, Event, LoadedMessage, evidence_records, result};

/// The number of orders and queries that may wait for the scheduler.
const WAITING_MAX: usize = 16;
/// The wait before the state of a message is read again.
const READ_PAUSE: Duration = Duration::from_secs(5);
/// The number of messages that one order works on at a time. They share the syncs of the spool.
const AT_ONCE: usize = 64;

/// The kinds of orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Try to deliver now, even when the destination is in backoff.
    Retry,
    /// Keep the message without attempts until it is released.
    Hold,
    /// End a hold.
    Release,
    /// Delete the message, without a report to the sender.
    Remove,
    /// Bounce the message, with a report to the sender.
    Bounce,
}

/// The reason for which an order was not carried out on a message.
#[derive(Debug, thiserror::Error)]
pub enum OrderRefused {
    /// An attempt or another order is running, or the message has just been accepted and is not
    /// scheduled yet.
    #[error(
        "message is busy (being delivered, or another command is running); try again in a few minutes"
    )]
    Busy,
    /// No recipient of the message is in the state that the order changes.
    #[error("{0}")]
    NothingToDo(&'static str),
    /// The report to its sender could not be stored.
    #[error("cannot store the report to the sender; the message stays in the queue, see the log")]
    ReportNotStored,
    /// The spool failed.
    #[error("{0}")]
    Spool(#[from] SpoolError),
    /// The task panicked.
    #[error(
        "the order failed half way, a bug in Gatepost; see the log, and check the message with `gatepost queue show`"
    )]
    Panicked,
    /// The scheduler is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The result of an order for one message.
pub type OrderOutcome = (QueueId, Result<(), OrderRefused>);

/// The handle that sends orders and queries to a running scheduler.
#[derive(Debug, Clone)]
pub struct Operator {
    requests: mpsc::Sender<Request>,
    pub(super) usage: Usage,
    reports: ReportCounters,
}

/// A request of an operator.
#[derive(Debug)]
pub(super) enum Request {
    Order {
        order: Order,
        ids: Vec<QueueId>,
        answer: oneshot::Sender<Vec<OrderOutcome>>,
    },
    Status(StatusRequest),
}

/// The work that remains for a message after an order.
pub(super) enum AfterOrder {
    Nothing,
    /// The items from before the order.
    SameItems(Vec<(Item<LoadedMessage>, Instant)>),
    /// The items of its new envelope.
    Requeue(Box<StoredMessage>),
}

/// Creates the handle and the queue of its requests.
pub(super) fn channel(
    usage: Usage,
    reports: ReportCounters,
) -> (Operator, mpsc::Receiver<Request>) {
    let (requests, receiver) = mpsc::channel(WAITING_MAX);
    (
        Operator {
            requests,
            usage,
            reports,
        },
        receiver,
    )
}

impl Operator {
    /// Carries out an order and returns the result for each message.
    pub async fn order(&self, order: Order, mut ids: Vec<QueueId>) -> Vec<OrderOutcome> {
        ids.sort_unstable();
        ids.dedup();
        let stopping = |ids: Vec<QueueId>| {
            ids.into_iter()
                .map(|id| (id, Err(OrderRefused::Stopping)))
                .collect()
        };
        let (answer, answered) = oneshot::channel();
        if self
            .ask(Request::Order {
                order,
                ids: ids.clone(),
                answer,
            })
            .await
            .is_err()
        {
            return stopping(ids);
        }
        answered.await.unwrap_or_else(|_| stopping(ids))
    }

    /// Returns the counts of reports since the start, and of those that wait.
    #[must_use]
    pub fn reports(&self) -> ReportCounts {
        self.reports.read()
    }

    /// Sends a request to the scheduler.
    pub(super) async fn ask(&self, request: Request) -> Result<(), OrderRefused> {
        self.requests
            .send(request)
            .await
            .map_err(|_| OrderRefused::Stopping)
    }
}

impl super::Scheduler {
    /// Handles a request.
    pub(super) fn handle_request(&mut self, request: Request) {
        match request {
            Request::Order { order, ids, answer } => self.handle_order(order, ids, answer),
            Request::Status(request) => self.answer_query(request),
        }
    }

    fn handle_order(
        &mut self,
        order: Order,
        ids: Vec<QueueId>,
        answer: oneshot::Sender<Vec<OrderOutcome>>,
    ) {
        let busy = |id: &QueueId| self.active.contains_key(id);
        let (busy, free): (Vec<_>, Vec<_>) = ids.into_iter().partition(busy);
        let mut answers: Vec<OrderOutcome> = busy
            .into_iter()
            .map(|id| (id, Err(OrderRefused::Busy)))
            .collect();
        let mut waiting: HashMap<QueueId, Vec<_>> = HashMap::new();
        for (item, due) in self.queues.take(&free.iter().copied().collect()) {
            waiting.entry(item.id).or_default().push((item, due));
        }
        if order == Order::Retry {
            answers.extend(
                free.into_iter()
                    .map(|id| (id, self.retry(id, waiting.remove(&id)))),
            );
            // The caller may be gone.
            let _ = answer.send(answers);
            return;
        }
        for id in &free {
            *self.active.entry(*id).or_default() += 1;
            self.ordered.insert(*id);
        }
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            let mut under_way = JoinSet::new();
            let mut owed = free.clone();
            for id in free {
                if under_way.len() >= AT_ONCE {
                    answers.extend(under_way.join_next().await.and_then(Result::ok));
                }
                let items = waiting.remove(&id).unwrap_or_default();
                under_way.spawn(run_order(Arc::clone(&context), order, id, items));
            }
            while let Some(done) = under_way.join_next().await {
                answers.extend(done.ok());
            }
            // A task without an answer has panicked.
            let answered: HashSet<QueueId> = answers.iter().map(|(id, _)| *id).collect();
            owed.retain(|id| !answered.contains(id));
            for id in owed {
                requeue_from_spool(&context, id).await;
                answers.push((id, Err(OrderRefused::Panicked)));
            }
            let _ = answer.send(answers);
        });
    }

    /// Queues the items of a message to be tried now, and clears the backoff of their destinations.
    fn retry(
        &mut self,
        id: QueueId,
        items: Option<Vec<(Item<LoadedMessage>, Instant)>>,
    ) -> Result<(), OrderRefused> {
        let now = Instant::now();
        let is_owed = self.owed.expedite(id, now);
        if items.is_none() && !is_owed {
            return Err(OrderRefused::NothingToDo(
                "no recipient waits for delivery; is it held?",
            ));
        }
        for (item, _) in items.into_iter().flatten() {
            tracing::info!(queue_id = %item.id, host = %item.host, "message retried by an operator");
            let (host, is_relaxed) = (item.host.clone(), item.is_relaxed);
            self.enqueue(item, now);
            self.queues
                .clear_backoff(&self.destination(&host), &host, is_relaxed);
        }
        Ok(())
    }
}

/// Queues a message again from the spool after the task of an order panicked. Only the spool has
/// its true state.
async fn requeue_from_spool(context: &Context, id: QueueId) {
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
async fn run_order(
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
            evidence_records::write_removal(context, id)
                .await
                .map_err(as_before)?;
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
    let mut envelope = entry.envelope;
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
    context.spool.record(id, envelope.clone()).await?;
    Ok(StoredMessage {
        id,
        accepted: entry.accepted,
        envelope,
        size: entry.size,
    })
}

/// Bounces every open recipient, each recipient domain with a write of its own. Returns the message
/// if recipients remain because the report to the sender could not be stored.
///
/// # Errors
/// The refusal, and the work that remains. Recipient domains not reached yet keep their state.
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
    let message = ActiveMessage::new(id, OnceCell::new_with(Some(Arc::clone(&entry))), 0, context);
    let failure = Failure::permanent(
        Scope::Message,
        Status(3, 0),
        "given up by the administrator of the relay",
    );
    let is_left = match give_up(context, &message, &entry, &failure).await {
        result::RemainingWork::Nothing => false,
        result::RemainingWork::Retry { .. } => true,
        // The next start resumes from the spool; the state in memory may be outdated.
        result::RemainingWork::NotStored => {
            return Err((OrderRefused::Stopping, AfterOrder::SameItems(Vec::new())));
        }
    };
    let envelope = message.envelope.lock().await.take().filter(|envelope| {
        is_left
            || envelope
                .recipients
                .iter()
                .any(|recipient| recipient.state.is_open())
    });
    Ok(envelope.map(|envelope| StoredMessage {
        id,
        accepted: entry.accepted,
        envelope,
        size: entry.size,
    }))
}

/// Bounces every open recipient of a message for the same reason, one recipient domain after the
/// other.
pub(super) async fn give_up(
    context: &Arc<Context>,
    message: &ActiveMessage,
    entry: &Arc<Entry>,
    failure: &Failure,
) -> result::RemainingWork {
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
    let mut remaining = result::RemainingWork::Nothing;
    for host in hosts {
        let settings = context.running.load();
        let attempt = attempt_for(entry, &envelope, &host, RecipientState::is_open);
        let result = |at: &usize| RecipientResult {
            recipient: *at,
            outcome: RecipientOutcome::Bounced(failure.clone()),
            via: None,
            policy: None,
            trail: Vec::new(),
            apart: false,
        };
        let results = attempt.recipients.iter().map(result).collect();
        let connector = Arc::clone(settings.connectors.for_host(&host));
        let report = AttemptResult {
            results,
            trail: Vec::new(),
            connector,
            snapshot: settings,
        };
        match result::store_result(context, message, &attempt, &report, Instant::now()).await {
            result::RemainingWork::Nothing => {}
            until @ result::RemainingWork::Retry { .. } => remaining = until,
            result::RemainingWork::NotStored => return result::RemainingWork::NotStored,
        }
    }
    remaining
}

/// Returns the attempt for the pending recipients of one domain.
pub(super) fn attempt(
    entry: &Arc<Entry>,
    envelope: &Envelope,
    host: &crate::smtp::address::Host,
) -> Attempt {
    attempt_for(entry, envelope, host, RecipientState::is_pending)
}

/// Returns the attempt for the recipients of one domain whose state satisfies `which`.
fn attempt_for(
    entry: &Arc<Entry>,
    envelope: &Envelope,
    host: &crate::smtp::address::Host,
    which: impl Fn(&RecipientState) -> bool,
) -> Attempt {
    let apart = |at: &usize| {
        matches!(
            envelope.recipients[*at].state,
            RecipientState::Pending { apart: true, .. }
        )
    };
    let mine = |(at, recipient): (usize, &crate::smtp::envelope::Recipient)| {
        (which(&recipient.state) && recipient.mailbox.host() == host).then_some(at)
    };
    let recipients: Vec<usize> = envelope
        .recipients
        .iter()
        .enumerate()
        .filter_map(mine)
        .collect();
    let apart = recipients.iter().copied().filter(apart).collect();
    Attempt {
        entry: Arc::clone(entry),
        recipients,
        apart,
        host: host.clone(),
        may_be_last: false,
    }
}
