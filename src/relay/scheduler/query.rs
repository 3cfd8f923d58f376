//! Queries for the status of messages that only the scheduler knows: running jobs, and destinations
//! in backoff.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::smtp::address::Host;
use crate::smtp::envelope::{AttemptFailure, QueueId, TlsRequirement};
use crate::storage::spool::ClockJumps;

use super::orders::{Operator, Request};

/// The status of several messages at one moment.
#[derive(Debug)]
pub struct StatusReply {
    /// The `[queue] expire` in use.
    expire: Duration,
    clock_jumps: ClockJumps,
    /// The status of each message of the query, in the same order.
    pub messages: Vec<MessageStatus>,
}

impl StatusReply {
    /// Returns the time at which a message accepted at `accepted` expires.
    #[must_use]
    pub fn expires(&self, accepted: Timestamp) -> Timestamp {
        self.clock_jumps
            .deadline(accepted, self.expire, Timestamp::now())
    }
}

/// The status of one message.
#[derive(Debug)]
pub struct MessageStatus {
    /// True while an attempt or an operator's order on it is running.
    pub busy: bool,
    /// The status of each recipient domain of the query, in the same order.
    pub destinations: Vec<DestinationStatus>,
}

/// The status of the destination of one recipient domain.
#[derive(Debug)]
pub struct DestinationStatus {
    /// The name of the connector for the domain.
    pub connector: String,
    /// The backoff, if the mail is in one now.
    pub backoff: Option<BackoffStatus>,
}

/// The backoff of a destination, or of a part of its mail.
#[derive(Debug)]
pub struct BackoffStatus {
    /// The end of the backoff.
    pub until: Timestamp,
    /// The failure that caused it.
    pub last: AttemptFailure,
    /// A description of the part of the mail that is in backoff; `None` for all mail of the
    /// destination.
    pub part: Option<String>,
}

/// A query for one message, or for mail like it.
#[derive(Debug)]
pub struct StatusQuery {
    /// The id of the message; `None` for a message that does not exist yet.
    pub id: Option<QueueId>,
    /// The recipient domains.
    pub hosts: Vec<Host>,
    /// The TLS requirement of the message (RFC 8689).
    pub tls: TlsRequirement,
}

/// A query with the channel for its answer.
#[derive(Debug)]
pub(super) struct StatusRequest {
    messages: Vec<StatusQuery>,
    answer: oneshot::Sender<StatusReply>,
}

impl Operator {
    /// Returns the status of messages, or `None` when the daemon is stopping.
    pub async fn status(&self, messages: Vec<StatusQuery>) -> Option<StatusReply> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Status(StatusRequest { messages, answer }))
            .await
            .ok()?;
        answered.await.ok()
    }
}

impl super::Scheduler {
    /// Answers a query.
    pub(super) fn answer_query(&self, request: StatusRequest) {
        let now = Instant::now();
        let messages = request
            .messages
            .into_iter()
            .map(|StatusQuery { id, hosts, tls }| MessageStatus {
                busy: id.is_some_and(|id| self.active.contains_key(&id)),
                destinations: hosts
                    .iter()
                    .map(|host| self.destination_status(host, tls, now))
                    .collect(),
            });
        let expire = self.context.running.load().config.queue.expire;
        let reply = StatusReply {
            expire,
            clock_jumps: self.clock_jumps.clone(),
            messages: messages.collect(),
        };
        // The caller may be gone.
        let _ = request.answer.send(reply);
    }

    fn destination_status(
        &self,
        host: &Host,
        tls: TlsRequirement,
        now: Instant,
    ) -> DestinationStatus {
        let connector = self
            .context
            .running
            .load()
            .connectors
            .for_host(host)
            .name
            .clone();
        let backoff = self.queues.backoff(
            &self.destination(host),
            host,
            tls == TlsRequirement::Relaxed,
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
