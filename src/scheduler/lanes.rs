//! The queues of the destinations: the order of due messages, concurrency and backoff.
//!
//! An item that is not due waits in one list by time, and a due one in the queue of its destination. The queues are
//! served round robin. No step looks further than the front of a list. Time comes in as an argument and jobs come
//! out: no clock, no I/O, no tasks, so tests need not wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::address::Host;
use crate::envelope::QueueId;

mod attempts;
mod item;
mod lane;
mod later;
mod part;
mod share;

use attempts::Attempts;
pub(super) use attempts::{AttemptId, ShareUse};
pub(super) use item::{Destination, Item, Job, Place};
pub(super) use lane::Health;
use lane::{Lane, Millis, Spread};
use later::Later;
pub(super) use part::{Part, Wait};
pub use share::Share;

/// The id of a destination queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct LaneId(u64);

/// Identifies a running attempt when it reports back. Results from before the last reload (`era`) are ignored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    lane: LaneId,
    pub(super) attempt: AttemptId,
    era: u64,
}

#[cfg(test)]
impl Ticket {
    const NONE: Self = Self { lane: LaneId(0), attempt: AttemptId::NONE, era: 0 };
}

/// The key of a due item: by queue, then by time, then by arrival. One map for all queues costs the same for each
/// message, for one destination or for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    lane: LaneId,
    at: Millis,
    serial: u64,
}

/// The queues of all destinations.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    all: HashMap<LaneId, Lane>,
    names: HashMap<Destination, LaneId>,
    /// The queues of refused parts of a destination.
    parts: HashMap<(LaneId, Part), LaneId>,
    /// The items that are not due, by time and by arrival.
    later: BTreeMap<(Millis, u64), Later<T>>,
    /// The items that are due.
    due: BTreeMap<Key, Item<T>>,
    /// The due items whose next deadline is a report of delay, by deadline; the value is the due time.
    notices: BTreeMap<Key, Millis>,
    /// The other due items, by the time at which they expire; the value is the due time.
    ends: BTreeMap<Key, Millis>,
    /// The queues that may have a job now: `called` ones waited for a place and go first, then `turn`.
    called: VecDeque<LaneId>,
    turn: VecDeque<LaneId>,
    /// The times at which queues may have a job next.
    wakes: BTreeSet<(Millis, LaneId)>,
    attempts: Attempts,
    serial: u64,
    opened: u64,
    /// The number of reloads.
    era: u64,
    start: Instant,
    spread: Spread,
}

/// The time for which a destination is remembered after its last attempt or the end of its backoff, unless there
/// are more than [`REMEMBERED_MAX`].
const REMEMBERED: Millis = 15 * 60 * 1000;
/// The most destination queues that are kept while empty.
const REMEMBERED_MAX: usize = 10_000;
/// The length of a queue from which a new message is not tried soon.
const SOON: usize = 1000;

impl<T> Lanes<T> {
    /// Creates the queues, empty, for `attempts` concurrent attempts. No later time lies before `start`. `spread` adds
    /// the random part to a backoff.
    pub(super) fn new(start: Instant, spread: Spread, attempts: u32) -> Self {
        Self {
            all: HashMap::new(),
            names: HashMap::new(),
            parts: HashMap::new(),
            later: BTreeMap::new(),
            due: BTreeMap::new(),
            notices: BTreeMap::new(),
            ends: BTreeMap::new(),
            called: VecDeque::new(),
            turn: VecDeque::new(),
            wakes: BTreeSet::new(),
            attempts: Attempts::new(attempts),
            serial: 0,
            opened: 0,
            era: 0,
            start,
            spread,
        }
    }

    fn millis(&self, at: Instant) -> Millis {
        at.saturating_duration_since(self.start).as_millis().try_into().unwrap_or(Millis::MAX)
    }

    fn instant(&self, at: Millis) -> Instant {
        self.start + Duration::from_millis(at)
    }

    /// The number of waiting items.
    pub(super) fn len(&self) -> usize {
        self.later.len() + self.due.len()
    }

    /// Adds an item, to be tried at `due`.
    pub(super) fn push(&mut self, item: Item<T>, due: Instant) {
        self.serial += 1;
        let due = self.millis(due);
        self.put_off(item, due, self.serial);
    }

    fn put_off(&mut self, item: Item<T>, due: Millis, serial: u64) {
        let later = Later::new(item, due, |at| self.millis(at));
        self.later.insert((later.at(), serial), later);
    }

