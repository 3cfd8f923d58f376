//! Queue ids: a timestamp, the number of a node, and a counter.
//!
//! An id is the number of milliseconds since 2020-01-01 (41 bits, until 2089), followed by the
//! number of the node that drew it (6 bits) and a counter (16 bits). So relays with different node
//! numbers never draw the same id; a relay with a spool of its own is node 0. An id cannot be read
//! as an exact time: while the clock stands still or goes back, only the counter grows, and carries
//! into the milliseconds. Ids of earlier versions had a counter of 22 bits and stay valid.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::smtp::envelope::QueueId;

/// 2020-01-01T00:00:00Z, in milliseconds since 1970.
const EPOCH: u64 = 1_577_836_800_000;
const COUNTER_BITS: u32 = 16;
const NODE_BITS: u32 = 6;
/// The bits below the milliseconds.
const LOW_BITS: u32 = COUNTER_BITS + NODE_BITS;

/// The number of a node: 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NodeNumber(u8);

impl NodeNumber {
    /// The only relay of a spool.
    const SOLE: Self = Self(0);
}

/// The source of queue ids of one node. Each id is greater than all ids before it.
#[derive(Debug)]
pub(super) struct Ids {
    node: NodeNumber,
    last: AtomicU64,
}

impl Ids {
    /// Continues above `highest`, the highest stored id, and above `written`, the time of the
    /// spool's last change. So the id of a removed message is not used again, even if the clock was
    /// set back between two starts.
    pub(super) fn after(highest: Option<QueueId>, written: Option<SystemTime>) -> Self {
        let stored = highest.map_or(0, QueueId::number);
        let written = written.map_or(0, |time| at(millis(time) + 1));
        Self {
            node: NodeNumber::SOLE,
            last: AtomicU64::new(stored.max(written)),
        }
    }

    /// Continues above `highest` with the ids of one node; `None` if there can be no such node.
    pub(super) fn of_node(node: u8, highest: Option<QueueId>) -> Option<Self> {
        (node < 1 << NODE_BITS).then(|| Self {
            node: NodeNumber(node),
            ..Self::after(highest, None)
        })
    }

    /// Returns the last id that was drawn, or the one above which it goes on.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    pub(super) fn draw(&self) -> QueueId {
        self.draw_at(millis(SystemTime::now()))
    }

    fn draw_at(&self, millis: u64) -> QueueId {
        let next = |last| self.node.next(last, millis);
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            match self.last.compare_exchange_weak(
                last,
                next(last),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => last = now,
            }
        }
        // `NodeNumber::next` ends at `QueueId::MAX`, and only larger numbers are no ids.
        QueueId::from_number(next(last)).expect("it is capped at the largest id")
    }
}

impl NodeNumber {
    /// Returns the least id of this node above `last`, and at least at this time.
    fn next(self, last: u64, millis: u64) -> u64 {
        let bits = u64::from(self.0) << COUNTER_BITS;
        let following = (last + 1).max(at(millis));
        // The node's ids within the milliseconds of `following` are those from `low` to `high`.
        let low = (following >> LOW_BITS << LOW_BITS) | bits;
        let high = low | ((1 << COUNTER_BITS) - 1);
        let id = if following > high {
            low + (1 << LOW_BITS)
        } else {
            following.max(low)
        };
        id.min(QueueId::MAX)
    }
}

/// Returns the number of a message in a database.
pub(super) fn row_id(id: QueueId) -> i64 {
    // `QueueId::MAX` is `i64::MAX`, and no id can be made above it.
    i64::try_from(id.number()).expect("a queue id is at most i64::MAX")
}

/// Returns the id of the message with this number in a database.
pub(super) fn queue_id(row: i64) -> Option<QueueId> {
    u64::try_from(row).ok().and_then(QueueId::from_number)
}

fn millis(time: SystemTime) -> u64 {
    let since_1970 = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    u64::try_from(since_1970)
        .unwrap_or(u64::MAX)
        .saturating_sub(EPOCH)
}

fn at(millis: u64) -> u64 {
    millis.min(QueueId::MAX >> LOW_BITS) << LOW_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ids_rise_while_the_clock_stands_or_goes_back() {
        let ids = Ids::after(None, None);
        let drawn: Vec<_> = [1000, 1000, 1001, 900, 900, 1002]
            .map(|at| ids.draw_at(at))
            .into();
        assert!(drawn.is_sorted_by(|a, b| a < b), "{drawn:?}");
        assert_eq!(drawn[0].number(), 1000 << LOW_BITS);
        assert_eq!(drawn[5].number(), 1002 << LOW_BITS);
    }

    #[test]
    fn ids_go_on_above_what_is_stored_and_when_it_was_written() {
        let stored = QueueId::from_number(5000 << LOW_BITS).expect("small");
        assert!(Ids::after(Some(stored), None).draw_at(10) > stored);
        let written = SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH + 7000);
        assert!(Ids::after(Some(stored), Some(written)).draw_at(10).number() > 7000 << LOW_BITS);
    }

    #[test]
    fn nodes_never_draw_the_same_id() {
        // One id for each time and each end of the counter, of three nodes, among each other's ids.
        let mut last = 0;
        let mut drawn = Vec::new();
        for millis in [7, 7, 7, 8, 6, 9] {
            for node in [0, 63, 5].map(NodeNumber) {
                last = node.next(last, millis);
                drawn.push(last);
                assert_eq!(last >> COUNTER_BITS & 63, u64::from(node.0), "{last:x}");
                last |= (1 << COUNTER_BITS) - 1;
            }
        }
        assert!(drawn.is_sorted_by(|one, two| one < two), "{drawn:x?}");
    }

    #[test]
    fn the_counter_of_a_node_carries_into_the_time() {
        let node = NodeNumber(3);
        let first = node.next(0, 20);
        assert_eq!(first, 20 << LOW_BITS | 3 << COUNTER_BITS);
        assert_eq!(node.next(first, 20), first + 1);
        assert_eq!(node.next(first | 0xffff, 20), first + (1 << LOW_BITS));
        // An earlier version's counter reached into the bits of the node.
        assert_eq!(
            node.next(20 << LOW_BITS | 9 << COUNTER_BITS, 20),
            first + (1 << LOW_BITS)
        );
    }

    #[test]
    fn ids_of_our_time_fit_a_signed_row_id() {
        let (now, later) = (
            Ids::after(None, None).draw(),
            Ids::after(None, None).draw_at(u64::MAX),
        );
        assert!(now < later && later.number() <= QueueId::MAX);
    }
}
