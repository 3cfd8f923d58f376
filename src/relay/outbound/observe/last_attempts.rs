//! The last attempt of each domain, for `gatepost status DOMAIN`.

use jiff::Timestamp;

use crate::smtp::dsn::{self, Action};
use crate::smtp::reply::{EnhancedStatusCode, Status};
use crate::telemetry::last_attempts::LastAttempt;
use crate::telemetry::{DeliveryResult, Monitor};

use super::describe::{demand, reached};
use super::event::{DeliveryObserver, RecipientEnding, RecipientEvent};

/// Keeps the last attempt of each domain.
pub(super) struct LastAttemptWatch {
    pub(super) monitor: Monitor,
}

impl DeliveryObserver for LastAttemptWatch {
    fn observe_recipients(&self, events: &[RecipientEvent<'_>]) {
        for event in events {
            let domain = &event.attempt.host;
            self.monitor.set_last_attempt(domain, last_attempt(event));
        }
    }
}

fn last_attempt(event: &RecipientEvent<'_>) -> LastAttempt {
    let via = event.result.and_then(|result| result.via.as_ref());
    let outcome = match &event.ending {
        RecipientEnding::Delivered(_) => DeliveryResult::Delivered,
        RecipientEnding::Deferred { .. } => DeliveryResult::Deferred,
        RecipientEnding::Held { .. } => DeliveryResult::Held,
        RecipientEnding::Bounced { .. } => DeliveryResult::Bounced,
    };
    let last = event.ending.failure();
    let (at, status, text) = match &event.ending {
        RecipientEnding::Delivered(reply) => {
            let status = reply.enhanced();
            let status = status.unwrap_or_else(|| EnhancedStatusCode::success(Status(0, 0)));
            (Timestamp::now(), status, reply.to_string())
        }
        RecipientEnding::Deferred { last, .. }
        | RecipientEnding::Held { last }
        | RecipientEnding::Bounced { last, .. } => (last.at, last.status, last.text.clone()),
    };
    LastAttempt {
        at,
        queue_id: event.attempt.entry.id,
        outcome,
        status,
        text,
        host: last
            .and_then(|last| last.host.clone())
            .or_else(|| via.map(|via| via.peer.host_name())),
        demand: demand(event),
        tls: via.map(|via| reached(&via.clearance)),
        explanation: last.and_then(|last| last.explanation.clone()),
        reported: outcome == DeliveryResult::Bounced && is_reported(event),
    }
}

/// Returns true if the sender gets a report of a bounce.
fn is_reported(event: &RecipientEvent<'_>) -> bool {
    let envelope = &event.attempt.entry.envelope;
    let recipient = envelope.recipients.get(event.recipient);
    let is_requested =
        |recipient| dsn::is_requested(&envelope.reverse_path, recipient, Action::Failed);
    envelope.reverse_path.mailbox().is_some() && recipient.is_some_and(is_requested)
}
