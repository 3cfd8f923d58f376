//! The TLS policies that domains publish, and the memory of the TLS that they have shown.
//!
//! TLSA records (RFC 7672) are in [`dane`], MTA-STS policies (RFC 8461) in [`mta_sts`], the
//! downgrade memory in [`history`]. [`Discovery`] looks all of them up for one hop.
//! [`crate::policy::layers`] joins them into a demand, and the TLS judge
//! ([`crate::policy::tls`]) decides whether a session satisfies it.

pub mod dane;
pub mod history;
pub mod mta_sts;
mod query;

use std::future::Future;

use jiff::Timestamp;

use crate::config::Publication;
use crate::net::dns::Security;
use crate::net::route::{Hop, HopOrigin, RouteBasis};
use crate::policy::failure::Failure;
use crate::policy::layers::{HopFacts, HostProof, MemoryFinding, MtaStsFinding, MtaStsListing};
use crate::smtp::address::{Domain, Host};
use crate::smtp::envelope::TlsRequirement;
use crate::smtp::reply::Status;
use history::History;
use mta_sts::{Listing, MtaSts, MtaStsMode, NoPolicy, PublishedPolicy};
pub use query::HopQuery;
use query::reason_to_skip;

const ADDRESS: &str = "the host is named by its address";

/// Looks up what is published and remembered about hops. There is one for the process; clones share
/// its state.
///
/// The daemon stores the results ([`PersistentPolicies`]). Commands that only inform use another
/// source of policies.
#[derive(Debug, Clone)]
pub struct Discovery<K = PersistentPolicies> {
    known: K,
}

/// A source of MTA-STS policies and of the downgrade memory.
pub trait KnownPolicies: Sync {
    /// Returns the MTA-STS policy of a domain, within a bounded time.
    fn policy(&self, domain: &Domain) -> impl Future<Output = PublishedPolicy> + Send;

    /// Returns what the downgrade memory holds against a host of a recipient domain.
    fn downgrade_memory(&self, domain: &Host, host: &Host, now: Timestamp) -> MemoryFinding;
}

/// The daemon's policies and memory, stored on disk.
#[derive(Debug, Clone)]
pub struct PersistentPolicies {
    mta_sts: MtaSts,
    history: History,
}

impl KnownPolicies for PersistentPolicies {
    async fn policy(&self, domain: &Domain) -> PublishedPolicy {
        self.mta_sts.policy(domain).await
    }

    fn downgrade_memory(&self, domain: &Host, host: &Host, now: Timestamp) -> MemoryFinding {
        self.history.baseline(domain, host, now).finding()
    }
}

/// The result of the lookups for one hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopLookup {
    /// The facts from which the demand is derived.
    pub findings: HopFacts,
    /// The MTA-STS policy or the reason for its absence, for TLS reports.
    pub published: MtaStsLookup,
}

/// The lookup of an MTA-STS policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MtaStsLookup {
    /// It was not needed, for this reason.
    Skipped(&'static str),
    /// It was done.
    Done(PublishedPolicy),
}

/// The reason why a hop must not be used: a lookup that decides about its security failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryError {
    /// The lookup of TLSA records failed (RFC 7672 §2.1.2).
    Tlsa(Failure),
    /// The message requires a host that is proven to be the domain's (RFC 8689 §4.2.1), and the
    /// lookup of the proof failed.
    Proof(Failure),
}

impl From<DiscoveryError> for Failure {
    fn from(unknown: DiscoveryError) -> Self {
        match unknown {
            DiscoveryError::Tlsa(failure) | DiscoveryError::Proof(failure) => failure,
        }
    }
}

impl Discovery {
    /// Creates the daemon's discovery.
    #[must_use]
    pub fn new(mta_sts: MtaSts, history: History) -> Self {
        Self {
            known: PersistentPolicies { mta_sts, history },
        }
    }

    /// Returns the MTA-STS policies.
    #[must_use]
    pub fn mta_sts(&self) -> &MtaSts {
        &self.known.mta_sts
    }

    /// Returns the downgrade memory.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.known.history
    }
}

impl<K: KnownPolicies> Discovery<K> {
    /// Creates a discovery that uses another source of policies.
    #[must_use]
    pub fn with_policies(known: K) -> Self {
        Self { known }
    }

    /// Performs all lookups for one hop. Waits for those that are not cached, each for a bounded
    /// time.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub async fn look_up_hop(&self, query: &HopQuery<'_>) -> Result<HopLookup, DiscoveryError> {
        // A failed TLSA lookup ends the other lookup, since the hop cannot be used anyway.
        let (dane, published) = tokio::try_join!(dane::look_up(query), async {
            Ok(self.published(query).await)
        })
        .map_err(DiscoveryError::Tlsa)?;
        let host_proof = host_proof(query);
        if let Some(failure) = proof_unavailable(query, &host_proof, &published) {
            return Err(DiscoveryError::Proof(failure));
        }
        let mta_sts = match &published {
            MtaStsLookup::Skipped(why) => MtaStsFinding::NotLookedUp(why),
            MtaStsLookup::Done(published) => sts_finding(published, &query.hop.host),
        };
        let findings = HopFacts {
            dane,
            mta_sts,
            host_proof,
            memory: self.memory(query),
        };
        Ok(HopLookup {
            findings,
            published,
        })
    }

    async fn published(&self, query: &HopQuery<'_>) -> MtaStsLookup {
        if let Some(why) = reason_to_skip(query, Publication::MtaSts) {
            return MtaStsLookup::Skipped(why);
        }
        match policy_domain(query.recipient, query.hop) {
            Some(domain) => MtaStsLookup::Done(self.known.policy(domain).await),
            None => MtaStsLookup::Skipped(ADDRESS),
        }
    }

    fn memory(&self, query: &HopQuery<'_>) -> MemoryFinding {
        self.known
            .downgrade_memory(query.recipient, &query.hop.host, query.now)
    }
}

