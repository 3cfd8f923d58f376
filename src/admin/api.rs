//! What is said over the admin socket, in JSON. A name once released keeps its meaning; new ones may come.

pub mod status;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::address::{Mailbox, ReversePath};
use crate::discovery::history::TlsLevel;
use crate::envelope::{BodyType, Notify, QueueId, Ret, TlsRequirement};
use crate::scheduler::Order;
use crate::tls::Groups;

/// Messages on a page, at most; also ids in an order.
pub const PAGE_MAX: usize = 1000;

/// Characters in a reason that an operator gives, at most.
pub const REASON_MAX: usize = 500;

/// The answer to anything that is not answered as wished.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiError {
    /// Why, in a sentence.
    pub error: String,
}

/// `GET /v1/queue`: some of the queue, in the order of arrival.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueuePage {
    /// What matches; it may be empty although more comes.
    pub messages: Vec<QueuedMessage>,
    /// What to give as `after` for the next page; nothing at the end of the queue.
    pub next: Option<QueueId>,
}

/// A message. `GET /v1/queue/{id}` tells all of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueuedMessage {
    /// Its name.
    pub id: QueueId,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it bounces.
    pub expires: Timestamp,
    /// Octets of its content.
    pub size: u64,
    /// Its sender; empty for the null reverse-path.
    pub sender: ReversePath,
    /// Whether an attempt, or an order, is under way.
    pub busy: bool,
    /// The other parameters of its envelope; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<EnvelopeParameters>,
    /// Its recipients.
    pub recipients: Vec<QueuedRecipient>,
}

/// What MAIL said beside the sender, and what the content turned out to need.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvelopeParameters {
    /// BODY.
    pub body: BodyType,
    /// Whether SMTPUTF8 was given.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID, as it was given.
    pub envid: Option<String>,
    /// What the message asks of TLS: `ordinary`, `require` (REQUIRETLS) or `relaxed` (`TLS-Required: No`).
    #[serde(default)]
    pub tls: TlsRequirement,
    /// Whether the content has octets above 127.
    pub eight_bit: bool,
    /// Whether a header field has.
    pub utf8_header: bool,
}

/// How far a recipient has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Still to be delivered.
    Waiting,
    /// Until an operator decides.
    Held,
    /// The next hop took it.
    Delivered,
    /// Given up.
    Failed,
}

/// A recipient.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueuedRecipient {
    /// Who.
    pub address: Mailbox,
    /// How far.
    pub state: DeliveryState,
    /// The connector that speaks for the domain.
    pub connector: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Where it waits: not before this time. Nothing: as soon as a connection to its destination is free.
    pub next: Option<Timestamp>,
    /// Why the last attempt failed.
    pub reason: Option<FailureReason>,
    /// Where no hop of its destination could be used, with whichever message: until when it is left alone.
    pub destination_down: Option<DestinationBackoff>,
    /// The pause of mail like this, which the destination refuses while it may take other mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_down: Option<PartBackoff>,
    /// NOTIFY, where it was given; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// ORCPT, where it was given; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// The failures that are kept, oldest first; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<FailureReason>>,
}

/// A destination that is left alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DestinationBackoff {
    /// Until then.
    pub until: Timestamp,
    /// Why.
    pub reason: FailureReason,
}

/// A part of a destination's mail that is left alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartBackoff {
    /// The mail that waits, in words.
    pub part: String,
    /// Until then.
    pub until: Timestamp,
    /// Why.
    pub reason: FailureReason,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailureReason {
    /// When.
    pub at: Timestamp,
    /// Its enhanced status, `4.7.5` and the like.
    pub status: String,
    /// What happened, in words, naming host and address.
    pub text: String,
    /// The host that was spoken to.
    pub host: Option<String>,
    /// What it said.
    pub reply: Option<String>,
}

/// `POST /v1/queue/orders`: what is to be done, and with which messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderRequest {
    /// What.
    pub order: Order,
    /// With which; [`PAGE_MAX`] at most.
    pub ids: Vec<QueueId>,
}

/// The answer to [`OrderRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderResponse {
    /// One for each message.
    pub answers: Vec<OrderResult>,
}

/// What became of an order for one message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderResult {
    /// Which.
    pub id: QueueId,
    /// Whether it was carried out.
    pub done: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What happened to the message between the list and the order, where that is why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meanwhile: Option<OvertakenBy>,
}

