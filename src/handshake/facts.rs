//! What a handshake showed, and the facts it comes to.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, CommonState, HandshakeKind, ProtocolVersion};

use super::examine::Chain;
use super::leaf::LeafKey;
use super::{HandshakeError, Role, TrustAnchors, certificate};
use crate::tls::{Handshake, PeerCertificate, TlsFacts, TlsPolicy, TlsVersion, TlsaSet, UncheckableKey};

/// What a completed handshake showed.
#[derive(Debug, Clone)]
pub struct Seen {
    version: TlsVersion,
    cipher: &'static str,
    key_exchange: Option<&'static str>,
    /// What the peer showed of itself.
    shown: Shown,
    handshake: Handshake,
}

#[derive(Debug, Clone)]
enum Shown {
    Nothing,
    /// Its certificates; it proved to hold the key of the first.
    Proved(Chain),
    /// The certificates as it sent them, and why they prove nothing: they may be anybody's.
    Unproved(Arc<[CertificateDer<'static>]>, UncheckableKey),
}

impl Shown {
    /// Reads the chain of a session whose handshake is complete.
    fn of(chain: &[CertificateDer<'static>]) -> Self {
        let Some(leaf) = chain.first() else { return Self::Nothing };
        match LeafKey::of(leaf) {
            LeafKey::Checkable(key) => {
                Self::Proved(Chain { sent: chain.into(), key: certificate::pin(&key), findings: Arc::default() })
            }
            LeafKey::Uncheckable(key) => Self::Unproved(chain.into(), key),
        }
    }
}

/// What a certificate is held against.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// The connector's trust anchors.
    pub trust: &'a Arc<TrustAnchors>,
    /// Those of `[tls] trust`.
    pub default_trust: &'a Arc<TrustAnchors>,
    /// The TLSA records of the host; `None` where it has none that count.
    pub tlsa: Option<&'a Arc<TlsaSet>>,
    /// The paths that are looked for.
    pub paths: Paths,
}

/// The anchors to which a path is looked for; of the others it is said that nobody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paths {
    /// Those of the connector.
    pub connector: bool,
    /// Those of `[tls] trust`.
    pub default: bool,
}

impl Against<'_> {
    /// The same, where paths are looked for only as a policy asks for them.
    #[must_use]
    pub fn asked_by(self, policy: &TlsPolicy) -> Self {
        Self { paths: Paths { connector: policy.asks_for_chain(), default: policy.asks_for_default_chain() }, ..self }
    }

    /// The same, where the path to the connector's anchors is looked for in any case, for the record.
    #[must_use]
    pub fn recorded(self) -> Self {
        Self { paths: Paths { connector: true, ..self.paths }, ..self }
    }
}

impl Seen {
    /// Reads a session whose handshake is complete.
    pub(super) fn of(session: &CommonState) -> Result<Self, HandshakeError> {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
            other => {
                return Err(HandshakeError::Failed(format!("the session has no TLS version that we know ({other:?})")));
            }
        };
        let chain = session.peer_certificates().unwrap_or_default();
        let shown = Shown::of(chain);
        let handshake = match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => Handshake::Full,
        };
        Ok(Self {
            version,
            cipher: session.negotiated_cipher_suite().map_or("unknown", |suite| cipher_name(suite.suite())),
            key_exchange: session.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
            shown,
            handshake,
        })
    }

    /// Reads a chain for the fuzzer, as if a handshake had shown it.
    #[cfg(fuzzing)]
    #[must_use]
    pub fn fuzzed(chain: &[CertificateDer<'static>]) -> Self {
        Self {
            version: TlsVersion::V1_3,
            cipher: "TLS_AES_128_GCM_SHA256",
            key_exchange: None,
            shown: Shown::of(chain),
            handshake: Handshake::Full,
        }
    }

    /// Holds what was shown against trust anchors and TLSA records. A path that was looked for once in this session
    /// is not looked for again, so what is said of it is of the time when it was.
    pub async fn facts(&self, against: Against<'_>, role: Role, now: Timestamp) -> TlsFacts {
        let certificate = match &self.shown {
            Shown::Nothing => PeerCertificate::Nothing,
            Shown::Unproved(_, key) => PeerCertificate::Unproved(key.clone()),
            Shown::Proved(chain) => PeerCertificate::Certificate(Box::new(chain.facts(against, role, now).await)),
        };
        let Self { version, cipher, key_exchange, handshake, .. } = *self;
        TlsFacts { version, cipher, key_exchange, reduced: None, certificate, handshake }
    }

    /// The version of the session.
    #[must_use]
    pub fn version(&self) -> TlsVersion {
        self.version
    }

    /// The chain as the peer sent it, leaf first; empty where it showed nothing.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        match &self.shown {
            Shown::Nothing => &[],
            Shown::Proved(chain) => &chain.sent,
            Shown::Unproved(sent, _) => sent,
        }
    }

    /// Tells whether the peer proved to hold the key of the certificate that it showed.
    pub(super) fn is_proved(&self) -> bool {
        match &self.shown {
            Shown::Proved(_) => true,
            Shown::Nothing | Shown::Unproved(..) => false,
        }
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
