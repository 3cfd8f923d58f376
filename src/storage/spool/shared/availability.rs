//! Knows whether the database answers, and logs when that changes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::SpoolError;

/// The availability of the database, as the latest statements show it.
#[derive(Debug, Default)]
pub(super) struct Availability(Mutex<Option<String>>);

impl Availability {
    /// Records an answer.
    pub(super) fn answered(&self) {
        if self.reason().take().is_some() {
            tracing::info!(
                "the database is back: mail is accepted, and results that waited are stored"
            );
        }
    }

    /// Records that the database did not answer.
    pub(super) fn failed(&self, reason: &str) {
        let mut known = self.reason();
        if known.is_none() {
            tracing::error!(
                reason,
                "the database does not answer: new mail is rejected with 451, and results wait; retrying"
            );
        }
        *known = Some(reason.to_owned());
    }

    /// Checks that the database has answered.
    pub(super) fn check(&self) -> Result<(), SpoolError> {
        match &*self.reason() {
            None => Ok(()),
            Some(reason) => Err(SpoolError::Io(format!(
                "the database does not answer: {reason}"
            ))),
        }
    }

    fn reason(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
