//! The join of all layers: the connector's demand, raised by what the domain publishes, by
//! REQUIRETLS and by the downgrade memory. No layer lowers a demand.
//!
//! This is a pure function of [`HopFacts`], which [`crate::discovery`] gathers. The rules are RFC
//! 7672 §2.2 (DANE), RFC 8461 §5 and §2 (MTA-STS yields to DANE), RFC 8689 §4.2 (REQUIRETLS and
//! `TLS-Required: No`).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;

use crate::policy::connector::{
    Connector, OnDowngrade, demands_dane, floor_demand, outbound_demand,
};
use crate::policy::tls::{
    DaneScope, Demand, Layer, NamePattern, TlsPolicy, TlsaSet, Unmeetable, Verify,
};
use crate::smtp::address::{Domain, Host};
use crate::smtp::envelope::TlsRequirement;

/// The facts about one hop, beside its connector, before the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopFacts {
    /// The result of the TLSA lookup.
    pub dane: DaneFinding,
    /// The part of the domain's MTA-STS policy that concerns the host.
    pub mta_sts: MtaStsFinding,
    /// The proof that the host is the domain's.
    pub host_proof: HostProof,
    /// The domain's entry in the downgrade memory.
    pub memory: MemoryFinding,
}

/// The result of a TLSA lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaneFinding {
    /// No lookup was made, for this reason.
    NotLookedUp(&'static str),
    /// There is no record that counts: DNSSEC denies it, or the zone is not signed; the reason.
    Absent(String),
    /// There are secure records but no usable one; the reason. TLS without authentication is
    /// mandatory (RFC 7672 §2.2).
    Unusable(String),
    /// The usable records.
    Usable(Arc<TlsaSet>),
}

/// The result of an MTA-STS lookup, for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MtaStsFinding {
    /// No lookup was made, for this reason.
    NotLookedUp(&'static str),
    /// No policy is in force, for this reason.
    None(String),
    /// A policy with `mode: enforce`.
    Enforce(MtaStsListing),
    /// A policy with `mode: testing`, which only affects reports.
    Testing(MtaStsListing),
}

/// The presence of a host in an MTA-STS policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MtaStsListing {
    /// The policy lists the host.
    Listed,
    /// The policy lists these hosts, but not this one.
    NotListed(Vec<NamePattern>),
}

/// The proof that a host may receive mail for the domain.
// Rule: RFC 8689 §4.2.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostProof {
    /// The connector's route names the host.
    SmartHost,
    /// The recipient's address literal names the host.
    Literal,
    /// DNSSEC secures the MX records, or their absence.
    Secure,
    /// None: the MX records are not signed, for this reason.
    Insecure(String),
    /// The host is the domain itself, since it has no MX records, but their absence is not signed;
    /// the reason.
    OwnHost(String),
}

/// A domain's entry in the downgrade memory.
// Rule: policy table (layers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryFinding {
    /// The domain has never used TLS, or is not known.
    Nothing,
    /// The domain has used TLS.
    TookTls {
        /// The last time.
        last: Timestamp,
    },
}

/// Joins all layers into the policy for one hop.
// Rule: policy table (layers).
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
        HostProof::Literal | HostProof::Secure | HostProof::Insecure(_) | HostProof::OwnHost(_) => {
            None
        }
    };
    let mut policy = outbound_demand(connector, recipient, smart_host, now);
    if let Some(floor) = floor_demand(connector, recipient, smart_host, now) {
        policy = policy.joined(floor);
    }
    let mut raise = |demand: Option<Demand>| {
        if let Some(demand) = demand {
            policy = std::mem::replace(&mut policy, TlsPolicy::Off).raised_by(demand);
        }
    };
    if demands_dane(connector, now) {
        raise(Some(Demand::new(Layer::Connector, mandatory_dane(facts))));
    }
    if let Some(floor) = &connector.floor
        && demands_dane(floor, now)
    {
        raise(Some(Demand::new(
            Layer::RecipientConnector,
            mandatory_dane(facts),
        )));
    }
    match requirement {
        // The sender waives what domains publish (RFC 8689 §4.2.2).
        TlsRequirement::Relaxed => {}
        TlsRequirement::Ordinary | TlsRequirement::Require => {
            raise(dane(&facts.dane));
            raise(mta_sts(facts, hop));
        }
    }
    if requirement == TlsRequirement::Require {
        raise(Some(Demand::new(
            Layer::RequireTls,
            require_tls(connector, facts, hop),
        )));
    }
    match (&facts.memory, connector.outbound.downgrade) {
        (MemoryFinding::TookTls { last }, OnDowngrade::Refuse) => {
            let demand = Demand::new(Layer::DowngradeMemory, Verify::None);
            raise(Some(Demand {
                last_tls: Some(*last),
                ..demand
            }));
        }
        (MemoryFinding::TookTls { .. }, OnDowngrade::Allow | OnDowngrade::Warn)
        | (MemoryFinding::Nothing, _) => {}
    }
    policy
}

