//! `GET /v1/status` and `GET /v1/ready`: the state of the relay, for `gatepost status` and the status page. Lists have
//! a limit, and entries over it are counted.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::evidence::EvidenceStatus;
use super::recipients::RecipientsStatus;
use super::{ActiveAlarm, FailureReason, HeldClient};
use crate::telemetry::coverage::Day;

/// The state of the relay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RelayStatus {
    /// The version of Gatepost.
    pub version: String,
    /// The name of this host.
    pub hostname: String,
    /// The time at which the daemon was started.
    pub since: Timestamp,
    /// The time of this status.
    pub at: Timestamp,
    /// The queue.
    pub queue: QueueStatus,
    /// The two shares of the delivery attempts. Empty before the first delivery.
    #[serde(default)]
    pub attempts: Vec<AttemptsStatus>,
    /// The reports to senders and to the postmaster.
    #[serde(default)]
    pub reports: ReportsStatus,
    /// The size of the evidence; `null` if none is kept.
    #[serde(default)]
    pub evidence: Option<EvidenceStatus>,
    /// The reason why the spool is not this relay's any more, with the remedy, while new mail is rejected
    /// and no delivery starts; `null` otherwise.
    #[serde(default)]
    pub spool_lost: Option<String>,
    /// The database with the queue; `null` if the queue is in a folder.
    #[serde(default)]
    pub database: Option<DatabaseStatus>,
    /// The destinations whose last attempt failed, those with the most mail first.
    pub troubles: Vec<FailingDestination>,
    /// The number of further ones.
    pub more_troubles: usize,
    /// The connectors in the order of the configuration, with the built-in default last.
    pub connectors: Vec<ConnectorStatus>,
    /// The number of further ones.
    pub more_connectors: usize,
    /// Our own certificates, and those of partners whose connector verifies them. The next to
    /// expire comes first.
    pub certificates: Vec<CertificateStatus>,
    /// The number of further ones.
    pub more_certificates: usize,
    /// The certificate revocation lists: those of files, and those of distribution points.
    #[serde(default)]
    pub crls: Vec<CrlStatus>,
    /// The number of further ones.
    #[serde(default)]
    pub more_crls: usize,
    /// The exceptions in force.
    pub exceptions: Vec<ExceptionStatus>,
    /// The latest refusals since the start, newest first.
    pub refusals: Vec<RecentRefusal>,
    /// Hosts that offered less TLS than before, since the start, newest first.
    pub downgrades: Vec<RecentDowngrade>,
    /// The active alarms.
    pub alarms: Vec<ActiveAlarm>,
    /// The sessions with clients, and the clients held back by a limit.
    #[serde(default)]
    pub clients: ClientsStatus,
    /// The `[[recipients]]` tables, in the order of the configuration.
    #[serde(default)]
    pub recipients: Vec<RecipientsStatus>,
}

/// The sessions with clients.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClientsStatus {
    /// Open sessions.
    pub sessions: usize,
    /// The limit `[limits] connections`.
    pub sessions_max: usize,
    /// Sessions of clients outside `[relay] networks`.
    pub strangers: usize,
    /// The limit of their sessions.
    pub strangers_max: usize,
    /// The memory that recipients in open transactions use, in octets.
    #[serde(default)]
    pub transaction_memory: u64,
    /// The listeners on which seats are scarce.
    pub short: Vec<String>,
    /// Clients and networks that were held back in the last hour, the latest first.
    pub held: Vec<HeldClient>,
    /// The number of further ones.
    pub more_held: usize,
}

/// The database with the queue, which several relays share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseStatus {
    /// The URL, without a password.
    pub url: String,
    /// The name of this node.
    pub node: String,
    /// True if a commit is on the disks of two servers before mail is answered with 250.
    pub two_disks: bool,
    /// The version of the server, and the durability of commits, in words.
    pub durability: Vec<String>,
    /// The reason why the database does not answer, or that this node drains, while new mail is rejected; `null` otherwise.
    pub trouble: Option<String>,
}

/// The queue.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Messages in the queue.
    pub messages: u64,
    /// Octets of their content.
    pub octets: u64,
    /// Recipients that wait for delivery.
    pub waiting: u64,
    /// Recipients that are held until an operator decides.
    pub held: u64,
    /// The time at which the oldest message was accepted.
    pub oldest: Option<Timestamp>,
    /// The time at which the queue was counted. A long queue is not counted for each request.
    pub counted: Option<Timestamp>,
}

/// The reports to senders and to the postmaster since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsStatus {
    /// Messages whose report waits, for the reports of other recipients or for the rate limit.
    pub waiting: u64,
    /// Failed messages that wait for the postmaster's next digest.
    pub for_digest: u64,
    /// Reports made.
    pub stored: u64,
    /// Reports delayed by the rate limit.
    pub delayed: u64,
    /// Recipients reported together with another recipient.
    pub merged: u64,
    /// Digests made.
    pub digests: u64,
    /// Messages of strangers added to a digest because too many reports waited.
    #[serde(default)]
    pub diverted: u64,
}

