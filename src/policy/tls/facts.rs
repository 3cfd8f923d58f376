//! The facts of a session: those of its handshake, or the reason why there was none.

use std::fmt;

use jiff::Timestamp;

use super::chain_fault::ChainFault;
use super::{DaneFacts, Hello, NamePattern, Pin, RevocationFacts, Strength, UncheckableKey};
use crate::smtp::reply::Reply;

/// A TLS version that Gatepost supports. Older versions do not exist here (RFC 8996, RFC 9325
/// §3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        })
    }
}

/// The end of TLS negotiation: the facts of the handshake, or the reason why there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsOutcome {
    /// The session is in the clear, for this reason.
    Clear(NoTls),
    /// The session uses TLS.
    Tls(TlsFacts),
}

impl TlsOutcome {
    /// Returns true if the revocation status of the peer's certificate was checked, and no CRL that
    /// it depends on has expired meanwhile.
    #[must_use]
    pub fn revocation_holds_at(&self, now: Timestamp) -> bool {
        match self {
            Self::Tls(TlsFacts {
                certificate: PeerCertificate::Certificate(certificate),
                ..
            }) => certificate.revocation.holds_at(now),
            Self::Tls(_) | Self::Clear(_) => false,
        }
    }
}

/// The reason why a session is in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTls {
    /// Our policy for the domain is `off`.
    NotWanted,
    /// Outbound: the peer's EHLO reply has no STARTTLS.
    NotOffered,
    /// Outbound: the peer rejected STARTTLS with this reply.
    Rejected(Reply),
    /// Outbound: the peer sent data in the clear after its 220 to STARTTLS (RFC 3207 §6).
    SpokeBeforeHandshake,
    /// The handshake failed; the error of rustls or of the network.
    Broken(String),
    /// Inbound: the client did not issue STARTTLS.
    NotUsed,
}

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("TLS is switched off for this domain"),
            Self::NotOffered => f.write_str("the peer does not offer STARTTLS"),
            Self::Rejected(reply) => write!(f, "the peer refused STARTTLS: {reply}"),
            Self::SpokeBeforeHandshake => {
                f.write_str("the peer sent clear text after agreeing to STARTTLS")
            }
            Self::Broken(fault) => write!(f, "the TLS handshake failed: {fault}"),
            Self::NotUsed => f.write_str("the client did not issue STARTTLS"),
        }
    }
}

/// The facts of a completed handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// The negotiated version.
    pub version: TlsVersion,
    /// The cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// The key exchange group; `None` in a resumed TLS 1.2 session, which has no key exchange.
    pub key_exchange: Option<&'static str>,
    /// Our `ClientHello`, if it was a reduced one because the peer does not accept the usual one.
    pub reduced: Option<Hello>,
    /// The peer's certificate, from this session or from the one that it resumes.
    pub certificate: PeerCertificate,
    /// The kind of handshake.
    pub handshake: Handshake,
}

impl TlsFacts {
    /// Returns the strength of the session's key exchange. Without a key exchange of its own a
    /// session counts as classical, because the earlier one is not known.
    #[must_use]
    pub fn strength(&self) -> Strength {
        self.key_exchange
            .map_or(Strength::Classical, Strength::of_group)
    }
}

/// The kind of a TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// A full handshake: the peer may send a certificate, and proves that it holds the key.
    Full,
    /// A resumed session (RFC 8446 §2.2): the peer proves only that it is the peer of an earlier
    /// session, and sends no certificate.
    Resumed,
}

/// The certificate that a peer presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerCertificate {
    /// None (a client without a certificate).
    Nothing,
    /// A certificate whose private key the peer proved to hold.
    Certificate(Box<CertificateFacts>),
    /// A certificate with a key that cannot be checked. Nothing proves that it is the peer's own,
    /// so its content is ignored.
    Unproved(UncheckableKey),
}

/// The content of a certificate, and the results of checking its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The well-formed DNS names (subjectAltName).
    pub names: Vec<NamePattern>,
    /// The result of the search for a path to the connector's trust anchors.
    pub chain: Result<(), ChainFault>,
    /// The result of the search for a path to the anchors of `[tls] trust`, which apply to MTA-STS.
    pub default_chain: Result<(), ChainFault>,
    /// The hash of the public key.
    pub key: Pin,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The end of the validity period.
    pub not_after: Timestamp,
    /// The result of comparing the certificate with TLSA records.
    pub dane: DaneFacts,
    /// The revocation status of the path to the connector's trust anchors.
    pub revocation: RevocationFacts,
}

impl CertificateFacts {
    /// Returns the first name in the certificate that matches a wanted one.
    #[must_use]
    pub fn carries(&self, wanted: &[NamePattern]) -> Option<&NamePattern> {
        self.names
            .iter()
            .find(|name| wanted.iter().any(|wanted| wanted.accepts(name)))
    }
}
