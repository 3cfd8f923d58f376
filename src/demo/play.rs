//! The play: sends the messages of all cases, and compares what the peers received and what the
//! relay recorded with what each policy promises.

use super::attempts::{AttemptEnd, AttemptRecord};
use super::authority::Flaw;
use super::cases::{DOWNGRADED, DemoClient, ExpectedEnd, INCOMING, OUTGOING, PUBLISHERS, SENDER};
use super::error::DemoError;
use super::peer::{PeerLog, Submission, submit};
use super::stage::DemoStage;
use crate::policy::tls::{Authentication, DaneScope, NoTls};

/// The result of a case.
pub(super) struct CaseResult {
    /// The title of the table that shows it.
    pub(super) group: &'static str,
    /// The peer, in words.
    pub(super) peer: &'static str,
    /// The policy, in words.
    pub(super) policy: String,
    /// The fate of the message.
    pub(super) fate: MessageFate,
    /// True if the policy's promise is kept.
    pub(super) kept: bool,
}

/// The fate of a message.
pub(super) enum MessageFate {
    /// The relay sent it, or tried to.
    Outgoing(AttemptRecord),
    /// A client sent it to the relay.
    Incoming(Submission),
}

impl CaseResult {
    fn outgoing(
        group: &'static str,
        peer: &'static str,
        policy: impl Into<String>,
        record: AttemptRecord,
        kept: bool,
    ) -> Self {
        Self {
            group,
            peer,
            policy: policy.into(),
            fate: MessageFate::Outgoing(record),
            kept,
        }
    }
}

/// Plays all cases in turn.
pub(super) async fn play_all(stage: &DemoStage) -> Result<Vec<CaseResult>, DemoError> {
    let mut results = play_outgoing(stage).await?;
    results.extend(play_incoming(stage).await?);
    results.extend(play_mixture(stage).await?);
    results.extend(play_publishers(stage).await?);
    results.extend(play_downgraded(stage).await?);
    Ok(results)
}

/// Plays the cases of outgoing mail.
async fn play_outgoing(stage: &DemoStage) -> Result<Vec<CaseResult>, DemoError> {
    let mut results = Vec::new();
    for (case, peer) in OUTGOING.iter().zip(&stage.peers) {
        let to = format!("bob@{}", case.domain);
        submit(stage.relay, None, SENDER, &[&to], case.title).await?;
        let record = stage.attempts.wait_for(&to).await?;
        let kept = case.promise.is_kept(&record, &peer.log());
        results.push(CaseResult::outgoing(
            "Outgoing",
            case.title,
            case.policy.text(),
            record,
            kept,
        ));
    }
    Ok(results)
}

/// Plays the cases of incoming mail.
async fn play_incoming(stage: &DemoStage) -> Result<Vec<CaseResult>, DemoError> {
    let stranger = stage.authority.issue("mail.stranger.example", Flaw::None)?;
    let mut results = Vec::new();
    for (at, case) in INCOMING.iter().enumerate() {
        let tls = match case.client {
            DemoClient::NoTls => None,
            DemoClient::NoCertificate => Some(stage.authority.client(None)?),
            DemoClient::OtherName => Some(stage.authority.client(Some(&stranger))?),
            DemoClient::RightName => Some(stage.authority.client(Some(&stage.partner))?),
        };
        let encrypted = tls.is_some();
        let to = format!("inbox{at}@our.example");
        let submission = submit(stage.relay, tls, case.sender, &[&to], case.title).await?;
        if submission.is_accepted() {
            stage.attempts.wait_for(&to).await?;
        }
        let kept = submission.reply.starts_with(case.promise)
            && submission.offered
            && submission.version.is_some() == encrypted
            && has_arrived_as_replied(&submission, &to, &stage.mailboxes.log());
        results.push(CaseResult {
            group: "Incoming",
            peer: case.title,
            policy: case.policy.to_owned(),
            fate: MessageFate::Incoming(submission),
            kept,
        });
    }
    Ok(results)
}

/// Returns true if the mailbox server has the message exactly once, received with the protocol of
/// its session, or has none of it if the relay rejected it.
fn has_arrived_as_replied(submission: &Submission, to: &str, mailboxes: &PeerLog) -> bool {
    let mut received = mailboxes
        .messages
        .iter()
        .filter(|(text, _)| text.contains(to));
    if !submission.is_accepted() {
        return received.next().is_none();
    }
    let protocol = if submission.version.is_some() {
        "ESMTPS"
    } else {
        "ESMTP"
    };
    // The Received field has the protocol after "with".
    let has_protocol = |text: &str| {
        text.split_whitespace()
            .skip_while(|word| *word != "with")
            .nth(1)
            == Some(protocol)
    };
    received.filter(|(text, _)| has_protocol(text)).count() == 1
}

