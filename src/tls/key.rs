//! Public keys with which a handshake cannot be checked.

use std::fmt;

/// The public key of a certificate that no signature can be checked with, so that its holder proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UncheckableKey {
    /// An RSA key shorter than 2048 or longer than 8192 bits.
    RsaSize(usize),
    /// A kind of key that is not supported, in words: the algorithm, the curve, the encoding.
    Kind(String),
    /// A key of a supported algorithm that is malformed; the algorithm.
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
