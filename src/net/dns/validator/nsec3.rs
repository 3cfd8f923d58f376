//! Proofs by NSEC3 records (RFC 5155 §8).
//!
//! Every record here is signed by the zone that the query is about. Opt-out counts only together
//! with a proof of the closest encloser (RFC 5155 §8.6). A proof with too many iterations is
//! accepted, but its answer is insecure (RFC 9276 §3.2).

use std::collections::HashMap;

use data_encoding::BASE32_DNSSEC;
use hickory_resolver::proto::dnssec::Nsec3HashAlgorithm;
use hickory_resolver::proto::dnssec::rdata::NSEC3;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::super::LookupError;
use super::budget::WorkBudget;
use super::proof::{CutProof, LeafProof, TypesAtOwner};

/// The number of iterations above which a proof is insecure (RFC 9276 §3.2), the same as in BIND
/// and Unbound.
const ITERATIONS_MAX: u16 = 150;

/// An NSEC3 record with the hash from its owner's first label.
struct Nsec3<'a> {
    hash: Vec<u8>,
    data: &'a NSEC3,
}

/// The NSEC3 records of one zone in one answer, all with the same salt and iterations.
pub(super) struct Nsec3Proofs<'a> {
    apex: &'a Name,
    records: Vec<Nsec3<'a>>,
    hashes: HashMap<Name, Vec<u8>>,
}

/// A proved closest encloser, and the record that covers the next closer name.
struct Enclosure<'p, 'a> {
    encloser: Name,
    cover: &'p Nsec3<'a>,
}

impl<'a> Nsec3Proofs<'a> {
    /// Collects the records whose owner is a hash directly below the apex. Records with parameters
    /// other than the first's are ignored.
    pub(super) fn new(
        apex: &'a Name,
        records: impl Iterator<Item = (&'a Name, &'a NSEC3)>,
    ) -> Self {
        let of_zone = records.filter_map(|(owner, data)| {
            let label = owner.iter().next()?.to_ascii_lowercase();
            let hash = BASE32_DNSSEC.decode(&label).ok()?;
            (owner.base_name() == *apex).then_some(Nsec3 { hash, data })
        });
        let mut records: Vec<Nsec3<'_>> = of_zone.collect();
        if let Some(first) = records.first().map(|record| record.data) {
            records.retain(|record| {
                record.data.salt() == first.salt() && record.data.iterations() == first.iterations()
            });
        }
        Self {
            apex,
            records,
            hashes: HashMap::new(),
        }
    }

    /// Proves that a name has neither records of a type nor an alias (RFC 5155 §8.4 to §8.7).
    pub(super) fn prove_leaf(
        &mut self,
        name: &Name,
        kind: RecordType,
        budget: &mut WorkBudget,
    ) -> Result<Option<LeafProof>, LookupError> {
        if self.is_unusable(name) {
            return Ok(None);
        }
        self.hash_up(name, budget)?;
        if let Some(exact) = self.at(name) {
            return Ok((exact.lacks(kind) && !exact.is_delegation())
                .then(|| self.limited(LeafProof::NoData)));
        }
        let Some(Enclosure { encloser, cover }) = self.enclosure(name) else {
            return Ok(None);
        };
        let opt_out = cover.data.opt_out();
        let Ok(wildcard) = encloser.prepend_label("*") else {
            return Ok(None);
        };
        self.hash(&wildcard, budget)?;
        let proof = match (self.at(&wildcard), self.covering(&wildcard)) {
            (Some(exact), _) if !exact.lacks(kind) || exact.is_delegation() => None,
            (Some(_), _) if !opt_out => Some(LeafProof::NoData),
            (None, Some(_)) if !opt_out => Some(LeafProof::NoName),
            // With opt-out, an unsigned delegation may exist here, whether the wildcard exists or
            // not (RFC 5155 §9.2).
            _ if opt_out => Some(LeafProof::MayBeUnsigned),
            _ => None,
        };
        Ok(proof.map(|proof| self.limited(proof)))
    }

    /// Proves that no signed zone begins at a name (RFC 5155 §8.6, §8.9). The records are those of
    /// the parent zone.
    pub(super) fn prove_cut(
        &mut self,
        name: &Name,
        budget: &mut WorkBudget,
    ) -> Result<Option<CutProof>, LookupError> {
        if self.is_unusable(name) {
            return Ok(None);
        }
        self.hash_up(name, budget)?;
        if let Some(exact) = self.at(name) {
            return Ok(CutProof::of_types(|kind| exact.has(kind)));
        }
        Ok(self.enclosure(name).map(|enclosure| {
            if enclosure.cover.data.opt_out() {
                CutProof::Unsigned
            } else {
                CutProof::NoName
            }
        }))
    }

