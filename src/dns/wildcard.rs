//! That a wildcard stands for a name because nothing closer exists (RFC 4035 §5.3.4).
//!
//! A server proves it with the one NSEC record that covers the name; the validator library wants the wildcard
//! covered as well, which no server sends, so it takes every such answer for bogus. Signatures are
//! the library's matter here too: only records that it found secure are looked at.

use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, NSEC, RRSIG};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// Whether every wildcard that answers stand for is proved to be the closest match, and there is one.
pub(super) fn are_proved(answers: &[Record], authorities: &[Record]) -> bool {
    let mut expanded = answers
        .iter()
        .filter_map(|record| Some((&record.name, signature(record)?)))
        .filter(|(owner, signature)| signature.input().num_labels < owner.num_labels());
    let mut any = false;
    let all = expanded.all(|(owner, signature)| {
        any = true;
        is_closest(owner, signature, authorities)
    });
    any && all
}

fn signature(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature),
        _ => None,
    }
}

/// Whether an NSEC record of the wildcard's zone proves that neither `owner`, nor any name between it and the
/// wildcard's parent, exists.
fn is_closest(owner: &Name, wildcard: &RRSIG, authorities: &[Record]) -> bool {
    let next_closer = owner.trim_to(usize::from(wildcard.input().num_labels) + 1);
    let zone = &wildcard.input().signer_name;
    authorities.iter().any(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::NSEC(nsec)) => {
            record.proof == Proof::Secure
                && is_of_zone(&record.name, zone, authorities)
                && covers(&record.name, nsec, zone, owner)
                && !next_closer.zone_of(&record.name)
                && !next_closer.zone_of(nsec.next_domain_name())
                && !speaks_for_another(&record.name, nsec, owner)
        }
        _ => false,
    })
}

/// Whether the zone itself, and neither its parent nor a child, has signed this NSEC record.
fn is_of_zone(owner: &Name, zone: &Name, authorities: &[Record]) -> bool {
    let mut signatures = authorities.iter().filter(|record| record.name == *owner).filter_map(signature);
    signatures
        .any(|signature| signature.input().type_covered == RecordType::NSEC && signature.input().signer_name == *zone)
}

/// `owner` < `name` < next in canonical order (RFC 4034 §6.1); the last record of a zone leads to its apex.
fn covers(owner: &Name, nsec: &NSEC, zone: &Name, name: &Name) -> bool {
    let next = nsec.next_domain_name();
    owner < name && (name < next || next == zone)
}

/// A delegation or a DNAME above a name denies nothing below it (RFC 6840 §4.1).
fn speaks_for_another(owner: &Name, nsec: &NSEC, name: &Name) -> bool {
    let has = |kind| nsec.type_set().contains(kind);
    owner.zone_of(name) && ((has(RecordType::NS) && !has(RecordType::SOA)) || has(RecordType::DNAME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::dnssec::Algorithm;
    use hickory_resolver::proto::dnssec::rdata::SigInput;
    use hickory_resolver::proto::rr::SerialNumber;
    use hickory_resolver::proto::rr::rdata::A;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn rrsig(owner: &str, covered: RecordType, labels: u8, signer: &str) -> Record {
        let input = SigInput {
            type_covered: covered,
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels: labels,
            original_ttl: 60,
            sig_expiration: SerialNumber::new(2),
            sig_inception: SerialNumber::new(1),
            key_tag: 1,
            signer_name: name(signer),
        };
        let signature = RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, Vec::new())));
        Record::from_rdata(name(owner), 60, signature)
    }

    /// `a.b.w.test. A` from `*.w.test.`, with one NSEC record.
    fn proved(owner: &str, next: &str, kinds: &[RecordType], signer: &str, proof: Proof) -> bool {
        let answers = [
            Record::from_rdata(name("a.b.w.test."), 60, RData::A(A::new(192, 0, 2, 1))),
            rrsig("a.b.w.test.", RecordType::A, 2, "test."),
        ];
        let nsec = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(name(next), kinds.iter().copied())));
        let mut nsec = Record::from_rdata(name(owner), 60, nsec);
        nsec.proof = proof;
        are_proved(&answers, &[nsec, rrsig(owner, RecordType::NSEC, 2, signer)])
    }

    #[test]
    fn nothing_closer_may_exist() {
        use RecordType::{A, DNAME, NS, SOA};
        for (owner, next, kinds, signer, proof, expected) in [
            ("*.w.test.", "x.test.", [A].as_slice(), "test.", Proof::Secure, true),
            ("a.w.test.", "c.w.test.", &[A], "test.", Proof::Secure, true),
            ("*.w.test.", "test.", &[A], "test.", Proof::Secure, true),
            ("*.w.test.", "x.test.", &[A], "test.", Proof::Insecure, false),
            ("*.w.test.", "x.test.", &[A], "test.", Proof::Bogus, false),
            ("*.w.test.", "x.test.", &[A], ".", Proof::Secure, false),
            ("*.w.test.", "a.w.test.", &[A], "test.", Proof::Secure, false),
            ("c.w.test.", "d.w.test.", &[A], "test.", Proof::Secure, false),
            // "b.w.test." exists, or has a name below it.
            ("b.w.test.", "c.w.test.", &[A], "test.", Proof::Secure, false),
            ("*.b.w.test.", "c.w.test.", &[A], "test.", Proof::Secure, false),
            ("*.w.test.", "c.b.w.test.", &[A], "test.", Proof::Secure, false),
            // The parent's word for what it has handed over.
            ("w.test.", "x.test.", &[NS], "test.", Proof::Secure, false),
            ("w.test.", "x.test.", &[A, DNAME], "test.", Proof::Secure, false),
            ("w.test.", "x.test.", &[NS, SOA], "test.", Proof::Secure, true),
        ] {
            assert_eq!(
                proved(owner, next, kinds, signer, proof),
                expected,
                "{owner} {next} {kinds:?} {signer} {proof}"
            );
        }
        assert!(!are_proved(&[], &[]), "no wildcard, no proof of one");
    }
}
