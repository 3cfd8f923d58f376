//! DNSSEC validation (RFC 4033 to 4035, 5155, 6840).
//!
//! The library computes signatures, digests and hashes. The rules are here: an RRset counts for its
//! own owner, class and type only; a chain of trust goes from zone cut to zone cut, each proved by
//! the zone above it; a denial counts for the name and type of the query, from the zone that signed
//! it. Each lookup has a work budget. In doubt the result is *bogus*.
//!
//! A signed RRset is judged by the keys of its signer. An unsigned RRset is insecure only if a zone
//! between the root and its owner is proved to be unsigned.

mod budget;
mod cuts;
mod denial;
mod nsec;
mod nsec3;
mod proof;
mod zone;

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, Record, RecordType};

use super::name_servers::{NameServers, Response};
use super::rrset::{self, RrSet};
use super::{InsecureReason, LookupError, Security, cname};
pub(super) use budget::WorkBudget;
pub(super) use cuts::{ZoneCut, ZoneCuts};
use denial::Proofs;
use proof::CutProof;
pub(super) use proof::LeafProof;
pub(super) use zone::{SignedZone, is_digest_of, is_supported};

const UNSIGNED: Security = Security::Insecure(InsecureReason::Unsigned);

/// The validator of one lookup.
pub(super) struct Validator<'a> {
    name_servers: &'a NameServers,
    cuts: &'a ZoneCuts,
    root: Arc<SignedZone>,
    /// Ignore zone cuts cached more than half a minute ago, since keys may have been replaced.
    fresh: bool,
    budget: WorkBudget,
    now: u32,
}

/// The status of the zone that a name belongs to.
enum ZoneStatus {
    /// The nearest zone at or above the name is signed.
    Signed(Arc<SignedZone>),
    /// A zone between the root and the name is unsigned.
    Unsigned,
}

/// The security of a part of an answer, and its lifetime.
pub(super) type SecurityVerdict = (Security, Duration);

impl<'a> Validator<'a> {
    pub(super) fn new(
        name_servers: &'a NameServers,
        cuts: &'a ZoneCuts,
        root: Arc<SignedZone>,
        fresh: bool,
    ) -> Self {
        Self {
            name_servers,
            cuts,
            root,
            fresh,
            budget: WorkBudget::default(),
            now: rrset::now(),
        }
    }

    /// Sends one query to the name servers.
    pub(super) async fn ask(
        &mut self,
        name: &Name,
        kind: RecordType,
    ) -> Result<Response, LookupError> {
        self.budget.charge_question()?;
        self.name_servers
            .ask(name.clone(), kind, true)
            .await?
            .usable()
    }

