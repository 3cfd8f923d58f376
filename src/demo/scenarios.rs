//! The scenarios of outgoing and incoming mail, and the outcome that each policy promises.

use crate::policy::tls::{Authentication, DaneScope, NoTls, Unmet};

use super::DemoError;
use super::attempts::{AttemptEnd, AttemptRecord};
use super::authority::Flaw;
use super::peer::{PeerLog, submit};
use super::stage::{DemoStage, PARTNER};
use super::table::DemoRow;

/// The TLS of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerTls {
    NoTls,
    BrokenTls,
    Good,
    GoodAndDemandsTls,
    OtherName,
    SelfSigned,
    Expired,
}

/// The demand of the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DemoPolicy {
    Opportunistic,
    Forced,
    ForcedName,
}

impl DemoPolicy {
    pub(super) fn by_name(self) -> bool {
        self == Self::ForcedName
    }

    pub(super) fn toml(self) -> &'static str {
        match self {
            Self::Opportunistic => "tls = \"opportunistic\"",
            Self::Forced => "tls = \"forced\"\nverify = \"none\"",
            Self::ForcedName => "tls = \"forced\"\nverify = \"name\"",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Opportunistic => "opportunistic",
            Self::Forced => "forced",
            Self::ForcedName => "forced, by name",
        }
    }
}

