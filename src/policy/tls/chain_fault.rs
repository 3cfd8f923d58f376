//! The fault of a certificate chain.

use std::fmt;

use jiff::Timestamp;

/// The reason why a certificate does not chain to our trust anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainFault {
    /// It is self-signed, and no trust anchor.
    SelfSigned,
    /// Its issuer, named here, is not trusted.
    UnknownIssuer(String),
    /// It expired at this time.
    Expired(Timestamp),
    /// It is not valid before this time.
    NotYetValid(Timestamp),
    /// No path was searched for, because no demand asked for one.
    NotChecked,
    /// Any other reason, as text.
    Invalid(String),
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SelfSigned => f.write_str("it is self-signed"),
            Self::UnknownIssuer(issuer) => write!(f, "its issuer ({issuer}) is not trusted"),
            Self::Expired(at) => write!(f, "it expired on {at}"),
            Self::NotYetValid(at) => write!(f, "it is not valid before {at}"),
            Self::NotChecked => f.write_str("it was not checked"),
            Self::Invalid(fault) => f.write_str(fault),
        }
    }
}
