//! Reading one certificate (RFC 5280), also such as rustls-webpki refuses: version 1, or with critical
//! extensions that nobody knows.

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::{EndEntityCert, RawPublicKeyEntity};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::x509::X509Name;

use super::leaf::CheckableKey;
use crate::tls::{NamePattern, Pin};

/// Characters of a distinguished name that are shown, at most: a peer's certificate ends up in logs.
const NAME_SHOWN: usize = 200;

/// Reads a certificate, if it is one at all.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

/// The public key, as a whole `SubjectPublicKeyInfo`.
pub(super) fn public_key(der: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    if let Ok(certificate) = EndEntityCert::try_from(der) {
        return Some(certificate.subject_public_key_info());
    }
    parse(der).map(|certificate| SubjectPublicKeyInfoDer::from(certificate.public_key().raw.to_vec()))
}

/// The hash by which a public key is pinned.
pub(super) fn pin(key: &CheckableKey) -> Pin {
    hash(key.spki())
}

/// The hash of a public key, whoever holds it.
pub(super) fn hash(key: &SubjectPublicKeyInfoDer<'_>) -> Pin {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_ref());
    let mut hash = [0; 32];
    // SHA-256 has 32 octets.
    hash.copy_from_slice(digest.as_ref());
    Pin::new(hash)
}

/// Who issued the certificate, for people, and when it ends.
pub(super) fn issuer_and_end(der: &CertificateDer<'_>) -> (String, Timestamp) {
    match parse(der) {
        Some(read) => (readable(read.issuer()), validity(&read).1),
        // Only a key that could be read gets a certificate this far; what cannot be read has no end either.
        None => ("without a name".to_owned(), Timestamp::MIN),
    }
}

/// The DNS names (SAN), those that are well-formed.
pub(super) fn dns_names(der: &CertificateDer<'_>) -> Vec<NamePattern> {
    if let Ok(certificate) = EndEntityCert::try_from(der) {
        return certificate.valid_dns_names().filter_map(|name| NamePattern::parse(name).ok()).collect();
    }
    let Some(certificate) = parse(der) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns_name = |name: &GeneralName<'_>| match name {
        // A U-label has no place in a certificate (RFC 5280 §7.2).
        GeneralName::DNSName(name) if name.is_ascii() => NamePattern::parse(name).ok(),
        _ => None,
    };
    names.value.general_names.iter().filter_map(dns_name).collect()
}

/// When the certificate begins and ends.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    // A date that jiff cannot hold is after the year 9999, where RFC 5280 §4.1.2.5 puts "never".
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    let validity = certificate.validity();
    (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()))
}

/// Whether the certificate names itself as its issuer and is signed with its own key.
pub(super) fn is_self_signed(
    certificate: &X509Certificate<'_>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> bool {
    if certificate.issuer().as_raw() != certificate.subject().as_raw() {
        return false;
    }
    let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else { return false };
    let (message, signature) = (certificate.tbs_certificate.as_ref(), certificate.signature_value.data.as_ref());
    algorithms.iter().any(|algorithm| key.verify_signature(*algorithm, message, signature).is_ok())
}

/// Whether other certificates can be issued under this one. Version 1 cannot say so; a root of that
/// age is one by being trusted.
pub(super) fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let self_issued = certificate.issuer().as_raw() == certificate.subject().as_raw();
    certificate.is_ca() || (certificate.version() == X509Version::V1 && self_issued)
}

/// The subject of a certificate, for people.
pub(super) fn subject(der: &CertificateDer<'_>) -> String {
    parse(der).map_or_else(|| "without a name".to_owned(), |certificate| readable(certificate.subject()))
}

/// A distinguished name for people: bounded, on one line.
pub(super) fn readable(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    let mut shown: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(NAME_SHOWN).collect();
    if text.chars().nth(NAME_SHOWN).is_some() {
        shown.push('…');
    }
    if shown.is_empty() { "without a name".to_owned() } else { shown }
}
