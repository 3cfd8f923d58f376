//! Converts the result of an attempt into records of [`crate::storage::evidence`].
//!
//! It decides nothing: the outcome of each recipient comes from `result`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::policy::connector::exception;
use crate::policy::failure::{Cause, Failure, RequireTlsUnmet};
use crate::relay::outbound::{RecipientEnding, RecipientEvent, SessionLogin};
use crate::relay::scheduler::context::Context;
use crate::smtp::envelope::{Envelope, QueueId};
use crate::smtp::reply::{EnhancedStatusCode, Reply, Status};
use crate::storage::JoinedRecords;
use crate::storage::evidence::{
    AcceptanceRecord, DeliveryRecord, DemandOutcome, EvidenceRecord, ExceptionRecord, LoginRecord,
    PolicyRecord, RecordText, RecordedOutcome, SessionRecord, UnmetDemand, cut,
};
use crate::storage::spool::{Claim, Claimed, Draft, Entry, Receipt, SpoolError};

/// The interval between two checks if evidence can be written again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The proof that the evidence of a result is durable, that it becomes so together with the change of
/// the queue, or that evidence is off.
#[derive(Debug)]
pub(super) enum EvidenceRecorded {
    /// The records are durable, or evidence is off.
    Written,
    /// The spool stores the records with the change.
    Joined {
        records: Arc<JoinedRecords>,
        /// The records of recipients that have the message, whatever becomes of the change.
        delivered: Vec<RecordText>,
    },
}

impl EvidenceRecorded {
    /// Changes the queue, with the records if they are not durable yet.
    pub(super) async fn settle(
        &self,
        context: &Context,
        claim: Claim,
        before: &Envelope,
        after: Option<&Envelope>,
        reports: Vec<(Draft, Envelope)>,
    ) -> Result<Vec<(Receipt, Claimed<Entry>)>, SpoolError> {
        let spool = &context.spool;
        match self {
            Self::Written => spool.settle(claim, before, after, reports).await,
            Self::Joined { records, .. } => {
                let records = Arc::clone(records);
                spool
                    .settle_recorded(claim, before, after, reports, records)
                    .await
            }
        }
    }

    /// Writes what has happened outside of the queue, although the queue cannot be changed: the message
    /// is not in it any more, or is another relay's.
    pub(super) async fn write_delivered(self, context: &Context) {
        if let Self::Joined { records, delivered } = self
            && !records.is_stored()
            && context.evidence.write_texts(delivered).await.is_err()
        {
            tracing::error!("evidence not written before shutdown");
        }
    }

    /// Returns whether the records need no change of the queue any more.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Written => true,
            Self::Joined { records, .. } => records.is_stored(),
        }
    }
}

