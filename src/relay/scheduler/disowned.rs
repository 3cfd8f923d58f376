//! The messages that others have now, and that this relay may still come across.

use std::collections::{BTreeSet, HashMap};

use crate::smtp::envelope::QueueId;
use crate::storage::spool::{Claimed, StoredMessage};

/// The most messages that are remembered although the scheduler did not have them.
const UNSEEN_MAX: usize = 100_000;

/// The messages that were forgotten and that jobs, or the sessions that accepted them, still have.
#[derive(Debug, Default)]
pub(super) struct DisownedMessages {
    /// The messages with jobs that began before, whose results are for nothing. Such a message may have
    /// been claimed again meanwhile: it is queued after the last of them.
    busy: HashMap<QueueId, Option<Claimed<StoredMessage>>>,
    /// The messages that the scheduler did not have: they may be on their way from the session.
    unseen: BTreeSet<QueueId>,
}

impl DisownedMessages {
    /// Records a message that was lost while jobs on it are running.
    pub(super) fn add_busy(&mut self, id: QueueId) {
        self.busy.insert(id, None);
    }

    /// Records a message that was lost and that the scheduler did not have.
    pub(super) fn add_unseen(&mut self, id: QueueId) {
        self.unseen.insert(id);
        if self.unseen.len() > UNSEEN_MAX {
            self.unseen.pop_first();
        }
    }

    /// Keeps a message that was claimed again until the last job from before has ended. Returns it if
    /// there is none.
    pub(super) fn keep_reclaimed(
        &mut self,
        stored: Claimed<StoredMessage>,
    ) -> Option<Claimed<StoredMessage>> {
        match self.busy.get_mut(&stored.claim.id()) {
            Some(reclaimed) => {
                *reclaimed = Some(stored);
                None
            }
            None => Some(stored),
        }
    }

    /// Returns whether jobs on a message that was forgotten are still running, so that the work that
    /// remains after them is not this relay's.
    pub(super) fn has_jobs(&self, id: QueueId) -> bool {
        self.busy.contains_key(&id)
    }

    /// Returns whether a message that comes from a session was lost before it came.
    pub(super) fn was_lost_unseen(&mut self, id: QueueId) -> bool {
        self.unseen.remove(&id)
    }

    /// Ends the last job on a message. Returns the message if it was claimed again meanwhile.
    pub(super) fn end_jobs(&mut self, id: QueueId) -> Option<Claimed<StoredMessage>> {
        self.busy.remove(&id).flatten()
    }
}
