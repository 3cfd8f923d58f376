//! Records sessions in the downgrade memory, and warns if a domain's TLS became worse.

use jiff::Timestamp;

use crate::config::{self, Connector};
use crate::discovery::history::{DowngradeEvent, History, LevelChange, TlsLevel, issuer};
use crate::net::route::Hop;
use crate::policy::failure::{Cause, Failure, RequireTlsUnmet};
use crate::policy::tls::Clearance;
use crate::telemetry::Monitor;
use crate::telemetry::recent::ListedDowngrade;

use super::Attempt;

/// The downgrade memory, for the sessions of one attempt with one hop.
pub(super) struct HopHistory<'a> {
    pub(super) history: &'a History,
    pub(super) monitor: &'a Monitor,
    pub(super) attempt: &'a Attempt,
    pub(super) hop: &'a Hop,
}

impl HopHistory<'_> {
    /// Records a cleared session. If the domain showed a higher level before, and the connector
    /// does not allow that, logs a warning and returns the earlier level.
    pub(super) fn record_cleared(
        &self,
        connector: &Connector,
        clearance: &Clearance,
    ) -> Option<TlsLevel> {
        let level = TlsLevel::of_clearance(clearance)?;
        let now = Timestamp::now();
        let (domain, host) = (&self.attempt.host, &self.hop.host);
        let was = match self
            .history
            .record(domain, host, level, issuer(clearance.outcome()), now)
        {
            LevelChange::Worse { was } => was,
            LevelChange::First | LevelChange::Same | LevelChange::Better { .. } => {
                self.monitor.end_downgrade(domain, host);
                return None;
            }
        };
        match connector.outbound.downgrade {
            config::OnDowngrade::Allow => {
                self.monitor.end_downgrade(domain, host);
                None
            }
            // With `refuse`, a session that lost TLS is refused by the judge before this; a smaller
            // loss only warns.
            config::OnDowngrade::Warn | config::OnDowngrade::Refuse => {
                self.monitor.list_downgrade(ListedDowngrade {
                    at: now,
                    connector: connector.name.clone(),
                    domain: domain.to_string(),
                    host: host.to_string(),
                    was: was.level.to_string(),
                    got: level.to_string(),
                });
                self.history.warn(
                    &DowngradeEvent {
                        connector: &connector.name,
                        domain,
                        host,
                        was,
                        got: level,
                    },
                    now,
                );
                Some(was.level)
            }
        }
    }

    /// Records the TLS level of a refused session, if the refusal shows it.
    pub(super) fn record_refused(&self, failure: &Failure) {
        let refusal = match &failure.cause {
            Cause::Policy(refusal) | Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => {
                refusal
            }
            Cause::RequireTls(RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)
            | Cause::Reply { .. }
            | Cause::Ourselves(_)
            | Cause::Discovery(_)
            | Cause::Other(_) => return,
        };
        if let Some(level) = TlsLevel::of_refusal(refusal) {
            let (domain, host) = (&self.attempt.host, &self.hop.host);
            match self
                .history
                .record(domain, host, level, None, Timestamp::now())
            {
                // The refusal itself is logged elsewhere.
                LevelChange::Worse { .. } => {}
                LevelChange::First | LevelChange::Same | LevelChange::Better { .. } => {
                    self.monitor.end_downgrade(domain, host);
                }
            }
        }
    }
}
