//! The health of a destination that an attempt shows, for its backoff.

use crate::config::Route;
use crate::policy::failure::{Cause, Failure, Persistence, RecipientOutcome, Scope};
use crate::policy::tls::Layer;
use crate::relay::outbound::{Attempt, RecipientEvent, RecipientResult};
use crate::smtp::envelope::TlsRequirement;

use super::attempt_failure::attempt_failure;
use super::queues::{Health, Part};

/// Returns the health of the destination that an attempt shows.
///
/// The destination is up when a peer answered for a recipient or the message on a usable session.
/// It is down when no hop could be used, unless a refusal concerns only a part of its mail. A
/// policy of ours that holds or bounces the message, and a failure of the message itself, show
/// nothing.
// Rule: RFC 5321 §4.5.4.1.
pub(super) fn health(events: &[RecipientEvent<'_>]) -> Health {
    let mut last = None;
    let mut spoken = false;
    for event in events {
        let Some(result) = event.result else { continue };
        match &result.outcome {
            RecipientOutcome::Delivered(_) => return Health::Up,
            RecipientOutcome::Deferred(failure)
            | RecipientOutcome::Held(failure)
            | RecipientOutcome::Bounced(failure)
                if is_decided_by_peer(result, failure) =>
            {
                return Health::Up;
            }
            // A recipient in a transaction of its own is known to end sessions; that shows nothing
            // of the destination.
            RecipientOutcome::Deferred(_)
                if result.via.is_some() && event.attempt.apart.contains(&result.recipient) => {}
            RecipientOutcome::Deferred(failure)
                if matches!(failure.scope, Scope::Hop | Scope::Destination)
                    && !failure.is_require_tls() =>
            {
                last = Some((event, failure, &result.trail));
                spoken |= result.via.is_some();
            }
            RecipientOutcome::Deferred(_)
            | RecipientOutcome::Held(_)
            | RecipientOutcome::Bounced(_) => {}
        }
    }
    let Some((event, failure, trail)) = last else {
        return Health::Unknown;
    };
    let all = || std::iter::once(failure).chain(trail.iter().map(AsRef::as_ref));
    let part = part(event, all());
    let is_shared = matches!(event.connector.outbound.route, Route::SmartHosts(_));
    let is_of_domain = !is_shared || part.as_ref().is_some_and(|part| part.domain.is_some());
    let attempt_failure = attempt_failure(
        failure,
        trail,
        Persistence::Transient,
        event.connector,
        is_of_domain.then_some(&event.attempt.host),
        &event.snapshot.config.hostname,
    );
    if spoken {
        return Health::SessionBroken(attempt_failure);
    }
    if is_of_one_message(event.attempt, all()) {
        return Health::Unknown;
    }
    match part {
        Some(part) => Health::Refused(part, attempt_failure),
        None => Health::Down(attempt_failure),
    }
}

/// Returns the part of a destination's mail that the failures of one attempt concern, or `None` for
/// all of it. A hop that was refused for this message may be usable for other mail: the downgrade
/// memory demands TLS for one domain only, and DANE and MTA-STS do not apply to messages with
/// `TLS-Required: No`.
fn part<'a>(
    event: &RecipientEvent<'_>,
    failures: impl Iterator<Item = &'a Failure>,
) -> Option<Part> {
    let RecipientEvent {
        attempt, connector, ..
    } = event;
    let is_shared = matches!(connector.outbound.route, Route::SmartHosts(_));
    let is_relaxed = attempt.entry.envelope.tls == TlsRequirement::Relaxed;
    let (mut of_domain, mut of_published) = (false, false);
    for failure in failures {
        match &failure.cause {
            Cause::Policy(refusal) => match refusal.demand.layer {
                Layer::DowngradeMemory | Layer::RecipientConnector => of_domain = is_shared,
                Layer::Dane | Layer::MtaSts => of_published = !is_relaxed,
                Layer::Connector | Layer::Exception | Layer::RequireTls => {}
            },
            Cause::Discovery(_) => of_published = !is_relaxed,
            Cause::RequireTls(_)
            | Cause::Reply { .. }
            | Cause::Login(_)
            | Cause::Ourselves(_)
            | Cause::Other(_) => {}
        }
    }
    let domain = of_domain.then(|| attempt.host.clone());
    (of_domain || of_published).then_some(Part {
        domain,
        spares_relaxed: of_published,
    })
}

