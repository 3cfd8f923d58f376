//! The fetch of one CRL: the request, the response, and the checks of what is fetched.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use rustls::pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};

use super::{Crl, CrlError, PathCertificate};

/// The most octets of a CRL that is fetched.
pub const FETCHED_OCTETS_MAX: usize = 16 << 20;
/// The most URLs of a certificate that are tried.
const URLS_MAX: usize = 2;
/// The most octets of an entity tag or a date that is kept.
const VALIDATOR_MAX: usize = 200;

/// The addresses from which a CRL may be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those of the Internet: the anchors are public authorities.
    Public,
    /// Those of private networks too: the anchors are in a file of the administrator.
    Private,
}

/// The version of a response, by which a server recognises that nothing has changed (RFC 9110
/// §8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrlValidators {
    /// The value of `ETag`.
    pub etag: Option<String>,
    /// The value of `Last-Modified`.
    pub last_modified: Option<String>,
}

impl CrlValidators {
    /// Keeps the values that are short and printable ASCII.
    #[must_use]
    pub fn new(etag: Option<&str>, last_modified: Option<&str>) -> Self {
        let usable = |value: Option<&str>| {
            value
                .filter(|value| {
                    let is_printable = |octet: u8| octet.is_ascii_graphic() || octet == b' ';
                    value.len() <= VALIDATOR_MAX && value.bytes().all(is_printable)
                })
                .map(str::to_owned)
        };
        Self {
            etag: usable(etag),
            last_modified: usable(last_modified),
        }
    }
}

/// The request for a CRL.
#[derive(Debug, Clone, Copy)]
pub struct CrlRequest<'a> {
    /// An `http` URL.
    pub url: &'a str,
    /// The addresses at which it may be.
    pub reach: Reach,
    /// The version that is held, if it is still current.
    pub held: Option<&'a CrlValidators>,
}

/// The response to a request for a CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrlResponse {
    /// The content, of at most [`FETCHED_OCTETS_MAX`] octets, and its version.
    Content(Bytes, CrlValidators),
    /// The version that is held is still the newest.
    Unchanged,
}

/// The reason why a URL yields no content.
pub type TransferError = Box<dyn Error + Send + Sync>;

/// The future of a fetch.
pub type CrlFuture<'a> =
    Pin<Box<dyn Future<Output = Result<CrlResponse, TransferError>> + Send + 'a>>;

/// Access to the web, by which CRLs are fetched.
pub trait FetchCrl: Send + Sync {
    /// Returns the content of a URL, within a limited time.
    fn fetch<'a>(&'a self, request: CrlRequest<'a>) -> CrlFuture<'a>;
}

/// The reason why a URL yields no CRL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchFault {
    /// The transfer failed.
    #[error("{0}")]
    Transfer(String),
    /// The content is not usable.
    #[error("{0}")]
    Unusable(#[from] CrlError),
    /// The CRL is of this other issuer.
    #[error("it is of another issuer ({0})")]
    OtherIssuer(String),
    /// The issuer of the certificate has not signed the CRL.
    #[error("its signature is not by the issuer of the certificate")]
    Signature,
    /// The CRL, issued at the first time, is older than the one that is held, of the second.
    #[error("it was issued on {0}, before the one that is held ({1})")]
    Older(Timestamp, Timestamp),
    /// The CRL expired at this time.
    #[error("it expired on {0}")]
    Expired(Timestamp),
    /// The fetch took longer than this.
    #[error("it took longer than {0:?}")]
    Timeout(Duration),
}

/// The distribution point of an issuer's CRL: its first URL, and a hash of the issuer's name and key.
/// The hash keeps apart what two issuers publish, so that neither disturbs the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PointKey {
    pub(super) url: String,
    pub(super) issuer: String,
}

impl PointKey {
    /// The host of the URL with its port.
    pub(super) fn host(&self) -> &str {
        let after_scheme = self.url.get(SCHEME.len()..).unwrap_or_default();
        let end = after_scheme.find(['/', '?', '#']);
        &after_scheme[..end.unwrap_or(after_scheme.len())]
    }
}

/// The facts about a certificate that the fetch of its CRL needs.
#[derive(Debug, Clone)]
pub(super) struct CrlNeed {
    pub(super) urls: Vec<String>,
    pub(super) reach: Reach,
    /// A hash of the name and the key of the path's anchor, which answers for what is named below it.
    pub(super) anchor: String,
    /// The content of the issuer's name.
    issuer: Vec<u8>,
    issuer_key: SubjectPublicKeyInfoDer<'static>,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

impl CrlNeed {
    /// Returns the need of a certificate, and its distribution point. `None` if it names no `http`
    /// URL, or if its issuer may not sign CRLs.
    pub(super) fn of(
        certificate: &PathCertificate,
        (anchor, reach): (&str, Reach),
        algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    ) -> Option<(PointKey, Self)> {
        let issuer_key = certificate.crl_key()?.clone();
        let urls: Vec<String> = http_urls(certificate)
            .take(URLS_MAX)
            .map(str::to_owned)
            .collect();
        let key = PointKey {
            url: urls.first()?.clone(),
            issuer: fingerprint(certificate.issuer(), &issuer_key),
        };
        let need = Self {
            urls,
            reach,
            anchor: anchor.to_owned(),
            issuer: certificate.issuer().to_vec(),
            issuer_key,
            algorithms,
        };
        Some((key, need))
    }

