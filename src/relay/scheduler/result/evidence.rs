//! Converts the result of an attempt into records of [`crate::storage::evidence`].
//!
//! It decides nothing: the outcome of each recipient comes from `result`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{Config, Connector};
use crate::policy::connector::exception;
use crate::policy::failure::{self, Cause, Failure, RequireTlsUnmet};
use crate::relay::outbound::{Attempt, AttemptResult, RecipientResult};
use crate::relay::running_config::Snapshot;
use crate::relay::scheduler::context::Context;
use crate::smtp::address::Host;
use crate::smtp::envelope::{AttemptFailure, Envelope, QueueId};
use crate::smtp::reply::{EnhancedStatusCode, Reply, Status};
use crate::storage::evidence::{
    AcceptanceRecord, DeliveryRecord, DemandOutcome, Evidence, EvidenceRecord, ExceptionRecord,
    PolicyRecord, RecordedOutcome, SessionRecord, UnmetDemand, cut,
};
use crate::storage::spool::{Entry, SpoolError};

/// The interval between two checks if evidence can be written again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The evidence of one attempt, until it is written.
pub(super) struct EvidenceBatch<'a> {
    attempt: &'a Attempt,
    connector: &'a Arc<Connector>,
    config: &'a Arc<Config>,
    at: Timestamp,
    records: Vec<RecipientRecord<'a>>,
}

/// The evidence of one recipient.
struct RecipientRecord<'a> {
    recipient: usize,
    /// The result of the attempt; `None` without an attempt.
    result: Option<&'a RecipientResult>,
    attempts: u32,
    outcome: RecordedOutcome,
    status: EnhancedStatusCode,
    host: Option<String>,
    reply: Option<String>,
    reason: Option<String>,
}

impl<'a> EvidenceBatch<'a> {
    /// Starts the evidence of an attempt. `report` is `None` for a message that expired without an
    /// attempt.
    pub(super) fn new(
        settings: &'a Snapshot,
        attempt: &'a Attempt,
        report: Option<&'a AttemptResult>,
    ) -> Self {
        let (connector, config) = match report {
            Some(report) => (&report.connector, &report.snapshot.config),
            None => (
                settings.connectors.for_host(&attempt.host),
                &settings.config,
            ),
        };
        Self {
            attempt,
            connector,
            config,
            at: Timestamp::now(),
            records: Vec::new(),
        }
    }

    /// Adds a delivery.
    pub(super) fn delivered(&mut self, result: &'a RecipientResult, attempts: u32, reply: &Reply) {
        self.records.push(RecipientRecord {
            recipient: result.recipient,
            result: Some(result),
            attempts,
            outcome: RecordedOutcome::Delivered,
            status: reply
                .enhanced()
                .unwrap_or(EnhancedStatusCode::success(Status(0, 0))),
            host: None,
            reply: Some(cut(&reply.to_string())),
            reason: None,
        });
    }

    /// Adds a failure with its outcome: deferred, held or bounced.
    pub(super) fn failed(
        &mut self,
        result: &'a RecipientResult,
        attempts: u32,
        outcome: RecordedOutcome,
        last: &AttemptFailure,
    ) {
        self.records.push(RecipientRecord {
            result: Some(result),
            attempts,
            ..failure_record(result.recipient, outcome, last)
        });
    }

    /// Adds a recipient that expired without an attempt.
    pub(super) fn expired(&mut self, recipient: usize, last: &AttemptFailure) {
        self.records
            .push(failure_record(recipient, RecordedOutcome::Bounced, last));
    }

    /// Stores the records. Returns false when that fails. Without `is_reported`, the report of a
    /// bounce could not be stored, so the recipients stay in the queue and are recorded as
    /// deferred.
    pub(super) async fn write(
        self,
        evidence: &Evidence,
        envelope: &Envelope,
        is_reported: bool,
    ) -> bool {
        if !evidence.is_kept() {
            return true;
        }
        let record = self
            .records
            .iter()
            .filter_map(|record| self.evidence_record(envelope, record, is_reported));
        let records = acceptance(&self.attempt.entry, envelope)
            .into_iter()
            .chain(record.map(|record| (self.at, record)));
        evidence.write_all(records.collect()).await.is_ok()
    }

    /// Builds the record of one recipient.
    fn evidence_record(
        &self,
        envelope: &Envelope,
        record: &RecipientRecord<'_>,
        is_reported: bool,
    ) -> Option<EvidenceRecord> {
        let Attempt { entry, host, .. } = self.attempt;
        let recipient = envelope.recipients.get(record.recipient)?;
        let via = record.result.and_then(|result| result.via.as_deref());
        let policy = record.result.and_then(|result| result.policy.as_deref());
        let failure = record.result.and_then(failure);
        let unmet = failure.and_then(unmet);
        let standing = match (via, &unmet) {
            (_, Some(_)) => DemandOutcome::Refused,
            (Some(via), None) => DemandOutcome::of(policy, &via.clearance),
            (None, None) => DemandOutcome::Unreached,
        };
        let outcome = match record.outcome {
            RecordedOutcome::Bounced if !is_reported => RecordedOutcome::Deferred,
            outcome => outcome,
        };
        Some(EvidenceRecord::Delivery(Box::new(DeliveryRecord {
            queue_id: entry.id.to_string(),
            message_id: envelope.message_id.as_deref().map(str::to_owned),
            from: envelope
                .reverse_path
                .mailbox()
                .map(ToString::to_string)
                .unwrap_or_default(),
            to: recipient.mailbox.to_string(),
            domain: name(host),
            attempt: record.attempts,
            connector: self.connector.name.clone(),
            configuration: self.config.source.digest.clone(),
            policy: policy.map(PolicyRecord::of),
            exception: exception(self.connector, self.at).map(ExceptionRecord::of),
            host: via
                .map(|via| name(&via.host))
                .or_else(|| record.host.clone()),
            address: via
                .map(|via| via.address)
                .or_else(|| dialled(record.result))
                .map(|address| address.to_string()),
            session: via
                .map(|via| SessionRecord::of(via.clearance.session()))
                .or_else(|| failure.and_then(without_mail)),
            unmet,
            downgraded_from: via
                .and_then(|via| via.was)
                .map(|was| was.as_str().to_owned()),
            standing,
            outcome,
            status: record.status.to_string(),
            reply: record.reply.clone(),
            reason: record.reason.clone(),
        })))
    }
}