    /// Proves that a wildcard may stand for `owner`, since no closer name exists (RFC 5155 §8.8).
    /// The parent of the wildcard has `labels` labels. Returns `None` without a proof.
    pub(super) fn prove_expansion(
        &mut self,
        owner: &Name,
        labels: u8,
        budget: &mut WorkBudget,
    ) -> Result<Option<LeafProof>, LookupError> {
        let next_closer = owner.trim_to(usize::from(labels) + 1);
        if self.is_unusable(&next_closer) {
            return Ok(None);
        }
        self.hash(&next_closer, budget)?;
        let cover = self.covering(&next_closer);
        let proof = cover.map(|cover| {
            if cover.data.opt_out() {
                LeafProof::MayBeUnsigned
            } else {
                LeafProof::NoName
            }
        });
        Ok(proof.map(|proof| self.limited(proof)))
    }

    fn is_unusable(&self, name: &Name) -> bool {
        self.records.is_empty() || !self.apex.zone_of(name)
    }

    fn limited(&self, proof: LeafProof) -> LeafProof {
        let is_heavy = self
            .records
            .first()
            .is_some_and(|record| record.data.iterations() > ITERATIONS_MAX);
        if is_heavy {
            LeafProof::MayBeUnsigned
        } else {
            proof
        }
    }

    /// Computes the hash of a name unless it is already known.
    fn hash(&mut self, name: &Name, budget: &mut WorkBudget) -> Result<(), LookupError> {
        let Some(first) = self.records.first() else {
            return Ok(());
        };
        if !self.hashes.contains_key(name) {
            budget.charge_hash(first.data.iterations())?;
            let hash =
                Nsec3HashAlgorithm::SHA1.hash(first.data.salt(), name, first.data.iterations());
            let hash = hash.map_err(|fault| {
                LookupError::Bogus(format!("{name} has no NSEC3 hash: {fault}"))
            })?;
            self.hashes.insert(name.clone(), hash.as_ref().to_vec());
        }
        Ok(())
    }

    /// Computes the hashes of a name and its ancestors, up to the first that has a record.
    fn hash_up(&mut self, name: &Name, budget: &mut WorkBudget) -> Result<(), LookupError> {
        for labels in (self.apex.iter().len()..=name.iter().len()).rev() {
            let ancestor = name.trim_to(labels);
            self.hash(&ancestor, budget)?;
            if self.at(&ancestor).is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Returns the record at a name whose hash is known.
    fn at(&self, name: &Name) -> Option<&Nsec3<'a>> {
        let hash = self.hashes.get(name)?;
        self.records.iter().find(|record| record.hash == *hash)
    }

    /// Returns the record that covers a name whose hash is known.
    fn covering(&self, name: &Name) -> Option<&Nsec3<'a>> {
        let hash = self.hashes.get(name)?;
        self.records.iter().find(|record| record.covers(hash))
    }

    /// Returns the closest encloser of a name that does not exist, with its proof (RFC 5155 §8.3).
    fn enclosure(&self, name: &Name) -> Option<Enclosure<'_, 'a>> {
        let labels = name.iter().len();
        let mut ancestors = (self.apex.iter().len()..labels)
            .rev()
            .map(|labels| (labels, name.trim_to(labels)));
        let (labels, encloser, record) = ancestors.find_map(|(labels, ancestor)| {
            self.at(&ancestor).map(|record| (labels, ancestor, record))
        })?;
        if record.is_delegation() || record.has(RecordType::DNAME) {
            return None;
        }
        let cover = self.covering(&name.trim_to(labels + 1))?;
        Some(Enclosure { encloser, cover })
    }
}

impl TypesAtOwner for Nsec3<'_> {
    fn has(&self, kind: RecordType) -> bool {
        self.data.type_set().contains(kind)
    }
}

impl Nsec3<'_> {
    /// Returns true if the hash lies between owner and next hash. The last record of a zone points
    /// to the first (RFC 5155 §3.1.7).
    fn covers(&self, hash: &[u8]) -> bool {
        let (owner, next) = (self.hash.as_slice(), self.data.next_hashed_owner_name());
        if owner < next {
            owner < hash && hash < next
        } else {
            owner < hash || hash < next
        }
    }
}

#[cfg(test)]
mod tests {
    use RecordType::{A, CNAME, DNAME, DS, NS, SOA, TLSA};

