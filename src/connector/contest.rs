//! Which patterns name a host, which of them wins, and why each other lost: for whoever asks before mail goes.
//!
//! The winner is the one that [`Connectors::for_host`] gives; nothing is decided here a second time.

use std::fmt;
use std::sync::Arc;

use super::Connectors;
use crate::address::{Domain, Host};
use crate::config::{Connector, DomainPattern};

/// A connector and that one of its patterns which names the host.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Whose.
    pub connector: &'a Arc<Connector>,
    /// Which.
    pub pattern: DomainPattern,
}

/// What all connectors say of one host.
#[derive(Debug, Clone)]
pub struct Contest<'a> {
    /// Who speaks for it.
    pub winner: Claim<'a>,
    /// Who else would, the most specific first; and who might be thought to.
    pub others: Vec<(Claim<'a>, Lost)>,
}

/// Why a pattern does not speak for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// It names the host, and another names it more closely.
    LessSpecific {
        /// The pattern that won.
        than: DomainPattern,
    },
    /// `*.example.org` does not name example.org itself.
    OnlyBelow(Domain),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LessSpecific { than } => write!(f, "is less specific than \"{than}\""),
            Self::OnlyBelow(domain) => write!(f, "names what is below {domain}, not {domain} itself"),
        }
    }
}

impl Connectors {
    /// Every pattern that names a host, the winner and why each other lost.
    #[must_use]
    pub fn contest(&self, host: &Host) -> Contest<'_> {
        let mut claims = Vec::new();
        let mut only_below = None;
        if let Host::Domain(domain) = host {
            claims.extend(self.exactly.get(domain).map(|connector| exactly(connector, domain)));
            only_below = self.below.get(domain).map(|connector| below(connector, domain));
            let mut above = domain.parent();
            while let Some(ancestor) = above {
                claims.extend(self.below.get(&ancestor).map(|connector| below(connector, &ancestor)));
                above = ancestor.parent();
            }
        }
        claims.push(Claim { connector: &self.any, pattern: DomainPattern::Any });
        let winner = claims.remove(0);
        let than = winner.pattern.clone();
        let mut others: Vec<_> =
            claims.into_iter().map(|claim| (claim, Lost::LessSpecific { than: than.clone() })).collect();
        if let (Some(claim), Host::Domain(domain)) = (only_below, host) {
            others.insert(0, (claim, Lost::OnlyBelow(domain.clone())));
        }
        Contest { winner, others }
    }

    /// The connector that speaks for whatever a pattern names and no closer one does.
    #[must_use]
    pub fn for_pattern(&self, pattern: &DomainPattern) -> &Arc<Connector> {
        match pattern {
            DomainPattern::Any => &self.any,
            DomainPattern::Exactly(domain) => self.for_domain(domain),
            DomainPattern::Below(domain) => self.below.get(domain).unwrap_or_else(|| self.for_any_below(domain)),
        }
    }
}

fn exactly<'a>(connector: &'a Arc<Connector>, domain: &Domain) -> Claim<'a> {
    Claim { connector, pattern: DomainPattern::Exactly(domain.clone()) }
}

fn below<'a>(connector: &'a Arc<Connector>, domain: &Domain) -> Claim<'a> {
    Claim { connector, pattern: DomainPattern::Below(domain.clone()) }
}
