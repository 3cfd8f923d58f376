//! Deadlines of a session, and log lines about refusals, slow clients and lost connections.

use std::io;

use tokio::time::Instant;
use tracing::info;

use super::state::{ClientSession, MissedDeadline, SEEMS_ENDED, SessionEndReason};
use crate::relay::inbound::buffered::{BufferedStream, ClientStream};
use crate::smtp::reply::{Reply, Severity};

/// Returns the reason of the end of a session whose replies cannot be sent.
pub(super) fn send_failed(fault: &io::Error) -> SessionEndReason {
    match fault.kind() {
        io::ErrorKind::TimedOut => SessionEndReason::Timeout(MissedDeadline::Replies),
        _ => SessionEndReason::ConnectionLost(fault.to_string()),
    }
}

impl ClientSession {
    /// Adds a reply to those to be sent, and logs it if it is a refusal. Frees the draft and the
    /// memory of an ended transaction.
    pub(super) fn reply<S: ClientStream>(
        &mut self,
        connection: &mut BufferedStream<S>,
        reply: &Reply,
    ) {
        if !self.server.is_storing() {
            self.draft = None;
        }
        if self.server.transaction().is_none() {
            self.seat.free();
        }
        let is_refusal = matches!(reply.severity(), Severity::Transient | Severity::Permanent);
        // A refusal that was logged with its reason is not logged again as a reply.
        if is_refusal
            && !std::mem::take(&mut self.is_logged)
            && self.should_log("client refused", reply)
        {
            let (from, from_connector) = self.sender_fields();
            info!(
                listener = %self.listener.name, peer = %self.peer, from, from_connector, reply = reply.to_string(),
                "client refused"
            );
        }
        connection.add_reply(reply);
    }

    /// Returns the deadline for the client's next input, which has been awaited since `since`, and
    /// the reason of the session's end if the client misses it.
    pub(super) fn deadline(&self, content: bool, since: Instant) -> (Instant, SessionEndReason) {
        let (configured, timeouts) = (&self.settings.config.timeouts, self.timeouts());
        let block = self
            .content_rate
            .time_for_block(timeouts.data_block, configured.data_rate);
        let block = if self.server.seems_ended() {
            block.min(SEEMS_ENDED)
        } else {
            block
        };
        let next = if content {
            since + block
        } else {
            self.command_since + timeouts.command
        };
        let message = self.message_since + self.progress.allowance(&timeouts, configured.data_rate);
        let slow = if !content {
            MissedDeadline::Command(timeouts.command)
        } else if block < timeouts.data_block / 2 && !self.server.seems_ended() {
            // The average rate has shortened the time for this block by more than half.
            MissedDeadline::Rate
        } else {
            MissedDeadline::Content(timeouts.data_block)
        };
        if next <= message {
            (next, SessionEndReason::Timeout(slow))
        } else {
            (message, SessionEndReason::NoMessage)
        }
    }

    /// Logs that the client was too slow or lost its seat, or that its connection was lost within a
    /// message.
    pub(super) fn log_loss(&self, end: &SessionEndReason) {
        let what = match end {
            SessionEndReason::Timeout(_)
            | SessionEndReason::NoMessage
            | SessionEndReason::Evicted => "client timed out",
            SessionEndReason::ConnectionLost(_)
                if self.server.expects_content() || self.server.is_storing() =>
            {
                "client lost inside a message"
            }
            SessionEndReason::ConnectionLost(_)
            | SessionEndReason::Replied
            | SessionEndReason::StartTls
            | SessionEndReason::Handshake(_)
            | SessionEndReason::Shutdown => return,
        };
        if self.should_log(what, end) {
            let (from, from_connector) = self.sender_fields();
            info!(
                listener = %self.listener.name, peer = %self.peer, from, from_connector, reason = %end, "{what}"
            );
        }
    }

    /// Returns the sender and its connector for a log line, or `None` for both if there is no
    /// transaction.
    pub(super) fn sender_fields(&self) -> (Option<String>, Option<&str>) {
        let sender = self.sender.as_ref();
        (
            sender.map(|sender| sender.from.to_string()),
            sender.map(|sender| sender.connector.name.as_str()),
        )
    }
}
