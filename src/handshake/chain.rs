//! The verdict on a chain: a certificate stands under trust anchors (RFC 5280 §6), or the reason why not, in the
//! words of [`ChainFault`].

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::X509Certificate;

use super::path::{Issuers, Search};
use super::{Role, TrustAnchors, certificate, fault, usage};
use crate::tls::ChainFault;

/// Looks for a path from `leaf` over what the peer sent with it to an anchor.
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
        return check_alone(&readable, role, now);
    }
    let search = Search { leaf, issuers, anchors: trust.anchors(), algorithms: trust.algorithms(), role, now };
    let Err(no_path) = search.run() else { return Ok(()) };
    // Whatever else is wrong with it: its owner must get another certificate, or we must list this one.
    if certificate::is_self_signed(&readable, trust.algorithms()) {
        return Err(ChainFault::SelfSigned);
    }
    Err(fault::of(&no_path, &search, trust.unfit()))
}

/// A certificate that the administrator has listed itself needs no issuer, but it does end.
fn check_alone(leaf: &X509Certificate<'_>, role: Role, now: Timestamp) -> Result<(), ChainFault> {
    let (begins, ends) = certificate::validity(leaf);
    if now > ends {
        Err(ChainFault::Expired(ends))
    } else if now < begins {
        Err(ChainFault::NotYetValid(begins))
    } else {
        usage::allows_tls(leaf, role).map_err(|why| ChainFault::Invalid(why.to_owned()))
    }
}
