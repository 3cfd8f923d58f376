//! One question, one reply, and the security of each part of it.
//!
//! This is the only place that reads the proofs that the validator leaves on records. Every record counts;
//! the proof of an RRSIG record itself does not (it says nothing about what it signs).

use std::time::Duration;

use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, NSEC3, RRSIG};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use jiff::Timestamp;

use super::ground::{Footing, Ground, Validator, options, request};
use super::{InsecureReason, LookupError, Security, bound, wildcard};

/// What a reply is judged by.
#[derive(Clone, Copy)]
enum Judge {
    /// The proof on each record.
    Proofs,
    /// One word for all of it.
    Word(Security),
}

/// A reply that can be relied on as far as `Judge` goes.
pub(super) struct Reply {
    answers: Vec<Record>,
    authorities: Vec<Record>,
    /// NXDOMAIN for the name at the end of the chain.
    pub(super) no_such_name: bool,
    judge: Judge,
}

/// Asks one question.
pub(super) async fn ask(ground: &Ground, name: &Name, kind: RecordType) -> Result<Reply, LookupError> {
    match ground.footing().await {
        Footing::Validated(validator) => validated(&validator, name, kind).await,
        Footing::Vouched => plain(ground, name, kind, None).await,
        Footing::Insecure(reason) => plain(ground, name, kind, Some(reason)).await,
    }
}

async fn validated(validator: &Validator, name: &Name, kind: RecordType) -> Result<Reply, LookupError> {
    let query = Query::query(name.clone(), kind);
    let fault = match validator.lookup(query, options(true)).first_answer().await {
        Ok(response) => return Ok(Reply::new(response.into_message(), Judge::Proofs)),
        Err(fault) => fault,
    };
    let NetError::Dns(DnsError::Nsec { response, proof, .. }) = fault else { return Err(in_words(fault)) };
    match proof {
        // NSEC3 with more iterations than one should compute (RFC 9276 §3.2); those of the name's own zone count.
        Proof::Insecure if bound::hashed_above(name, &response.authorities) => {
            let judge = Judge::Word(Security::Insecure(InsecureReason::Unsigned));
            Ok(Reply::new(response.into_message(), judge))
        }
        Proof::Bogus if wildcard::are_proved(&response.answers, &response.authorities) => {
            Ok(Reply::new(response.into_message(), Judge::Proofs))
        }
        // What is denied here is the alias's target, and the validator looks for the alias in the denial. So
        // the alias is asked for by itself, and its target is the next question.
        Proof::Secure | Proof::Insecure | Proof::Bogus | Proof::Indeterminate
            if kind != RecordType::CNAME && alias(&response.answers, name).is_some() =>
        {
            Box::pin(validated(validator, name, RecordType::CNAME)).await
        }
        Proof::Secure | Proof::Insecure | Proof::Bogus | Proof::Indeterminate => Err(LookupError::Bogus(format!(
            "that {name} has no {kind} records is not proved as DNSSEC wants it proved"
        ))),
    }
}

/// Without validation: by the resolver's word, or for `insecure` reasons by nobody's.
async fn plain(
    ground: &Ground,
    name: &Name,
    kind: RecordType,
    insecure: Option<InsecureReason>,
) -> Result<Reply, LookupError> {
    let question = request(name.clone(), kind, insecure.is_none());
    let unvouched = Security::Insecure(insecure.unwrap_or(InsecureReason::NotVouchedFor));
    match ground.transport.send(question).first_answer().await {
        Ok(response) => {
            let vouched = insecure.is_none() && response.authentic_data;
            let word = if vouched { Security::Secure } else { unvouched };
            Ok(Reply::new(response.into_message(), Judge::Word(word)))
        }
        // The library does not say whether the AD bit was set here. A denial makes no demand either way.
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            let NoRecords { soa, authorities, response_code, .. } = none;
            let mut authorities: Vec<Record> = authorities.map(|all| all.to_vec()).unwrap_or_default();
            authorities.extend(soa.map(|soa| soa.into_record_of_rdata()));
            match response_code {
                ResponseCode::NoError | ResponseCode::NXDomain => Ok(Reply {
                    answers: Vec::new(),
                    authorities,
                    no_such_name: response_code == ResponseCode::NXDomain,
                    judge: Judge::Word(unvouched),
                }),
                code => Err(answered(code)),
            }
        }
        Err(fault) => Err(in_words(fault)),
    }
}

impl Reply {
    fn new(message: hickory_resolver::proto::op::Message, judge: Judge) -> Self {
        let no_such_name = message.metadata.response_code == ResponseCode::NXDomain;
        Self { answers: message.answers, authorities: message.authorities, no_such_name, judge }
    }

