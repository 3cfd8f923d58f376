//! Deadlines of a session, and log lines about refusals, slow clients and lost connections.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::info;

use super::{End, SEEMS_ENDED, Session};
use crate::address::ReversePath;
use crate::config::{Connector, write_duration};
use crate::inbound::wire::Wire;
use crate::smtp::reply::{Reply, Severity};

/// The deadline that a client missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slow {
    /// The client sent no complete command within this time.
    Command(Duration),
    /// The client sent no more content within this time.
    Content(Duration),
    /// The client sent its message slower than `[timeouts] data_rate`.
    Rate,
    /// The client did not read our replies in time.
    Replies,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(time) => write!(f, "no command within {}", write_duration(*time)),
            Self::Content(time) => write!(f, "no more content of the message within {}", write_duration(*time)),
            Self::Rate => f.write_str("the message came slower than [timeouts] data_rate"),
            Self::Replies => f.write_str("the client did not read our replies in time"),
        }
    }
}

/// The sender of the last MAIL, with its connector.
pub(super) struct Sender {
    pub(super) from: ReversePath,
    pub(super) connector: Arc<Connector>,
}

/// Returns the reason of the end of a session whose replies cannot be sent.
pub(super) fn unsent(fault: &io::Error) -> End {
    match fault.kind() {
        io::ErrorKind::TimedOut => End::Timeout(Slow::Replies),
        _ => End::Gone(fault.to_string()),
    }
}

impl Session {
    /// Adds a reply to those to be sent, and logs it if it is a refusal. Frees the draft and the memory of an ended
    /// transaction.
    pub(super) fn say<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, reply: &Reply) {
        if !self.server.is_storing() {
            self.draft = None;
        }
        if self.server.transaction().is_none() {
            self.seat.free();
        }
        let is_refusal = matches!(reply.severity(), Severity::Transient | Severity::Permanent);
        // A refusal that was logged with its reason is not logged again as a reply.
        if is_refusal && !std::mem::take(&mut self.is_logged) && self.should_log("client refused", reply) {
            let (from, from_connector) = self.named();
            info!(
                listener = %self.listener.name, peer = %self.peer, from, from_connector, reply = reply.to_string(),
                "client refused"
            );
        }
        wire.say(reply);
    }

    /// Returns the deadline for the client's next input, which has been awaited since `since`, and the reason of the
    /// session's end if the client misses it.
    pub(super) fn due(&self, content: bool, since: Instant) -> (Instant, End) {
        let (timeouts, patience) = (&self.settings.config.timeouts, self.patience());
        let block = self.pace.patience(patience.data_block, timeouts.data_rate);
        let block = if self.server.seems_ended() { block.min(SEEMS_ENDED) } else { block };
        let step = if content { since + block } else { self.command_since + patience.command };
        let message = self.message_since + self.progress.allowance(&patience, timeouts.data_rate);
        let slow = if !content {
            Slow::Command(patience.command)
        } else if block < patience.data_block / 2 && !self.server.seems_ended() {
            // The average rate has shortened the time for this block by more than half.
            Slow::Rate
        } else {
            Slow::Content(patience.data_block)
        };
        if step <= message { (step, End::Timeout(slow)) } else { (message, End::NoMessage) }
    }

    /// Logs that the client was too slow or lost its seat, or that its connection was lost within a message.
    pub(super) fn log_loss(&self, end: &End) {
        let what = match end {
            End::Timeout(_) | End::NoMessage | End::Crowded => "client timed out",
            End::Gone(_) if self.server.expects_content() || self.server.is_storing() => "client lost inside a message",
            End::Gone(_) | End::Said | End::StartTls | End::Handshake(_) | End::Shutdown => return,
        };
        if self.should_log(what, end) {
            let (from, from_connector) = self.named();
            info!(
                listener = %self.listener.name, peer = %self.peer, from, from_connector, reason = %end, "{what}"
            );
        }
    }

    /// Returns the sender and its connector for a log line, or `None` for both if there is no transaction.
    pub(super) fn named(&self) -> (Option<String>, Option<&str>) {
        let sender = self.sender.as_ref();
        (sender.map(|sender| sender.from.to_string()), sender.map(|sender| sender.connector.name.as_str()))
    }
}
