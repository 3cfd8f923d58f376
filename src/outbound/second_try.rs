//! The second try of a TLS handshake, with another `ClientHello`, if the peer cut the first one short.
//!
//! It comes before a fallback to the clear and before a refusal, on a fresh connection to the same address. [`Hellos`]
//! chooses the `ClientHello` within the policy; the session is judged like a first one.

use std::net::SocketAddr;

use crate::address::Host;
use crate::config::Connector;
use crate::failure::Failure;
use crate::handshake::HandshakeError;
use crate::route::Hop;
use crate::smtp::client::{Opening, StarttlsUse};
use crate::tls::{Handshake, Hello, Hellos, NoTls, SniUse, TlsPolicy};

use super::dial::{Errand, First, Session, Shaken, Target};
use super::look::{FirstTry, Notes};

/// The maximum number of connections on which one attempt tries TLS. The addresses after that are not tried in this
/// attempt.
const DIALS_MAX: usize = 50;

/// The number of connections on which an attempt may still try TLS. A second try counts like a connection to another
/// address, so that a peer that breaks every handshake cannot prolong an attempt.
#[derive(Debug)]
pub(super) struct Dials(usize);

impl Dials {
    pub(super) fn new() -> Self {
        Self(DIALS_MAX)
    }

    /// Counts one connection; returns false if none is left.
    pub(super) fn take(&mut self) -> bool {
        let is_left = self.0 > 0;
        self.0 -= usize::from(is_left);
        is_left
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }
}

/// Returns the server name for the handshake. With TLSA records it is their base domain (RFC 7672 §8.1).
pub(super) fn server_name(policy: &TlsPolicy, hop: &Hop) -> Host {
    policy.tlsa().map_or_else(|| hop.host.clone(), |set| Host::Domain(set.base.clone()))
}

/// Returns the `ClientHello`s for a server of this name.
pub(super) fn hellos(
    policy: &TlsPolicy,
    connector: &Connector,
    name: &Host,
    handshake: Handshake,
    known: Option<Hello>,
) -> Hellos {
    let name = SniUse::of(name.domain().is_some(), handshake);
    Hellos::new(policy, connector.outbound.groups, name, known)
}

impl Target<'_> {
    /// Returns the `ClientHello`s for this hop.
    pub(super) fn hellos(&self) -> Hellos {
        let known = self.known.get(&self.hop.host, self.hop.port);
        let handshake = match self.errand {
            Errand::Mail(_, handshake) => handshake,
            // A probe uses those of a message without a requirement of its own.
            Errand::Look => self.policy.needed_handshake(),
        };
        hellos(self.policy, self.connector, &self.server_name(), handshake, known)
    }

    pub(super) fn server_name(&self) -> Host {
        server_name(self.policy, self.hop)
    }

    /// Tries TLS again with another `ClientHello`, on a fresh connection to the same address, after the peer cut the
    /// first handshake short.
    pub(super) async fn second(
        &self,
        address: SocketAddr,
        hellos: &Hellos,
        hello: Hello,
        fault: &HandshakeError,
        notes: &mut Notes,
    ) -> Result<First, Failure> {
        self.log_second_try(address, hello, fault);
        notes.first_try = Some(FirstTry { fault: fault.to_string(), second: hello });
        let both = |again: String| NoTls::Broken(format!("{fault}; again, with {hello}: {again}"));
        let mut opening = Opening::new(&self.snapshot.config.hostname, StarttlsUse::IfOffered);
        let again = match self.open(address, &mut opening).await {
            Ok(Session::Handshake(wire)) => match self.handshake(wire, opening, hellos, hello, notes).await? {
                Shaken::Judged(first) => return Ok(*first),
                Shaken::Broken(again) => again.to_string(),
            },
            Ok(Session::Spoilt(reason)) => reason.to_string(),
            Ok(Session::Clear { wire, reason, .. }) => {
                // A connection in the clear may follow; the two must not be open at the same time.
                let _ = wire.quit().await;
                reason.to_string()
            }
            // An unmet demand explains more than a host that no longer answers.
            Err(failure) => match self.judge_spoilt(both(failure.to_string()), notes) {
                refused @ First::Refused(_) => return Ok(refused),
                First::Cleared { .. } | First::Redial(_) => return Err(failure),
            },
        };
        Ok(self.judge_spoilt(both(again), notes))
    }
}
