//! Whether a certificate stands under trust anchors (RFC 5280 §6, by rustls-webpki), and if not, why,
//! in the words of [`ChainFault`].

use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};
use x509_parser::prelude::X509Certificate;

use super::{Role, TrustAnchors, certificate};
use crate::tls::ChainFault;

/// Looks for a path from `leaf` over `others`, as the peer sent them, to an anchor.
pub(super) fn check(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    trust: &TrustAnchors,
    role: Role,
    now: Timestamp,
) -> Result<(), ChainFault> {
    let Some(readable) = certificate::parse(leaf) else {
        return Err(ChainFault::Invalid("it is malformed".to_owned()));
    };
    if trust.lists(leaf) {
        return check_alone(&readable, role, now);
    }
    let fault = match verify(leaf, others, trust, role, now) {
        Ok(()) => return Ok(()),
        Err(fault) => fault,
    };
    // Whatever else is wrong with it: its owner must get another certificate, or we must list this one.
    if certificate::is_self_signed(&readable, trust.algorithms()) {
        return Err(ChainFault::SelfSigned);
    }
    Err(in_words(&fault, &readable, others, role))
}

/// Why webpki found no path from `leaf`.
pub(super) fn fault(error: &Error, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], role: Role) -> ChainFault {
    match certificate::parse(leaf) {
        Some(readable) => in_words(error, &readable, others, role),
        None => ChainFault::Invalid("it is malformed".to_owned()),
    }
}

fn in_words(error: &Error, leaf: &X509Certificate<'_>, others: &[CertificateDer<'_>], role: Role) -> ChainFault {
    match error {
        Error::UnknownIssuer => ChainFault::UnknownIssuer(missing_issuer(leaf, others)),
        Error::CertExpired { not_after, .. } => expired(leaf, timestamp(*not_after)),
        Error::CertNotValidYet { not_before, .. } => not_yet_valid(leaf, timestamp(*not_before)),
        other => ChainFault::Invalid(words(other, role)),
    }
}

fn verify(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    trust: &TrustAnchors,
    role: Role,
    now: Timestamp,
) -> Result<(), Error> {
    // Before 1970 no certificate is valid, so 0 will do for all of that time.
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)));
    let certificate = EndEntityCert::try_from(leaf)?;
    let verify = |usage| {
        let algorithms = trust.algorithms();
        certificate.verify_for_usage(algorithms, trust.anchors(), others, time, usage, None, None).map(|_| ())
    };
    match role {
        Role::Server => verify(KeyUsage::server_auth()),
        // A mail server that calls us shows the certificate that it has as a server, and public
        // authorities no longer issue them for clients.
        Role::Client => verify(KeyUsage::client_auth()).or_else(|fault| match fault {
            Error::RequiredEkuNotFoundContext(_) => verify(KeyUsage::server_auth()),
            other => Err(other),
        }),
    }
}

/// A certificate that the administrator has listed itself needs no issuer, but it does end.
fn check_alone(leaf: &X509Certificate<'_>, role: Role, now: Timestamp) -> Result<(), ChainFault> {
    let (begins, ends) = certificate::validity(leaf);
    if now > ends {
        Err(ChainFault::Expired(ends))
    } else if now < begins {
        Err(ChainFault::NotYetValid(begins))
    } else if certificate::allows(leaf, role) {
        Ok(())
    } else {
        Err(ChainFault::Invalid(not_meant_for(role)))
    }
}

fn expired(leaf: &X509Certificate<'_>, at: Timestamp) -> ChainFault {
    if certificate::validity(leaf).1 == at {
        ChainFault::Expired(at)
    } else {
        ChainFault::Invalid(format!("the certificate of an issuer of it expired on {at}"))
    }
}

fn not_yet_valid(leaf: &X509Certificate<'_>, at: Timestamp) -> ChainFault {
    if certificate::validity(leaf).0 == at {
        ChainFault::NotYetValid(at)
    } else {
        ChainFault::Invalid(format!("the certificate of an issuer of it is not valid before {at}"))
    }
}

/// The issuer where the chain that was sent ends: neither sent nor trusted.
fn missing_issuer(leaf: &X509Certificate<'_>, others: &[CertificateDer<'_>]) -> String {
    let others: Vec<_> = others.iter().filter_map(certificate::parse).collect();
    let mut top = leaf;
    // No path is longer than what was sent, however its names run in circles.
    for _ in 0..others.len() {
        match others.iter().find(|other| other.subject().as_raw() == top.issuer().as_raw()) {
            Some(issuer) if issuer.issuer().as_raw() != issuer.subject().as_raw() => top = issuer,
            Some(_) | None => break,
        }
    }
    certificate::readable(top.issuer())
}

fn timestamp(time: UnixTime) -> Timestamp {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
}

fn not_meant_for(role: Role) -> String {
    match role {
        Role::Server => "its extended key usage does not include TLS servers".to_owned(),
        Role::Client => "its extended key usage includes neither TLS clients nor TLS servers".to_owned(),
    }
}

fn words(error: &Error, role: Role) -> String {
    match error {
        Error::CaUsedAsEndEntity => "it is the certificate of an authority, not of a host".to_owned(),
        Error::EndEntityUsedAsCa | Error::PathLenConstraintViolated => {
            "an issuer of it is not allowed to issue certificates".to_owned()
        }
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => not_meant_for(role),
        Error::NameConstraintViolation => "its names are not among those that its authority may vouch for".to_owned(),
        Error::InvalidSignatureForPublicKey | Error::SignatureAlgorithmMismatch => {
            "its signature, or one above it, is not by the authority of that name".to_owned()
        }
        Error::UnsupportedSignatureAlgorithmContext(_) | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "it, or an issuer of it, is signed in a way that is not accepted (as SHA-1)".to_owned()
        }
        Error::UnsupportedCertVersion => "it is not an X.509 version 3 certificate".to_owned(),
        Error::UnsupportedCriticalExtension => "it has a critical extension that is not understood".to_owned(),
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) | Error::MalformedExtensions => {
            "it, or an issuer of it, is malformed".to_owned()
        }
        Error::CertDistrusted => "its key is known to be bad".to_owned(),
        other => format!("it cannot be verified ({other:?})").chars().take(200).collect(),
    }
}
