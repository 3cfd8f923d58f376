//! What is said for the record of an attempt: from outbound's report to [`crate::evidence`].
//!
//! It decides nothing; what became of a recipient is told by `settle`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::address::Host;
use crate::config::{Config, Connector};
use crate::connector::exception;
use crate::envelope::{AttemptFailure, Envelope, QueueId};
use crate::evidence::{
    AcceptanceRecord, DeliveryRecord, DemandOutcome, Evidence, EvidenceRecord, ExceptionRecord, PolicyRecord,
    RecordedOutcome, SessionRecord, UnmetDemand, cut,
};
use crate::failure::{self, Cause, Failure, RequireTlsUnmet};
use crate::outbound::{Attempt, RecipientResult, Report};
use crate::running_config::Snapshot;
use crate::smtp::reply::{EnhancedStatusCode, Reply, Status};
use crate::spool::{Entry, SpoolError};

use super::Context;
use super::orders::Refused;

/// How often it is looked whether evidence can be written again.
const LOOK: Duration = Duration::from_secs(1);

/// What became of the recipients of one attempt, until it is written down.
pub(super) struct Witness<'a> {
    attempt: &'a Attempt,
    connector: &'a Arc<Connector>,
    config: &'a Arc<Config>,
    at: Timestamp,
    said: Vec<Said<'a>>,
}

/// The same of one recipient.
struct Said<'a> {
    recipient: usize,
    /// What the attempt came to; `None` where none was made.
    result: Option<&'a RecipientResult>,
    attempts: u32,
    outcome: RecordedOutcome,
    status: EnhancedStatusCode,
    host: Option<String>,
    reply: Option<String>,
    reason: Option<String>,
}

impl<'a> Witness<'a> {
    /// `report`: of the attempt, where one was made.
    pub(super) fn new(settings: &'a Snapshot, attempt: &'a Attempt, report: Option<&'a Report>) -> Self {
        let (connector, config) = match report {
            Some(report) => (&report.connector, &report.snapshot.config),
            None => (settings.connectors.for_host(&attempt.host), &settings.config),
        };
        Self { attempt, connector, config, at: Timestamp::now(), said: Vec::new() }
    }

    pub(super) fn delivered(&mut self, result: &'a RecipientResult, attempts: u32, reply: &Reply) {
        self.said.push(Said {
            recipient: result.recipient,
            result: Some(result),
            attempts,
            outcome: RecordedOutcome::Delivered,
            status: reply.enhanced().unwrap_or(EnhancedStatusCode::success(Status(0, 0))),
            host: None,
            reply: Some(cut(&reply.to_string())),
            reason: None,
        });
    }

    pub(super) fn failed(
        &mut self,
        result: &'a RecipientResult,
        attempts: u32,
        outcome: RecordedOutcome,
        last: &AttemptFailure,
    ) {
        self.said.push(Said { result: Some(result), attempts, ..told(result.recipient, outcome, last) });
    }

    /// It was given up for its age, without an attempt.
    pub(super) fn too_old(&mut self, recipient: usize, last: &AttemptFailure) {
        self.said.push(told(recipient, RecordedOutcome::Bounced, last));
    }

    /// Makes it durable; false where that cannot be. `told`: the sender was told of what was given up, which
    /// otherwise is not.
    pub(super) async fn testify(self, evidence: &Evidence, envelope: &Envelope, told: bool) -> bool {
        if !evidence.is_kept() {
            return true;
        }
        let said = self.said.iter().filter_map(|said| self.statement(envelope, said, told));
        let statements = acceptance(&self.attempt.entry, envelope).into_iter().chain(said.map(|said| (self.at, said)));
        evidence.write_all(statements.collect()).await.is_ok()
    }

    fn statement(&self, envelope: &Envelope, said: &Said<'_>, told: bool) -> Option<EvidenceRecord> {
        let Attempt { entry, host, .. } = self.attempt;
        let recipient = envelope.recipients.get(said.recipient)?;
        let via = said.result.and_then(|result| result.via.as_deref());
        let policy = said.result.and_then(|result| result.policy.as_deref());
        let failure = said.result.and_then(failure);
        let unmet = failure.and_then(unmet);
        let standing = match (via, &unmet) {
            (_, Some(_)) => DemandOutcome::Refused,
            (Some(via), None) => DemandOutcome::of(policy, &via.clearance),
            (None, None) => DemandOutcome::Unreached,
        };
        let outcome = match said.outcome {
            RecordedOutcome::Bounced if !told => RecordedOutcome::Deferred,
            outcome => outcome,
        };
        Some(EvidenceRecord::Delivery(Box::new(DeliveryRecord {
            queue_id: entry.id.to_string(),
            message_id: envelope.message_id.as_deref().map(str::to_owned),
            from: envelope.reverse_path.mailbox().map(ToString::to_string).unwrap_or_default(),
            to: recipient.mailbox.to_string(),
            domain: name(host),
            attempt: said.attempts,
            connector: self.connector.name.clone(),
            configuration: self.config.source.digest.clone(),
            policy: policy.map(PolicyRecord::of),
            exception: exception(self.connector, self.at).map(ExceptionRecord::of),
            host: via.map(|via| name(&via.host)).or_else(|| said.host.clone()),
            address: via.map(|via| via.address).or_else(|| dialled(said.result)).map(|address| address.to_string()),
            session: via
                .map(|via| SessionRecord::of(via.clearance.session()))
                .or_else(|| failure.and_then(without_mail)),
            unmet,
            downgraded_from: via.and_then(|via| via.was).map(|was| was.as_str().to_owned()),
            standing,
            outcome,
            status: said.status.to_string(),
            reply: said.reply.clone(),
            reason: said.reason.clone(),
        })))
    }
}

