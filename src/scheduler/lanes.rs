//! Lanes: who is due, in which order, and who must wait because a destination is down.
//!
//! One lane for each destination. Time comes in as an argument and jobs come out: no clock, no I/O,
//! no tasks, so that every rule here can be tested without waiting. A lane never looks at more than
//! the front of its own lists, whatever it holds, and the lanes take turns.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::Host;
use crate::envelope::{QueueId, Trouble};

/// What shares a limit of connections and a back-off.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Destination {
    /// The MX hosts of one domain.
    Domain(Host),
    /// The smart hosts of the connector of this name, whatever the recipient's domain.
    SmartHosts(Arc<str>),
}

/// The name of a lane while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneId(u64);

/// One message for one recipient domain, waiting in a lane. `T` is what its owner keeps with it.
#[derive(Debug)]
pub(super) struct Item<T> {
    pub(super) id: QueueId,
    pub(super) host: Host,
    /// When its age matters next, tried or not: a notice to its sender is due, or it expires.
    pub(super) deadline: Instant,
    pub(super) expires: Instant,
    pub(super) cargo: T,
}

/// What a lane wants done with an item.
#[derive(Debug)]
pub(super) enum Job<T> {
    /// Try to deliver it; [`Lanes::finished`] is owed afterwards.
    Deliver(LaneId, Item<T>),
    /// Its deadline has come, and it cannot be tried now: when it will be, and why not now where its
    /// destination is down.
    Aged(Item<T>, Instant, Option<Trouble>),
}

/// What an attempt told about the destination as a whole.
#[derive(Debug)]
pub(super) enum Health {
    /// Some hop could be spoken to.
    Up,
    /// No hop could be used; why.
    Down(Trouble),
}

#[derive(Debug)]
struct Down {
    until: Instant,
    failures: usize,
    last: Trouble,
}

/// Orders items of one time by arrival.
type Key = (Instant, u64);

#[derive(Debug)]
struct Lane<T> {
    destination: Destination,
    limit: u32,
    active: u32,
    due: BTreeMap<Key, Item<T>>,
    /// Deadline → due, for those whose deadline comes while they wait.
    ages: BTreeMap<Key, Instant>,
    down: Option<Down>,
    in_turn: bool,
    wake: Option<Instant>,
}

/// Every lane there is.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    all: HashMap<LaneId, Lane<T>>,
    names: HashMap<Destination, LaneId>,
    /// Lanes that may have something to do now, in turn.
    turn: VecDeque<LaneId>,
    /// Lanes that will have something to do.
    wakes: BTreeSet<(Instant, LaneId)>,
    serial: u64,
}

/// A destination that is down is asked again at least this often, however long the schedule's waits:
/// new mail should not wait hours for a server that is back.
const LONGEST_BACK_OFF: Duration = Duration::from_mins(15);

impl<T> Lanes<T> {
    /// No lanes yet.
    pub(super) fn new() -> Self {
        Self { all: HashMap::new(), names: HashMap::new(), turn: VecDeque::new(), wakes: BTreeSet::new(), serial: 0 }
    }

    /// Items that wait.
    pub(super) fn len(&self) -> usize {
        self.all.values().map(|lane| lane.due.len()).sum()
    }

    /// Puts an item into its destination's lane, to be tried at `due`. `limit` is how many attempts
    /// the destination takes at the same time.
    pub(super) fn push(&mut self, destination: Destination, limit: u32, mut item: Item<T>, due: Instant) {
        self.serial += 1;
        let id = match self.names.get(&destination) {
            Some(id) => *id,
            None => self.open(destination),
        };
        let Some(lane) = self.all.get_mut(&id) else { return };
        lane.limit = limit.max(1);
        // A hundred thousand messages for one domain need its name once.
        if let Destination::Domain(host) = &lane.destination
            && *host == item.host
        {
            item.host = host.clone();
        }
        lane.ages.insert((item.deadline, self.serial), due);
        lane.due.insert((due, self.serial), item);
        self.take_turn(id);
    }

    fn open(&mut self, destination: Destination) -> LaneId {
        let id = LaneId(self.serial);
        self.names.insert(destination.clone(), id);
        self.all.insert(
            id,
            Lane {
                destination,
                limit: 1,
                active: 0,
                due: BTreeMap::new(),
                ages: BTreeMap::new(),
                down: None,
                in_turn: false,
                wake: None,
            },
        );
        id
    }

    fn take_turn(&mut self, id: LaneId) {
        let Some(lane) = self.all.get_mut(&id) else { return };
        if !lane.in_turn {
            lane.in_turn = true;
            self.turn.push_back(id);
        }
    }

