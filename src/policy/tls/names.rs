//! Names in certificates and the rules for matching them (RFC 9525 §6): on A-labels, ignoring case.
//! `*` stands for exactly one label, the left-most.

use std::fmt;

use crate::smtp::address::{AddressError, Domain};

/// A name that a certificate must carry: `mail.example.org`, or `*.example.org`, which accepts any
/// name one label below and the wildcard name itself.
// Rule: RFC 7672 §3.2.3; RFC 9525 §6.3; policy table (names).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// This host.
    Exact(Domain),
    /// Any host exactly one label below this domain.
    OneLabelUnder(Domain),
}

impl NamePattern {
    /// Parses a name, or a name whose left-most label is `*`.
    ///
    /// # Errors
    /// [`AddressError::Domain`], also for a `*` in any other position.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("*.") {
            Some(base) => Domain::parse(base).map(Self::OneLabelUnder),
            None => Domain::parse(text).map(Self::Exact),
        }
    }

    /// Returns true if a name in a certificate, which may itself be a wildcard, satisfies this one.
    #[must_use]
    pub fn accepts(&self, presented: &Self) -> bool {
        match (self, presented) {
            (Self::Exact(wanted), Self::Exact(name)) => wanted == name,
            (Self::Exact(wanted), Self::OneLabelUnder(base)) => is_one_label_under(wanted, base),
            (Self::OneLabelUnder(wanted), Self::Exact(name)) => is_one_label_under(name, wanted),
            (Self::OneLabelUnder(wanted), Self::OneLabelUnder(base)) => wanted == base,
        }
    }
}

fn is_one_label_under(name: &Domain, base: &Domain) -> bool {
    name.as_str()
        .split_once('.')
        .is_some_and(|(_, rest)| rest == base.as_str())
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::OneLabelUnder(base) => write!(f, "*.{base}"),
        }
    }
}

/// Lists at most five names, because a certificate may carry hundreds.
// Rule: RFC 9525 §6.2, §7.5.
pub(super) fn any_of(names: &[NamePattern]) -> String {
    let text = names
        .iter()
        .take(5)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" or ");
    match names.len().checked_sub(5) {
        None | Some(0) => text,
        Some(more) => format!("{text} or {more} more"),
    }
}
