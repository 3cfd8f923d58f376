//! The memory of a node of the others, from one look at their leases to the next.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::BootTime;
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::LentConnection;

/// The interval at which messages that this node may not adopt are looked at again.
const SAME_AGAIN: Duration = Duration::from_mins(1);

/// The memory of the looks.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: HashMap<i16, LeaseObservation>,
    /// The first and the last message of the latest signal, and its time.
    signalled: Option<((i64, i64), Instant)>,
    pub(super) partitions_at: Option<Instant>,
    /// The messages of this node that it did not know of at the latest comparison, and its time.
    pub(super) unknown: (HashSet<QueueId>, Option<Instant>),
    /// The connection that the renewals of the lease have to themselves.
    pub(super) connection: Option<LentConnection>,
}

/// The state of another node, and since when it has been so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LeaseObservation {
    epoch: i64,
    lease_end: i64,
    since: BootTime,
}

/// Another node, as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OtherNode {
    pub(super) number: i16,
    pub(super) name: String,
    pub(super) epoch: i64,
    pub(super) lease_end: i64,
    pub(super) is_alive: bool,
    pub(super) fenced: bool,
    pub(super) lease: Duration,
    /// The number by which it divides limits.
    pub(super) divisor: i32,
    pub(super) is_draining: bool,
}

impl Watch {
    /// Forgets since when other nodes are silent: this node was not there itself.
    pub(super) fn forget_observations(&mut self) {
        self.seen.clear();
    }

    /// Records a look, and returns the nodes that are dead and not fenced.
    pub(super) fn dead(
        &mut self,
        nodes: &[OtherNode],
        own_lease: Duration,
        now: BootTime,
    ) -> Vec<OtherNode> {
        let mut dead = Vec::new();
        let mut seen = HashMap::with_capacity(nodes.len());
        for node in nodes {
            let fresh = LeaseObservation {
                epoch: node.epoch,
                lease_end: node.lease_end,
                since: now,
            };
            let before = self.seen.get(&node.number).copied();
            let is_same = |before: &LeaseObservation| {
                (before.epoch, before.lease_end) == (fresh.epoch, fresh.lease_end)
            };
            let observation = before.filter(is_same).unwrap_or(fresh);
            seen.insert(node.number, observation);
            let silent_enough = observation.since + own_lease.max(node.lease) <= now;
            if silent_enough && !node.is_alive && !node.fenced {
                dead.push(node.clone());
            }
        }
        self.seen = seen;
        dead
    }

    /// Returns whether the relay is to claim messages: there are others than before, or it is time to
    /// look at the same again, which it always is while another node hands messages over.
    pub(super) fn is_news(&mut self, ends: Option<(i64, i64)>, is_handing_over: bool) -> bool {
        let Some(ends) = ends else {
            self.signalled = None;
            return false;
        };
        let is_known = self.signalled.is_some_and(|(before, at)| {
            before == ends && at.elapsed() < SAME_AGAIN && !is_handing_over
        });
        if !is_known {
            self.signalled = Some((ends, Instant::now()));
        }
        !is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn node(lease_end: i64, is_alive: bool) -> OtherNode {
        OtherNode {
            number: 2,
            name: "relay-2".to_owned(),
            epoch: 7,
            lease_end,
            is_alive,
            fenced: false,
            lease: LEASE,
            divisor: 1,
            is_draining: false,
        }
    }

    /// Each look: the time in seconds, the end of the lease, whether the database calls it alive, and
    /// whether the node is dead then.
    fn assert_looks(looks: &[(u64, i64, bool, bool)]) {
        let mut watch = Watch::default();
        for (seconds, lease_end, is_alive, is_dead) in looks {
            let now = BootTime::from_millis(1000 * seconds);
            let dead = watch.dead(&[node(*lease_end, *is_alive)], LEASE, now);
            assert_eq!(!dead.is_empty(), *is_dead, "after {seconds} s");
        }
    }

    #[test]
    fn a_node_is_dead_after_a_lease_without_a_renewal() {
        assert_looks(&[
            (100, 1, true, false),
            (105, 2, true, false),
            (129, 2, true, false),
            (134, 2, false, false),
            (135, 2, false, true),
        ]);
    }

    /// After an outage, and on a standby whose clock is ahead, all leases seem to be over.
    #[test]
    fn a_node_that_the_database_calls_dead_is_given_a_lease_to_come_back() {
        assert_looks(&[
            (100, 1, false, false),
            (129, 1, false, false),
            (130, 1, false, true),
        ]);
        assert_looks(&[
            (100, 1, false, false),
            (129, 2, true, false),
            (140, 2, true, false),
        ]);
    }

    #[test]
    fn what_was_seen_before_an_absence_of_its_own_does_not_count() {
        let mut watch = Watch::default();
        let look = |watch: &mut Watch, seconds: u64| {
            let now = BootTime::from_millis(1000 * seconds);
            watch.dead(&[node(1, false)], LEASE, now).len()
        };
        assert_eq!(look(&mut watch, 100), 0);
        watch.forget_observations();
        assert_eq!(look(&mut watch, 131), 0);
        assert_eq!(look(&mut watch, 161), 1);
    }

    #[test]
    fn the_same_messages_are_signalled_once_unless_a_node_drains() {
        let mut watch = Watch::default();
        let looks = [
            (Some((1, 5)), false, true),
            (Some((1, 5)), false, false),
            (Some((1, 5)), true, true),
            (Some((1, 6)), false, true),
            (None, true, false),
            (Some((1, 6)), false, true),
        ];
        for (ends, is_handing_over, is_news) in looks {
            assert_eq!(watch.is_news(ends, is_handing_over), is_news, "{ends:?}");
        }
    }
}
