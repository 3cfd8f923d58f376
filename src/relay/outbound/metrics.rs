//! Metrics and log lines of a dialled hop: its handshake, its certificate, and its refusal.

use std::net::SocketAddr;

use jiff::Timestamp;

use crate::config::{Connector, TlsDemand};
use crate::net::route::Hop;
use crate::net::tls_io::{CompletedHandshake, HandshakeError};
use crate::policy::connector::describe_demand;
use crate::policy::tls::{Fallback, Hello, Refusal, TlsPolicy, Verdict};
use crate::telemetry::certificates::{CertificateSummary, PartnerCertificate};
use crate::telemetry::labels::Direction;
use crate::telemetry::recent::ListedRefusal;
use crate::telemetry::{HandshakeResult, Monitor, PolicyDecision};

use super::Attempt;
use super::dial::Target;

/// A hop that was not dialled.
pub(super) struct Undialled<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) connector: &'a Connector,
    pub(super) hop: &'a Hop,
}

impl Undialled<'_> {
    /// Logs that no handshake of the hop can meet its policy.
    pub(super) fn warn(&self, monitor: &Monitor, policy: &TlsPolicy, refusal: &Refusal) {
        let Self {
            attempt,
            connector,
            hop,
        } = self;
        let what = "the hop cannot meet the TLS policy; not dialled";
        if monitor.should_log(what, &hop.host, refusal) {
            tracing::warn!(
                queue_id = %attempt.entry.id, connector = %connector.name, host = %hop.host,
                tls.wanted = describe_demand(connector, Some(policy), Timestamp::now()), tls.unmet = %refusal.demand.layer,
                tls.got = %refusal.unmet, "{what}"
            );
        }
    }
}

impl Target<'_> {
    /// Counts a finished handshake.
    pub(super) fn count_handshake(&self, seen: Option<&CompletedHandshake>) {
        let end = seen.map_or(HandshakeResult::Failed, |seen| {
            HandshakeResult::Completed(seen.version())
        });
        self.monitor.handshake(Direction::Outbound, end);
    }

    /// Counts a verdict, and records the certificate of the session for the certificate watch.
    pub(super) fn record_verdict(&self, shown: Option<CertificateSummary>, verdict: &Verdict) {
        let (end, refused) = match verdict {
            Verdict::Cleared(_) => (PolicyDecision::Cleared, None),
            Verdict::Redial(_) => (PolicyDecision::FellBack, None),
            Verdict::Refused(refusal) => (PolicyDecision::Refused, Some(refusal.to_string())),
        };
        let (monitor, connector) = (self.monitor, self.connector.name.as_str());
        monitor.judged(Direction::Outbound, connector, self.policy.into(), end);
        // A session is a partner's only if the connector demands TLS and no exception waives that.
        let forced = (&self.connector.outbound.tls, self.policy);
        if let (Some(shown), (TlsDemand::Forced { .. }, TlsPolicy::Forced(_))) = (shown, forced) {
            let (direction, host) = (Direction::Outbound, self.hop.host.to_string());
            let sent = PartnerCertificate {
                connector,
                direction,
                host,
                from: None,
                shown,
                refused,
            };
            monitor.certificates().store_sent(sent, Timestamp::now());
        }
    }

    /// Returns the demand on this hop, for the log.
    fn describe_demand(&self) -> String {
        describe_demand(self.connector, Some(self.policy), Timestamp::now())
    }

    pub(super) fn log_second_try(&self, address: SocketAddr, hello: Hello, fault: &HandshakeError) {
        let what = "the TLS handshake was cut short; trying again with another ClientHello";
        if self.monitor.should_log(what, &self.hop.host, fault) {
            tracing::info!(
                queue_id = self.queue_id(), connector = %self.connector.name, host = %self.hop.host, %address,
                tls.wanted = self.describe_demand(), tls.got = %fault, tls.hello = %hello, "{what}"
            );
        }
    }

    pub(super) fn warn_fallback(&self, address: SocketAddr, fallback: &Fallback) {
        let what = "TLS failed, continuing in the clear on a fresh connection";
        if self
            .monitor
            .should_log(what, &self.hop.host, fallback.reason())
        {
            tracing::warn!(
                queue_id = self.queue_id(), connector = %self.connector.name, host = %self.hop.host, %address,
                tls.wanted = self.describe_demand(), tls.got = %fallback.reason(), "{what}"
            );
        }
    }

    pub(super) fn warn_refused(&self, address: SocketAddr, refusal: &Refusal) {
        let what = "the hop does not meet the TLS policy; message not sent to it";
        let monitor = self.monitor;
        if monitor.should_log(what, &self.hop.host, refusal) {
            tracing::warn!(
                queue_id = self.queue_id(), connector = %self.connector.name, host = %self.hop.host, %address,
                tls.wanted = self.describe_demand(), tls.unmet = %refusal.demand.layer, tls.got = %refusal.unmet, "{what}"
            );
        }
        monitor.list_refusal(ListedRefusal {
            at: Timestamp::now(),
            direction: Direction::Outbound,
            connector: self.connector.name.clone(),
            peer: self.hop.host.to_string(),
            reason: refusal.to_string(),
            times: 1,
        });
    }
}
