//! The refusal of a session, and what the session lacks.

use std::fmt;

use super::names::any_of;
use super::{
    ChainFault, DaneFault, Demand, Layer, NamePattern, NoTls, Pin, SessionTls, TlsVersion,
    UncheckableKey, Unmeetable,
};
use crate::smtp::reply::Status;

/// The judge's refusal: the demand, and the part of it that is unmet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The first demand that is not satisfied.
    pub demand: Demand,
    /// The part of the demand that is unmet.
    pub unmet: Unmet,
    /// The session that was judged, for the record.
    pub basis: RefusalBasis,
}

/// The thing that a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalBasis {
    /// No session: the demand is unmeetable, so no connection was made.
    NoSession,
    /// The TLS of this session.
    Session(Box<SessionTls>),
}

impl Refusal {
    /// Returns subject and detail of the enhanced status: 7.4 if the session has no TLS, 7.5 if its
    /// TLS is not good enough (RFC 3463 §3.8).
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.unmet {
            Unmet::NoTls(
                NoTls::NotWanted | NoTls::NotOffered | NoTls::Rejected(_) | NoTls::NotUsed,
            ) => Status(7, 4),
            Unmet::NoTls(NoTls::SpokeBeforeHandshake | NoTls::Broken(_))
            | Unmet::Version(_)
            | Unmet::KeyExchange(_)
            | Unmet::NoCertificate
            | Unmet::Unproved(_)
            | Unmet::Chain(_)
            | Unmet::Name { .. }
            | Unmet::Pin { .. }
            | Unmet::Dane(_)
            | Unmet::Unmeetable(_) => Status(7, 5),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.demand.layer {
            Layer::Connector => write!(f, "{} is demanded, but {}", self.demand, self.unmet),
            layer @ (Layer::Exception
            | Layer::Dane
            | Layer::MtaSts
            | Layer::RequireTls
            | Layer::DowngradeMemory) => {
                write!(
                    f,
                    "{} is demanded by {layer}, but {}",
                    self.demand, self.unmet
                )
            }
        }
    }
}

/// The part of a demand that a session does not satisfy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// TLS is missing, for this reason.
    NoTls(NoTls),
    /// A newer version is needed; this one was negotiated.
    Version(TlsVersion),
    /// A stronger key exchange is needed; this group was negotiated, or none in a resumed session.
    KeyExchange(Option<&'static str>),
    /// A certificate is missing.
    NoCertificate,
    /// A certificate with a checkable key is missing; this key was presented.
    Unproved(UncheckableKey),
    /// A chain to a trust anchor is missing, for this reason.
    Chain(ChainFault),
    /// A wanted name is missing in the certificate.
    Name {
        /// The accepted names.
        wanted: Vec<NamePattern>,
        /// The names in the certificate.
        presented: Vec<NamePattern>,
    },
    /// The key is not one of the pins.
    Pin {
        /// The accepted pins.
        wanted: Vec<Pin>,
        /// The peer's key.
        presented: Pin,
    },
    /// The certificate does not match the TLSA records, for this reason.
    Dane(DaneFault),
    /// The demand is unmeetable, for this reason.
    Unmeetable(Unmeetable),
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTls(reason) => reason.fmt(f),
            Self::Version(version) => write!(f, "only {version} was negotiated"),
            Self::KeyExchange(Some(group)) => {
                write!(f, "only the key exchange {group} was negotiated")
            }
            Self::KeyExchange(None) => f.write_str("the session has no key exchange of its own"),
            Self::NoCertificate => f.write_str("no certificate was shown"),
            Self::Unproved(key) => write!(
                f,
                "the certificate proves nothing: its key cannot be checked ({key})"
            ),
            Self::Chain(fault) => write!(f, "the certificate is not trusted: {fault}"),
            Self::Name { wanted, presented } if presented.is_empty() => {
                write!(
                    f,
                    "the certificate has no DNS name at all ({} was wanted)",
                    any_of(wanted)
                )
            }
            Self::Name { wanted, presented } => {
                write!(
                    f,
                    "the certificate is for {}, not for {}",
                    any_of(presented),
                    any_of(wanted)
                )
            }
            Self::Pin { presented, .. } => write!(f, "the key is another: {presented}"),
            Self::Dane(fault) => fault.fmt(f),
            Self::Unmeetable(reason) => reason.fmt(f),
        }
    }
}
