//! The log lines about deliveries: a fixed text each, with fields.

use std::fmt;

use jiff::Timestamp;

use crate::policy::tls::{Clearance, TlsOutcome};
use crate::smtp::envelope::AttemptFailure;
use crate::smtp::reply::Reply;

use super::describe::{demand, reached};
use super::event::{DeliveryObserver, RecipientEnding, RecipientEvent};

/// The target of these lines, for filters in `[log] level`. They say what the scheduler does with a
/// recipient, so its filter applies to them.
const LOG_TARGET: &str = "gatepost::relay::scheduler";

/// Logs the outcome of each recipient.
pub(super) struct DeliveryLog;

impl DeliveryObserver for DeliveryLog {
    fn observe_recipients(&self, events: &[RecipientEvent<'_>]) {
        for event in events {
            match &event.ending {
                RecipientEnding::Delivered(reply) => log_delivered(event, reply),
                RecipientEnding::Deferred { last, next, .. } => log_deferred(event, last, *next),
                RecipientEnding::Held { last } => log_held(event, last),
                RecipientEnding::Bounced { last, .. } => log_bounced(event, last),
            }
        }
    }
}

/// Logs a delivery, with the demand and the TLS of the session.
fn log_delivered(event: &RecipientEvent<'_>, reply: &Reply) {
    let entry = &event.attempt.entry;
    let via = event.result.and_then(|result| result.via.as_ref());
    let tls = via.map(|via| reached(&via.clearance)).unwrap_or_default();
    let hello = via.and_then(|via| reduced(&via.clearance));
    let login = via
        .and_then(|via| via.login.as_ref())
        .map(|login| format!("{} ({})", login.user, login.mechanism));
    let age = entry.accepted.duration_until(Timestamp::now());
    tracing::info!(
        target: LOG_TARGET,
        queue_id = %entry.id, to = %event.mailbox, connector = event.connector.name,
        peer = %OrEmpty(via.map(|via| &via.peer)),
        tls.wanted = demand(event), tls.got = tls, tls.hello = hello, login, reply = %reply,
        delay_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX), "message delivered"
    );
}

/// A value of a field; empty if there is none.
struct OrEmpty<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrEmpty<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |value| value.fmt(f))
    }
}

/// Logs a deferral, with the time of the next attempt.
fn log_deferred(event: &RecipientEvent<'_>, last: &AttemptFailure, next: Timestamp) {
    tracing::warn!(
        target: LOG_TARGET,
        queue_id = %event.attempt.entry.id, to = event.mailbox.to_string(), connector = %event.connector.name,
        tls.wanted = demand(event), status = %last.status, reason = last.text,
        next = %format_args!("{next:.0}"), "delivery deferred"
    );
}

/// Logs that a policy holds a recipient.
fn log_held(event: &RecipientEvent<'_>, last: &AttemptFailure) {
    tracing::warn!(
        target: LOG_TARGET,
        queue_id = %event.attempt.entry.id, to = event.mailbox.to_string(), connector = %event.connector.name,
        tls.wanted = demand(event), status = %last.status, reason = last.text,
        "delivery held until an operator decides"
    );
}

/// Logs a bounce.
fn log_bounced(event: &RecipientEvent<'_>, last: &AttemptFailure) {
    tracing::warn!(
        target: LOG_TARGET,
        queue_id = %event.attempt.entry.id, to = event.mailbox.to_string(), connector = %event.connector.name,
        tls.wanted = demand(event), status = %last.status, reason = last.text, "delivery failed for good"
    );
}

/// Returns the reduced `ClientHello` of a session, if the peer had rejected the usual one.
fn reduced(clearance: &Clearance) -> Option<String> {
    match clearance.outcome() {
        TlsOutcome::Clear(_) => None,
        TlsOutcome::Tls(facts) => facts.reduced.map(|hello| hello.to_string()),
    }
}
