//! The log lines about deliveries: a fixed text each, with fields.

use jiff::Timestamp;

use crate::config::Connector;
use crate::policy::connector::describe_demand;
use crate::policy::tls::{Clearance, TlsOutcome};
use crate::relay::outbound::{Attempt, RecipientResult};
use crate::smtp::address::Mailbox;
use crate::smtp::envelope::AttemptFailure;
use crate::smtp::reply::Reply;

/// Logs the outcomes of one attempt. `connector` is the connector that the attempt used.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeliveryLog<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) connector: &'a Connector,
}

impl DeliveryLog<'_> {
    /// Logs a delivery, with the demand and the TLS of the session.
    pub(super) fn delivered(&self, result: &RecipientResult, to: &Mailbox, reply: &Reply) {
        let Self { attempt, connector } = self;
        let (peer, tls) = match &result.via {
            Some(via) => (via.peer.as_str(), reached(&via.clearance)),
            None => ("", String::new()),
        };
        let hello = result.via.as_ref().and_then(|via| reduced(&via.clearance));
        let age = attempt.entry.accepted.duration_until(Timestamp::now());
        tracing::info!(
            queue_id = %attempt.entry.id, to = to.to_string(), connector = %connector.name, peer,
            tls.wanted = self.describe_demand(Some(result)), tls.got = tls, tls.hello = hello, reply = reply.to_string(),
            delay_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX), "message delivered"
        );
    }

    /// Logs a deferral, with the time of the next attempt.
    pub(super) fn deferred(
        &self,
        result: &RecipientResult,
        to: &Mailbox,
        last: &AttemptFailure,
        next: Timestamp,
    ) {
        tracing::warn!(
            queue_id = %self.attempt.entry.id, to = to.to_string(), connector = %self.connector.name,
            tls.wanted = self.describe_demand(Some(result)), status = %last.status, reason = last.text,
            next = %format_args!("{next:.0}"), "delivery deferred"
        );
    }

    /// Logs that a policy holds a recipient.
    pub(super) fn held(&self, result: &RecipientResult, to: &Mailbox, last: &AttemptFailure) {
        tracing::warn!(
            queue_id = %self.attempt.entry.id, to = to.to_string(), connector = %self.connector.name,
            tls.wanted = self.describe_demand(Some(result)), status = %last.status, reason = last.text,
            "delivery held until an operator decides"
        );
    }

    /// Logs a bounce. `result` is `None` for a message that expired without an attempt.
    pub(super) fn failed(
        &self,
        result: Option<&RecipientResult>,
        to: &Mailbox,
        last: &AttemptFailure,
    ) {
        tracing::warn!(
            queue_id = %self.attempt.entry.id, to = to.to_string(), connector = %self.connector.name,
            tls.wanted = self.describe_demand(result), status = %last.status, reason = last.text, "delivery failed for good"
        );
    }

    /// Returns the demand on the hop where the outcome was decided.
    fn describe_demand(&self, result: Option<&RecipientResult>) -> String {
        let policy = result.and_then(|result| result.policy.as_deref());
        describe_demand(self.connector, policy, Timestamp::now())
    }
}

/// Returns the reduced `ClientHello` of a session, if the peer had rejected the usual one.
fn reduced(clearance: &Clearance) -> Option<String> {
    match clearance.outcome() {
        TlsOutcome::Clear(_) => None,
        TlsOutcome::Tls(facts) => facts.reduced.map(|hello| hello.to_string()),
    }
}

/// Describes the TLS of a session: version, cipher suite and authentication, or the reason for
/// none.
fn reached(clearance: &Clearance) -> String {
    match clearance.outcome() {
        TlsOutcome::Clear(reason) => format!("none: {reason}"),
        TlsOutcome::Tls(facts) => format!(
            "{} {} {}",
            facts.version,
            facts.cipher,
            clearance.authentication()
        ),
    }
}
