//! Chain validation: checks that a certificate chains to a trust anchor (RFC 5280 §6), or returns
//! the reason as a [`ChainFault`].

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::X509Certificate;

use super::path_search::{Issuers, PathSearch};
use super::{Role, TrustAnchors, certificate, path_fault, usage};
use crate::policy::tls::ChainFault;

/// Searches for a path from `leaf` over the certificates that the peer sent to an anchor.
pub(super) fn check(
    leaf: &CertificateDer<'_>,
    issuers: &Issuers<'_>,
    trust: &TrustAnchors,
    role: Role,
    now: Timestamp,
) -> Result<(), ChainFault> {
    let Some(readable) = certificate::parse(leaf) else {
        return Err(ChainFault::Invalid("it is malformed".to_owned()));
    };
    if trust.lists(leaf) {
        return check_listed(&readable, role, now);
    }
    let search = PathSearch {
        leaf,
        issuers,
        anchors: trust.anchors(),
        algorithms: trust.algorithms(),
        role,
        now,
    };
    let Err(no_path) = search.run() else {
        return Ok(());
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
