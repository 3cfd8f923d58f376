//! The configuration of this node, and what others may do by it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::policy::adoption::{NodeConfig, PolicyDifference, may_adopt};
use crate::smtp::envelope::Envelope;

/// The configuration of this node.
#[derive(Debug, Default)]
pub(super) struct OwnConfig {
    state: Mutex<ConfigState>,
    /// True for a node that sends no mail, so that no policy of its own can be weaker.
    sends_nothing: AtomicBool,
}

#[derive(Debug, Default)]
struct ConfigState {
    current: Arc<NodeConfig>,
    /// True while the database has another one.
    is_due: bool,
}

impl OwnConfig {
    /// Replaces the configuration.
    pub(super) fn set(&self, config: NodeConfig) {
        *self.state() = ConfigState {
            current: Arc::new(config),
            is_due: true,
        };
    }

    /// Returns the configuration if the database has another one.
    pub(super) fn due(&self) -> Option<Arc<NodeConfig>> {
        let state = self.state();
        state.is_due.then(|| Arc::clone(&state.current))
    }

    /// Records that this configuration is in the database.
    pub(super) fn published(&self, config: &Arc<NodeConfig>) {
        let mut state = self.state();
        if Arc::ptr_eq(&state.current, config) {
            state.is_due = false;
        }
    }

    fn state(&self) -> MutexGuard<'_, ConfigState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that this node sends no mail.
    pub(super) fn send_nothing(&self) {
        self.sends_nothing.store(true, Ordering::Relaxed);
    }

    /// Returns whether this node may have a message of one with this configuration.
    pub(super) fn allows(
        &self,
        theirs: &NodeConfig,
        envelope: &Envelope,
    ) -> Result<(), PolicyDifference> {
        if self.sends_nothing.load(Ordering::Relaxed) {
            return Ok(());
        }
        may_adopt(theirs, &self.state().current, envelope)
    }
}