/// The outcome that the policy promises for an outgoing message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpectedEnd {
    Clear,
    ClearOnFreshConnection,
    Tls,
    TlsUntrusted,
    TlsVerified(&'static str),
    Dane,
    /// Deferred with this status, after a session in which no MAIL FROM was sent.
    Refused(&'static str),
    /// Deferred with this status, without dialling the peer.
    NotDialled(&'static str),
}

/// A scenario of outgoing mail.
#[derive(Debug)]
pub(super) struct OutgoingCase {
    pub(super) title: &'static str,
    pub(super) domain: &'static str,
    pub(super) policy: DemoPolicy,
    pub(super) shows: PeerTls,
    promise: ExpectedEnd,
}

const fn outgoing(
    title: &'static str,
    domain: &'static str,
    policy: DemoPolicy,
    shows: PeerTls,
    promise: ExpectedEnd,
) -> OutgoingCase {
    OutgoingCase {
        title,
        domain,
        policy,
        shows,
        promise,
    }
}

/// The scenarios of outgoing mail. Each has its own peer.
pub(super) const OUTGOING: &[OutgoingCase] = &[
    outgoing(
        "offers TLS",
        "o1.example",
        DemoPolicy::Opportunistic,
        PeerTls::Good,
        ExpectedEnd::Tls,
    ),
    outgoing(
        "has no TLS",
        "o2.example",
        DemoPolicy::Opportunistic,
        PeerTls::NoTls,
        ExpectedEnd::Clear,
    ),
    outgoing(
        "its TLS is broken",
        "o3.example",
        DemoPolicy::Opportunistic,
        PeerTls::BrokenTls,
        ExpectedEnd::ClearOnFreshConnection,
    ),
    outgoing(
        "self-signed certificate",
        "o4.example",
        DemoPolicy::Opportunistic,
        PeerTls::SelfSigned,
        ExpectedEnd::TlsUntrusted,
    ),
    outgoing(
        "has no TLS",
        "f1.example",
        DemoPolicy::Forced,
        PeerTls::NoTls,
        ExpectedEnd::Refused("4.7.4"),
    ),
    outgoing(
        "offers TLS",
        "f2.example",
        DemoPolicy::Forced,
        PeerTls::Good,
        ExpectedEnd::Tls,
    ),
    outgoing(
        "demands TLS itself",
        "f3.example",
        DemoPolicy::Forced,
        PeerTls::GoodAndDemandsTls,
        ExpectedEnd::Tls,
    ),
    outgoing(
        "certificate of another name",
        "n1.example",
        DemoPolicy::ForcedName,
        PeerTls::OtherName,
        ExpectedEnd::Refused("4.7.5"),
    ),
    outgoing(
        "self-signed certificate",
        "n2.example",
        DemoPolicy::ForcedName,
        PeerTls::SelfSigned,
        ExpectedEnd::Refused("4.7.5"),
    ),
    outgoing(
        "expired certificate",
        "n3.example",
        DemoPolicy::ForcedName,
        PeerTls::Expired,
        ExpectedEnd::Refused("4.7.5"),
    ),
    outgoing(
        "certificate of the right name",
        "n4.example",
        DemoPolicy::ForcedName,
        PeerTls::Good,
        ExpectedEnd::TlsVerified(PARTNER),
    ),
];

pub(super) const SENDER: &str = "alice@our.example";

/// Plays the scenarios of outgoing mail.
pub(super) async fn play_outgoing(stage: &DemoStage) -> Result<Vec<DemoRow>, DemoError> {
    let mut rows = Vec::new();
    for (case, peer) in OUTGOING.iter().zip(&stage.peers) {
        let to = format!("bob@{}", case.domain);
        submit(stage.relay, None, SENDER, &[&to], case.title).await?;
        let record = stage.attempts.wait_for(&to).await?;
        let kept = case.promise.is_kept(&record, &peer.log());
        rows.push(DemoRow::of_record(
            "Outgoing",
            case.title,
            case.policy.text(),
            &record,
            kept,
        ));
    }
    Ok(rows)
}

impl ExpectedEnd {
    /// Returns true if both the relay's record and the peer's record are as promised.
    pub(super) fn is_kept(self, record: &AttemptRecord, log: &PeerLog) -> bool {
        let once = |encrypted: bool| {
            matches!(log.messages.as_slice(), [(_, over_tls)] if *over_tls == encrypted)
                && log
                    .mail_from
                    .iter()
                    .all(|(_, over_tls)| *over_tls == encrypted)
                && log.mail_from.len() == 1
        };
        let no_mail = log.mail_from.is_empty() && log.messages.is_empty();
        match (self, &record.end) {
            (Self::Clear, AttemptEnd::Clear(NoTls::NotOffered)) => {
                once(false) && log.connections == 1
            }
            (
                Self::ClearOnFreshConnection,
                AttemptEnd::Clear(NoTls::SpokeBeforeHandshake | NoTls::Broken(_)),
            ) => once(false) && log.connections == 2,
            (Self::Tls, AttemptEnd::Tls { .. }) => once(true),
            (
                Self::TlsUntrusted,
                AttemptEnd::Tls {
                    authentication: Authentication::Untrusted(_),
                    ..
                },
            ) => once(true),
            (
                Self::TlsVerified(wanted),
                AttemptEnd::Tls {
                    authentication: Authentication::Verified(name),
                    ..
                },
            ) => once(true) && name.to_string() == wanted,
            (
                Self::Dane,
                AttemptEnd::Tls {
                    authentication:
                        Authentication::Dane {
                            scope: DaneScope::Domain,
                            ..
                        },
                    ..
                },
            ) => once(true),
            (Self::NotDialled(wanted), AttemptEnd::Deferred { status, .. }) => {
                status == wanted && log.connections == 0
            }
            (Self::Refused(wanted), AttemptEnd::Deferred { status, .. }) => {
                status == wanted && no_mail
            }
            _ => false,
        }
    }
}

/// Plays the scenarios of incoming mail.
pub(super) async fn play_incoming(stage: &DemoStage) -> Result<Vec<DemoRow>, DemoError> {
    let stranger = stage.authority.issue("mail.stranger.example", Flaw::None)?;
    let plain = || stage.authority.client(None);
    let cases = [
        (
            "client uses TLS",
            "opportunistic",
            "someone@else.example",
            Some(plain()?),
            "250",
        ),
        (
            "client does not use TLS",
            "opportunistic",
            "someone@else.example",
            None,
            "250",
        ),
        (
            "client does not use TLS",
            "forced",
            "carol@forced.example",
            None,
            "530",
        ),
        (
            "partner without a certificate",
            "forced, by name",
            "dave@partner.example",
            Some(plain()?),
            "550",
        ),
        (
            "partner's certificate of another name",
            "forced, by name",
            "dave@partner.example",
            Some(stage.authority.client(Some(&stranger))?),
            "550",
        ),
        (
            "partner's certificate of the right name",
            "forced, by name",
            "dave@partner.example",
            Some(stage.authority.client(Some(&stage.partner))?),
            "250",
        ),
    ];
    let mut rows = Vec::new();
    for (at, (title, policy, from, tls, promised)) in cases.into_iter().enumerate() {
        let encrypted = tls.is_some();
        let to = format!("inbox{at}@our.example");
        let submission = submit(stage.relay, tls, from, &[&to], title).await?;
        let mut kept = submission.reply.starts_with(promised) && submission.offered;
        kept &= submission.version.is_some() == encrypted;
        let received = || stage.mailboxes.log().messages;
        if submission.is_accepted() {
            stage.attempts.wait_for(&to).await?;
            let protocol = if encrypted { "ESMTPS" } else { "ESMTP" };
            // The Received field has the protocol after "with".
            let has_protocol = |text: &str| {
                text.split_whitespace()
                    .skip_while(|word| *word != "with")
                    .nth(1)
                    == Some(protocol)
            };
            kept &= received()
                .iter()
                .filter(|(text, _)| text.contains(&to) && has_protocol(text))
                .count()
                == 1;
        } else {
            kept &= !received().iter().any(|(text, _)| text.contains(&to));
        }
        rows.push(DemoRow::of_submission(title, policy, &submission, kept));
    }
    Ok(rows)
}

/// Plays one message to three domains, twice: the second time with STARTTLS stripped before
/// domain-c.com.
pub(super) async fn play_mixture(stage: &DemoStage) -> Result<Vec<DemoRow>, DemoError> {
    let mut rows = Vec::new();
    for (run, title) in [
        ("first", "One message to three domains"),
        ("second", "The same, STARTTLS stripped on the way to c"),
    ] {
        let stripped = run == "second";
        if stripped {
            stage.interceptor_of_c.strip();
        }
        let to = ["domain-a.com", "domain-b.com", "domain-c.com"]
            .map(|domain| format!("{run}@{domain}"));
        let all: Vec<&str> = to.iter().map(String::as_str).collect();
        submit(stage.relay, None, SENDER, &all, run).await?;
        let [a, b, c] = &to;
        let (a, b, c) = (
            stage.attempts.wait_for(a).await?,
            stage.attempts.wait_for(b).await?,
            stage.attempts.wait_for(c).await?,
        );
        let has_arrived = |log: PeerLog, encrypted: bool| {
            let is_expected = |(text, over_tls): &&(String, bool)| {
                text.contains(&format!("Subject: {run}\n")) && *over_tls == encrypted
            };
            log.messages.iter().filter(is_expected).count() == 1
        };
        let log_c = stage.domain_c.log();
        let kept_c = if stripped {
            // The peer has received only the first run's message, and no MAIL FROM in the clear.
            matches!(&c.end, AttemptEnd::Deferred { status, .. } if status == "4.7.4")
                && log_c.messages.len() == 1
                && log_c.mail_from.len() == 1
        } else {
            matches!(
                &c.end,
                AttemptEnd::Tls {
                    authentication: Authentication::Verified(_),
                    ..
                }
            ) && has_arrived(log_c, true)
        };
        let kept_a = matches!(a.end, AttemptEnd::Clear(NoTls::NotOffered))
            && has_arrived(stage.domain_a.log(), false);
        let kept_b =
            matches!(b.end, AttemptEnd::Tls { .. }) && has_arrived(stage.domain_b.log(), true);
        rows.push(DemoRow::of_record(
            title,
            "domain-a.com: has no TLS",
            "opportunistic",
            &a,
            kept_a,
        ));
        rows.push(DemoRow::of_record(
            title,
            "domain-b.com: offers TLS",
            "opportunistic",
            &b,
            kept_b,
        ));
        let peer_c = if stripped {
            "domain-c.com: STARTTLS is missing"
        } else {
            "domain-c.com: offers TLS"
        };
        rows.push(DemoRow::of_record(
            title,
            peer_c,
            "forced, by name",
            &c,
            kept_c,
        ));
    }
    Ok(rows)
}

/// Returns the authentication of the peer for the table.
pub(super) fn authentication_text(authentication: &Authentication) -> String {
    match authentication {
        Authentication::Anonymous => "no certificate".to_owned(),
        Authentication::Unproved(key) => format!("possession of the key not proved: {key}"),
        Authentication::Untrusted(Unmet::Chain(fault)) => format!("untrusted: {fault}"),
        Authentication::Untrusted(fault) => format!("untrusted: {fault}"),
        Authentication::Trusted => "trusted certificate".to_owned(),
        Authentication::Verified(name) => format!("verified: {name}"),
        Authentication::Pinned(pin) => format!("pinned: {pin}"),
        Authentication::Dane { record, .. } => format!("DANE: {record}"),
    }
}
