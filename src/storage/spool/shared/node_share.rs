//! This node's share of the limits that hold for all nodes together.
//!
//! Each node publishes the number by which it divides limits. One that joins has the smallest share until
//! all others divide by a number that counts it; the others divide by that as soon as they see it.

use super::super::ClusterShare;

/// The share of a node that has just joined: one connection to each destination.
pub(super) const NEWCOMER: ClusterShare = ClusterShare::least();

/// The share of a node, and the number that it publishes.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeShare {
    pub(super) share: ClusterShare,
    pub(super) divisor: i32,
}

impl Default for NodeShare {
    fn default() -> Self {
        Self {
            share: NEWCOMER,
            divisor: 1,
        }
    }
}

impl NodeShare {
    /// Adapts the share to the living nodes: the place of this one among them, their number, and the
    /// numbers by which the others divide.
    pub(super) fn adapt(
        &mut self,
        rank: usize,
        nodes: usize,
        others: impl IntoIterator<Item = i32>,
    ) {
        let nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
        let has_yielded = others.into_iter().all(|divisor| divisor >= nodes);
        self.divisor = nodes;
        if has_yielded || self.share != NEWCOMER {
            let rank = u32::try_from(rank).unwrap_or(u32::MAX);
            self.share = ClusterShare::new(nodes.unsigned_abs(), rank);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_joins_waits_until_the_others_have_yielded() {
        let (mut old, mut new) = (NodeShare::default(), NodeShare::default());
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
