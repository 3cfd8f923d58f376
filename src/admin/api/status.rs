//! `GET /v1/status`: how things stand, for `gatepost status` and the status page alike. Lists are bounded;
//! where something was left out, it is counted.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::{ActiveAlarm, FailureReason, HeldClient};
use crate::monitor::coverage::Day;

/// How things stand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RelayStatus {
    /// The version of Gatepost.
    pub version: String,
    /// Our own name.
    pub hostname: String,
    /// When the daemon was started.
    pub since: Timestamp,
    /// When this was put together.
    pub at: Timestamp,
    /// The queue.
    pub queue: QueueStatus,
    /// The shares of the delivery attempts; nothing before the first delivery.
    #[serde(default)]
    pub attempts: Vec<AttemptsStatus>,
    /// The reports to senders and to the postmaster.
    #[serde(default)]
    pub reports: ReportsStatus,
    /// Destinations in trouble, those with the most mail first.
    pub troubles: Vec<FailingDestination>,
    /// The number of those that are left out.
    pub more_troubles: usize,
    /// The connectors in the order of the configuration, the built-in default last.
    pub connectors: Vec<ConnectorStatus>,
    /// The number of those that are left out.
    pub more_connectors: usize,
    /// Our own certificates, and those of partners that connectors hold to their policy; what ends first
    /// comes first.
    pub certificates: Vec<CertificateStatus>,
    /// The number of those that are left out.
    pub more_certificates: usize,
    /// Exceptions in force.
    pub exceptions: Vec<ExceptionStatus>,
    /// The last refusals since the start, newest first.
    pub refusals: Vec<RecentRefusal>,
    /// Hosts that show less TLS than before, since the start, newest first.
    pub downgrades: Vec<RecentDowngrade>,
    /// Alarms that are on.
    pub alarms: Vec<ActiveAlarm>,
    /// Sessions with clients, and who is held back by a limit.
    #[serde(default)]
    pub clients: ClientsStatus,
}

/// Sessions with clients.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClientsStatus {
    /// Sessions.
    pub sessions: usize,
    /// `[limits] connections`.
    pub sessions_max: usize,
    /// Those of clients that are not of `[relay] networks`.
    pub strangers: usize,
    /// The limit of strangers' sessions.
    pub strangers_max: usize,
    /// Octets of the recipients in open transactions.
    #[serde(default)]
    pub transaction_memory: u64,
    /// Listeners on which seats are scarce.
    pub short: Vec<String>,
    /// ClientsStatus and networks that were held back in the last hour, the last first.
    pub held: Vec<HeldClient>,
    /// The number of those that are left out.
    pub more_held: usize,
}

/// The queue.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Messages.
    pub messages: u64,
    /// Octets of their contents.
    pub octets: u64,
    /// Recipients that wait for delivery.
    pub waiting: u64,
    /// Recipients that wait for an operator.
    pub held: u64,
    /// When the oldest message was accepted.
    pub oldest: Option<Timestamp>,
    /// When it was counted: a long queue is not counted each time.
    pub counted: Option<Timestamp>,
}

/// The reports to senders and to the postmaster since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsStatus {
    /// Messages whose report to the sender waits, for other recipients' reports or for the rate.
    pub waiting: u64,
    /// Failed messages that wait for the postmaster's next digest.
    pub for_digest: u64,
    /// ReportsStatus that were made.
    pub stored: u64,
    /// ReportsStatus that had to wait for the rate.
    pub delayed: u64,
    /// Recipients whose report went into that of another recipient.
    pub merged: u64,
    /// Digests that were made.
    pub digests: u64,
    /// Messages of strangers that went into a digest, since too many reports waited.
    #[serde(default)]
    pub diverted: u64,
}

/// One share of the delivery attempts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttemptsStatus {
    /// `named` for destinations that connectors name, `mx` for those that only their MX records do.
    pub share: String,
    /// AttemptsStatus that may be under way.
    pub most: u32,
    /// AttemptsStatus under way.
    pub running: u32,
    /// Of these, those that have run for long.
    pub slow: u32,
    /// Destinations whose mail is due and waits, since all attempts are in use.
    pub waiting: u64,
    /// For how many seconds there have been such destinations.
    pub full_seconds: Option<u64>,
}

impl AttemptsStatus {
    /// Seconds after which it is worth a word that all attempts are in use: a burst of mail does that for a moment.
    pub const FULL: u64 = 60;

    /// Checks that all attempts have been in use for longer than a burst of mail explains.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full_seconds.is_some_and(|seconds| seconds >= Self::FULL)
    }

    /// The destinations of the share, in words.
    #[must_use]
    pub fn destinations(&self) -> &'static str {
        if self.share == "named" { "named connectors and smart hosts" } else { "destinations by MX" }
    }
}

/// A recipient domain with mail that waits after a failed attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailingDestination {
    /// Which.
    pub domain: String,
    /// The connector that speaks for it.
    pub connector: String,
    /// Recipients that wait for delivery.
    pub waiting: u64,
    /// Recipients that wait for an operator.
    pub held: u64,
    /// When the oldest of their messages was accepted.
    pub oldest: Timestamp,
    /// Why the last attempt failed.
    pub reason: FailureReason,
    /// When it is tried again; nothing where that is now, or where all is held.
    pub next: Option<Timestamp>,
}

/// A connector.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectorStatus {
    /// Its name.
    pub name: String,
    /// What it demands of next hops now, in words.
    pub outbound: String,
    /// What it demands of senders, in words.
    pub inbound: String,
    /// How recipients were reached on the last days on which there was mail, the oldest first.
    pub sent: Vec<Day>,
    /// The same for mail that came in.
    pub received: Vec<Day>,
}

/// Whose a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateOwner {
    /// Ours.
    Own,
    /// A partner's.
    Partner,
}

/// A certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Whose.
    pub owner: CertificateOwner,
    /// The file of our own, or the partner's host.
    pub place: String,
    /// The partner's connector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// Its names.
    pub names: Vec<String>,
    /// When it ends.
    pub not_after: Timestamp,
    /// Whole days until then; negative where it has ended.
    pub days_left: i64,
    /// Why the connector refused it the last time, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// An exception in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExceptionStatus {
    /// Of which connector.
    pub connector: String,
    /// What is demanded instead.
    pub tls: String,
    /// Its last day.
    pub until: Date,
    /// Why.
    pub reason: String,
}

/// A refusal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecentRefusal {
    /// When, the last time.
    pub at: Timestamp,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// The connector.
    pub connector: String,
    /// Who was refused.
    pub peer: String,
    /// Why.
    pub reason: String,
    /// How often.
    pub times: u64,
}

/// A host that shows less TLS than before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecentDowngrade {
    /// When, the last time.
    pub at: Timestamp,
    /// The connector that let it through.
    pub connector: String,
    /// The recipient domain.
    pub domain: String,
    /// The host.
    pub host: String,
    /// What it showed before.
    pub was: String,
    /// What it shows now.
    pub got: String,
}
