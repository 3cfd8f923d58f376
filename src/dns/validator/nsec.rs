//! Denial by NSEC records (RFC 4035 §5.4, RFC 6840 §4).
//!
//! Every record here is signed by the zone that the question is about, under its own name. What it says of
//! names below a delegation or a DNAME counts for nothing (RFC 6840 §4.1).

use hickory_resolver::proto::dnssec::rdata::NSEC;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::denial::{CutProof, LeafProof};

/// An NSEC record with its owner.
#[derive(Clone, Copy)]
pub(super) struct Nsec<'a> {
    pub(super) owner: &'a Name,
    pub(super) data: &'a NSEC,
}

/// The NSEC records of one zone in one answer.
pub(super) struct NsecProofs<'a> {
    pub(super) apex: &'a Name,
    pub(super) records: Vec<Nsec<'a>>,
}

impl NsecProofs<'_> {
    /// Proves that a name has no records of a type, nor an alias (RFC 4035 §5.4).
    pub(super) fn prove_leaf(&self, name: &Name, kind: RecordType) -> Option<LeafProof> {
        if let Some(exact) = self.at(name) {
            return exact.lacks(kind).then_some(LeafProof::NoData);
        }
        let covering = self.covering(name)?;
        if name.zone_of(covering.next()) {
            // An empty non-terminal: there are names below it alone.
            return Some(LeafProof::NoData);
        }
        let wildcard = covering.closest_encloser(name).prepend_label("*").ok()?;
        if let Some(exact) = self.at(&wildcard) {
            return exact.lacks(kind).then_some(LeafProof::NoData);
        }
        let covering = self.covering(&wildcard)?;
        Some(if wildcard.zone_of(covering.next()) { LeafProof::NoData } else { LeafProof::NoName })
    }

    /// Proves that no signed zone begins at a name (RFC 4035 §5.2, RFC 6840 §4.4). These are the parent's records.
    pub(super) fn prove_cut(&self, name: &Name) -> Option<CutProof> {
        if let Some(exact) = self.records.iter().find(|record| record.owner == name) {
            return CutProof::of_types(|kind| exact.has(kind));
        }
        let covering = self.covering(name)?;
        Some(if name.zone_of(covering.next()) { CutProof::NoCut } else { CutProof::NoName })
    }

    /// Proves that nothing closer to `owner` exists than the wildcard whose parent has so many labels
    /// (RFC 4035 §5.3.4).
    pub(super) fn prove_expansion(&self, owner: &Name, labels: u8) -> bool {
        let next_closer = owner.trim_to(usize::from(labels) + 1);
        self.covering(owner)
            .is_some_and(|covering| !next_closer.zone_of(covering.owner) && !next_closer.zone_of(covering.next()))
    }

    /// The record at a name, where it is the zone's own.
    fn at(&self, name: &Name) -> Option<Nsec<'_>> {
        self.records.iter().copied().find(|record| record.owner == name && !record.is_delegation())
    }

    /// The record that proves that a name, and nothing by this name, exists.
    fn covering(&self, name: &Name) -> Option<Nsec<'_>> {
        let covers = |record: &Nsec<'_>| {
            let next = record.next();
            self.apex.zone_of(name)
                && self.apex.zone_of(next)
                && record.owner < name
                && (name < next || next == self.apex)
                && !(record.owner.zone_of(name) && (record.is_delegation() || record.has(RecordType::DNAME)))
        };
        self.records.iter().copied().find(covers)
    }
}

impl Nsec<'_> {
    fn next(&self) -> &Name {
        self.data.next_domain_name()
    }

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

    /// The longest ancestor of a name that this record, which covers the name, shows to exist.
    fn closest_encloser(&self, name: &Name) -> Name {
        let common = |other: &Name| {
            name.iter().rev().zip(other.iter().rev()).take_while(|(one, two)| one.eq_ignore_ascii_case(two)).count()
        };
        name.trim_to(common(self.owner).max(common(self.next())))
    }
}
