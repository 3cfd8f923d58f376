//! What an explanation says, in values that have a form in JSON. A name once released keeps its meaning;
//! new ones may come.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

/// What would become of mail to somebody.
#[derive(Debug, Clone, Serialize)]
pub struct Outbound {
    /// `outbound`.
    pub direction: &'static str,
    /// The recipient, or the domain, in A-labels.
    pub asked: String,
    /// What stands right of the "@".
    pub domain: String,
    /// What must be known to read the rest: that the postmaster's mail goes elsewhere, say.
    pub note: Option<String>,
    /// When it was asked.
    pub at: Timestamp,
    /// What the message asks of TLS: `ordinary`, `require` or `relaxed`.
    pub requirement: crate::envelope::TlsRequirement,
    /// Who speaks for the domain, and who else might.
    #[serde(flatten)]
    pub speakers: Speakers,
    /// The connector's exception, whether it holds or has ended.
    pub exception: Option<ExceptionNote>,
    /// Who was asked what the domain did before.
    pub memory: MemoryNote,
    /// Which way leads to the hops, in a sentence; nothing where there is none.
    pub route: Option<String>,
    /// The hops, in the order in which they are tried; equals are in any order.
    pub hops: Vec<Hop>,
    /// Why no hop was found, or why nothing is left of them.
    pub problem: Option<Problem>,
    /// What happens when no hop is left.
    pub no_hop_left: NoHopLeft,
    /// Whether mail could go at all, as far as can be known without dialling.
    pub can_go: bool,
}

/// Who speaks for a domain.
#[derive(Debug, Clone, Serialize)]
pub struct Speakers {
    /// Who does.
    pub connector: Speaker,
    /// Who else might, and why not.
    pub others: Vec<Other>,
}

/// A connector, by one of its patterns.
#[derive(Debug, Clone, Serialize)]
pub struct Speaker {
    /// Its name.
    pub name: String,
    /// The pattern.
    pub pattern: String,
    /// Whether it stands in no file.
    pub built_in: bool,
}

/// A connector that does not speak for the domain.
#[derive(Debug, Clone, Serialize)]
pub struct Other {
    /// Which.
    #[serde(flatten)]
    pub speaker: Speaker,
    /// Why not.
    pub why: String,
}

/// An exception of the connector.
#[derive(Debug, Clone, Serialize)]
pub struct ExceptionNote {
    /// What it lets stand in: `off`, `opportunistic` or `forced`.
    pub tls: &'static str,
    /// Its last day.
    pub until: String,
    /// Why.
    pub reason: String,
    /// Whether it still holds.
    pub holds: bool,
}

/// Who was asked what the domain did before.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryNote {
    /// Whether the running daemon answered.
    pub asked: bool,
    /// Why not.
    pub why: Option<String>,
}

/// Something that keeps mail from going, and what follows.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// Its enhanced status.
    pub status: String,
    /// What it is.
    pub text: String,
    /// What becomes of the message where no other hop is left: `defer`, `hold` or `bounce`.
    pub then: &'static str,
}

/// A hop.
#[derive(Debug, Clone, Serialize)]
pub struct Hop {
    /// Its name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `mx`, `implicit-mx`, `literal` or `smart-host`.
    pub origin: &'static str,
    /// The preference of its MX record.
    pub preference: Option<u16>,
    /// Its addresses, in the order in which they are dialled.
    pub addresses: Vec<String>,
    /// Why it cannot be used at all.
    pub problem: Option<Problem>,
    /// What it must show, by all layers; nothing where that cannot be known.
    pub policy: Option<String>,
    /// Each layer, and what it demands or why it does not.
    pub layers: Vec<LayerNote>,
    /// The MTA-STS policy that counts here, where there is one.
    pub mta_sts_policy: Option<PolicyNote>,
    /// The `ClientHello`s that it is shown; nothing where TLS is off or the hop cannot be used.
    pub client_hello: Option<HelloNote>,
    /// What would come of each kind of peer.
    pub peers: Vec<Row>,
}

/// The `ClientHello`s of a hop, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HelloNote {
    /// The one to begin with.
    pub first: String,
    /// The one for a fresh connection where the hop cuts the handshake short; nothing where it would be the same.
    pub second: Option<String>,
    /// Whether the first is a smaller one than usual, which the running daemon knows that the hop took lately.
    pub remembered: bool,
}