/// Returns true when the attempt failed for a requirement of this message (REQUIRETLS) that other
/// mail does not have.
fn is_of_one_message<'a>(
    attempt: &Attempt,
    mut failures: impl Iterator<Item = &'a Failure>,
) -> bool {
    let is_required = attempt.entry.envelope.tls == TlsRequirement::Require;
    is_required
        && failures
            .any(|failure| matches!(failure.cause, Cause::Discovery(_) | Cause::RequireTls(_)))
}

/// Returns true for a reply about the message or the recipient on a session that satisfied the
/// demand.
fn is_decided_by_peer(result: &RecipientResult, failure: &Failure) -> bool {
    let is_reply = matches!(failure.cause, Cause::Reply { .. });
    is_reply && result.via.is_some() && matches!(failure.scope, Scope::Message | Scope::Recipient)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::{TlsDemand, default_connector};
    use crate::policy::failure::{Peer, RequireTlsUnmet};
    use crate::policy::tls::{
        Clearance, Demand, NoTls, Refusal, TlsOutcome, TlsPolicy, Verdict, Verify, judge,
    };
    use crate::relay::outbound::{AttemptResult, EventOrigin, Via};
    use crate::relay::scheduler::recipient_events::MessageSchedule;
    use crate::relay::scheduler::{attempt, recipient_events};
    use crate::smtp::address::{Host, Mailbox, ReversePath};
    use crate::smtp::envelope::{Envelope, QueueId, Recipient};
    use crate::smtp::reply::{Reply, Status};
    use crate::storage::spool::{Body, Entry};

    fn clearance() -> Clearance {
        match judge(&TlsPolicy::Off, TlsOutcome::Clear(NoTls::NotWanted), &[]) {
            Verdict::Cleared(clearance) => clearance,
            other => panic!("nothing is wanted: {other:?}"),
        }
    }

    fn refused_by(layer: Layer) -> Refusal {
        let policy = TlsPolicy::forced(Demand::new(layer, Verify::None));
        match judge(&policy, TlsOutcome::Clear(NoTls::NotOffered), &[]) {
            Verdict::Refused(refusal) => refusal,
            other => panic!("no TLS under a forced policy: {other:?}"),
        }
    }

    fn refusal() -> Refusal {
        refused_by(Layer::Connector)
    }

    fn via() -> Arc<Via> {
        Arc::new(Via {
            peer: Peer {
                host: Host::parse("mx.example.org").expect("a host"),
                address: crate::policy::failure::HopAddress::Tcp(
                    "192.0.2.1:25".parse().expect("an address"),
                ),
                protocol: crate::config::HopProtocol::Smtp,
                source: None,
            },
            clearance: clearance(),
            login: None,
            offers_dsn: false,
            earlier_level: None,
        })
    }

    /// Returns the health for these results of a message with the TLS requirement `tls`, sent to MX
    /// hosts or, with `is_shared`, through smart hosts.
    fn health_of(results: Vec<RecipientResult>, tls: TlsRequirement, is_shared: bool) -> Health {
        let text = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n\
                    [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n";
        let (config, _) =
            crate::config::parse(text, std::path::Path::new("gatepost.toml")).expect("good");
        let mut connector = (*default_connector(&config.tls.trust)).clone();
        assert_eq!(connector.outbound.tls, TlsDemand::Opportunistic);
        if is_shared {
            connector.outbound.route = Route::SmartHosts(Vec::new());
        }
        let connector = Arc::new(connector);
        let mailbox = || Mailbox::parse("b@example.org").expect("a mailbox");
        let recipients = results.iter().map(|_| Recipient::new(mailbox())).collect();
        let entry = Arc::new(Entry {
            id: QueueId::from_number(1).expect("small"),
            accepted: jiff::Timestamp::UNIX_EPOCH,
            envelope: Envelope {
                tls,
                ..Envelope::new(ReversePath::Null, recipients)
            },
            size: 0,
            body: Body::Memory(bytes::Bytes::new()),
        });
        let host = Host::parse("example.org").expect("a host");
        let planned = attempt::of_pending(&entry, &entry.envelope, &host);
        let (tls, _) = crate::net::tls_io::TlsMaterial::load(&config).expect("it names no files");
        let dns = crate::net::dns::Dns::new(&config.dns).expect("a resolver");
        let snapshot = Arc::new(crate::relay::running_config::Snapshot::new(
            Arc::new(config),
            tls,
            dns,
        ));
        let now = Instant::now();
        let schedule = MessageSchedule {
            settings: &snapshot,
            times: snapshot.config.queue.own_schedule(),
            now,
            expires: now + Duration::from_hours(1),
        };
        let report = AttemptResult {
            results,
            trail: Vec::new(),
            connector,
            snapshot: Arc::clone(&snapshot),
        };
        health(&recipient_events::of_attempt(
            schedule,
            &planned,
            &report,
            EventOrigin::Attempt,
        ))
    }

    fn result(
        recipient: usize,
        outcome: RecipientOutcome,
        via: Option<Arc<Via>>,
    ) -> RecipientResult {
        RecipientResult {
            recipient,
            outcome,
            via,
            policy: None,
            trail: Vec::new(),
            apart: false,
        }
    }

    /// Returns the name of the health for these results. The flag beside each outcome says if there
    /// was a session.
    fn shown(results: Vec<(RecipientOutcome, bool)>) -> &'static str {
        let via = via();
        let result = |(recipient, (outcome, session)): (usize, (RecipientOutcome, bool))| {
            result(recipient, outcome, session.then(|| Arc::clone(&via)))
        };
        let results = results.into_iter().enumerate().map(result).collect();
        match health_of(results, TlsRequirement::Ordinary, false) {
            Health::Up => "up",
            Health::Down(_) => "down",
            Health::SessionBroken(_) => "session broken",
            Health::Refused(..) => "refused",
            Health::Unknown => "unknown",
        }
    }

    #[test]
    fn only_replies_about_mail_show_that_a_destination_is_up() {
        let said = |scope, code| Failure::reply(scope, "RCPT TO", Reply::bare(code, "no"));
        let other = |scope| Failure::transient(scope, Status(4, 1), "cannot connect");
        let policy = || Failure::policy(refusal());
        for (outcome, session, expected) in [
            (
                RecipientOutcome::Delivered(Reply::bare(250, "ok")),
                true,
                "up",
            ),
            (
                RecipientOutcome::Bounced(said(Scope::Recipient, 550)),
                true,
                "up",
            ),
            (
                RecipientOutcome::Deferred(said(Scope::Recipient, 451)),
                true,
                "up",
            ),
            (
                RecipientOutcome::Bounced(said(Scope::Message, 554)),
                true,
                "up",
            ),
            (
                RecipientOutcome::Deferred(said(Scope::Hop, 421)),
                true,
                "session broken",
            ),
            (
                RecipientOutcome::Deferred(said(Scope::Hop, 554)),
                false,
                "down",
            ),
            (RecipientOutcome::Deferred(other(Scope::Hop)), false, "down"),
            (
                RecipientOutcome::Deferred(other(Scope::Destination)),
                false,
                "down",
            ),
            (RecipientOutcome::Deferred(policy()), false, "down"),
            // A policy of ours or a requirement of the message shows nothing.
            (RecipientOutcome::Held(policy()), false, "unknown"),
            (RecipientOutcome::Bounced(policy()), false, "unknown"),
            (
                RecipientOutcome::Bounced(Failure::require_tls(RequireTlsUnmet::Off)),
                false,
                "unknown",
            ),
            (
                RecipientOutcome::Bounced(Failure::permanent(
                    Scope::Destination,
                    Status(1, 2),
                    "no such domain",
                )),
                false,
                "unknown",
            ),
            (
                RecipientOutcome::Deferred(other(Scope::Message)),
                false,
                "unknown",
            ),
        ] {
            assert_eq!(
                shown(vec![(outcome.clone(), session)]),
                expected,
                "{outcome:?}"
            );
        }
    }

    /// One reply about mail is enough; of failures, the last one that concerns the destination
    /// counts.
    #[test]
    fn of_several_recipients_the_best_result_counts() {
        let replied = |scope, code| Failure::reply(scope, "RCPT TO", Reply::bare(code, "no"));
        let unreachable = Failure::transient(Scope::Hop, Status(4, 1), "cannot connect");
        let mixed = vec![
            (RecipientOutcome::Deferred(replied(Scope::Hop, 421)), true),
            (
                RecipientOutcome::Bounced(replied(Scope::Recipient, 550)),
                true,
            ),
        ];
        assert_eq!(shown(mixed), "up");
        assert_eq!(
            shown(vec![
                (RecipientOutcome::Held(Failure::policy(refusal())), false),
                (RecipientOutcome::Deferred(unreachable), false)
            ]),
            "down"
        );
    }

    #[test]
    fn a_refusal_defers_only_the_mail_that_it_concerns() {
        let by = |layer| Failure::policy(refused_by(layer));
        let unreachable = || Failure::transient(Scope::Hop, Status(4, 1), "cannot connect");
        let unknown = || Failure::discovery(Status(7, 5), "the TLSA lookup failed");
        let unpromised = || Failure::require_tls(RequireTlsUnmet::NotOffered);
        let (ordinary, relaxed, required) = (
            TlsRequirement::Ordinary,
            TlsRequirement::Relaxed,
            TlsRequirement::Require,
        );
        let (domain, published) = ("mail for example.org", "mail without \"TLS-Required: No\"");
        let both = "mail for example.org without \"TLS-Required: No\"";
        for (failures, tls, is_shared, expected) in [
            (vec![unreachable()], ordinary, true, "all"),
            (vec![by(Layer::Connector)], ordinary, true, "all"),
            // The downgrade memory concerns one domain, which may be the only one of its
            // destination.
            (vec![by(Layer::DowngradeMemory)], ordinary, true, domain),
            (vec![by(Layer::DowngradeMemory)], relaxed, true, domain),
            (vec![by(Layer::DowngradeMemory)], ordinary, false, "all"),
            // So does the recipient's connector, beside that of the user who sent the mail.
            (vec![by(Layer::RecipientConnector)], ordinary, true, domain),
            (vec![by(Layer::RecipientConnector)], ordinary, false, "all"),
            // A message with `TLS-Required: No` ignores published policies, so it failed for
            // another reason.
            (vec![by(Layer::Dane)], ordinary, false, published),
            (vec![by(Layer::MtaSts)], ordinary, false, published),
            (vec![unknown()], ordinary, false, published),
            (vec![by(Layer::Dane)], ordinary, true, published),
            (vec![unreachable()], relaxed, false, "all"),
            // One hop that other mail may use is enough, whatever happened with the other hops.
            (
                vec![by(Layer::DowngradeMemory), unreachable()],
                ordinary,
                true,
                domain,
            ),
            (
                vec![by(Layer::Dane), unreachable()],
                ordinary,
                false,
                published,
            ),
            (
                vec![by(Layer::Dane), by(Layer::DowngradeMemory)],
                ordinary,
                true,
                both,
            ),
            // A requirement of one message does not concern other mail.
            (vec![unknown()], required, false, "none"),
            (vec![unpromised(), unreachable()], required, false, "none"),
            (vec![unreachable()], required, false, "all"),
        ] {
            let last = failures.last().expect("a failure").clone();
            let trail = failures.iter().cloned().map(Arc::new).collect();
            let results = vec![RecipientResult {
                trail,
                ..result(0, RecipientOutcome::Deferred(last), None)
            }];
            let shown = match health_of(results, tls, is_shared) {
                Health::Refused(part, _) => part.to_string(),
                Health::Down(_) => "all".to_owned(),
                Health::Unknown => "none".to_owned(),
                other => panic!("{other:?}"),
            };
            assert_eq!(shown, expected, "{failures:?}, {tls:?}, {is_shared}");
        }
    }
}
