//! The one place where all layers join: the connector's floor, raised by what the domain publishes, by
//! what the message asks and by what the domain did before. Never lowered.
//!
//! A pure function over [`Findings`], which [`crate::discovery`] makes. RFC 7672 §2.2 (DANE), RFC 8461 §5
//! and §2 (MTA-STS stands back behind DANE), RFC 8689 §4.2 (REQUIRETLS, and `TLS-Required: No`).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;

use super::{demands_dane, outbound_floor};
use crate::address::{Domain, Host};
use crate::config::{Connector, Downgrade};
use crate::envelope::TlsRequirement;
use crate::tls::{DaneScope, Demand, Layer, NamePattern, TlsPolicy, TlsaSet, Unmeetable, Verify};

/// What is known of one hop, beside its connector, before it is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopFacts {
    /// What its TLSA records say.
    pub dane: DaneFinding,
    /// What the domain's MTA-STS policy says of it.
    pub mta_sts: MtaStsFinding,
    /// Whether DNSSEC or the administrator says that the host is the domain's.
    pub host_proof: HostProof,
    /// What the domain did before.
    pub memory: MemoryFinding,
}

/// TLSA records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaneFinding {
    /// Nobody looked; why.
    NotLookedUp(&'static str),
    /// There are none that count: denied by DNSSEC, or the zone is not signed. In words.
    Absent(String),
    /// There are secure ones, and none can be used: TLS without authentication (RFC 7672 §2.2).
    Unusable(String),
    /// These.
    Usable(Arc<TlsaSet>),
}

/// An MTA-STS policy, as far as it concerns this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MtaStsFinding {
    /// Nobody looked; why.
    NotLookedUp(&'static str),
    /// There is no policy in force; why.
    None(String),
    /// `mode: enforce`.
    Enforce(MtaStsListing),
    /// `mode: testing`: only reported.
    Testing(MtaStsListing),
}

/// Whether the policy lists the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MtaStsListing {
    /// It does.
    Listed,
    /// It lists these instead.
    NotListed(Vec<NamePattern>),
}

/// What says that mail for the domain belongs to this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostProof {
    /// The administrator: the host stands in the connector's route.
    SmartHost,
    /// The recipient's address, which names the host itself.
    Literal,
    /// DNSSEC: the MX records, or their absence, are secure.
    Secure,
    /// Unsigned DNS; why it is.
    Insecure(String),
    /// The host is the domain itself, for want of MX records, but that there are none is unsigned DNS; why.
    OwnHost(String),
}

/// What was seen of the domain before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryFinding {
    /// It never took TLS, or nothing is known.
    Nothing,
    /// It took TLS, last on this occasion.
    TookTls {
        /// When.
        last: Timestamp,
    },
}

/// The policy for one hop: every layer joined.
#[must_use]
pub fn outbound_policy(
    connector: &Connector,
    recipient: &Host,
    hop: &Host,
    facts: &HopFacts,
    requirement: TlsRequirement,
    now: Timestamp,
) -> TlsPolicy {
    let smart_host = match &facts.host_proof {
        HostProof::SmartHost => Some(hop),
        HostProof::Literal | HostProof::Secure | HostProof::Insecure(_) | HostProof::OwnHost(_) => None,
    };
    let mut policy = outbound_floor(connector, recipient, smart_host, now);
    let mut raise = |demand: Option<Demand>| {
        if let Some(demand) = demand {
            policy = std::mem::replace(&mut policy, TlsPolicy::Off).raised_by(demand);
        }
    };
    if demands_dane(connector, now) {
        raise(Some(Demand::new(Layer::Connector, mandatory_dane(facts))));
    }
    match requirement {
        // The sender sets aside what domains publish (RFC 8689 §4.2.2).
        TlsRequirement::Relaxed => {}
        TlsRequirement::Ordinary | TlsRequirement::Require => {
            raise(dane(&facts.dane));
            raise(mta_sts(facts, hop));
        }
    }
    if requirement == TlsRequirement::Require {
        raise(Some(Demand::new(Layer::RequireTls, require_tls(connector, facts, hop))));
    }
    match (&facts.memory, connector.outbound.downgrade) {
        (MemoryFinding::TookTls { .. }, Downgrade::Refuse) => {
            raise(Some(Demand::new(Layer::DowngradeMemory, Verify::None)))
        }
        (MemoryFinding::TookTls { .. }, Downgrade::Allow | Downgrade::Warn) | (MemoryFinding::Nothing, _) => {}
    }
    policy
}

