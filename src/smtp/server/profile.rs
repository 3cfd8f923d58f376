//! The rules of a session and its transport.

use crate::smtp::address::Domain;
use crate::smtp::sasl::OfferedMechanisms;

/// The rules of a session.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The name of this host, for the greeting and EHLO.
    pub hostname: Domain,
    /// The largest accepted message, in octets.
    pub message_size: u64,
    /// The largest number of recipients in a transaction.
    pub recipients: usize,
    /// The number of errors since the last accepted message after which the session is ended.
    pub errors: u32,
    /// The largest number of Received fields; a message with more of them is in a loop.
    pub received: u32,
    /// True if missing header fields are added to messages
    /// ([`crate::smtp::data::HeaderCompleter`]). Only for clients of ours.
    pub completed: bool,
    /// True if XCLIENT is offered.
    pub xclient: bool,
    /// The mechanisms of AUTH that are offered under TLS.
    pub mechanisms: OfferedMechanisms,
    /// True if a client must log in before it sends mail.
    pub auth_required: bool,
}

/// The transport of a session, and the STARTTLS that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// In the clear, without STARTTLS.
    Clear,
    /// In the clear; STARTTLS is offered.
    Offered,
    /// In the clear; STARTTLS is required before MAIL (RFC 3207 §4).
    Required,
    /// Under TLS.
    Tls,
}
