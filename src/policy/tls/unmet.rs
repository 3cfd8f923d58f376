//! The part of a demand that a session does not satisfy.

use std::fmt;

use super::names::any_of;
use super::{
    ChainFault, DaneFault, NamePattern, NoTls, Pin, RevocationFault, TlsVersion, UncheckableKey,
    Unmeetable,
};

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
    /// A certificate of the path is revoked, or a CRL is missing.
    Revocation(RevocationFault),
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
            Self::Revocation(fault) => fault.fmt(f),
            Self::Unmeetable(reason) => reason.fmt(f),
        }
    }
}
