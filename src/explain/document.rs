//! The content of an explanation. The field names are those of the JSON output: a released name
//! keeps its meaning, and new ones may be added.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::{Connector, MailUser, SenderPattern, TlsDemand};
use crate::policy::connector::{ended_exception, exception};
use crate::policy::failure::NextStep;

/// An explanation of mail to a domain.
#[derive(Debug, Clone, Serialize)]
pub struct OutboundExplanation {
    /// `outbound`.
    pub direction: &'static str,
    /// The recipient or the domain that the user named, in A-labels.
    pub asked: String,
    /// The recipient, if the user named one.
    pub recipient: Option<String>,
    /// The domain or address literal that mail goes to.
    pub domain: String,
    /// A remark that the reader needs, for instance that mail for this host goes to the postmaster.
    pub note: Option<String>,
    /// The time of the explanation.
    pub at: Timestamp,
    /// The TLS requirement of the message: `ordinary`, `require` or `relaxed`.
    pub requirement: crate::smtp::envelope::TlsRequirement,
    /// The connector of the domain, and the others that match.
    #[serde(flatten)]
    pub connectors: ConnectorMatch,
    /// The user who sends the mail, if the explanation is for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserNote>,
    /// The connector's exception, in force or ended.
    pub exception: Option<ExceptionNote>,
    /// The availability of the downgrade memory.
    pub memory: MemoryNote,
    /// The source of the hops, in a sentence; `None` if no hop was found.
    pub route: Option<String>,
    /// The check whether the recipient exists, in a sentence; `None` if no `[[recipients]]` table
    /// decides about it.
    pub recipients: Option<String>,
    /// The hops in the order in which they are tried. Hops of the same preference are in random
    /// order.
    pub hops: Vec<ExplainedHop>,
    /// The reason why no hop was found, or the problem of the last hop if none can be used.
    pub problem: Option<HopProblem>,
    /// The consequences when no hop is left.
    pub no_hop_left: NoHopLeft,
    /// True if nothing that is known without dialling prevents delivery.
    pub can_go: bool,
}

/// The connector of a domain, and the other connectors that match.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectorMatch {
    /// The connector that applies.
    pub connector: MatchingPattern,
    /// The others, with the reason why they do not apply.
    pub others: Vec<OtherConnector>,
}

/// A pattern of a connector that matches the domain.
#[derive(Debug, Clone, Serialize)]
pub struct MatchingPattern {
    /// The name of the connector.
    pub name: String,
    /// The pattern.
    pub pattern: String,
    /// True for the built-in default connector.
    pub built_in: bool,
}

/// A connector that matches the domain but does not apply to it.
#[derive(Debug, Clone, Serialize)]
pub struct OtherConnector {
    /// The connector and its pattern.
    #[serde(flatten)]
    pub candidate: MatchingPattern,
    /// The reason why it does not apply.
    pub why: String,
}

/// A user who sends the mail, with what the user may do.
#[derive(Debug, Clone, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a field of the document"
)]
pub struct UserNote {
    /// The name.
    pub name: String,
    /// True if the user may not log in.
    pub disabled: bool,
    /// The connector by which the user's mail goes; `None` for the recipient's own.
    pub connector: Option<String>,
    /// True if the recipient's own connector joins its demands to those of the user's.
    pub floor_joins: bool,
    /// The senders that the user may use; `None` for all.
    pub senders: Option<Vec<String>>,
    /// True if the user may use the null sender.
    pub null_sender: bool,
    /// True if the addresses in the From field must be among `senders`.
    pub check_from: bool,
    /// The networks from which the user may log in; empty for all.
    pub networks: Vec<String>,
    /// The most messages in an hour.
    pub messages_per_hour: Option<u32>,
    /// The most recipients in an hour.
    pub recipients_per_hour: Option<u32>,
}

impl UserNote {
    /// Describes a user. `floor_joins` is true if the recipient's own connector is another one.
    #[must_use]
    pub fn of(user: &MailUser, floor_joins: bool) -> Self {
        let texts =
            |senders: &Vec<SenderPattern>| senders.iter().map(ToString::to_string).collect();
        Self {
            name: user.name.clone(),
            disabled: user.disabled,
            connector: user.connector.as_ref().map(|name| name.value.clone()),
            floor_joins,
            senders: user.senders.as_ref().map(texts),
            null_sender: user.null_sender,
            check_from: user.check_from,
            networks: user.networks.iter().map(ToString::to_string).collect(),
            messages_per_hour: user.messages_per_hour,
            recipients_per_hour: user.recipients_per_hour,
        }
    }
}