/// Returns the evidence of an attempt that ended at `at`, one record for each recipient, each with
/// its time; none if evidence is off. Without `is_reported`, the report of a bounce could not be
/// stored, so the recipients stay in the queue and are recorded as deferred.
pub(super) fn delivery_records(
    context: &Context,
    envelope: &Envelope,
    events: &[RecipientEvent<'_>],
    at: Timestamp,
    is_reported: bool,
) -> Vec<(Timestamp, EvidenceRecord)> {
    if !context.evidence.is_kept() {
        return Vec::new();
    }
    events
        .iter()
        .map(|event| (at, delivery_record(envelope, event, at, is_reported)))
        .collect()
}

/// Stores the evidence of changes of a message, with the record of acceptance before it if that is
/// not written yet; or prepares it, if the spool can store it with the change. Returns `None` when that
/// fails.
pub(super) async fn write_evidence(
    context: &Context,
    entry: &Entry,
    envelope: &mut Envelope,
    records: Vec<(Timestamp, EvidenceRecord)>,
) -> Option<EvidenceRecorded> {
    if context.evidence.is_kept() {
        let texts = records.iter().map(|(at, record)| record.to_text(*at));
        let is_recorded = envelope.arrival.is_some() && context.acceptances.has(entry.id);
        let accepted = if is_recorded {
            None
        } else {
            acceptance(entry, envelope)
        };
        let texts: Vec<_> = accepted.into_iter().chain(texts).collect();
        let recorded = if let Some(joined) = context.evidence.join(&texts) {
            EvidenceRecorded::Joined {
                records: joined,
                delivered: delivered(&records),
            }
        } else {
            context.evidence.write_texts(texts).await.ok()?;
            EvidenceRecorded::Written
        };
        envelope.forget_arrival();
        return Some(recorded);
    }
    Some(EvidenceRecorded::Written)
}

/// Returns the records of recipients to which the message was delivered.
fn delivered(records: &[(Timestamp, EvidenceRecord)]) -> Vec<RecordText> {
    let is_delivered = |record: &EvidenceRecord| match record {
        EvidenceRecord::Delivery(delivery) => delivery.outcome == RecordedOutcome::Delivered,
        _ => false,
    };
    let delivered = records.iter().filter(|(_, record)| is_delivered(record));
    delivered.map(|(at, record)| record.to_text(*at)).collect()
}

/// Returns the record of one recipient.
fn delivery_record(
    envelope: &Envelope,
    event: &RecipientEvent<'_>,
    at: Timestamp,
    is_reported: bool,
) -> EvidenceRecord {
    let RecipientEvent {
        attempt,
        mailbox,
        snapshot,
        connector,
        result,
        ending,
        ..
    } = event;
    let via = result.and_then(|result| result.via.as_deref());
    let policy = result.and_then(|result| result.policy.as_deref());
    let failure = event.failure();
    let unmet = failure.and_then(unmet);
    let standing = match (via, &unmet) {
        (_, Some(_)) => DemandOutcome::Refused,
        (Some(via), None) => DemandOutcome::of(policy, &via.clearance),
        (None, None) => DemandOutcome::Unreached,
    };
    let outcome = match ending {
        RecipientEnding::Delivered(_) => RecordedOutcome::Delivered,
        RecipientEnding::Deferred { .. } => RecordedOutcome::Deferred,
        RecipientEnding::Held { .. } => RecordedOutcome::Held,
        RecipientEnding::Bounced { .. } if is_reported => RecordedOutcome::Bounced,
        RecipientEnding::Bounced { .. } => RecordedOutcome::Deferred,
    };
    let (status, reply) = status_and_reply(ending);
    let last = ending.failure();
    let peer = via
        .map(|via| &via.peer)
        .or_else(|| failure?.peer.as_ref()?.peer());
    EvidenceRecord::Delivery(Box::new(DeliveryRecord {
        queue_id: attempt.entry.id.to_string(),
        message_id: envelope.message_id.as_deref().map(str::to_owned),
        from: envelope
            .reverse_path
            .mailbox()
            .map(ToString::to_string)
            .unwrap_or_default(),
        to: mailbox.to_string(),
        domain: attempt.host.to_string(),
        attempt: event.attempts,
        connector: connector.name.clone(),
        recipient_connector: connector.floor.as_ref().map(|floor| floor.name.clone()),
        configuration: snapshot.config.source.digest.clone(),
        policy: policy.map(PolicyRecord::of),
        exception: exception(connector, at).map(ExceptionRecord::of),
        host: via
            .map(|via| via.peer.host.to_string())
            .or_else(|| last?.host.clone()),
        address: peer.map(|peer| peer.address.to_string()),
        protocol: peer.map(|peer| peer.protocol.name().to_owned()),
        source: peer.and_then(|peer| Some(peer.source?.to_string())),
        session: via
            .map(|via| SessionRecord::of(via.clearance.session()))
            .or_else(|| failure.and_then(without_mail)),
        login: via.and_then(|via| via.login.as_ref()).map(login_record),
        unmet,
        downgraded_from: via
            .and_then(|via| via.earlier_level)
            .map(|level| level.as_str().to_owned()),
        standing,
        outcome,
        status: status.to_string(),
        reply: reply.map(|reply| cut(&reply.to_string())),
        reason: last.map(|last| cut(&last.text)),
    }))
}

/// Returns the enhanced status of an outcome, and the reply of the peer, if there was one.
fn status_and_reply<'a>(
    ending: &'a RecipientEnding<'_>,
) -> (EnhancedStatusCode, Option<&'a Reply>) {
    match ending {
        RecipientEnding::Delivered(reply) => {
            let success = EnhancedStatusCode::success(Status(0, 0));
            (reply.enhanced().unwrap_or(success), Some(reply))
        }
        RecipientEnding::Deferred { last, .. }
        | RecipientEnding::Held { last }
        | RecipientEnding::Bounced { last, .. } => (last.status, last.reply.as_ref()),
    }
}

/// Returns the record of acceptance, if it is not written yet. It is written together with the
/// first delivery record, so it costs no sync of its own.
fn acceptance(entry: &Entry, envelope: &Envelope) -> Option<RecordText> {
    AcceptanceRecord::pending(entry.id, entry.size, envelope, entry.accepted)
}

