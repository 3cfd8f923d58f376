//! Holding a certificate against TLSA records (RFC 6698 §2.1, RFC 7671 §5, RFC 7672 §3.1).
//!
//! The records are secure and usable already. A DANE-EE record is met by the peer's own certificate or
//! key and by nothing else; a DANE-TA record by an authority that the peer sent along, or whose key it
//! gives in full, with a valid path from it to a certificate of the right name.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

use super::{Role, certificate, chain};
use crate::tls::{ChainFault, DaneFault, NamePattern, Tlsa, TlsaMatching, TlsaSelector, TlsaSet, TlsaUsage};

/// Authorities that are tried for one record, at most: each costs a search for a path, and the peer decides
/// how many certificates it sends.
const ANCHORS_MAX: usize = 4;

/// The record that a certificate matches, or why none does. DANE-EE first: it needs no path.
pub(super) fn find(
    set: &TlsaSet,
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    names: &[NamePattern],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    now: Timestamp,
) -> Result<Tlsa, DaneFault> {
    let mine = |usage: TlsaUsage| set.records.iter().filter(move |record| record.usage == usage);
    if let Some(record) = mine(TlsaUsage::EndEntity).find(|record| names_it(record, leaf)) {
        return Ok(record.clone());
    }
    let mut fault = DaneFault::NoMatch { records: set.records.len() };
    for record in mine(TlsaUsage::TrustAnchor) {
        for anchor in anchors(record, leaf, others) {
            match path(leaf, others, &anchor, algorithms, now) {
                Ok(()) if names.iter().any(|name| set.names.iter().any(|wanted| wanted.accepts(name))) => {
                    return Ok(record.clone());
                }
                Ok(()) => fault = DaneFault::Name { wanted: set.names.clone(), presented: names.to_vec() },
                // That a name is wrong tells more: there a path was found.
                Err(_) if matches!(fault, DaneFault::Name { .. }) => {}
                Err(why) => fault = DaneFault::Path(why),
            }
        }
    }
    Err(fault)
}

/// Whether a record is about this certificate, or its key.
fn names_it(record: &Tlsa, certificate: &CertificateDer<'_>) -> bool {
    match record.selector {
        TlsaSelector::Certificate => matches(record, certificate),
        TlsaSelector::PublicKey => certificate::public_key(certificate).is_some_and(|key| matches(record, &key)),
    }
}

fn matches(record: &Tlsa, octets: &[u8]) -> bool {
    match record.matching {
        TlsaMatching::Full => octets == record.data,
        TlsaMatching::Sha256 => digest(&SHA256, octets).as_ref() == record.data,
        TlsaMatching::Sha512 => digest(&SHA512, octets).as_ref() == record.data,
    }
}

/// The authorities that a record names: those that were sent along, and the one that the record gives in
/// full. The peer's own certificate may be its own authority (RFC 7671 §5.2.2 does not rule it out).
fn anchors(record: &Tlsa, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Vec<TrustAnchor<'static>> {
    let given = match (record.selector, record.matching) {
        (TlsaSelector::Certificate, TlsaMatching::Full) => Some(CertificateDer::from(record.data.clone())),
        (TlsaSelector::Certificate | TlsaSelector::PublicKey, _) => None,
    };
    let sent = std::iter::once(leaf).chain(others).filter(|other| names_it(record, other));
    let mut seen = Vec::new();
    let sent = sent.chain(given.as_ref()).filter(|der| {
        let is_new = !seen.contains(der);
        seen.push(*der);
        is_new
    });
    sent.take(ANCHORS_MAX)
        .filter_map(|der| anchor_from_trusted_cert(der).ok().map(|anchor| anchor.to_owned()))
        .collect()
}

fn path(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    anchor: &TrustAnchor<'_>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    now: Timestamp,
) -> Result<(), ChainFault> {
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)));
    let anchors = std::slice::from_ref(anchor);
    let found: Result<(), Error> = EndEntityCert::try_from(leaf).and_then(|certificate| {
        certificate.verify_for_usage(algorithms, anchors, others, time, KeyUsage::server_auth(), None, None).map(|_| ())
    });
    found.map_err(|error| chain::fault(&error, leaf, others, Role::Server))
}