/// An exception of the connector.
#[derive(Debug, Clone, Serialize)]
pub struct ExceptionNote {
    /// The level that replaces the connector's own: `off`, `opportunistic` or `forced`.
    pub tls: &'static str,
    /// Its last day.
    pub until: String,
    /// The administrator's reason.
    pub reason: String,
    /// True if the exception is in force.
    pub holds: bool,
}

impl ExceptionNote {
    /// Returns the connector's exception, in force or ended.
    #[must_use]
    pub fn of(connector: &Connector, now: Timestamp) -> Option<Self> {
        let holds = exception(connector, now);
        holds
            .or_else(|| ended_exception(connector, now))
            .map(|found| Self {
                tls: match found.tls {
                    TlsDemand::Off => "off",
                    TlsDemand::Opportunistic => "opportunistic",
                    TlsDemand::Forced { .. } => "forced",
                },
                until: found.until.to_string(),
                reason: found.reason.clone(),
                holds: holds.is_some(),
            })
    }
}

/// The availability of the downgrade memory.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryNote {
    /// True if the running daemon answered.
    pub asked: bool,
    /// The reason if it did not.
    pub why: Option<String>,
}

/// A reason why mail cannot be delivered, and the consequence.
#[derive(Debug, Clone, Serialize)]
pub struct HopProblem {
    /// The enhanced status.
    pub status: String,
    /// The reason.
    pub text: String,
    /// The consequence for the message if this is the last hop: `defer`, `hold` or `bounce`.
    pub then: &'static str,
}

/// A hop.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedHop {
    /// The name or address.
    pub host: String,
    /// The port; 0 for a unix socket.
    pub port: u16,
    /// `smtp`, `smtps` or `lmtp`.
    pub protocol: &'static str,
    /// The address that connections come from, for each family that the connector names one for.
    pub source: Vec<String>,
    /// The name in EHLO or LHLO.
    pub ehlo: String,
    /// Our login at the hop in a sentence, if the connector has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// `mx`, `implicit-mx`, `literal` or `smart-host`.
    pub origin: &'static str,
    /// The preference of its MX record.
    pub preference: Option<u16>,
    /// The addresses in the order in which they are dialled.
    pub addresses: Vec<String>,
    /// The reason why the hop cannot be used at all.
    pub problem: Option<HopProblem>,
    /// The demand, joined from all layers; `None` if it is not known because a lookup failed.
    pub policy: Option<String>,
    /// The demand of each layer, or the reason why it has none.
    pub layers: Vec<LayerNote>,
    /// The MTA-STS policy that applies to the hop.
    pub mta_sts_policy: Option<PolicyNote>,
    /// The `ClientHello`s that we send; `None` if TLS is off or the hop cannot be used.
    pub client_hello: Option<HelloNote>,
    /// The result for each kind of peer.
    pub peers: Vec<PeerForecast>,
}

/// The `ClientHello`s that we send to a hop, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HelloNote {
    /// The `ClientHello` of the first attempt.
    pub first: String,
    /// The one for a fresh connection after a broken handshake; `None` if it would be the same.
    pub second: Option<String>,
    /// True if the first is smaller than usual because the daemon remembers that the hop accepted
    /// only this one.
    pub remembered: bool,
}

/// The MTA-STS policy that applies to a hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyNote {
    /// The domain of the policy.
    pub domain: String,
    /// The id in the domain's TXT record at the time of the fetch.
    pub id: String,
    /// `enforce`, `testing` or `none`.
    pub mode: &'static str,
    /// The source of the policy.
    pub from: PolicyFrom,
    /// The time of the fetch.
    pub fetched: Timestamp,
}

/// The source of an MTA-STS policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyFrom {
    /// The cache of the running daemon.
    Daemon,
    /// The policy host: the policy was fetched for this explanation.
    Network,
}

impl fmt::Display for PolicyNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            id,
            fetched,
            ..
        } = self;
        let fetched = fetched.strftime("%Y-%m-%d %H:%M:%S UTC");
        match self.from {
            PolicyFrom::Daemon => {
                write!(
                    f,
                    "the policy {id} of {domain} in the daemon's cache, fetched at {fetched}"
                )
            }
            PolicyFrom::Network => write!(f, "the policy {id} of {domain}, fetched now"),
        }
    }
}