    /// Puts a due item into the queue of its destination.
    fn admit(&mut self, mut item: Item<T>, due: Millis, serial: u64, place: Place, now: Millis) {
        let Place { destination, limit, share } = place;
        let id = match self.names.get(&destination) {
            Some(id) => *id,
            None => self.open(destination),
        };
        let Some(lane) = self.all.get_mut(&id) else { return };
        lane.limit = limit.max(1);
        self.attempts.transfer(id, lane, share);
        // Items of one domain share the memory of its name.
        if let Destination::Domain(host) = &lane.destination
            && *host == item.host
        {
            item.host = host.clone();
        }
        let part = self.refused(id, &item.host, item.is_relaxed, id, now);
        self.insert(part.unwrap_or(id), item, due, serial);
    }

    fn insert(&mut self, id: LaneId, item: Item<T>, due: Millis, serial: u64) {
        let deadline = self.millis(item.deadline);
        let Some(lane) = self.all.get_mut(&id) else { return };
        lane.waiting += 1;
        self.ages(&item).insert(Key { lane: id, at: deadline, serial }, due);
        self.due.insert(Key { lane: id, at: due, serial }, item);
        self.take_turn(id);
    }

    fn open(&mut self, destination: Destination) -> LaneId {
        self.opened += 1;
        let id = LaneId(self.opened);
        self.names.insert(destination.clone(), id);
        self.all.insert(id, Lane::new(destination));
        id
    }

    fn take_turn(&mut self, id: LaneId) {
        let Some(lane) = self.all.get_mut(&id) else { return };
        if !lane.in_turn {
            lane.in_turn = true;
            self.turn.push_back(id);
        }
    }

