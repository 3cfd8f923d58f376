//! The content of the downgrade memory, as others see it.

use std::sync::Arc;

use jiff::Timestamp;

use super::level::TlsLevel;
use crate::policy::layers::MemoryFinding;
use crate::smtp::address::Host;

/// The best TLS level that was reached, and the period in which it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BestLevel {
    /// The level.
    pub level: TlsLevel,
    /// The time at which it was first reached. After 90 days without it, the period starts anew.
    pub first: Timestamp,
    /// The time at which it was last reached.
    pub last: Timestamp,
}

/// The memory of one host of a domain.
// Rule: RFC 3207 §6; RFC 7672 §1.3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostHistory {
    /// The recipient domain.
    pub domain: Host,
    /// The host that accepts its mail.
    pub host: Host,
    /// The best level of the last 90 days.
    pub best: BestLevel,
    /// The time of the last session.
    pub seen: Timestamp,
    /// The level of the last session.
    pub level: TlsLevel,
    /// The issuer of the last certificate.
    pub issuer: Option<Arc<str>>,
}

/// The remembered levels that a session with a host is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baseline {
    /// The best level of the host; `None` if it is new or was not seen for 90 days.
    pub host: Option<BestLevel>,
    /// The best level of all hosts of the domain.
    pub domain: Option<BestLevel>,
    /// The last session with TLS, at any level, of any host of the domain within 90 days.
    pub took_tls: Option<Timestamp>,
}

impl Baseline {
    /// Returns the finding for the demand. If any host of a domain took TLS, all must take it, new
    /// ones too: an attacker who forges MX records uses new host names (RFC 7672 §1.3.2).
    #[must_use]
    pub fn finding(&self) -> MemoryFinding {
        self.took_tls
            .map_or(MemoryFinding::Nothing, |last| MemoryFinding::TookTls {
                last,
            })
    }
}

/// The comparison of a session with the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelChange {
    /// The host was unknown.
    First,
    /// The level equals the best one.
    Same,
    /// The level is better than any before.
    Better {
        /// The best level until now.
        was: BestLevel,
    },
    /// The level is worse than the best one; or a new host without TLS belongs to a domain with
    /// TLS.
    Worse {
        /// The remembered level.
        was: BestLevel,
    },
}

/// A record of an operator's command to forget a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetEntry {
    /// The domain.
    pub domain: Host,
    /// The time of the command.
    pub at: Timestamp,
    /// The reason that the operator gave.
    pub reason: String,
    /// The operator.
    pub who: String,
    /// The number of hosts that were forgotten.
    pub hosts: usize,
}

/// A part of the memory, ordered by domain.
#[derive(Debug, Clone, Default)]
pub struct MemoryPage {
    /// The hosts. Those of one domain are adjacent.
    pub remembered: Vec<HostHistory>,
    /// The domain after which the next page starts; `None` on the last page.
    pub next: Option<Host>,
    /// The forgotten domains, oldest first; on the first page only.
    pub forgotten: Vec<ForgetEntry>,
}
