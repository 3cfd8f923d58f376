//! The acceptances that are on record although the stored messages still have their facts, because the
//! spool had no room for the state of an attempt. Without this, each later attempt would record the
//! acceptance again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::smtp::envelope::{Envelope, QueueId};

/// The most messages that are remembered. A further one may have its acceptance recorded twice.
const MOST: usize = 100_000;

/// The messages whose acceptance must not be recorded again.
#[derive(Debug, Default)]
pub(super) struct RecordedAcceptances {
    ids: Mutex<BTreeSet<QueueId>>,
    /// True if there are any. It spares most results the lock.
    is_any: AtomicBool,
}

impl RecordedAcceptances {
    /// Returns whether the acceptance of a message is on record.
    pub(super) fn has(&self, id: QueueId) -> bool {
        self.is_any.load(Ordering::Acquire) && self.ids().contains(&id)
    }

    /// Updates the entry of a message after a result, whose records are written: its envelope was
    /// `before`, and is now stored as `after`.
    pub(super) fn update(&self, id: QueueId, before: &Envelope, after: &Envelope) {
        if before.arrival.is_none() || (after.arrival.is_none() && !self.has(id)) {
            return;
        }
        let mut ids = self.ids();
        if after.arrival.is_none() {
            ids.remove(&id);
        } else if ids.len() < MOST {
            ids.insert(id);
        }
        self.is_any.store(!ids.is_empty(), Ordering::Release);
    }

    fn ids(&self) -> MutexGuard<'_, BTreeSet<QueueId>> {
        // No code panics while it holds the lock.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
