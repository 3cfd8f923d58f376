//! The log lines about sessions with next hops.

use crate::policy::connector::describe_demand;
use crate::policy::failure::{Failure, HopAddress};
use crate::policy::tls::{NoTls, Refusal, TlsPolicy};
use crate::relay::outbound::login_result::LoginAttempt;
use crate::telemetry::Monitor;

use super::event::{DeliveryObserver, FirstTry, SessionEvent, SessionOutcome};

/// Logs second tries, fallbacks to the clear, refusals, and logins that fail.
pub(super) struct SessionLog {
    pub(super) monitor: Monitor,
}

impl DeliveryObserver for SessionLog {
    fn observe_session(&self, event: &SessionEvent<'_>) {
        let Some(policy) = event.policy else { return };
        if let SessionOutcome::Unmeetable(refusal) = event.outcome {
            return self.warn_unmeetable(event, policy, refusal);
        }
        let Some(address) = event.peer.map(|peer| &peer.address) else {
            return;
        };
        if let Some(first_try) = &event.steps.first_try {
            self.log_second_try(event, policy, address, first_try);
        }
        if let Some(reason) = &event.steps.fallback {
            self.warn_fallback(event, policy, address, reason);
        }
        if let Some(refusal) = event.refusal() {
            self.warn_refused(event, policy, address, refusal);
        }
        if let (Some(login), SessionOutcome::Failed(failure)) = (&event.steps.login, event.outcome)
        {
            self.report_login(event, address, login, failure);
        }
    }
}

impl SessionLog {
    /// Logs that no handshake of the hop can meet its policy.
    fn warn_unmeetable(&self, event: &SessionEvent<'_>, policy: &TlsPolicy, refusal: &Refusal) {
        let SessionEvent {
            attempt,
            connector,
            hop,
            ..
        } = event;
        let what = "the hop cannot meet the TLS policy; not dialled";
        if self.monitor.should_log(what, &hop.host, refusal) {
            tracing::warn!(
                queue_id = %attempt.entry.id, connector = %connector.name, host = %hop.host,
                tls.wanted = describe_demand(connector, Some(policy), event.at), tls.unmet = %refusal.demand.layer,
                tls.got = %refusal.unmet, "{what}"
            );
        }
    }

    fn log_second_try(
        &self,
        event: &SessionEvent<'_>,
        policy: &TlsPolicy,
        address: &HopAddress,
        FirstTry { fault, second }: &FirstTry,
    ) {
        let SessionEvent {
            attempt,
            connector,
            hop,
            ..
        } = event;
        let what = "the TLS handshake was cut short; trying again with another ClientHello";
        if self.monitor.should_log(what, &hop.host, fault) {
            tracing::info!(
                queue_id = %attempt.entry.id, connector = %connector.name, host = %hop.host, %address,
                tls.wanted = describe_demand(connector, Some(policy), event.at), tls.got = %fault,
                tls.hello = %second, "{what}"
            );
        }
    }

    fn warn_fallback(
        &self,
        event: &SessionEvent<'_>,
        policy: &TlsPolicy,
        address: &HopAddress,
        reason: &NoTls,
    ) {
        let SessionEvent {
            attempt,
            connector,
            hop,
            ..
        } = event;
        let what = "TLS failed, continuing in the clear on a fresh connection";
        if self.monitor.should_log(what, &hop.host, reason) {
            tracing::warn!(
                queue_id = %attempt.entry.id, connector = %connector.name, host = %hop.host, %address,
                tls.wanted = describe_demand(connector, Some(policy), event.at), tls.got = %reason, "{what}"
            );
        }
    }

    /// Logs that we could not log in at a smart host, which an administrator must see to.
    fn report_login(
        &self,
        event: &SessionEvent<'_>,
        address: &HopAddress,
        login: &LoginAttempt,
        failure: &Failure,
    ) {
        let SessionEvent {
            attempt,
            connector,
            hop,
            ..
        } = event;
        let what = "cannot log in at the smart host; its mail waits";
        let reason = Failure {
            peer: None,
            ..failure.clone()
        };
        if self.monitor.should_log(what, &hop.host, &reason) {
            tracing::error!(
                queue_id = %attempt.entry.id, connector = %connector.name, host = %hop.host, %address,
                user = %login.user, reason = %reason, "{what}"
            );
        }
    }

    fn warn_refused(
        &self,
        event: &SessionEvent<'_>,
        policy: &TlsPolicy,
        address: &HopAddress,
        refusal: &Refusal,
    ) {
        let SessionEvent {
            attempt,
            connector,
            hop,
            ..
        } = event;
        let what = "the hop does not meet the TLS policy; message not sent to it";
        if self.monitor.should_log(what, &hop.host, refusal) {
            tracing::warn!(
                queue_id = %attempt.entry.id, connector = %connector.name, host = %hop.host, %address,
                tls.wanted = describe_demand(connector, Some(policy), event.at), tls.unmet = %refusal.demand.layer,
                tls.got = %refusal.unmet, "{what}"
            );
        }
    }
}
