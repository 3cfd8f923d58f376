//! A certificate revocation list (RFC 5280 §5): its scope, its entries, and the check of its
//! signature. rustls-webpki checks its form.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateRevocationListDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
};
use webpki::{BorrowedCertRevocationList, CertRevocationList, RawPublicKeyEntity};
use x509_parser::asn1_rs::{Any, BitString, Class, FromDer, Tag};
use x509_parser::extensions::{IssuingDistributionPoint, ParsedExtension, X509Extension};
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AlgorithmIdentifier, X509Name};

use super::crl_error::OCTETS_MAX;
use super::names::{readable_name, urls};
use super::{CrlError, PathCertificate};

/// The most keys for which the result of the check of a signature is kept. An authority has more
/// than one key for a name only while it replaces its key.
const KEYS_MAX: usize = 4;

/// A CRL. Its signature is checked for each issuer that it is used for.
#[derive(Debug)]
pub struct Crl {
    der: Vec<u8>,
    /// The signed part of `der`.
    signed: Range<usize>,
    /// The content of the `AlgorithmIdentifier` of the signature, in `der`.
    algorithm: Range<usize>,
    /// The signature, in `der`.
    signature: Range<usize>,
    /// The content of the issuer's name.
    issuer: Vec<u8>,
    /// The issuer's name, for people.
    issuer_text: String,
    this_update: Timestamp,
    next_update: Timestamp,
    scope: CrlScope,
    revoked: Vec<RevokedEntry>,
    /// The serial numbers of all entries, one behind the other.
    serials: Vec<u8>,
    /// The issuers' keys that the signature was checked with, and the results.
    checked: Mutex<Vec<(SubjectPublicKeyInfoDer<'static>, bool)>>,
}

/// The certificates that a CRL covers, of all that its issuer has issued.
#[derive(Debug, Default)]
struct CrlScope {
    only_hosts: bool,
    only_authorities: bool,
    /// The URLs of its distribution point, one of which the certificate must name too; `None` for
    /// any certificate.
    urls: Option<Vec<String>>,
}

/// An entry of a CRL.
#[derive(Debug, Clone, Copy)]
struct RevokedEntry {
    /// The start of the serial number in `Crl::serials`.
    start: u32,
    length: u8,
    /// The time of revocation, in seconds since 1970.
    since: u32,
}

impl Crl {
    /// Reads a CRL in DER, or all CRLs of a PEM text, at least one.
    ///
    /// # Errors
    /// [`CrlError`] if one of them is not usable.
    pub fn parse_all(octets: &[u8]) -> Result<Vec<Self>, CrlError> {
        // DER begins with a SEQUENCE.
        if octets.first() == Some(&0x30) {
            return Ok(vec![Self::from_der(octets.to_vec())?]);
        }
        let mut all = Vec::new();
        for der in CertificateRevocationListDer::pem_slice_iter(octets) {
            let der = der.map_err(|_| CrlError::NotCrl)?;
            all.push(Self::from_der(der.to_vec())?);
        }
        match all.len() {
            0 if is_web_page(octets) => Err(CrlError::WebPage),
            0 => Err(CrlError::NotCrl),
            _ => Ok(all),
        }
    }

    fn from_der(der: Vec<u8>) -> Result<Self, CrlError> {
        if der.len() > OCTETS_MAX {
            return Err(CrlError::TooLarge);
        }
        let borrowed = BorrowedCertRevocationList::from_der(&der).map_err(|error| {
            if is_version_1(&der) {
                CrlError::Profile
            } else {
                CrlError::of(&error)
            }
        })?;
        let (mut entries, mut serials) = (Vec::new(), Vec::new());
        for entry in &borrowed {
            let entry = entry.map_err(|error| CrlError::of(&error))?;
            let serial = entry.serial_number;
            entries.push(RevokedEntry {
                start: u32::try_from(serials.len()).map_err(|_| CrlError::TooLarge)?,
                length: u8::try_from(serial.len()).map_err(|_| CrlError::NotCrl)?,
                since: u32::try_from(entry.revocation_date.as_secs()).unwrap_or(u32::MAX),
            });
            serials.extend_from_slice(serial);
        }
        entries.sort_by(|one, other| one.serial(&serials).cmp(other.serial(&serials)));
        let issuer = CertRevocationList::from(borrowed).issuer().to_vec();
        let Layout {
            signed,
            algorithm,
            signature,
            issuer_text,
            this_update,
            next_update,
            scope,
        } = Layout::of(&der).ok_or(CrlError::NotCrl)??;
        Ok(Self {
            signed,
            algorithm,
            signature,
            issuer,
            issuer_text,
            this_update,
            next_update,
            scope,
            revoked: entries,
            serials,
            checked: Mutex::default(),
            der,
        })
    }

