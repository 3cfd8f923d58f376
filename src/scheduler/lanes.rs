//! Lanes: who is due, in which order, and who must wait because a destination is down.
//!
//! What waits for its time waits in one list; when it has come, in the lane of its destination. Time comes
//! in as an argument and jobs come out: no clock, no I/O, no tasks, so that every rule here can be tested
//! without waiting. Nothing looks at more than the front of a list, whatever that holds, and the lanes
//! take turns.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::Host;
use crate::envelope::{QueueId, Trouble};

mod attempts;
mod lane;
mod later;
mod share;

use attempts::Attempts;
pub(super) use attempts::{AttemptId, ShareUse};
pub(super) use lane::Health;
use lane::{Lane, Millis, Spread};
use later::Later;
pub use share::Share;

/// What shares a limit of connections and a back-off.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Destination {
    /// The MX hosts of one domain.
    Domain(Host),
    /// The smart hosts of the connector of this name, whatever the recipient's domain.
    SmartHosts(Arc<str>),
}

/// Where mail for a host goes now.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) destination: Destination,
    /// Attempts that may be made there at the same time.
    pub(super) limit: u32,
    pub(super) share: Share,
}

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

/// One message for one recipient domain, waiting in a lane. `T` is what its owner keeps with it.
#[derive(Debug)]
pub(super) struct Item<T> {
    pub(super) id: QueueId,
    pub(super) host: Host,
    /// When its age matters next, tried or not: a notice to its sender is due, or it expires.
    pub(super) deadline: Instant,
    pub(super) expires: Instant,
    /// The `[queue] expire` that `expires` was reckoned with.
    pub(super) expire: Duration,
    pub(super) cargo: T,
}

/// What a lane wants done with an item.
#[derive(Debug)]
pub(super) enum Job<T> {
    /// Try to deliver it; [`Lanes::finished`] is owed afterwards.
    Deliver(Ticket, Item<T>),
    /// Its deadline has come, and it cannot be tried now: when it will be, and why not now where its
    /// destination is down.
    Aged(Item<T>, Instant, Option<Trouble>),
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
    fn admit(&mut self, mut item: Item<T>, due: Millis, serial: u64, place: Place) {
        let Place { destination, limit, share } = place;
        let id = match self.names.get(&destination) {
            Some(id) => *id,
            None => self.open(destination),
        };
        let deadline = self.millis(item.deadline);
        let Some(lane) = self.all.get_mut(&id) else { return };
        lane.limit = limit.max(1);
        self.attempts.transfer(id, lane, share);
        lane.waiting += 1;
        // A hundred thousand messages for one domain need its name once.
        if let Destination::Domain(host) = &lane.destination
            && *host == item.host
        {
            item.host = host.clone();
        }
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
                let last = self.names.get(&place.destination).and_then(|id| self.all.get(id)?.down.as_ref());
                return Some(Job::Aged(item, self.instant(due), last.map(|down| down.last.clone())));
            }
            self.admit(item, due, serial, place);
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
        let lane = self.all.get(&id)?;
        if lane.active < lane.room(now)
            && self.attempts.decide(lane).is_ok()
            && let Some(key) = first(&self.due, id)
        {
            let item = self.remove(key)?;
            let lane = self.all.get_mut(&id)?;
            let attempt = self.attempts.begin(id, lane, now);
            return Some(Job::Deliver(Ticket { lane: id, attempt, era: self.era }, item));
        }
        let due = self.next_age(id, lane).filter(|(at, _)| *at <= now)?.1;
        let last = lane.down.as_ref().map(|down| down.last.clone());
        Some(Job::Aged(self.remove(due)?, self.instant(due.at), last))
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
    fn next_age(&self, id: LaneId, lane: &Lane) -> Option<(Millis, Key)> {
        let next = |ages: &BTreeMap<Key, Millis>| {
            let age = first(ages, id)?;
            Some((age.at, Key { at: *ages.get(&age)?, ..age }))
        };
        let end = lane.down.as_ref().and_then(|_| next(&self.ends));
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
        if let Some(at) = lane.wake {
            self.wakes.remove(&(at, id));
        }
        let until = lane.down.as_ref().map(|down| down.until).filter(|until| now < *until);
        let memory = if self.all.len() > REMEMBERED_MAX { 0 } else { REMEMBERED };
        let close_at = until.unwrap_or(lane.used) + memory;
        let is_empty = lane.waiting == 0 && lane.active == 0;
        if is_empty && close_at <= now {
            if let Some(mut lane) = self.all.remove(&id) {
                self.names.remove(&lane.destination);
                self.attempts.wait(id, &mut lane, None);
            }
            return;
        }
        // With every connection in use, the next one that ends gives the lane its turn.
        let wants = |at: Millis| lane.waiting > 0 && lane.active < lane.room(at);
        let row = if wants(now) { self.attempts.decide(lane).err() } else { None };
        let try_at = until.filter(|until| wants(*until));
        let age_at = self.next_age(id, lane).map(|(at, _)| at);
        let close_at = is_empty.then_some(close_at);
        let wake = try_at.into_iter().chain(age_at).chain(close_at).min();
        self.wakes.extend(wake.map(|at| (at, id)));
        if let Some(lane) = self.all.get_mut(&id) {
            (lane.in_turn, lane.wake) = (false, wake);
            self.attempts.wait(id, lane, row);
        }
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
    pub(super) fn is_prompt(&self, destination: &Destination) -> bool {
        let lane = self.names.get(destination).and_then(|id| self.all.get(id));
        lane.is_none_or(|lane| lane.down.is_none() && lane.waiting < SOON)
    }

    /// Until when a destination is left alone, and why; nothing where it is not.
    pub(super) fn down(&self, destination: &Destination, now: Instant) -> Option<(Instant, &Trouble)> {
        let down = self.all.get(self.names.get(destination)?)?.down.as_ref()?;
        (self.millis(now) < down.until).then_some((self.instant(down.until), &down.last))
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
        let later = self.later.first_key_value().map(|((at, _), _)| *at);
        let slow = self.attempts.next_slow();
        let next = self.wakes.first().map(|(at, _)| *at).into_iter().chain(later).chain(slow).min();
        next.map(|at| self.instant(at))
    }

    /// An attempt has left its connection; `health` tells what it found. A destination that is down is
    /// left alone as `[queue] retry` says, by its own count of failures.
    pub(super) fn finished(&mut self, ticket: Ticket, now: Instant, health: Health, retry: &[Duration]) {
        let now = self.millis(now);
        let Some(lane) = self.all.get_mut(&ticket.lane) else { return };
        if !self.attempts.end(ticket.attempt, lane) {
            return;
        }
        let health = if ticket.era == self.era { health } else { Health::Unknown };
        lane.ended(now, health, retry, self.spread);
        self.take_turn(ticket.lane);
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
