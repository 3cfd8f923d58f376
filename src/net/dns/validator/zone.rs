//! Signed zones: their keys, and the verification of RRsets by these keys (RFC 4035 §5.2, §5.3).

use std::time::Duration;

use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, RRSIG};
use hickory_resolver::proto::dnssec::{Algorithm, DigestType, PublicKey as _, TBS, Verifier as _};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record};
use hickory_resolver::proto::serialize::binary::BinEncodable as _;

use super::super::LookupError;
use super::super::rrset::{RrSet, remaining_time};
use super::budget::WorkBudget;

/// The maximum number of keys of one zone.
const KEYS_MAX: usize = 32;
/// The maximum number of DS records of one zone.
const DIGESTS_MAX: usize = 16;

/// A zone whose keys are proved by a chain of signatures from the trust anchor.
#[derive(Debug)]
pub(in crate::net::dns) struct SignedZone {
    pub(super) apex: Name,
    /// The zone's keys, each with its key tag.
    keys: Vec<(u16, DNSKEY)>,
}

/// The facts of a valid signature.
pub(super) struct VerifiedSignature {
    /// The number of labels of the signed owner (RFC 4034 §3.1.3). It is lower than the owner's if
    /// a wildcard was expanded.
    pub(super) labels: u8,
    /// The lifetime of the RRset: its TTL, limited by the signature's expiry.
    pub(super) holds: Duration,
}

impl SignedZone {
    /// Accepts the keys of a DNSKEY RRset if a key that `vouched_for` accepts has signed the RRset.
    pub(in crate::net::dns) fn from_keys(
        set: &RrSet<'_>,
        vouched_for: impl Fn(u16, &DNSKEY, &mut WorkBudget) -> Result<bool, LookupError>,
        budget: &mut WorkBudget,
        now: u32,
    ) -> Result<Option<(Self, Duration)>, LookupError> {
        let keys: Vec<(u16, DNSKEY)> = set
            .records
            .iter()
            .filter_map(|record| usable_key(record))
            .take(KEYS_MAX)
            .collect();
        let mut entry = Self {
            apex: set.owner.clone(),
            keys: Vec::new(),
        };
        for (tag, key) in &keys {
            if vouched_for(*tag, key, budget)? {
                entry.keys.push((*tag, key.clone()));
            }
        }
        let Some(verified) = entry.verify_unexpanded(set, budget, now)? else {
            return Ok(None);
        };
        Ok(Some((Self { keys, ..entry }, verified.holds)))
    }

    /// Returns the approximate memory size of the keys.
    pub(super) fn octets(&self) -> usize {
        let of_key =
            |key: &DNSKEY| size_of::<(u16, DNSKEY)>() + key.public_key().public_bytes().len();
        self.keys.iter().map(|(_, key)| of_key(key)).sum()
    }

    /// Verifies that this zone has signed an RRset, under its own name or as a wildcard.
    pub(super) fn verify(
        &self,
        set: &RrSet<'_>,
        budget: &mut WorkBudget,
        now: u32,
    ) -> Result<Option<VerifiedSignature>, LookupError> {
        let mut records = None;
        for signature in &set.signatures {
            let input = signature.input();
            let is_possible = input.signer_name == self.apex
                && self.apex.zone_of(set.owner)
                && input.num_labels <= set.owner.num_labels()
                && usize::from(input.num_labels) >= self.apex.iter().len();
            let (Some(remaining), true) = (remaining_time(signature, now), is_possible) else {
                continue;
            };
            let keys = self.keys.iter().filter(|(tag, key)| {
                *tag == input.key_tag && key.public_key().algorithm() == input.algorithm
            });
            for (_, key) in keys {
                budget.charge_check()?;
                if is_signed_by(
                    key,
                    signature,
                    set.owner,
                    records.get_or_insert_with(|| canonical(set)),
                ) {
                    let ttl = set
                        .records
                        .iter()
                        .map(|record| record.ttl)
                        .min()
                        .unwrap_or_default();
                    let holds =
                        Duration::from_secs(ttl.min(input.original_ttl).min(remaining).into());
                    return Ok(Some(VerifiedSignature {
                        labels: input.num_labels,
                        holds,
                    }));
                }
                budget.charge_failure()?;
            }
        }
        Ok(None)
    }

    /// Verifies that this zone has signed an RRset under its own name.
    pub(super) fn verify_unexpanded(
        &self,
        set: &RrSet<'_>,
        budget: &mut WorkBudget,
        now: u32,
    ) -> Result<Option<VerifiedSignature>, LookupError> {
        let verified = self.verify(set, budget, now)?;
        Ok(verified.filter(|verified| verified.labels == set.owner.num_labels()))
    }
}

