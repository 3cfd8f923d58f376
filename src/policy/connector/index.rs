//! The connectors of a configuration, indexed by domain pattern. The most specific pattern wins,
//! whatever the order in the file.

use std::collections::HashMap;
use std::sync::Arc;

use super::floor::with_floor;
use super::rules::{Connector, DomainPattern};
use crate::smtp::address::{Domain, Host};

/// The connectors of a configuration, indexed by domain pattern.
#[derive(Debug, Clone)]
pub struct Connectors {
    pub(super) exactly: HashMap<Domain, Arc<Connector>>,
    pub(super) below: HashMap<Domain, Arc<Connector>>,
    pub(super) any: Arc<Connector>,
    named: HashMap<String, Arc<Connector>>,
}

impl Connectors {
    /// Indexes the connectors. `default` applies to domains that no pattern names.
    ///
    /// The configuration rejects a pattern that two connectors have; if there were one, the first
    /// connector would win.
    #[must_use]
    pub fn new(connectors: &[Arc<Connector>], default: Arc<Connector>) -> Self {
        let named = std::iter::once(&default).chain(connectors);
        let named = named.map(|connector| (connector.name.clone(), Arc::clone(connector)));
        let mut all = Self {
            exactly: HashMap::new(),
            below: HashMap::new(),
            named: named.collect(),
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

    /// Returns the connector of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Connector>> {
        self.named.get(name)
    }

    /// Returns the connector of a user, if it is not in the configuration any more. Mail that goes by
    /// it waits: no other connector is known to be as strict.
    #[must_use]
    pub fn missing<'n>(&self, user_connector: Option<&'n str>) -> Option<&'n str> {
        user_connector.filter(|name| !self.named.contains_key(*name))
    }

    /// Returns the connector whose route and schedule apply to mail for a host: that of the user who
    /// sent the mail, if the user has one. If that is missing, the host's own stands in for it in
    /// all that is not sent.
    #[must_use]
    pub fn routing(&self, host: &Host, user_connector: Option<&str>) -> &Arc<Connector> {
        user_connector
            .and_then(|name| self.named(name))
            .unwrap_or_else(|| self.for_host(host))
    }

    /// Returns the connector for mail to a host, with the host's own as its floor if the user who
    /// sent the mail has another. If the user's connector is missing, it has that name and the rules
    /// of the host's own, and must not be used for a delivery (see [`Connectors::missing`]).
    // Rule: policy table (layers).
    #[must_use]
    pub fn for_mail(&self, host: &Host, user_connector: Option<&str>) -> Arc<Connector> {
        let own = self.for_host(host);
        let Some(name) = user_connector.filter(|name| *name != own.name) else {
            return Arc::clone(own);
        };
        let joined = match self.named(name) {
            Some(routing) => with_floor(routing, own),
            None => Connector {
                name: name.to_owned(),
                ..Connector::clone(own)
            },
        };
        Arc::new(joined)
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
