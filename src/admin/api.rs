//! The JSON of the admin socket. Released names keep their meaning; new ones may be added.

pub mod domain;
pub mod evidence;
pub mod nodes;
pub mod recipients;
pub mod status;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::discovery::history::TlsLevel;
use crate::policy::tls::Groups;
use crate::relay::scheduler::Order;
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::envelope::{BodyType, Notify, QueueId, Reception, Ret, TlsRequirement};

/// The most messages on a page, and the most ids in an order.
pub const PAGE_MAX: usize = 1000;

/// The most characters in a reason that an operator gives.
pub const REASON_MAX: usize = 500;

/// The body of every negative response.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiError {
    /// The error, as a sentence.
    pub error: String,
}

/// `GET /v1/queue`: a page of the queue, in the order of acceptance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueuePage {
    /// The matching messages. May be empty although more follow.
    pub messages: Vec<QueuedMessage>,
    /// The value of `after` for the next page. `null` at the end of the queue.
    pub next: Option<QueueId>,
}

/// A message. Only `GET /v1/queue/{id}` has all fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueuedMessage {
    /// The queue id.
    pub id: QueueId,
    /// The relay that has it, if several share the spool; absent while none has it. The state of its
    /// delivery is known to that relay alone: `busy` and the pauses of destinations are those of the
    /// relay that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The time at which it was accepted.
    pub accepted: Timestamp,
    /// The time at which it expires.
    pub expires: Timestamp,
    /// The size of the content in octets.
    pub size: u64,
    /// The sender. Empty for the null reverse-path.
    pub sender: ReversePath,
    /// True while an attempt or an order is running.
    pub busy: bool,
    /// The session in which it was received; absent for messages of our own, such as reports. Not in
    /// lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Reception>,
    /// The other parameters of the envelope. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<EnvelopeParameters>,
    /// The recipients.
    pub recipients: Vec<QueuedRecipient>,
}

/// The parameters of MAIL, and the demands that the content makes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvelopeParameters {
    /// BODY.
    pub body: BodyType,
    /// True if SMTPUTF8 was given.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID as the client wrote it.
    pub envid: Option<String>,
    /// The TLS demand of the message: `ordinary`, `require` (REQUIRETLS) or `relaxed`
    /// (`TLS-Required: No`).
    #[serde(default)]
    pub tls: TlsRequirement,
    /// The connector of the user who sent the message, by which it goes, if the user has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// True if the content has octets above 127.
    pub eight_bit: bool,
    /// True if a header field has octets above 127.
    pub utf8_header: bool,
}

/// The state of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Not delivered yet.
    Waiting,
    /// Held until an operator decides.
    Held,
    /// Accepted by the next hop.
    Delivered,
    /// Failed for good.
    Failed,
}

/// A recipient of a queued message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueuedRecipient {
    /// The address. `recipient` has the same value.
    pub address: Mailbox,
    /// The address, by the name that it has in all documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Mailbox>,
    /// The state.
    pub state: DeliveryState,
    /// The connector of its domain.
    pub connector: String,
    /// Attempts so far.
    pub attempts: u32,
    /// The time of the next attempt at the earliest. `null`: as soon as its destination has a free
    /// connection.
    pub next: Option<Timestamp>,
    /// The reason why the last attempt failed.
    pub reason: Option<FailureReason>,
    /// The backoff of the whole destination, after no hop of it could be used.
    pub destination_down: Option<DestinationBackoff>,
    /// The backoff of the part of the destination's mail to which this message belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_down: Option<PartBackoff>,
    /// NOTIFY, if given. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// ORCPT, if given. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// The stored failures, oldest first. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<FailureReason>>,
}

/// The backoff of a destination.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DestinationBackoff {
    /// The time at which it ends.
    pub until: Timestamp,
    /// The reason.
    pub reason: FailureReason,
}

/// The backoff of a part of a destination's mail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartBackoff {
    /// The mail concerned, in words.
    pub part: String,
    /// The time at which it ends.
    pub until: Timestamp,
    /// The reason.
    pub reason: FailureReason,
}

/// The reason why an attempt failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailureReason {
    /// The time of the failure.
    pub at: Timestamp,
    /// The enhanced status code, such as `4.7.5`.
    pub status: String,
    /// The description, with host and address.
    pub text: String,
    /// The explanation in a report to the sender, if a TLS policy was not met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// The host of the peer.
    pub host: Option<String>,
    /// The reply of the peer.
    pub reply: Option<String>,
}

/// `POST /v1/queue/orders`: an order for some messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderRequest {
    /// The order.
    pub order: Order,
    /// The messages, at most [`PAGE_MAX`].
    pub ids: Vec<QueueId>,
}

/// The response to [`OrderRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderResponse {
    /// The result for each message.
    pub answers: Vec<OrderResult>,
}

/// The result of an order for one message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderResult {
    /// The message.
    pub id: QueueId,
    /// True if the order was carried out.
    pub done: bool,
    /// The reason why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The change of the message since it was listed, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meanwhile: Option<OvertakenBy>,
}

/// A change of a message that came before an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OvertakenBy {
    /// The message has left the queue: it was delivered, bounced or removed.
    Gone,
    /// An attempt or another order is running.
    Busy,
}

/// `GET /v1/history`: a page of the remembered TLS of domains, ordered by domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The entries in their order.
    pub items: Vec<HistoryItem>,
    /// The value of `after` for the next page. `null` at the end.
    pub next: Option<String>,
}