/// `verify = "dane"`: TLSA records, of a host that is the domain's. Whoever forges unsigned MX records names a
/// signed host of his own, whose certificate its TLSA records name (RFC 7672 §2.2.1).
fn mandatory_dane(facts: &HopFacts) -> Verify {
    let unsigned = match &facts.host_proof {
        HostProof::SmartHost | HostProof::Literal | HostProof::Secure => None,
        HostProof::Insecure(why) | HostProof::OwnHost(why) => Some(why),
    };
    match (&facts.dane, unsigned) {
        (DaneFinding::NotLookedUp(why), _) => Verify::Impossible(Unmeetable::NoTlsa((*why).to_owned())),
        (_, Some(why)) => Verify::Impossible(Unmeetable::UnsignedMx(why.clone())),
        (DaneFinding::Usable(set), None) => Verify::Dane(Arc::clone(set)),
        (DaneFinding::Absent(why) | DaneFinding::Unusable(why), None) => {
            Verify::Impossible(Unmeetable::NoTlsa(why.clone()))
        }
    }
}

fn dane(found: &DaneFinding) -> Option<Demand> {
    match found {
        DaneFinding::NotLookedUp(_) | DaneFinding::Absent(_) => None,
        DaneFinding::Unusable(_) => Some(Demand::new(Layer::Dane, Verify::None)),
        DaneFinding::Usable(set) => Some(Demand::new(Layer::Dane, Verify::Dane(Arc::clone(set)))),
    }
}

/// MTA-STS stands back where DANE authenticates the host (RFC 8461 §2); where its records cannot be used,
/// they authenticate nobody.
fn mta_sts(facts: &HopFacts, hop: &Host) -> Option<Demand> {
    let listing = match (&facts.dane, &facts.mta_sts) {
        (DaneFinding::Usable(_), _) => return None,
        (_, MtaStsFinding::NotLookedUp(_) | MtaStsFinding::None(_) | MtaStsFinding::Testing(_)) => return None,
        (
            DaneFinding::NotLookedUp(_) | DaneFinding::Absent(_) | DaneFinding::Unusable(_),
            MtaStsFinding::Enforce(listing),
        ) => listing,
    };
    // A policy lists names; an address has none.
    let host = hop.domain()?;
    let verify = match listing {
        MtaStsListing::Listed => Verify::Published(host.clone()),
        MtaStsListing::NotListed(listed) => not_listed(host, listed),
    };
    Some(Demand::new(Layer::MtaSts, verify))
}

fn not_listed(host: &Domain, listed: &[NamePattern]) -> Verify {
    Verify::Impossible(Unmeetable::NotListed { host: host.clone(), listed: listed.to_vec() })
}

/// A host that is proven to be the domain's, and that proves to be itself (RFC 8689 §4.2.1). A host in the
/// administrator's route is proven by that, and proves to be itself with one of the connector's `names`, too.
fn require_tls(connector: &Connector, facts: &HopFacts, hop: &Host) -> Verify {
    let listed = matches!(
        facts.mta_sts,
        MtaStsFinding::Enforce(MtaStsListing::Listed) | MtaStsFinding::Testing(MtaStsListing::Listed)
    );
    let names = match &facts.host_proof {
        HostProof::SmartHost => &connector.names[..],
        HostProof::Literal | HostProof::Secure | HostProof::OwnHost(_) => &[],
        HostProof::Insecure(_) if listed => &[],
        HostProof::Insecure(why) => {
            let why = format!("{why}, and no MTA-STS policy lists it");
            return Verify::Impossible(Unmeetable::Unproven(why));
        }
    };
    if let DaneFinding::Usable(set) = &facts.dane
        && (set.scope == DaneScope::Domain || listed)
    {
        return Verify::Dane(Arc::clone(set));
    }
    let own = hop.domain().map(|name| NamePattern::Exact(name.clone()));
    let names: Vec<_> = own.into_iter().chain(names.iter().cloned()).collect();
    if names.is_empty() {
        let remedy = if facts.host_proof == HostProof::SmartHost { ", and the connector has no `names`" } else { "" };
        return Verify::Impossible(Unmeetable::Unproven(format!("{hop} has no name{remedy}")));
    }
    Verify::Name(names)
}
