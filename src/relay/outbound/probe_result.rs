//! The record of a session on its way to the judge, for a probe. It holds values and no connection.

use std::net::SocketAddr;

use crate::net::tls_io::CompletedHandshake;
use crate::policy::failure::Failure;
use crate::policy::tls::{Clearance, Hello, TlsOutcome};
use crate::smtp::client::Extensions;

/// The record of one session. A field is empty if the session did not get that far.
#[derive(Debug, Default)]
pub(super) struct DialRecord {
    /// The first handshake, if it was cut short; the other fields are about the second.
    pub(super) first_try: Option<FirstTry>,
    /// The outcome that was judged last.
    pub(super) outcome: Option<TlsOutcome>,
    /// The completed handshake.
    pub(super) seen: Option<CompletedHandshake>,
    /// The extensions in the reply to EHLO; under TLS if the handshake was completed.
    pub(super) extensions: Option<Extensions>,
}

/// A handshake that was cut short, and the `ClientHello` of the second try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstTry {
    /// The error of the first handshake, as text.
    pub fault: String,
    /// The `ClientHello` of the second try.
    pub second: Hello,
}

/// The result of probing one address.
#[derive(Debug)]
pub(super) struct AddressProbe {
    pub(super) address: SocketAddr,
    /// The peer, as `mx.example.org [192.0.2.1]:25`.
    pub(super) peer: String,
    pub(super) record: DialRecord,
    /// The clearance, which is not used, or the failure that a delivery would meet here.
    pub(super) end: Result<Clearance, Failure>,
}
