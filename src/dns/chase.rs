//! A question with its CNAMEs followed: every hop counts, and the weakest one is the verdict.

use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::ground::{Ground, STRIPS_FOR};
use super::reply::{Reply, ask};
use super::{Found, InsecureReason, LookupError, Security};

/// CNAMEs on the way to one answer, at most.
const ALIASES_MAX: usize = 10;
/// Records of one answer that are kept, at most.
const RECORDS_MAX: usize = 256;
/// Shorter is not worth asking again for, longer is not worth believing.
const TTL_MIN: Duration = Duration::from_secs(5);
const TTL_MAX: Duration = Duration::from_hours(24);
/// For what does not exist (RFC 2308 §5).
const NEGATIVE_TTL_MAX: Duration = Duration::from_hours(1);

/// The end of a chain, and the verdict on all of it.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) found: Found<RData>,
    pub(super) security: Security,
    pub(super) first: Security,
    pub(super) name: String,
    pub(super) holds: Duration,
}

/// What is known of a chain so far.
struct Chain {
    at: Name,
    aliases: usize,
    security: Security,
    first: Option<Security>,
    /// The shortest time that any link holds, and that a signature lets it hold.
    holds: Duration,
}

/// Follows a name to its records, or to the denial of them.
pub(super) async fn resolve(ground: &Ground, name: &Name, kind: RecordType) -> Result<Resolved, LookupError> {
    let outcome = follow(ground, name, kind).await;
    let Err(LookupError::Bogus(_)) = outcome else { return outcome };
    // What is kept of the chain of trust may be older than what it leads to: once more, all of it fresh.
    ground.transport.forget();
    let outcome = follow(ground, name, kind).await;
    if let Err(LookupError::Bogus(_)) = outcome {
        ground.doubt().await;
    }
    outcome
}

async fn follow(ground: &Ground, name: &Name, kind: RecordType) -> Result<Resolved, LookupError> {
    let mut chain = Chain { at: name.clone(), aliases: 0, security: Security::Secure, first: None, holds: TTL_MAX };
    loop {
        let asked = chain.at.clone();
        let reply = ask(ground, &asked, kind).await?;
        // A reply often has the whole chain; what is not in it is asked for.
        loop {
            if let Some(link) = reply.records(&chain.at, kind)? {
                chain.add(link.security, link.ttl);
                let records = link.data.into_iter().take(RECORDS_MAX).cloned().collect();
                return Ok(chain.end(Found::Records(records)));
            }
            let Some((target, security, ttl)) = reply.alias(&chain.at)? else { break };
            chain.add(security, ttl);
            chain.aliases += 1;
            if chain.aliases > ALIASES_MAX {
                return Err(LookupError::Server(format!("{name} leads through more than {ALIASES_MAX} aliases")));
            }
            chain.at = target;
        }
        if chain.at == asked {
            return chain.denied(&reply, kind);
        }
    }
}

impl Chain {
    fn add(&mut self, security: Security, holds: Duration) {
        self.security = self.security.weakest(security);
        self.first.get_or_insert(security);
        self.holds = self.holds.min(holds);
    }

    fn denied(mut self, reply: &Reply, kind: RecordType) -> Result<Resolved, LookupError> {
        let (security, holds) = reply.denial(&self.at, kind)?;
        self.add(security, holds.unwrap_or(TTL_MIN).min(NEGATIVE_TTL_MAX));
        let found = if reply.no_such_name { Found::NoDomain } else { Found::NoData };
        Ok(self.end(found))
    }

    fn end(self, found: Found<RData>) -> Resolved {
        let name = self.at.to_lowercase().to_ascii();
        Resolved {
            found,
            security: self.security,
            first: self.first.unwrap_or(self.security),
            name: name.strip_suffix('.').unwrap_or(&name).to_owned(),
            // What nobody could validate is believed no longer than that nobody can.
            holds: match (self.security, self.first) {
                (Security::Insecure(InsecureReason::ResolverStrips), _)
                | (_, Some(Security::Insecure(InsecureReason::ResolverStrips))) => {
                    self.holds.clamp(TTL_MIN, STRIPS_FOR)
                }
                _ => self.holds.clamp(TTL_MIN, TTL_MAX),
            },
        }
    }
}
