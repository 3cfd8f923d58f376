//! Pins: hashes of public keys that identify a partner whatever its certificate says.
//!
//! A pin is the SHA-256 of the whole `SubjectPublicKeyInfo`, as in RFC 7469 §2.4 and TLSA "3 1 1"
//! (RFC 6698 §2.1). Only the peer's own key counts, never that of an authority above it; no path is
//! searched for.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The prefix that names the hash algorithm; there is only one.
const PREFIX: &str = "sha256:";

/// The SHA-256 of a public key. It is written as `sha256:` and base64, and read in base64 or
/// hexadecimal.
// Rule: RFC 9525 §6.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin([u8; 32]);

/// The reason why a text is not a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// It does not begin with the name of the hash.
    #[error("it does not begin with \"sha256:\"")]
    Kind,
    /// The rest is neither 44 characters of base64 nor 64 hexadecimal digits.
    #[error("what follows \"sha256:\" is not 32 octets in base64 or hexadecimal")]
    Hash,
}

impl Pin {
    /// Makes a pin from a hash.
    #[must_use]
    pub fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses a pin. Colons between hexadecimal digits, as OpenSSL prints them, are ignored.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn parse(text: &str) -> Result<Self, PinError> {
        let hash = match text.get(..PREFIX.len()) {
            Some(kind) if kind.eq_ignore_ascii_case(PREFIX) => &text[PREFIX.len()..],
            Some(_) | None => return Err(PinError::Kind),
        };
        let octets = from_hex(&hash.replace(':', "")).or_else(|| STANDARD.decode(hash).ok());
        octets
            .and_then(|octets| octets.try_into().ok())
            .map(Self)
            .ok_or(PinError::Hash)
    }
}

/// Parses 64 hexadecimal digits. No base64 of 32 octets has that length, so the two forms cannot be
/// confused.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..32)
        .map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok())
        .collect()
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}