    /// The records of a type at a name, with their security and how long they hold; `None` where there are none.
    pub(super) fn records(&self, name: &Name, kind: RecordType) -> Result<Option<Link<'_>>, LookupError> {
        let records: Vec<&Record> =
            self.answers.iter().filter(|record| record.record_type() == kind && record.name == *name).collect();
        if records.is_empty() {
            return Ok(None);
        }
        let mut security = self.security(&records).ok_or_else(|| not_validated(name, kind))?;
        if self.is_wildcard(name, kind) {
            let is_proved = match self.judge {
                Judge::Proofs => !security.is_secure() || bound::has_proof(name, &self.authorities),
                Judge::Word(_) => true,
            };
            if !is_proved {
                return Err(not_validated(name, kind));
            }
            security = security.weakest(self.without_opt_out(0));
        }
        let ttl = self.holds(name, kind, &records);
        Ok(Some(Link { data: records.into_iter().map(|record| &record.data).collect(), security, ttl }))
    }

    /// Where an alias leads, with its security and how long it holds. A CNAME that a DNAME stands for has no
    /// signature of its own (RFC 6672 §5.3.1): the DNAME has.
    pub(super) fn alias(&self, name: &Name) -> Result<Option<(Name, Security, Duration)>, LookupError> {
        let Some(target) = alias(&self.answers, name) else { return Ok(None) };
        let by_itself = self.records(name, RecordType::CNAME);
        if let Ok(Some(link)) = by_itself {
            return Ok(Some((target.clone(), link.security, link.ttl)));
        }
        let owners = self.answers.iter().filter(|record| record.record_type() == RecordType::DNAME);
        for owner in owners.map(|record| &record.name).filter(|owner| owner.zone_of(name) && *owner != name) {
            let Some(link) = self.records(owner, RecordType::DNAME)? else { continue };
            if link.data.iter().any(|data| stands_for(data, owner, name, target)) {
                return Ok(Some((target.clone(), link.security, link.ttl)));
            }
        }
        by_itself.map(|_| None)
    }

    /// The security of a reply that has nothing at its name, and how long that holds (RFC 2308 §5).
    pub(super) fn denial(&self, name: &Name, kind: RecordType) -> Result<(Security, Option<Duration>), LookupError> {
        let of_type = |kind| self.authorities.iter().filter(move |record| record.record_type() == kind);
        let soa: Vec<&Record> = of_type(RecordType::SOA).collect();
        let proofs: Vec<&Record> = of_type(RecordType::NSEC).chain(of_type(RecordType::NSEC3)).collect();
        let security = match self.judge {
            Judge::Word(word) => word,
            Judge::Proofs => {
                let all: Vec<&Record> = soa.iter().chain(&proofs).copied().collect();
                let security = if proofs.is_empty() {
                    Security::Insecure(InsecureReason::Unsigned)
                } else {
                    self.security(&all).ok_or_else(|| not_validated(name, kind))?
                };
                if !self.speaks_for(name, security) {
                    return Err(not_validated(name, kind));
                }
                // The one that matches a name denies a type there; more of them deny the name.
                security.weakest(self.without_opt_out(1))
            }
        };
        let minimum = |record: &&Record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        };
        let Some(ttl) = soa.iter().filter_map(minimum).min() else { return Ok((security, None)) };
        let expiry = self.authorities.iter().filter_map(remaining).min();
        let ttl = Duration::from_secs(ttl.into());
        Ok((security, Some(expiry.map_or(ttl, |expiry| ttl.min(expiry)))))
    }

    /// Whether the authority section is that of a zone which has `name` in it. Where there is none at all, the
    /// library has asked whether the zone is signed.
    fn speaks_for(&self, name: &Name, security: Security) -> bool {
        match security {
            Security::Secure => bound::signed_above(name, &self.authorities),
            Security::Insecure(_) => self.authorities.is_empty() || bound::unsigned_above(name, &self.authorities),
        }
    }

    /// Where there are more NSEC3 records than `exact`, they say that a name does not exist; with opt-out it may exist
    /// all the same, in a zone that is not signed (RFC 5155 §9.2).
    fn without_opt_out(&self, exact: usize) -> Security {
        let nsec3 = self.authorities.iter().filter_map(|record| match (&self.judge, &record.data) {
            (Judge::Proofs, RData::DNSSEC(DNSSECRData::NSEC3(nsec3))) => Some(nsec3),
            _ => None,
        });
        let mut opt_out = nsec3.clone().map(NSEC3::opt_out);
        if nsec3.count() > exact && opt_out.any(|opt_out| opt_out) {
            Security::Insecure(InsecureReason::Unsigned)
        } else {
            Security::Secure
        }
    }

    /// Whether a signature says that records were made from a wildcard (RFC 4035 §5.3.4).
    fn is_wildcard(&self, name: &Name, kind: RecordType) -> bool {
        self.signatures(name, kind).any(|(_, signature)| signature.input().num_labels < name.num_labels())
    }

    fn signatures<'a>(&'a self, name: &'a Name, kind: RecordType) -> impl Iterator<Item = (&'a Record, &'a RRSIG)> {
        let of_name = self.answers.iter().filter(move |record| record.name == *name);
        let signatures = of_name.filter_map(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some((record, signature)),
            _ => None,
        });
        signatures.filter(move |(_, signature)| signature.input().type_covered == kind)
    }

    /// `None` where one of them is bogus, or nothing is known of it.
    fn security(&self, records: &[&Record]) -> Option<Security> {
        let word = match self.judge {
            Judge::Word(word) => word,
            Judge::Proofs => Security::Secure,
        };
        records.iter().try_fold(word, |weakest, record| {
            let proof = match (self.judge, record.proof) {
                (Judge::Word(word), Proof::Secure | Proof::Insecure | Proof::Indeterminate) => word,
                (Judge::Proofs, Proof::Secure) => Security::Secure,
                (Judge::Proofs, Proof::Insecure) => Security::Insecure(InsecureReason::Unsigned),
                (_, Proof::Bogus) | (Judge::Proofs, Proof::Indeterminate) => return None,
            };
            Some(weakest.weakest(proof))
        })
    }

    /// How long records hold: their TTL, but never longer than a signature over them.
    fn holds(&self, name: &Name, kind: RecordType, records: &[&Record]) -> Duration {
        let ttl = records.iter().map(|record| record.ttl).min().unwrap_or_default();
        let expiry = self.signatures(name, kind).filter_map(|(record, _)| remaining(record)).min();
        let ttl = Duration::from_secs(ttl.into());
        expiry.map_or(ttl, |expiry| ttl.min(expiry))
    }
}

