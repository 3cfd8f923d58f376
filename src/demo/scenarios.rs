//! What is played, and what each policy promises of it.

use crate::tls::{Authentication, DaneScope, NoTls, Unmet};

use super::DemoError;
use super::authority::Flaw;
use super::ledger::{End, Record};
use super::peer::{Heard, submit};
use super::stage::{PARTNER, Stage};
use super::table::Row;

/// What a peer shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    NoTls,
    BrokenTls,
    Good,
    GoodAndDemandsTls,
    OtherName,
    SelfSigned,
    Expired,
}

/// What the relay demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Opportunistic,
    Forced,
    ForcedName,
}

impl Policy {
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

    fn words(self) -> &'static str {
        match self {
            Self::Opportunistic => "opportunistic",
            Self::Forced => "forced",
            Self::ForcedName => "forced, by name",
        }
    }
}

/// What must come of an outgoing message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    Clear,
    ClearOnFreshConnection,
    Tls,
    TlsUntrusted,
    TlsVerified(&'static str),
    Dane,
    Refused(&'static str),
    /// Refused, and nobody was even dialled.
    NotDialled(&'static str),
}

/// An outgoing scenario.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) title: &'static str,
    pub(super) domain: &'static str,
    pub(super) policy: Policy,
    pub(super) shows: Shown,
    promise: Promise,
}

const fn outgoing(
    title: &'static str,
    domain: &'static str,
    policy: Policy,
    shows: Shown,
    promise: Promise,
) -> Outgoing {
    Outgoing { title, domain, policy, shows, promise }
}

/// Every outgoing scenario, each with a peer of its own.
pub(super) const OUTGOING: &[Outgoing] = &[
    outgoing("offers TLS", "o1.example", Policy::Opportunistic, Shown::Good, Promise::Tls),
    outgoing("has no TLS", "o2.example", Policy::Opportunistic, Shown::NoTls, Promise::Clear),
    outgoing(
        "its TLS is broken",
        "o3.example",
        Policy::Opportunistic,
        Shown::BrokenTls,
        Promise::ClearOnFreshConnection,
    ),
    outgoing("self-signed certificate", "o4.example", Policy::Opportunistic, Shown::SelfSigned, Promise::TlsUntrusted),
    outgoing("has no TLS", "f1.example", Policy::Forced, Shown::NoTls, Promise::Refused("4.7.4")),
    outgoing("offers TLS", "f2.example", Policy::Forced, Shown::Good, Promise::Tls),
    outgoing("demands TLS itself", "f3.example", Policy::Forced, Shown::GoodAndDemandsTls, Promise::Tls),
    outgoing(
        "certificate of another name",
        "n1.example",
        Policy::ForcedName,
        Shown::OtherName,
        Promise::Refused("4.7.5"),
    ),
    outgoing("self-signed certificate", "n2.example", Policy::ForcedName, Shown::SelfSigned, Promise::Refused("4.7.5")),
    outgoing("expired certificate", "n3.example", Policy::ForcedName, Shown::Expired, Promise::Refused("4.7.5")),
    outgoing(
        "certificate of the right name",
        "n4.example",
        Policy::ForcedName,
        Shown::Good,
        Promise::TlsVerified(PARTNER),
    ),
];

pub(super) const SENDER: &str = "alice@our.example";

/// Plays every outgoing scenario.
pub(super) async fn play_outgoing(stage: &Stage) -> Result<Vec<Row>, DemoError> {
    let mut rows = Vec::new();
    for (case, peer) in OUTGOING.iter().zip(&stage.peers) {
        let to = format!("bob@{}", case.domain);
        submit(stage.relay, None, SENDER, &[&to], case.title).await?;
        let record = stage.ledger.wait_for(&to).await?;
        let kept = case.promise.is_kept(&record, &peer.heard());
        rows.push(Row::of_record("Outgoing", case.title, case.policy.words(), &record, kept));
    }
    Ok(rows)
}

impl Promise {
    /// Whether the relay's record and the peer's ears both say what was promised.
    pub(super) fn is_kept(self, record: &Record, heard: &Heard) -> bool {
        let once = |encrypted: bool| {
            matches!(heard.messages.as_slice(), [(_, over_tls)] if *over_tls == encrypted)
                && heard.mail_from.iter().all(|(_, over_tls)| *over_tls == encrypted)
                && heard.mail_from.len() == 1
        };
        let silence = heard.mail_from.is_empty() && heard.messages.is_empty();
        match (self, &record.end) {
            (Self::Clear, End::Clear(NoTls::NotOffered)) => once(false) && heard.connections == 1,
            (Self::ClearOnFreshConnection, End::Clear(NoTls::SpokeBeforeHandshake | NoTls::Broken(_))) => {
                once(false) && heard.connections == 2
            }
            (Self::Tls, End::Tls { .. }) => once(true),
            (Self::TlsUntrusted, End::Tls { authentication: Authentication::Untrusted(_), .. }) => once(true),
            (Self::TlsVerified(wanted), End::Tls { authentication: Authentication::Verified(name), .. }) => {
                once(true) && name.to_string() == wanted
            }
            (Self::Dane, End::Tls { authentication: Authentication::Dane { scope: DaneScope::Domain, .. }, .. }) => {
                once(true)
            }
            (Self::NotDialled(wanted), End::Waits { status, .. }) => status == wanted && heard.connections == 0,
            (Self::Refused(wanted), End::Waits { status, .. }) => status == wanted && silence,
            _ => false,
        }
    }
}

/// Plays every incoming scenario.
pub(super) async fn play_incoming(stage: &Stage) -> Result<Vec<Row>, DemoError> {
    let stranger = stage.authority.issue("mail.stranger.example", Flaw::None)?;
    let plain = || stage.authority.client(None);
    let cases = [
        ("client uses TLS", "opportunistic", "someone@else.example", Some(plain()?), "250"),
        ("client does not use TLS", "opportunistic", "someone@else.example", None, "250"),
        ("client does not use TLS", "forced", "carol@forced.example", None, "530"),
        ("partner without a certificate", "forced, by name", "dave@partner.example", Some(plain()?), "550"),
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
        let submitted = submit(stage.relay, tls, from, &[&to], title).await?;
        let mut kept = submitted.reply.starts_with(promised) && submitted.offered;
        kept &= submitted.version.is_some() == encrypted;
        if submitted.taken() {
            stage.ledger.wait_for(&to).await?;
            let with = if encrypted { "ESMTPS" } else { "ESMTP" };
            let words = |text: &str| text.split_whitespace().skip_while(|word| *word != "with").nth(1) == Some(with);
            let arrived = stage.mailboxes.heard().messages;
            kept &= arrived.iter().filter(|(text, _)| text.contains(&to) && words(text)).count() == 1;
        } else {
            kept &= !stage.mailboxes.heard().messages.iter().any(|(text, _)| text.contains(&to));
        }
        rows.push(Row::of_submission(title, policy, &submitted, kept));
    }
    Ok(rows)
}

/// Plays one message to three domains, twice.
pub(super) async fn play_mixture(stage: &Stage) -> Result<Vec<Row>, DemoError> {
    let mut rows = Vec::new();
    for (run, title) in
        [("first", "One message to three domains"), ("second", "The same, STARTTLS stripped on the way to c")]
    {
        let stripped = run == "second";
        if stripped {
            stage.on_the_way_to_c.strip();
        }
        let to = ["domain-a.com", "domain-b.com", "domain-c.com"].map(|domain| format!("{run}@{domain}"));
        let all: Vec<&str> = to.iter().map(String::as_str).collect();
        submit(stage.relay, None, SENDER, &all, run).await?;
        let [a, b, c] = &to;
        let (a, b, c) =
            (stage.ledger.wait_for(a).await?, stage.ledger.wait_for(b).await?, stage.ledger.wait_for(c).await?);
        let arrived = |heard: Heard, encrypted: bool| {
            let mine = |(text, over_tls): &&(String, bool)| {
                text.contains(&format!("Subject: {run}\n")) && *over_tls == encrypted
            };
            heard.messages.iter().filter(mine).count() == 1
        };
        let heard_c = stage.domain_c.heard();
        let kept_c = if stripped {
            // Only the first run's message, and nothing of an envelope in clear.
            matches!(&c.end, End::Waits { status, .. } if status == "4.7.4")
                && heard_c.messages.len() == 1
                && heard_c.mail_from.len() == 1
        } else {
            matches!(&c.end, End::Tls { authentication: Authentication::Verified(_), .. }) && arrived(heard_c, true)
        };
        let kept_a = matches!(a.end, End::Clear(NoTls::NotOffered)) && arrived(stage.domain_a.heard(), false);
        let kept_b = matches!(b.end, End::Tls { .. }) && arrived(stage.domain_b.heard(), true);
        rows.push(Row::of_record(title, "domain-a.com: has no TLS", "opportunistic", &a, kept_a));
        rows.push(Row::of_record(title, "domain-b.com: offers TLS", "opportunistic", &b, kept_b));
        let what = if stripped { "domain-c.com: STARTTLS is missing" } else { "domain-c.com: offers TLS" };
        rows.push(Row::of_record(title, what, "forced, by name", &c, kept_c));
    }
    Ok(rows)
}

/// Who the peer was, for the last column.
pub(super) fn who(authentication: &Authentication) -> String {
    match authentication {
        Authentication::Anonymous => "nobody showed a certificate".to_owned(),
        Authentication::Unproved(key) => format!("key not proved: {key}"),
        Authentication::Untrusted(Unmet::Chain(fault)) => format!("untrusted: {fault}"),
        Authentication::Untrusted(fault) => format!("untrusted: {fault}"),
        Authentication::Trusted => "trusted certificate".to_owned(),
        Authentication::Verified(name) => format!("verified: {name}"),
        Authentication::Pinned(pin) => format!("pinned: {pin}"),
        Authentication::Dane { record, .. } => format!("DANE: {record}"),
    }
}
