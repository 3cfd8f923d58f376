//! Denial by NSEC3 records (RFC 5155 §8).
//!
//! Every record here is signed by the zone that the question is about. Opt-out counts only behind a proof of
//! the closest encloser (RFC 5155 §8.6), and what many iterations prove is true, but no longer
//! called secure (RFC 9276 §3.2).

use std::collections::HashMap;

use data_encoding::BASE32_DNSSEC;
use hickory_resolver::proto::dnssec::Nsec3HashAlgorithm;
use hickory_resolver::proto::dnssec::rdata::NSEC3;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::super::LookupError;
use super::denial::{CutProof, LeafProof};
use super::work::Work;

/// Iterations above which a proof is not secure (RFC 9276 §3.2; BIND and Unbound draw the line here).
const ITERATIONS_MAX: u16 = 150;

/// An NSEC3 record with the hash that is its owner's first label.
struct Nsec3<'a> {
    hash: Vec<u8>,
    data: &'a NSEC3,
}

/// The NSEC3 records of one zone in one answer; all have the same salt and iterations.
pub(super) struct Nsec3Proofs<'a> {
    apex: &'a Name,
    records: Vec<Nsec3<'a>>,
    hashes: HashMap<Name, Vec<u8>>,
}

/// The closest encloser is proved, and the record that covers the next closer name.
struct Enclosure<'p, 'a> {
    encloser: Name,
    cover: &'p Nsec3<'a>,
}

impl<'a> Nsec3Proofs<'a> {
    /// Takes the records whose owner is a hash in the zone itself. Where parameters differ, those of the first count.
    pub(super) fn new(apex: &'a Name, records: impl Iterator<Item = (&'a Name, &'a NSEC3)>) -> Self {
        let of_zone = records.filter_map(|(owner, data)| {
            let label = owner.iter().next()?.to_ascii_lowercase();
            let hash = BASE32_DNSSEC.decode(&label).ok()?;
            (owner.base_name() == *apex).then_some(Nsec3 { hash, data })
        });
        let mut records: Vec<Nsec3<'_>> = of_zone.collect();
        if let Some(first) = records.first().map(|record| record.data) {
            records
                .retain(|record| record.data.salt() == first.salt() && record.data.iterations() == first.iterations());
        }
        Self { apex, records, hashes: HashMap::new() }
    }

    /// Proves that a name has no records of a type, nor an alias (RFC 5155 §8.4 to §8.7).
    pub(super) fn prove_leaf(
        &mut self,
        name: &Name,
        kind: RecordType,
        work: &mut Work,
    ) -> Result<Option<LeafProof>, LookupError> {
        if self.is_unusable(name) {
            return Ok(None);
        }
        self.hash_up(name, work)?;
        if let Some(exact) = self.at(name) {
            return Ok((exact.lacks(kind) && !exact.is_delegation()).then(|| self.weighed(LeafProof::NoData)));
        }
        let Some(Enclosure { encloser, cover }) = self.enclosure(name) else { return Ok(None) };
        let opt_out = cover.data.opt_out();
        let Ok(wildcard) = encloser.prepend_label("*") else { return Ok(None) };
        self.hash(&wildcard, work)?;
        let proof = match (self.at(&wildcard), self.covering(&wildcard)) {
            (Some(exact), _) if !exact.lacks(kind) || exact.is_delegation() => None,
            (Some(_), _) if !opt_out => Some(LeafProof::NoData),
            (None, Some(_)) if !opt_out => Some(LeafProof::NoName),
            // An unsigned delegation may stand here, with or without the wildcard (RFC 5155 §9.2).
            _ if opt_out => Some(LeafProof::MayBeUnsigned),
            _ => None,
        };
        Ok(proof.map(|proof| self.weighed(proof)))
    }

    /// Proves that no signed zone begins at a name (RFC 5155 §8.6, §8.9). These are the parent's records.
    pub(super) fn prove_cut(&mut self, name: &Name, work: &mut Work) -> Result<Option<CutProof>, LookupError> {
        if self.is_unusable(name) {
            return Ok(None);
        }
        self.hash_up(name, work)?;
        if let Some(exact) = self.at(name) {
            return Ok(CutProof::of_types(|kind| exact.has(kind)));
        }
        Ok(self.enclosure(name).map(
            |enclosure| {
                if enclosure.cover.data.opt_out() { CutProof::Unsigned } else { CutProof::NoName }
            },
        ))
    }