    /// The octets in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The issuer's name, for people.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer_text
    }

    /// The time at which it was issued.
    #[must_use]
    pub fn this_update(&self) -> Timestamp {
        self.this_update
    }

    /// The time by which the next one is issued. It has expired from then on.
    #[must_use]
    pub fn next_update(&self) -> Timestamp {
        self.next_update
    }

    /// The number of certificates that it lists.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.revoked.len()
    }

    /// Returns true if its issuer has a name with this content.
    pub(super) fn is_of(&self, issuer: &[u8]) -> bool {
        self.issuer == issuer
    }

    /// Returns true if it covers the certificate: it is of the same issuer, and the certificate is
    /// in its scope.
    // Rule: RFC 5280 §6.3.3 (b); policy table (revocation).
    pub(super) fn covers(&self, certificate: &PathCertificate) -> bool {
        let CrlScope {
            only_hosts,
            only_authorities,
            urls,
        } = &self.scope;
        let is_kind = !(*only_hosts && certificate.is_authority()
            || *only_authorities && !certificate.is_authority());
        let is_named = urls.as_ref().is_none_or(|urls| {
            urls.iter()
                .any(|url| certificate.distribution_points().contains(url))
        });
        self.is_of(certificate.issuer()) && is_kind && is_named
    }

    /// Returns true if the owner of this key has signed it. The result is kept.
    // Rule: RFC 5280 §6.3.3 (g); policy table (revocation).
    pub(super) fn is_signed_with(
        &self,
        key: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> bool {
        let known = |checked: &[(SubjectPublicKeyInfoDer<'_>, bool)]| {
            let same = checked.iter().find(|(known, _)| known == key);
            same.map(|(_, is_signed)| *is_signed)
        };
        // No code panics while it holds the lock.
        let checked = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(is_signed) = known(&checked()) {
            return is_signed;
        }
        let is_signed = self.check_signature(key, algorithms);
        let mut checked = checked();
        if checked.len() < KEYS_MAX && known(&checked).is_none() {
            checked.push((key.clone().into_owned(), is_signed));
        }
        is_signed
    }

    fn check_signature(
        &self,
        key: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> bool {
        let Ok(key) = RawPublicKeyEntity::try_from(key) else {
            return false;
        };
        let (message, signature) = (
            &self.der[self.signed.clone()],
            &self.der[self.signature.clone()],
        );
        let named = &self.der[self.algorithm.clone()];
        algorithms
            .iter()
            .filter(|algorithm| algorithm.signature_alg_id().as_ref() == named)
            .any(|algorithm| key.verify_signature(*algorithm, message, signature).is_ok())
    }

    /// Returns the time at which a certificate with this serial number was revoked, if it is
    /// listed.
    pub(super) fn revoked_since(&self, serial: &[u8]) -> Option<Timestamp> {
        let found = self
            .revoked
            .binary_search_by(|entry| entry.serial(&self.serials).cmp(serial))
            .ok()?;
        // Any u32 is a time that a timestamp can hold.
        Timestamp::from_second(i64::from(self.revoked[found].since)).ok()
    }
}

impl RevokedEntry {
    fn serial(self, serials: &[u8]) -> &[u8] {
        let start = usize::try_from(self.start).unwrap_or(usize::MAX);
        serials
            .get(start..start + usize::from(self.length))
            .unwrap_or_default()
    }
}

/// Returns true if octets begin like a CRL of version 1, which has no version number.
fn is_version_1(der: &[u8]) -> bool {
    let first_time = || {
        let (_, list) = Any::from_der(der).ok()?;
        let (_, signed) = Any::from_der(list.data).ok()?;
        let (rest, _) = AlgorithmIdentifier::from_der(signed.data).ok()?;
        let (rest, _) = X509Name::from_der(rest).ok()?;
        ASN1Time::from_der(rest).ok()
    };
    first_time().is_some()
}

fn is_web_page(octets: &[u8]) -> bool {
    let start = octets.trim_ascii_start();
    let begins = |with: &str| {
        start
            .get(..with.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()))
    };
    begins("<!doctype") || begins("<html")
}

/// The places of the parts in the DER, and the parts that rustls-webpki does not return.
struct Layout {
    signed: Range<usize>,
    algorithm: Range<usize>,
    signature: Range<usize>,
    issuer_text: String,
    this_update: Timestamp,
    next_update: Timestamp,
    scope: CrlScope,
}

impl Layout {
    /// Reads a CRL that rustls-webpki has accepted. `None` if it is malformed nevertheless.
    fn of(der: &[u8]) -> Option<Result<Self, CrlError>> {
        let (_, list) = Any::from_der(der).ok()?;
        let start = der.len() - list.data.len();
        let at = |rest: &[u8]| start + list.data.len() - rest.len();
        let (after_signed, signed) = Any::from_der(list.data).ok()?;
        let (after_algorithm, algorithm) = Any::from_der(after_signed).ok()?;
        let (_, signature) = BitString::from_der(after_algorithm).ok()?;
        let algorithm_end = at(after_algorithm);
        let (rest, _version) = Any::from_der(signed.data).ok()?;
        let (rest, _algorithm) = Any::from_der(rest).ok()?;
        let (rest, issuer) = X509Name::from_der(rest).ok()?;
        let (rest, this_update) = ASN1Time::from_der(rest).ok()?;
        let (rest, next_update) = ASN1Time::from_der(rest).ok()?;
        let scope = match CrlScope::of(rest)? {
            Ok(scope) => scope,
            Err(error) => return Some(Err(error)),
        };
        let time = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        Some(Ok(Self {
            signed: start..at(after_signed),
            algorithm: algorithm_end - algorithm.data.len()..algorithm_end,
            // A signature is the end of the list, and has no unused bits.
            signature: der.len() - signature.as_ref().len()..der.len(),
            issuer_text: readable_name(&issuer),
            this_update: time(this_update)?,
            next_update: time(next_update)?,
            scope,
        }))
    }
}

impl CrlScope {
    /// Reads the scope from what follows nextUpdate: the entries and the extensions, both optional.
    fn of(mut rest: &[u8]) -> Option<Result<Self, CrlError>> {
        while !rest.is_empty() {
            let (after, part) = Any::from_der(rest).ok()?;
            rest = after;
            if part.class() != Class::ContextSpecific || part.tag() != Tag(0) {
                continue;
            }
            let (_, extensions) = Any::from_der(part.data).ok()?;
            let mut extensions = extensions.data;
            while !extensions.is_empty() {
                let (after, extension) = X509Extension::from_der(extensions).ok()?;
                extensions = after;
                if extension.oid.to_id_string() == "2.5.29.28" {
                    return match extension.parsed_extension() {
                        ParsedExtension::IssuingDistributionPoint(point) => {
                            Some(Self::of_point(point))
                        }
                        _ => None,
                    };
                }
            }
        }
        Some(Ok(Self::default()))
    }

    fn of_point(point: &IssuingDistributionPoint<'_>) -> Result<Self, CrlError> {
        if point.indirect_crl {
            return Err(CrlError::Indirect);
        }
        if point.only_some_reasons.is_some() || point.only_contains_attribute_certs {
            return Err(CrlError::SomeReasons);
        }
        Ok(Self {
            only_hosts: point.only_contains_user_certs,
            only_authorities: point.only_contains_ca_certs,
            urls: point.distribution_point.as_ref().map(urls),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crl_that_is_too_large_is_named_so() {
        for (octets, error) in [
            (OCTETS_MAX, CrlError::NotCrl),
            (OCTETS_MAX + 1, CrlError::TooLarge),
        ] {
            let der = vec![0x30; octets];
            assert_eq!(Crl::parse_all(&der).err(), Some(error), "{octets}");
        }
    }
}
