//! The last reply of a session, and the end of its connection.

use tokio::time::timeout;

use super::state::MissedDeadline;
use super::{ClientSession, SessionEndReason};
use crate::relay::inbound::buffered::{BufferedStream, ClientStream};
use crate::smtp::reply::Reply;
use crate::smtp::server::CloseReason;

impl ClientSession {
    /// Sends the reason of the end to the client, if it can be sent, and closes the connection.
    pub(super) async fn close<S: ClientStream>(
        &self,
        mut connection: BufferedStream<S>,
        end: SessionEndReason,
    ) -> SessionEndReason {
        match end {
            SessionEndReason::ConnectionLost(_)
            | SessionEndReason::Handshake(_)
            | SessionEndReason::Timeout(MissedDeadline::Replies) => {
                return end;
            }
            SessionEndReason::Timeout(_) => {
                connection.add_reply(&self.server.closing_reply(CloseReason::Timeout));
            }
            SessionEndReason::NoMessage => {
                connection.add_reply(&self.server.closing_reply(CloseReason::NoMessage));
            }
            SessionEndReason::Shutdown => {
                connection.add_reply(&self.server.closing_reply(CloseReason::Shutdown));
            }
            SessionEndReason::Evicted => match self.server.content_refusal() {
                // After 421 the client would send the same content again.
                Some(refusal) => connection.add_reply(refusal),
                None => connection.add_reply(&self.server.closing_reply(CloseReason::Crowded)),
            },
            SessionEndReason::Replied | SessionEndReason::StartTls => {}
        }
        if matches!(end, SessionEndReason::Evicted) {
            // Another client has the seat already, so the connection must end soon.
            let farewell = self.seat.farewell();
            let _ = timeout(farewell, connection.close(farewell)).await;
        } else {
            connection.close(self.timeouts().command).await;
        }
        end
    }

    /// Ends a session after a timeout. If content is refused, the client gets that refusal: after
    /// 421 it would send the same content again.
    pub(super) fn give_up<S: ClientStream>(
        &mut self,
        connection: &mut BufferedStream<S>,
        end: SessionEndReason,
    ) -> SessionEndReason {
        let Some(refusal) = self.server.content_refusal().cloned() else {
            return end;
        };
        self.end_with(connection, &refusal)
    }

    /// Ends a session with its last reply.
    pub(super) fn end_with<S: ClientStream>(
        &mut self,
        connection: &mut BufferedStream<S>,
        reply: &Reply,
    ) -> SessionEndReason {
        self.draft = None;
        self.reply(connection, reply);
        SessionEndReason::Replied
    }
}
