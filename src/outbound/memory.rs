//! What a session showed, for the downgrade memory; and the word that is due where a domain lost its TLS.

use jiff::Timestamp;

use crate::config::{self, Connector};
use crate::discovery::history::{DowngradeEvent, History, LevelChange, TlsLevel, issuer};
use crate::failure::{Cause, Failure, RequireTlsUnmet};
use crate::monitor::Monitor;
use crate::monitor::recent::ListedDowngrade;
use crate::route::Hop;
use crate::tls::Clearance;

use super::Attempt;

/// The memory, for the sessions of one attempt with one hop.
pub(super) struct Memory<'a> {
    pub(super) history: &'a History,
    pub(super) monitor: &'a Monitor,
    pub(super) attempt: &'a Attempt,
    pub(super) hop: &'a Hop,
}

impl Memory<'_> {
    /// A session may carry mail. Where the domain showed more before, and the connector does not allow
    /// that in silence, it is said, and what it was is given.
    pub(super) fn cleared(&self, connector: &Connector, clearance: &Clearance) -> Option<TlsLevel> {
        let level = TlsLevel::of_clearance(clearance)?;
        let now = Timestamp::now();
        let (domain, host) = (&self.attempt.host, &self.hop.host);
        let was = match self.history.record(domain, host, level, issuer(clearance.outcome()), now) {
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
            // Refused where TLS is lost; what goes on all the same has lost less than that.
            config::OnDowngrade::Warn | config::OnDowngrade::Refuse => {
                self.monitor.list_downgrade(ListedDowngrade {
                    at: now,
                    connector: connector.name.clone(),
                    domain: domain.to_string(),
                    host: host.to_string(),
                    was: was.level.to_string(),
                    got: level.to_string(),
                });
                self.history.warn(&DowngradeEvent { connector: &connector.name, domain, host, was, got: level }, now);
                Some(was.level)
            }
        }
    }

    /// A session was refused for what it lacked: that is remembered too, as far as it says how far TLS came.
    pub(super) fn failed(&self, failure: &Failure) {
        let refusal = match &failure.cause {
            Cause::Policy(refusal) | Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => refusal,
            Cause::RequireTls(RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)
            | Cause::Reply { .. }
            | Cause::Ourselves(_)
            | Cause::Discovery(_)
            | Cause::Other(_) => return,
        };
        if let Some(level) = TlsLevel::of_refusal(&refusal.unmet) {
            let (domain, host) = (&self.attempt.host, &self.hop.host);
            match self.history.record(domain, host, level, None, Timestamp::now()) {
                // The refusal is logged by itself.
                LevelChange::Worse { .. } => {}
                LevelChange::First | LevelChange::Same | LevelChange::Better { .. } => {
                    self.monitor.end_downgrade(domain, host);
                }
            }
        }
    }
}
