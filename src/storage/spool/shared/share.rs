//! This node's share of the limits that hold for all nodes together.
//!
//! Each node publishes the number by which it divides limits. One that joins has the smallest share until
//! all others divide by a number that counts it; the others divide by that as soon as they see it.

use std::sync::PoisonError;

use super::super::ClusterShare;
use super::SharedCore;

/// The share of a node that has just joined: one connection to each destination.
pub(super) const NEWCOMER: ClusterShare = ClusterShare::least();

/// The share of a node, and the number that it publishes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShareState {
    share: ClusterShare,
    divisor: i32,
}

impl Default for ShareState {
    fn default() -> Self {
        Self {
            share: NEWCOMER,
            divisor: 1,
        }
    }
}

impl ShareState {
    /// Adapts the share to the living nodes: the place of this one among them, their number, and the
    /// numbers by which the others divide.
    fn adapt(&mut self, rank: usize, nodes: usize, others: impl IntoIterator<Item = i32>) {
        let nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
        let has_yielded = others.into_iter().all(|divisor| divisor >= nodes);
        self.divisor = nodes;
        if has_yielded || self.share != NEWCOMER {
            let rank = u32::try_from(rank).unwrap_or(u32::MAX);
            self.share = ClusterShare::new(nodes.unsigned_abs(), rank);
        }
    }
}

impl SharedCore {
    /// Returns this node's share.
    pub(super) fn share(&self) -> ClusterShare {
        self.share
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .share
    }

    /// Returns the number by which this node divides limits.
    pub(super) fn divisor(&self) -> i32 {
        self.share
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .divisor
    }

    /// Replaces the share.
    pub(super) fn set_share(&self, share: ClusterShare) {
        self.share
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .share = share;
    }

    /// Adapts the share to the numbers of the other living nodes, and those by which they divide.
    pub(super) fn adapt_share(&self, others: &[(i16, i32)]) {
        let own = self.identity.number;
        let rank = others.iter().filter(|(number, _)| *number < own).count();
        let divisors = others.iter().map(|(_, divisor)| *divisor);
        let mut state = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        state.adapt(rank, others.len() + 1, divisors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_joins_waits_until_the_others_have_yielded() {
        let (mut old, mut new) = (ShareState::default(), ShareState::default());
        old.adapt(0, 1, []);
        assert_eq!(old.share.of(20), 20);
        new.adapt(1, 2, [1]);
        assert_eq!((new.share.of(20), new.divisor), (1, 2));
        old.adapt(0, 2, [2]);
        assert_eq!(old.share.of(20), 10, "it yields at once");
        new.adapt(1, 2, [2]);
        assert_eq!(new.share.of(20), 10);
        // The other one has gone.
        new.adapt(0, 1, []);
        assert_eq!((new.share.of(20), new.divisor), (20, 1));
    }
}
