//! TLS handshakes in both directions: rustls, with verifiers that record the certificate and leave
//! the judgement to others.
//!
//! A handshake succeeds with any certificate, if the peer proves that it holds the key, or if the
//! key is one that the library cannot check and that proves nothing. [`crate::policy::tls::judge`]
//! decides whether that is enough, by the [`TlsFacts`](crate::policy::tls::TlsFacts) that
//! [`CompletedHandshake::facts`] makes. Identities and trust anchors are loaded and reloaded here.
//! Only TLS 1.2 and 1.3 are spoken (RFC 5246, RFC 8446, RFC 9325). A session is resumed only if no
//! demand concerns the peer's identity, because a resumed handshake proves nothing new.

mod algorithm_names;
mod anchor;
mod certificate;
mod chain;
mod chain_search;
mod client;
mod client_hello;
mod completed;
mod curves;
mod dane;
mod error;
mod identity;
mod known_hellos;
mod leaf_key;
mod material;
mod path_fault;
mod path_search;
mod pem;
mod read_ahead;
mod sent_chain;
mod server;
mod tickets;
mod trust;
mod usage;
mod verified;
mod verifier;

use rustls::SupportedProtocolVersion;

use crate::policy::tls::TlsVersion;
pub use chain_search::{ChainChecks, PathChecks};
pub use client::ClientTls;
pub use client_hello::RecordedStream;
pub use completed::{ChannelBinding, CompletedHandshake};
pub use error::{HandshakeError, describe_alert};
pub use identity::IdentitySummary;
pub use known_hellos::KnownHellos;
pub use material::TlsMaterial;
pub use pem::{certificates, key_warning, private_key};
pub use read_ahead::ReadAheadStream;
pub use sent_chain::{CertificateContent, SentCertificate};
pub use trust::TrustAnchors;
pub use usage::TlsPurposes;
pub use verified::UnverifiedServer;

/// The role of the certificate's owner. The certificate must allow this use (RFC 5280 §4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A server, to which we are the client.
    Server,
    /// A client, to which we are the server.
    Client,
}

// Rule: RFC 8461 §7.2.
static FROM_1_2: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS13, &rustls::version::TLS12];
static FROM_1_3: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// Returns the versions for rustls, from `oldest` on.
fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match oldest {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_3,
    }
}
