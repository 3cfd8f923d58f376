//! Proofs of non-existence from the NSEC and NSEC3 records that one zone has signed.

use std::time::Duration;

use hickory_resolver::proto::dnssec::rdata::DNSSECRData;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::super::LookupError;
use super::super::rrset::RrSet;
use super::budget::WorkBudget;
use super::nsec::{Nsec, NsecProofs};
use super::nsec3::Nsec3Proofs;
use super::zone::SignedZone;

/// The maximum number of denying RRsets of one section; a proof needs three.
const SETS_MAX: usize = 8;

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
pub(super) enum CutProof {
    /// An unsigned zone begins here, or may begin here (opt-out).
    Unsigned,
    /// The name belongs to the zone above it.
    NoCut,
    /// The name does not exist, nor does any name below it.
    NoName,
}

/// A denying record, seen by the record types that exist at its owner.
pub(super) trait TypesAtOwner {
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

/// The denying records of an answer that one zone has signed.
pub(super) struct Proofs<'a> {
    nsec: NsecProofs<'a>,
    nsec3: Nsec3Proofs<'a>,
    /// The lifetime of all of them.
    pub(super) holds: Duration,
}

impl<'a> Proofs<'a> {
    /// Collects the NSEC and NSEC3 records of a section that the zone has signed and that are not
    /// expanded from a wildcard.
    pub(super) fn new(
        section: &'a [Record],
        zone: &'a SignedZone,
        budget: &mut WorkBudget,
        now: u32,
    ) -> Result<Self, LookupError> {
        let mut holds = Duration::MAX;
        let mut signed: Vec<&Record> = Vec::new();
        for kind in [RecordType::NSEC, RecordType::NSEC3] {
            for set in RrSet::all(section, kind, SETS_MAX) {
                if let Some(verified) = zone.verify_unexpanded(&set, budget, now)? {
                    holds = holds.min(verified.holds);
                    signed.extend(set.records);
                }
            }
        }
        let nsec = signed.iter().filter_map(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::NSEC(data)) => Some(Nsec {
                owner: &record.name,
                data,
            }),
            _ => None,
        });
        let nsec3 = signed.iter().filter_map(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::NSEC3(data)) => Some((&record.name, data)),
            _ => None,
        });
        let (nsec, nsec3) = (nsec.collect(), Nsec3Proofs::new(&zone.apex, nsec3));
        Ok(Self {
            nsec: NsecProofs {
                apex: &zone.apex,
                records: nsec,
            },
            nsec3,
            holds,
        })
    }

    /// Proves that a name has neither records of a type nor an alias.
    pub(super) fn prove_leaf(
        &mut self,
        name: &Name,
        kind: RecordType,
        budget: &mut WorkBudget,
    ) -> Result<Option<LeafProof>, LookupError> {
        match self.nsec.prove_leaf(name, kind) {
            Some(proof) => Ok(Some(proof)),
            None => self.nsec3.prove_leaf(name, kind, budget),
        }
    }

    /// Proves that no signed zone begins at a name.
    pub(super) fn prove_cut(
        &mut self,
        name: &Name,
        budget: &mut WorkBudget,
    ) -> Result<Option<CutProof>, LookupError> {
        match self.nsec.prove_cut(name) {
            Some(proof) => Ok(Some(proof)),
            None => self.nsec3.prove_cut(name, budget),
        }
    }

    /// Proves that a wildcard may stand for `owner`. The parent of the wildcard has `labels`
    /// labels.
    pub(super) fn prove_expansion(
        &mut self,
        owner: &Name,
        labels: u8,
        budget: &mut WorkBudget,
    ) -> Result<Option<LeafProof>, LookupError> {
        if self.nsec.prove_expansion(owner, labels) {
            return Ok(Some(LeafProof::NoName));
        }
        self.nsec3.prove_expansion(owner, labels, budget)
    }

    /// Returns the zones that claim to have signed denying records of a section and that contain
    /// `name`. The zone nearest the root comes first.
    pub(super) fn signers(section: &'a [Record], name: &Name) -> Vec<&'a Name> {
        let mut signers: Vec<&Name> = Vec::new();
        for kind in [RecordType::NSEC, RecordType::NSEC3] {
            for signer in RrSet::all(section, kind, SETS_MAX)
                .iter()
                .flat_map(RrSet::signers)
            {
                if signer.zone_of(name) && !signers.contains(&signer) {
                    signers.push(signer);
                }
            }
        }
        signers.sort_by_key(|signer| signer.iter().len());
        signers
    }
}
