//! What the scheduler knows of a message beyond its envelope: whether it is being worked on, and whether
//! its destinations are left alone for a while.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::address::Host;
use crate::envelope::{AttemptFailure, QueueId, TlsRequirement};
use crate::spool::ClockJumps;

use super::orders::{Operator, Request};

/// The prospects of messages, as of one moment.
#[derive(Debug)]
pub struct Outlook {
    /// The age at which a message bounces.
    expire: Duration,
    clock_jumps: ClockJumps,
    /// One for each message that was asked about, in order.
    pub messages: Vec<Prospect>,
}

impl Outlook {
    /// When a message that was accepted then bounces.
    #[must_use]
    pub fn expires(&self, accepted: Timestamp) -> Timestamp {
        self.clock_jumps.deadline(accepted, self.expire, Timestamp::now())
    }
}

/// The prospects of one message.
#[derive(Debug)]
pub struct Prospect {
    /// Whether an attempt, or an operator's order, is under way.
    pub busy: bool,
    /// One for each host that was asked about, in order.
    pub ways: Vec<Way>,
}

/// The way to one recipient domain.
#[derive(Debug)]
pub struct Way {
    /// The name of the connector that speaks for it.
    pub connector: String,
    /// The pause, while it is left alone.
    pub pause: Option<Pause>,
}

/// A destination, or a part of its mail, that is left alone.
#[derive(Debug)]
pub struct Pause {
    /// Until then.
    pub until: Timestamp,
    /// Why.
    pub last: AttemptFailure,
    /// The mail that waits, in words, where other mail for the destination goes on.
    pub part: Option<String>,
}

/// A message that is asked about, or mail of its kind.
#[derive(Debug)]
pub struct Asked {
    /// The message; nothing where none is meant.
    pub id: Option<QueueId>,
    /// Its recipient domains.
    pub hosts: Vec<Host>,
    /// The TLS that it asks for (RFC 8689).
    pub tls: TlsRequirement,
}

/// A question on its way.
#[derive(Debug)]
pub(super) struct Question {
    messages: Vec<Asked>,
    answer: oneshot::Sender<Outlook>,
}

impl Operator {
    /// The prospects of messages, each with the hosts that are asked about; `None` where the daemon is
    /// stopping.
    pub async fn outlook(&self, messages: Vec<Asked>) -> Option<Outlook> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Outlook(Question { messages, answer })).await.ok()?;
        answered.await.ok()
    }
}

impl super::Scheduler {
    pub(super) fn tell(&self, question: Question) {
        let now = Instant::now();
        let messages = question.messages.into_iter().map(|Asked { id, hosts, tls }| Prospect {
            busy: id.is_some_and(|id| self.active.contains_key(&id)),
            ways: hosts.iter().map(|host| self.way(host, tls, now)).collect(),
        });
        let expire = self.context.running.load().config.queue.expire;
        let outlook = Outlook { expire, clock_jumps: self.clock_jumps.clone(), messages: messages.collect() };
        // The asker may have gone away.
        let _ = question.answer.send(outlook);
    }

    fn way(&self, host: &Host, tls: TlsRequirement, now: Instant) -> Way {
        let connector = self.context.running.load().connectors.for_host(host).name.clone();
        let down = self.lanes.down(&self.destination(host), host, tls == TlsRequirement::Relaxed, now);
        let pause = down.map(|(until, wait)| Pause {
            until: Timestamp::now() + until.saturating_duration_since(now),
            last: wait.last.clone(),
            part: wait.part.map(ToString::to_string),
        });
        Way { connector, pause }
    }
}