/// The changes that can overtake an order on its way to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OvertakenBy {
    /// It has left the queue: it was delivered, given up or removed.
    Gone,
    /// It is being tried, or another order is under way.
    Busy,
}

/// `GET /v1/history`: some of what is remembered of domains' TLS, in their order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HistoryPage {
    /// What there is, in the order in which it is shown.
    pub items: Vec<HistoryItem>,
    /// What to give as `after` for the next page; nothing at the end.
    pub next: Option<String>,
}

/// One thing that is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum HistoryItem {
    /// An alarm that is on; on the first page.
    Alarm(ActiveAlarm),
    /// A host of a domain.
    Host(RememberedHost),
    /// A domain that an operator had forgotten; on the first page.
    Forgotten(ForgottenDomain),
}

/// Many unrelated domains suffer the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ActiveAlarm {
    /// `tls_lost` or `new_issuer`.
    pub what: String,
    /// The issuer, where it is about one.
    pub issuer: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// How many suffer.
    pub domains: usize,
    /// Of how many that could.
    pub of: usize,
    /// The first few.
    pub examples: Vec<String>,
}

/// What a host of a domain has shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RememberedHost {
    /// The recipient domain.
    pub domain: String,
    /// The host.
    pub host: String,
    /// The best it has shown.
    pub best: TlsLevel,
    /// When it first did.
    pub first: Timestamp,
    /// When it last did.
    pub last: Timestamp,
    /// When it was last reached.
    pub seen: Timestamp,
    /// What it showed then.
    pub level: TlsLevel,
    /// Whether that is worse.
    pub worse: bool,
    /// Who issued the last certificate it showed.
    pub issuer: Option<String>,
}

/// A domain that was forgotten.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgottenDomain {
    /// Which.
    pub domain: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// By whom.
    pub who: String,
    /// How many of its hosts were remembered.
    pub hosts: usize,
}

/// `POST /v1/history/forget`: which domain, and why. The answer is a [`ForgottenDomain`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgetRequest {
    /// Which.
    pub domain: String,
    /// Why: from 1 to [`REASON_MAX`] characters.
    pub reason: String,
}

/// `POST /v1/dnssec/forget`: an order to forget that DNSSEC validation has worked. The answer is a
/// [`ForgottenDnssec`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgetDnssecRequest {
    /// The reason: from 1 to [`REASON_MAX`] characters.
    pub reason: String,
}

/// The memory of DNSSEC is forgotten.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgottenDnssec {
    /// The time of the order.
    pub at: Timestamp,
    /// The reason given.
    pub reason: String,
    /// The operator who gave it.
    pub who: String,
}

/// `GET /v1/clients`: an array of these; a client that was held back by a limit in the last hour.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldClient {
    /// An address, or the network that reached the limit together.
    pub client: String,
    /// The limit, by its key in `[limits]`.
    pub limit: String,
    /// The first time.
    pub since: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// The number of times.
    pub times: u64,
}

/// `POST /v1/clients/release`: who may go on at once. The answer is [`ReleaseResponse`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// An address or a network; everybody, where it is `null`.
    pub client: Option<String>,
}

/// The answer to [`ReleaseRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseResponse {
    /// The clients that were released.
    pub released: Vec<HeldClient>,
}

/// `GET /v1/policy?domain=D`: the MTA-STS policy of a domain that the daemon has and goes by. `null` where it has
/// none; whether the domain publishes one is not asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KnownPolicy {
    /// The id that the domain's TXT record had when it was fetched.
    pub id: String,
    /// Its lines, as far as they mean something.
    pub lines: Vec<String>,
    /// When it was fetched.
    pub fetched: Timestamp,
}

/// `GET /v1/client-hellos`: the hosts that did not take the usual `ClientHello` within the last hour.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KnownHelloPage {
    /// All of them, by name.
    pub items: Vec<KnownHello>,
}

/// A host, and the smaller `ClientHello` that it took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KnownHello {
    /// Its name, or its address in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The key exchange groups of the `ClientHello`.
    pub groups: Groups,
    /// The presence of the host's name.
    pub sni: bool,
}

/// `GET /v1/config`: the configuration in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningConfigText {
    /// The file it was read from; relative paths in it start from its folder.
    pub file: PathBuf,
    /// The SHA-256 of the text, in hexadecimal.
    pub sha256: String,
    /// The text, as it was when it was read.
    pub text: String,
}