    /// The next job, each lane in its turn; `None` until [`Lanes::next_wake`], or until an attempt
    /// has finished.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job<T>> {
        while let Some((at, id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, id));
            if let Some(lane) = self.all.get_mut(&id) {
                lane.wake = None;
            }
            self.take_turn(id);
        }
        while let Some(id) = self.turn.pop_front() {
            let Some(lane) = self.all.get_mut(&id) else { continue };
            if let Some(job) = lane.next(id, now) {
                self.turn.push_back(id);
                return Some(job);
            }
            lane.in_turn = false;
            self.rest(id, now);
        }
        None
    }

    /// A lane with nothing to do now: it is closed, or woken when there will be.
    fn rest(&mut self, id: LaneId, now: Instant) {
        let Some(lane) = self.all.get_mut(&id) else { return };
        if let Some(at) = lane.wake.take() {
            self.wakes.remove(&(at, id));
        }
        if lane.due.is_empty() && lane.active == 0 && lane.down.as_ref().is_none_or(|down| down.until <= now) {
            self.names.remove(&lane.destination);
            self.all.remove(&id);
            return;
        }
        if let Some(at) = lane.next_wake() {
            lane.wake = Some(at);
            self.wakes.insert((at, id));
        }
    }

    /// Takes the waiting items of these messages out, each with its due time. Looks at everything that
    /// waits: for operators, not for every event.
    pub(super) fn take(&mut self, ids: &HashSet<QueueId>) -> Vec<(Item<T>, Instant)> {
        let mut taken = Vec::new();
        for lane in self.all.values_mut() {
            let keys: Vec<Key> =
                lane.due.iter().filter(|(_, item)| ids.contains(&item.id)).map(|(key, _)| *key).collect();
            for key in keys {
                if let Some(item) = lane.due.remove(&key) {
                    lane.ages.remove(&(item.deadline, key.1));
                    taken.push((item, key.0));
                }
            }
        }
        taken
    }

    /// Until when a destination is left alone, and why; nothing where it is not.
    pub(super) fn down(&self, destination: &Destination, now: Instant) -> Option<(Instant, &Trouble)> {
        let down = self.all.get(self.names.get(destination)?)?.down.as_ref()?;
        (now < down.until).then_some((down.until, &down.last))
    }

    /// Forgets that a destination is down.
    pub(super) fn revive(&mut self, destination: &Destination) {
        let Some(id) = self.names.get(destination).copied() else { return };
        if let Some(lane) = self.all.get_mut(&id) {
            lane.down = None;
        }
        self.take_turn(id);
    }

    /// When [`Lanes::next`] should be asked again, if nothing happens before.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// An attempt has left its connection; `health` tells what it found. A destination that is down is
    /// left alone as `[queue] retry` says, by its own count of failures.
    pub(super) fn finished(&mut self, id: LaneId, now: Instant, health: Health, retry: &[Duration]) {
        let Some(lane) = self.all.get_mut(&id) else { return };
        lane.active = lane.active.saturating_sub(1);
        match health {
            Health::Up => lane.down = None,
            // Attempts that were already under way when the first one failed tell nothing new.
            Health::Down(_) if lane.down.as_ref().is_some_and(|down| now < down.until) => {}
            Health::Down(last) => {
                let failures = lane.down.as_ref().map_or(0, |down| down.failures);
                let wait = retry.get(failures).or(retry.last()).map_or(LONGEST_BACK_OFF, |wait| *wait);
                let wait = wait.min(LONGEST_BACK_OFF);
                lane.down = Some(Down { until: now + wait, failures: failures + 1, last });
            }
        }
        self.take_turn(id);
    }
}

