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
pub struct PatternMatch<'a> {
    /// Whose.
    pub connector: &'a Arc<Connector>,
    /// Which.
    pub pattern: DomainPattern,
}

/// What all connectors say of one host.
#[derive(Debug, Clone)]
pub struct Matching<'a> {
    /// Who speaks for it.
    pub winner: PatternMatch<'a>,
    /// Who else would, the most specific first; and who might be thought to.
    pub others: Vec<(PatternMatch<'a>, NotChosen)>,
}

/// Why a pattern does not speak for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotChosen {
    /// It names the host, and another names it more closely.
    LessSpecific {
        /// The pattern that won.
        than: DomainPattern,
    },
    /// `*.example.org` does not name example.org itself.
    OnlyBelow(Domain),
}

impl fmt::Display for NotChosen {
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
    pub fn matches_for(&self, host: &Host) -> Matching<'_> {
        let mut matches = Vec::new();
        let mut only_below = None;
        if let Host::Domain(domain) = host {
            matches.extend(self.exactly.get(domain).map(|connector| exactly(connector, domain)));
            only_below = self.below.get(domain).map(|connector| below(connector, domain));
            let mut above = domain.parent();
            while let Some(ancestor) = above {
                matches.extend(self.below.get(&ancestor).map(|connector| below(connector, &ancestor)));
                above = ancestor.parent();
            }
        }
        matches.push(PatternMatch { connector: &self.any, pattern: DomainPattern::Any });
        let winner = matches.remove(0);
        let than = winner.pattern.clone();
        let mut others: Vec<_> =
            matches.into_iter().map(|matched| (matched, NotChosen::LessSpecific { than: than.clone() })).collect();
        if let (Some(matched), Host::Domain(domain)) = (only_below, host) {
            others.insert(0, (matched, NotChosen::OnlyBelow(domain.clone())));
        }
        Matching { winner, others }
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

fn exactly<'a>(connector: &'a Arc<Connector>, domain: &Domain) -> PatternMatch<'a> {
    PatternMatch { connector, pattern: DomainPattern::Exactly(domain.clone()) }
}

fn below<'a>(connector: &'a Arc<Connector>, domain: &Domain) -> PatternMatch<'a> {
    PatternMatch { connector, pattern: DomainPattern::Below(domain.clone()) }
}
