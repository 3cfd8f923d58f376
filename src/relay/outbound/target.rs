//! A hop that is dialled, with everything that its sessions depend on.

use std::time::Duration;

use crate::config::{Connector, Timeouts};
use crate::net::route::Hop;
use crate::net::tls_io::KnownHellos;
use crate::policy::connector::HopProtocol;
use crate::policy::failure::{HopAddress, Peer};
use crate::policy::tls::{Handshake, Hellos, NamePattern, TlsPolicy};
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Host;
use crate::smtp::client::{Opening, StarttlsUse};
use crate::telemetry::Monitor;

use super::hellos;
use super::wire::Wire;

/// A hop to dial, with its policy.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) monitor: &'a Monitor,
    pub(super) connector: &'a Connector,
    pub(super) hop: &'a Hop,
    pub(super) policy: &'a TlsPolicy,
    pub(super) known: &'a KnownHellos,
    pub(super) purpose: DialPurpose,
    /// The time limit of one handshake.
    pub(super) handshake: Duration,
}

/// The purpose for which a host is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DialPurpose {
    /// To send a message: the kind of handshake that its policy needs.
    Mail(Handshake),
    /// To probe the host. The peer is asked for everything it offers, whatever the verdict.
    Probe,
}

/// Returns the names of a hop that are looked for in its certificate, for the record.
// Rule: RFC 9525 §6.1.
pub(super) fn reference_names(host: &Host) -> Vec<NamePattern> {
    host.domain()
        .map(|name| NamePattern::Exact(name.clone()))
        .into_iter()
        .collect()
}

impl Target<'_> {
    /// Returns the peer at this address.
    pub(super) fn peer(&self, address: &HopAddress) -> Peer {
        Peer {
            host: self.hop.host.clone(),
            address: address.clone(),
            protocol: self.hop.protocol.clone(),
            source: None,
        }
    }

    /// Returns the opening of a session with this hop.
    pub(super) fn opening(&self, starttls: StarttlsUse) -> Opening<'_> {
        let starttls = match self.hop.protocol {
            HopProtocol::Smtp | HopProtocol::Lmtp => starttls,
            HopProtocol::Smtps => StarttlsUse::Implicit,
            HopProtocol::LmtpSocket(_) => StarttlsUse::Never,
        };
        let mut opening = Opening::new(&self.snapshot.config.hostname, starttls);
        if let Some(name) = &self.connector.outbound.ehlo {
            opening = opening.with_name(name);
        }
        if self.hop.protocol.is_lmtp() {
            opening.with_lmtp()
        } else {
            opening
        }
    }

    /// Returns whether the hop cannot have TLS, although the policy may demand it.
    pub(super) fn offers_no_tls(&self) -> bool {
        matches!(self.hop.protocol, HopProtocol::LmtpSocket(_)) && *self.policy != TlsPolicy::Off
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.snapshot.config.timeouts
    }

    /// Returns the kind of handshake that is needed. A probe needs a full one, to see the
    /// certificate.
    pub(super) fn needed_handshake(&self) -> Handshake {
        match self.purpose {
            DialPurpose::Mail(handshake) => handshake,
            DialPurpose::Probe => Handshake::Full,
        }
    }

    /// Returns the `ClientHello`s for this hop.
    pub(super) fn hellos(&self) -> Hellos {
        let known = self.known.get(&self.hop.host, self.hop.port);
        let handshake = match self.purpose {
            DialPurpose::Mail(handshake) => handshake,
            // A probe uses those of a message without a requirement of its own.
            DialPurpose::Probe => self.policy.needed_handshake(),
        };
        hellos::choose_hellos(
            self.policy,
            self.connector,
            &self.server_name(),
            handshake,
            known,
        )
    }

    pub(super) fn server_name(&self) -> Host {
        hellos::server_name(self.policy, self.hop)
    }

    /// Closes a session with QUIT. A probe waits until the connection is closed, since its process
    /// may end right after.
    // Rule: RFC 3207 §4.1; RFC 5321 §4.1.4; policy table (refused).
    pub(super) async fn quit(&self, wire: Wire) {
        let closing = wire.quit();
        match self.purpose {
            DialPurpose::Mail(_) => {}
            DialPurpose::Probe => drop(closing.await),
        }
    }
}
