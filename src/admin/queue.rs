//! `/v1/queue`: the messages in the queue, and one message in detail.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use jiff::Timestamp;

use super::api::{
    self, DestinationBackoff, EnvelopeParameters, FailureReason, PartBackoff, QueuePage,
    QueuedMessage, QueuedRecipient,
};
use super::filter::{self, Filter};
use super::state::{AdminState, ErrorResponse};
use crate::policy::connector::Connectors;
use crate::relay::scheduler::{DestinationStatus, MessageStatus, StatusQuery, StatusReply};
use crate::smtp::envelope::{self, AttemptFailure, QueueId, RecipientState};
use crate::storage::spool::{MessageOwner, Spool, SpoolError, StoredMessage};

/// The number of messages that are read from the spool at once.
const SCAN: usize = 500;
/// The maximum number of messages that are examined for one page, so that a request whose filter
/// matches nothing ends soon.
const SCANNED_MAX: usize = 20_000;
/// The number of recipients after which a page ends.
const RECIPIENTS_MAX: usize = 10_000;

/// `GET /v1/queue`.
pub(super) async fn list(
    State(admin): State<AdminState>,
    query: Result<Query<filter::QueueQuery>, QueryRejection>,
) -> Result<Json<QueuePage>, ErrorResponse> {
    let Query(query) =
        query.map_err(|rejection| ErrorResponse::bad_request(rejection.body_text()))?;
    let filter = Filter::parse(&query)?;
    let connectors = Arc::clone(&admin.running.load().connectors);
    let (stored, next) = match &filter.ids {
        Some(ids) => load_by_id(&*admin.spool, &filter, &connectors, ids).await?,
        None => scan_matching(&*admin.spool, &filter, &connectors).await?,
    };
    let reply = query_status(&admin, &stored).await?;
    let mut owners = owners(&admin, stored.iter().map(|stored| stored.id)).await?;
    let messages = stored.iter().zip(&reply.messages).map(|(stored, status)| {
        let mut message = message(stored, &reply, status);
        message.node = owners.remove(&stored.id).map(|owner| owner.node);
        message.recipients = stored
            .envelope
            .recipients
            .iter()
            .zip(&status.destinations)
            .map(recipient)
            .collect();
        message
    });
    Ok(Json(QueuePage {
        messages: messages.collect(),
        next,
    }))
}

/// `GET /v1/queue/{id}`.
pub(super) async fn show(
    State(admin): State<AdminState>,
    Path(id): Path<String>,
) -> Result<Json<QueuedMessage>, ErrorResponse> {
    let id = filter::parse_id(&id)?;
    let stored = [find(&*admin.spool, id)
        .await?
        .ok_or(SpoolError::Missing(id))?];
    let reply = query_status(&admin, &stored).await?;
    let ([stored], [status]) = (&stored, &reply.messages[..]) else {
        return Err(ErrorResponse::stopping());
    };
    let mut message = message(stored, &reply, status);
    let mut owners = owners(&admin, [id]).await?;
    message.node = owners.remove(&id).map(|owner| owner.node);
    let envelope = &stored.envelope;
    message.received = envelope.reception();
    message.parameters = Some(EnvelopeParameters {
        body: envelope.body,
        smtputf8: envelope.smtputf8,
        ret: envelope.ret,
        envid: envelope.envid.clone(),
        tls: envelope.tls,
        connector: envelope.connector.as_deref().map(str::to_owned),
        eight_bit: envelope.needs.eight_bit,
        utf8_header: envelope.needs.utf8_header,
    });
    message.recipients = envelope
        .recipients
        .iter()
        .zip(&status.destinations)
        .map(recipient_details)
        .collect();
    Ok(Json(message))
}

/// Returns the owners of messages, if several relays share the spool.
pub(super) async fn owners(
    admin: &AdminState,
    ids: impl IntoIterator<Item = QueueId>,
) -> Result<HashMap<QueueId, MessageOwner>, ErrorResponse> {
    match admin.spool.nodes() {
        Some(nodes) => Ok(nodes.owners(ids).await?),
        None => Ok(HashMap::new()),
    }
}

/// Loads one message without its content.
pub(super) async fn find(
    spool: &dyn Spool,
    id: QueueId,
) -> Result<Option<StoredMessage>, SpoolError> {
    let before = id.number().checked_sub(1).and_then(QueueId::from_number);
    Ok(spool
        .scan(before, 1)
        .await?
        .into_iter()
        .next()
        .filter(|stored| stored.id == id))
}

/// The matching messages, and the id after which the next page begins.
type QueuePart = (Vec<StoredMessage>, Option<QueueId>);

/// Loads the messages with these ids that match.
async fn load_by_id(
    spool: &dyn Spool,
    filter: &Filter,
    connectors: &Connectors,
    ids: &[QueueId],
) -> Result<QueuePart, SpoolError> {
    let now = Timestamp::now();
    let mut page = PageBuilder::default();
    for id in ids
        .iter()
        .filter(|id| filter.after.is_none_or(|after| **id > after))
    {
        let Some(stored) = find(spool, *id).await? else {
            continue;
        };
        if filter.matches(&stored, connectors, now) && page.push(stored, filter.limit) {
            return Ok((page.messages, Some(*id)));
        }
    }
    Ok((page.messages, None))
}

