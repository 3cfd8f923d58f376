//! A completed handshake, and the facts that follow from it.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, ConnectionCommon, HandshakeKind, ProtocolVersion};

use super::chain_search::ChainChecks;
use super::chain_search::SentChain;
use super::leaf_key::{self, LeafKey};
use super::{HandshakeError, Role};
use crate::policy::tls::{Handshake, PeerCertificate, TlsFacts, TlsVersion, UncheckableKey};

/// The result of a completed handshake.
#[derive(Debug, Clone)]
pub struct CompletedHandshake {
    version: TlsVersion,
    cipher: &'static str,
    key_exchange: Option<&'static str>,
    /// The peer's certificates.
    chain: PeerChain,
    handshake: Handshake,
    binding: Option<ChannelBinding>,
}

/// The channel binding `tls-exporter` of a session (RFC 9266). It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelBinding([u8; 32]);

impl ChannelBinding {
    /// Returns the binding of a session with TLS 1.3. Before 1.3 it is unique only with an extended
    /// master secret (RFC 9266 §4.2), of which rustls does not report whether it was used.
    // Rule: RFC 9266 §2, §4.2.
    fn of<Data>(session: &ConnectionCommon<Data>) -> Option<Self> {
        if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        let exported =
            session.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]));
        exported.ok().map(Self)
    }

    /// Returns the octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelBinding(…)")
    }
}

#[derive(Debug, Clone)]
enum PeerChain {
    Nothing,
    /// The certificates. The peer proved that it holds the key of the first.
    Proved(SentChain),
    /// The certificates as sent, and the reason why they prove nothing: anybody could have sent
    /// them.
    Unproved(Arc<[CertificateDer<'static>]>, UncheckableKey),
}

impl PeerChain {
    /// Reads the chain of a session whose handshake is complete.
    fn of(chain: &[CertificateDer<'static>]) -> Self {
        let Some(leaf) = chain.first() else {
            return Self::Nothing;
        };
        match LeafKey::of(leaf) {
            LeafKey::Checkable(key) => Self::Proved(SentChain {
                sent: chain.into(),
                key: leaf_key::pin(&key),
                results: Arc::default(),
            }),
            LeafKey::Uncheckable(key) => Self::Unproved(chain.into(), key),
        }
    }
}

impl CompletedHandshake {
    /// Reads a session whose handshake is complete.
    pub(super) fn of<Data>(session: &ConnectionCommon<Data>) -> Result<Self, HandshakeError> {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
            other => {
                return Err(HandshakeError::Failed(format!(
                    "the session has no TLS version that we know ({other:?})"
                )));
            }
        };
        let sent = session.peer_certificates().unwrap_or_default();
        let chain = PeerChain::of(sent);
        let handshake = match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => {
                Handshake::Full
            }
        };
        Ok(Self {
            version,
            cipher: session
                .negotiated_cipher_suite()
                .map_or("unknown", |suite| cipher_name(suite.suite())),
            key_exchange: session
                .negotiated_key_exchange_group()
                .and_then(|group| group.name().as_str()),
            chain,
            handshake,
            binding: ChannelBinding::of(session),
        })
    }

    /// Makes the result of a handshake with this chain, for fuzzing.
    #[cfg(fuzzing)]
    #[must_use]
    pub fn fuzzed(chain: &[CertificateDer<'static>]) -> Self {
        Self {
            version: TlsVersion::V1_3,
            cipher: "TLS_AES_128_GCM_SHA256",
            key_exchange: None,
            chain: PeerChain::of(chain),
            handshake: Handshake::Full,
            binding: None,
        }
    }

    /// Checks the peer's certificate and returns all facts. Each path is searched for once in a
    /// session; later calls return the earlier result.
    pub async fn facts(&self, checks: ChainChecks<'_>, role: Role, now: Timestamp) -> TlsFacts {
        let certificate = match &self.chain {
            PeerChain::Nothing => PeerCertificate::Nothing,
            PeerChain::Unproved(_, key) => PeerCertificate::Unproved(key.clone()),
            PeerChain::Proved(chain) => {
                PeerCertificate::Certificate(Box::new(chain.facts(checks, role, now).await))
            }
        };
        let Self {
            version,
            cipher,
            key_exchange,
            handshake,
            ..
        } = *self;
        TlsFacts {
            version,
            cipher,
            key_exchange,
            reduced: None,
            certificate,
            handshake,
        }
    }

    /// The TLS version.
    #[must_use]
    pub fn version(&self) -> TlsVersion {
        self.version
    }

    /// Returns the channel binding for SASL; `None` before TLS 1.3.
    #[must_use]
    pub fn channel_binding(&self) -> Option<&ChannelBinding> {
        self.binding.as_ref()
    }

    /// The chain as sent, leaf first; empty if the peer sent none.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        match &self.chain {
            PeerChain::Nothing => &[],
            PeerChain::Proved(chain) => &chain.sent,
            PeerChain::Unproved(sent, _) => sent,
        }
    }

    /// Returns true if the peer proved that it holds the key of its certificate.
    pub(super) fn is_proved(&self) -> bool {
        match &self.chain {
            PeerChain::Proved(_) => true,
            PeerChain::Nothing | PeerChain::Unproved(..) => false,
        }
    }
}

/// Returns the IANA name. rustls spells the suites of TLS 1.3 differently.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}
