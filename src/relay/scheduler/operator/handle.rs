//! The handle of operators: it sends orders and queries to a running scheduler.

use tokio::sync::{mpsc, oneshot};

use crate::relay::scheduler::report_queue::{ReportCounters, ReportCounts};
use crate::relay::scheduler::usage::{ShareUsage, Usage};
use crate::smtp::envelope::QueueId;

use super::order::{Order, OrderOutcome, OrderRefused};
use super::status::{StatusQuery, StatusReply, StatusRequest};

/// The number of orders and queries that may wait for the scheduler.
const WAITING_MAX: usize = 16;

/// The handle that sends orders and queries to a running scheduler.
#[derive(Debug, Clone)]
pub struct Operator {
    requests: mpsc::Sender<Request>,
    usage: Usage,
    reports: ReportCounters,
}

/// A request of an operator.
#[derive(Debug)]
pub(in crate::relay::scheduler) enum Request {
    Order {
        order: Order,
        ids: Vec<QueueId>,
        answer: oneshot::Sender<Vec<OrderOutcome>>,
    },
    Status(StatusRequest),
}

/// Creates the handle and the queue of its requests.
pub(in crate::relay::scheduler) fn channel(
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
    async fn ask(&self, request: Request) -> Result<(), OrderRefused> {
        self.requests
            .send(request)
            .await
            .map_err(|_| OrderRefused::Stopping)
    }

    /// Returns the status of messages, or `None` when the daemon is stopping.
    pub async fn status(&self, messages: Vec<StatusQuery>) -> Option<StatusReply> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Status(StatusRequest { messages, answer }))
            .await
            .ok()?;
        answered.await.ok()
    }

    /// Returns the use of each share of the delivery attempts; empty before the scheduler runs.
    #[must_use]
    pub fn usage(&self) -> Vec<ShareUsage> {
        self.usage.read()
    }
}
