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
use crate::tls::{DaneScope, Demand, Lack, Layer, NamePattern, TlsPolicy, TlsaSet, Verify};

/// What is known of one hop, beside its connector, before it is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// What its TLSA records say.
    pub dane: DaneFinding,
    /// What the domain's MTA-STS policy says of it.
    pub mta_sts: StsFinding,
    /// Whether DNSSEC or the administrator says that the host is the domain's.
    pub way: Way,
    /// What the domain did before.
    pub memory: MemoryFinding,
}

/// TLSA records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaneFinding {
    /// Nobody looked; why.
    NotAsked(&'static str),
    /// There are none that count: denied by DNSSEC, or the zone is not signed. In words.
    Absent(String),
    /// There are secure ones, and none can be used: TLS without authentication (RFC 7672 §2.2).
    Unusable(String),
    /// These.
    Usable(Arc<TlsaSet>),
}

/// An MTA-STS policy, as far as it concerns this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StsFinding {
    /// Nobody looked; why.
    NotAsked(&'static str),
    /// There is no policy in force; why.
    None(String),
    /// `mode: enforce`.
    Enforce(StsListing),
    /// `mode: testing`: only reported.
    Testing(StsListing),
}

/// Whether the policy lists the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StsListing {
    /// It does.
    Listed,
    /// It lists these instead.
    NotListed(Vec<NamePattern>),
}

/// What says that mail for the domain belongs to this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
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
    findings: &Findings,
    requirement: TlsRequirement,
    now: Timestamp,
) -> TlsPolicy {
    let smart_host = match &findings.way {
        Way::SmartHost => Some(hop),
        Way::Literal | Way::Secure | Way::Insecure(_) | Way::OwnHost(_) => None,
    };
    let mut policy = outbound_floor(connector, recipient, smart_host, now);
    let mut raise = |demand: Option<Demand>| {
        if let Some(demand) = demand {
            policy = std::mem::replace(&mut policy, TlsPolicy::Off).raised_by(demand);
        }
    };
    if demands_dane(connector, now) {
        raise(Some(Demand::new(Layer::Connector, mandatory_dane(findings))));
    }
    match requirement {
        // The sender sets aside what domains publish (RFC 8689 §4.2.2).
        TlsRequirement::Relaxed => {}
        TlsRequirement::Ordinary | TlsRequirement::Require => {
            raise(dane(&findings.dane));
            raise(mta_sts(findings, hop));
        }
    }
    if requirement == TlsRequirement::Require {
        raise(Some(Demand::new(Layer::RequireTls, require_tls(connector, findings, hop))));
    }
    match (&findings.memory, connector.outbound.downgrade) {
        (MemoryFinding::TookTls { .. }, Downgrade::Refuse) => raise(Some(Demand::new(Layer::Memory, Verify::None))),
        (MemoryFinding::TookTls { .. }, Downgrade::Allow | Downgrade::Warn) | (MemoryFinding::Nothing, _) => {}
    }
    policy
}

/// `verify = "dane"`: TLSA records, of a host that is the domain's. Whoever forges unsigned MX records names a
/// signed host of his own, whose certificate its TLSA records name (RFC 7672 §2.2.1).
fn mandatory_dane(findings: &Findings) -> Verify {
    let unsigned = match &findings.way {
        Way::SmartHost | Way::Literal | Way::Secure => None,
        Way::Insecure(why) | Way::OwnHost(why) => Some(why),
    };
    match (&findings.dane, unsigned) {
        (DaneFinding::NotAsked(why), _) => Verify::Unmeetable(Lack::NoTlsa((*why).to_owned())),
        (_, Some(why)) => Verify::Unmeetable(Lack::UnsignedMx(why.clone())),
        (DaneFinding::Usable(set), None) => Verify::Dane(Arc::clone(set)),
        (DaneFinding::Absent(why) | DaneFinding::Unusable(why), None) => Verify::Unmeetable(Lack::NoTlsa(why.clone())),
    }
}

fn dane(found: &DaneFinding) -> Option<Demand> {
    match found {
        DaneFinding::NotAsked(_) | DaneFinding::Absent(_) => None,
        DaneFinding::Unusable(_) => Some(Demand::new(Layer::Dane, Verify::None)),
        DaneFinding::Usable(set) => Some(Demand::new(Layer::Dane, Verify::Dane(Arc::clone(set)))),
    }
}

/// MTA-STS stands back where DANE authenticates the host (RFC 8461 §2); where its records cannot be used,
/// they authenticate nobody.
fn mta_sts(findings: &Findings, hop: &Host) -> Option<Demand> {
    let listing = match (&findings.dane, &findings.mta_sts) {
        (DaneFinding::Usable(_), _) => return None,
        (_, StsFinding::NotAsked(_) | StsFinding::None(_) | StsFinding::Testing(_)) => return None,
        (
            DaneFinding::NotAsked(_) | DaneFinding::Absent(_) | DaneFinding::Unusable(_),
            StsFinding::Enforce(listing),
        ) => listing,
    };
    // A policy lists names; an address has none.
    let host = hop.domain()?;
    let verify = match listing {
        StsListing::Listed => Verify::Published(host.clone()),
        StsListing::NotListed(listed) => not_listed(host, listed),
    };
    Some(Demand::new(Layer::MtaSts, verify))
}

fn not_listed(host: &Domain, listed: &[NamePattern]) -> Verify {
    Verify::Unmeetable(Lack::NotListed { host: host.clone(), listed: listed.to_vec() })
}

/// A host that is proven to be the domain's, and that proves to be itself (RFC 8689 §4.2.1). A host in the
/// administrator's route is proven by that, and proves to be itself with one of the connector's `names`, too.
fn require_tls(connector: &Connector, findings: &Findings, hop: &Host) -> Verify {
    let listed =
        matches!(findings.mta_sts, StsFinding::Enforce(StsListing::Listed) | StsFinding::Testing(StsListing::Listed));
    let names = match &findings.way {
        Way::SmartHost => &connector.names[..],
        Way::Literal | Way::Secure | Way::OwnHost(_) => &[],
        Way::Insecure(_) if listed => &[],
        Way::Insecure(why) => {
            let why = format!("{why}, and no MTA-STS policy lists it");
            return Verify::Unmeetable(Lack::Unproven(why));
        }
    };
    if let DaneFinding::Usable(set) = &findings.dane
        && (set.scope == DaneScope::Domain || listed)
    {
        return Verify::Dane(Arc::clone(set));
    }
    let own = hop.domain().map(|name| NamePattern::Exact(name.clone()));
    let names: Vec<_> = own.into_iter().chain(names.iter().cloned()).collect();
    if names.is_empty() {
        let remedy = if findings.way == Way::SmartHost { ", and the connector has no `names`" } else { "" };
        return Verify::Unmeetable(Lack::Unproven(format!("{hop} has no name{remedy}")));
    }
    Verify::Name(names)
}