/// An entry of the history.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum HistoryItem {
    /// An active alarm. On the first page.
    Alarm(ActiveAlarm),
    /// A host of a domain.
    Host(RememberedHost),
    /// A domain that an operator has removed from the history. On the first page.
    Forgotten(ForgottenDomain),
}

/// An alarm: many unrelated domains changed their TLS in the same way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ActiveAlarm {
    /// `tls_lost` or `new_issuer`.
    pub what: String,
    /// The issuer that is new to the domains, if the alarm is about one.
    pub issuer: Option<String>,
    /// The time at which it started.
    pub since: Timestamp,
    /// The number of domains concerned.
    pub domains: usize,
    /// The number of domains that could be concerned.
    pub of: usize,
    /// Some of the domains.
    pub examples: Vec<String>,
}

/// The TLS that a host of a domain offered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RememberedHost {
    /// The recipient domain.
    pub domain: String,
    /// The host.
    pub host: String,
    /// The best level that it offered.
    pub best: TlsLevel,
    /// The first time at that level.
    pub first: Timestamp,
    /// The last time at that level.
    pub last: Timestamp,
    /// The last time it was reached.
    pub seen: Timestamp,
    /// The level at that time.
    pub level: TlsLevel,
    /// True if that level is lower than the best.
    pub worse: bool,
    /// The issuer of its latest certificate.
    pub issuer: Option<String>,
}

/// A domain removed from the history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgottenDomain {
    /// The domain.
    pub domain: String,
    /// The time of removal.
    pub at: Timestamp,
    /// The reason given.
    pub reason: String,
    /// The operator.
    pub who: String,
    /// The number of its hosts that were remembered.
    pub hosts: usize,
}

/// `POST /v1/history/forget`: removes a domain from the history. The response is a
/// [`ForgottenDomain`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgetRequest {
    /// The domain.
    pub domain: String,
    /// The reason, of 1 to [`REASON_MAX`] characters.
    pub reason: String,
}

/// `POST /v1/dnssec/forget`: removes the memory that DNSSEC validation has worked. The response is
/// a [`ForgottenDnssec`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgetDnssecRequest {
    /// The reason, of 1 to [`REASON_MAX`] characters.
    pub reason: String,
}

/// The response to [`ForgetDnssecRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgottenDnssec {
    /// The time of the order.
    pub at: Timestamp,
    /// The reason given.
    pub reason: String,
    /// The operator who gave it.
    pub who: String,
}

/// `GET /v1/clients` returns an array of these: a client that a limit has held back within the last
/// hour.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldClient {
    /// The address, or the network that reached the limit; `user NAME` for a user.
    pub client: String,
    /// The limit, by its key in `[limits]` or in the file of the users.
    pub limit: String,
    /// The first time.
    pub since: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// The number of times.
    pub times: u64,
}

/// `POST /v1/clients/release`: lifts the limits that hold clients back. The response is a
/// [`ReleaseResponse`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// An address or a network. `null`: all clients and users, unless `user` names one.
    pub client: Option<String>,
    /// The name of a user that logs in. `client` must be `null` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The response to [`ReleaseRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseResponse {
    /// The clients that were released.
    pub released: Vec<HeldClient>,
}

/// `GET /v1/policy?domain=D`: the MTA-STS policy that the daemon uses for a domain. `null` if it
/// has none; the domain is not queried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KnownPolicy {
    /// The id in the domain's TXT record when the policy was fetched.
    pub id: String,
    /// The lines that have a meaning.
    pub lines: Vec<String>,
    /// The time at which it was fetched.
    pub fetched: Timestamp,
}

/// `GET /v1/client-hellos`: the hosts that did not accept the usual `ClientHello` within the last
/// hour.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KnownHelloPage {
    /// The hosts, ordered by name.
    pub items: Vec<KnownHello>,
}

/// A host and the smaller `ClientHello` that it accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KnownHello {
    /// The name, or the address in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The key exchange groups in the `ClientHello`.
    pub groups: Groups,
    /// True if the `ClientHello` names the host (SNI).
    pub sni: bool,
}

/// `POST /v1/reload`: what came of reading the configuration again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReloadOutcome {
    /// The file that was read.
    pub file: PathBuf,
    /// The number of files that it includes.
    pub included: usize,
    /// The faults for which the daemon keeps the configuration that it had; empty if the new one is in
    /// use.
    pub faults: Vec<ConfigFault>,
    /// The warnings about the new configuration.
    pub warnings: Vec<ConfigFault>,
}

/// A fault of a configuration, or a warning about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFault {
    /// The place: file, line and column.
    pub place: String,
    /// The problem.
    pub message: String,
    /// The remedy.
    pub remedy: String,
}

/// `GET /v1/config`: the configuration in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningConfigText {
    /// The file. Relative paths in it start from its folder.
    pub file: PathBuf,
    /// The SHA-256 of this file and all included ones, one after the other, in hexadecimal.
    pub sha256: String,
    /// The text of the file when it was read.
    pub text: String,
    /// The files that it includes, in the order in which they were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<ConfigFileText>,
}

/// A file that the configuration in use includes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfigFileText {
    /// The file. Relative paths in it start from its folder.
    pub file: PathBuf,
    /// The text of the file when it was read.
    pub text: String,
}
