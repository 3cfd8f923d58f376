//! The record of a session on its way to the judge. It holds values and no connection.

use std::net::IpAddr;

use crate::net::tls_io::CompletedHandshake;
use crate::policy::failure::{Failure, Peer};
use crate::policy::tls::{Clearance, TlsOutcome};
use crate::smtp::client::Extensions;
use crate::telemetry::HandshakeResult;

use super::observe::SessionSteps;

/// The record of one session. A field is empty if the session did not get that far.
#[derive(Debug, Default)]
pub(super) struct DialRecord {
    /// The steps for observers.
    pub(super) steps: SessionSteps,
    /// The outcome that was judged last.
    pub(super) outcome: Option<TlsOutcome>,
    /// The completed handshake; after a second try the second one.
    pub(super) seen: Option<CompletedHandshake>,
    /// The number of changes of CRLs before the revocation status was found.
    pub(super) crl_changes: u64,
    /// The extensions in the reply to EHLO; under TLS if the handshake was completed.
    pub(super) extensions: Option<Extensions>,
    /// Our own address of the last connection.
    pub(super) source: Option<IpAddr>,
    /// True if the host has refused an access token, and there is another one to try.
    pub(super) has_new_token: bool,
}

impl DialRecord {
    /// Adds a handshake; `None` if it failed.
    pub(super) fn add_handshake(&mut self, completed: Option<&CompletedHandshake>) {
        let result = completed.map(|seen| HandshakeResult::Completed(seen.version()));
        self.steps
            .handshakes
            .push(result.unwrap_or(HandshakeResult::Failed));
    }
}

/// The result of probing one address.
#[derive(Debug)]
pub(super) struct AddressProbe {
    pub(super) peer: Peer,
    pub(super) record: DialRecord,
    /// The clearance, which is not used, or the failure that a delivery would meet here.
    pub(super) end: Result<Clearance, Failure>,
}
