//! The results of a denial of existence.

use hickory_resolver::proto::rr::RecordType;

/// A proof about a name and a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net::dns) enum LeafProof {
    /// The name exists and has neither records of this type nor an alias.
    NoData,
    /// The same, proved by NSEC records. Some servers answer NXDOMAIN for an empty non-terminal, so
    /// the response code may differ.
    NoDataByNsec,
    /// The name does not exist.
    NoName,
    /// The zone has no such record, but the proof does not cover unsigned delegations (opt-out), or
    /// uses too many iterations. The answer is insecure.
    MayBeUnsigned,
}

/// A proof that no signed zone begins at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutProof {
    /// An unsigned zone begins here, or may begin here (opt-out).
    Unsigned,
    /// The name belongs to the zone above it.
    NoCut,
    /// The name does not exist, nor does any name below it.
    NoName,
}

/// A denying record, seen by the record types that exist at its owner.
pub(crate) trait TypesAtOwner {
    /// Returns true if the type exists at the owner.
    fn has(&self, kind: RecordType) -> bool;

    /// Returns true if the owner has neither the type nor an alias that could lead to it.
    fn lacks(&self, kind: RecordType) -> bool {
        !self.has(kind) && !self.has(RecordType::CNAME)
    }

    /// Returns true if this is the parent's record at a zone cut.
    fn is_delegation(&self) -> bool {
        self.has(RecordType::NS) && !self.has(RecordType::SOA)
    }
}

impl CutProof {
    /// Returns the proof that follows from the types that the parent zone has at a name (RFC 6840
    /// §4.4).
    pub(super) fn of_types(has: impl Fn(RecordType) -> bool) -> Option<Self> {
        if has(RecordType::DS) || has(RecordType::SOA) {
            // Either a DS record exists, or this is the child zone's record at its own apex, which
            // proves nothing about the cut.
            return None;
        }
        Some(if has(RecordType::NS) {
            Self::Unsigned
        } else {
            Self::NoCut
        })
    }
}
