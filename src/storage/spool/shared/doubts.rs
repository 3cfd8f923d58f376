//! The messages of this node, and those of which it does not know if they are in the queue.
//!
//! The outcome of a transaction is unknown if the connection breaks before its answer. It may become
//! visible later, also much later: a commit that waits for its standby goes on waiting without its
//! client. So such messages are looked for with each renewal of the lease.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::claim::{Claim, OwnerEpoch};
use crate::smtp::envelope::QueueId;

/// The most messages in doubt that are remembered. More cannot be under way at once by far.
const DOUBTS_MAX: usize = 100_000;
/// The number of times that a message is looked for, over an hour with the usual lease. One that comes
/// later is delivered after the next start of this node: at worst, its recipients have it twice. Times
/// are counted and not hours, since nothing can be found while the database is away.
const LOOKS_MAX: u32 = 720;

/// The messages of this node.
#[derive(Debug, Default)]
pub(super) struct OwnMessages(Mutex<OwnState>);

#[derive(Debug, Default)]
struct OwnState {
    /// The messages that the relay knows as its own, with the epoch of each that it was given to.
    known: HashMap<QueueId, OwnerEpoch>,
    /// Messages whose clients were not given a 250, and how often they were looked for. If they are
    /// found, they are removed.
    withdrawn: BTreeMap<QueueId, u32>,
    /// Reports that may have been stored, and messages that may have been claimed, although the relay
    /// does not know them. If they are this node's, they are given back, and so claimed.
    unheard: BTreeMap<QueueId, u32>,
}

/// The messages that are to be looked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Doubts {
    pub(super) withdrawn: Vec<QueueId>,
    pub(super) unheard: Vec<QueueId>,
}

impl OwnMessages {
    /// Adds messages that are this node's from now on, given to this epoch.
    pub(super) fn add(&self, ids: impl IntoIterator<Item = QueueId>, epoch: OwnerEpoch) {
        let mut state = self.state();
        for id in ids {
            state.known.insert(id, epoch);
            state.unheard.remove(&id);
        }
    }

    /// Returns whether this node has no messages.
    pub(super) fn is_empty(&self) -> bool {
        self.state().known.is_empty()
    }

    /// Forgets messages that were removed or given back, unless they were claimed again meanwhile.
    pub(super) fn forget_claims(&self, claims: impl IntoIterator<Item = Claim>) {
        let mut state = self.state();
        for claim in claims {
            if state.known.get(&claim.id()) == Some(&claim.epoch()) {
                state.known.remove(&claim.id());
            }
        }
    }

    /// Forgets messages that others have.
    pub(super) fn forget(&self, ids: impl IntoIterator<Item = QueueId>) {
        let mut state = self.state();
        for id in ids {
            state.known.remove(&id);
        }
    }

    /// Returns whether the relay knows a message as its own, or as one whose client has no 250.
    pub(super) fn is_known(&self, id: QueueId) -> bool {
        let state = self.state();
        state.known.contains_key(&id) || state.withdrawn.contains_key(&id)
    }

    /// Returns the messages that the relay knows as its own, without those that are.
    pub(super) fn lost(&self, are: &HashSet<QueueId>) -> Vec<QueueId> {
        let state = self.state();
        let known = state.known.keys().copied();
        let mut lost: Vec<_> = known.filter(|id| !are.contains(id)).collect();
        lost.sort_unstable();
        lost
    }

    /// Remembers a message whose client was not given a 250.
    pub(super) fn withdraw(&self, id: QueueId) {
        let mut state = self.state();
        state.known.remove(&id);
        if state.withdrawn.len() < DOUBTS_MAX {
            state.withdrawn.insert(id, 0);
        }
    }

    /// Remembers messages that may be this node's although the relay does not know them.
    pub(super) fn doubt(&self, ids: impl IntoIterator<Item = QueueId>) {
        let mut state = self.state();
        for id in ids {
            if state.unheard.len() < DOUBTS_MAX {
                state.unheard.insert(id, 0);
            }
        }
    }

    /// Returns what is to be looked for now; `None` if nothing is.
    pub(super) fn doubts(&self) -> Option<Doubts> {
        let mut state = self.state();
        let OwnState {
            withdrawn, unheard, ..
        } = &mut *state;
        let doubts = Doubts {
            withdrawn: looked_for(withdrawn),
            unheard: looked_for(unheard),
        };
        (doubts != Doubts::default()).then_some(doubts)
    }

    /// Forgets doubts about messages that were found.
    pub(super) fn resolve(&self, found: &[QueueId]) {
        let mut state = self.state();
        for id in found {
            state.withdrawn.remove(id);
            state.unheard.remove(id);
        }
    }

    fn state(&self) -> MutexGuard<'_, OwnState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a look at each message, and returns those that were not looked for too often.
fn looked_for(messages: &mut BTreeMap<QueueId, u32>) -> Vec<QueueId> {
    messages.retain(|_, looks| {
        *looks += 1;
        *looks <= LOOKS_MAX
    });
    messages.keys().copied().collect()
}