/// The record that a message came in, where it is not written yet, with the time at which it did. It goes out with the
/// first record of what became of the message, and costs no sync of its own.
fn acceptance(entry: &Entry, envelope: &Envelope) -> Option<(Timestamp, EvidenceRecord)> {
    let acceptance = AcceptanceRecord::pending(entry.id, entry.size, envelope)?;
    Some((entry.accepted, EvidenceRecord::Accepted(Box::new(acceptance))))
}

/// A failure as the queue remembers it, for the record.
fn told<'a>(recipient: usize, outcome: RecordedOutcome, last: &AttemptFailure) -> Said<'a> {
    Said {
        recipient,
        result: None,
        attempts: 0,
        outcome,
        status: last.status,
        host: last.host.clone(),
        reply: last.reply.as_ref().map(|reply| cut(&reply.to_string())),
        reason: Some(cut(&last.text)),
    }
}

fn name(host: &Host) -> String {
    host.to_string()
}

fn failure(result: &RecipientResult) -> Option<&Failure> {
    match &result.outcome {
        failure::RecipientOutcome::Delivered(_) => None,
        failure::RecipientOutcome::Deferred(failure)
        | failure::RecipientOutcome::Held(failure)
        | failure::RecipientOutcome::Bounced(failure) => Some(failure),
    }
}

/// The address that a failure happened with, where one was dialled.
fn dialled(result: Option<&RecipientResult>) -> Option<SocketAddr> {
    // `mx.example.org [192.0.2.1]:25`
    let peer = failure(result?)?.peer.as_deref()?;
    let (ip, port) = peer.rsplit_once('[')?.1.split_once("]:")?;
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

/// The demand that was not met, where that is what went wrong.
fn unmet(failure: &Failure) -> Option<UnmetDemand> {
    match &failure.cause {
        Cause::Policy(refusal) | Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => Some(UnmetDemand::of(refusal)),
        Cause::RequireTls(why @ (RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)) => Some(UnmetDemand {
            layer: crate::tls::Layer::RequireTls.to_string(),
            wanted: "TLS on the whole way".to_owned(),
            got: why.to_string(),
        }),
        Cause::Reply { .. } | Cause::Ourselves(_) | Cause::Discovery(_) | Cause::Other(_) => None,
    }
}

/// The TLS session on which mail was not spoken of: it was not good enough, or the peer ended it before.
fn without_mail(failure: &Failure) -> Option<SessionRecord> {
    if let Some(reached) = &failure.session {
        return Some(SessionRecord::of(reached));
    }
    match &failure.cause {
        Cause::Policy(refusal) | Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => {
            SessionRecord::of_refused(refusal)
        }
        Cause::RequireTls(RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)
        | Cause::Reply { .. }
        | Cause::Ourselves(_)
        | Cause::Discovery(_)
        | Cause::Other(_) => None,
    }
}

/// Puts the record that a message came in, where it is owed still, on record without any other; false where that cannot
/// be. It is owed where no evidence was kept when the message was tried.
pub(super) async fn put_on_record(context: &Context, entry: &Entry, envelope: &mut Envelope) -> bool {
    if !context.evidence.is_kept() {
        return true;
    }
    if let Some(accepted) = acceptance(entry, envelope)
        && context.evidence.write_all(vec![accepted]).await.is_err()
    {
        return false;
    }
    envelope.arrival = None;
    true
}

/// An operator is about to remove a message: what was open of it is on the record first.
pub(super) async fn removed(context: &Context, id: QueueId) -> Result<(), Refused> {
    if !context.evidence.is_kept() {
        return Ok(());
    }
    let entry = match context.spool.load(id).await {
        Ok(entry) => Arc::new(entry),
        Err(SpoolError::Damaged { remaining: Some(left), .. }) => Arc::new(left.without_content()),
        // What cannot be read can be removed all the same, and is nobody's mail any more.
        Err(SpoolError::Damaged { remaining: None, .. } | SpoolError::Missing(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let settings = context.running.load();
    let at = Timestamp::now();
    let mut statements: Vec<_> = acceptance(&entry, &entry.envelope).into_iter().collect();
    for recipient in entry.envelope.recipients.iter().filter(|recipient| recipient.state.is_open()) {
        let host = recipient.mailbox.host();
        let removed = EvidenceRecord::Delivery(Box::new(DeliveryRecord {
            queue_id: id.to_string(),
            message_id: entry.envelope.message_id.as_deref().map(str::to_owned),
            from: entry.envelope.reverse_path.mailbox().map(ToString::to_string).unwrap_or_default(),
            to: recipient.mailbox.to_string(),
            domain: name(host),
            attempt: 0,
            connector: settings.connectors.for_host(host).name.clone(),
            configuration: settings.config.source.digest.clone(),
            policy: None,
            exception: None,
            host: None,
            address: None,
            session: None,
            unmet: None,
            downgraded_from: None,
            standing: DemandOutcome::Unreached,
            outcome: RecordedOutcome::Removed,
            status: String::new(),
            reply: None,
            reason: Some("removed by an operator".to_owned()),
        }));
        statements.push((at, removed));
    }
    context.evidence.write_all(statements).await.map_err(|_| Refused::Stopping)
}

/// Waits until evidence can be written. A report that went out before its evidence would go out again, were the
/// process to end in between. Whether it can; if not, the process is about to end.
pub(super) async fn evidence_flows(context: &Context) -> bool {
    while context.evidence.is_stuck() {
        if context.ending.is_cancelled() {
            return false;
        }
        let pause = tokio::time::timeout(LOOK, context.ending.cancelled());
        // Time over, or one last look before the end.
        let _ = pause.await;
    }
    true
}