/// Returns the domain whose MTA-STS policy applies: the recipient domain, or the smart host itself
/// (RFC 8461 §3.4). Address literals have none.
#[must_use]
pub fn policy_domain<'a>(recipient: &'a Host, hop: &'a Hop) -> Option<&'a Domain> {
    match hop.origin {
        HopOrigin::Mx { .. } | HopOrigin::ImplicitMx => recipient.domain(),
        HopOrigin::SmartHost => hop.host.domain(),
        HopOrigin::Literal => None,
    }
}

/// Converts a policy into a finding about one host.
fn sts_finding(published: &PublishedPolicy, host: &Host) -> MtaStsFinding {
    let policy = match published {
        PublishedPolicy::None(absent) => return MtaStsFinding::None(absent.to_string()),
        PublishedPolicy::Policy(policy) => policy,
    };
    let listing = match host.domain().map(|host| mta_sts::evaluate(policy, host)) {
        Some(Listing::Listed) => MtaStsListing::Listed,
        Some(Listing::NotListed) | None => MtaStsListing::NotListed(policy.mx().cloned().collect()),
    };
    match policy.mode() {
        MtaStsMode::Enforce => MtaStsFinding::Enforce(listing),
        MtaStsMode::Testing => MtaStsFinding::Testing(listing),
        MtaStsMode::None => {
            MtaStsFinding::None("the domain's MTA-STS policy has mode none".to_owned())
        }
    }
}

/// Returns the failure of a REQUIRETLS message whose host is not proven to be the domain's (RFC
/// 8689 §4.2.1) while the MTA-STS policy, which might prove it, cannot be fetched. It is temporary,
/// so that the message is retried.
fn proof_unavailable(
    query: &HopQuery<'_>,
    host_proof: &HostProof,
    published: &MtaStsLookup,
) -> Option<Failure> {
    let MtaStsLookup::Done(PublishedPolicy::None(absent @ NoPolicy::Failed(_))) = published else {
        return None;
    };
    let wanted = query.requirement == TlsRequirement::Require
        && matches!(host_proof, HostProof::Insecure(_));
    let text = format!(
        "the message requires TLS with a host that is proven to be the domain's (REQUIRETLS), but {absent}"
    );
    wanted.then(|| Failure::discovery(Status(7, 5), text))
}

fn host_proof(query: &HopQuery<'_>) -> HostProof {
    match (query.hop.origin, query.basis) {
        (HopOrigin::SmartHost, _) => HostProof::SmartHost,
        (HopOrigin::Literal, _) => HostProof::Literal,
        (HopOrigin::Mx { .. } | HopOrigin::ImplicitMx, RouteBasis::Configured) => HostProof::Secure,
        (HopOrigin::Mx { .. } | HopOrigin::ImplicitMx, RouteBasis::NoMx(chain)) => {
            match chain.security {
                Security::Secure => HostProof::Secure,
                Security::Insecure(why) => HostProof::OwnHost(format!(
                    "that {} has no MX records is {why}",
                    query.recipient
                )),
            }
        }
        (HopOrigin::Mx { .. } | HopOrigin::ImplicitMx, RouteBasis::Mx(chain)) => {
            match chain.security {
                Security::Secure => HostProof::Secure,
                Security::Insecure(why) => {
                    HostProof::Insecure(format!("the MX records of {} are {why}", query.recipient))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8461 §3.4: a smart host's policy is its own; a subdomain does not have its parent's.
    #[test]
    fn a_smart_host_has_its_own_policy_and_an_address_has_none() {
        let parse = |name: &str| Host::parse(name).expect(name);
        let recipient = parse("sub.good.example");
        let mx = HopOrigin::Mx { preference: 10 };
        for (host, origin, domain) in [
            ("mx.elsewhere.example", mx, Some("sub.good.example")),
            (
                "sub.good.example",
                HopOrigin::ImplicitMx,
                Some("sub.good.example"),
            ),
            ("smart.example", HopOrigin::SmartHost, Some("smart.example")),
            ("[192.0.2.1]", HopOrigin::SmartHost, None),
            ("[192.0.2.1]", HopOrigin::Literal, None),
        ] {
            let hop = Hop {
                host: parse(host),
                port: 25,
                protocol: crate::config::HopProtocol::Smtp,
                origin,
            };
            let found = policy_domain(&recipient, &hop).map(Domain::as_str);
            assert_eq!(found, domain, "{host} {origin:?}");
        }
    }
}
