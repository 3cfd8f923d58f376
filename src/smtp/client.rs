//! The client side of SMTP as four state machines without I/O (RFC 5321, RFC 3207), and of LMTP (RFC
//! 2033).
//!
//! [`Opening`] leads from the greeting, with STARTTLS, to a session that is ready for mail, and
//! [`LoginDialogue`] logs in there. [`Transaction`] transfers one message, and [`RecipientQuery`] asks
//! whether a mailbox exists. All take the peer's bytes and write the bytes to send. Sockets,
//! handshakes and timeouts belong to [`crate::relay::outbound`], and so does the decision whether a
//! session satisfies its TLS demand: it starts a [`Transaction`] or a [`RecipientQuery`] only with a
//! clearance, and a [`LoginDialogue`] only with the proof of who the peer is.

mod extensions;
mod login;
mod opening;
mod parameters;
mod recipient_query;
mod reply_meaning;
mod results;
mod transaction;

use std::fmt;

pub use extensions::{AuthOffer, Extensions, SizeLimit};
pub use login::{LoginDialogue, LoginEnd, LoginStep};
pub use opening::{NoStarttls, Opening, OpeningStep, StarttlsUse};
pub use parameters::{Mail, Obstacle, RequireTlsUse};
pub use recipient_query::{QueryEnd, QueryOver, RecipientQuery};
pub use results::{RecipientStatus, TransactionEnd, TransactionResults, TransactionStep};
pub use transaction::Transaction;

use crate::smtp::reply::ReplyError;

/// The stage of the dialogue that a reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialogueStage {
    /// The connection, which the greeting answers.
    Greeting,
    /// EHLO.
    Ehlo,
    /// LHLO, which LMTP has in place of EHLO.
    Lhlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// AUTH, or a response within its exchange.
    Auth,
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
    /// Returns its name, as it follows "the answer to".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Greeting => "the connection",
            Self::Ehlo => "EHLO",
            Self::Lhlo => "LHLO",
            Self::Helo => "HELO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
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

/// The violations of the protocol after which the connection must be closed.
// Rule: RFC 5321 §4.2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolViolation {
    /// The peer's bytes are not a reply.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The peer sent a reply without a command. From here on, replies cannot be assigned to
    /// commands.
    #[error("the peer sent more than the answer to {0}")]
    OutOfTurn(DialogueStage),
    /// The reply cannot be that to the command: the peer has sent one too many before it.
    #[error("the peer's answer to {0} belongs to another command")]
    Misplaced(DialogueStage),
}

/// The reply code of a server that shuts down and closes the connection; it may come at any time
/// (RFC 5321 §3.8).
const CLOSING: u16 = 421;
