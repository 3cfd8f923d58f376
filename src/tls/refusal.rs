//! What a session lacks, and the refusal that follows.

use std::fmt;

use super::names::any_of;
use super::{
    ChainFault, DaneFault, Demand, Layer, NamePattern, NoTls, Pin, SessionTls, TlsVersion, UncheckableKey, Unmeetable,
};
use crate::smtp::reply::Status;

/// A policy that was not met: what was wanted, and what was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The demand that is not met; the first of several.
    pub demand: Demand,
    /// What is missing.
    pub unmet: Unmet,
    /// With what the peer had answered, for the record: it is not enough.
    pub basis: RefusalBasis,
}

/// What was held against a policy that was not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalBasis {
    /// Nobody's session: no handshake can meet the demand, so nobody was dialled.
    NoSession,
    /// A session, and what it had reached.
    Session(Box<SessionTls>),
}

impl Refusal {
    /// Subject and detail: 7.4 where no TLS was to be had, 7.5 where it was not good enough
    /// (RFC 3463 §3.8; Gatepost's policy table).
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.unmet {
            Unmet::NoTls(NoTls::NotWanted | NoTls::NotOffered | NoTls::Rejected(_) | NoTls::NotUsed) => Status(7, 4),
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
            layer @ (Layer::Exception | Layer::Dane | Layer::MtaSts | Layer::RequireTls | Layer::DowngradeMemory) => {
                write!(f, "{} is demanded by {layer}, but {}", self.demand, self.unmet)
            }
        }
    }
}

/// What a session lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// TLS altogether.
    NoTls(NoTls),
    /// A newer version; this one was negotiated.
    Version(TlsVersion),
    /// A stronger key exchange; this group was negotiated, or none in a resumed session.
    KeyExchange(Option<&'static str>),
    /// A certificate.
    NoCertificate,
    /// A certificate with a key that can be checked.
    Unproved(UncheckableKey),
    /// A path to a trust anchor.
    Chain(ChainFault),
    /// A name that was looked for; the names that the certificate has.
    Name {
        /// Any of these would have done.
        wanted: Vec<NamePattern>,
        /// These are there.
        presented: Vec<NamePattern>,
    },
    /// A key that is pinned.
    Pin {
        /// Any of these would have done.
        wanted: Vec<Pin>,
        /// This is the peer's.
        presented: Pin,
    },
    /// What the TLSA records say.
    Dane(DaneFault),
    /// What no handshake can make good.
    Unmeetable(Unmeetable),
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTls(reason) => reason.fmt(f),
            Self::Version(version) => write!(f, "only {version} was negotiated"),
            Self::KeyExchange(Some(group)) => write!(f, "only the key exchange {group} was negotiated"),
            Self::KeyExchange(None) => f.write_str("the session has no key exchange of its own"),
            Self::NoCertificate => f.write_str("no certificate was shown"),
            Self::Unproved(key) => write!(f, "the certificate proves nothing: its key cannot be checked ({key})"),
            Self::Chain(fault) => write!(f, "the certificate is not trusted: {fault}"),
            Self::Name { wanted, presented } if presented.is_empty() => {
                write!(f, "the certificate has no DNS name at all ({} was wanted)", any_of(wanted))
            }
            Self::Name { wanted, presented } => {
                write!(f, "the certificate is for {}, not for {}", any_of(presented), any_of(wanted))
            }
            Self::Pin { presented, .. } => write!(f, "the key is another: {presented}"),
            Self::Dane(fault) => fault.fmt(f),
            Self::Unmeetable(reason) => reason.fmt(f),
        }
    }
}
