//! A policy: no TLS, TLS where it can be had, or TLS that meets every demand.

use std::fmt;
use std::sync::Arc;

use super::{Demand, Handshake, Layer, Strength, TlsaSet, Verify};

/// What is demanded of a session before mail crosses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsPolicy {
    /// TLS is not even tried.
    Off,
    /// TLS where it can be had, clear text otherwise.
    Opportunistic,
    /// TLS that meets every demand, or nothing.
    Forced(Demands),
}

impl TlsPolicy {
    /// Forced, by one demand.
    #[must_use]
    pub fn forced(demand: Demand) -> Self {
        Self::Forced(Demands { first: demand, others: Vec::new() })
    }

    /// The level of the policy in one word, as the configuration writes it.
    #[must_use]
    pub fn level(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Opportunistic => "opportunistic",
            Self::Forced(_) => "forced",
        }
    }

    /// The policy with one more demand: it can only be raised. `Off` stays: an administrator who has
    /// switched TLS off for a domain is not asked twice.
    #[must_use]
    pub fn raised_by(self, demand: Demand) -> Self {
        match self {
            Self::Off => Self::Off,
            Self::Opportunistic => Self::forced(demand),
            Self::Forced(mut demands) => {
                demands.others.push(demand);
                Self::Forced(demands)
            }
        }
    }

    /// The TLSA records that a certificate must be held against, where a demand names any. Two demands of
    /// one hop name the same records.
    #[must_use]
    pub fn tlsa(&self) -> Option<&Arc<TlsaSet>> {
        self.demands().find_map(|demand| match &demand.verify {
            Verify::Dane(set) => Some(set),
            Verify::None
            | Verify::Chain
            | Verify::Name(_)
            | Verify::Published(_)
            | Verify::Pin(_)
            | Verify::Impossible(_) => None,
        })
    }

    /// What a session must be able to say: where no demand is about who the peer is, but only that there is
    /// TLS, an earlier acquaintance will do.
    #[must_use]
    pub fn needed_handshake(&self) -> Handshake {
        let wants_identity = self.demands().any(|demand| match &demand.verify {
            Verify::None => false,
            Verify::Chain
            | Verify::Name(_)
            | Verify::Published(_)
            | Verify::Dane(_)
            | Verify::Pin(_)
            | Verify::Impossible(_) => true,
        });
        if wants_identity { Handshake::Full } else { Handshake::Resumed }
    }

    /// Tells whether a demand asks for a path to the connector's trust anchors.
    #[must_use]
    pub fn asks_for_chain(&self) -> bool {
        self.demands().any(|demand| match &demand.verify {
            Verify::Chain | Verify::Name(_) => true,
            Verify::None | Verify::Published(_) | Verify::Dane(_) | Verify::Pin(_) | Verify::Impossible(_) => false,
        })
    }

    /// Tells whether a demand asks for a path to the anchors of `[tls] trust`.
    #[must_use]
    pub fn asks_for_default_chain(&self) -> bool {
        self.demands().any(|demand| match &demand.verify {
            Verify::Published(_) => true,
            Verify::None
            | Verify::Chain
            | Verify::Name(_)
            | Verify::Dane(_)
            | Verify::Pin(_)
            | Verify::Impossible(_) => false,
        })
    }

    /// The weakest key exchange that meets every demand.
    #[must_use]
    pub fn min_strength(&self) -> Strength {
        self.demands().map(|demand| demand.min_strength).max().unwrap_or(Strength::Classical)
    }

    /// What is demanded; nothing unless it is forced.
    pub fn demands(&self) -> impl Iterator<Item = &Demand> {
        let demands = match self {
            Self::Off | Self::Opportunistic => None,
            Self::Forced(demands) => Some(demands.iter()),
        };
        demands.into_iter().flatten()
    }
}

/// Demands, of which every one must be met; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demands {
    first: Demand,
    others: Vec<Demand>,
}

impl Demands {
    /// In the order in which they were set: the connector's first.
    pub fn iter(&self) -> impl Iterator<Item = &Demand> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("no TLS"),
            Self::Opportunistic => f.write_str("TLS if offered"),
            Self::Forced(demands) => demands.fmt(f),
        }
    }
}

impl fmt::Display for Demands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, demand) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", and ")?;
            }
            demand.fmt(f)?;
            match demand.layer {
                Layer::Connector => {}
                layer => write!(f, " ({layer})")?,
            }
        }
        Ok(())
    }
}
