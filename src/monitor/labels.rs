//! Labels: names from the configuration and words of ours, so that their number is bounded.

use prometheus_client::encoding::EncodeLabelSet;

use crate::config::TlsDemand;
use crate::tls::{Authentication, Clearance, TlsOutcome, TlsPolicy, TlsVersion};

/// Which way mail goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To us.
    Inbound,
    /// From us.
    Outbound,
}

impl Direction {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// In order: QUIT, or our last word.
    Said,
    /// Its handshake failed.
    Handshake,
    /// The client was too slow, or brought no message for too long.
    Timeout,
    /// Its seat was given to somebody else.
    Crowded,
    /// We are stopping.
    Shutdown,
    /// The client has gone.
    Gone,
}

impl SessionEnd {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Said => "closed",
            Self::Handshake => "handshake",
            Self::Timeout => "timeout",
            Self::Crowded => "crowded",
            Self::Shutdown => "shutdown",
            Self::Gone => "lost",
        }
    }
}

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeEnd {
    /// TLS of this version.
    Completed(TlsVersion),
    /// No TLS.
    Failed,
}

/// What a policy comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demanded {
    /// No TLS.
    Off,
    /// TLS where it can be had.
    Opportunistic,
    /// TLS, or nothing.
    Forced,
}

impl Demanded {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Opportunistic => "opportunistic",
            Self::Forced => "forced",
        }
    }
}

impl From<&TlsPolicy> for Demanded {
    fn from(policy: &TlsPolicy) -> Self {
        match policy {
            TlsPolicy::Off => Self::Off,
            TlsPolicy::Opportunistic => Self::Opportunistic,
            TlsPolicy::Forced(_) => Self::Forced,
        }
    }
}

impl From<TlsDemand> for Demanded {
    fn from(demand: TlsDemand) -> Self {
        match demand {
            TlsDemand::Off => Self::Off,
            TlsDemand::Opportunistic => Self::Opportunistic,
            TlsDemand::Forced { .. } => Self::Forced,
        }
    }
}

/// What the judge said of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyEnd {
    /// Mail may cross it.
    Cleared,
    /// Mail may cross another one, in clear: TLS failed.
    FellBack,
    /// Nothing may be said of mail.
    Refused,
}

impl PolicyEnd {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::FellBack => "fell_back",
            Self::Refused => "refused",
        }
    }
}

/// Why something was refused in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The sender's connector: networks, or TLS.
    Policy,
    /// No room, or our own trouble.
    Storage,
    /// The client may not send to this recipient.
    Recipient,
}

impl Reason {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Storage => "storage",
            Self::Recipient => "recipient",
        }
    }
}

/// How an attempt ended for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The next hop took it.
    Delivered,
    /// Later.
    Deferred,
    /// An operator decides.
    Held,
    /// Given up.
    Bounced,
}

impl Fate {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Held => "held",
            Self::Bounced => "bounced",
        }
    }
}

/// What a session reached, in two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) tls: &'static str,
    pub(super) verification: &'static str,
}

impl Reached {
    pub(super) const NOTHING: Self = Self { tls: "none", verification: "none" };

    pub(super) fn of(clearance: &Clearance) -> Self {
        let TlsOutcome::Tls(facts) = clearance.outcome() else { return Self::NOTHING };
        let tls = match facts.version {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        };
        let verification = match clearance.authentication() {
            Authentication::Anonymous => "anonymous",
            Authentication::Unproved(_) => "key-not-proved",
            Authentication::Untrusted(_) => "untrusted",
            Authentication::Trusted => "chain",
            Authentication::Verified(_) => "name",
            Authentication::Pinned(_) => "pin",
            Authentication::Dane { .. } => "dane",
        };
        Self { tls, verification }
    }
}

/// The label of clients of `[relay] networks`, or of all others.
pub(super) fn of_clients(is_own: bool) -> &'static str {
    if is_own { "relay_networks" } else { "strangers" }
}

macro_rules! label_sets {
    ($($(#[$doc:meta])* $name:ident { $($label:ident: $kind:ty),+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name {
            $(pub(super) $label: $kind,)+
        }
    )+};
}

label_sets! {
    Listener { listener: String }
    Clients { clients: &'static str }
    Session { listener: String, end: &'static str }
    Limit { listener: String, limit: &'static str }
    Handshake { direction: &'static str, result: &'static str, tls: &'static str }
    Judged { direction: &'static str, connector: String, policy: &'static str, outcome: &'static str }
    Inbound { listener: String, connector: String, tls: &'static str, verification: &'static str }
    Refused { listener: String, connector: String, reason: &'static str }
    Recipients { connector: String, outcome: &'static str, tls: &'static str, verification: &'static str }
    ConnectorReached { connector: String, tls: &'static str, verification: &'static str }
    Connector { connector: String }
    Queued { connector: String, state: &'static str }
    Certificate { owner: &'static str, certificate: String }
    Alarm { alarm: &'static str }
    AttemptShare { share: &'static str }
    AttemptEnded { reason: &'static str }
    Version { version: &'static str }
}
