//! The messages of this node, and those of which it does not know if they are in the queue.
//!
//! The outcome of a transaction is unknown if the connection breaks before its answer. It may become
//! visible later, also much later: a commit that waits for its standby goes on waiting without its
//! client. So such messages are looked for with each renewal of the lease.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::smtp::envelope::QueueId;

/// The most messages in doubt that are remembered. More cannot be under way at once by far.
const DOUBTS_MAX: usize = 100_000;
/// The time for which a withdrawn message is looked for. One that comes later is delivered after the
/// next start of this node: at worst, its recipients have it twice.
const WITHDRAWN_MAX: Duration = Duration::from_hours(1);

/// The messages of this node.
#[derive(Debug, Default)]
pub(super) struct OwnMessages(Mutex<OwnState>);

#[derive(Debug, Default)]
struct OwnState {
    /// The messages that the relay knows as its own.
    known: HashSet<QueueId>,
    /// Messages whose clients were not given a 250, and since when. If they are found, they are removed.
    withdrawn: BTreeMap<QueueId, Instant>,
    /// Reports that may have been stored. If they are found, they are given back, and so claimed.
    unheard: BTreeSet<QueueId>,
}

/// The messages that are to be looked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Doubts {
    pub(super) withdrawn: Vec<QueueId>,
    pub(super) unheard: Vec<QueueId>,
}

impl OwnMessages {
    /// Adds messages that are this node's from now on.
    pub(super) fn add(&self, ids: impl IntoIterator<Item = QueueId>) {
        self.state().known.extend(ids);
    }

    /// Forgets messages that were removed, given back or lost.
    pub(super) fn forget(&self, ids: impl IntoIterator<Item = QueueId>) {
        let mut state = self.state();
        for id in ids {
            state.known.remove(&id);
        }
    }

    /// Returns the messages that the relay knows as its own, without those that are.
    pub(super) fn lost(&self, are: &HashSet<QueueId>) -> Vec<QueueId> {
        let state = self.state();
        let mut lost: Vec<_> = state.known.difference(are).copied().collect();
        lost.sort_unstable();
        lost
    }

    /// Remembers a message whose client was not given a 250.
    pub(super) fn withdraw(&self, id: QueueId) {
        let mut state = self.state();
        state.known.remove(&id);
        if state.withdrawn.len() < DOUBTS_MAX {
            state.withdrawn.insert(id, Instant::now());
        }
    }

    /// Remembers reports that may have been stored.
    pub(super) fn doubt(&self, ids: impl IntoIterator<Item = QueueId>) {
        let mut state = self.state();
        for id in ids {
            if state.unheard.len() < DOUBTS_MAX {
                state.unheard.insert(id);
            }
        }
    }

    /// Returns what is to be looked for; `None` if nothing is.
    pub(super) fn doubts(&self) -> Option<Doubts> {
        let mut state = self.state();
        state
            .withdrawn
            .retain(|_, since| since.elapsed() < WITHDRAWN_MAX);
        let doubts = Doubts {
            withdrawn: state.withdrawn.keys().copied().collect(),
            unheard: state.unheard.iter().copied().collect(),
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