/// Returns the usable DS records: those with a supported algorithm and digest, without SHA-1
/// digests if there is a better one (RFC 4509 §3). If none is usable, the zone counts as unsigned
/// (RFC 4035 §5.2).
pub(super) fn usable_digests<'a>(set: &RrSet<'a>) -> Vec<&'a DS> {
    let digests = set.records.iter().filter_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::DS(digest)) => Some(digest),
        _ => None,
    });
    let usable = digests
        .filter(|digest| is_supported(digest.algorithm()) && digest.digest_type().is_supported());
    let mut usable: Vec<&DS> = usable.take(DIGESTS_MAX).collect();
    if usable
        .iter()
        .any(|digest| digest.digest_type() != DigestType::SHA1)
    {
        usable.retain(|digest| digest.digest_type() != DigestType::SHA1);
    }
    usable
}

/// Returns true if one of the digests is that of the zone's key.
pub(in crate::net::dns) fn is_digest_of<'a>(
    digests: impl IntoIterator<Item = &'a DS>,
    zone: &Name,
    tag: u16,
    key: &DNSKEY,
    budget: &mut WorkBudget,
) -> Result<bool, LookupError> {
    for digest in digests {
        if digest.key_tag() == tag && digest.algorithm() == key.public_key().algorithm() {
            budget.charge_check()?;
            if digest.covers(zone, key).unwrap_or(false) {
                return Ok(true);
            }
            budget.charge_failure()?;
        }
    }
    Ok(false)
}

/// Returns true for the supported signing algorithms. A zone with only others, such as those with
/// SHA-1 (RFC 9905), counts as unsigned.
pub(in crate::net::dns) fn is_supported(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::RSASHA256
            | Algorithm::RSASHA512
            | Algorithm::ECDSAP256SHA256
            | Algorithm::ECDSAP384SHA384
            | Algorithm::ED25519
    )
}

/// Returns a usable key with its tag: a zone key that is not revoked (RFC 4034 §2.1.1, RFC 5011
/// §2.1) and has a supported algorithm.
fn usable_key(record: &Record) -> Option<(u16, DNSKEY)> {
    let RData::DNSSEC(DNSSECRData::DNSKEY(key)) = &record.data else {
        return None;
    };
    let usable = key.zone_key() && !key.revoke() && is_supported(key.public_key().algorithm());
    usable
        .then(|| key.calculate_key_tag().ok())
        .flatten()
        .map(|tag| (tag, key.clone()))
}

/// Returns the records in canonical order without duplicates (RFC 4034 §6.3). All get the same TTL,
/// since the library sorts by it first; the signature contains its own.
fn canonical(set: &RrSet<'_>) -> Vec<Record> {
    let mut records: Vec<(Vec<u8>, Record)> = Vec::with_capacity(set.records.len());
    for record in &set.records {
        let Ok(octets) = record.data.to_bytes() else {
            continue;
        };
        let mut record = Record::clone(record);
        record.ttl = 0;
        records.push((octets, record));
    }
    records.sort_by(|(one, _), (other, _)| one.cmp(other));
    records.dedup_by(|(one, _), (other, _)| one == other);
    records.into_iter().map(|(_, record)| record).collect()
}

