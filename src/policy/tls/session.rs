//! The facts of one session, and the identification of its peer.

use super::assurance::Assurance;
use std::fmt;

use super::dane::{DaneScope, Tlsa};
use super::facts::TlsOutcome;
use super::key::UncheckableKey;
use super::names::NamePattern;
use super::pin::Pin;
use super::unmet::Unmet;

/// The result of identifying the peer of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Not identified: the session is in the clear, the peer sent no certificate, or no check was
    /// asked for.
    Anonymous,
    /// Not identified: the certificate has a key that cannot be checked, so anybody could have sent
    /// it.
    Unproved(UncheckableKey),
    /// The certificate has no valid chain, or none of the expected names. TLS is used all the same.
    Untrusted(Unmet),
    /// The certificate chains to a trust anchor, and no name was expected.
    Trusted,
    /// The certificate is trusted and carries this name, which was expected.
    Verified(NamePattern),
    /// The peer's key is one of the connector's pins.
    Pinned(Pin),
    /// The certificate matches this TLSA record (RFC 7672).
    Dane {
        /// The record that matched.
        record: Tlsa,
        /// The identity that the record proves: the recipient domain, or the host alone.
        scope: DaneScope,
    },
}

impl Authentication {
    /// Returns the assurance of a TLS session with this result.
    pub(super) fn assurance(&self) -> Assurance {
        match self {
            // Names are compared only if the chain is valid.
            Self::Trusted | Self::Untrusted(Unmet::Name { .. }) => Assurance::Chain,
            Self::Anonymous | Self::Unproved(_) | Self::Untrusted(_) => Assurance::Encrypted,
            Self::Verified(_) => Assurance::Name,
            Self::Pinned(_) => Assurance::Pin,
            Self::Dane {
                scope: DaneScope::Host,
                ..
            } => Assurance::DaneHost,
            Self::Dane {
                scope: DaneScope::Domain,
                ..
            } => Assurance::DaneDomain,
        }
    }
}

impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Unproved(key) => write!(f, "key not proved: {key}"),
            Self::Untrusted(fault) => write!(f, "untrusted: {fault}"),
            Self::Trusted => f.write_str("trusted"),
            Self::Verified(name) => write!(f, "verified as {name}"),
            Self::Pinned(pin) => write!(f, "pinned by {pin}"),
            Self::Dane { record, .. } => write!(f, "authenticated by DANE ({record})"),
        }
    }
}

/// The TLS of one session, whatever was demanded. It is a record for logs and evidence, and permits
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTls {
    /// The facts of the handshake, or the reason why there was none.
    pub outcome: TlsOutcome,
    /// The result of identifying the peer.
    pub authentication: Authentication,
}

impl SessionTls {
    /// Returns the assurance of the session, whether it was cleared or refused.
    #[must_use]
    pub fn assurance(&self) -> Assurance {
        match &self.outcome {
            TlsOutcome::Clear(_) => Assurance::None,
            TlsOutcome::Tls(_) => self.authentication.assurance(),
        }
    }
}
