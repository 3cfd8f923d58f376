//! The part of a limit of the whole cluster that one node has.

/// The place of a node among those that share the limits of destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterShare {
    nodes: u32,
    rank: u32,
}

impl ClusterShare {
    /// The share of a relay that is alone.
    pub const ALL: Self = Self { nodes: 1, rank: 0 };

    /// Returns the smallest share: one of each limit.
    pub(super) const fn least() -> Self {
        Self {
            nodes: u32::MAX,
            rank: u32::MAX - 1,
        }
    }

    /// Returns the share of the node with this rank, counted from 0, among so many nodes.
    #[must_use]
    pub fn new(nodes: u32, rank: u32) -> Self {
        let nodes = nodes.max(1);
        Self {
            nodes,
            rank: rank.min(nodes - 1),
        }
    }

    /// Returns true if the node is alone.
    #[must_use]
    pub fn is_all(self) -> bool {
        self.nodes == 1
    }

    /// Returns the node's part of a limit. What is left over goes to the first ranks; a limit below the
    /// number of nodes is one for each.
    #[must_use]
    pub fn of(self, limit: u32) -> u32 {
        let is_first = self.rank < limit % self.nodes;
        (limit / self.nodes + u32::from(is_first)).max(1)
    }
}

impl Default for ClusterShare {
    fn default() -> Self {
        Self::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_divided_and_each_node_has_one_at_least() {
        for (limit, nodes, expected) in [
            (20, 1, vec![20]),
            (20, 2, vec![10, 10]),
            (20, 3, vec![7, 7, 6]),
            (2, 3, vec![1, 1, 1]),
            (1, 2, vec![1, 1]),
            (3, 2, vec![2, 1]),
        ] {
            let shares = (0..nodes).map(|rank| ClusterShare::new(nodes, rank).of(limit));
            assert_eq!(shares.collect::<Vec<_>>(), expected, "{limit} of {nodes}");
        }
        assert_eq!(ClusterShare::new(0, 7), ClusterShare::default());
    }
}