    /// Returns the next job, round robin over the queues, or `None` until [`Lanes::next_wake`] or the end of an
    /// attempt. `place` returns the destination of mail for a domain.
    pub(super) fn next(&mut self, now: Instant, place: impl Fn(&Host) -> Place) -> Option<Job<T>> {
        let now = self.millis(now);
        self.attempts.age(now, &mut self.all);
        self.call();
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, serial), later) = entry.remove_entry();
            let (item, due) = later.item(|at| self.instant(at));
            let place = place(&item.host);
            // An expired item gets a last attempt, and a due item an attempt.
            if due > now && item.deadline < item.expires {
                let id = self.names.get(&place.destination).copied();
                let wait = id.and_then(|id| self.wait(id, &item.host, item.is_relaxed));
                let last = wait.map(|wait| wait.last.clone());
                return Some(Job::Aged(item, self.instant(due), last));
            }
            self.admit(item, due, serial, place, now);
        }
        while let Some((at, id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, id));
            if let Some(lane) = self.all.get_mut(&id) {
                lane.wake = None;
            }
            self.take_turn(id);
        }
        while let Some(id) = self.called.pop_front().or_else(|| self.turn.pop_front()) {
            if let Some(job) = self.job(id, now) {
                self.turn.push_back(id);
                return Some(job);
            }
            self.rest(id, now);
        }
        None
    }

    /// Returns the job that a queue has now.
    fn job(&mut self, id: LaneId, now: Millis) -> Option<Job<T>> {
        self.divert(id, now);
        let (whole, destination) = self.whole(id)?;
        if self.has_room(id, now)
            && self.attempts.decide(destination).is_ok()
            && let Some(key) = first(&self.due, id)
        {
            let item = self.remove(key)?;
            let attempt = self.begin(id, now)?;
            return Some(Job::Deliver(Ticket { lane: id, attempt, era: self.era }, item));
        }
        let due = self.next_age(id).filter(|(at, _)| *at <= now)?.1;
        let item = self.remove(due)?;
        let last = self.wait(whole, &item.host, item.is_relaxed).map(|wait| wait.last.clone());
        Some(Job::Aged(item, self.instant(due.at), last))
    }

    /// Gives queues that waited for a place their turn, before others, as far as places are free.
    fn call(&mut self) {
        for id in self.attempts.call(&mut self.all) {
            let Some(lane) = self.all.get_mut(&id) else { continue };
            if !lane.in_turn {
                lane.in_turn = true;
                self.called.push_back(id);
            }
        }
    }

    /// Returns the next deadline of a queue that needs a job, and the key of its item. An item that expires while the
    /// destination is up waits for its last attempt; reports of delay do not wait for it.
    fn next_age(&self, id: LaneId) -> Option<(Millis, Key)> {
        let next = |ages: &BTreeMap<Key, Millis>| {
            let age = first(ages, id)?;
            Some((age.at, Key { at: *ages.get(&age)?, ..age }))
        };
        let is_down = |lane: &Lane| lane.down.is_some();
        let is_down = self.all.get(&id).is_some_and(is_down) || self.whole(id).is_some_and(|(_, lane)| is_down(lane));
        let end = next(&self.ends).filter(|_| is_down);
        next(&self.notices).into_iter().chain(end).min()
    }

    /// Returns the index that holds the deadline of a due item.
    fn ages(&mut self, item: &Item<T>) -> &mut BTreeMap<Key, Millis> {
        if item.deadline < item.expires { &mut self.notices } else { &mut self.ends }
    }

    fn remove(&mut self, key: Key) -> Option<Item<T>> {
        let item = self.due.remove(&key)?;
        let at = self.millis(item.deadline);
        self.ages(&item).remove(&Key { at, ..key });
        self.all.get_mut(&key.lane)?.waiting -= 1;
        Some(item)
    }

    /// Suspends a queue without a job: removes it, or sets the time at which it may have one.
    fn rest(&mut self, id: LaneId, now: Millis) {
        let Some(lane) = self.all.get(&id) else { return };
        let Some(whole) = lane.part.as_ref().map_or(Some(lane), |part| self.all.get(&part.0)) else { return };
        if let Some(at) = lane.wake {
            self.wakes.remove(&(at, id));
        }
        let until = |lane: &Lane| lane.down.as_ref().map(|down| down.until).filter(|until| now < *until);
        let memory = if self.all.len() > REMEMBERED_MAX { 0 } else { REMEMBERED };
        let close_at = until(lane).unwrap_or(lane.used) + memory;
        let is_empty = lane.waiting == 0 && lane.active == 0 && lane.parts == 0;
        if is_empty && close_at <= now {
            self.close(id);
            return;
        }
        // When every connection is in use, the next attempt that ends gives the queue its turn.
        let try_at = until(lane).max(until(whole));
        let wants = lane.waiting > 0 && self.has_room(id, try_at.unwrap_or(now));
        let is_whole = lane.part.is_none();
        let is_blocked = lane.waiting > 0 && !wants && (is_whole || lane.active < lane.room(try_at.unwrap_or(now)));
        let row = if wants && try_at.is_none() { self.attempts.decide(whole).err() } else { None };
        let age_at = self.next_age(id).map(|(at, _)| at);
        let close_at = is_empty.then_some(close_at);
        let (limit, share) = (whole.limit, whole.share);
        let wake = try_at.filter(|_| wants || is_blocked).into_iter().chain(age_at).chain(close_at).min();
        self.wakes.extend(wake.map(|at| (at, id)));
        if let Some(lane) = self.all.get_mut(&id) {
            (lane.limit, lane.in_turn, lane.wake) = (limit, false, wake);
            if lane.share != share {
                self.attempts.wait(id, lane, None);
                lane.share = share;
            }
            self.attempts.wait(id, lane, row);
        }
        if is_blocked {
            self.block(id);
        }
        self.unblock(id, now);
    }

    /// Removes the waiting items of these messages and returns them with their due times. It scans every waiting item,
    /// so it is for operators' orders only.
    pub(super) fn take(&mut self, ids: &HashSet<QueueId>) -> Vec<(Item<T>, Instant)> {
        let wanted = self.due.iter().filter(|(_, item)| ids.contains(&item.id));
        let keys: Vec<Key> = wanted.map(|(key, _)| *key).collect();
        for key in &keys {
            self.take_turn(key.lane);
        }
        let due = keys.into_iter().filter_map(|key| Some((self.remove(key)?, key.at))).collect::<Vec<_>>();
        let later: Vec<_> = self.later.extract_if(.., |_, later| ids.contains(&later.id)).collect();
        let later = later.into_iter().map(|(_, later)| later.item(|at| self.instant(at)));
        let all: Vec<_> = due.into_iter().chain(later).collect();
        all.into_iter().map(|(item, due)| (item, self.instant(due))).collect()
    }

    /// Applies a new configuration: clears every backoff, and routes every item again. `age` recomputes the deadlines
    /// of an item. Running attempts still count towards limits, but their results say nothing about destinations.
    pub(super) fn begin_anew(&mut self, age: impl Fn(&mut Item<T>)) {
        self.era += 1;
        self.notices.clear();
        self.ends.clear();
        let due = std::mem::take(&mut self.due).into_iter().map(|(Key { at, serial, .. }, item)| (serial, item, at));
        let waited = std::mem::take(&mut self.later);
        let again = |lanes: &mut Self, mut item: Item<T>, due: Millis, serial| {
            age(&mut item);
            // An expired item gets a last attempt.
            let due = due.min(lanes.millis(item.expires));
            lanes.put_off(item, due, serial);
        };
        for (serial, item, due) in due {
            again(self, item, due, serial);
        }
        for ((_, serial), later) in waited {
            let (item, due) = later.item(|at| self.instant(at));
            again(self, item, due, serial);
        }
        for lane in self.all.values_mut() {
            lane.waiting = 0;
            lane.down = None;
        }
        let ids: Vec<LaneId> = self.all.keys().copied().collect();
        for id in ids {
            self.take_turn(id);
        }
    }

    /// Returns true when a message that is due now would be tried soon.
    pub(super) fn is_prompt(&self, destination: &Destination, host: &Host, is_relaxed: bool) -> bool {
        let Some(id) = self.names.get(destination) else { return true };
        let is_short = self.all.get(id).is_none_or(|lane| lane.waiting < SOON);
        is_short && self.wait(*id, host, is_relaxed).is_none()
    }

    /// Returns the end of the backoff of mail for a domain, with its reason; `None` when there is no backoff.
    pub(super) fn down(
        &self,
        destination: &Destination,
        host: &Host,
        is_relaxed: bool,
        now: Instant,
    ) -> Option<(Instant, Wait<'_>)> {
        let wait = self.wait(*self.names.get(destination)?, host, is_relaxed)?;
        (self.millis(now) < wait.until).then_some((self.instant(wait.until), wait))
    }

    /// Clears the backoff of a destination, and of the parts that mail for a domain belongs to.
    pub(super) fn revive(&mut self, destination: &Destination, host: &Host, is_relaxed: bool) {
        let Some(whole) = self.names.get(destination).copied() else { return };
        let parts: Vec<LaneId> = self.parts_of(whole, host, is_relaxed).collect();
        for id in parts.into_iter().chain([whole]) {
            if let Some(lane) = self.all.get_mut(&id) {
                lane.down = None;
            }
            self.take_turn(id);
        }
    }

    /// Returns the time at which to call [`Lanes::next`] again, if no event comes first.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let later = self.later.first_key_value().map(|((at, _), _)| *at);
        let slow = self.attempts.next_slow();
        let next = self.wakes.first().map(|(at, _)| *at).into_iter().chain(later).chain(slow).min();
        next.map(|at| self.instant(at))
    }

    /// Ends an attempt. `health` is what it showed of the destination. A destination that is down gets a backoff by
    /// the steps of `[queue] retry`, one for each failure in a row.
    pub(super) fn finished(&mut self, ticket: Ticket, now: Instant, health: Health, retry: &[Duration]) {
        let now = self.millis(now);
        if !self.end(ticket.lane, ticket.attempt) {
            return;
        }
        let health = if ticket.era == self.era { health } else { Health::Unknown };
        self.learn(ticket.lane, now, health, retry);
        self.unblock(ticket.lane, now);
        self.take_turn(ticket.lane);
        if let Some((whole, _)) = self.whole(ticket.lane) {
            self.take_turn(whole);
        }
        self.call();
    }

    /// Changes the most attempts that may run. Running attempts continue.
    pub(super) fn resize(&mut self, attempts: u32) {
        self.attempts.resize(attempts);
    }

    /// Returns the slow attempts that must end so that other destinations get a place, each once. `may` returns true
    /// for an attempt that has not started to send its message. Call it after [`Lanes::next`] returned `None`.
    pub(super) fn choose_to_end(&mut self, may: impl Fn(AttemptId) -> bool) -> Vec<AttemptId> {
        self.attempts.choose_to_end(&self.all, may)
    }

    /// Returns the use of each share of the attempts.
    pub(super) fn in_use(&self) -> [ShareUse; 2] {
        self.attempts.in_use()
    }
}

/// Returns the first entry of a queue.
fn first<V>(map: &BTreeMap<Key, V>, lane: LaneId) -> Option<Key> {
    let key = map.range(Key { lane, at: 0, serial: 0 }..).next()?.0;
    (key.lane == lane).then_some(*key)
}

#[cfg(test)]
mod tests;
