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
use crate::route::{Addresses, Hop, Origin, Via};
use crate::smtp::reply::Status;
use history::History;
use mta_sts::{Absent, Listing, Mode, MtaSts, Published};

const NOT_IN_DISCOVER: &str = "the connector's discover does not name it";
const OFF: &str = "the connector has switched TLS off";
const SET_ASIDE: &str = "the message sets it aside (TLS-Required: No)";
const ADDRESS: &str = "the host is named by its address";

/// Everything that is known of hops beside their connectors. One for the process; a clone is the same.
///
/// The daemon keeps what it learns ([`Kept`]). A command that only wants to know asks somebody else.
#[derive(Debug, Clone)]
pub struct Discovery<K = Kept> {
    known: K,
}

/// Who is asked for what stands neither in the configuration nor among a hop's own records.
pub trait Knowledge: Sync {
    /// The MTA-STS policy of a domain. It takes a bounded time.
    fn policy(&self, domain: &Domain) -> impl Future<Output = Published> + Send;

    /// What a recipient domain did before, for a host of it that is about to be dialled.
    fn remembered(&self, domain: &Host, host: &Host, now: Timestamp) -> MemoryFinding;
}

/// Policies and memory on disk: the daemon's own.
#[derive(Debug, Clone)]
pub struct Kept {
    mta_sts: MtaSts,
    history: History,
}

impl Knowledge for Kept {
    async fn policy(&self, domain: &Domain) -> Published {
        self.mta_sts.policy(domain).await
    }

    fn remembered(&self, domain: &Host, host: &Host, now: Timestamp) -> MemoryFinding {
        self.history.standing(domain, host, now).finding()
    }
}

/// One hop, about which is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The recipient domain.
    pub recipient: &'a Host,
    /// The connector that speaks for it.
    pub connector: &'a Connector,
    /// The hop.
    pub hop: &'a Hop,
    /// What led to it.
    pub via: &'a Via,
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
pub struct Found {
    /// What the policy follows from.
    pub findings: HopFacts,
    /// The MTA-STS policy behind it, or why there is none; for reports.
    pub published: Asked,
}

/// Whether the MTA-STS policy was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// No; why.
    No(&'static str),
    /// Yes.
    Yes(Published),
}

/// Why a hop must not be used: what had to be known of it cannot be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// Its TLSA records (RFC 7672 §2.1.2).
    Tlsa(Failure),
    /// Whether it is the domain's, which this message wants proven (RFC 8689 §4.2.1).
    Proof(Failure),
}

impl From<Unknown> for Failure {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Tlsa(failure) | Unknown::Proof(failure) => failure,
        }
    }
}

