//! DNSSEC validation (RFC 4033 to 4035, 5155, 6840), strict in what it takes an answer for.
//!
//! Signatures, digests and hashes are the library's. What they are worth is decided here: an RRset counts
//! for its own owner, class and type alone; a chain of trust goes from zone cut to zone cut, each proved by the zone
//! above it; a denial counts for the name and type that were asked, from the zone that signs them. One
//! lookup has a budget of work. Of two answers to a doubt, the stricter is given: bogus.
//!
//! A signed RRset is judged by the keys of its signer. An unsigned one is insecure only where a zone on the
//! way from the root to its owner is proved to be unsigned.

mod cuts;
mod denial;
mod nsec;
mod nsec3;
mod work;
mod zone;

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, Record, RecordType};

use super::rrset::{self, RrSet};
use super::transport::{Response, Transport};
use super::{InsecureReason, LookupError, Security, cname};
pub(super) use cuts::{Cut, Cuts};
pub(super) use denial::LeafProof;
use denial::{CutProof, Proofs};
pub(super) use work::Work;
pub(super) use zone::{Zone, is_digest_of, is_supported};

const UNSIGNED: Security = Security::Insecure(InsecureReason::Unsigned);

/// The validator of one lookup.
pub(super) struct Validator<'a> {
    transport: &'a Transport,
    cuts: &'a Cuts,
    root: Arc<Zone>,
    /// Zone cuts that were looked up a while ago are looked up again: keys may have been replaced since.
    fresh: bool,
    work: Work,
    now: u32,
}

/// The zone that a name belongs to.
enum Trust {
    /// The nearest zone above the name, or at it, is signed.
    Signed(Arc<Zone>),
    /// A zone on the way from the root is not.
    Unsigned,
}

/// A verdict, and for how long it holds.
pub(super) type Verdict = (Security, Duration);

impl<'a> Validator<'a> {
    pub(super) fn new(transport: &'a Transport, cuts: &'a Cuts, root: Arc<Zone>, fresh: bool) -> Self {
        Self { transport, cuts, root, fresh, work: Work::default(), now: rrset::now() }
    }

    /// Asks the name servers one question.
    pub(super) async fn ask(&mut self, name: &Name, kind: RecordType) -> Result<Response, LookupError> {
        self.work.charge_question()?;
        self.transport.ask(name.clone(), kind, true).await?.usable()
    }