fn is_signed_by(key: &DNSKEY, signature: &RRSIG, owner: &Name, records: &[Record]) -> bool {
    TBS::from_input(owner, DNSClass::IN, signature.input(), records.iter())
        .is_ok_and(|signed| key.verify(signed.as_ref(), signature.sig()).is_ok())
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::dnssec::crypto::EcdsaSigningKey;
    use hickory_resolver::proto::dnssec::rdata::SigInput;
    use hickory_resolver::proto::dnssec::{DnssecSigner, SigningKey as _};
    use hickory_resolver::proto::rr::rdata::A;
    use hickory_resolver::proto::rr::{RecordType, SerialNumber};

    use super::*;

    const NOW: u32 = 1_800_000_000;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    struct Signed {
        zone: SignedZone,
        signer: DnssecSigner,
    }

    fn signed(flags: u16) -> Signed {
        let algorithm = Algorithm::ECDSAP256SHA256;
        let pkcs8 = EcdsaSigningKey::generate_pkcs8(algorithm).expect("a key");
        let key = EcdsaSigningKey::from_pkcs8(&pkcs8, algorithm).expect("a key");
        let public = DNSKEY::with_flags(flags, key.to_public_key().expect("a key"));
        let tag = public.calculate_key_tag().expect("a tag");
        let zone = SignedZone {
            apex: name("z.test."),
            keys: vec![(tag, public.clone())],
        };
        Signed {
            zone,
            signer: DnssecSigner::new(public, Box::new(key), name("z.test."), Duration::ZERO),
        }
    }

    /// Returns an A record and its signature over input that `change` has altered.
    fn section(signed: &Signed, owner: &str, change: impl FnOnce(&mut SigInput)) -> Vec<Record> {
        let owner = name(owner);
        let record = Record::from_rdata(owner.clone(), 300, RData::A(A::new(192, 0, 2, 1)));
        let mut input = SigInput {
            type_covered: RecordType::A,
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels: owner.num_labels(),
            original_ttl: 300,
            sig_expiration: SerialNumber::new(NOW + 100),
            sig_inception: SerialNumber::new(NOW - 100),
            key_tag: signed.zone.keys[0].0,
            signer_name: signed.zone.apex.clone(),
        };
        change(&mut input);
        let octets = TBS::from_input(&owner, DNSClass::IN, &input, std::iter::once(&record))
            .expect("octets");
        let signature = signed.signer.sign(&octets).expect("a signature");
        let data = RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, signature)));
        vec![record, Record::from_rdata(owner, 300, data)]
    }

    fn verify(zone: &SignedZone, section: &[Record], owner: &str) -> Option<(u8, u64)> {
        let set = RrSet::find(section, &name(owner), RecordType::A).expect("a set");
        let verified = zone
            .verify(&set, &mut WorkBudget::default(), NOW)
            .expect("budget enough");
        verified.map(|verified| (verified.labels, verified.holds.as_secs()))
    }

    #[test]
    fn a_signature_holds_for_its_owner_zone_and_time() {
        let ours = signed(257);
        let good = |change: fn(&mut SigInput)| {
            verify(
                &ours.zone,
                &section(&ours, "mx.z.test.", change),
                "mx.z.test.",
            )
        };
        assert_eq!(
            good(|_| ()),
            Some((3, 100)),
            "the signature ends before the TTL"
        );
        assert_eq!(good(|input| input.original_ttl = 60), Some((3, 60)));
        assert_eq!(
            good(|input| input.num_labels = 2),
            Some((2, 100)),
            "made from *.z.test."
        );
        for change in [
            |input: &mut SigInput| input.sig_expiration = SerialNumber::new(NOW - 1),
            |input: &mut SigInput| input.sig_inception = SerialNumber::new(NOW + 1),
            |input: &mut SigInput| input.signer_name = Name::from_ascii("test.").expect("a name"),
            |input: &mut SigInput| input.key_tag ^= 1,
            |input: &mut SigInput| input.num_labels = 1,
        ] {
            assert_eq!(good(change), None);
        }
        // Neither the signature of another owner nor that of another key is valid.
        let mut moved = section(&ours, "mx.z.test.", |_| ());
        for record in &mut moved {
            record.name = name("my.z.test.");
        }
        assert_eq!(verify(&ours.zone, &moved, "my.z.test."), None);
        assert_eq!(
            verify(
                &signed(257).zone,
                &section(&ours, "mx.z.test.", |_| ()),
                "mx.z.test."
            ),
            None
        );
        assert_eq!(
            verify(
                &ours.zone,
                &section(&ours, "mx.y.test.", |_| ()),
                "mx.y.test."
            ),
            None,
            "not in the zone"
        );
    }

    #[test]
    fn order_repetition_and_ttl_do_not_matter() {
        let ours = signed(257);
        let mut section = section(&ours, "mx.z.test.", |_| ());
        let mut again = section[0].clone();
        again.ttl = 5;
        section.insert(0, again);
        assert_eq!(verify(&ours.zone, &section, "mx.z.test."), Some((3, 5)));
    }

    #[test]
    fn keys_that_are_revoked_or_not_the_zones_do_not_count() {
        for (flags, counts) in [(257, true), (256, true), (0x181, false), (0, false)] {
            let ours = signed(flags);
            let data = RData::DNSSEC(DNSSECRData::DNSKEY(ours.zone.keys[0].1.clone()));
            assert_eq!(
                usable_key(&Record::from_rdata(name("z.test."), 60, data)).is_some(),
                counts,
                "{flags}"
            );
        }
    }

    #[test]
    fn a_weaker_digest_beside_a_better_one_does_not_count() {
        let ds = |algorithm: u8, digest: u8| {
            let ds = DS::new(1, Algorithm::from_u8(algorithm), digest.into(), vec![0; 32]);
            Record::from_rdata(name("z.test."), 60, RData::DNSSEC(DNSSECRData::DS(ds)))
        };
        for (records, count) in [
            (vec![ds(13, 2), ds(13, 1)], 1),
            (vec![ds(13, 1)], 1),
            (
                vec![ds(13, 2), ds(8, 4), ds(200, 2), ds(13, 77), ds(5, 2)],
                2,
            ),
            (vec![ds(200, 2), ds(16, 2), ds(7, 1)], 0),
        ] {
            let set = RrSet::find(&records, &name("z.test."), RecordType::DS).expect("a set");
            assert_eq!(usable_digests(&set).len(), count);
        }
    }

    /// CVE-2023-50387: many keys with the same tag, times many invalid signatures.
    #[test]
    fn collisions_use_the_budget_up() {
        let mut ours = signed(257);
        let other = signed(257).zone.keys.remove(0).1;
        ours.zone.keys = vec![(ours.zone.keys[0].0, other); KEYS_MAX];
        let mut section = section(&ours, "mx.z.test.", |_| ());
        section.extend(vec![section[1].clone(); 30]);
        let set = RrSet::find(&section, &name("mx.z.test."), RecordType::A).expect("a set");
        let outcome = ours
            .zone
            .verify(&set, &mut WorkBudget::default(), NOW)
            .map(|verified| verified.is_some());
        assert!(
            matches!(&outcome, Err(LookupError::Bogus(fault)) if fault.contains("failed")),
            "{outcome:?}"
        );
    }
}