fn login_record(login: &SessionLogin) -> LoginRecord {
    LoginRecord {
        user: cut(&login.user),
        mechanism: login.mechanism.to_owned(),
    }
}

/// Returns the unmet demand, if the failure is one of TLS policy.
fn unmet(failure: &Failure) -> Option<UnmetDemand> {
    if let Cause::RequireTls(why @ (RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)) =
        &failure.cause
    {
        return Some(UnmetDemand {
            layer: crate::policy::tls::Layer::RequireTls.to_string(),
            wanted: "TLS on the whole way".to_owned(),
            got: why.to_string(),
        });
    }
    failure.refusal().map(UnmetDemand::of)
}

/// Returns the TLS session of a failure before MAIL FROM: it was refused by policy, or the peer
/// ended it.
fn without_mail(failure: &Failure) -> Option<SessionRecord> {
    match &failure.session {
        Some(reached) => Some(SessionRecord::of(reached)),
        None => failure.refusal().and_then(SessionRecord::of_refused),
    }
}

/// The reason for which a removal could not be stored, or its evidence.
#[derive(Debug, thiserror::Error)]
pub(in crate::relay::scheduler) enum EvidenceFailure {
    /// The message could not be read or removed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The process is ending, and evidence is not written any more.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Loads a message that an operator removes; `None` if it cannot be read, and may be removed without a
/// record.
async fn load_for_removal(
    context: &Context,
    id: QueueId,
) -> Result<Option<Arc<Entry>>, EvidenceFailure> {
    match context.spool.load(id).await {
        Ok(entry) => Ok(Some(Arc::new(entry))),
        Err(SpoolError::Damaged {
            remaining: Some(remaining),
            ..
        }) => Ok(Some(Arc::new(remaining.without_content()))),
        Err(
            SpoolError::Damaged {
                remaining: None, ..
            }
            | SpoolError::Missing(_),
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a message for an operator, after or together with evidence of its open recipients.
pub(in crate::relay::scheduler) async fn remove_recorded(
    context: &Context,
    claim: Claim,
) -> Result<(), EvidenceFailure> {
    let entry = if context.evidence.is_kept() {
        load_for_removal(context, claim.id()).await?
    } else {
        None
    };
    let Some(entry) = entry else {
        return Ok(context.spool.remove(claim).await?);
    };
    let records = removal_records(context, &entry);
    if let Some(records) = context.evidence.join(&records) {
        let before = &entry.envelope;
        let settled = context
            .spool
            .settle_recorded(claim, before, None, Vec::new(), records);
        return settled.await.map(drop).map_err(EvidenceFailure::from);
    }
    context
        .evidence
        .write_texts(records)
        .await
        .map_err(|_| EvidenceFailure::Stopping)?;
    Ok(context.spool.remove(claim).await?)
}

/// Returns the evidence of the open recipients of a message that an operator removes.
fn removal_records(context: &Context, entry: &Entry) -> Vec<RecordText> {
    let settings = context.running.load();
    let at = Timestamp::now();
    let mut records: Vec<_> = acceptance(entry, &entry.envelope).into_iter().collect();
    for recipient in entry
        .envelope
        .recipients
        .iter()
        .filter(|recipient| recipient.state.is_open())
    {
        let host = recipient.mailbox.host();
        let removed = EvidenceRecord::Delivery(Box::new(DeliveryRecord {
            queue_id: entry.id.to_string(),
            message_id: entry.envelope.message_id.as_deref().map(str::to_owned),
            from: entry
                .envelope
                .reverse_path
                .mailbox()
                .map(ToString::to_string)
                .unwrap_or_default(),
            to: recipient.mailbox.to_string(),
            domain: host.to_string(),
            attempt: 0,
            connector: entry
                .envelope
                .connector
                .as_deref()
                .unwrap_or(&settings.connectors.for_host(host).name)
                .to_owned(),
            recipient_connector: None,
            configuration: settings.config.source.digest.clone(),
            policy: None,
            exception: None,
            host: None,
            address: None,
            protocol: None,
            source: None,
            session: None,
            login: None,
            unmet: None,
            downgraded_from: None,
            standing: DemandOutcome::Unreached,
            outcome: RecordedOutcome::Removed,
            status: String::new(),
            reply: None,
            reason: Some("removed by an operator".to_owned()),
        }));
        records.push(removed.to_text(at));
    }
    records
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