/// `GET /v1/ready`: the readiness of the relay, as `/readyz` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Readiness {
    /// True if mail is accepted and delivered.
    pub ready: bool,
    /// The reasons why not; of a relay that is ready, what slows deliveries down.
    pub reasons: Vec<String>,
}

impl Readiness {
    /// Returns the text of `/readyz` and of `gatepost status --ready`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let ready = self.ready.then_some("ready");
        for line in ready
            .into_iter()
            .chain(self.reasons.iter().map(String::as_str))
        {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// One share of the delivery attempts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttemptsStatus {
    /// `named` for destinations that connectors name, `mx` for those that only their MX records
    /// name.
    pub share: String,
    /// The limit of concurrent attempts.
    pub most: u32,
    /// Running attempts.
    pub running: u32,
    /// Those among them that have been running for long.
    pub slow: u32,
    /// Destinations whose mail is due and waits because all attempts are in use.
    pub waiting: u64,
    /// The number of seconds for which there have been such destinations.
    pub full_seconds: Option<u64>,
}

impl AttemptsStatus {
    /// The number of seconds after which full use of the attempts is reported. A burst of mail
    /// causes it for a moment.
    pub const FULL: u64 = 60;

    /// Returns true if all attempts have been in use for longer than a burst of mail explains.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full_seconds
            .is_some_and(|seconds| seconds >= Self::FULL)
    }

    /// Returns the destinations of the share in words.
    #[must_use]
    pub fn destinations(&self) -> &'static str {
        if self.share == "named" {
            "named connectors and smart hosts"
        } else {
            "destinations by MX"
        }
    }
}

/// A recipient domain with mail in the queue whose last attempt failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailingDestination {
    /// The domain.
    pub domain: String,
    /// Its connector.
    pub connector: String,
    /// Recipients that wait for delivery.
    pub waiting: u64,
    /// Recipients that are held until an operator decides.
    pub held: u64,
    /// The time at which the oldest of their messages was accepted.
    pub oldest: Timestamp,
    /// The reason why the last attempt failed.
    pub reason: FailureReason,
    /// The time of the next attempt. `null` if that is now, or if everything is held.
    pub next: Option<Timestamp>,
}

/// A connector.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectorStatus {
    /// The name.
    pub name: String,
    /// Its present demand on next hops, in words.
    pub outbound: String,
    /// Its demand on senders, in words.
    pub inbound: String,
    /// The TLS of delivered recipients on the last days with mail, the oldest first.
    pub sent: Vec<Day>,
    /// The same for accepted recipients.
    pub received: Vec<Day>,
}

/// The owner of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateOwner {
    /// This relay.
    Own,
    /// A partner.
    Partner,
}

/// A certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The owner.
    pub owner: CertificateOwner,
    /// The file of our own certificate, or the partner's host.
    pub place: String,
    /// The partner's connector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// The names in it.
    pub names: Vec<String>,
    /// The time at which it expires.
    pub not_after: Timestamp,
    /// Complete days until then. Negative if it has expired.
    pub days_left: i64,
    /// The reason why the connector refused it last, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A certificate revocation list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CrlStatus {
    /// The file, or the URL of the distribution point.
    pub source: String,
    /// True if it is in use: all files, and those distribution points that a session has needed since
    /// the start and within the last seven days.
    pub in_use: bool,
    /// The name of the issuer; `null` if the CRL could not be fetched yet.
    pub issuer: Option<String>,
    /// The number of certificates that it lists.
    pub entries: usize,
    /// The time at which it was issued.
    pub this_update: Option<Timestamp>,
    /// The time from which it has expired.
    pub next_update: Option<Timestamp>,
    /// The failure of the last fetch.
    pub failure: Option<String>,
}

/// An exception in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExceptionStatus {
    /// Its connector.
    pub connector: String,
    /// The demand that it sets, in words.
    pub tls: String,
    /// The last day on which it holds.
    pub until: Date,
    /// The reason given in the configuration.
    pub reason: String,
}

/// A session or message refused by TLS policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecentRefusal {
    /// The time of the latest one.
    pub at: Timestamp,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// The connector.
    pub connector: String,
    /// The peer that was refused.
    pub peer: String,
    /// The reason.
    pub reason: String,
    /// The number of times.
    pub times: u64,
}

/// A host that offers less TLS than before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecentDowngrade {
    /// The time of the latest observation.
    pub at: Timestamp,
    /// The connector that allowed it.
    pub connector: String,
    /// The recipient domain.
    pub domain: String,
    /// The host.
    pub host: String,
    /// The TLS that it offered before.
    pub was: String,
    /// The TLS that it offers now.
    pub got: String,
}
