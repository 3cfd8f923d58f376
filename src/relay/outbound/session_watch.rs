//! Builds the event of each session of an attempt, and shows it to the observers.

use std::sync::Arc;

use jiff::Timestamp;

use crate::config::Connector;
use crate::discovery::HopLookup;
use crate::discovery::history::{History, TlsLevel};
use crate::net::route::Hop;
use crate::policy::failure::Peer;
use crate::policy::tls::TlsPolicy;

use super::attempt::Attempt;
use super::dial_record::DialRecord;
use super::observe::{Observers, SessionEvent, SessionOutcome, SessionSteps, record_level};

/// Shows the sessions of one attempt to the observers.
#[derive(Clone, Copy)]
pub(super) struct SessionWatch<'a> {
    pub(super) history: &'a History,
    pub(super) observers: &'a Observers,
    pub(super) attempt: &'a Attempt,
    pub(super) connector: &'a Connector,
}

/// A session, or a hop that was not dialled, for its event.
pub(super) struct ObservedSession<'a> {
    pub(super) hop: &'a Hop,
    pub(super) peer: Option<&'a Peer>,
    pub(super) found: Option<&'a HopLookup>,
    pub(super) policy: Option<&'a TlsPolicy>,
    pub(super) steps: &'a SessionSteps,
}

/// An address that is being dialled. It outlives the dial, so that a session that is cut short has
/// an event too.
pub(super) struct Dialling {
    pub(super) hop: Hop,
    pub(super) peer: Peer,
    pub(super) policy: Option<Arc<TlsPolicy>>,
    pub(super) record: DialRecord,
}

impl SessionWatch<'_> {
    /// Records a session in the downgrade memory, and shows its event to the observers. Returns the
    /// TLS level that the domain showed before, if the connector warns of the difference.
    pub(super) fn observe(
        &self,
        session: &ObservedSession<'_>,
        outcome: SessionOutcome<'_>,
    ) -> Option<TlsLevel> {
        let Self {
            history,
            observers,
            attempt,
            connector,
        } = *self;
        let ObservedSession {
            hop,
            peer,
            found,
            policy,
            steps,
        } = *session;
        let at = Timestamp::now();
        let shown = record_level(history, &attempt.host, &hop.host, outcome, at);
        let event = SessionEvent {
            at,
            attempt,
            connector,
            hop,
            peer,
            found,
            policy,
            steps,
            outcome,
            shown,
        };
        observers.observe_session(&event);
        event.downgraded_from()
    }

    /// As [`SessionWatch::observe`], for the end of a dial, if there is one.
    pub(super) fn observe_dialled(
        &self,
        dialling: Option<Dialling>,
        found: Option<&HopLookup>,
        outcome: SessionOutcome<'_>,
    ) -> Option<TlsLevel> {
        let Dialling {
            hop,
            peer,
            policy,
            record,
        } = dialling?;
        let (policy, steps) = (policy.as_deref(), &record.steps);
        self.observe(
            &ObservedSession {
                hop: &hop,
                peer: Some(&peer),
                found,
                policy,
                steps,
            },
            outcome,
        )
    }

    /// Shows that a hop was not dialled.
    pub(super) fn observe_undialled(
        &self,
        hop: &Hop,
        found: Option<&HopLookup>,
        policy: Option<&TlsPolicy>,
        outcome: SessionOutcome<'_>,
    ) {
        let session = ObservedSession {
            hop,
            peer: None,
            found,
            policy,
            steps: &SessionSteps::default(),
        };
        self.observe(&session, outcome);
    }
}