/// Plays one message to three domains, twice: the second time with STARTTLS stripped before
/// domain-c.com.
async fn play_mixture(stage: &DemoStage) -> Result<Vec<CaseResult>, DemoError> {
    let mut results = Vec::new();
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
        let a = stage.attempts.wait_for(a).await?;
        let b = stage.attempts.wait_for(b).await?;
        let c = stage.attempts.wait_for(c).await?;
        let kept_a = matches!(a.end, AttemptEnd::Clear(NoTls::NotOffered))
            && has_message(&stage.domain_a.log(), run, false);
        let kept_b = matches!(b.end, AttemptEnd::Tls { .. })
            && has_message(&stage.domain_b.log(), run, true);
        let kept_c = is_kept_by_c(&c.end, &stage.domain_c.log(), run, stripped);
        let peer_c = if stripped {
            "domain-c.com: STARTTLS is missing"
        } else {
            "domain-c.com: offers TLS"
        };
        for (peer, policy, record, kept) in [
            ("domain-a.com: has no TLS", "opportunistic", a, kept_a),
            ("domain-b.com: offers TLS", "opportunistic", b, kept_b),
            (peer_c, "forced, by name", c, kept_c),
        ] {
            results.push(CaseResult::outgoing(title, peer, policy, record, kept));
        }
    }
    Ok(results)
}

/// Returns true if the peer has received the message of a run once, with or without TLS.
fn has_message(log: &PeerLog, run: &str, encrypted: bool) -> bool {
    let is_expected = |(text, over_tls): &&(String, bool)| {
        text.contains(&format!("Subject: {run}\n")) && *over_tls == encrypted
    };
    log.messages.iter().filter(is_expected).count() == 1
}

/// Returns true if the promise for domain-c.com is kept, whose connector verifies its name: its
/// message is delivered over TLS and, once STARTTLS is stripped, deferred.
fn is_kept_by_c(end: &AttemptEnd, log: &PeerLog, run: &str, stripped: bool) -> bool {
    match end {
        // The peer has received only the first run's message, and no MAIL FROM in the clear.
        AttemptEnd::Deferred { status, .. } => {
            stripped && status == "4.7.4" && log.messages.len() == 1 && log.mail_from.len() == 1
        }
        AttemptEnd::Tls {
            authentication: Authentication::Verified(_),
            ..
        } => !stripped && has_message(log, run, true),
        _ => false,
    }
}

/// Plays a delivery to each domain that publishes a policy.
async fn play_publishers(stage: &DemoStage) -> Result<Vec<CaseResult>, DemoError> {
    let mut results = Vec::new();
    for (case, peer) in PUBLISHERS.iter().zip(&stage.publishers.peers) {
        let to = format!("bob@{}", case.domain);
        submit(stage.relay, None, SENDER, &[&to], case.title).await?;
        let record = stage.attempts.wait_for(&to).await?;
        let fetched = stage.publishers.policies.requests(case.domain);
        let kept = case.promise.is_kept(&record, &peer.log())
            && fetched == usize::from(case.policy().is_some());
        results.push(CaseResult::outgoing(
            "Published policies",
            case.title,
            case.policy_text(),
            record,
            kept,
        ));
    }
    Ok(results)
}

/// Plays two deliveries to each domain, the second one with STARTTLS stripped.
async fn play_downgraded(stage: &DemoStage) -> Result<Vec<CaseResult>, DemoError> {
    let mut results = Vec::new();
    for ((domain, downgrade, promise), (peer, interceptor)) in
        DOWNGRADED.iter().zip(&stage.publishers.downgraded)
    {
        let mut before = PeerLog::default();
        for (to, title, promise) in [
            ("first", "offers TLS", ExpectedEnd::Tls),
            ("second", "STARTTLS is stripped", *promise),
        ] {
            if to == "second" {
                interceptor.strip();
            }
            let to = format!("{to}@{domain}");
            submit(stage.relay, None, SENDER, &[&to], title).await?;
            let record = stage.attempts.wait_for(&to).await?;
            let log = peer.log();
            let kept = promise.is_kept(&record, &log.since(&before));
            before = log;
            let policy = format!("opportunistic, downgrade {downgrade}");
            results.push(CaseResult::outgoing(
                "Downgrade memory",
                title,
                policy,
                record,
                kept,
            ));
        }
    }
    Ok(results)
}

impl ExpectedEnd {
    /// Returns true if both the relay's record and the peer's record are as promised.
    fn is_kept(self, record: &AttemptRecord, log: &PeerLog) -> bool {
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
