//! The second try of a TLS handshake, with another `ClientHello`, if the peer cut the first one
//! short.
//!
//! It comes before a fallback to the clear and before a refusal, on a fresh connection to the same
//! address. [`Hellos`] chooses the `ClientHello` within the policy; the session is judged like a
//! first one.

use std::net::SocketAddr;

use crate::config::Connector;
use crate::net::route::Hop;
use crate::net::tls_io::HandshakeError;
use crate::policy::failure::Failure;
use crate::policy::tls::{Handshake, Hello, Hellos, NoTls, SniUse, TlsPolicy};
use crate::smtp::address::Host;
use crate::smtp::client::{Opening, StarttlsUse};

use super::dial::{DialOutcome, DialPurpose, HandshakeOutcome, OpenedSession, Target};
use super::probe_result::{DialRecord, FirstTry};

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
pub(super) fn server_name(policy: &TlsPolicy, hop: &Hop) -> Host {
    policy
        .tlsa()
        .map_or_else(|| hop.host.clone(), |set| Host::Domain(set.base.clone()))
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
        let handshake = match self.purpose {
            DialPurpose::Mail(_, handshake) => handshake,
            // A probe uses those of a message without a requirement of its own.
            DialPurpose::Probe => self.policy.needed_handshake(),
        };
        hellos(
            self.policy,
            self.connector,
            &self.server_name(),
            handshake,
            known,
        )
    }

    pub(super) fn server_name(&self) -> Host {
        server_name(self.policy, self.hop)
    }

    /// Tries TLS again with another `ClientHello`, on a fresh connection to the same address, after
    /// the peer cut the first handshake short.
    pub(super) async fn try_again(
        &self,
        address: SocketAddr,
        hellos: &Hellos,
        hello: Hello,
        fault: &HandshakeError,
        record: &mut DialRecord,
    ) -> Result<DialOutcome, Failure> {
        self.log_second_try(address, hello, fault);
        record.first_try = Some(FirstTry {
            fault: fault.to_string(),
            second: hello,
        });
        let describe =
            |again: String| NoTls::Broken(format!("{fault}; again, with {hello}: {again}"));
        let mut opening = Opening::new(&self.snapshot.config.hostname, StarttlsUse::IfOffered);
        let again = match self.open(address, &mut opening).await {
            Ok(OpenedSession::Handshake(wire)) => {
                match self.handshake(wire, opening, hellos, hello, record).await? {
                    HandshakeOutcome::Judged(outcome) => return Ok(*outcome),
                    HandshakeOutcome::Broken(again) => again.to_string(),
                }
            }
            Ok(OpenedSession::Closed(reason)) => reason.to_string(),
            Ok(OpenedSession::Clear { wire, reason, .. }) => {
                // A connection in the clear may follow; the two must not be open at the same time.
                let _ = wire.quit().await;
                reason.to_string()
            }
            // An unmet demand explains more than a host that no longer answers.
            Err(failure) => match self.judge_closed(describe(failure.to_string()), record) {
                refused @ DialOutcome::Refused(_) => return Ok(refused),
                DialOutcome::Cleared { .. } | DialOutcome::Redial(_) => return Err(failure),
            },
        };
        Ok(self.judge_closed(describe(again), record))
    }
}