    /// Judges an RRset; `authorities` may prove that a wildcard stands for its owner.
    ///
    /// # Errors
    /// `Bogus` where it is signed wrongly, or not signed and nothing proves that it need not be.
    pub(super) async fn judge(&mut self, set: &RrSet<'_>, authorities: &[Record]) -> Result<Verdict, LookupError> {
        let mut unsigned = false;
        let mut fault = None;
        let signers = set.signers();
        for signer in &signers {
            match self.trust(signer).await {
                Ok(Trust::Unsigned) => unsigned = true,
                Ok(Trust::Signed(zone)) => match self.judge_by(set, authorities, &zone)? {
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
            self.must_be_unsigned(set.owner, || not_validated(set.owner, set.kind)).await?;
        }
        Ok((UNSIGNED, set.ttl()))
    }

    /// Judges an RRset by the keys of one zone. `None`: the zone does not vouch for it.
    fn judge_by(
        &mut self,
        set: &RrSet<'_>,
        authorities: &[Record],
        zone: &Zone,
    ) -> Result<Option<Verdict>, LookupError> {
        let Some(verified) = zone.verify(set, &mut self.work, self.now)? else { return Ok(None) };
        if verified.labels == set.owner.num_labels() {
            return Ok(Some((Security::Secure, verified.holds)));
        }
        let may_be_expanded = !matches!(
            set.kind,
            RecordType::DNAME | RecordType::NS | RecordType::SOA | RecordType::DS | RecordType::DNSKEY
        );
        if !may_be_expanded {
            return Ok(None);
        }
        let mut proofs = Proofs::new(authorities, zone, &mut self.work, self.now)?;
        let proof = proofs.prove_expansion(set.owner, verified.labels, &mut self.work)?;
        let holds = verified.holds.min(proofs.holds);
        Ok(proof.map(|proof| (if proof == LeafProof::MayBeUnsigned { UNSIGNED } else { Security::Secure }, holds)))
    }

    /// Judges an answer that has nothing for a name and a type. `None` as a proof: it need not be proved, since
    /// the zone is unsigned.
    ///
    /// # Errors
    /// `Bogus` where the absence is not proved and nothing shows that it need not be.
    pub(super) async fn judge_denial(
        &mut self,
        name: &Name,
        kind: RecordType,
        authorities: &[Record],
    ) -> Result<Option<(LeafProof, Duration)>, LookupError> {
        let unproved = || LookupError::Bogus(format!("nothing proves that {name} has no {kind} records"));
        for signer in Proofs::signers(authorities, name) {
            let Trust::Signed(zone) = self.trust(signer).await? else { return Ok(None) };
            if zone.apex != *signer {
                continue;
            }
            let mut proofs = Proofs::new(authorities, &zone, &mut self.work, self.now)?;
            if let Some(proof) = proofs.prove_leaf(name, kind, &mut self.work)? {
                return Ok(Some((proof, proofs.holds)));
            }
        }
        self.must_be_unsigned(name, unproved).await?;
        Ok(None)
    }

    async fn must_be_unsigned(&mut self, name: &Name, fault: impl FnOnce() -> LookupError) -> Result<(), LookupError> {
        match self.trust(name).await? {
            Trust::Unsigned => Ok(()),
            Trust::Signed(_) => Err(fault()),
        }
    }

    /// Finds the zone that a name belongs to, from the root downwards.
    async fn trust(&mut self, name: &Name) -> Result<Trust, LookupError> {
        let mut zone = Arc::clone(&self.root);
        for labels in 1..=name.iter().len() {
            match self.cut(&zone, &name.trim_to(labels)).await? {
                Cut::Signed(child) => zone = child,
                Cut::Unsigned => return Ok(Trust::Unsigned),
                Cut::None => {}
                Cut::NoName => break,
            }
        }
        Ok(Trust::Signed(zone))
    }

    /// Finds out whether a zone begins at a name, as it is remembered or as the zone above it says.
    async fn cut(&mut self, above: &Zone, name: &Name) -> Result<Cut, LookupError> {
        let (cuts, fresh) = (self.cuts, self.fresh);
        let mut is_ours = false;
        let find = async || {
            is_ours = true;
            self.find_cut(above, name).await
        };
        let found = cuts.get(name, fresh, find).await;
        match found {
            Ok(cut) => Ok(cut),
            // Somebody else's lookup has failed, perhaps for its own reasons.
            Err(_) if !is_ours => Ok(self.find_cut(above, name).await?.0),
            Err(fault) => Err(fault),
        }
    }

    async fn find_cut(&mut self, above: &Zone, name: &Name) -> Result<(Cut, Duration), LookupError> {
        let response = self.ask(name, RecordType::DS).await?;
        if let Some(set) = RrSet::find(&response.answers, name, RecordType::DS) {
            let verified = above.verify_unexpanded(&set, &mut self.work, self.now)?;
            let holds = verified.ok_or_else(|| not_validated(name, RecordType::DS))?.holds;
            return self.find_zone(name, &set, holds).await;
        }
        if let Some(alias) = cname::evidence(&response.answers, name) {
            // Where there is an alias, or a DNAME above, no zone begins (RFC 2181 §10.1, RFC 6672 §2.4).
            let verdict = self.judge_by(&alias, &response.authorities, above)?;
            let (_, holds) = verdict.ok_or_else(|| not_validated(name, alias.kind))?;
            return Ok((Cut::None, holds));
        }
        let mut proofs = Proofs::new(&response.authorities, above, &mut self.work, self.now)?;
        let cut = match proofs.prove_cut(name, &mut self.work)? {
            Some(CutProof::Unsigned) => Cut::Unsigned,
            Some(CutProof::NoCut) => Cut::None,
            Some(CutProof::NoName) => Cut::NoName,
            None => return Err(LookupError::Bogus(format!("nothing proves whether {name} is signed"))),
        };
        Ok((cut, proofs.holds))
    }

    /// Takes the keys of a zone that the DS records vouch for.
    async fn find_zone(
        &mut self,
        name: &Name,
        digests: &RrSet<'_>,
        holds: Duration,
    ) -> Result<(Cut, Duration), LookupError> {
        let digests = zone::usable_digests(digests);
        if digests.is_empty() {
            return Ok((Cut::Unsigned, holds));
        }
        let response = self.ask(name, RecordType::DNSKEY).await?;
        let keys = RrSet::find(&response.answers, name, RecordType::DNSKEY);
        let keys = keys.ok_or_else(|| LookupError::Bogus(format!("{name} shows no DNSKEY records")))?;
        let is_vouched_for = |tag, key: &_, work: &mut _| is_digest_of(digests.iter().copied(), name, tag, key, work);
        let zone = Zone::from_keys(&keys, is_vouched_for, &mut self.work, self.now)?;
        let (zone, signed_for) = zone.ok_or_else(|| not_validated(name, RecordType::DNSKEY))?;
        Ok((Cut::Signed(Arc::new(zone)), holds.min(signed_for)))
    }
}

fn not_validated(name: &Name, kind: RecordType) -> LookupError {
    LookupError::Bogus(format!("the signatures of the {kind} records of {name} are wrong, expired or missing"))
}
