//! A part of a destination's mail that may be refused while the rest goes on, and its backoff.

use std::fmt;

use crate::smtp::address::Host;
use crate::smtp::envelope::AttemptFailure;

use super::ids::Millis;

/// A part of a destination's mail.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::relay::scheduler) struct Part {
    /// Only mail for this recipient domain, when several share the destination.
    pub(in crate::relay::scheduler) domain: Option<Host>,
    /// Only mail without `TLS-Required: No`.
    pub(in crate::relay::scheduler) spares_relaxed: bool,
}

impl Part {
    /// Returns the parts that mail for a domain belongs to, the largest first.
    pub(super) fn of(host: &Host, is_relaxed: bool) -> impl Iterator<Item = Self> {
        let domain = |spares_relaxed| Self {
            domain: Some(host.clone()),
            spares_relaxed,
        };
        let honours = [
            Self {
                domain: None,
                spares_relaxed: true,
            },
            domain(true),
        ];
        honours
            .into_iter()
            .filter(move |_| !is_relaxed)
            .chain(std::iter::once(domain(false)))
    }
}

/// The backoff of mail: its end and its reason.
#[derive(Debug)]
pub(in crate::relay::scheduler) struct CurrentBackoff<'a> {
    pub(in crate::relay::scheduler) until: Millis,
    pub(in crate::relay::scheduler) last: &'a AttemptFailure,
    /// The part that is in backoff; `None` for the whole destination.
    pub(in crate::relay::scheduler) part: Option<&'a Part>,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.domain {
            Some(domain) => write!(f, "mail for {domain}")?,
            None => f.write_str("mail")?,
        }
        f.write_str(if self.spares_relaxed {
            " without \"TLS-Required: No\""
        } else {
            ""
        })
    }
}
