//! The play: sends the messages of all cases, and compares what the peers received and what the
//! relay recorded with what each policy promises.

use super::attempts::{AttemptEnd, AttemptRecord};
use super::authority::Flaw;
use super::cases::{DOWNGRADED, ExpectedEnd, OUTGOING, PUBLISHERS, SENDER};
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
    let mut results = Vec::new();
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
        results.push(CaseResult {
            group: "Incoming",
            peer: title,
            policy: policy.to_owned(),
            fate: MessageFate::Incoming(submission),
            kept,
        });
    }
    Ok(results)
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
        results.push(CaseResult::outgoing(
            title,
            "domain-a.com: has no TLS",
            "opportunistic",
            a,
            kept_a,
        ));
        results.push(CaseResult::outgoing(
            title,
            "domain-b.com: offers TLS",
            "opportunistic",
            b,
            kept_b,
        ));
        let peer_c = if stripped {
            "domain-c.com: STARTTLS is missing"
        } else {
            "domain-c.com: offers TLS"
        };
        results.push(CaseResult::outgoing(
            title,
            peer_c,
            "forced, by name",
            c,
            kept_c,
        ));
    }
    Ok(results)
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
