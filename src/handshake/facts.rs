//! What a handshake showed, and the facts it comes to.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, CommonState, HandshakeKind, ProtocolVersion};

use super::{HandshakeError, Role, TrustAnchors, certificate, chain, dane};
use crate::tls::{Acquaintance, CertificateFacts, DaneFacts, Pin, Presented, TlsFacts, TlsVersion, TlsaSet};

/// What a completed handshake showed.
#[derive(Debug, Clone)]
pub struct Seen {
    version: TlsVersion,
    cipher: &'static str,
    key_exchange: Option<&'static str>,
    /// What the peer showed of itself.
    shown: Shown,
    acquaintance: Acquaintance,
}

#[derive(Debug, Clone)]
enum Shown {
    Nothing,
    /// The chain as the peer sent it, leaf first, and the leaf's key.
    Chain(Arc<[CertificateDer<'static>]>, Pin),
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
}

impl Seen {
    /// Reads a session whose handshake is complete.
    pub(super) fn of(session: &CommonState) -> Result<Self, HandshakeError> {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
            other => return Err(HandshakeError(format!("the session has no TLS version that we know ({other:?})"))),
        };
        let chain = session.peer_certificates().unwrap_or_default();
        let shown = match chain.first() {
            None => Shown::Nothing,
            Some(leaf) => {
                let key = certificate::public_key(leaf)
                    .ok_or_else(|| HandshakeError("the certificate of the peer has no readable key".to_owned()))?;
                Shown::Chain(chain.into(), certificate::pin(&key))
            }
        };
        let acquaintance = match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => Acquaintance::Renewed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => Acquaintance::Made,
        };
        Ok(Self {
            version,
            cipher: session.negotiated_cipher_suite().map_or("unknown", |suite| cipher_name(suite.suite())),
            key_exchange: session.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
            shown,
            acquaintance,
        })
    }

    /// Holds what was shown against trust anchors and TLSA records.
    #[must_use]
    pub fn facts(&self, against: Against<'_>, role: Role, now: Timestamp) -> TlsFacts {
        let certificate = match &self.shown {
            Shown::Nothing => Presented::Nothing,
            Shown::Chain(chain, key) => match chain.split_first() {
                None => Presented::Nothing,
                Some((leaf, others)) => {
                    Presented::Certificate(Box::new(facts_of(leaf, others, *key, against, role, now)))
                }
            },
        };
        let Self { version, cipher, key_exchange, acquaintance, .. } = *self;
        TlsFacts { version, cipher, key_exchange, certificate, acquaintance }
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
            Shown::Chain(chain, _) => chain,
        }
    }
}

fn facts_of(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    key: Pin,
    against: Against<'_>,
    role: Role,
    now: Timestamp,
) -> CertificateFacts {
    let names = certificate::dns_names(leaf);
    let chain = chain::check(leaf, others, against.trust, role, now);
    let default_chain = if Arc::ptr_eq(against.trust, against.default_trust) {
        chain.clone()
    } else {
        chain::check(leaf, others, against.default_trust, role, now)
    };
    let dane = match against.tlsa {
        None => DaneFacts::NotHeld,
        Some(set) => DaneFacts::Held {
            against: Arc::clone(set),
            found: dane::find(set, leaf, others, &names, against.trust.algorithms(), now),
        },
    };
    let (issuer, not_after) = certificate::issuer_and_end(leaf);
    CertificateFacts { names, chain, default_chain, key, issuer, not_after, dane }
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
