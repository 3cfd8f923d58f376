//! Comparison of certificates with TLSA records (RFC 6698 §2.1, RFC 7671 §5, RFC 7672 §3.1).
//!
//! The records are already known to be secure and usable. A DANE-EE record matches the peer's own
//! certificate or key. A DANE-TA record matches an authority that the peer sent, or that the record
//! contains in full; then a valid path must lead to it from a certificate with the right name.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};

use super::anchor::{self, AnchorFault};
use super::path_search::{Issuers, PathSearch};
use super::{Role, certificate, path_fault};
use crate::policy::tls::{
    ChainFault, DaneFault, NamePattern, Tlsa, TlsaMatching, TlsaSelector, TlsaSet, TlsaUsage,
};

/// The most authorities that are tried, since the peer's domain decides how many its records name.
const ANCHORS_MAX: usize = 8;

/// Returns the record that a certificate matches, or the reason why none does. DANE-EE comes first,
/// because it needs no path.
// Rule: RFC 7672 §3.1.1, §3.2.1.
pub(super) fn find_match(
    set: &TlsaSet,
    leaf: &CertificateDer<'_>,
    issuers: &Issuers<'_>,
    presented: &[NamePattern],
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    now: Timestamp,
) -> Result<Tlsa, DaneFault> {
    let of_usage = |usage: TlsaUsage| {
        set.records
            .iter()
            .filter(move |record| record.usage == usage)
    };
    if let Some(record) = of_usage(TlsaUsage::EndEntity).find(|record| is_about(record, leaf)) {
        return Ok(record.clone());
    }
    let named = NamedAuthorities::new(of_usage(TlsaUsage::TrustAnchor), leaf, issuers, algorithms);
    if named.anchors.is_empty() {
        return Err(match named.unusable {
            Some(why) => {
                let why = format!(
                    "the authority that is named cannot be trusted: {}",
                    why.describe()
                );
                DaneFault::Path(ChainFault::Invalid(why))
            }
            None => DaneFault::NoMatch {
                records: set.records.len(),
            },
        });
    }
    let search = PathSearch {
        leaf,
        issuers,
        anchors: &named.anchors,
        algorithms,
        role: Role::Server,
        now,
        crls: None,
    };
    match search.run() {
        Ok(_)
            if !presented
                .iter()
                .any(|name| set.names.iter().any(|wanted| wanted.accepts(name))) =>
        {
            Err(DaneFault::Name {
                wanted: set.names.clone(),
                presented: presented.to_vec(),
            })
        }
        Ok(found) => Ok(named.records[found.anchor].clone()),
        Err(no_path) => Err(DaneFault::Path(path_fault::describe(
            &no_path,
            &search,
            &[],
        ))),
    }
}

/// The authorities that DANE-TA records name: those that the peer sent, and those that a record
/// contains in full. The peer's own certificate may be its own authority (RFC 7671 §5.2.2 does not
/// exclude it).
// Rule: RFC 7672 §3.1.2.
#[derive(Default)]
struct NamedAuthorities<'a> {
    anchors: Vec<TrustAnchor<'static>>,
    /// The record that names each anchor.
    records: Vec<&'a Tlsa>,
    /// The reason why a named authority is not among them.
    unusable: Option<AnchorFault>,
}

impl<'a> NamedAuthorities<'a> {
    fn new(
        records: impl Iterator<Item = &'a Tlsa>,
        leaf: &CertificateDer<'_>,
        issuers: &Issuers<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Self {
        let mut all = Self::default();
        let mut known: Vec<Vec<u8>> = Vec::new();
        for record in records {
            let contained = match (record.selector, record.matching) {
                (TlsaSelector::Certificate, TlsaMatching::Full) => {
                    Some(CertificateDer::from(record.data.clone()))
                }
                (TlsaSelector::Certificate | TlsaSelector::PublicKey, _) => None,
            };
            let sent = std::iter::once(leaf)
                .chain(issuers.certificates())
                .filter(|sent| is_about(record, sent));
            for der in sent.chain(contained.as_ref()) {
                if known.len() < ANCHORS_MAX && !known.iter().any(|known| known == der.as_ref()) {
                    known.push(der.to_vec());
                    all.add(record, der, algorithms);
                }
            }
        }
        all
    }

    fn add(
        &mut self,
        record: &'a Tlsa,
        der: &CertificateDer<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) {
        // Data that is no certificate names no authority.
        let Some(read) = certificate::parse(der) else {
            return;
        };
        match anchor::from_certificate(der, &read, algorithms) {
            Ok(anchor) => {
                self.anchors.push(anchor);
                self.records.push(record);
            }
            Err(AnchorFault::Encoding) => {}
            Err(why) => self.unusable = Some(why),
        }
    }
}

/// Returns true if a record matches this certificate or its key.
fn is_about(record: &Tlsa, certificate: &CertificateDer<'_>) -> bool {
    match record.selector {
        TlsaSelector::Certificate => matches(record, certificate),
        TlsaSelector::PublicKey => {
            certificate::public_key(certificate).is_some_and(|key| matches(record, &key))
        }
    }
}

// Rule: RFC 7672 §3.1.2.
fn matches(record: &Tlsa, octets: &[u8]) -> bool {
    match record.matching {
        TlsaMatching::Full => octets == record.data,
        TlsaMatching::Sha256 => digest(&SHA256, octets).as_ref() == record.data,
        TlsaMatching::Sha512 => digest(&SHA512, octets).as_ref() == record.data,
    }
}