    /// Proves that nothing closer to `owner` exists than the wildcard whose parent has so many labels
    /// (RFC 5155 §8.8). `None` is no proof.
    pub(super) fn prove_expansion(
        &mut self,
        owner: &Name,
        labels: u8,
        work: &mut Work,
    ) -> Result<Option<LeafProof>, LookupError> {
        let next_closer = owner.trim_to(usize::from(labels) + 1);
        if self.is_unusable(&next_closer) {
            return Ok(None);
        }
        self.hash(&next_closer, work)?;
        let cover = self.covering(&next_closer);
        let proof = cover.map(|cover| if cover.data.opt_out() { LeafProof::MayBeUnsigned } else { LeafProof::NoName });
        Ok(proof.map(|proof| self.weighed(proof)))
    }

    fn is_unusable(&self, name: &Name) -> bool {
        self.records.is_empty() || !self.apex.zone_of(name)
    }

    fn weighed(&self, proof: LeafProof) -> LeafProof {
        let is_heavy = self.records.first().is_some_and(|record| record.data.iterations() > ITERATIONS_MAX);
        if is_heavy { LeafProof::MayBeUnsigned } else { proof }
    }

    /// Computes the hash of a name, once.
    fn hash(&mut self, name: &Name, work: &mut Work) -> Result<(), LookupError> {
        let Some(first) = self.records.first() else { return Ok(()) };
        if !self.hashes.contains_key(name) {
            work.charge_hash(first.data.iterations())?;
            let hash = Nsec3HashAlgorithm::SHA1.hash(first.data.salt(), name, first.data.iterations());
            let hash = hash.map_err(|fault| LookupError::Bogus(format!("{name} has no NSEC3 hash: {fault}")))?;
            self.hashes.insert(name.clone(), hash.as_ref().to_vec());
        }
        Ok(())
    }

    /// Computes the hashes of a name and its ancestors, up to the closest that there is a record for.
    fn hash_up(&mut self, name: &Name, work: &mut Work) -> Result<(), LookupError> {
        for labels in (self.apex.iter().len()..=name.iter().len()).rev() {
            let ancestor = name.trim_to(labels);
            self.hash(&ancestor, work)?;
            if self.at(&ancestor).is_some() {
                break;
            }
        }
        Ok(())
    }

    /// The record at a name whose hash is computed.
    fn at(&self, name: &Name) -> Option<&Nsec3<'a>> {
        let hash = self.hashes.get(name)?;
        self.records.iter().find(|record| record.hash == *hash)
    }

    /// The record that covers a name whose hash is computed.
    fn covering(&self, name: &Name) -> Option<&Nsec3<'a>> {
        let hash = self.hashes.get(name)?;
        self.records.iter().find(|record| record.covers(hash))
    }

    /// The proof of the closest encloser of a name that does not exist (RFC 5155 §8.3).
    fn enclosure(&self, name: &Name) -> Option<Enclosure<'_, 'a>> {
        let labels = name.iter().len();
        let mut ancestors = (self.apex.iter().len()..labels).rev().map(|labels| (labels, name.trim_to(labels)));
        let (labels, encloser, record) =
            ancestors.find_map(|(labels, ancestor)| self.at(&ancestor).map(|record| (labels, ancestor, record)))?;
        if record.is_delegation() || record.has(RecordType::DNAME) {
            return None;
        }
        let cover = self.covering(&name.trim_to(labels + 1))?;
        Some(Enclosure { encloser, cover })
    }
}

impl Nsec3<'_> {
    fn has(&self, kind: RecordType) -> bool {
        self.data.type_set().contains(kind)
    }

    fn lacks(&self, kind: RecordType) -> bool {
        !self.has(kind) && !self.has(RecordType::CNAME)
    }

    /// The parent's record at a zone cut.
    fn is_delegation(&self) -> bool {
        self.has(RecordType::NS) && !self.has(RecordType::SOA)
    }

    /// The last record of a zone leads to the first (RFC 5155 §3.1.7).
    fn covers(&self, hash: &[u8]) -> bool {
        let (owner, next) = (self.hash.as_slice(), self.data.next_hashed_owner_name());
        if owner < next { owner < hash && hash < next } else { owner < hash || hash < next }
    }
}