impl Discovery {
    /// Puts the two together.
    #[must_use]
    pub fn new(mta_sts: MtaSts, history: History) -> Self {
        Self { known: Kept { mta_sts, history } }
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

impl<K: Knowledge> Discovery<K> {
    /// Asks this one.
    #[must_use]
    pub fn of(known: K) -> Self {
        Self { known }
    }

    /// Asks about one hop. What is not cached is waited for, each question for a bounded time.
    ///
    /// # Errors
    /// [`Unknown`].
    pub async fn ask(&self, question: &Question<'_>) -> Result<Found, Unknown> {
        // A host that cannot be used is known as soon as one of the two says so.
        let (dane, published) = tokio::try_join!(dane::find(question), async { Ok(self.published(question).await) })
            .map_err(Unknown::Tlsa)?;
        let way = way(question);
        if let Some(failure) = unproven_meanwhile(question, &way, &published) {
            return Err(Unknown::Proof(failure));
        }
        let mta_sts = match &published {
            Asked::No(why) => MtaStsFinding::NotLookedUp(why),
            Asked::Yes(published) => finding(published, &question.hop.host),
        };
        let findings = HopFacts { dane, mta_sts, host_proof: way, memory: self.memory(question) };
        Ok(Found { findings, published })
    }

    async fn published(&self, question: &Question<'_>) -> Asked {
        if let Some(why) = set_aside(question, Publication::MtaSts) {
            return Asked::No(why);
        }
        match policy_domain(question.recipient, question.hop) {
            Some(domain) => Asked::Yes(self.known.policy(domain).await),
            None => Asked::No(ADDRESS),
        }
    }

    fn memory(&self, question: &Question<'_>) -> MemoryFinding {
        self.known.remembered(question.recipient, &question.hop.host, question.now)
    }
}

/// Why nobody need ask, where that is so.
fn set_aside(question: &Question<'_>, publication: Publication) -> Option<&'static str> {
    let connector = question.connector;
    let tls = exception(connector, question.now).map_or(connector.outbound.tls, |exception| exception.tls);
    if tls == TlsDemand::Off {
        Some(OFF)
    } else if !connector.outbound.discover.contains(&publication) {
        Some(NOT_IN_DISCOVER)
    } else if question.requirement == TlsRequirement::Relaxed {
        Some(SET_ASIDE)
    } else {
        None
    }
}

/// Whose policy counts: the recipient domain's, or that of the smart host itself (RFC 8461 §3.4).
/// Nobody's where the host is named by its address.
#[must_use]
pub fn policy_domain<'a>(recipient: &'a Host, hop: &'a Hop) -> Option<&'a Domain> {
    match hop.origin {
        Origin::Mx { .. } | Origin::ImplicitMx => recipient.domain(),
        Origin::SmartHost => hop.host.domain(),
        Origin::Literal => None,
    }
}

/// What a policy says of a host.
fn finding(published: &Published, host: &Host) -> MtaStsFinding {
    let policy = match published {
        Published::None(absent) => return MtaStsFinding::None(absent.to_string()),
        Published::Policy(policy) => policy,
    };
    let listing = match host.domain().map(|host| mta_sts::evaluate(policy, host)) {
        Some(Listing::Listed) => MtaStsListing::Listed,
        Some(Listing::NotListed) | None => MtaStsListing::NotListed(policy.mx().cloned().collect()),
    };
    match policy.mode() {
        Mode::Enforce => MtaStsFinding::Enforce(listing),
        Mode::Testing => MtaStsFinding::Testing(listing),
        Mode::None => MtaStsFinding::None("the domain has withdrawn its MTA-STS policy (mode: none)".to_owned()),
    }
}

/// A message that requires TLS wants a host that is proven to be the domain's (RFC 8689 §4.2.1). Where the
/// policy that might prove it cannot be had for the moment, that is no reason to give the message up.
fn unproven_meanwhile(question: &Question<'_>, way: &HostProof, published: &Asked) -> Option<Failure> {
    let Asked::Yes(Published::None(absent @ Absent::Failed(_))) = published else { return None };
    let wanted = question.requirement == TlsRequirement::Require && matches!(way, HostProof::Insecure(_));
    let text =
        format!("the message requires TLS with a host that is proven to be the domain's (REQUIRETLS), but {absent}");
    wanted.then(|| Failure::discovery(Status(7, 5), text))
}

fn way(question: &Question<'_>) -> HostProof {
    match (question.hop.origin, question.via) {
        (Origin::SmartHost, _) => HostProof::SmartHost,
        (Origin::Literal, _) => HostProof::Literal,
        (Origin::Mx { .. } | Origin::ImplicitMx, Via::Given) => HostProof::Secure,
        (Origin::Mx { .. } | Origin::ImplicitMx, Via::NoMx(standing)) => match standing.security {
            Security::Secure => HostProof::Secure,
            Security::Insecure(why) => {
                HostProof::OwnHost(format!("that {} has no MX records is {why}", question.recipient))
            }
        },
        (Origin::Mx { .. } | Origin::ImplicitMx, Via::Mx(standing)) => match standing.security {
            Security::Secure => HostProof::Secure,
            Security::Insecure(why) => {
                HostProof::Insecure(format!("the MX records of {} are {why}", question.recipient))
            }
        },
    }
}
