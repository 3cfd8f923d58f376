//! How far TLS with a host came, as one of five levels; and what the memory of a level demands.
//!
//! Pure words. What a handshake was worth is the judge's word, [`crate::tls`]; this only puts it in order.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Standing;
use crate::tls::{Authentication, Clearance, DaneScope, NoTls, Shortfall, TlsOutcome};

/// How far TLS with a host came; the greater the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No TLS, though we asked for it.
    Plain,
    /// TLS, with a certificate that proves nothing.
    Tls,
    /// TLS, and a certificate under a trusted authority.
    Trusted,
    /// TLS, and a trusted certificate for a name that we looked for.
    Verified,
    /// TLS, authenticated by what the domain publishes under DNSSEC (RFC 7672).
    Dane,
}

impl Level {
    /// All levels, the least first.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Tls, Self::Trusted, Self::Verified, Self::Dane];

    /// The level of a session that may carry mail. Nothing where TLS was not asked for: what we do not want
    /// tells nothing about the host.
    #[must_use]
    pub fn of(clearance: &Clearance) -> Option<Self> {
        match clearance.outcome() {
            TlsOutcome::Clear(reason) => Self::without(reason),
            TlsOutcome::Tls(_) => Some(match clearance.authentication() {
                Authentication::Anonymous => Self::Tls,
                Authentication::Untrusted(lack) => return Self::of_refused(lack),
                Authentication::Trusted => Self::Trusted,
                Authentication::Verified(_) | Authentication::Pinned(_) => Self::Verified,
                Authentication::Dane { scope: DaneScope::Domain, .. } => Self::Dane,
                // Of the host, and nobody knows whether it is the domain's (RFC 7672 §2.2.1).
                Authentication::Dane { scope: DaneScope::Host, .. } => Self::Verified,
            }),
        }
    }

    /// The level of a session that was refused for what it lacks, or that is in use for want of a demand. A
    /// domain whose policy is forced can lose STARTTLS, too, and the memory and the alarm should know.
    #[must_use]
    pub fn of_refused(lack: &Shortfall) -> Option<Self> {
        match lack {
            Shortfall::NoTls(reason) => Self::without(reason),
            Shortfall::Version(_)
            | Shortfall::NoCertificate
            | Shortfall::Chain(_)
            | Shortfall::Pin { .. }
            | Shortfall::Dane(_) => Some(Self::Tls),
            // Nobody was dialled.
            Shortfall::Lack(_) => None,
            // Names are looked at only where the chain is good.
            Shortfall::Name { .. } => Some(Self::Trusted),
        }
    }

    fn without(reason: &NoTls) -> Option<Self> {
        match reason {
            NoTls::NotWanted | NoTls::NotUsed => None,
            NoTls::NotOffered | NoTls::Rejected(_) | NoTls::SpokeBeforeHandshake | NoTls::Broken(_) => {
                Some(Self::Plain)
            }
        }
    }

    /// The word for it in the database and in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Trusted => "trusted",
            Self::Verified => "verified",
            Self::Dane => "dane",
        }
    }

    /// The level that a word stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "no TLS",
            Self::Tls => "TLS",
            Self::Trusted => "TLS, trusted",
            Self::Verified => "TLS, name verified",
            Self::Dane => "DANE",
        })
    }
}

/// What the memory demands of a host where `downgrade = "refuse"`: each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// TLS, whoever answers.
    Tls,
    /// A certificate under a trusted authority.
    Chain,
    /// A trusted certificate for the host's own name.
    Name,
}

/// What `downgrade = "refuse"` demands of a host; `allow` and `warn` demand nothing.
///
/// The domain took TLS: so must each of its hosts, a new one too, for whoever forges an MX record (RFC 7672
/// §1.3.2) brings a new name. More than TLS is demanded only of a host that showed more itself: what
/// another host of the domain has says nothing about its certificate. Of DANE no more than TLS is left
/// here. Where a domain still publishes, DANE demands the rest itself; and where it withdrew its records,
/// its certificates need not be of any authority.
#[must_use]
pub fn demand(standing: &Standing) -> Held {
    let own = standing.host.map_or(Held::Nothing, |best| match best.level {
        Level::Plain => Held::Nothing,
        Level::Tls | Level::Dane => Held::Tls,
        Level::Trusted => Held::Chain,
        Level::Verified => Held::Name,
    });
    let shared = standing.domain.map_or(Held::Nothing, |best| match best.level {
        Level::Plain => Held::Nothing,
        Level::Tls | Level::Trusted | Level::Verified | Level::Dane => Held::Tls,
    });
    own.max(shared)
}
