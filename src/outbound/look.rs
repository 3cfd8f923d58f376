//! What a session showed on its way to the judge, for whoever wants to tell it: values, and no connection.

use std::net::SocketAddr;

use crate::failure::Failure;
use crate::handshake::CompletedHandshake;
use crate::smtp::client::Extensions;
use crate::tls::{Clearance, Hello, TlsOutcome};

/// Notes of one session. What is missing was not reached.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The handshake that was cut short before the one that the rest is about.
    pub(super) first_try: Option<FirstTry>,
    /// What the judge was shown, the last time.
    pub(super) outcome: Option<TlsOutcome>,
    /// What the handshake showed.
    pub(super) seen: Option<CompletedHandshake>,
    /// The answer to EHLO: under TLS where that came about.
    pub(super) extensions: Option<Extensions>,
}

/// A handshake that was cut short, and the `ClientHello` of the one that followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstTry {
    /// How it broke, in words.
    pub fault: String,
    /// What the second try began with.
    pub second: Hello,
}

/// One address, looked at.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) address: SocketAddr,
    /// `mx.example.org [192.0.2.1]:25`.
    pub(super) peer: String,
    pub(super) notes: Notes,
    /// The judge's leave, which nobody will use, or why there would be no delivery here.
    pub(super) end: Result<Clearance, Failure>,
}
