//! `GET /v1/domain?domain=D`: everything that the daemon knows of mail to one domain, for `gatepost
//! status DOMAIN`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::status::ExceptionStatus;
use super::{DestinationBackoff, FailureReason, ForgottenDomain, PartBackoff, RememberedHost};

/// The daemon's knowledge of mail to one domain. No lookup is made for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DomainStatus {
    /// The domain, in A-labels.
    pub domain: String,
    /// The time of this status.
    pub at: Timestamp,
    /// The time at which the daemon was started.
    pub since: Timestamp,
    /// The connector of the domain.
    pub connector: DomainConnector,
    /// The mail that waits.
    pub queue: DomainQueue,
    /// The last attempt since the start of the daemon.
    pub last_attempt: Option<LastAttemptStatus>,
    /// The hosts in the downgrade memory.
    pub memory: Vec<RememberedHost>,
    /// The orders to forget the domain.
    pub forgotten: Vec<ForgottenDomain>,
    /// The MTA-STS policy in the daemon's cache.
    pub mta_sts: Option<MtaStsStatus>,
}

/// The connector of a domain, for mail to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DomainConnector {
    /// The name.
    pub name: String,
    /// Its own demand, in words.
    pub demand: String,
    /// The present demand, in words, where an exception replaces the connector's own.
    pub exception: Option<ExceptionStatus>,
    /// The key `on_failure`: `defer`, `hold` or `bounce`.
    pub on_failure: String,
    /// The key `downgrade`: `allow`, `warn` or `refuse`.
    pub downgrade: String,
}

/// The mail for a domain in the queue.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DomainQueue {
    /// The time at which the queue was counted. A long queue is not counted for each request.
    pub counted: Timestamp,
    /// Recipients that wait for delivery.
    pub waiting: u64,
    /// Recipients that are held until an operator decides.
    pub held: u64,
    /// The time at which the oldest of their messages was accepted.
    pub oldest: Option<Timestamp>,
    /// The time of the next attempt. `null` if that is now, or if nothing waits.
    pub next: Option<Timestamp>,
    /// The time at which the oldest waiting message expires: what is undelivered then bounces after
    /// a last attempt. `null` if nothing waits. Held mail does not expire.
    pub expires: Option<Timestamp>,
    /// Waiting recipients about whom a delay report was sent.
    pub delays_reported: u64,
    /// The time of the next delay report, if one is to come.
    pub next_delay_report: Option<Timestamp>,
    /// True if a sender gets a delay report when a TLS policy holds the message (`[queue]
    /// warn_after`). An operator's hold is not reported.
    #[serde(default)]
    pub reports_holds: bool,
    /// The latest failure.
    pub reason: Option<FailureReason>,
    /// The backoff of the destination, after no hop of it could be used.
    pub destination_down: Option<DestinationBackoff>,
    /// The backoff of the part of the destination's mail to which ordinary messages for the domain
    /// belong.
    pub part_down: Option<PartBackoff>,
}

/// The last attempt to deliver a message to a domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastAttemptStatus {
    /// The time of its end.
    pub at: Timestamp,
    /// The queue id of the message.
    pub queue_id: String,
    /// `delivered`, `deferred`, `held` or `bounced`.
    pub outcome: String,
    /// The enhanced status code.
    pub status: String,
    /// The reply of the peer, or the reason for the failure.
    pub text: String,
    /// The host whose answer decided the outcome.
    pub host: Option<String>,
    /// The demand at that host, with its layers.
    pub demand: String,
    /// The TLS of the session, if one was cleared.
    pub tls: Option<String>,
    /// The explanation in a report to the sender, if a TLS policy was not met.
    pub explanation: Option<String>,
    /// True if the recipient bounced and the sender gets a report.
    pub reported: bool,
}

/// A cached MTA-STS policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MtaStsStatus {
    /// `enforce`, `testing` or `none`.
    pub mode: String,
    /// The patterns of the hosts that it lists.
    pub mx: Vec<String>,
    /// The id in the domain's TXT record when it was fetched.
    pub id: String,
    /// The time at which it was fetched.
    pub fetched: Timestamp,
    /// The time at which it expires.
    pub expires: Timestamp,
}
