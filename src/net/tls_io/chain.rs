//! Chain validation: checks that a certificate chains to a trust anchor (RFC 5280 §6), or returns
//! the reason as a [`ChainFault`].

use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::X509Certificate;

use super::path_search::{FoundPath, Issuers, PathSearch};
use super::{Role, TrustAnchors, certificate, path_fault, usage};
use crate::net::revocation::{Crl, PathCertificate};
use crate::policy::tls::ChainFault;

/// Searches for a path from `leaf` over the certificates that the peer sent to an anchor. With
/// `crls` the path's certificates below the anchor are returned; without, none are.
///
/// A listed certificate is an anchor itself, but may be revoked nevertheless. If no path leads to its
/// issuer, it is returned without one, unless it has signed itself.
pub(super) fn check(
    leaf: &CertificateDer<'_>,
    issuers: &Issuers<'_>,
    trust: &TrustAnchors,
    crls: Option<&[Arc<Crl>]>,
    role: Role,
    now: Timestamp,
) -> Result<Vec<PathCertificate>, ChainFault> {
    let Some(readable) = certificate::parse(leaf) else {
        return Err(ChainFault::Invalid("it is malformed".to_owned()));
    };
    let search = PathSearch {
        leaf,
        issuers,
        anchors: trust.anchors(),
        algorithms: trust.algorithms(),
        role,
        now,
        crls,
    };
    let below_anchor = |found: FoundPath| found.certificates;
    if trust.lists(leaf) {
        check_listed(&readable, role, now)?;
        if crls.is_none() || certificate::is_self_signed(&readable, trust.algorithms()) {
            return Ok(Vec::new());
        }
        return Ok(match search.run() {
            Ok(found) => below_anchor(found),
            Err(_) => PathCertificate::without_issuer(leaf).into_iter().collect(),
        });
    }
    let no_path = match search.run() {
        Ok(found) => return Ok(below_anchor(found)),
        Err(no_path) => no_path,
    };
    // Self-signed is the useful reason: either the owner gets another certificate, or we list this
    // one.
    if certificate::is_self_signed(&readable, trust.algorithms()) {
        return Err(ChainFault::SelfSigned);
    }
    Err(path_fault::describe(&no_path, &search, trust.unusable()))
}

/// Checks a certificate that the PEM file lists. It needs no issuer, but its validity period
/// counts.
fn check_listed(leaf: &X509Certificate<'_>, role: Role, now: Timestamp) -> Result<(), ChainFault> {
    let (begins, ends) = certificate::validity(leaf);
    if now > ends {
        Err(ChainFault::Expired(ends))
    } else if now < begins {
        Err(ChainFault::NotYetValid(begins))
    } else {
        usage::allows_tls(leaf, role).map_err(|fault| ChainFault::Invalid(fault.to_string()))
    }
}
