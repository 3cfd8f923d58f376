//! Descriptions of the certificates that a peer sent. Nothing is judged here.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::{CompletedHandshake, TlsPurposes, certificate};
use crate::policy::tls::{NamePattern, Pin};

/// The most certificates of a chain that are shown, since a peer may send dozens.
const SHOWN_MAX: usize = 10;

/// One certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentCertificate {
    /// A readable certificate.
    Readable(Box<CertificateContent>),
    /// Octets that are not a certificate.
    Malformed,
}

/// The content of a certificate, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateContent {
    /// The subject's name.
    pub subject: String,
    /// The issuer's name.
    pub issuer: String,
    /// The well-formed DNS names (subjectAltName).
    pub names: Vec<NamePattern>,
    /// The start of the validity period.
    pub not_before: Timestamp,
    /// The end of the validity period.
    pub not_after: Timestamp,
    /// The TLS purposes that it names.
    pub purposes: TlsPurposes,
    /// The hash of the public key.
    pub key: Pin,
}

impl CompletedHandshake {
    /// Describes the first ten certificates of the chain as sent, leaf first.
    #[must_use]
    pub fn certificates(&self) -> Vec<SentCertificate> {
        self.chain().iter().take(SHOWN_MAX).map(describe).collect()
    }
}

fn describe(der: &CertificateDer<'_>) -> SentCertificate {
    let (Some(readable), Some(key)) = (certificate::parse(der), certificate::public_key(der))
    else {
        return SentCertificate::Malformed;
    };
    let (not_before, not_after) = certificate::validity(&readable);
    SentCertificate::Readable(Box::new(CertificateContent {
        subject: certificate::readable_name(readable.subject()),
        issuer: certificate::readable_name(readable.issuer()),
        names: certificate::dns_names(der),
        not_before,
        not_after,
        purposes: TlsPurposes::of(&readable),
        key: certificate::key_hash(&key),
    }))
}
