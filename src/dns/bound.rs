//! Whether the authority section of a reply speaks for the name that was asked.
//!
//! The validator library proves that its records are signed, or that their zone is not; it does not ask
//! whose zone that is. Signed records of a stranger's zone, or an unsigned stranger's word, deny nothing of
//! ours (RFC 4035 §5.4: the NSEC records are those of the zone that has the name).

use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::dnssec::rdata::DNSSECRData;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// Whether a record is one that denies.
fn denies(record: &Record) -> bool {
    matches!(record.data, RData::DNSSEC(DNSSECRData::NSEC(_) | DNSSECRData::NSEC3(_)))
}

/// Whether a denying record was signed by a zone that has `name` in it, and by no other.
fn is_of(record: &Record, name: &Name, authorities: &[Record]) -> bool {
    let mut signers =
        authorities.iter().filter(|other| other.name == record.name).filter_map(|other| match &other.data {
            RData::DNSSEC(DNSSECRData::RRSIG(signature)) if signature.input().type_covered == record.record_type() => {
                Some(&signature.input().signer_name)
            }
            _ => None,
        });
    signers.all(|signer| signer.zone_of(name))
}

/// Whether every secure denial comes from a zone that has `name` in it.
pub(super) fn signed_above(name: &Name, authorities: &[Record]) -> bool {
    let mut secure = authorities.iter().filter(|record| denies(record) && record.proof == Proof::Secure);
    secure.all(|record| is_of(record, name, authorities))
}

/// Whether there is a secure denial from a zone that has `name` in it: that a wildcard stands for a name is
/// worth nothing without the proof that nothing closer exists.
pub(super) fn has_proof(name: &Name, authorities: &[Record]) -> bool {
    let mut secure = authorities.iter().filter(|record| denies(record) && record.proof == Proof::Secure);
    secure.any(|record| is_of(record, name, authorities))
}

/// Whether a zone that has `name` in it, and is provably not signed, speaks here.
pub(super) fn unsigned_above(name: &Name, authorities: &[Record]) -> bool {
    authorities.iter().any(|record| {
        record.proof == Proof::Insecure
            && record.name.zone_of(name)
            && matches!(record.record_type(), RecordType::SOA | RecordType::NS)
    })
}

/// Whether every NSEC3 record belongs to a zone that has `name` in it.
pub(super) fn hashed_above(name: &Name, authorities: &[Record]) -> bool {
    let mut hashed = authorities.iter().filter(|record| record.record_type() == RecordType::NSEC3);
    hashed.all(|record| record.name.base_name().zone_of(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::dnssec::Algorithm;
    use hickory_resolver::proto::dnssec::rdata::{NSEC, RRSIG, SigInput};
    use hickory_resolver::proto::rr::SerialNumber;
    use hickory_resolver::proto::rr::rdata::SOA;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn soa(zone: &str, proof: Proof) -> Record {
        let soa = SOA::new(name("ns.test."), name("root.test."), 1, 60, 60, 60, 60);
        let mut record = Record::from_rdata(name(zone), 60, RData::SOA(soa));
        record.proof = proof;
        record
    }

    /// An NSEC record and its signature by `signer`.
    fn nsec(owner: &str, signer: &str, proof: Proof) -> Vec<Record> {
        let nsec = NSEC::new(name("z.test."), [RecordType::A]);
        let mut denial = Record::from_rdata(name(owner), 60, RData::DNSSEC(DNSSECRData::NSEC(nsec)));
        denial.proof = proof;
        let input = SigInput {
            type_covered: RecordType::NSEC,
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels: 2,
            original_ttl: 60,
            sig_expiration: SerialNumber::new(2),
            sig_inception: SerialNumber::new(1),
            key_tag: 1,
            signer_name: name(signer),
        };
        let signature = RRSIG::from_sig(input, Vec::new());
        vec![denial, Record::from_rdata(name(owner), 60, RData::DNSSEC(DNSSECRData::RRSIG(signature)))]
    }

    #[test]
    fn a_stranger_denies_nothing_of_ours() {
        let ours = name("_25._tcp.mx.good.test.");
        for (signer, ok) in
            [("good.test.", true), ("test.", true), (".", true), ("evil.test.", false), ("mx.evil.", false)]
        {
            let authorities = nsec("a.good.test.", signer, Proof::Secure);
            assert_eq!(signed_above(&ours, &authorities), ok, "{signer}");
            assert_eq!(has_proof(&ours, &authorities), ok, "{signer}");
        }
        let both =
            [nsec("a.good.test.", "good.test.", Proof::Secure), nsec("a.evil.test.", "evil.test.", Proof::Secure)];
        assert!(!signed_above(&ours, &both.concat()), "one stranger among them is enough");
        assert!(!has_proof(&ours, &nsec("a.good.test.", "good.test.", Proof::Insecure)));
    }

    #[test]
    fn an_unsigned_zone_speaks_for_itself_alone() {
        let ours = name("mx.good.test.");
        for (zone, proof, ok) in [
            ("good.test.", Proof::Insecure, true),
            ("test.", Proof::Insecure, true),
            ("plain.test.", Proof::Insecure, false),
            ("a.mx.good.test.", Proof::Insecure, false),
            ("good.test.", Proof::Indeterminate, false),
            ("good.test.", Proof::Secure, false),
        ] {
            assert_eq!(unsigned_above(&ours, &[soa(zone, proof)]), ok, "{zone} {proof}");
        }
    }
}