    use super::*;

    const SALT: &[u8] = b"salt";
    const APEX: &str = "z.test.";

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn hash(of: &str, iterations: u16) -> Vec<u8> {
        Nsec3HashAlgorithm::SHA1
            .hash(SALT, &name(of), iterations)
            .expect("a hash")
            .as_ref()
            .to_vec()
    }

    /// Returns the hash plus or minus one. Two such neighbours make a record that covers the hash,
    /// and no other.
    fn beside(hash: &[u8], up: bool) -> Vec<u8> {
        let mut hash = hash.to_vec();
        for octet in hash.iter_mut().rev() {
            let (next, carried) = if up {
                octet.overflowing_add(1)
            } else {
                octet.overflowing_sub(1)
            };
            *octet = next;
            if !carried {
                break;
            }
        }
        hash
    }

    /// NSEC3 records of a zone, added by the name that they prove to exist or not.
    #[derive(Default)]
    struct TestZone {
        iterations: u16,
        records: Vec<(Name, NSEC3)>,
    }

    impl TestZone {
        fn add(mut self, owner: &[u8], next: &[u8], opt_out: bool, kinds: &[RecordType]) -> Self {
            let label = BASE32_DNSSEC.encode(owner);
            let data = NSEC3::new(
                Nsec3HashAlgorithm::SHA1,
                opt_out,
                self.iterations,
                SALT.to_vec(),
                next.to_vec(),
                kinds.iter().copied(),
            );
            self.records.push((name(&format!("{label}.{APEX}")), data));
            self
        }

        /// Adds the record at a name.
        fn has(self, of: &str, kinds: &[RecordType]) -> Self {
            let hash = hash(of, self.iterations);
            self.add(&hash, &beside(&hash, true), false, kinds)
        }

        /// Adds a record that covers a name.
        fn lacks(self, of: &str, opt_out: bool) -> Self {
            let hash = hash(of, self.iterations);
            self.add(&beside(&hash, false), &beside(&hash, true), opt_out, &[])
        }

        fn ask<T>(
            &self,
            ask: impl FnOnce(&mut Nsec3Proofs<'_>, &mut WorkBudget) -> Result<T, LookupError>,
        ) -> T {
            let apex = name(APEX);
            let records = self.records.iter().map(|(owner, data)| (owner, data));
            ask(
                &mut Nsec3Proofs::new(&apex, records),
                &mut WorkBudget::default(),
            )
            .expect("budget enough")
        }
    }

    fn zone() -> TestZone {
        TestZone::default()
    }

    #[test]
    fn a_leaf_is_denied_by_its_own_record_or_by_the_closest_encloser() {
        use LeafProof::{MayBeUnsigned, NoData, NoName};
        let many = || TestZone {
            iterations: ITERATIONS_MAX + 1,
            ..TestZone::default()
        };
        let apex = [NS, SOA].as_slice();
        for (number, (zone, expected)) in [
            (zone().has("m.z.test.", &[A]), Some(NoData)),
            (zone().has("m.z.test.", &[TLSA]), None),
            (zone().has("m.z.test.", &[CNAME]), None),
            (zone().has("m.z.test.", &[NS]), None),
            (
                zone()
                    .has(APEX, apex)
                    .lacks("m.z.test.", false)
                    .lacks("*.z.test.", false),
                Some(NoName),
            ),
            (
                zone()
                    .has(APEX, apex)
                    .lacks("m.z.test.", false)
                    .has("*.z.test.", &[A]),
                Some(NoData),
            ),
            (
                zone()
                    .has(APEX, apex)
                    .lacks("m.z.test.", false)
                    .has("*.z.test.", &[TLSA]),
                None,
            ),
            (zone().has(APEX, apex).lacks("m.z.test.", false), None),
            (zone().has(APEX, apex).lacks("*.z.test.", false), None),
            // The closest encloser is not proved, or is a delegation or a DNAME.
            (
                zone().lacks("m.z.test.", false).lacks("*.z.test.", false),
                None,
            ),
            (zone().lacks("m.z.test.", true), None),
            (
                zone()
                    .has(APEX, &[NS])
                    .lacks("m.z.test.", false)
                    .lacks("*.z.test.", false),
                None,
            ),
            (
                zone()
                    .has(APEX, &[SOA, NS, DNAME])
                    .lacks("m.z.test.", false)
                    .lacks("*.z.test.", false),
                None,
            ),
            (
                zone()
                    .has(APEX, apex)
                    .lacks("m.z.test.", true)
                    .lacks("*.z.test.", false),
                Some(MayBeUnsigned),
            ),
            (many().has("m.z.test.", &[A]), Some(MayBeUnsigned)),
            (many().has("m.z.test.", &[TLSA]), None),
        ]
        .into_iter()
        .enumerate()
        {
            let proof =
                zone.ask(|proofs, budget| proofs.prove_leaf(&name("m.z.test."), TLSA, budget));
            assert_eq!(proof, expected, "case {number}");
        }
    }

