//! The certificates of a chain as the peer sent them, for people: nothing here is judged.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::{Seen, certificate};
use crate::tls::{NamePattern, Pin};

/// Certificates of a chain that are shown, at most: a peer may send dozens.
const SHOWN: usize = 10;

/// One certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentCertificate {
    /// One that can be read.
    Readable(Box<CertificateWords>),
    /// Something else in the place of a certificate.
    Malformed,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateWords {
    /// Whose it is, in words.
    pub subject: String,
    /// Who issued it, in words.
    pub issuer: String,
    /// Its DNS names (SAN), those that are well-formed.
    pub names: Vec<NamePattern>,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it expires.
    pub not_after: Timestamp,
    /// Its public key, as it is pinned.
    pub key: Pin,
}

impl Seen {
    /// The chain as it was sent, leaf first: its first ten certificates.
    #[must_use]
    pub fn certificates(&self) -> Vec<SentCertificate> {
        self.chain().iter().take(SHOWN).map(read).collect()
    }
}

fn read(der: &CertificateDer<'_>) -> SentCertificate {
    let (Some(readable), Some(key)) = (certificate::parse(der), certificate::public_key(der)) else {
        return SentCertificate::Malformed;
    };
    let (not_before, not_after) = certificate::validity(&readable);
    SentCertificate::Readable(Box::new(CertificateWords {
        subject: certificate::readable(readable.subject()),
        issuer: certificate::readable(readable.issuer()),
        names: certificate::dns_names(der),
        not_before,
        not_after,
        key: certificate::hash(&key),
    }))
}