/// Records of one name and type.
pub(super) struct Link<'a> {
    pub(super) data: Vec<&'a RData>,
    pub(super) security: Security,
    pub(super) ttl: Duration,
}

/// The time that is left to a signature; `None` where the record is none.
fn remaining(record: &Record) -> Option<Duration> {
    let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &record.data else { return None };
    // Serial arithmetic (RFC 4034 §3.1.5): the difference is right across 2106.
    let now = u32::try_from(Timestamp::now().as_second().rem_euclid(1 << 32)).unwrap_or_default();
    let left = signature.input().sig_expiration.get().wrapping_sub(now);
    Some(Duration::from_secs(if left < 1 << 31 { left.into() } else { 0 }))
}

fn alias<'a>(answers: &'a [Record], name: &Name) -> Option<&'a Name> {
    answers.iter().filter(|record| record.name == *name).find_map(|record| match &record.data {
        RData::CNAME(target) => Some(&target.0),
        _ => None,
    })
}

/// Whether a DNAME at `owner` turns `name` into `target` (RFC 6672 §2.2). The library does not know the
/// type, and leaves its data, one uncompressed name, as octets.
fn stands_for(data: &RData, owner: &Name, name: &Name, target: &Name) -> bool {
    let RData::Unknown { rdata, .. } = data else { return false };
    let Ok(suffix) = <Name as hickory_resolver::proto::serialize::binary::BinDecodable>::from_bytes(&rdata.anything)
    else {
        return false;
    };
    let kept = usize::from(name.num_labels()).saturating_sub(owner.num_labels().into());
    let labels: Vec<&[u8]> = name.iter().take(kept).collect();
    Name::from_labels(labels).and_then(|prefix| prefix.append_domain(&suffix)).is_ok_and(|meant| meant == *target)
}

fn not_validated(name: &Name, kind: RecordType) -> LookupError {
    LookupError::Bogus(format!("the signatures of the {kind} records of {name} are wrong, expired or missing"))
}

fn answered(code: ResponseCode) -> LookupError {
    LookupError::Server(format!("the name server answered {code}"))
}

fn in_words(fault: NetError) -> LookupError {
    match fault {
        NetError::Dns(DnsError::ResponseCode(code)) => answered(code),
        NetError::Dns(DnsError::DnssecBogus) => LookupError::Bogus("the library gives no reason".to_owned()),
        NetError::Timeout => LookupError::Timeout,
        NetError::Io(fault) => LookupError::Server(format!("no name server can be reached: {fault}")),
        fault => LookupError::Server(fault.to_string()),
    }
}