    /// Returns the need of a certificate that an authority with this certificate has issued.
    #[cfg(test)]
    pub(super) fn sample(url: &str, authority: &rustls::pki_types::CertificateDer<'_>) -> Self {
        use x509_parser::asn1_rs::{Any, FromDer as _};
        let (_, read) = x509_parser::parse_x509_certificate(authority).expect("a certificate");
        let (_, name) = Any::from_der(read.subject().as_raw()).expect("a name");
        Self {
            urls: vec![url.to_owned()],
            reach: Reach::Public,
            anchor: "an anchor".to_owned(),
            issuer: name.data.to_vec(),
            issuer_key: SubjectPublicKeyInfoDer::from(read.public_key().raw.to_vec()),
            algorithms: rustls::crypto::aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .all,
        }
    }

    /// Returns true if the issuer has signed a CRL. A file may have been changed.
    pub(super) fn is_signed(&self, crl: &Crl) -> bool {
        crl.is_of(&self.issuer) && crl.is_signed_with(&self.issuer_key, self.algorithms)
    }

    /// Parses what was fetched, and checks that it is the issuer's and no older than the one that is
    /// held. This takes a while for a large CRL, and blocks.
    // Rule: RFC 5280 §6.3.3; policy table (revocation).
    pub(super) fn check(&self, octets: &[u8], held: Option<&Crl>) -> Result<Arc<Crl>, FetchFault> {
        let mut fault = FetchFault::Unusable(CrlError::NotCrl);
        for crl in Crl::parse_all(octets)? {
            let held_since = held.map(Crl::this_update);
            if !crl.is_of(&self.issuer) {
                fault = FetchFault::OtherIssuer(crl.issuer().to_owned());
            } else if !crl.is_signed_with(&self.issuer_key, self.algorithms) {
                fault = FetchFault::Signature;
            } else if let Some(since) = held_since.filter(|since| crl.this_update() < *since) {
                fault = FetchFault::Older(crl.this_update(), since);
            } else {
                return Ok(Arc::new(crl));
            }
        }
        Err(fault)
    }
}

/// The scheme of the URLs that are used.
const SCHEME: &str = "http://";

/// Returns the `http` URLs of a certificate's distribution points; those of other schemes, such as
/// `ldap`, are left out.
// Rule: RFC 5280 §4.2.1.13; policy table (revocation).
pub(super) fn http_urls(certificate: &PathCertificate) -> impl Iterator<Item = &str> {
    let is_http = |url: &&String| {
        url.get(..SCHEME.len())
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
    };
    certificate
        .distribution_points()
        .iter()
        .filter(is_http)
        .map(String::as_str)
}

/// Returns a hash of the name and the key of a path's anchor. `None` if the path is empty, or if its
/// last certificate has no known issuer.
pub(super) fn anchor_of(path: &[PathCertificate]) -> Option<String> {
    let last = path.last()?;
    Some(fingerprint(last.issuer(), last.crl_key()?))
}

/// Returns a hash of an issuer's name and key, in hexadecimal digits.
fn fingerprint(issuer: &[u8], key: &SubjectPublicKeyInfoDer<'_>) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(&issuer.len().to_be_bytes());
    hash.update(issuer);
    hash.update(key.as_ref());
    HEXLOWER.encode(hash.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_point_has_a_host() {
        for (url, host) in [
            ("http://crl.example/a.crl", "crl.example"),
            ("HTTP://crl.example:8080?x", "crl.example:8080"),
            ("http://", ""),
        ] {
            let key = PointKey {
                url: url.to_owned(),
                issuer: String::new(),
            };
            assert_eq!(key.host(), host, "{url}");
        }
    }

    #[test]
    fn only_short_printable_validators_are_kept() {
        let long = "x".repeat(201);
        for (value, is_kept) in [
            ("\"5f3-1\"", true),
            ("Mon, 30 Nov 2026 12:00:00 GMT", true),
            ("a\r\nHost: b", false),
            (&long, false),
        ] {
            let kept = CrlValidators::new(Some(value), Some(value));
            assert_eq!(
                (kept.etag.is_some(), kept.last_modified.is_some()),
                (is_kept, is_kept)
            );
        }
    }
}
