//! The client's side of the dialogue, as two state machines without I/O (RFC 5321, RFC 3207).
//!
//! [`Opening`] leads from the greeting to a session on which mail could be spoken of, with STARTTLS
//! on the way; [`Transaction`] hands over one message. Both take the peer's bytes and write what is
//! to be sent; sockets, handshakes and time limits are the pump's affair in [`crate::outbound`]. So is
//! the question whether a session is good enough: nothing here judges TLS, and a [`Transaction`] is
//! started only by what holds a clearance.

mod extensions;
mod opening;
mod parameters;
mod transaction;

use std::fmt;

pub use extensions::{Extensions, SizeLimit};
pub use opening::{NoStarttls, Opening, OpeningStep, StarttlsUse};
pub use parameters::{Mail, Obstacle, RequireTlsUse};
pub use transaction::{RecipientStatus, Transaction, TransactionEnd, TransactionResults, TransactionStep};

use crate::smtp::reply::ReplyError;

/// The command, or other stage of the dialogue, that a reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialogueStage {
    /// The connection itself.
    Greeting,
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The final dot.
    Dot,
    /// RSET.
    Rset,
}

impl DialogueStage {
    /// Its name, as it follows "the answer to".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Greeting => "the connection",
            Self::Ehlo => "EHLO",
            Self::Helo => "HELO",
            Self::StartTls => "STARTTLS",
            Self::Mail => "MAIL FROM",
            Self::Rcpt => "RCPT TO",
            Self::Data => "DATA",
            Self::Dot => "the end of the message",
            Self::Rset => "RSET",
        }
    }
}

impl fmt::Display for DialogueStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A peer that does not keep to the protocol. The connection is of no further use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolViolation {
    /// What it said is not a reply.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// It answered what it had not been asked: from here on, no reply could be told from another.
    #[error("the peer sent more than the answer to {0}")]
    OutOfTurn(DialogueStage),
}

/// The service shuts down and closes the connection, whatever it answers (RFC 5321 §3.8).
const CLOSING: u16 = 421;
