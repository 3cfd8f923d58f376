//! One lookup: follows CNAMEs to the records, and combines the security of all links.

use std::time::Duration;

use hickory_resolver::proto::dnssec::rdata::DNSSECRData;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::name_servers::Response;
use super::resolver::{ResolverState, STRIPPED_RECHECK, TrustBasis};
use super::rrset::{self, RrSet};
use super::validator::{LeafProof, SecurityVerdict, Validator};
use super::{AnswerRecords, InsecureReason, LookupError, Security, cname};

/// The maximum number of CNAMEs on the way to one answer.
const ALIASES_MAX: usize = 10;
/// The maximum number of records of one answer.
const RECORDS_MAX: usize = 256;
/// The limits within which a TTL is honoured.
const TTL_MIN: Duration = Duration::from_secs(5);
const TTL_MAX: Duration = Duration::from_hours(24);
/// The maximum lifetime of a negative answer (RFC 2308 §5).
const NEGATIVE_TTL_MAX: Duration = Duration::from_hours(1);

/// The records at the end of a CNAME chain, and the security of the chain.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) found: AnswerRecords<RData>,
    pub(super) security: Security,
    pub(super) first_link: Security,
    pub(super) name: String,
    pub(super) holds: Duration,
}

/// The basis on which the answers of one lookup are judged.
enum AnswerJudge<'a> {
    /// Signatures.
    Validator(Box<Validator<'a>>),
    /// The AD bit of the resolver.
    AdBit(&'a ResolverState),
    /// Nothing: every answer is insecure, for this reason.
    Insecure(&'a ResolverState, InsecureReason),
}

/// The CNAME chain followed so far.
struct ChainWalk {
    at: Name,
    aliases: usize,
    security: Security,
    first_link: Option<Security>,
    /// The shortest lifetime of any link, by its TTL and its signature.
    holds: Duration,
}

/// Looks up the records of a name, or the proof that there are none.
pub(super) async fn resolve(
    state: &ResolverState,
    name: &Name,
    kind: RecordType,
) -> Result<Resolved, LookupError> {
    let outcome = follow(state, name, kind, false).await;
    let Err(LookupError::Bogus(_)) = outcome else {
        return outcome;
    };
    // The cached zone cuts may be older than the answer, so the lookup runs once more with fresh
    // ones.
    let outcome = follow(state, name, kind, true).await;
    if let Err(LookupError::Bogus(_)) = outcome {
        state.probe_after_bogus();
    }
    outcome
}

async fn follow(
    state: &ResolverState,
    name: &Name,
    kind: RecordType,
    fresh: bool,
) -> Result<Resolved, LookupError> {
    let mut judge = AnswerJudge::new(state, fresh).await?;
    let mut chain = ChainWalk {
        at: name.clone(),
        aliases: 0,
        security: Security::Secure,
        first_link: None,
        holds: TTL_MAX,
    };
    loop {
        let queried = chain.at.clone();
        let response = judge.ask(&queried, kind).await?;
        // A response often contains the whole chain. Links that it lacks are queried.
        loop {
            if let Some(set) = RrSet::find(&response.answers, &chain.at, kind) {
                if response.code == ResponseCode::NXDomain {
                    return Err(LookupError::Bogus(format!(
                        "the response has records of {} and the code NXDOMAIN",
                        chain.at
                    )));
                }
                chain.add(judge.judge(&set, &response).await?);
                return Ok(chain.end(AnswerRecords::Records(
                    set.data().take(RECORDS_MAX).cloned().collect(),
                )));
            }
            let alias = cname::target(&response.answers, &chain.at)
                .zip(cname::evidence(&response.answers, &chain.at));
            let Some((target, evidence)) = alias else {
                break;
            };
            chain.add(judge.judge(&evidence, &response).await?);
            chain.aliases += 1;
            if chain.aliases > ALIASES_MAX {
                return Err(LookupError::Server(format!(
                    "{name} is an alias over more than {ALIASES_MAX} CNAMEs"
                )));
            }
            chain.at = target.clone();
        }
        if chain.at == queried {
            let (found, verdict) = judge.judge_denial(&queried, kind, &response).await?;
            chain.add(verdict);
            return Ok(chain.end(found));
        }
    }
}

impl<'a> AnswerJudge<'a> {
    async fn new(state: &'a ResolverState, fresh: bool) -> Result<Self, LookupError> {
        Ok(match state.trust().await? {
            TrustBasis::RootKeys(root) => Self::Validator(Box::new(state.validator(root, fresh))),
            TrustBasis::AdBit => Self::AdBit(state),
            TrustBasis::Insecure(reason) => Self::Insecure(state, reason),
        })
    }

    async fn ask(&mut self, name: &Name, kind: RecordType) -> Result<Response, LookupError> {
        match self {
            Self::Validator(validator) => validator.ask(name, kind).await,
            Self::AdBit(state) => state
                .name_servers()
                .ask(name.clone(), kind, true)
                .await?
                .usable(),
            Self::Insecure(state, _) => state
                .name_servers()
                .ask(name.clone(), kind, false)
                .await?
                .usable(),
        }
    }

    async fn judge(
        &mut self,
        set: &RrSet<'_>,
        response: &Response,
    ) -> Result<SecurityVerdict, LookupError> {
        match self {
            Self::Validator(validator) => validator.judge(set, &response.authorities).await,
            Self::AdBit(_) if response.authentic => Ok((Security::Secure, set.holds(rrset::now()))),
            Self::AdBit(_) => Ok((
                Security::Insecure(InsecureReason::NoAdBit),
                set.holds(rrset::now()),
            )),
            Self::Insecure(_, reason) => Ok((Security::Insecure(*reason), set.holds(rrset::now()))),
        }
    }

    /// Judges a response without records for the name (RFC 2308 §2, RFC 4035 §5.4).
    async fn judge_denial(
        &mut self,
        name: &Name,
        kind: RecordType,
        response: &Response,
    ) -> Result<(AnswerRecords<RData>, SecurityVerdict), LookupError> {
        let by_code = if response.code == ResponseCode::NXDomain {
            AnswerRecords::NoDomain
        } else {
            AnswerRecords::NoData
        };
        let insecure = |reason| {
            (
                Security::Insecure(reason),
                negative_ttl(&response.authorities),
            )
        };
        let validator = match self {
            // The library drops the AD bit of negative responses, so a denial is always insecure in
            // this mode.
            Self::AdBit(_) => return Ok((by_code, insecure(InsecureReason::NoAdBit))),
            Self::Insecure(_, reason) => return Ok((by_code, insecure(*reason))),
            Self::Validator(validator) => validator,
        };
        let Some((proof, holds)) = validator
            .judge_denial(name, kind, &response.authorities)
            .await?
        else {
            return Ok((by_code, insecure(InsecureReason::Unsigned)));
        };
        let holds = holds.min(NEGATIVE_TTL_MAX);
        match (proof, &by_code) {
            (LeafProof::MayBeUnsigned, _) => Ok((
                by_code,
                (Security::Insecure(InsecureReason::Unsigned), holds),
            )),
            (LeafProof::NoDataByNsec, _) => Ok((AnswerRecords::NoData, (Security::Secure, holds))),
            (LeafProof::NoData, AnswerRecords::NoData)
            | (LeafProof::NoName, AnswerRecords::NoDomain) => {
                Ok((by_code, (Security::Secure, holds)))
            }
            (LeafProof::NoData | LeafProof::NoName, _) => Err(LookupError::Bogus(format!(
                "the answer for {name} contradicts its NSEC or NSEC3 proof"
            ))),
        }
    }
}

/// Returns the lifetime of an unproved denial (RFC 2308 §5), at most that of any signature in it.
fn negative_ttl(authorities: &[Record]) -> Duration {
    let soa = authorities.iter().filter_map(|record| match &record.data {
        RData::SOA(soa) => Some(Duration::from_secs(record.ttl.min(soa.minimum).into())),
        _ => None,
    });
    let expiry = authorities.iter().filter_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
            Some(rrset::remaining_time(signature, rrset::now()).unwrap_or_default())
        }
        _ => None,
    });
    soa.min()
        .map_or(TTL_MIN, |ttl| {
            expiry
                .map(|remaining| Duration::from_secs(remaining.into()))
                .fold(ttl, Duration::min)
        })
        .min(NEGATIVE_TTL_MAX)
}

impl ChainWalk {
    fn add(&mut self, (security, holds): SecurityVerdict) {
        self.security = self.security.weakest(security);
        self.first_link.get_or_insert(security);
        self.holds = self.holds.min(holds);
    }

    fn end(self, found: AnswerRecords<RData>) -> Resolved {
        let name = self.at.to_lowercase().to_ascii();
        Resolved {
            found,
            security: self.security,
            first_link: self.first_link.unwrap_or(self.security),
            name: name.strip_suffix('.').unwrap_or(&name).to_owned(),
            // An answer that could not be validated expires before the next probe, so that it is
            // validated once that is possible.
            holds: match (self.security, self.first_link) {
                (Security::Insecure(InsecureReason::ResolverStrips), _)
                | (_, Some(Security::Insecure(InsecureReason::ResolverStrips))) => {
                    self.holds.clamp(TTL_MIN, STRIPPED_RECHECK)
                }
                _ => self.holds.clamp(TTL_MIN, TTL_MAX),
            },
        }
    }
}
