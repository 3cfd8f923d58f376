//! The connectors of a configuration, indexed by domain pattern. The most specific pattern wins,
//! whatever the order in the file.

use std::collections::HashMap;
use std::sync::Arc;

use super::rules::{Connector, DomainPattern};
use crate::smtp::address::{Domain, Host};

/// The connectors of a configuration, indexed by domain pattern.
#[derive(Debug, Clone)]
pub struct Connectors {
    pub(super) exactly: HashMap<Domain, Arc<Connector>>,
    pub(super) below: HashMap<Domain, Arc<Connector>>,
    pub(super) any: Arc<Connector>,
}

impl Connectors {
    /// Indexes the connectors. `default` applies to domains that no pattern names.
    ///
    /// The configuration rejects a pattern that two connectors have; if there were one, the first
    /// connector would win.
    #[must_use]
    pub fn new(connectors: &[Arc<Connector>], default: Arc<Connector>) -> Self {
        let mut all = Self {
            exactly: HashMap::new(),
            below: HashMap::new(),
            any: default,
        };
        // In reverse order, so that the first of two overwrites the second.
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

    /// The connector for a domain.
    #[must_use]
    pub fn for_domain(&self, domain: &Domain) -> &Arc<Connector> {
        if let Some(connector) = self.exactly.get(domain) {
            return connector;
        }
        self.for_any_below(domain)
    }

    /// Returns true if a pattern names this very domain, without a wildcard.
    #[must_use]
    pub fn has_exact_pattern(&self, domain: &Domain) -> bool {
        self.exactly.contains_key(domain)
    }

    /// The connector whose wildcard pattern covers the domain.
    pub(super) fn for_any_below(&self, domain: &Domain) -> &Arc<Connector> {
        let mut above = domain.parent();
        while let Some(ancestor) = above {
            if let Some(connector) = self.below.get(&ancestor) {
                return connector;
            }
            above = ancestor.parent();
        }
        &self.any
    }

    /// The connector for domains that no other pattern names.
    #[must_use]
    pub fn catch_all(&self) -> &Arc<Connector> {
        &self.any
    }

    /// The connector for the host part of an address. Only the pattern `*` covers an address
    /// literal.
    #[must_use]
    pub fn for_host(&self, host: &Host) -> &Arc<Connector> {
        match host {
            Host::Domain(domain) => self.for_domain(domain),
            Host::Literal(_) => &self.any,
        }
    }
}
