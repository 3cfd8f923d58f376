//! The parts of a `ClientHello` that some servers do not accept. `hello_sequence` chooses the
//! first `ClientHello` for a server, and the second if the server breaks on the first.
//!
//! X25519MLKEM768 makes a `ClientHello` larger than one TCP segment, and some servers and
//! middleboxes reset or drop what does not arrive in one piece. Other servers reject a server name
//! (SNI) that they do not know, or have a key on a curve that the first `ClientHello` does not
//! list. Such a server speaks TLS when offered a different `ClientHello`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The strength of a key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// Elliptic curves alone. A future quantum computer could decrypt a recorded session.
    Classical,
    /// A hybrid with ML-KEM (FIPS 203), for which no attack is known, even with a quantum computer.
    PostQuantum,
}

impl Strength {
    /// Returns the strength of a key exchange group, by its IANA name. An unknown group counts as
    /// classical.
    #[must_use]
    pub fn of_group(group: &str) -> Self {
        match group {
            "X25519MLKEM768" | "SecP256r1MLKEM768" | "secp256r1MLKEM768" | "SecP384r1MLKEM1024"
            | "secp384r1MLKEM1024" | "MLKEM512" | "MLKEM768" | "MLKEM1024" => Self::PostQuantum,
            _ => Self::Classical,
        }
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classical => "classical",
            Self::PostQuantum => "post-quantum",
        })
    }
}

/// The key exchange groups in a `ClientHello`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Groups {
    /// A post-quantum hybrid first, then classical groups.
    PostQuantumFirst,
    /// Classical groups alone. The `ClientHello` fits into one segment.
    Classical,
    /// Classical groups, then every curve and signature scheme that a server may need for its own
    /// key, including those that cannot be checked. The `ClientHello` fits into one segment.
    ClassicalAllCurves,
    /// Post-quantum hybrids alone.
    PostQuantumOnly,
}

/// The parts of a `ClientHello` that some servers do not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hello {
    /// The key exchange groups.
    pub groups: Groups,
    /// True if it carries the server's name (SNI, RFC 6066 §3).
    pub sni: bool,
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.groups {
            Groups::PostQuantumFirst => "post-quantum key exchange first",
            Groups::Classical => "classical key exchange",
            Groups::ClassicalAllCurves => "classical key exchange, all curves",
            Groups::PostQuantumOnly => "post-quantum key exchange only",
        })?;
        if self.sni {
            Ok(())
        } else {
            f.write_str(", without SNI")
        }
    }
}
