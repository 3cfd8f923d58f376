//! The log lines about deliveries: one fixed sentence each, with fields.

use jiff::Timestamp;

use crate::address::Mailbox;
use crate::config::TlsDemand;
use crate::envelope::Trouble;
use crate::outbound::{Attempt, RecipientResult};
use crate::smtp::reply::Reply;
use crate::tls::{Clearance, TlsOutcome};

pub(super) fn delivered(attempt: &Attempt, result: &RecipientResult, to: &Mailbox, reply: &Reply) {
    let (peer, tls) = match &result.via {
        Some(via) => (via.peer.as_str(), reached(&via.clearance)),
        None => ("", String::new()),
    };
    let hello = result.via.as_ref().and_then(|via| reduced(&via.clearance));
    let age = attempt.entry.accepted.duration_until(Timestamp::now());
    tracing::info!(
        queue_id = %attempt.entry.id, to = to.to_string(), connector = %attempt.connector.name, peer,
        tls.wanted = wanted(attempt), tls.got = tls, tls.hello = hello, reply = reply.to_string(),
        delay_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX), "message delivered"
    );
}

pub(super) fn deferred(attempt: &Attempt, to: &Mailbox, last: &Trouble, next: Timestamp) {
    tracing::warn!(
        queue_id = %attempt.entry.id, to = to.to_string(), connector = %attempt.connector.name,
        tls.wanted = wanted(attempt), status = %last.status, reason = last.text, next = %format_args!("{next:.0}"), "delivery deferred"
    );
}

pub(super) fn held(attempt: &Attempt, to: &Mailbox, last: &Trouble) {
    tracing::warn!(
        queue_id = %attempt.entry.id, to = to.to_string(), connector = %attempt.connector.name,
        tls.wanted = wanted(attempt), status = %last.status, reason = last.text, "delivery held until an operator decides"
    );
}

pub(super) fn failed(attempt: &Attempt, to: &Mailbox, last: &Trouble) {
    tracing::warn!(
        queue_id = %attempt.entry.id, to = to.to_string(), connector = %attempt.connector.name,
        tls.wanted = wanted(attempt), status = %last.status, reason = last.text, "delivery failed for good"
    );
}

/// What the connector wants, in a word: what exactly was not met is in the reason.
fn wanted(attempt: &Attempt) -> &'static str {
    match attempt.connector.outbound.tls {
        TlsDemand::Off => "off",
        TlsDemand::Opportunistic => "opportunistic",
        TlsDemand::Forced { .. } => "forced",
    }
}

/// The smaller `ClientHello` of a session whose peer had not taken the usual one.
fn reduced(clearance: &Clearance) -> Option<String> {
    match clearance.outcome() {
        TlsOutcome::Clear(_) => None,
        TlsOutcome::Tls(facts) => facts.reduced.map(|hello| hello.to_string()),
    }
}

/// What a session reached, in a word or two.
fn reached(clearance: &Clearance) -> String {
    match clearance.outcome() {
        TlsOutcome::Clear(reason) => format!("none: {reason}"),
        TlsOutcome::Tls(facts) => format!("{} {} {}", facts.version, facts.cipher, clearance.authentication()),
    }
}
