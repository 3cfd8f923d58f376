//! The configuration of this node, and what others may do by it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::policy::adoption::{NodeConfig, PolicyDifference, may_adopt};
use crate::smtp::envelope::Envelope;

/// The configuration of this node.
#[derive(Debug, Default)]
pub(super) struct OwnConfig {
    state: Mutex<ConfigState>,
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

    /// Returns whether this node may have a message of one with this configuration.
    pub(super) fn allows(
        &self,
        theirs: &NodeConfig,
        envelope: &Envelope,
    ) -> Result<(), PolicyDifference> {
        may_adopt(theirs, &self.state().current, envelope)
    }
}