/// The MTA-STS policy that counts at a hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyNote {
    /// Whose it is.
    pub domain: String,
    /// The id that the domain's TXT record had when it was fetched.
    pub id: String,
    /// `enforce`, `testing` or `none`.
    pub mode: &'static str,
    /// Who had it.
    pub from: PolicyFrom,
    /// When it was fetched.
    pub fetched: Timestamp,
}

/// Who had a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyFrom {
    /// The running daemon, which goes by it.
    Daemon,
    /// The domain: it was fetched for this answer.
    Network,
}

impl fmt::Display for PolicyNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, id, fetched, .. } = self;
        let fetched = fetched.strftime("%Y-%m-%d %H:%M:%S UTC");
        match self.from {
            PolicyFrom::Daemon => {
                write!(f, "the policy {id} of {domain}, as the running daemon fetched it at {fetched} and goes by it")
            }
            PolicyFrom::Network => write!(f, "the policy {id} of {domain}, fetched anew"),
        }
    }
}

/// What one layer demands.
#[derive(Debug, Clone, Serialize)]
pub struct LayerNote {
    /// `connector`, `exception`, `dane`, `mta-sts`, `requiretls`, `memory`.
    pub layer: &'static str,
    /// What it demands; all of it must be met.
    pub demands: Vec<String>,
    /// Why it demands nothing, or what else must be known.
    pub why: Option<String>,
}

/// A kind of peer, and what would come of it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which: a word that stays.
    pub peer: String,
    /// The same in words.
    pub shows: String,
    /// `clear`, `clear-again` (on a fresh connection), `tls`; or `refused`.
    pub result: &'static str,
    /// The enhanced status of a refusal.
    pub status: Option<String>,
    /// The layer whose demand is the first that is not met.
    pub by: Option<String>,
    /// How the peer would be known, or what is missing.
    pub text: String,
    /// What becomes of the message where this is the last hop: `defer`, `hold` or `bounce`.
    pub then: Option<&'static str>,
}

/// What happens when no hop is left.
#[derive(Debug, Clone, Serialize)]
pub struct NoHopLeft {
    /// The connector's `on_failure`: `defer`, `hold` or `bounce`.
    pub on_failure: &'static str,
    /// Where the policy was not met.
    pub policy_not_met: String,
    /// Where hosts could not be reached, or answered 4xx.
    pub unreachable: String,
    /// Where no hop has what the message requires (REQUIRETLS).
    pub requirement_not_met: Option<String>,
}

/// What would become of mail from somebody.
#[derive(Debug, Clone, Serialize)]
pub struct Inbound {
    /// `inbound`.
    pub direction: &'static str,
    /// The sender or the domain, in A-labels; `<>` for the null reverse-path.
    pub asked: String,
    /// What stands right of the "@"; nothing for the null reverse-path.
    pub domain: Option<String>,
    /// What must be known to read the rest.
    pub note: Option<String>,
    /// When it was asked.
    pub at: Timestamp,
    /// Who speaks for the domain, and who else might.
    #[serde(flatten)]
    pub speakers: Speakers,
    /// What a session must show.
    pub policy: String,
    /// Where it must come from; empty for anywhere.
    pub networks: Vec<String>,
    /// What a session from elsewhere is answered.
    pub foreign: Option<String>,
    /// Whether `relay` is set: a session that meets all of this may send to any domain.
    pub relay: bool,
    /// Our listeners, and what each kind of session there would be answered at MAIL.
    pub listeners: Vec<Listener>,
    /// Whether any would be taken.
    pub can_come: bool,
}

/// A listener, as far as TLS goes.
#[derive(Debug, Clone, Serialize)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// `off`, `opportunistic`, `forced` or `implicit`.
    pub tls: &'static str,
    /// Whether clients are asked for a certificate; one that is not asked shows none.
    pub client_certificate: bool,
    /// The kinds of session there can be, and what each is answered at MAIL.
    pub sessions: Vec<Answer>,
}

/// A kind of session, and what it is answered at MAIL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Which: a word that stays.
    pub peer: String,
    /// The same in words.
    pub shows: String,
    /// Whether its mail is taken.
    pub taken: bool,
    /// Where it may send: `any` or `ours` (`[relay] domains`, or anywhere from `[relay] networks`).
    pub may_send_to: Option<&'static str>,
    /// How the client would be known, or the reply.
    pub text: String,
}
