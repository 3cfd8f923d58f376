//! Which connector speaks for a domain, and what its demand means for one hop.
//!
//! The most specific pattern wins, whatever the order in the file. Nothing is looked up here and
//! nothing is judged: the winner's words become a [`TlsPolicy`] for [`crate::tls::judge`].

use std::collections::HashMap;
use std::sync::Arc;

use crate::address::{Domain, Host};
use crate::config::{Connector, DomainPattern, TlsDemand, VerifyWanted};
use crate::tls::{Demand, NamePattern, TlsPolicy, Verify};

/// The connectors of a configuration, ready to be asked.
#[derive(Debug, Clone)]
pub struct Connectors {
    exactly: HashMap<Domain, Arc<Connector>>,
    below: HashMap<Domain, Arc<Connector>>,
    any: Arc<Connector>,
}

impl Connectors {
    /// Gathers the connectors. `default` speaks for what no pattern names.
    ///
    /// Two connectors with one pattern are a fault that the configuration has already refused; were
    /// there any, the first would win.
    #[must_use]
    pub fn new(connectors: &[Arc<Connector>], default: Arc<Connector>) -> Self {
        let mut all = Self { exactly: HashMap::new(), below: HashMap::new(), any: default };
        // Backwards, so that the first of two overwrites the second.
        for connector in connectors.iter().rev() {
            for pattern in &connector.domains {
                match pattern {
                    DomainPattern::Any => all.any = Arc::clone(connector),
                    DomainPattern::Below(domain) => {
                        all.below.insert(domain.clone(), Arc::clone(connector));
                    }
                    DomainPattern::Exactly(domain) => {
                        all.exactly.insert(domain.clone(), Arc::clone(connector));
                    }
                }
            }
        }
        all
    }

    /// The connector that speaks for a domain.
    #[must_use]
    pub fn for_domain(&self, domain: &Domain) -> &Arc<Connector> {
        if let Some(connector) = self.exactly.get(domain) {
            return connector;
        }
        let mut above = domain.parent();
        while let Some(ancestor) = above {
            if let Some(connector) = self.below.get(&ancestor) {
                return connector;
            }
            above = ancestor.parent();
        }
        &self.any
    }

    /// The connector for what stands right of the "@". No pattern but `*` can name an address literal.
    #[must_use]
    pub fn for_host(&self, host: &Host) -> &Arc<Connector> {
        match host {
            Host::Domain(domain) => self.for_domain(domain),
            Host::Literal(_) => &self.any,
        }
    }
}

/// The policy for one hop of one recipient domain.
///
/// `smart_host` is the hop where the route names it, `None` where it came from MX: without `names`, a
/// name demand wants the smart host's own name, else the recipient domain or one label under it.
#[must_use]
pub fn outbound_policy(connector: &Connector, recipient: &Host, smart_host: Option<&Host>) -> TlsPolicy {
    let default_names = || match (smart_host, recipient) {
        (Some(Host::Domain(name)), _) => vec![NamePattern::Exact(name.clone())],
        (None, Host::Domain(domain)) => {
            vec![NamePattern::Exact(domain.clone()), NamePattern::OneLabelUnder(domain.clone())]
        }
        // An address has no name: the judge refuses an empty list.
        (Some(Host::Literal(_)), _) | (None, Host::Literal(_)) => Vec::new(),
    };
    policy(connector, connector.outbound.tls, default_names)
}

/// The policy for sessions that carry mail from this connector's domains.
#[must_use]
pub fn inbound_policy(connector: &Connector) -> TlsPolicy {
    // The configuration refuses an inbound name demand without names.
    policy(connector, connector.inbound.tls, Vec::new)
}

fn policy(connector: &Connector, demand: TlsDemand, default_names: impl Fn() -> Vec<NamePattern>) -> TlsPolicy {
    match demand {
        TlsDemand::Off => TlsPolicy::Off,
        TlsDemand::Opportunistic => TlsPolicy::Opportunistic,
        TlsDemand::Forced { min_version, verify } => {
            let verify = match verify {
                VerifyWanted::None => Verify::None,
                VerifyWanted::Chain => Verify::Chain,
                VerifyWanted::Name if connector.names.is_empty() => Verify::Name(default_names()),
                VerifyWanted::Name => Verify::Name(connector.names.clone()),
            };
            TlsPolicy::Forced(Demand { min_version, verify })
        }
    }
}
