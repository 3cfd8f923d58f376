//! Reading of a certificate (RFC 5280), including those that rustls-webpki rejects: version 1, or
//! unknown critical extensions.

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::{EndEntityCert, RawPublicKeyEntity};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::x509::X509Name;

use crate::policy::tls::{NamePattern, Pin};

/// The most characters of a distinguished name that are shown, since a peer's certificate appears
/// in logs.
const NAME_SHOWN_MAX: usize = 200;

/// Parses a certificate. `None` if it is malformed.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der)
        .ok()
        .map(|(_, certificate)| certificate)
}

/// Returns the public key as a whole `SubjectPublicKeyInfo`.
pub(super) fn public_key(der: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    if let Ok(certificate) = EndEntityCert::try_from(der) {
        return Some(certificate.subject_public_key_info());
    }
    parse(der)
        .map(|certificate| SubjectPublicKeyInfoDer::from(certificate.public_key().raw.to_vec()))
}

/// Returns the hash of a public key that may be unproved.
pub(super) fn key_hash(key: &SubjectPublicKeyInfoDer<'_>) -> Pin {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_ref());
    let mut hash = [0; 32];
    // A SHA-256 has 32 octets.
    hash.copy_from_slice(digest.as_ref());
    Pin::new(hash)
}

/// Returns the issuer's name and the end of the validity period.
pub(super) fn issuer_and_end(der: &CertificateDer<'_>) -> (String, Timestamp) {
    match parse(der) {
        Some(read) => (readable_name(read.issuer()), validity(&read).1),
        // rustls-webpki can read the key of a certificate that x509-parser cannot read. Its end is
        // not known.
        None => ("without a name".to_owned(), Timestamp::MIN),
    }
}

/// Returns the well-formed DNS names (subjectAltName).
// Rule: RFC 9525 §3, §6.3.
pub(super) fn dns_names(der: &CertificateDer<'_>) -> Vec<NamePattern> {
    if let Ok(certificate) = EndEntityCert::try_from(der) {
        return certificate
            .valid_dns_names()
            .filter_map(|name| NamePattern::parse(name).ok())
            .collect();
    }
    let Some(certificate) = parse(der) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let dns_name = |name: &GeneralName<'_>| match name {
        // A U-label is not allowed in a certificate (RFC 5280 §7.2).
        GeneralName::DNSName(name) if name.is_ascii() => NamePattern::parse(name).ok(),
        _ => None,
    };
    names
        .value
        .general_names
        .iter()
        .filter_map(dns_name)
        .collect()
}

/// Returns the start and the end of the validity period.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    // A date that jiff cannot hold is after the year 9999, which RFC 5280 §4.1.2.5 uses for
    // "never".
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    let validity = certificate.validity();
    (
        time(validity.not_before.timestamp()),
        time(validity.not_after.timestamp()),
    )
}

/// Returns true if the certificate is its own issuer and is signed with its own key.
pub(super) fn is_self_signed(
    certificate: &X509Certificate<'_>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> bool {
    if certificate.issuer().as_raw() != certificate.subject().as_raw() {
        return false;
    }
    let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else {
        return false;
    };
    let (message, signature) = (
        certificate.tbs_certificate.as_ref(),
        certificate.signature_value.data.as_ref(),
    );
    algorithms
        .iter()
        .any(|algorithm| key.verify_signature(*algorithm, message, signature).is_ok())
}

/// Returns true if certificates can be issued under this one. A version 1 certificate cannot say
/// so; as a root it becomes an authority by being trusted.
pub(super) fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let self_issued = certificate.issuer().as_raw() == certificate.subject().as_raw();
    certificate.is_ca() || (certificate.version() == X509Version::V1 && self_issued)
}

/// Returns the subject's name.
pub(super) fn subject_name(der: &CertificateDer<'_>) -> String {
    parse(der).map_or_else(
        || "without a name".to_owned(),
        |certificate| readable_name(certificate.subject()),
    )
}

/// Formats a distinguished name on one line, with a limit on its length.
pub(super) fn readable_name(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    let mut shown: String = text
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(NAME_SHOWN_MAX)
        .collect();
    if text.chars().nth(NAME_SHOWN_MAX).is_some() {
        shown.push('…');
    }
    if shown.is_empty() {
        "without a name".to_owned()
    } else {
        shown
    }
}
