//! The names that certificates must carry, and how they are matched: RFC 9525 §6, on A-labels, whatever
//! the case; "*" only as the whole left-most label, for exactly one label.

use std::fmt;

use crate::address::{AddressError, Domain};

/// A name that a certificate must carry: `mail.example.org`, or `*.example.org` for one label under
/// it (or for the name `*.example.org` itself).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// Exactly this host.
    Exact(Domain),
    /// Any host exactly one label under this domain.
    OneLabelUnder(Domain),
}

impl NamePattern {
    /// Parses a name, or a name whose whole left-most label is `*`.
    ///
    /// # Errors
    /// [`AddressError::Domain`], also for a `*` anywhere else.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("*.") {
            Some(base) => Domain::parse(base).map(Self::OneLabelUnder),
            None => Domain::parse(text).map(Self::Exact),
        }
    }

    /// Whether a name in a certificate (a DNS SAN, possibly itself a wildcard) meets this one.
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
    name.as_str().split_once('.').is_some_and(|(_, rest)| rest == base.as_str())
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::OneLabelUnder(base) => write!(f, "*.{base}"),
        }
    }
}

/// At most five names: a certificate may carry hundreds.
pub(super) fn any_of(names: &[NamePattern]) -> String {
    let text = names.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    match names.len().checked_sub(5) {
        None | Some(0) => text,
        Some(more) => format!("{text} or {more} more"),
    }
}
