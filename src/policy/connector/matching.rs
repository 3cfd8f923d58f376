//! All patterns that cover a host, and why each but one is not chosen; for explanations.
//!
//! The chosen connector is the one of [`Connectors::for_host`]; nothing is decided a second time.

use std::fmt;
use std::sync::Arc;

use super::index::Connectors;
use super::rules::{Connector, DomainPattern};
use crate::smtp::address::{Domain, Host};

/// A connector, and its pattern that covers the host.
#[derive(Debug, Clone)]
pub struct PatternMatch<'a> {
    /// The connector.
    pub connector: &'a Arc<Connector>,
    /// The pattern.
    pub pattern: DomainPattern,
}

/// The result of comparing all patterns with one host.
#[derive(Debug, Clone)]
pub struct Matching<'a> {
    /// The match that is chosen.
    pub winner: PatternMatch<'a>,
    /// The other patterns that cover the host, the most specific first, and one that seems to but
    /// does not.
    pub others: Vec<(PatternMatch<'a>, NotChosen)>,
}

/// The reason why a pattern is not chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotChosen {
    /// It covers the host, but another pattern is more specific.
    LessSpecific {
        /// The chosen pattern.
        than: DomainPattern,
    },
    /// A pattern such as `*.example.org`, which does not cover example.org itself.
    OnlyBelow(Domain),
}

impl fmt::Display for NotChosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LessSpecific { than } => write!(f, "is less specific than \"{than}\""),
            Self::OnlyBelow(domain) => {
                write!(f, "names what is below {domain}, not {domain} itself")
            }
        }
    }
}

impl Connectors {
    /// Returns every pattern that covers a host, with the chosen one and the reasons against the
    /// others.
    #[must_use]
    pub fn matches_for(&self, host: &Host) -> Matching<'_> {
        let mut matches = Vec::new();
        let mut only_below = None;
        if let Host::Domain(domain) = host {
            matches.extend(
                self.exactly
                    .get(domain)
                    .map(|connector| exactly(connector, domain)),
            );
            only_below = self
                .below
                .get(domain)
                .map(|connector| below(connector, domain));
            let mut above = domain.parent();
            while let Some(ancestor) = above {
                matches.extend(
                    self.below
                        .get(&ancestor)
                        .map(|connector| below(connector, &ancestor)),
                );
                above = ancestor.parent();
            }
        }
        matches.push(PatternMatch {
            connector: &self.any,
            pattern: DomainPattern::Any,
        });
        let winner = matches.remove(0);
        let than = winner.pattern.clone();
        let mut others: Vec<_> = matches
            .into_iter()
            .map(|candidate| (candidate, NotChosen::LessSpecific { than: than.clone() }))
            .collect();
        if let (Some(candidate), Host::Domain(domain)) = (only_below, host) {
            others.insert(0, (candidate, NotChosen::OnlyBelow(domain.clone())));
        }
        Matching { winner, others }
    }

    /// The connector for the domains that a pattern covers and no more specific pattern does.
    #[must_use]
    pub fn for_pattern(&self, pattern: &DomainPattern) -> &Arc<Connector> {
        match pattern {
            DomainPattern::Any => &self.any,
            DomainPattern::Exactly(domain) => self.for_domain(domain),
            DomainPattern::Below(domain) => self
                .below
                .get(domain)
                .unwrap_or_else(|| self.for_any_below(domain)),
        }
    }
}

fn exactly<'a>(connector: &'a Arc<Connector>, domain: &Domain) -> PatternMatch<'a> {
    PatternMatch {
        connector,
        pattern: DomainPattern::Exactly(domain.clone()),
    }
}

fn below<'a>(connector: &'a Arc<Connector>, domain: &Domain) -> PatternMatch<'a> {
    PatternMatch {
        connector,
        pattern: DomainPattern::Below(domain.clone()),
    }
}
