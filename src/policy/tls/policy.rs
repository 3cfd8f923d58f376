//! A TLS policy: none, opportunistic, or forced with demands.

use std::fmt;
use std::sync::Arc;

use super::{Demand, Handshake, Layer, Revocation, Strength, TlsaSet, Verify};

/// The TLS that a session needs before mail may be sent or accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsPolicy {
    /// TLS is not tried.
    Off,
    /// TLS if the peer offers it; otherwise mail goes in the clear.
    Opportunistic,
    /// TLS that satisfies every demand; otherwise the session is refused.
    Forced(Demands),
}

impl TlsPolicy {
    /// Makes a forced policy with one demand.
    #[must_use]
    pub fn forced(demand: Demand) -> Self {
        Self::Forced(Demands {
            first: demand,
            others: Vec::new(),
        })
    }

    /// The name of the level, as in the configuration.
    #[must_use]
    pub fn level(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Opportunistic => "opportunistic",
            Self::Forced(_) => "forced",
        }
    }

    /// Adds a demand. A policy can only become stricter, except that `Off` stays `Off`: the
    /// administrator has switched TLS off for the domain.
    // Rule: policy table (layers).
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

    /// Joins two policies: the stricter level, and the demands of both. `Off` of one yields to the
    /// other.
    // Rule: policy table (layers).
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        match (self, other) {
            (Self::Forced(mut demands), Self::Forced(further)) => {
                demands.others.push(further.first);
                demands.others.extend(further.others);
                Self::Forced(demands)
            }
            (forced @ Self::Forced(_), _) | (_, forced @ Self::Forced(_)) => forced,
            (Self::Off, Self::Off) => Self::Off,
            (Self::Off | Self::Opportunistic, Self::Off | Self::Opportunistic) => {
                Self::Opportunistic
            }
        }
    }

    /// Replaces each demand by what `change` returns for it.
    #[must_use]
    pub fn map_demands(self, change: impl Fn(Demand) -> Demand) -> Self {
        match self {
            Self::Forced(Demands { first, others }) => Self::Forced(Demands {
                first: change(first),
                others: others.into_iter().map(change).collect(),
            }),
            policy @ (Self::Off | Self::Opportunistic) => policy,
        }
    }

    /// The TLSA records to compare the certificate with, if a demand names any. All demands of one
    /// hop name the same records.
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

    /// Returns the kind of handshake that the policy needs. A resumed session is enough if no
    /// demand concerns the peer's identity.
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
        if wants_identity {
            Handshake::Full
        } else {
            Handshake::Resumed
        }
    }

    /// Returns true if a demand needs a path to the connector's trust anchors.
    #[must_use]
    pub fn asks_for_chain(&self) -> bool {
        self.demands().any(|demand| match &demand.verify {
            Verify::Chain | Verify::Name(_) => true,
            Verify::None
            | Verify::Published(_)
            | Verify::Dane(_)
            | Verify::Pin(_)
            | Verify::Impossible(_) => false,
        })
    }

    /// Returns true if a demand needs a path to the anchors of `[tls] trust`.
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

    /// Returns true if a demand needs the revocation status of the path to the connector's trust
    /// anchors.
    #[must_use]
    pub fn asks_for_revocation(&self) -> bool {
        self.demands().any(|demand| match demand.revocation {
            Revocation::Off => false,
            Revocation::IfKnown | Revocation::Required => true,
        })
    }

    /// The weakest key exchange that satisfies every demand.
    #[must_use]
    pub fn min_strength(&self) -> Strength {
        self.demands()
            .map(|demand| demand.min_strength)
            .max()
            .unwrap_or(Strength::Classical)
    }

    /// The demands; none unless the policy is forced.
    pub fn demands(&self) -> impl Iterator<Item = &Demand> {
        let demands = match self {
            Self::Off | Self::Opportunistic => None,
            Self::Forced(demands) => Some(demands.iter()),
        };
        demands.into_iter().flatten()
    }
}

/// The demands of a forced policy, at least one. All must be satisfied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demands {
    first: Demand,
    others: Vec<Demand>,
}

impl Demands {
    /// The demands in the order in which they were added, the connector's first.
    pub fn iter(&self) -> impl Iterator<Item = &Demand> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("TLS off"),
            Self::Opportunistic => f.write_str("TLS opportunistic"),
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
