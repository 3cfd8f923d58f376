//! Forgets messages that are not this relay's any more, and queues those that are again.

use std::collections::HashSet;

use crate::smtp::envelope::QueueId;
use crate::storage::spool::{Claimed, StoredMessage};

use super::state::SchedulerState;

impl SchedulerState {
    /// Forgets messages that others have now: what waits of them is removed, and attempts that have
    /// sent no content end. What comes of running jobs is not queued again.
    pub(super) fn lose(&mut self, ids: &HashSet<QueueId>) {
        let waiting = self.queues.take(ids);
        let mut seen: HashSet<QueueId> = waiting.into_iter().map(|(item, _)| item.id()).collect();
        for id in ids {
            self.messages.remove(id);
            if self.owed.lose(*id) {
                seen.insert(*id);
            }
            if self.active.contains_key(id) {
                self.disowned.add_busy(*id);
            } else if !seen.contains(id) {
                self.disowned.add_unseen(*id);
            }
        }
        for (id, limit) in self.limits.values() {
            if ids.contains(id) {
                limit.end_lost();
            }
        }
    }

    /// Queues a message that was claimed, after the jobs from before it was lost, if there are any.
    pub(super) fn enqueue_claimed(&mut self, stored: Claimed<StoredMessage>) {
        self.hand_over.under_way.remove(&stored.claim.id());
        if let Some(stored) = self.disowned.keep_reclaimed(stored) {
            self.enqueue_stored(&stored);
        }
    }
}