    /// RFC 5155 §8.6: a record that covers the hash is not enough.
    #[test]
    fn an_opt_out_counts_behind_its_closest_encloser_alone() {
        use CutProof::{NoCut, NoName, Unsigned};
        let many = || TestZone {
            iterations: 500,
            ..TestZone::default()
        };
        let apex = [NS, SOA].as_slice();
        for (number, (zone, expected)) in [
            (zone().lacks("m.z.test.", true), None),
            (
                zone().has(APEX, apex).lacks("m.z.test.", true),
                Some(Unsigned),
            ),
            (
                zone().has(APEX, apex).lacks("m.z.test.", false),
                Some(NoName),
            ),
            (zone().has("m.z.test.", &[NS]), Some(Unsigned)),
            (zone().has("m.z.test.", &[A]), Some(NoCut)),
            (zone().has("m.z.test.", &[NS, DS]), None),
            (zone().has("m.z.test.", apex), None),
            (zone().has("other.z.test.", &[NS]), None),
            // Too many iterations do not weaken a proof about a cut. Records of another name prove
            // nothing in any number.
            (many().has("m.z.test.", &[NS]), Some(Unsigned)),
            (many().has("other.z.test.", &[NS]), None),
            (many().lacks("other.z.test.", true), None),
        ]
        .into_iter()
        .enumerate()
        {
            let proof = zone.ask(|proofs, budget| proofs.prove_cut(&name("m.z.test."), budget));
            assert_eq!(proof, expected, "case {number}");
        }
    }

    #[test]
    fn a_wildcard_stands_where_the_next_closer_name_does_not_exist() {
        use LeafProof::{MayBeUnsigned, NoName};
        for (zone, expected) in [
            (zone().lacks("b.w.z.test.", false), Some(NoName)),
            (zone().lacks("b.w.z.test.", true), Some(MayBeUnsigned)),
            (zone().lacks("a.b.w.z.test.", false), None),
            (zone().has("b.w.z.test.", &[]), None),
        ] {
            let proof = zone
                .ask(|proofs, budget| proofs.prove_expansion(&name("a.b.w.z.test."), 3, budget));
            assert_eq!(proof, expected);
        }
    }

    #[test]
    fn records_of_another_zone_or_another_salt_do_not_count() {
        let genuine = zone().has("m.z.test.", &[A]);
        let apex = name("other.test.");
        let records = || genuine.records.iter().map(|(owner, data)| (owner, data));
        let mut proofs = Nsec3Proofs::new(&apex, records());
        assert_eq!(
            proofs.prove_leaf(&name("m.z.test."), TLSA, &mut WorkBudget::default()),
            Ok(None)
        );
        let salted = NSEC3::new(
            Nsec3HashAlgorithm::SHA1,
            false,
            0,
            b"pepper".to_vec(),
            vec![0; 20],
            [A],
        );
        let owner = name(&format!("{}.{APEX}", BASE32_DNSSEC.encode(&[0; 20])));
        let apex = name(APEX);
        let mut proofs = Nsec3Proofs::new(&apex, [(&owner, &salted)].into_iter().chain(records()));
        assert_eq!(
            proofs.prove_leaf(&name("m.z.test."), TLSA, &mut WorkBudget::default()),
            Ok(None)
        );
    }

    /// CVE-2023-50868: hashes are charged to the budget, and a name with many labels needs many.
    #[test]
    fn hashing_is_limited() {
        let zone = TestZone {
            iterations: 2500,
            ..TestZone::default()
        }
        .has("other.z.test.", &[A]);
        let long = name(&format!("{}{APEX}", "a.".repeat(20)));
        let apex = name(APEX);
        let records = zone.records.iter().map(|(owner, data)| (owner, data));
        let outcome =
            Nsec3Proofs::new(&apex, records).prove_leaf(&long, TLSA, &mut WorkBudget::default());
        assert!(
            matches!(&outcome, Err(LookupError::Bogus(fault)) if fault.contains("NSEC3")),
            "{outcome:?}"
        );
    }
}