/// The proof for `verify = "dane"`: TLSA records of a host that is proven to be the domain's. An
/// attacker who forges unsigned MX records could name a signed host of his own, with TLSA records
/// for his certificate (RFC 7672 §2.2.1).
// Rule: RFC 7672 §1.3.2, §2.2.
fn mandatory_dane(facts: &HopFacts) -> Verify {
    let unsigned = match &facts.host_proof {
        HostProof::SmartHost | HostProof::Literal | HostProof::Secure => None,
        HostProof::Insecure(why) | HostProof::OwnHost(why) => Some(why),
    };
    match (&facts.dane, unsigned) {
        (DaneFinding::NotLookedUp(why), _) => {
            Verify::Impossible(Unmeetable::NoTlsa((*why).to_owned()))
        }
        (_, Some(why)) => Verify::Impossible(Unmeetable::UnsignedMx(why.clone())),
        (DaneFinding::Usable(set), None) => Verify::Dane(Arc::clone(set)),
        (DaneFinding::Absent(why) | DaneFinding::Unusable(why), None) => {
            Verify::Impossible(Unmeetable::NoTlsa(why.clone()))
        }
    }
}

// Rule: RFC 7672 §2.2; policy table (layers).
fn dane(found: &DaneFinding) -> Option<Demand> {
    match found {
        DaneFinding::NotLookedUp(_) | DaneFinding::Absent(_) => None,
        DaneFinding::Unusable(_) => Some(Demand::new(Layer::Dane, Verify::None)),
        DaneFinding::Usable(set) => Some(Demand::new(Layer::Dane, Verify::Dane(Arc::clone(set)))),
    }
}

/// The demand of MTA-STS. It yields to DANE where TLSA records are usable (RFC 8461 §2); unusable
/// records authenticate no host.
// Rule: RFC 8461 §5, §8.3; policy table (layers).
fn mta_sts(facts: &HopFacts, hop: &Host) -> Option<Demand> {
    let listing = match (&facts.dane, &facts.mta_sts) {
        (DaneFinding::Usable(_), _) => return None,
        (_, MtaStsFinding::NotLookedUp(_) | MtaStsFinding::None(_) | MtaStsFinding::Testing(_)) => {
            return None;
        }
        (
            DaneFinding::NotLookedUp(_) | DaneFinding::Absent(_) | DaneFinding::Unusable(_),
            MtaStsFinding::Enforce(listing),
        ) => listing,
    };
    // An MTA-STS policy lists names; an address literal has none.
    let host = hop.domain()?;
    let verify = match listing {
        MtaStsListing::Listed => Verify::Published(host.clone()),
        MtaStsListing::NotListed(listed) => not_listed(host, listed),
    };
    Some(Demand::new(Layer::MtaSts, verify))
}

// Rule: RFC 8461 §5.
fn not_listed(host: &Domain, listed: &[NamePattern]) -> Verify {
    Verify::Impossible(Unmeetable::NotListed {
        host: host.clone(),
        listed: listed.to_vec(),
    })
}

/// The proof for REQUIRETLS: a host that is proven to be the domain's and that proves its name (RFC
/// 8689 §4.2.1). A host in the connector's route counts as proven, and may also prove one of the
/// connector's `names`.
// Rule: policy table (layers).
fn require_tls(connector: &Connector, facts: &HopFacts, hop: &Host) -> Verify {
    let listed = matches!(
        facts.mta_sts,
        MtaStsFinding::Enforce(MtaStsListing::Listed)
            | MtaStsFinding::Testing(MtaStsListing::Listed)
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
        let remedy = if facts.host_proof == HostProof::SmartHost {
            ", and the connector has no `names`"
        } else {
            ""
        };
        return Verify::Impossible(Unmeetable::Unproven(format!("{hop} has no name{remedy}")));
    }
    Verify::Name(names)
}
