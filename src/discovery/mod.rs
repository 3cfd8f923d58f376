//! What domains publish about themselves, and what they showed before: found, remembered, and never obeyed
//! here.
//!
//! TLSA records (RFC 7672) are in [`dane`], MTA-STS policies (RFC 8461) in [`mta_sts`], the downgrade memory
//! in [`history`]. [`Discovery`] asks all about one hop; what follows for a delivery is joined in [`crate::connector`], and whether a
//! session meets it is judged in [`crate::tls`].

pub mod dane;
pub mod history;
pub mod mta_sts;

use std::future::Future;

use jiff::Timestamp;

use crate::address::{Domain, Host};
use crate::config::{Connector, Publication, TlsDemand};
use crate::connector::{HopFacts, HostProof, MemoryFinding, MtaStsFinding, MtaStsListing, exception};
use crate::dns::{Dns, Security};
use crate::envelope::TlsRequirement;
use crate::failure::Failure;
use crate::route::{Addresses, Hop, HopOrigin, RouteBasis};
use crate::smtp::reply::Status;
use history::History;
use mta_sts::{Listing, MtaSts, NoPolicy, PublishedPolicy, StsMode};

const NOT_IN_DISCOVER: &str = "the connector's discover does not name it";
const OFF: &str = "the connector has switched TLS off";
const TLS_REQUIRED_NO: &str = "the message overrides it (TLS-Required: No)";
const ADDRESS: &str = "the host is named by its address";

/// Everything that is known of hops beside their connectors. One for the process; a clone is the same.
///
/// The daemon keeps what it learns ([`PersistentPolicies`]). A command that only wants to know asks somebody else.
#[derive(Debug, Clone)]
pub struct Discovery<K = PersistentPolicies> {
    known: K,
}

/// Who is asked for what stands neither in the configuration nor among a hop's own records.
pub trait KnownPolicies: Sync {
    /// The MTA-STS policy of a domain. It takes a bounded time.
    fn policy(&self, domain: &Domain) -> impl Future<Output = PublishedPolicy> + Send;

    /// What a recipient domain did before, for a host of it that is about to be dialled.
    fn downgrade_memory(&self, domain: &Host, host: &Host, now: Timestamp) -> MemoryFinding;
}

/// Policies and memory on disk: the daemon's own.
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

/// One hop, about which is asked.
#[derive(Debug, Clone, Copy)]
pub struct HopQuery<'a> {
    /// The recipient domain.
    pub recipient: &'a Host,
    /// The connector that speaks for it.
    pub connector: &'a Connector,
    /// The hop.
    pub hop: &'a Hop,
    /// What led to it.
    pub basis: &'a RouteBasis,
    /// Its addresses.
    pub addresses: &'a Addresses,
    /// What the message asks.
    pub requirement: TlsRequirement,
    /// The resolver of the configuration in force.
    pub dns: &'a Dns,
    /// The time.
    pub now: Timestamp,
}

/// What was found of one hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopLookup {
    /// What the policy follows from.
    pub findings: HopFacts,
    /// The MTA-STS policy behind it, or why there is none; for reports.
    pub published: StsLookup,
}

/// Whether the MTA-STS policy was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StsLookup {
    /// No; why.
    Skipped(&'static str),
    /// Yes.
    Done(PublishedPolicy),
}

/// Why a hop must not be used: what had to be known of it cannot be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryError {
    /// Its TLSA records (RFC 7672 §2.1.2).
    Tlsa(Failure),
    /// Whether it is the domain's, which this message wants proven (RFC 8689 §4.2.1).
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
    /// Puts the two together.
    #[must_use]
    pub fn new(mta_sts: MtaSts, history: History) -> Self {
        Self { known: PersistentPolicies { mta_sts, history } }
    }

    /// The MTA-STS policies.
    #[must_use]
    pub fn mta_sts(&self) -> &MtaSts {
        &self.known.mta_sts
    }

    /// The downgrade memory.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.known.history
    }
}

impl<K: KnownPolicies> Discovery<K> {
    /// Asks this one.
    #[must_use]
    pub fn with_policies(known: K) -> Self {
        Self { known }
    }

