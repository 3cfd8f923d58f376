//! Public keys with which no handshake signature can be checked.

use std::fmt;

/// A certificate's public key that we cannot check signatures with, so that the peer cannot prove
/// to hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UncheckableKey {
    /// An RSA key shorter than 2048 or longer than 8192 bits; its length.
    RsaSize(usize),
    /// An unsupported kind of key: the algorithm, curve or encoding, as text.
    Kind(String),
    /// A malformed key of this supported algorithm.
    Malformed(&'static str),
    /// A certificate in which no key can be found.
    Unreadable,
}

impl fmt::Display for UncheckableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RsaSize(bits) => write!(f, "RSA key of {bits} bits"),
            Self::Kind(kind) => f.write_str(kind),
            Self::Malformed(algorithm) => write!(f, "malformed {algorithm} key"),
            Self::Unreadable => f.write_str("malformed certificate"),
        }
    }
}
