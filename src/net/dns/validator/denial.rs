//! Proofs of non-existence from the NSEC and NSEC3 records that one zone has signed.

use std::time::Duration;

use hickory_resolver::proto::dnssec::rdata::DNSSECRData;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::super::LookupError;
use super::super::rrset::RrSet;
use super::budget::WorkBudget;
use super::nsec::{Nsec, NsecProofs};
use super::nsec3::Nsec3Proofs;
use super::proof::{CutProof, LeafProof};
use super::zone::SignedZone;

/// The maximum number of denying RRsets of one section; a proof needs three.
const SETS_MAX: usize = 8;

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
