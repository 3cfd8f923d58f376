//! The proof that a message belongs to an owner.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::smtp::envelope::QueueId;

/// The number of one run of one owner. No two runs have the same, so what an earlier run was given
/// is worth nothing to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OwnerEpoch(u64);

impl OwnerEpoch {
    /// Returns an epoch that no other owner in this process has.
    pub(super) fn of_process() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Returns the epoch that a store with several owners has drawn.
    pub(super) fn of_store(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number of the epoch.
    pub(super) fn number(self) -> u64 {
        self.0
    }
}

/// Proof that a message was made this owner's. Only the spool makes one. Whoever changes a message
/// must show it; the spool refuses that of an earlier owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    id: QueueId,
    epoch: OwnerEpoch,
}

impl Claim {
    /// Makes the claim of a message that is the owner's from now on. The engines alone call this.
    pub(super) fn of_owner(id: QueueId, epoch: OwnerEpoch) -> Self {
        Self { id, epoch }
    }

    /// Makes the claim of a message that is in no spool, for tests of the queue in memory.
    #[cfg(test)]
    pub(crate) fn of_test(id: QueueId) -> Self {
        Self::of_owner(id, OwnerEpoch(0))
    }

    /// Returns the queue id of the message.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Returns the run of the owner that the message was given to.
    pub(super) fn epoch(&self) -> OwnerEpoch {
        self.epoch
    }
}

/// A message, with or without its content, together with the claim on it.
#[derive(Debug, Clone)]
pub struct Claimed<T> {
    /// The claim on the message.
    pub claim: Claim,
    /// The message.
    pub message: T,
}

impl<T> Claimed<T> {
    /// Changes the message.
    #[must_use]
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Claimed<U> {
        Claimed {
            claim: self.claim,
            message: change(self.message),
        }
    }
}

impl<T> Deref for Claimed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}

impl<T> DerefMut for Claimed<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.message
    }
}