impl<T> Lane<T> {
    fn next(&mut self, id: LaneId, now: Instant) -> Option<Job<T>> {
        let limit = match &self.down {
            Some(down) if now < down.until => 0,
            // One attempt finds out whether the destination is back.
            Some(_) => 1,
            None => self.limit,
        };
        if self.active >= limit {
            return self.next_aged(now);
        }
        let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) else {
            return self.next_aged(now);
        };
        let ((_, serial), item) = entry.remove_entry();
        self.ages.remove(&(item.deadline, serial));
        self.active += 1;
        Some(Job::Deliver(id, item))
    }

    fn next_aged(&mut self, now: Instant) -> Option<Job<T>> {
        let entry = self.ages.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, serial), due) = entry.remove_entry();
        let last = self.down.as_ref().map(|down| down.last.clone());
        self.due.remove(&(due, serial)).map(|item| Job::Aged(item, due, last))
    }

    fn next_wake(&self) -> Option<Instant> {
        let try_at = match &self.down {
            Some(down) => Some(down.until),
            // With every connection in use, the next one that ends gives the lane its turn.
            None if self.active >= self.limit => None,
            None => self.due.keys().next().map(|(at, _)| *at),
        };
        let age_at = self.ages.keys().next().map(|(at, _)| *at);
        try_at.into_iter().chain(age_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Domain;
    use crate::smtp::reply::{EnhancedStatusCode, Status};

    const SECOND: Duration = Duration::from_secs(1);
    const NONE: [u64; 0] = [];
    const RETRY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(20)];

    fn host(name: &str) -> Host {
        Host::Domain(Domain::parse(name).expect("valid"))
    }

    fn item(number: u64, name: &str, expires: Instant) -> Item<()> {
        Item {
            id: QueueId::from_number(number).expect("small"),
            host: host(name),
            deadline: expires,
            expires,
            cargo: (),
        }
    }

    fn trouble(text: &str) -> Trouble {
        Trouble {
            at: jiff::Timestamp::UNIX_EPOCH,
            status: EnhancedStatusCode::transient(Status(4, 1)),
            text: text.into(),
            host: None,
            reply: None,
        }
    }

    struct Bench {
        lanes: Lanes<()>,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { lanes: Lanes::new(), start: Instant::now() }
        }

        fn push(&mut self, number: u64, name: &str, due: u32, limit: u32) {
            let item = item(number, name, self.start + 1000 * SECOND);
            self.lanes.push(Destination::Domain(host(name)), limit, item, self.start + due * SECOND);
        }

        /// The numbers of the messages that are due at a second, each with its lane.
        fn due_at(&mut self, second: u32) -> Vec<(u64, LaneId)> {
            let mut jobs = Vec::new();
            while let Some(job) = self.lanes.next(self.start + second * SECOND) {
                match job {
                    Job::Deliver(lane, item) => jobs.push((item.id.number(), lane)),
                    Job::Aged(item, _, _) => jobs.push((item.id.number() + 1000, LaneId(0))),
                }
            }
            jobs
        }

        fn numbers_at(&mut self, second: u32) -> Vec<u64> {
            self.due_at(second).into_iter().map(|(number, _)| number).collect()
        }
    }

    #[test]
    fn nothing_goes_before_its_time() {
        let mut bench = Bench::new();
        bench.push(1, "a.example", 5, 9);
        assert_eq!(bench.numbers_at(4), NONE);
        assert_eq!(bench.lanes.next_wake(), Some(bench.start + 5 * SECOND));
        assert_eq!(bench.numbers_at(5), [1]);
    }

    #[test]
    fn a_long_lane_does_not_delay_a_short_one() {
        let mut bench = Bench::new();
        for number in 0..100 {
            bench.push(number, "long.example", 0, 50);
        }
        bench.push(500, "short.example", 0, 50);
        let order = bench.numbers_at(0);
        assert_eq!(order.iter().position(|number| *number == 500), Some(1));
        assert_eq!(order.len(), 51);
    }

    #[test]
    fn the_limit_of_connections_is_kept() {
        let mut bench = Bench::new();
        for number in 0..5 {
            bench.push(number, "a.example", 0, 2);
        }
        let first = bench.due_at(0);
        assert_eq!(first.len(), 2);
        assert_eq!(bench.numbers_at(9), NONE);
        bench.lanes.finished(first[0].1, bench.start, Health::Up, &RETRY);
        assert_eq!(bench.numbers_at(9), [2]);
    }

    #[test]
    fn a_destination_that_is_down_is_tried_once_not_per_message() {
        let mut bench = Bench::new();
        for number in 0..5 {
            bench.push(number, "a.example", 0, 1);
        }
        let first = bench.due_at(0);
        bench.lanes.finished(first[0].1, bench.start, Health::Down(trouble("refused")), &RETRY);
        assert_eq!(bench.numbers_at(9), NONE);
        let probe = bench.due_at(10);
        assert_eq!(probe.len(), 1);
        bench.lanes.finished(probe[0].1, bench.start + 10 * SECOND, Health::Down(trouble("refused")), &RETRY);
        assert_eq!(bench.numbers_at(29), NONE, "the second wait is the longer one");
        let probe = bench.due_at(30);
        assert_eq!(probe.len(), 1);
        bench.lanes.finished(probe[0].1, bench.start + 30 * SECOND, Health::Up, &RETRY);
        assert_eq!(bench.numbers_at(30), [3]);
    }

    #[test]
    fn a_deadline_is_kept_while_the_destination_is_down() {
        let mut bench = Bench::new();
        bench.push(1, "a.example", 0, 1);
        let first = bench.due_at(0);
        let brief = item(2, "a.example", bench.start + 3 * SECOND);
        bench.lanes.push(Destination::Domain(host("a.example")), 1, brief, bench.start + 2 * SECOND);
        bench.lanes.finished(first[0].1, bench.start, Health::Down(trouble("refused")), &RETRY);
        assert_eq!(bench.numbers_at(2), NONE);
        assert_eq!(bench.lanes.next_wake(), Some(bench.start + 3 * SECOND));
        assert_eq!(bench.numbers_at(3), [1002]);
    }

    #[test]
    fn a_lane_with_nothing_in_it_is_closed() {
        let mut bench = Bench::new();
        bench.push(1, "a.example", 0, 1);
        let first = bench.due_at(0);
        bench.lanes.finished(first[0].1, bench.start, Health::Up, &RETRY);
        assert_eq!(bench.numbers_at(0), NONE);
        assert!(bench.lanes.all.is_empty() && bench.lanes.names.is_empty() && bench.lanes.wakes.is_empty());
    }
}