/// Scans the queue for messages that match.
async fn scan_matching(
    spool: &dyn Spool,
    filter: &Filter,
    connectors: &Connectors,
) -> Result<QueuePart, SpoolError> {
    let now = Timestamp::now();
    let mut page = PageBuilder::default();
    let mut after = filter.after;
    let mut scanned = 0;
    loop {
        let batch = spool.scan(after, SCAN).await?;
        if batch.is_empty() {
            return Ok((page.messages, None));
        }
        scanned += batch.len();
        for stored in batch {
            let id = stored.id;
            after = Some(id);
            if filter.matches(&stored, connectors, now) && page.push(stored, filter.limit) {
                return Ok((page.messages, Some(id)));
            }
        }
        if scanned >= SCANNED_MAX {
            return Ok((page.messages, after));
        }
    }
}

/// A page while it is filled.
#[derive(Default)]
struct PageBuilder {
    messages: Vec<StoredMessage>,
    recipients: usize,
}

impl PageBuilder {
    /// Adds a message, with only the last failure of each recipient. Returns true if the page is
    /// full.
    fn push(&mut self, mut stored: StoredMessage, limit: usize) -> bool {
        for recipient in &mut stored.envelope.recipients {
            if let RecipientState::Pending { history, .. } | RecipientState::Held { history, .. } =
                &mut recipient.state
            {
                let last = history.last().cloned();
                *history = envelope::FailureHistory::default();
                if let Some(last) = last {
                    history.push(last, 1);
                }
            }
        }
        self.recipients += stored.envelope.recipients.len();
        self.messages.push(stored);
        self.messages.len() >= limit || self.recipients >= RECIPIENTS_MAX
    }
}

/// Asks the scheduler for the state of these messages: their next attempts, connectors and
/// backoffs.
async fn query_status(
    admin: &AdminState,
    stored: &[StoredMessage],
) -> Result<StatusReply, ErrorResponse> {
    let questions = stored.iter().map(|stored| StatusQuery {
        id: Some(stored.id),
        hosts: stored
            .envelope
            .recipients
            .iter()
            .map(|recipient| recipient.mailbox.host().clone())
            .collect(),
        user_connector: stored.envelope.connector.clone(),
        tls: stored.envelope.tls,
    });
    let questions = questions.collect();
    admin
        .operator
        .status(questions)
        .await
        .ok_or_else(ErrorResponse::stopping)
}

/// Returns a message without its recipients.
fn message(stored: &StoredMessage, reply: &StatusReply, status: &MessageStatus) -> QueuedMessage {
    QueuedMessage {
        id: stored.id,
        node: None,
        accepted: stored.accepted,
        expires: reply.expires(status, stored.accepted),
        size: stored.size,
        sender: stored.envelope.reverse_path.clone(),
        busy: status.busy,
        received: None,
        parameters: None,
        recipients: Vec::new(),
    }
}

fn recipient_details(
    (recipient, destination): (&envelope::Recipient, &DestinationStatus),
) -> QueuedRecipient {
    let mut details = self::recipient((recipient, destination));
    details.notify = recipient.notify;
    details.orcpt.clone_from(&recipient.orcpt);
    details.history = Some(match &recipient.state {
        RecipientState::Pending { history, .. } | RecipientState::Held { history, .. } => {
            history.all().iter().map(reason).collect()
        }
        RecipientState::Failed => recipient.owed.iter().map(|last| reason(last)).collect(),
        RecipientState::Delivered => Vec::new(),
    });
    details
}

fn recipient(
    (recipient, destination): (&envelope::Recipient, &DestinationStatus),
) -> QueuedRecipient {
    let now = Timestamp::now();
    let mut details = QueuedRecipient {
        address: recipient.mailbox.clone(),
        recipient: Some(recipient.mailbox.clone()),
        state: api::DeliveryState::Waiting,
        connector: destination.connector.clone(),
        attempts: 0,
        next: None,
        reason: None,
        destination_down: None,
        part_down: None,
        notify: None,
        orcpt: None,
        history: None,
    };
    match &recipient.state {
        RecipientState::Pending {
            attempts,
            next,
            history,
            ..
        } => {
            let until = destination.backoff.as_ref().map(|pause| pause.until);
            details.attempts = *attempts;
            details.reason = history.last().map(reason);
            details.next = next.max(&until).filter(|at| *at > now);
            if let Some(pause) = &destination.backoff {
                let (until, reason) = (pause.until, reason(&pause.last));
                match &pause.part {
                    None => details.destination_down = Some(DestinationBackoff { until, reason }),
                    Some(part) => {
                        details.part_down = Some(PartBackoff {
                            part: part.clone(),
                            until,
                            reason,
                        });
                    }
                }
            }
        }
        RecipientState::Held { attempts, history } => {
            details.state = api::DeliveryState::Held;
            details.attempts = *attempts;
            details.reason = history.last().map(reason);
        }
        RecipientState::Delivered => details.state = api::DeliveryState::Delivered,
        RecipientState::Failed => {
            details.state = api::DeliveryState::Failed;
            // A failed recipient stays in the queue until the report to the sender is stored.
            details.reason = recipient.owed.as_deref().map(reason);
        }
    }
    details
}

pub(super) fn reason(trouble: &AttemptFailure) -> FailureReason {
    FailureReason {
        at: trouble.at,
        status: trouble.status.to_string(),
        text: trouble.text.clone(),
        explanation: trouble.explanation.clone(),
        host: trouble.host.clone(),
        reply: trouble.reply.as_ref().map(ToString::to_string),
    }
}
