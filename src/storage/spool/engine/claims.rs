//! The claims of the owner of the folder: which messages are its own.
//!
//! The lock of the folder keeps all other owners out, so nothing of this is on disk. What an earlier
//! run has left is nobody's until it is claimed; what is committed is this owner's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::claim::{Claim, Claimed, OwnerEpoch};
use super::super::{SpoolError, StoredMessage};
use crate::smtp::envelope::QueueId;

/// The messages of this owner.
#[derive(Debug)]
pub(super) struct ClaimBook {
    epoch: OwnerEpoch,
    /// The first id of this run. Earlier messages were left by an earlier run.
    first_own: QueueId,
    state: Mutex<ClaimState>,
    /// True if messages were given back. It spares most changes the lock.
    has_released: AtomicBool,
}

#[derive(Debug, Default)]
struct ClaimState {
    /// The ids of earlier runs that were claimed.
    claimed: IdRanges,
    /// The messages that were given back and not claimed since.
    released: BTreeSet<QueueId>,
}

impl ClaimState {
    fn is_free(&self, id: QueueId, first_own: QueueId) -> bool {
        self.released.contains(&id) || (id < first_own && !self.claimed.contains(id))
    }
}

/// Ids in ranges: the last of each by its first. Ranges that touch are one.
#[derive(Debug, Default)]
struct IdRanges(BTreeMap<u64, u64>);

impl IdRanges {
    fn contains(&self, id: QueueId) -> bool {
        let number = id.number();
        let before = self.0.range(..=number).next_back();
        before.is_some_and(|(_, last)| number <= *last)
    }

    fn insert(&mut self, mut first: u64, mut last: u64) {
        while let Some((&start, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            (first, last) = (first.min(start), last.max(end));
            self.0.remove(&start);
        }
        self.0.insert(first, last);
    }
}

impl ClaimBook {
    /// Starts a run whose messages have ids from this one on.
    pub(super) fn new(first_own: QueueId) -> Self {
        Self {
            epoch: OwnerEpoch::of_process(),
            first_own,
            state: Mutex::default(),
            has_released: AtomicBool::new(false),
        }
    }

    /// Returns the claim of a message that is this owner's from now on.
    pub(super) fn claim_of(&self, id: QueueId) -> Claim {
        Claim::of_owner(id, self.epoch)
    }

    /// Checks that a claim is this owner's and holds.
    pub(super) fn check(&self, claim: Claim) -> Result<(), SpoolError> {
        let is_ours = claim.epoch() == self.epoch
            && !(self.has_released.load(Ordering::Acquire)
                && self.state().released.contains(&claim.id()));
        if is_ours {
            Ok(())
        } else {
            Err(not_owner(claim.id()))
        }
    }

    /// Returns the claim of a message that is this owner's already.
    pub(super) fn check_id(&self, id: QueueId) -> Result<Claim, SpoolError> {
        if self.state().is_free(id, self.first_own) {
            return Err(not_owner(id));
        }
        Ok(self.claim_of(id))
    }

    /// Gives messages back.
    pub(super) fn release(&self, claims: &[Claim]) -> Result<(), SpoolError> {
        for claim in claims {
            self.check(*claim)?;
        }
        let mut state = self.state();
        state.released.extend(claims.iter().map(Claim::id));
        let has_released = !state.released.is_empty();
        self.has_released.store(has_released, Ordering::Release);
        Ok(())
    }

    /// Returns whether a message after this one may be nobody's.
    pub(super) fn may_have_free(&self, after: Option<QueueId>) -> bool {
        after.is_none_or(|after| after < self.first_own) || !self.state().released.is_empty()
    }

    /// Claims what is free among the messages after `after`, of which these are all up to the last of
    /// them. Of two claims at once of the same page, one gets a message.
    pub(super) fn take_free(
        &self,
        after: Option<QueueId>,
        page: Vec<StoredMessage>,
    ) -> Vec<Claimed<StoredMessage>> {
        let Some(last) = page.last().map(|stored| stored.id.number()) else {
            return Vec::new();
        };
        let mut state = self.state();
        let free = page
            .into_iter()
            .filter(|stored| state.is_free(stored.id, self.first_own));
        let free: Vec<_> = free.collect();
        for stored in &free {
            state.released.remove(&stored.id);
        }
        let first = after.map_or(0, |after| after.number().saturating_add(1));
        state.claimed.insert(first, last.max(first));
        let has_released = !state.released.is_empty();
        self.has_released.store(has_released, Ordering::Release);
        drop(state);
        let claimed = |message: StoredMessage| Claimed {
            claim: self.claim_of(message.id),
            message,
        };
        free.into_iter().map(claimed).collect()
    }

    fn state(&self) -> MutexGuard<'_, ClaimState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_owner(id: QueueId) -> SpoolError {
    SpoolError::OfAnother(format!("message {id} was not given to it, or given back"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let id = |number| QueueId::from_number(number).expect("small");
        let mut ranges = IdRanges::default();
        for (first, last) in [(10, 20), (30, 40), (21, 25), (50, 60), (35, 48)] {
            ranges.insert(first, last);
        }
        let kept: Vec<_> = ranges
            .0
            .iter()
            .map(|(first, last)| (*first, *last))
            .collect();
        assert_eq!(kept, [(10, 25), (30, 48), (50, 60)]);
        for (number, is_in) in [
            (9, false),
            (10, true),
            (25, true),
            (26, false),
            (49, false),
            (60, true),
            (61, false),
        ] {
            assert_eq!(ranges.contains(id(number)), is_in, "{number}");
        }
        ranges.insert(0, 70);
        assert_eq!(ranges.0.into_iter().collect::<Vec<_>>(), [(0, 70)]);
    }
}
