//! The last reply of a session, and the end of its connection.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::lost::Slow;
use super::{End, Session};
use crate::inbound::wire::{Transport, Wire};
use crate::smtp::reply::Reply;
use crate::smtp::server::CloseReason;

/// The time for the last reply to a client that has lost its seat, and for closing its connection.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Session {
    /// Sends the reason of the end to the client, if it can be sent, and closes the connection.
    pub(super) async fn close<S: Transport>(&self, mut wire: Wire<S>, end: End) -> End {
        match end {
            End::Gone(_) | End::Handshake(_) | End::Timeout(Slow::Replies) => return end,
            End::Timeout(_) => wire.say(&self.server.closing_reply(CloseReason::Timeout)),
            End::NoMessage => wire.say(&self.server.closing_reply(CloseReason::NoMessage)),
            End::Shutdown => wire.say(&self.server.closing_reply(CloseReason::Shutdown)),
            End::Crowded => match self.server.content_refusal() {
                // After 421 the client would send the same content again.
                Some(refusal) => wire.say(refusal),
                None => wire.say(&self.server.closing_reply(CloseReason::Crowded)),
            },
            End::Said | End::StartTls => {}
        }
        if matches!(end, End::Crowded) {
            // Another client has the seat already, so the connection must end soon.
            let _ = timeout(LAST_WORDS, wire.close(LAST_WORDS)).await;
        } else {
            wire.close(self.patience().command).await;
        }
        end
    }

    /// Ends a session after a timeout. If content is refused, the client gets that refusal: after 421 it would send the
    /// same content again.
    pub(super) fn give_up<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, end: End) -> End {
        let Some(refusal) = self.server.content_refusal().cloned() else { return end };
        self.end_with(wire, &refusal)
    }

    /// Ends a session with its last reply.
    pub(super) fn end_with<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, reply: &Reply) -> End {
        self.draft = None;
        self.say(wire, reply);
        End::Said
    }
}
