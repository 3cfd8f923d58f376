//! TLS handshakes, either way: rustls with verifiers that remember instead of judging.
//!
//! A handshake here succeeds with whatever certificate the peer shows, as long as the peer proves to
//! hold its key, or the key is one that the library cannot check and so proves nothing; whether that satisfies
//! anybody is for [`crate::tls::judge`] to say, over the [`TlsFacts`](crate::tls::TlsFacts) that [`Seen::facts`]
//! makes. Identities and trust anchors are loaded, and re-read, here. TLS 1.2 and 1.3 only (RFC 5246, RFC 8446, RFC 9325). A session is
//! resumed only where nobody asks who the peer is: it proves nothing anew.

mod anchor;
mod certificate;
mod chain;
mod client;
mod curves;
mod dane;
mod error;
mod examine;
mod facts;
mod fault;
mod hellos;
mod identity;
mod key;
mod leaf;
mod material;
mod offer;
mod path;
mod pem;
mod sent;
mod server;
mod tickets;
mod trust;
mod usage;
mod verifier;

pub use client::ClientTls;
pub use error::{HandshakeError, alert};
pub use facts::{Against, Paths, Seen};
pub use hellos::KnownHellos;
pub use identity::IdentitySummary;
pub use material::Material;
pub use offer::Recorded;
pub use pem::{key_warning, private_key};
pub use sent::{CertificateWords, SentCertificate};
pub use trust::TrustAnchors;

use rustls::SupportedProtocolVersion;

use crate::tls::TlsVersion;

/// Whose certificate is looked at: it must allow this use (RFC 5280 §4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A server's, seen by us as client.
    Server,
    /// A client's, seen by us as server.
    Client,
}

static FROM_1_2: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
static FROM_1_3: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// What rustls may speak where nothing older than `oldest` will do.
fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match oldest {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_3,
    }
}
