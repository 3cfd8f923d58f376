//! Counts the attempts that a TLS policy refused, for the status of the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::failure::Cause;

use super::event::{DeliveryObserver, EventOrigin, RecipientEvent};

/// Counts refused attempts.
pub(super) struct RefusalCount {
    pub(super) attempts: Arc<AtomicU64>,
}

impl DeliveryObserver for RefusalCount {
    fn observe_recipients(&self, events: &[RecipientEvent<'_>]) {
        let is_refused = |event: &RecipientEvent<'_>| {
            event.origin == EventOrigin::Attempt
                && event.failure().is_some_and(|failure| {
                    matches!(failure.cause, Cause::Policy(_) | Cause::RequireTls(_))
                })
        };
        if events.iter().any(is_refused) {
            self.attempts.fetch_add(1, Ordering::Relaxed);
        }
    }
}
