//! The results of the relay's delivery attempts, as an observer in the process sees them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::policy::failure::{Cause, Failure, Persistence, RecipientOutcome};
use crate::policy::tls::{Authentication, NoTls, TlsOutcome};
use crate::relay::outbound::{DeliveryObserver, RecipientEvent, RecipientResult};

use super::error::DemoError;

/// The time limit for one message, far longer than it takes.
const WAIT_TIME: Duration = Duration::from_secs(20);

/// The result of an attempt for one recipient.
#[derive(Clone)]
pub(super) struct AttemptRecord {
    to: String,
    pub(super) end: AttemptEnd,
}

/// The outcome of an attempt for one recipient, with the TLS of the session.
#[derive(Clone)]
pub(super) enum AttemptEnd {
    /// Delivered in the clear.
    Clear(NoTls),
    /// Delivered under TLS.
    Tls {
        version: String,
        cipher: String,
        authentication: Authentication,
    },
    /// Deferred or held.
    Deferred {
        status: String,
        reason: String,
    },
    Bounced {
        status: String,
        reason: String,
    },
}

/// The results of all attempts so far.
#[derive(Default)]
pub(super) struct AttemptLog {
    records: Mutex<Vec<AttemptRecord>>,
    added: Notify,
}

impl DeliveryObserver for AttemptLog {
    fn observe_recipients(&self, events: &[RecipientEvent<'_>]) {
        let records = events.iter().filter_map(|event| {
            Some(AttemptRecord {
                to: event.mailbox.to_string(),
                end: AttemptEnd::of(event.result?),
            })
        });
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(records);
        self.added.notify_waiters();
    }
}

impl AttemptLog {
    /// Waits for the first attempt for a recipient and returns its result.
    pub(super) async fn wait_for(&self, to: &str) -> Result<AttemptRecord, DemoError> {
        let found = async {
            loop {
                // Created before the list is read, so that a record that is added in between is not
                // missed.
                let added = self.added.notified();
                let records = self
                    .records
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                if let Some(record) = records.into_iter().find(|record| record.to == to) {
                    return record;
                }
                added.await;
            }
        };
        tokio::time::timeout(WAIT_TIME, found)
            .await
            .map_err(|_| DemoError::NoAttempt(to.to_owned()))
    }
}

impl AttemptEnd {
    fn of(result: &RecipientResult) -> Self {
        let why = |failure: &Failure| match &failure.cause {
            Cause::Policy(refusal) => refusal.unmet.to_string(),
            Cause::RequireTls(_)
            | Cause::Reply { .. }
            | Cause::Login(_)
            | Cause::Ourselves(_)
            | Cause::Discovery(_)
            | Cause::Other(_) => failure.to_string(),
        };
        match (&result.outcome, &result.via) {
            (RecipientOutcome::Delivered(_), Some(via)) => match via.clearance.outcome() {
                TlsOutcome::Clear(reason) => Self::Clear(reason.clone()),
                TlsOutcome::Tls(facts) => Self::Tls {
                    version: facts.version.to_string(),
                    cipher: short_cipher(facts.cipher),
                    authentication: via.clearance.authentication().clone(),
                },
            },
            (RecipientOutcome::Delivered(reply), None) => Self::Bounced {
                status: "none".to_owned(),
                reason: format!("delivered without a session: {reply}"),
            },
            (RecipientOutcome::Deferred(failure) | RecipientOutcome::Held(failure), _) => {
                Self::Deferred {
                    status: failure.enhanced(Persistence::Transient).to_string(),
                    reason: why(failure),
                }
            }
            (RecipientOutcome::Bounced(failure), _) => Self::Bounced {
                status: failure.enhanced(Persistence::Permanent).to_string(),
                reason: why(failure),
            },
        }
    }
}

/// Returns the name of a cipher suite without its prefix.
pub(super) fn short_cipher(name: &str) -> String {
    name.trim_start_matches("TLS13_")
        .trim_start_matches("TLS_")
        .to_owned()
}
