//! Errors in command lines, and their replies.

use crate::smtp::address::AddressError;
use crate::smtp::reply::{Reply, Status};

/// The faults of a command line.
// Rule: RFC 5321 §4.1.2, §4.2.4, §4.5.3.1.9.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The line is longer than [`LINE_MAX`].
    #[error("The line is longer than {LINE_MAX} octets")]
    LineTooLong,
    /// A CR is not followed by LF.
    #[error("A bare CR: lines end with CR LF, and CR stands nowhere else")]
    BareCr,
    /// A LF is not preceded by CR.
    #[error("A bare LF: lines end with CR LF, and LF stands nowhere else")]
    BareLf,
    /// The line has a NUL or another control character.
    #[error("A command has no control characters")]
    Control,
    /// The line is neither ASCII nor UTF-8.
    #[error("The command is not valid UTF-8")]
    NotUtf8,
    /// The verb is unknown.
    #[error("Command not recognised")]
    Unknown,
    /// The arguments do not follow the syntax, which is given.
    #[error("Syntax: {0}")]
    Syntax(&'static str),
    /// The reverse-path is invalid.
    #[error("Bad sender address: {0}")]
    Sender(AddressError),
    /// The forward-path is invalid.
    #[error("Bad recipient address: {0}")]
    Recipient(AddressError),
    /// The parameter is unknown (RFC 5321 §4.1.1.11).
    #[error("Parameter {0} is not supported")]
    UnknownParameter(String),
    /// The parameter occurs twice.
    #[error("{0} is given twice")]
    DuplicateParameter(&'static str),
    /// The value of the parameter is invalid.
    #[error("Bad value of {0}")]
    BadParameter(&'static str),
    /// The number of SIZE does not fit into 64 bits.
    #[error("Message size exceeds the limit")]
    SizeOverflow,
    /// The command has characters outside ASCII without SMTPUTF8 (RFC 6531 §3.5).
    #[error("An address with characters beyond ASCII needs SMTPUTF8")]
    NeedsSmtpUtf8,
    /// The BDAT line is invalid, so the place of the next command is unknown.
    #[error("Syntax: BDAT size [LAST]; what follows cannot be told from commands")]
    ChunkSize,
    /// The line belongs to HTTP, to TLS or to a message header. A web page can make a browser send
    /// SMTP commands after such a line.
    #[error("This is SMTP, and that is another protocol; closing the connection")]
    NotSmtp,
    /// The line is a PROXY header from an address that may not send one.
    #[error("No PROXY header is taken from this address; closing the connection")]
    ProxyHeader,
}

impl CommandError {
    /// Returns the reply to the fault.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let (code, status) = match self {
            Self::LineTooLong
            | Self::BareCr
            | Self::BareLf
            | Self::Control
            | Self::NotUtf8
            | Self::Unknown => (500, Status(5, 2)),
            Self::Syntax(_)
            | Self::DuplicateParameter(_)
            | Self::BadParameter(_)
            | Self::ChunkSize => (501, Status(5, 4)),
            Self::Sender(_) => (501, Status(1, 7)),
            Self::Recipient(_) => (501, Status(1, 3)),
            Self::UnknownParameter(_) => (555, Status(5, 4)),
            Self::SizeOverflow => (552, Status(3, 4)),
            Self::NeedsSmtpUtf8 => (553, Status(6, 7)),
            Self::NotSmtp | Self::ProxyHeader => (554, Status(5, 1)),
        };
        // The text may quote the client. The reply is in ASCII.
        let text: String = self
            .to_string()
            .chars()
            .map(|c| if c.is_ascii() { c } else { '?' })
            .collect();
        Reply::new(code, status, text)
    }

    /// Returns true if the session must be closed, because the following octets could be mistaken
    /// for commands.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::ChunkSize | Self::NotSmtp | Self::ProxyHeader)
    }
}

/// The longest command line in octets, with its CRLF. RFC 5321 §4.5.3.1.4 says 512, and extensions
/// add to it.
pub const LINE_MAX: usize = 2048;
