//! Lanes: who is due, in which order, and who must wait because a destination is down.
//!
//! What waits for its time waits in one list; when it has come, in the lane of its destination. Time comes
//! in as an argument and jobs come out: no clock, no I/O, no tasks, so that every rule here can be tested
//! without waiting. Nothing looks at more than the front of a list, whatever that holds, and the lanes
//! take turns.

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

/// The name of a lane while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct LaneId(u64);

/// What an attempt must show when it is over: its lane, and since when what it found out means something.
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

/// Orders what waits in lanes: by lane, then by time, then by arrival. One map for all lanes costs the same
/// for each message, whether they are for one destination or each for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    lane: LaneId,
    at: Millis,
    serial: u64,
}

/// Every lane there is.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    all: HashMap<LaneId, Lane>,
    names: HashMap<Destination, LaneId>,
    /// The lanes of refused parts of a destination.
    parts: HashMap<(LaneId, Part), LaneId>,
    /// What waits for its time, by that and by arrival.
    later: BTreeMap<(Millis, u64), Later<T>>,
    /// What is due and waits in a lane.
    due: BTreeMap<Key, Item<T>>,
    /// Of those, by deadline, the ones whose sender is to be told next; with the time at which each was due.
    notices: BTreeMap<Key, Millis>,
    /// The others, by when they expire; likewise.
    ends: BTreeMap<Key, Millis>,
    /// Lanes that may have something to do now, in turn: first those that have waited for a place.
    called: VecDeque<LaneId>,
    turn: VecDeque<LaneId>,
    /// Lanes that will have something to do.
    wakes: BTreeSet<(Millis, LaneId)>,
    attempts: Attempts,
    serial: u64,
    opened: u64,
    /// Begins anew with other settings.
    era: u64,
    start: Instant,
    spread: Spread,
}

/// What is known of a destination is remembered for so long after its last attempt or the end of its
/// back-off …
const REMEMBERED: Millis = 15 * 60 * 1000;
/// … as long as there are no more lanes than these.
const REMEMBERED_MAX: usize = 10_000;
/// With more than this before it, a message is not tried soon.
const SOON: usize = 1000;

impl<T> Lanes<T> {
    /// No lanes yet, and so many attempts at the same time. No time that is told later lies before `start`; `spread`
    /// is for the back-off of destinations.
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

    /// Items that wait.
    pub(super) fn len(&self) -> usize {
        self.later.len() + self.due.len()
    }

    /// Takes an item in, to be tried at `due`.
    pub(super) fn push(&mut self, item: Item<T>, due: Instant) {
        self.serial += 1;
        let due = self.millis(due);
        self.put_off(item, due, self.serial);
    }

    fn put_off(&mut self, item: Item<T>, due: Millis, serial: u64) {
        let later = Later::new(item, due, |at| self.millis(at));
        self.later.insert((later.at(), serial), later);
    }

    /// Puts an item that is due into its lane.
    fn admit(&mut self, mut item: Item<T>, due: Millis, serial: u64, place: Place, now: Millis) {
        let Place { destination, limit, share } = place;
        let id = match self.names.get(&destination) {
            Some(id) => *id,
            None => self.open(destination),
        };
        let Some(lane) = self.all.get_mut(&id) else { return };
        lane.limit = limit.max(1);
        self.attempts.transfer(id, lane, share);
        // A hundred thousand messages for one domain need its name once.
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

    /// The next job, each lane in its turn; `None` until [`Lanes::next_wake`], or until an attempt has
    /// finished. `place` says where mail for a host goes now.
    pub(super) fn next(&mut self, now: Instant, place: impl Fn(&Host) -> Place) -> Option<Job<T>> {
        let now = self.millis(now);
        self.attempts.age(now, &mut self.all);
        self.call();
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, serial), later) = entry.remove_entry();
            let (item, due) = later.item(|at| self.instant(at));
            let place = place(&item.host);
            // Who expires is tried once more, and so is who is due.
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

    /// What a lane has to do now.
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

    /// Gives those their turn, before others, for whom there is a place now.
    fn call(&mut self) {
        for id in self.attempts.call(&mut self.all) {
            let Some(lane) = self.all.get_mut(&id) else { continue };
            if !lane.in_turn {
                lane.in_turn = true;
                self.called.push_back(id);
            }
        }
    }

    /// The next deadline in a lane that is to be acted upon, and by what key its item waits. Who expires
    /// while the destination is up has its turn there first; no notice waits for that.
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

    /// Where the deadline of an item that is due is noted.
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

    /// A lane with nothing to do now: it is closed, or woken when there will be.
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
        // With every connection in use, the next one that ends gives the lane its turn.
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

    /// Takes the waiting items of these messages out, each with its due time. Looks at everything that
    /// waits: for operators, not for every event.
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

    /// Forgets who is down, and where mail goes: it may go another way now, and at another age, which
    /// `age` puts into each item. Attempts under way are still counted, but what they find out is not.
    pub(super) fn begin_anew(&mut self, age: impl Fn(&mut Item<T>)) {
        self.era += 1;
        self.notices.clear();
        self.ends.clear();
        let due = std::mem::take(&mut self.due).into_iter().map(|(Key { at, serial, .. }, item)| (serial, item, at));
        let waited = std::mem::take(&mut self.later);
        let again = |lanes: &mut Self, mut item: Item<T>, due: Millis, serial| {
            age(&mut item);
            // Who expires is tried once more then.
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

    /// Whether a message that is pushed and due at once will be tried soon.
    pub(super) fn is_prompt(&self, destination: &Destination, host: &Host, is_relaxed: bool) -> bool {
        let Some(id) = self.names.get(destination) else { return true };
        let is_short = self.all.get(id).is_none_or(|lane| lane.waiting < SOON);
        is_short && self.wait(*id, host, is_relaxed).is_none()
    }

    /// Until when mail for a host is left alone, and why; nothing where it is not.
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

    /// Forgets that a destination is down, or what of it mail for a host belongs to.
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

    /// When [`Lanes::next`] should be asked again, if nothing happens before.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let later = self.later.first_key_value().map(|((at, _), _)| *at);
        let slow = self.attempts.next_slow();
        let next = self.wakes.first().map(|(at, _)| *at).into_iter().chain(later).chain(slow).min();
        next.map(|at| self.instant(at))
    }

    /// An attempt has left its connection; `health` tells what it found. A destination that is down is
    /// left alone as `[queue] retry` says, by its own count of failures.
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

    /// From now on so many attempts may be under way. Those that are go on.
    pub(super) fn resize(&mut self, attempts: u32) {
        self.attempts.resize(attempts);
    }

    /// The slow attempts that must end so that other destinations find a place, among those that `may` end: their
    /// message was not begun. To be asked after [`Lanes::next`] has nothing more to do; each is named once.
    pub(super) fn choose_to_end(&mut self, may: impl Fn(AttemptId) -> bool) -> Vec<AttemptId> {
        self.attempts.choose_to_end(&self.all, may)
    }

    /// How much of each share of the attempts is in use.
    pub(super) fn in_use(&self) -> [ShareUse; 2] {
        self.attempts.in_use()
    }
}

/// The first of a lane's entries.
fn first<V>(map: &BTreeMap<Key, V>, lane: LaneId) -> Option<Key> {
    let key = map.range(Key { lane, at: 0, serial: 0 }..).next()?.0;
    (key.lane == lane).then_some(*key)
}

#[cfg(test)]
mod tests;
