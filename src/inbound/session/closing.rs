//! The last reply of a session, and the end of its connection.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::lost::Slow;
use super::{End, Session};
use crate::inbound::wire::{Transport, Wire};
use crate::smtp::reply::Reply;
use crate::smtp::server::CloseReason;

/// The time for the last reply to a client whose seat was given to somebody else, and for the end of its connection.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Session {
    /// Says why the session ends, and closes the connection.
    pub(super) async fn close<S: Transport>(&self, mut wire: Wire<S>, end: End) -> End {
        match end {
            End::Gone(_) | End::Handshake(_) | End::Timeout(Slow::Replies) => return end,
            End::Timeout(_) => wire.say(&self.server.closing_reply(CloseReason::Timeout)),
            End::NoMessage => wire.say(&self.server.closing_reply(CloseReason::NoMessage)),
            End::Shutdown => wire.say(&self.server.closing_reply(CloseReason::Shutdown)),
            End::Crowded => match self.server.content_refusal() {
                // At 421 it would send all of it again.
                Some(refusal) => wire.say(refusal),
                None => wire.say(&self.server.closing_reply(CloseReason::Crowded)),
            },
            End::Said | End::StartTls => {}
        }
        if matches!(end, End::Crowded) {
            // Somebody else has the seat: the connection must not live on for long.
            let _ = timeout(LAST_WORDS, wire.close(LAST_WORDS)).await;
        } else {
            wire.close(self.patience().command).await;
        }
        end
    }

    /// Ends a session that took too long. A client that was refused is told why: at 421 it would send all of it again.
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