/// Returns the record of acceptance and its time, if it is not written yet. It is written together
/// with the first delivery record, so it costs no sync of its own.
fn acceptance(entry: &Entry, envelope: &Envelope) -> Option<(Timestamp, EvidenceRecord)> {
    let acceptance = AcceptanceRecord::pending(entry.id, entry.size, envelope)?;
    Some((
        entry.accepted,
        EvidenceRecord::Accepted(Box::new(acceptance)),
    ))
}

/// Returns the evidence of a stored failure.
fn failure_record<'a>(
    recipient: usize,
    outcome: RecordedOutcome,
    last: &AttemptFailure,
) -> RecipientRecord<'a> {
    RecipientRecord {
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

/// Returns the address of the peer of a failure, if one was dialled.
fn dialled(result: Option<&RecipientResult>) -> Option<SocketAddr> {
    // `mx.example.org [192.0.2.1]:25`
    let peer = failure(result?)?.peer.as_deref()?;
    let (ip, port) = peer.rsplit_once('[')?.1.split_once("]:")?;
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

/// Returns the unmet demand, if the failure is one of TLS policy.
fn unmet(failure: &Failure) -> Option<UnmetDemand> {
    match &failure.cause {
        Cause::Policy(refusal) | Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => {
            Some(UnmetDemand::of(refusal))
        }
        Cause::RequireTls(why @ (RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)) => {
            Some(UnmetDemand {
                layer: crate::policy::tls::Layer::RequireTls.to_string(),
                wanted: "TLS on the whole way".to_owned(),
                got: why.to_string(),
            })
        }
        Cause::Reply { .. } | Cause::Ourselves(_) | Cause::Discovery(_) | Cause::Other(_) => None,
    }
}

/// Returns the TLS session of a failure before MAIL FROM: it was refused by policy, or the peer
/// ended it.
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

/// Stores the record of acceptance, if it is not written yet: evidence may have been off when the
/// message was first tried. Returns false when that fails.
pub(in crate::relay::scheduler) async fn write_acceptance(
    context: &Context,
    entry: &Entry,
    envelope: &mut Envelope,
) -> bool {
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

/// The reason for which evidence of a removal could not be stored.
#[derive(Debug, thiserror::Error)]
pub(in crate::relay::scheduler) enum EvidenceFailure {
    /// The message could not be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The process is ending, and evidence is not written any more.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Stores evidence of the open recipients of a message that an operator removes.
pub(in crate::relay::scheduler) async fn write_removal(
    context: &Context,
    id: QueueId,
) -> Result<(), EvidenceFailure> {
    if !context.evidence.is_kept() {
        return Ok(());
    }
    let entry = match context.spool.load(id).await {
        Ok(entry) => Arc::new(entry),
        Err(SpoolError::Damaged {
            remaining: Some(remaining),
            ..
        }) => Arc::new(remaining.without_content()),
        // A message that cannot be read may be removed without a record.
        Err(
            SpoolError::Damaged {
                remaining: None, ..
            }
            | SpoolError::Missing(_),
        ) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let settings = context.running.load();
    let at = Timestamp::now();
    let mut records: Vec<_> = acceptance(&entry, &entry.envelope).into_iter().collect();
    for recipient in entry
        .envelope
        .recipients
        .iter()
        .filter(|recipient| recipient.state.is_open())
    {
        let host = recipient.mailbox.host();
        let removed = EvidenceRecord::Delivery(Box::new(DeliveryRecord {
            queue_id: id.to_string(),
            message_id: entry.envelope.message_id.as_deref().map(str::to_owned),
            from: entry
                .envelope
                .reverse_path
                .mailbox()
                .map(ToString::to_string)
                .unwrap_or_default(),
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
        records.push((at, removed));
    }
    context
        .evidence
        .write_all(records)
        .await
        .map_err(|_| EvidenceFailure::Stopping)
}

/// Waits until evidence can be written. Returns false when the process ends first. A report stored
/// before its evidence would be sent twice if the process ended in between.
pub(in crate::relay::scheduler) async fn wait_for_evidence(context: &Context) -> bool {
    while context.evidence.is_stuck() {
        if context.ending.is_cancelled() {
            return false;
        }
        let pause = tokio::time::timeout(CHECK_INTERVAL, context.ending.cancelled());
        // Either way, check again; at shutdown for the last time.
        let _ = pause.await;
    }
    true
}
