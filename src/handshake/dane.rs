//! Holding a certificate against TLSA records (RFC 6698 §2.1, RFC 7671 §5, RFC 7672 §3.1).
//!
//! The records are secure and usable already. A DANE-EE record is met by the peer's own certificate or
//! key and by nothing else; a DANE-TA record by an authority that the peer sent along, or whose key it
//! gives in full, with a valid path from it to a certificate of the right name.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};

use super::anchor::{self, AnchorFault};
use super::path::{Issuers, Search};
use super::{Role, certificate, fault};
use crate::tls::{ChainFault, DaneFault, NamePattern, Tlsa, TlsaMatching, TlsaSelector, TlsaSet, TlsaUsage};

/// Authorities that are tried, at most: the peer's domain decides how many its records name.
const ANCHORS_MAX: usize = 8;

/// The record that a certificate matches, or why none does. DANE-EE first: it needs no path.
pub(super) fn find(
    set: &TlsaSet,
    leaf: &CertificateDer<'_>,
    issuers: &Issuers<'_>,
    presented: &[NamePattern],
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    now: Timestamp,
) -> Result<Tlsa, DaneFault> {
    let mine = |usage: TlsaUsage| set.records.iter().filter(move |record| record.usage == usage);
    if let Some(record) = mine(TlsaUsage::EndEntity).find(|record| names_it(record, leaf)) {
        return Ok(record.clone());
    }
    let named = Named::by(mine(TlsaUsage::TrustAnchor), leaf, issuers, algorithms);
    if named.anchors.is_empty() {
        return Err(match named.unfit {
            Some(why) => {
                let why = format!("the authority that is named cannot be trusted: {}", why.words());
                DaneFault::Path(ChainFault::Invalid(why))
            }
            None => DaneFault::NoMatch { records: set.records.len() },
        });
    }
    let search = Search { leaf, issuers, anchors: &named.anchors, algorithms, role: Role::Server, now };
    match search.run() {
        Ok(_) if !presented.iter().any(|name| set.names.iter().any(|wanted| wanted.accepts(name))) => {
            Err(DaneFault::Name { wanted: set.names.clone(), presented: presented.to_vec() })
        }
        Ok(anchor) => Ok(named.records[anchor].clone()),
        Err(no_path) => Err(DaneFault::Path(fault::of(&no_path, &search, &[]))),
    }
}

/// The authorities that DANE-TA records name: those that were sent along, and those that a record gives in full. The
/// peer's own certificate may be its own authority (RFC 7671 §5.2.2 does not rule it out).
#[derive(Default)]
struct Named<'a> {
    anchors: Vec<TrustAnchor<'static>>,
    /// For each anchor the record that names it.
    records: Vec<&'a Tlsa>,
    /// Why one that is named is not among them.
    unfit: Option<AnchorFault>,
}

impl<'a> Named<'a> {
    fn by(
        records: impl Iterator<Item = &'a Tlsa>,
        leaf: &CertificateDer<'_>,
        issuers: &Issuers<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Self {
        let mut all = Self::default();
        let mut known: Vec<Vec<u8>> = Vec::new();
        for record in records {
            let given = match (record.selector, record.matching) {
                (TlsaSelector::Certificate, TlsaMatching::Full) => Some(CertificateDer::from(record.data.clone())),
                (TlsaSelector::Certificate | TlsaSelector::PublicKey, _) => None,
            };
            let sent = std::iter::once(leaf).chain(issuers.certificates()).filter(|sent| names_it(record, sent));
            for der in sent.chain(given.as_ref()) {
                if known.len() < ANCHORS_MAX && !known.iter().any(|known| known == der.as_ref()) {
                    known.push(der.to_vec());
                    all.add(record, der, algorithms);
                }
            }
        }
        all
    }

    fn add(&mut self, record: &'a Tlsa, der: &CertificateDer<'_>, algorithms: &[&dyn SignatureVerificationAlgorithm]) {
        // What is no certificate names nobody.
        let Some(read) = certificate::parse(der) else { return };
        match anchor::of(der, &read, algorithms) {
            Ok(anchor) => {
                self.anchors.push(anchor);
                self.records.push(record);
            }
            Err(AnchorFault::Encoding) => {}
            Err(why) => self.unfit = Some(why),
        }
    }
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
