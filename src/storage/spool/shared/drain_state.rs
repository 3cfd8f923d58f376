//! The state of a drain of this node.

use std::sync::atomic::{AtomicBool, Ordering};

/// The state of a drain of this node, as the database had it last.
#[derive(Debug)]
pub(super) struct DrainState(AtomicBool);

impl DrainState {
    /// Creates the state of a node that joins.
    pub(super) fn new(is_draining: bool) -> Self {
        Self(AtomicBool::new(is_draining))
    }

    /// Returns whether this node drains.
    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Replaces the state. Returns whether it was another one.
    pub(super) fn set(&self, is_draining: bool) -> bool {
        self.0.swap(is_draining, Ordering::SeqCst) != is_draining
    }
}
