//! The label sets of the metrics. Their values are names from the configuration and words of our
//! own, so their number is bounded.

use prometheus_client::encoding::EncodeLabelSet;

use crate::config::TlsDemand;
use crate::policy::tls::{Authentication, Clearance, TlsOutcome, TlsPolicy, TlsVersion};

/// The direction of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Received by us.
    Inbound,
    /// Sent by us.
    Outbound,
}

impl Direction {
    /// Returns the word for it, as in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// Regular: after QUIT, or after a final reply of ours.
    Closed,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// The client was too slow, or sent no message for too long.
    Timeout,
    /// The seat was given to another client.
    Evicted,
    /// The relay is stopping.
    Shutdown,
    /// The client closed the connection.
    ConnectionLost,
}

impl SessionEnd {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HandshakeFailed => "handshake",
            Self::Timeout => "timeout",
            Self::Evicted => "crowded",
            Self::Shutdown => "shutdown",
            Self::ConnectionLost => "lost",
        }
    }
}

/// The result of a TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeResult {
    /// Completed with this version.
    Completed(TlsVersion),
    /// Failed.
    Failed,
}

/// The result of moving mail from the spool's log into the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogMove {
    /// It was moved.
    Complete,
    /// Another program reads or locks the database.
    Blocked,
    /// The database could not be written.
    Failed,
}

impl LogMove {
    /// Returns the name of the result, as metrics and log lines have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
        }
    }
}

/// The level of a TLS policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyLevel {
    /// No TLS.
    Off,
    /// TLS if the peer offers it.
    Opportunistic,
    /// TLS is required.
    Forced,
}

impl PolicyLevel {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Opportunistic => "opportunistic",
            Self::Forced => "forced",
        }
    }
}

impl From<&TlsPolicy> for PolicyLevel {
    fn from(policy: &TlsPolicy) -> Self {
        match policy {
            TlsPolicy::Off => Self::Off,
            TlsPolicy::Opportunistic => Self::Opportunistic,
            TlsPolicy::Forced(_) => Self::Forced,
        }
    }
}

impl From<TlsDemand> for PolicyLevel {
    fn from(demand: TlsDemand) -> Self {
        match demand {
            TlsDemand::Off => Self::Off,
            TlsDemand::Opportunistic => Self::Opportunistic,
            TlsDemand::Forced { .. } => Self::Forced,
        }
    }
}

/// The decision of the TLS judge about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyDecision {
    /// Mail may be sent over the session.
    Cleared,
    /// TLS failed, and mail may be sent in the clear over a new connection.
    FellBack,
    /// No mail may be sent.
    Refused,
}

impl PolicyDecision {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::FellBack => "fell_back",
            Self::Refused => "refused",
        }
    }
}

/// The reason why a sender or recipient was refused in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// The policy of the sender's connector: networks or TLS.
    Policy,
    /// The disk is full, or another local problem.
    Storage,
    /// The client may not relay to this recipient.
    Recipient,
    /// The client has logged in as a user that may not use this sender.
    Sender,
    /// The recipient does not exist.
    UnknownRecipient,
}

impl RefusalReason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Storage => "storage",
            Self::Recipient => "recipient",
            Self::Sender => "sender",
            Self::UnknownRecipient => "unknown_recipient",
        }
    }
}

/// The outcome of an AUTH command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginOutcome {
    /// The client proved that it is the user, who may log in.
    Accepted,
    /// Wrong name or password, or a user who may not log in.
    Failed,
    /// The client has failed too often.
    Limited,
    /// Too many passwords were being checked.
    Busy,
}

impl LoginOutcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::Limited => "limited",
            Self::Busy => "busy",
        }
    }
}

/// The result of checking whether a recipient exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientCheckResult {
    /// It exists.
    Exists,
    /// It does not exist.
    Unknown,
    /// The source gave no answer.
    Trouble,
    /// The source accepts any address, so that its answer means nothing.
    Unchecked,
}

impl RecipientCheckResult {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Unknown => "unknown",
            Self::Trouble => "trouble",
            Self::Unchecked => "unchecked",
        }
    }
}

/// The result of an attempt for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryResult {
    /// The next hop accepted the message.
    Delivered,
    /// The recipient is retried later.
    Deferred,
    /// The recipient is held for an operator.
    Held,
    /// The recipient bounced.
    Bounced,
}

impl DeliveryResult {
    /// Returns the word for it, as in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Held => "held",
            Self::Bounced => "bounced",
        }
    }
}

/// The labels that describe the TLS of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TlsLabels {
    pub(super) tls: &'static str,
    pub(super) verification: &'static str,
}

impl TlsLabels {
    pub(super) const NONE: Self = Self {
        tls: "none",
        verification: "none",
    };

    pub(super) fn of(clearance: &Clearance) -> Self {
        let TlsOutcome::Tls(facts) = clearance.outcome() else {
            return Self::NONE;
        };
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

/// Returns the label of the clients in `[relay] networks`, or of all others.
pub(super) fn clients_label(is_own: bool) -> &'static str {
    if is_own {
        "relay_networks"
    } else {
        "strangers"
    }
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
    ListenerLabel { listener: String }
    RecipientTableLabel { domains: String }
    CrlSourceLabel { source: String }
    FetchResultLabel { result: &'static str }
    RecipientCheckLabels { from: &'static str, result: &'static str }
    ClientsLabel { clients: &'static str }
    SessionLabels { listener: String, end: &'static str }
    LogMoveLabel { result: &'static str }
    SmartHostLoginLabels { connector: String, mechanism: &'static str, outcome: &'static str }
    LoginLabels { listener: String, mechanism: &'static str, outcome: &'static str }
    LimitLabels { listener: String, limit: &'static str }
    HandshakeLabels { direction: &'static str, result: &'static str, tls: &'static str }
    JudgedLabels { direction: &'static str, connector: String, policy: &'static str, outcome: &'static str }
    InboundLabels { listener: String, connector: String, tls: &'static str, verification: &'static str }
    RefusedLabels { listener: String, connector: String, reason: &'static str }
    RecipientLabels { connector: String, outcome: &'static str, tls: &'static str, verification: &'static str }
    ConnectorTlsLabels { connector: String, tls: &'static str, verification: &'static str }
    ConnectorLabel { connector: String }
    QueueLabels { connector: String, state: &'static str }
    CertificateLabels { owner: &'static str, certificate: String }
    AlarmLabel { alarm: &'static str }
    ShareLabel { share: &'static str }
    AttemptEndedLabel { reason: &'static str }
    VersionLabel { version: &'static str }
}
