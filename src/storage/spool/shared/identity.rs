//! The identity of a node, and of its run.

use super::super::claim::OwnerEpoch;
use super::folder::NodeToken;

/// The identity of this node.
#[derive(Debug)]
pub(super) struct NodeIdentity {
    pub(super) name: String,
    pub(super) token: NodeToken,
    pub(super) number: i16,
    /// The epoch in which this process joined. Messages of this node with an earlier one were left by
    /// an earlier process.
    pub(super) first_epoch: OwnerEpoch,
}

/// The run of a node: its number, and its epoch now.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeRun {
    pub(super) number: i16,
    pub(super) epoch: OwnerEpoch,
}

impl NodeRun {
    /// Returns the epoch as the database has it.
    pub(super) fn epoch(self) -> i64 {
        // Epochs come from a sequence of the type bigint.
        i64::try_from(self.epoch.number()).unwrap_or(i64::MAX)
    }
}
