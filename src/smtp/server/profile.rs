//! The rules of a session, and its transport.

use crate::address::Domain;

/// The rules of a session.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Our own name.
    pub hostname: Domain,
    /// Octets in a message, at most.
    pub message_size: u64,
    /// Recipients in a transaction, at most.
    pub recipients: usize,
    /// Bad commands since the last accepted message before the session is ended.
    pub errors: u32,
    /// Received fields before it is a loop.
    pub received: u32,
    /// True where header fields that its messages lack are added ([`crate::smtp::data::HeaderCompleter`]), which is for our own clients alone.
    pub completed: bool,
    /// True where XCLIENT is offered.
    pub xclient: bool,
}

/// The transport of a session, and what the client may or must do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// In clear, and there is no STARTTLS.
    Clear,
    /// In clear; STARTTLS is offered.
    Offered,
    /// In clear; nothing of mail is taken before STARTTLS (RFC 3207 §4).
    Required,
    /// TLS.
    Tls,
}
