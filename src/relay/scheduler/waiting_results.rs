//! The results that wait until the spool can store them. There may be thousands, so the log has a line
//! when the first one waits, and another one when none does any more.

use std::sync::{Arc, Mutex, PoisonError};

use crate::smtp::envelope::QueueId;
use crate::storage::spool::SpoolError;

/// The number of results that wait.
#[derive(Debug, Clone, Default)]
pub(super) struct WaitingResults(Arc<Mutex<WaitingCount>>);

#[derive(Debug, Default)]
struct WaitingCount {
    now: usize,
    /// The number of all that have waited since none did.
    all: usize,
}

impl WaitingCount {
    /// Counts a result. Returns true if it is the first one.
    fn add(&mut self) -> bool {
        self.now += 1;
        self.all += 1;
        self.all == 1
    }

    /// Counts the end of a wait. Returns the number of all that have waited, if it is the last one.
    fn end(&mut self) -> Option<usize> {
        self.now -= 1;
        (self.now == 0).then(|| std::mem::take(&mut self.all))
    }
}

/// A result that waits, until this is dropped.
#[derive(Debug)]
pub(super) struct WaitingResult(WaitingResults);

impl WaitingResults {
    /// Counts a result that could not be stored and is tried again.
    pub(super) fn begin(&self, id: QueueId, error: &SpoolError) -> WaitingResult {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if count.add() {
            tracing::error!(queue_id = %id, %error, "cannot store attempt results; retrying");
        }
        WaitingResult(self.clone())
    }
}

impl Drop for WaitingResult {
    fn drop(&mut self) {
        let mut count = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(results) = count.end() {
            tracing::info!(results, "no attempt result waits to be stored any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_one_are_logged() {
        let mut count = WaitingCount::default();
        for _ in 0..2 {
            assert!(count.add());
            assert!(!count.add());
            assert_eq!(count.end(), None);
            assert!(!count.add(), "another one waits still");
            assert_eq!((count.end(), count.end()), (None, Some(3)));
        }
    }

    #[test]
    fn a_result_waits_until_it_is_dropped() {
        let waiting = WaitingResults::default();
        let now = || waiting.0.lock().expect("no panic").now;
        let id = QueueId::from_number(1).expect("small");
        let first = waiting.begin(id, &SpoolError::Closed);
        let second = waiting.begin(id, &SpoolError::Closed);
        assert_eq!(now(), 2);
        drop(first);
        assert_eq!(now(), 1);
        drop(second);
        assert_eq!(now(), 0);
    }
}