/// The demand of one layer.
#[derive(Debug, Clone, Serialize)]
pub struct LayerNote {
    /// `connector`, `exception`, `recipient` (the recipient's own connector, beside that of a user), `dane`, `mta-sts`, `requiretls` or `memory`.
    pub layer: &'static str,
    /// The demands, all of which must be met.
    pub demands: Vec<String>,
    /// The reason why the layer demands nothing, or a remark.
    pub why: Option<String>,
}

/// A kind of peer, and the result of an attempt with it.
#[derive(Debug, Clone, Serialize)]
pub struct PeerForecast {
    /// The kind of peer, as a fixed identifier.
    pub peer: String,
    /// The kind of peer, in words.
    pub shows: String,
    /// `tls`, `clear`, `clear-again` (in the clear on a fresh connection) or `refused`.
    pub result: &'static str,
    /// The enhanced status of a refusal.
    pub status: Option<String>,
    /// The first layer whose demand is unmet.
    pub by: Option<String>,
    /// The authentication of the peer, or the reason of the refusal.
    pub text: String,
    /// The consequence for the message if this is the last hop: `defer`, `hold` or `bounce`.
    pub then: Option<&'static str>,
}

/// The consequences for a message when no hop is left.
#[derive(Debug, Clone, Serialize)]
pub struct NoHopLeft {
    /// The connector's `on_failure`: `defer`, `hold` or `bounce`.
    pub on_failure: &'static str,
    /// The consequence if no hop met the policy.
    pub policy_not_met: String,
    /// The consequence if the hosts were unreachable or answered 4xx.
    pub unreachable: String,
    /// The consequence if no hop meets the message's own requirement (REQUIRETLS).
    pub requirement_not_met: Option<String>,
}

/// An explanation of mail from a sender.
#[derive(Debug, Clone, Serialize)]
pub struct InboundExplanation {
    /// `inbound`.
    pub direction: &'static str,
    /// The sender or the domain, in A-labels; `<>` for the null sender.
    pub asked: String,
    /// The sender, if the user named one; empty for the null sender.
    pub sender: Option<String>,
    /// The sender's domain or address literal; `None` for the null sender.
    pub domain: Option<String>,
    /// A remark that the reader needs.
    pub note: Option<String>,
    /// The time of the explanation.
    pub at: Timestamp,
    /// The connector of the domain, and the others that match.
    #[serde(flatten)]
    pub connectors: ConnectorMatch,
    /// The demand on a session.
    pub policy: String,
    /// The networks that mail must come from; empty for any.
    pub networks: Vec<String>,
    /// The reply to a session from outside of these networks.
    pub foreign: Option<String>,
    /// The connector's `relay`: true if a session that meets the demand may send to any domain.
    pub relay: bool,
    /// Our listeners, with the reply to each kind of session.
    pub listeners: Vec<ExplainedListener>,
    /// True if at least one kind of session would be accepted.
    pub can_come: bool,
}

/// A listener with its TLS settings.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedListener {
    /// The name.
    pub name: String,
    /// The addresses that it listens on.
    pub addresses: Vec<String>,
    /// `off`, `opportunistic`, `forced` or `implicit`.
    pub tls: &'static str,
    /// True if clients are asked for a certificate. A client that is not asked shows none.
    pub client_certificate: bool,
    /// `required`, `possible` or `none`. If a login is required, the sessions are those of clients
    /// that have logged in.
    pub login: &'static str,
    /// The kinds of session that are possible here, with the reply to MAIL FROM.
    pub sessions: Vec<SessionForecast>,
}

/// A kind of session, and the reply to its MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionForecast {
    /// The kind of session, as a fixed identifier.
    pub peer: String,
    /// The kind of session, in words.
    pub shows: String,
    /// True if its mail is accepted.
    pub taken: bool,
    /// The domains that it may send to: `any`, or `ours` (`[relay] domains`; any from `[relay]
    /// networks`).
    pub may_send_to: Option<&'static str>,
    /// The authentication of the client, or the reply that rejects the mail.
    pub text: String,
}

/// Returns the JSON name of a step.
pub(super) fn step(step: NextStep) -> &'static str {
    match step {
        NextStep::NextHop => "next-hop",
        NextStep::Defer => "defer",
        NextStep::Hold => "hold",
        NextStep::Bounce => "bounce",
    }
}