    /// Asks about one hop. What is not cached is waited for, each query for a bounded time.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub async fn look_up_hop(&self, query: &HopQuery<'_>) -> Result<HopLookup, DiscoveryError> {
        // A host that cannot be used is known as soon as one of the two says so.
        let (dane, published) = tokio::try_join!(dane::look_up(query), async { Ok(self.published(query).await) })
            .map_err(DiscoveryError::Tlsa)?;
        let way = way(query);
        if let Some(failure) = proof_unavailable(query, &way, &published) {
            return Err(DiscoveryError::Proof(failure));
        }
        let mta_sts = match &published {
            StsLookup::Skipped(why) => MtaStsFinding::NotLookedUp(why),
            StsLookup::Done(published) => sts_finding(published, &query.hop.host),
        };
        let findings = HopFacts { dane, mta_sts, host_proof: way, memory: self.memory(query) };
        Ok(HopLookup { findings, published })
    }

    async fn published(&self, query: &HopQuery<'_>) -> StsLookup {
        if let Some(why) = reason_to_skip(query, Publication::MtaSts) {
            return StsLookup::Skipped(why);
        }
        match policy_domain(query.recipient, query.hop) {
            Some(domain) => StsLookup::Done(self.known.policy(domain).await),
            None => StsLookup::Skipped(ADDRESS),
        }
    }

    fn memory(&self, query: &HopQuery<'_>) -> MemoryFinding {
        self.known.downgrade_memory(query.recipient, &query.hop.host, query.now)
    }
}

/// Why nobody need ask, where that is so.
fn reason_to_skip(query: &HopQuery<'_>, publication: Publication) -> Option<&'static str> {
    let connector = query.connector;
    let tls = exception(connector, query.now).map_or(connector.outbound.tls, |exception| exception.tls);
    if tls == TlsDemand::Off {
        Some(OFF)
    } else if !connector.outbound.discover.contains(&publication) {
        Some(NOT_IN_DISCOVER)
    } else if query.requirement == TlsRequirement::Relaxed {
        Some(TLS_REQUIRED_NO)
    } else {
        None
    }
}

/// Whose policy counts: the recipient domain's, or that of the smart host itself (RFC 8461 §3.4).
/// Nobody's where the host is named by its address.
#[must_use]
pub fn policy_domain<'a>(recipient: &'a Host, hop: &'a Hop) -> Option<&'a Domain> {
    match hop.origin {
        HopOrigin::Mx { .. } | HopOrigin::ImplicitMx => recipient.domain(),
        HopOrigin::SmartHost => hop.host.domain(),
        HopOrigin::Literal => None,
    }
}

/// What a policy says of a host.
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
        StsMode::Enforce => MtaStsFinding::Enforce(listing),
        StsMode::Testing => MtaStsFinding::Testing(listing),
        StsMode::None => MtaStsFinding::None("the domain's MTA-STS policy has mode none".to_owned()),
    }
}

/// A message that requires TLS wants a host that is proven to be the domain's (RFC 8689 §4.2.1). Where the
/// policy that might prove it cannot be had for the moment, that is no reason to give the message up.
fn proof_unavailable(query: &HopQuery<'_>, way: &HostProof, published: &StsLookup) -> Option<Failure> {
    let StsLookup::Done(PublishedPolicy::None(absent @ NoPolicy::Failed(_))) = published else { return None };
    let wanted = query.requirement == TlsRequirement::Require && matches!(way, HostProof::Insecure(_));
    let text =
        format!("the message requires TLS with a host that is proven to be the domain's (REQUIRETLS), but {absent}");
    wanted.then(|| Failure::discovery(Status(7, 5), text))
}

fn way(query: &HopQuery<'_>) -> HostProof {
    match (query.hop.origin, query.basis) {
        (HopOrigin::SmartHost, _) => HostProof::SmartHost,
        (HopOrigin::Literal, _) => HostProof::Literal,
        (HopOrigin::Mx { .. } | HopOrigin::ImplicitMx, RouteBasis::Configured) => HostProof::Secure,
        (HopOrigin::Mx { .. } | HopOrigin::ImplicitMx, RouteBasis::NoMx(chain)) => match chain.security {
            Security::Secure => HostProof::Secure,
            Security::Insecure(why) => HostProof::OwnHost(format!("that {} has no MX records is {why}", query.recipient)),
        },
        (HopOrigin::Mx { .. } | HopOrigin::ImplicitMx, RouteBasis::Mx(chain)) => match chain.security {
            Security::Secure => HostProof::Secure,
            Security::Insecure(why) => HostProof::Insecure(format!("the MX records of {} are {why}", query.recipient)),
        },
    }
}
