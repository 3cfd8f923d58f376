//! The `ClientHello`s for a server, and the number of connections on which an attempt may try TLS.

use crate::config::Connector;
use crate::net::route::Hop;
use crate::policy::tls::{Handshake, Hello, Hellos, SniUse, TlsPolicy};
use crate::smtp::address::Host;

/// The maximum number of connections on which one attempt tries TLS. The addresses after that are
/// not tried in this attempt.
const MAX_DIALS: usize = 50;

/// The number of connections on which an attempt may still try TLS. A second try counts like a
/// connection to another address, so that a peer that breaks every handshake cannot prolong an
/// attempt.
#[derive(Debug)]
pub(super) struct DialBudget(usize);

impl DialBudget {
    pub(super) fn new() -> Self {
        Self(MAX_DIALS)
    }

    /// Counts one connection; returns false if none is left.
    pub(super) fn take(&mut self) -> bool {
        let is_allowed = self.0 > 0;
        self.0 -= usize::from(is_allowed);
        is_allowed
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.0 == 0
    }
}

/// Returns the server name for the handshake. With TLSA records it is their base domain (RFC 7672
/// §8.1).
// Rule: RFC 8461 §7.1; policy table (names).
pub(super) fn server_name(policy: &TlsPolicy, hop: &Hop) -> Host {
    policy
        .tlsa()
        .map_or_else(|| hop.host.clone(), |set| Host::Domain(set.base.clone()))
}

/// Returns the `ClientHello`s for a server of this name.
pub(super) fn choose_hellos(
    policy: &TlsPolicy,
    connector: &Connector,
    name: &Host,
    handshake: Handshake,
    known: Option<Hello>,
) -> Hellos {
    let name = SniUse::of(name.domain().is_some(), handshake);
    Hellos::new(policy, connector.outbound.groups, name, known)
}
