//! Pins: the hash of a public key, by which a partner is known whatever its certificate says.
//!
//! SHA-256 over the whole `SubjectPublicKeyInfo`, as RFC 7469 §2.4 and TLSA "3 1 1" (RFC 6698 §2.1) have
//! it. Only the peer's own key counts, never that of an authority above it: nobody looks at the path.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What stands before the hash: the only kind there is.
const PREFIX: &str = "sha256:";

/// The SHA-256 of a public key. Written `sha256:` and base64, read in base64 or hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin([u8; 32]);

/// Why a text is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Its beginning does not name the hash.
    #[error("it does not begin with \"sha256:\"")]
    Kind,
    /// What follows is neither 44 characters of base64 nor 64 hexadecimal digits.
    #[error("what follows \"sha256:\" is not 32 octets in base64 or hexadecimal")]
    Hash,
}

impl Pin {
    /// The pin with this hash.
    #[must_use]
    pub fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads a pin as people write it; colons between hexadecimal digits, as openssl prints them, are
    /// left out.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn parse(text: &str) -> Result<Self, PinError> {
        let hash = match text.get(..PREFIX.len()) {
            Some(kind) if kind.eq_ignore_ascii_case(PREFIX) => &text[PREFIX.len()..],
            Some(_) | None => return Err(PinError::Kind),
        };
        let octets = from_hex(&hash.replace(':', "")).or_else(|| STANDARD.decode(hash).ok());
        octets.and_then(|octets| octets.try_into().ok()).map(Self).ok_or(PinError::Hash)
    }
}

/// 64 hexadecimal digits. No base64 of 32 octets has that length, so the two cannot be confused.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..32).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect()
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}
