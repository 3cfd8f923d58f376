//! The certificates of a path, as far as revocation concerns them.

use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use webpki::{Cert, EndEntityCert, VerifiedPath, spki_for_anchor};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names::{readable_name, urls};
use crate::policy::tls::PathMember;

/// The most distribution points of a certificate that are used.
const POINTS_MAX: usize = 4;

/// A certificate of a path below the anchor, with its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathCertificate {
    member: PathMember,
    /// The content of the issuer's name.
    issuer: Vec<u8>,
    serial: Vec<u8>,
    is_authority: bool,
    /// `None` if the issuer's certificate is not known.
    issuer_key: Option<SubjectPublicKeyInfoDer<'static>>,
    /// True if the issuer's key usage allows it to sign CRLs.
    issuer_signs_crls: bool,
    distribution_points: Vec<String>,
}

impl PathCertificate {
    /// Returns the certificates of a path below its anchor, the peer's own first.
    #[must_use]
    pub fn of_path(path: &VerifiedPath<'_>) -> Vec<Self> {
        let own: &Cert<'_> = path.end_entity();
        let below: Vec<&Cert<'_>> = std::iter::once(own)
            .chain(path.intermediate_certificates())
            .collect();
        let issuers = below
            .iter()
            .skip(1)
            .map(|issuer| (issuer.subject_public_key_info(), signs_crls(&issuer.der())));
        // The key usage of an anchor is not kept (RFC 5280 §6.1.1 (d)).
        let anchor = (spki_for_anchor(path.anchor()), true);
        below
            .iter()
            .zip(issuers.chain([anchor]))
            .enumerate()
            .map(
                |(at, (certificate, (issuer_key, issuer_signs_crls)))| Self {
                    member: member(at, &certificate.der()),
                    issuer: certificate.issuer().to_vec(),
                    serial: certificate.serial().to_vec(),
                    is_authority: at > 0,
                    issuer_key: Some(issuer_key.into_owned()),
                    issuer_signs_crls,
                    distribution_points: distribution_points(&certificate.der()),
                },
            )
            .collect()
    }

    /// Returns a peer's own certificate that `trust` lists, without its issuer. `None` if it is
    /// malformed.
    #[must_use]
    pub fn without_issuer(der: &CertificateDer<'_>) -> Option<Self> {
        let own = EndEntityCert::try_from(der).ok()?;
        Some(Self {
            member: PathMember::Own,
            issuer: own.issuer().to_vec(),
            serial: own.serial().to_vec(),
            is_authority: false,
            issuer_key: None,
            issuer_signs_crls: false,
            distribution_points: distribution_points(der),
        })
    }

    /// The content of the issuer's name.
    pub(super) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// The certificate, as the TLS judge names it.
    pub(super) fn member(&self) -> &PathMember {
        &self.member
    }

    /// The serial number.
    pub(super) fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The issuer's key, if its key usage allows it to sign CRLs.
    pub(super) fn crl_key(&self) -> Option<&SubjectPublicKeyInfoDer<'static>> {
        self.issuer_key.as_ref().filter(|_| self.issuer_signs_crls)
    }

    /// Returns true if the issuer's certificate is known.
    #[must_use]
    pub fn has_issuer(&self) -> bool {
        self.issuer_key.is_some()
    }

    /// Returns true if it is an authority's certificate.
    pub(super) fn is_authority(&self) -> bool {
        self.is_authority
    }

    /// The URLs at which the issuer publishes the CRL for this certificate.
    #[must_use]
    pub fn distribution_points(&self) -> &[String] {
        &self.distribution_points
    }
}

fn member(at: usize, der: &CertificateDer<'_>) -> PathMember {
    if at == 0 {
        return PathMember::Own;
    }
    PathMember::Issuer(parse(der).map_or_else(
        || "without a name".to_owned(),
        |certificate| readable_name(certificate.subject()),
    ))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der)
        .ok()
        .map(|(_, certificate)| certificate)
}

/// Returns true if a certificate's key usage allows it to sign CRLs, or if it has none.
// Rule: RFC 5280 §6.3.3 (f); policy table (revocation).
fn signs_crls(der: &CertificateDer<'_>) -> bool {
    parse(der).is_some_and(|certificate| match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.crl_sign(),
        Ok(None) => true,
        Err(_) => false,
    })
}

/// Returns the URLs of the distribution points. Those of other issuers and those for some reasons
/// alone are left out.
fn distribution_points(der: &CertificateDer<'_>) -> Vec<String> {
    let Some(certificate) = parse(der) else {
        return Vec::new();
    };
    let points =
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::CRLDistributionPoints(points) => Some(points),
                _ => None,
            });
    points
        .into_iter()
        .flat_map(|points| points.iter())
        .filter(|point| point.crl_issuer.is_none() && point.reasons.is_none())
        .filter_map(|point| point.distribution_point.as_ref())
        .flat_map(urls)
        .take(POINTS_MAX)
        .collect()
}
