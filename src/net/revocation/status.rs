//! The revocation status of the certificates of a path.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::SignatureVerificationAlgorithm;

use super::{Crl, PathCertificate};
use crate::policy::tls::{NoCrl, PathMemberStatus, RevocationStatus};

/// Returns the status by the newest CRL that covers the certificate.
// Rule: RFC 5280 §6.3.3; policy table (revocation).
fn status<'a>(
    certificate: &PathCertificate,
    crls: impl Iterator<Item = &'a Arc<Crl>>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    now: Timestamp,
) -> Option<RevocationStatus> {
    if !certificate.has_issuer() {
        return listed_without_issuer(certificate, crls);
    }
    let key = certificate.crl_key()?;
    let usable = crls.filter(|crl| crl.covers(certificate) && crl.is_signed_with(key, algorithms));
    // Of two that are equally old, one that lists the certificate counts.
    let newest = usable.max_by_key(|crl| {
        (
            crl.this_update(),
            crl.revoked_since(certificate.serial()).is_some(),
            crl.next_update(),
        )
    })?;
    Some(match newest.revoked_since(certificate.serial()) {
        Some(since) => RevocationStatus::Revoked(since),
        None if now < newest.next_update() => RevocationStatus::Good(newest.next_update()),
        None => RevocationStatus::Expired(newest.next_update()),
    })
}

/// Returns the revocation of a certificate whose issuer is not known, by any of these CRLs of an issuer
/// of that name. The signature cannot be checked, so that no CRL shows that the certificate is good.
// Rule: policy table (revocation).
fn listed_without_issuer<'a>(
    certificate: &PathCertificate,
    crls: impl Iterator<Item = &'a Arc<Crl>>,
) -> Option<RevocationStatus> {
    crls.filter(|crl| crl.covers(certificate))
        .find_map(|crl| crl.revoked_since(certificate.serial()))
        .map(RevocationStatus::Revoked)
}

/// Returns true if one of these CRLs revokes a certificate of a path.
#[must_use]
pub fn is_revoked(
    path: &[PathCertificate],
    crls: &[Arc<Crl>],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> bool {
    // The time decides only between a current CRL and one that has expired.
    path.iter().any(|certificate| {
        matches!(
            status(certificate, crls.iter(), algorithms, Timestamp::MIN),
            Some(RevocationStatus::Revoked(_))
        )
    })
}

/// Returns the status of each certificate of a path by these CRLs; `no_crl` returns the reason why
/// none covers a certificate.
#[must_use]
pub fn path_status(
    path: &[PathCertificate],
    crls: &[Arc<Crl>],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    now: Timestamp,
    no_crl: impl Fn(&PathCertificate) -> NoCrl,
) -> Vec<PathMemberStatus> {
    path.iter()
        .map(|certificate| PathMemberStatus {
            certificate: certificate.member().clone(),
            status: status(certificate, crls.iter(), algorithms, now).unwrap_or_else(|| {
                RevocationStatus::Unknown(if certificate.has_issuer() {
                    no_crl(certificate)
                } else {
                    NoCrl::NoIssuer
                })
            }),
        })
        .collect()
}
