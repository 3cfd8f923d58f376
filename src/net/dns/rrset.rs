//! RRsets: the records of one owner, class and type in a section, with the signatures that cover
//! them (RFC 2181 §5, RFC 4035 §5.3.1).
//!
//! Validation works on an `RrSet` only, so a record never counts for another owner, class or type.

use std::time::Duration;

use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, RRSIG};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use jiff::Timestamp;

/// The maximum number of signatures of one RRset that are checked. A zone that replaces its keys
/// has a few.
const SIGNATURES_MAX: usize = 8;
/// The maximum number of signers of one RRset that are considered.
const SIGNERS_MAX: usize = 3;

/// One or more records of class IN with the same owner and type.
pub(super) struct RrSet<'a> {
    pub(super) owner: &'a Name,
    pub(super) kind: RecordType,
    pub(super) records: Vec<&'a Record>,
    /// The signatures at the same owner that cover this type.
    pub(super) signatures: Vec<&'a RRSIG>,
}

impl<'a> RrSet<'a> {
    /// Returns the RRset of an owner and type in a section.
    pub(super) fn find(section: &'a [Record], owner: &Name, kind: RecordType) -> Option<Self> {
        let of_owner = |record: &&Record| record.dns_class == DNSClass::IN && record.name == *owner;
        let records: Vec<&Record> = section
            .iter()
            .filter(of_owner)
            .filter(|record| record.record_type() == kind)
            .collect();
        let owner = &records.first()?.name;
        let signatures = section.iter().filter(of_owner).filter_map(signature);
        let signatures = signatures.filter(|signature| signature.input().type_covered == kind);
        Some(Self {
            owner,
            kind,
            signatures: signatures.take(SIGNATURES_MAX).collect(),
            records,
        })
    }

    /// Returns the first `at_most` RRsets of a type in a section.
    pub(super) fn all(section: &'a [Record], kind: RecordType, at_most: usize) -> Vec<Self> {
        let mut sets: Vec<Self> = Vec::new();
        for record in section.iter().filter(|record| record.record_type() == kind) {
            if sets.len() < at_most && sets.iter().all(|set| *set.owner != record.name) {
                sets.extend(Self::find(section, &record.name, kind));
            }
        }
        sets
    }

    /// Returns the data of the records.
    pub(super) fn data(&self) -> impl Iterator<Item = &'a RData> + '_ {
        self.records.iter().map(|record| &record.data)
    }

    /// Returns true if the RRset has a signature, valid or not.
    pub(super) fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// Returns the shortest TTL of the records.
    pub(super) fn ttl(&self) -> Duration {
        Duration::from_secs(
            self.records
                .iter()
                .map(|record| record.ttl)
                .min()
                .unwrap_or_default()
                .into(),
        )
    }

    /// Returns the lifetime of the records when they are not validated: their TTL, limited by every
    /// signature's expiry.
    pub(super) fn holds(&self, now: u32) -> Duration {
        let remaining = self.signatures.iter().map(|signature| {
            Duration::from_secs(remaining_time(signature, now).unwrap_or_default().into())
        });
        remaining.fold(self.ttl(), Duration::min)
    }

    /// Returns the zones that claim to have signed this RRset and may have: the owner or an
    /// ancestor of it; for DS records an ancestor only. The zone nearest the root comes first.
    pub(super) fn signers(&self) -> Vec<&'a Name> {
        let is_possible = |signer: &Name| {
            signer.zone_of(self.owner) && (self.kind != RecordType::DS || signer != self.owner)
        };
        let mut signers: Vec<&Name> = Vec::new();
        for signature in &self.signatures {
            let signer = &signature.input().signer_name;
            if is_possible(signer) && !signers.contains(&signer) {
                signers.push(signer);
            }
        }
        signers.sort_by_key(|signer| signer.iter().len());
        signers.truncate(SIGNERS_MAX);
        signers
    }
}

fn signature(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature),
        _ => None,
    }
}

/// Returns the seconds until a signature expires; `None` if it has expired or is not valid yet.
/// Serial number arithmetic (RFC 4034 §3.1.5) keeps this correct past 2106.
pub(super) fn remaining_time(signature: &RRSIG, now: u32) -> Option<u32> {
    let input = signature.input();
    let remaining = input.sig_expiration.get().wrapping_sub(now);
    let age = now.wrapping_sub(input.sig_inception.get());
    (remaining < 1 << 31 && age < 1 << 31).then_some(remaining)
}

/// Returns the time as signatures count it: seconds modulo 2³² (RFC 4034 §3.1.5).
pub(super) fn now() -> u32 {
    u32::try_from(Timestamp::now().as_second().rem_euclid(1 << 32)).unwrap_or_default()
}
