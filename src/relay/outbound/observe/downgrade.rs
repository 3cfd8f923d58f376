//! Records sessions in the downgrade memory, and warns if a domain's TLS became worse.

use jiff::Timestamp;

use crate::config::OnDowngrade;
use crate::discovery::history::{DowngradeEvent, History, LevelChange, TlsLevel, issuer};
use crate::policy::tls::Clearance;
use crate::smtp::address::Host;
use crate::telemetry::Monitor;
use crate::telemetry::recent::ListedDowngrade;

use super::event::{DeliveryObserver, SessionEvent, SessionOutcome};

/// Records the TLS level of a session in the downgrade memory, if the session shows one. Returns
/// the level, and the change against the memory, for the event of the session.
pub(in crate::relay::outbound) fn record_level(
    history: &History,
    domain: &Host,
    host: &Host,
    outcome: SessionOutcome<'_>,
    at: Timestamp,
) -> Option<(TlsLevel, LevelChange)> {
    let cleared = |clearance: &Clearance| {
        let level = TlsLevel::of_clearance(clearance)?;
        Some((
            level,
            history.record(domain, host, level, issuer(clearance.outcome()), at),
        ))
    };
    match outcome {
        SessionOutcome::Cleared(clearance) | SessionOutcome::Reused(clearance) => {
            cleared(clearance)
        }
        SessionOutcome::Failed(failure) => {
            let level = TlsLevel::of_refusal(failure.refusal()?)?;
            Some((level, history.record(domain, host, level, None, at)))
        }
        SessionOutcome::Unmeetable(_) | SessionOutcome::Unusable(_) => None,
    }
}

/// Warns of downgrades, and ends them.
pub(super) struct DowngradeWatch {
    pub(super) history: History,
    pub(super) monitor: Monitor,
}

impl DeliveryObserver for DowngradeWatch {
    fn observe_session(&self, event: &SessionEvent<'_>) {
        let (domain, host) = (&event.attempt.host, &event.hop.host);
        let Some((level, change)) = event.shown else {
            return;
        };
        let LevelChange::Worse { was } = change else {
            return self.monitor.end_downgrade(domain, host);
        };
        match (event.outcome, event.connector.outbound.downgrade) {
            (SessionOutcome::Cleared(_) | SessionOutcome::Reused(_), OnDowngrade::Allow) => {
                self.monitor.end_downgrade(domain, host);
            }
            (
                SessionOutcome::Cleared(_) | SessionOutcome::Reused(_),
                OnDowngrade::Warn | OnDowngrade::Refuse,
            ) => {
                let connector = &event.connector.name;
                self.monitor.list_downgrade(ListedDowngrade {
                    at: event.at,
                    connector: connector.clone(),
                    domain: domain.to_string(),
                    host: host.to_string(),
                    was: was.level.to_string(),
                    got: level.to_string(),
                });
                self.history.warn(
                    &DowngradeEvent {
                        connector,
                        domain,
                        host,
                        was,
                        got: level,
                    },
                    event.at,
                );
            }
            // The refusal itself is logged elsewhere.
            (
                SessionOutcome::Failed(_)
                | SessionOutcome::Unmeetable(_)
                | SessionOutcome::Unusable(_),
                _,
            ) => {}
        }
    }
}
