//! A demand: the layer that makes it, and how the peer must prove its identity.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::names::any_of;
use super::{Assurance, DaneScope, NamePattern, Pin, Revocation, Strength, TlsVersion, TlsaSet};
use crate::smtp::address::{Domain, Host};

/// The layer that makes a demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// The connector: its `tls`, `verify`, `min_version` and `min_strength`.
    Connector,
    /// The connector's exception, which replaces these until it ends.
    Exception,
    /// The recipient's own connector, where mail goes by the connector of the user who sent it.
    RecipientConnector,
    /// The TLSA records of the host (RFC 7672).
    Dane,
    /// The MTA-STS policy of the domain (RFC 8461).
    MtaSts,
    /// The message itself, by REQUIRETLS (RFC 8689).
    RequireTls,
    /// The downgrade memory: the domain has used TLS before, and the connector has `downgrade =
    /// "refuse"`.
    DowngradeMemory,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connector => "connector",
            Self::Exception => "exception",
            Self::RecipientConnector => "recipient's connector",
            Self::Dane => "DANE",
            Self::MtaSts => "MTA-STS",
            Self::RequireTls => "REQUIRETLS",
            Self::DowngradeMemory => "downgrade memory",
        })
    }
}

/// The TLS that one layer demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The layer that makes the demand.
    pub layer: Layer,
    /// The oldest acceptable version.
    pub min_version: TlsVersion,
    /// The weakest acceptable key exchange.
    pub min_strength: Strength,
    /// The proof of identity.
    pub verify: Verify,
    /// The required revocation status of the path. It has a meaning for [`Verify::Chain`] and
    /// [`Verify::Name`] alone, which search for a path to the connector's trust anchors.
    pub revocation: Revocation,
    /// The last session with TLS, if the downgrade memory makes the demand.
    pub last_tls: Option<Timestamp>,
}

impl Demand {
    /// Makes a demand that accepts every version and key exchange.
    #[must_use]
    pub fn new(layer: Layer, verify: Verify) -> Self {
        Self {
            layer,
            min_version: TlsVersion::V1_2,
            min_strength: Strength::Classical,
            verify,
            revocation: Revocation::Off,
            last_tls: None,
        }
    }

    /// Returns the assurance that the demand requires.
    #[must_use]
    pub fn assurance(&self) -> Assurance {
        match &self.verify {
            Verify::None => Assurance::Encrypted,
            Verify::Chain => Assurance::Chain,
            Verify::Name(_) | Verify::Published(_) | Verify::Impossible(_) => Assurance::Name,
            Verify::Pin(_) => Assurance::Pin,
            Verify::Dane(set) => match set.scope {
                DaneScope::Host => Assurance::DaneHost,
                DaneScope::Domain => Assurance::DaneDomain,
            },
        }
    }
}

/// The way in which a peer must prove its identity.
// Rule: RFC 8689 §4.2.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// No proof: encryption is enough.
    None,
    /// A certificate under one of the connector's authorities, with any name.
    Chain,
    /// A certificate under one of the connector's authorities that carries one of these names.
    Name(Vec<NamePattern>),
    /// A certificate for this host under an authority of `[tls] trust`, as MTA-STS demands (RFC
    /// 8461 §4.2).
    Published(Domain),
    /// One of these keys.
    Pin(Vec<Pin>),
    /// A certificate that matches one of these TLSA records.
    Dane(Arc<TlsaSet>),
    /// Nothing: no handshake can satisfy the demand.
    Impossible(Unmeetable),
}

/// The reason why no handshake can satisfy a demand. It is known before the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmeetable {
    /// DANE is mandatory and the host has no usable TLSA record; the reason.
    NoTlsa(String),
    /// DANE is mandatory, but the MX records that name the host, or their absence, are not secure;
    /// the reason.
    UnsignedMx(String),
    /// The domain's MTA-STS policy does not list the host.
    NotListed {
        /// The host.
        host: Domain,
        /// The hosts that the policy lists.
        listed: Vec<NamePattern>,
    },
    /// A certificate with the right name is demanded, but the host is an address and the connector
    /// has no `names`.
    NoName(Host),
    /// REQUIRETLS needs a host that is proven to be the domain's, but neither DNSSEC nor MTA-STS
    /// proves it (RFC 8689 §4.2.1); the reason.
    Unproven(String),
    /// The connector of the user who sent the mail and the recipient's own contradict each other; the
    /// reason.
    Contradiction(String),
}

impl fmt::Display for Unmeetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTlsa(why) => write!(f, "there is no usable TLSA record: {why}"),
            Self::UnsignedMx(why) => write!(f, "{why}, so that the host may be anybody's"),
            Self::NotListed { host, listed } if listed.is_empty() => {
                write!(
                    f,
                    "{host} is not listed: the policy has no mx line that can be used"
                )
            }
            Self::NotListed { host, listed } => write!(
                f,
                "{host} is not among the hosts listed: {}",
                any_of(listed)
            ),
            Self::NoName(host) => {
                write!(
                    f,
                    "{host} is an address and has no name, and the connector has no `names` to look for"
                )
            }
            Self::Unproven(why) => write!(f, "nothing proves that the host is the domain's: {why}"),
            Self::Contradiction(why) => write!(f, "no host can meet both connectors: {why}"),
        }
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min_strength {
            Strength::Classical => {}
            strength @ Strength::PostQuantum => write!(f, "{strength} ")?,
        }
        match self.min_version {
            TlsVersion::V1_2 => f.write_str("TLS")?,
            version @ TlsVersion::V1_3 => write!(f, "{version}")?,
        }
        match &self.verify {
            Verify::None => Ok(()),
            Verify::Chain => f.write_str(" with a trusted certificate"),
            Verify::Name(names) => write!(f, " with a trusted certificate for {}", any_of(names)),
            Verify::Published(host) => write!(f, " with a publicly trusted certificate for {host}"),
            Verify::Pin(pins) => match pins.as_slice() {
                [pin] => write!(f, " with the key {pin}"),
                pins => write!(f, " with one of {} pinned keys", pins.len()),
            },
            Verify::Dane(set) => write!(
                f,
                " with a certificate that the TLSA records of {} name",
                set.base
            ),
            Verify::Impossible(Unmeetable::NoTlsa(_) | Unmeetable::UnsignedMx(_)) => {
                f.write_str(" authenticated by DANE")
            }
            Verify::Impossible(Unmeetable::NoName(_)) => {
                f.write_str(" with a trusted certificate for the right name")
            }
            Verify::Impossible(Unmeetable::NotListed { .. }) => {
                f.write_str(" to a host that the domain's MTA-STS policy lists")
            }
            Verify::Impossible(Unmeetable::Unproven(_)) => {
                f.write_str(" with a host proven to be the domain's")
            }
            Verify::Impossible(Unmeetable::Contradiction(_)) => {
                f.write_str(" with a certificate that it accepts")
            }
        }?;
        match self.revocation {
            Revocation::Off | Revocation::IfKnown => Ok(()),
            Revocation::Required => f.write_str(" and a current CRL"),
        }
    }
}
