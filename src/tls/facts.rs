//! What a session reached, in facts: those of its handshake, or the reason that there was none.

use std::fmt;

use jiff::Timestamp;

use super::{DaneFacts, Hello, NamePattern, Pin, Strength, UncheckableKey};
use crate::smtp::reply::Reply;

/// A TLS protocol version that Gatepost speaks; nothing older exists here (RFC 8996, RFC 9325 §3.1.1).
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

/// What a session reached: the facts of its handshake, or the reason that there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsOutcome {
    /// No TLS, and why.
    Clear(NoTls),
    /// TLS.
    Tls(TlsFacts),
}

/// Why a session has no TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTls {
    /// Our own policy for the domain is `off`.
    NotWanted,
    /// Outbound: the peer's EHLO answer has no STARTTLS.
    NotOffered,
    /// Outbound: the peer answered STARTTLS with this.
    Rejected(Reply),
    /// Outbound: the peer said something in the clear after its 220 to STARTTLS (RFC 3207 §6).
    SpokeBeforeHandshake,
    /// The handshake broke; what rustls or the network said.
    Broken(String),
    /// Inbound: the client did not ask for TLS.
    NotUsed,
}

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("TLS is switched off for this domain"),
            Self::NotOffered => f.write_str("the peer does not offer STARTTLS"),
            Self::Rejected(reply) => write!(f, "the peer refused STARTTLS: {reply}"),
            Self::SpokeBeforeHandshake => f.write_str("the peer sent clear text after agreeing to STARTTLS"),
            Self::Broken(fault) => write!(f, "the TLS handshake failed: {fault}"),
            Self::NotUsed => f.write_str("the client did not issue STARTTLS"),
        }
    }
}

/// What a completed handshake established.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// The version negotiated.
    pub version: TlsVersion,
    /// The cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// The key exchange group, where the session had one (a resumed TLS 1.2 session has none).
    pub key_exchange: Option<&'static str>,
    /// Our `ClientHello`, where it was not the usual one because the peer does not accept that.
    pub reduced: Option<Hello>,
    /// What the peer showed of itself, in this session or in the one that it resumes.
    pub certificate: PeerCertificate,
    /// Which of the two.
    pub handshake: Handshake,
}

impl TlsFacts {
    /// The strength of the session's key exchange. A session without one of its own has at most the strength of an
    /// earlier session's, which nobody knows.
    #[must_use]
    pub fn strength(&self) -> Strength {
        self.key_exchange.map_or(Strength::Classical, Strength::of_group)
    }
}

/// When the peer of a session shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// In its own handshake, where it proves to hold the certificate's key.
    Full,
    /// In an earlier session's: it proves to be the peer of that one, by a secret that the two have shared
    /// since (resumption, RFC 8446 §2.2).
    Resumed,
}

/// What the peer showed of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerCertificate {
    /// No certificate (a client that has none).
    Nothing,
    /// A certificate, whose private key the peer proved to hold.
    Certificate(Box<CertificateFacts>),
    /// A certificate with a key that cannot be checked: nothing proves that it is the peer's, so nothing of it
    /// counts.
    Unproved(UncheckableKey),
}

/// What a certificate says, and whether it stands under the trust anchors it was held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its DNS names (SAN), those that are well-formed.
    pub names: Vec<NamePattern>,
    /// Whether a path to one of the connector's trust anchors was found, where one was looked for.
    pub chain: Result<(), ChainFault>,
    /// The same for `[tls] trust`, which published policies are held against.
    pub default_chain: Result<(), ChainFault>,
    /// Its public key.
    pub key: Pin,
    /// Who issued it, in words.
    pub issuer: String,
    /// When it expires.
    pub not_after: Timestamp,
    /// What TLSA records say of it.
    pub dane: DaneFacts,
}

impl CertificateFacts {
    /// The first of its names that is one of those wanted.
    #[must_use]
    pub fn carries(&self, wanted: &[NamePattern]) -> Option<&NamePattern> {
        self.names.iter().find(|name| wanted.iter().any(|wanted| wanted.accepts(name)))
    }
}

/// Why a certificate does not stand under our trust anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainFault {
    /// Signed by itself, and not a trust anchor.
    SelfSigned,
    /// Issued by an authority that we do not trust; its name.
    UnknownIssuer(String),
    /// Its time is over.
    Expired(Timestamp),
    /// Its time has not come.
    NotYetValid(Timestamp),
    /// No path was looked for: no demand asked for one.
    NotChecked,
    /// Anything else, in words.
    Invalid(String),
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SelfSigned => f.write_str("it is self-signed"),
            Self::UnknownIssuer(issuer) => write!(f, "its issuer ({issuer}) is not trusted"),
            Self::Expired(at) => write!(f, "it expired on {at}"),
            Self::NotYetValid(at) => write!(f, "it is not valid before {at}"),
            Self::NotChecked => f.write_str("it was not checked"),
            Self::Invalid(fault) => f.write_str(fault),
        }
    }
}
