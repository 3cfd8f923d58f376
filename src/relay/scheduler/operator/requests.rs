//! Handles the requests of operators in the scheduler's loop.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::relay::scheduler::active_message::LoadedMessage;
use crate::relay::scheduler::queues::Item;
use crate::relay::scheduler::state::SchedulerState;
use crate::smtp::address::Host;
use crate::smtp::envelope::{QueueId, TlsRequirement};

use super::carry_out::{requeue_from_spool, run_order};
use super::handle::Request;
use super::order::{Order, OrderOutcome, OrderRefused};
use super::status::{
    BackoffStatus, DestinationStatus, MessageStatus, StatusQuery, StatusReply, StatusRequest,
};

/// The number of messages that one order works on at a time. They share the syncs of the spool.
const AT_ONCE: usize = 64;

impl SchedulerState {
    /// Handles a request.
    pub(in crate::relay::scheduler) fn handle_request(&mut self, request: Request) {
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
            waiting.entry(item.id()).or_default().push((item, due));
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
            if self.is_claiming {
                // It may have been claimed a moment ago, and is not queued yet.
                return Err(OrderRefused::Busy);
            }
            return Err(OrderRefused::NothingToDo(
                "no recipient waits for delivery; is it held?",
            ));
        }
        for (item, _) in items.into_iter().flatten() {
            tracing::info!(queue_id = %item.id(), host = %item.host, "message retried by an operator");
            let (host, is_relaxed) = (item.host.clone(), item.is_relaxed);
            let destination = self.destination(&host, item.user_connector.as_deref());
            self.enqueue(item, now);
            self.queues.clear_backoff(&destination, &host, is_relaxed);
        }
        Ok(())
    }

    /// Answers a query.
    fn answer_query(&self, request: StatusRequest) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        let longest = |hosts: &[Host], user_connector: Option<&str>| {
            let schedule = |host| settings.schedule(host, user_connector);
            let expire = hosts.iter().map(|host| schedule(host).expire);
            expire.max().unwrap_or(settings.config.queue.expire)
        };
        let messages = request.messages.into_iter().map(|query| MessageStatus {
            expire: longest(&query.hosts, query.user_connector.as_deref()),
            busy: query.id.is_some_and(|id| self.active.contains_key(&id)),
            destinations: query
                .hosts
                .iter()
                .map(|host| self.destination_status(host, &query, now))
                .collect(),
        });
        let reply = StatusReply {
            clock_jumps: self.clock_jumps.clone(),
            messages: messages.collect(),
        };
        // The caller may be gone.
        let _ = request.answer.send(reply);
    }

    fn destination_status(
        &self,
        host: &Host,
        query: &StatusQuery,
        now: Instant,
    ) -> DestinationStatus {
        let user_connector = query.user_connector.as_deref();
        let connectors = &self.context.running.load().connectors;
        let connector = user_connector.unwrap_or(&connectors.for_host(host).name);
        let connector = connector.to_owned();
        let backoff = self.queues.backoff(
            &self.destination(host, user_connector),
            host,
            query.tls == TlsRequirement::Relaxed,
            now,
        );
        let backoff = backoff.map(|(until, wait)| BackoffStatus {
            until: Timestamp::now() + until.saturating_duration_since(now),
            last: wait.last.clone(),
            part: wait.part.map(ToString::to_string),
        });
        DestinationStatus { connector, backoff }
    }
}
