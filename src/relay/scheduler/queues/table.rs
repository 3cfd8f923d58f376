//! The table of all destination queues: its fields, and the steps that add and remove items.
//!
//! An item that is not due waits in one list by time, and a due one in the queue of its
//! destination.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::attempts::Attempts;
use super::ids::{DestinationId, DueKey, Millis};
use super::item::{Destination, Item};
use super::parked::Parked;
use super::part::Part;
use super::queue::{DestinationQueue, Spread};
use crate::storage::spool::{Claim, ClusterShare};

/// The queues of all destinations.
// Rule: RFC 5321 §4.5.4.1; policy table (destinations).
#[derive(Debug)]
pub(in crate::relay::scheduler) struct DestinationQueues<T> {
    pub(super) all: HashMap<DestinationId, DestinationQueue>,
    pub(super) names: HashMap<Destination, DestinationId>,
    /// The queues of refused parts of a destination.
    pub(super) parts: HashMap<(DestinationId, Part), DestinationId>,
    /// The items that are not due, by time and by arrival.
    pub(super) parked: BTreeMap<(Millis, u64), Parked<T>>,
    /// The items that are due.
    pub(super) due: BTreeMap<DueKey, Item<T>>,
    /// The due items whose next deadline is a report of delay, by deadline; the value is the turn
    /// in `due`.
    pub(super) delays: BTreeMap<DueKey, Millis>,
    /// The other due items, by the time at which they expire; the value is the turn in `due`.
    pub(super) expiries: BTreeMap<DueKey, Millis>,
    /// The queues that may have a job now: first `first_turns`, which waited for a place, then
    /// `turn`.
    pub(super) first_turns: VecDeque<DestinationId>,
    pub(super) turn: VecDeque<DestinationId>,
    /// The times at which queues may have a job next.
    pub(super) wakes: BTreeSet<(Millis, DestinationId)>,
    pub(super) attempts: Attempts,
    /// This node's part of the connection limits.
    pub(super) cluster: ClusterShare,
    pub(super) serial: u64,
    pub(super) opened: u64,
    /// The number of reloads.
    pub(super) generation: u64,
    pub(super) start: Instant,
    pub(super) spread: Spread,
}

impl<T> DestinationQueues<T> {
    /// Creates the queues, empty, for `attempts` concurrent attempts. No later time lies before
    /// `start`. `spread` adds the random part to a backoff.
    pub(in crate::relay::scheduler) fn new(start: Instant, spread: Spread, attempts: u32) -> Self {
        Self {
            all: HashMap::new(),
            names: HashMap::new(),
            parts: HashMap::new(),
            parked: BTreeMap::new(),
            due: BTreeMap::new(),
            delays: BTreeMap::new(),
            expiries: BTreeMap::new(),
            first_turns: VecDeque::new(),
            turn: VecDeque::new(),
            wakes: BTreeSet::new(),
            attempts: Attempts::new(attempts),
            cluster: ClusterShare::ALL,
            serial: 0,
            opened: 0,
            generation: 0,
            start,
            spread,
        }
    }

    pub(super) fn millis(&self, at: Instant) -> Millis {
        at.saturating_duration_since(self.start)
            .as_millis()
            .try_into()
            .unwrap_or(Millis::MAX)
    }

    pub(super) fn instant(&self, at: Millis) -> Instant {
        self.start + Duration::from_millis(at)
    }

    /// Returns the claims on the messages of all waiting items.
    pub(in crate::relay::scheduler) fn claims(&self) -> impl Iterator<Item = Claim> {
        let due = self.due.values().map(|item| item.claim);
        due.chain(self.parked.values().map(|parked| parked.claim))
    }

    /// The number of waiting items.
    pub(in crate::relay::scheduler) fn len(&self) -> usize {
        self.parked.len() + self.due.len()
    }

    /// Adds an item, to be tried at `due`.
    pub(in crate::relay::scheduler) fn push(&mut self, item: Item<T>, due: Instant) {
        self.serial += 1;
        let due = self.millis(due);
        self.park(item, due, self.serial);
    }

    pub(super) fn park(&mut self, item: Item<T>, due: Millis, serial: u64) {
        let parked = Parked::new(item, due, |at| self.millis(at));
        self.parked.insert((parked.at(), serial), parked);
    }

    pub(super) fn insert(&mut self, id: DestinationId, item: Item<T>, due: Millis, serial: u64) {
        let deadline = self.millis(item.deadline);
        let turn = due + item.gives_way();
        let Some(queue) = self.all.get_mut(&id) else {
            return;
        };
        queue.waiting += 1;
        self.deadlines(&item).insert(
            DueKey {
                queue: id,
                at: deadline,
                serial,
            },
            turn,
        );
        self.due.insert(
            DueKey {
                queue: id,
                at: turn,
                serial,
            },
            item,
        );
        self.take_turn(id);
    }

    pub(super) fn open(&mut self, destination: Destination) -> DestinationId {
        self.opened += 1;
        let id = DestinationId(self.opened);
        self.names.insert(destination.clone(), id);
        self.all.insert(id, DestinationQueue::new(destination));
        id
    }

    pub(super) fn take_turn(&mut self, id: DestinationId) {
        let Some(queue) = self.all.get_mut(&id) else {
            return;
        };
        if !queue.in_turn {
            queue.in_turn = true;
            self.turn.push_back(id);
        }
    }

    /// Returns the index that holds the deadline of a due item.
    pub(super) fn deadlines(&mut self, item: &Item<T>) -> &mut BTreeMap<DueKey, Millis> {
        if item.deadline < item.expires {
            &mut self.delays
        } else {
            &mut self.expiries
        }
    }

    /// Removes a due item. Returns the time at which it was due, too.
    pub(super) fn remove(&mut self, key: DueKey) -> Option<(Item<T>, Millis)> {
        let item = self.due.remove(&key)?;
        let at = self.millis(item.deadline);
        self.deadlines(&item).remove(&DueKey { at, ..key });
        self.all.get_mut(&key.queue)?.waiting -= 1;
        let due = key.at.saturating_sub(item.gives_way());
        Some((item, due))
    }
}

/// Returns the first entry of a queue.
pub(super) fn first<V>(map: &BTreeMap<DueKey, V>, queue: DestinationId) -> Option<DueKey> {
    let key = map
        .range(
            DueKey {
                queue,
                at: 0,
                serial: 0,
            }..,
        )
        .next()?
        .0;
    (key.queue == queue).then_some(*key)
}
