//! What the relay recorded of its attempts, as its observer heard it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::failure::{Cause, Failure, Persistence, RecipientOutcome};
use crate::outbound::{Attempt, Report};
use crate::tls::{Authentication, NoTls, TlsOutcome};

use super::DemoError;

/// How long the demo waits for one message: far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the relay's attempt for one recipient ended, as the relay recorded it.
#[derive(Clone)]
pub(super) struct Record {
    to: String,
    pub(super) end: End,
}

/// See [`Record`].
#[derive(Clone)]
pub(super) enum End {
    Clear(NoTls),
    Tls { version: String, cipher: String, authentication: Authentication },
    Waits { status: String, reason: String },
    GivenUp { status: String, reason: String },
}

/// What the relay recorded so far.
#[derive(Default)]
pub(super) struct Ledger {
    records: Mutex<Vec<Record>>,
    news: Notify,
}

impl Ledger {
    pub(super) fn enter(&self, attempt: &Attempt, report: &Report) {
        let envelope = &attempt.entry.envelope;
        let record = |result: &crate::outbound::RecipientResult| {
            let to = envelope.recipients.get(result.recipient).map(|recipient| recipient.mailbox.to_string());
            Record { to: to.unwrap_or_default(), end: End::of(result) }
        };
        self.records.lock().unwrap_or_else(PoisonError::into_inner).extend(report.results.iter().map(record));
        self.news.notify_waiters();
    }

    /// The first attempt for a recipient.
    pub(super) async fn wait_for(&self, to: &str) -> Result<Record, DemoError> {
        let found = async {
            loop {
                let news = self.news.notified();
                let records = self.records.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(record) = records.into_iter().find(|record| record.to == to) {
                    return record;
                }
                // Registered before the look, so that nothing falls between.
                news.await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.map_err(|_| DemoError::Silence(to.to_owned()))
    }
}

impl End {
    fn of(result: &crate::outbound::RecipientResult) -> Self {
        let why = |failure: &Failure| match &failure.cause {
            Cause::Policy(refusal) => refusal.unmet.to_string(),
            Cause::RequireTls(_)
            | Cause::Reply { .. }
            | Cause::Ourselves(_)
            | Cause::Discovery(_)
            | Cause::Other(_) => failure.to_string(),
        };
        match (&result.outcome, &result.via) {
            (RecipientOutcome::Delivered(_), Some(via)) => match via.clearance.outcome() {
                TlsOutcome::Clear(reason) => Self::Clear(reason.clone()),
                TlsOutcome::Tls(facts) => Self::Tls {
                    version: facts.version.to_string(),
                    cipher: super::short_cipher(facts.cipher),
                    authentication: via.clearance.authentication().clone(),
                },
            },
            (RecipientOutcome::Delivered(reply), None) => {
                Self::GivenUp { status: "none".to_owned(), reason: format!("delivered without a session?! {reply}") }
            }
            (RecipientOutcome::Deferred(failure) | RecipientOutcome::Held(failure), _) => {
                Self::Waits { status: failure.enhanced(Persistence::Transient).to_string(), reason: why(failure) }
            }
            (RecipientOutcome::Bounced(failure), _) => {
                Self::GivenUp { status: failure.enhanced(Persistence::Permanent).to_string(), reason: why(failure) }
            }
        }
    }
}
