//! The metrics of sessions: handshakes, verdicts, the certificates of partners, and the list of
//! refusals.

use crate::config::TlsDemand;
use crate::policy::tls::TlsPolicy;
use crate::telemetry::Monitor;
use crate::telemetry::certificates::PartnerCertificate;
use crate::telemetry::labels::Direction;
use crate::telemetry::recent::ListedRefusal;

use super::event::{DeliveryObserver, SessionEvent, SessionOutcome};

/// Counts handshakes, verdicts and logins, and records certificates and refusals.
pub(super) struct SessionMetrics {
    pub(super) monitor: Monitor,
}

impl DeliveryObserver for SessionMetrics {
    fn observe_session(&self, event: &SessionEvent<'_>) {
        for handshake in &event.steps.handshakes {
            self.monitor.handshake(Direction::Outbound, *handshake);
        }
        if let Some(login) = &event.steps.login {
            let (connector, verdict) = (event.connector.name.as_str(), login.verdict.as_str());
            self.monitor
                .smart_host_login(connector, login.mechanism, verdict);
        }
        if let Some(policy) = event.policy {
            self.count_verdicts(event, policy);
        }
        if let (SessionOutcome::Failed(_), Some(refusal)) = (event.outcome, event.refusal()) {
            self.monitor.list_refusal(ListedRefusal {
                at: event.at,
                direction: Direction::Outbound,
                connector: event.connector.name.clone(),
                peer: event.hop.host.to_string(),
                reason: refusal.to_string(),
                times: 1,
            });
        }
    }
}

impl SessionMetrics {
    /// Counts the verdicts, and records the certificate of a partner for the certificate watch.
    fn count_verdicts(&self, event: &SessionEvent<'_>, policy: &TlsPolicy) {
        let connector = event.connector.name.as_str();
        // A session is a partner's only if the connector demands TLS and no exception waives that.
        let forced = (&event.connector.outbound.tls, policy);
        let is_of_partner = matches!(forced, (TlsDemand::Forced { .. }, TlsPolicy::Forced(_)));
        for verdict in &event.steps.verdicts {
            self.monitor.judged(
                Direction::Outbound,
                connector,
                policy.into(),
                verdict.decision,
            );
            if let Some(shown) = verdict.certificate.clone().filter(|_| is_of_partner) {
                let (direction, host) = (Direction::Outbound, event.hop.host.to_string());
                let refused = verdict.refused.clone();
                let sent = PartnerCertificate {
                    connector,
                    direction,
                    host,
                    from: None,
                    shown,
                    refused,
                };
                self.monitor.certificates().store_sent(sent, event.at);
            }
        }
    }
}