    /// Judges an RRset. `authorities` may prove that a wildcard stands for its owner.
    ///
    /// # Errors
    /// `Bogus` if the RRset has only invalid signatures, or none without a proof that its zone is
    /// unsigned.
    pub(super) async fn judge(
        &mut self,
        set: &RrSet<'_>,
        authorities: &[Record],
    ) -> Result<SecurityVerdict, LookupError> {
        let mut unsigned = false;
        let mut fault = None;
        let signers = set.signers();
        for signer in &signers {
            match self.trust(signer).await {
                Ok(ZoneStatus::Unsigned) => unsigned = true,
                Ok(ZoneStatus::Signed(zone)) => match self.judge_by(set, authorities, &zone)? {
                    Some(verdict) => return Ok(verdict),
                    None => fault = Some(not_validated(set.owner, set.kind)),
                },
                Err(bogus @ LookupError::Bogus(_)) => fault = Some(bogus),
                Err(other) => return Err(other),
            }
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        if !unsigned {
            self.must_be_unsigned(set.owner, || not_validated(set.owner, set.kind))
                .await?;
        }
        Ok((UNSIGNED, set.ttl()))
    }

    /// Judges an RRset by the keys of one zone. Returns `None` if the zone has not validly signed
    /// it.
    fn judge_by(
        &mut self,
        set: &RrSet<'_>,
        authorities: &[Record],
        zone: &SignedZone,
    ) -> Result<Option<SecurityVerdict>, LookupError> {
        let Some(verified) = zone.verify(set, &mut self.budget, self.now)? else {
            return Ok(None);
        };
        if verified.labels == set.owner.num_labels() {
            return Ok(Some((Security::Secure, verified.holds)));
        }
        let may_be_expanded = !matches!(
            set.kind,
            RecordType::DNAME
                | RecordType::NS
                | RecordType::SOA
                | RecordType::DS
                | RecordType::DNSKEY
        );
        if !may_be_expanded {
            return Ok(None);
        }
        let mut proofs = Proofs::new(authorities, zone, &mut self.budget, self.now)?;
        let proof = proofs.prove_expansion(set.owner, verified.labels, &mut self.budget)?;
        let holds = verified.holds.min(proofs.holds);
        Ok(proof.map(|proof| {
            (
                if proof == LeafProof::MayBeUnsigned {
                    UNSIGNED
                } else {
                    Security::Secure
                },
                holds,
            )
        }))
    }

    /// Judges an answer without records for a name and type. Returns `None` if no proof is needed
    /// because the zone is unsigned.
    ///
    /// # Errors
    /// `Bogus` if the absence is not proved in a signed zone.
    pub(super) async fn judge_denial(
        &mut self,
        name: &Name,
        kind: RecordType,
        authorities: &[Record],
    ) -> Result<Option<(LeafProof, Duration)>, LookupError> {
        let unproved =
            || LookupError::Bogus(format!("nothing proves that {name} has no {kind} records"));
        for signer in Proofs::signers(authorities, name) {
            let ZoneStatus::Signed(zone) = self.trust(signer).await? else {
                return Ok(None);
            };
            if zone.apex != *signer {
                continue;
            }
            let mut proofs = Proofs::new(authorities, &zone, &mut self.budget, self.now)?;
            if let Some(proof) = proofs.prove_leaf(name, kind, &mut self.budget)? {
                return Ok(Some((proof, proofs.holds)));
            }
        }
        self.must_be_unsigned(name, unproved).await?;
        Ok(None)
    }

    async fn must_be_unsigned(
        &mut self,
        name: &Name,
        fault: impl FnOnce() -> LookupError,
    ) -> Result<(), LookupError> {
        match self.trust(name).await? {
            ZoneStatus::Unsigned => Ok(()),
            ZoneStatus::Signed(_) => Err(fault()),
        }
    }

    /// Finds the zone that a name belongs to, from the root downwards.
    async fn trust(&mut self, name: &Name) -> Result<ZoneStatus, LookupError> {
        let mut zone = Arc::clone(&self.root);
        for labels in 1..=name.iter().len() {
            match self.cut(&zone, &name.trim_to(labels)).await? {
                ZoneCut::Signed(child) => zone = child,
                ZoneCut::Unsigned => return Ok(ZoneStatus::Unsigned),
                ZoneCut::None => {}
                ZoneCut::NoName => break,
            }
        }
        Ok(ZoneStatus::Signed(zone))
    }

    /// Determines whether a zone begins at a name, from the cache or from the zone above it.
    async fn cut(&mut self, above: &SignedZone, name: &Name) -> Result<ZoneCut, LookupError> {
        let (cuts, fresh) = (self.cuts, self.fresh);
        let mut is_ours = false;
        let find = async || {
            is_ours = true;
            self.find_cut(above, name).await
        };
        let found = cuts.get(name, fresh, find).await;
        match found {
            Ok(cut) => Ok(cut),
            // A concurrent lookup failed. Its reason may not apply to this one (its budget, for
            // instance), so this one tries itself.
            Err(_) if !is_ours => Ok(self.find_cut(above, name).await?.0),
            Err(fault) => Err(fault),
        }
    }

    async fn find_cut(
        &mut self,
        above: &SignedZone,
        name: &Name,
    ) -> Result<(ZoneCut, Duration), LookupError> {
        let response = self.ask(name, RecordType::DS).await?;
        if let Some(set) = RrSet::find(&response.answers, name, RecordType::DS) {
            let verified = above.verify_unexpanded(&set, &mut self.budget, self.now)?;
            let holds = verified
                .ok_or_else(|| not_validated(name, RecordType::DS))?
                .holds;
            return self.find_zone(name, &set, holds).await;
        }
        if let Some(alias) = cname::evidence(&response.answers, name) {
            // No zone begins at an alias or below a DNAME (RFC 2181 §10.1, RFC 6672 §2.4).
            let verdict = self.judge_by(&alias, &response.authorities, above)?;
            let (_, holds) = verdict.ok_or_else(|| not_validated(name, alias.kind))?;
            return Ok((ZoneCut::None, holds));
        }
        let mut proofs = Proofs::new(&response.authorities, above, &mut self.budget, self.now)?;
        let cut = match proofs.prove_cut(name, &mut self.budget)? {
            Some(CutProof::Unsigned) => ZoneCut::Unsigned,
            Some(CutProof::NoCut) => ZoneCut::None,
            Some(CutProof::NoName) => ZoneCut::NoName,
            None => {
                return Err(LookupError::Bogus(format!(
                    "nothing proves whether {name} is signed"
                )));
            }
        };
        Ok((cut, proofs.holds))
    }

    /// Fetches the keys of a zone and checks them against its DS records.
    async fn find_zone(
        &mut self,
        name: &Name,
        digests: &RrSet<'_>,
        holds: Duration,
    ) -> Result<(ZoneCut, Duration), LookupError> {
        let digests = zone::usable_digests(digests);
        if digests.is_empty() {
            return Ok((ZoneCut::Unsigned, holds));
        }
        let response = self.ask(name, RecordType::DNSKEY).await?;
        let keys = RrSet::find(&response.answers, name, RecordType::DNSKEY);
        let keys =
            keys.ok_or_else(|| LookupError::Bogus(format!("{name} has no DNSKEY records")))?;
        let is_vouched_for = |tag, key: &_, budget: &mut _| {
            is_digest_of(digests.iter().copied(), name, tag, key, budget)
        };
        let zone = SignedZone::from_keys(&keys, is_vouched_for, &mut self.budget, self.now)?;
        let (zone, signed_for) = zone.ok_or_else(|| not_validated(name, RecordType::DNSKEY))?;
        Ok((ZoneCut::Signed(Arc::new(zone)), holds.min(signed_for)))
    }
}

fn not_validated(name: &Name, kind: RecordType) -> LookupError {
    LookupError::Bogus(format!(
        "the signatures of the {kind} records of {name} are wrong, expired or missing"
    ))
}
