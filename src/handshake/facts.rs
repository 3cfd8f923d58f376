//! What a handshake showed, and the facts it comes to.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, CommonState, ProtocolVersion};

use super::{HandshakeError, Role, TrustAnchors, certificate, chain};
use crate::tls::{CertificateFacts, Presented, TlsFacts, TlsVersion};

/// What a completed handshake showed.
#[derive(Debug, Clone)]
pub struct Seen {
    version: TlsVersion,
    cipher: &'static str,
    key_exchange: Option<&'static str>,
    /// As the peer sent it, leaf first; empty where it showed nothing.
    chain: Arc<[CertificateDer<'static>]>,
}

impl Seen {
    /// Reads a session whose handshake is complete.
    pub(super) fn of(session: &CommonState) -> Result<Self, HandshakeError> {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
            other => return Err(HandshakeError(format!("the session has no TLS version that we know ({other:?})"))),
        };
        Ok(Self {
            version,
            cipher: session.negotiated_cipher_suite().map_or("unknown", |suite| cipher_name(suite.suite())),
            key_exchange: session.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
            chain: session.peer_certificates().unwrap_or_default().into(),
        })
    }

    /// Holds what was shown against trust anchors.
    #[must_use]
    pub fn facts(&self, trust: &TrustAnchors, role: Role, now: Timestamp) -> TlsFacts {
        let certificate = match self.chain.split_first() {
            None => Presented::Nothing,
            Some((leaf, others)) => Presented::Certificate(CertificateFacts {
                names: certificate::dns_names(leaf),
                chain: chain::check(leaf, others, trust, role, now),
            }),
        };
        TlsFacts { version: self.version, cipher: self.cipher, key_exchange: self.key_exchange, certificate }
    }
}

/// The IANA name; rustls has its own spelling for the suites of TLS 1.3.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}
