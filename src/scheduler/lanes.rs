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
struct LaneId(u64);

/// What an attempt must show when it is over: its lane, and since when what it found out means something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    lane: LaneId,
    era: u64,
}

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
    Deliver(Ticket, Item<T>),
    /// Its deadline has come, and it cannot be tried now: when it will be, and why not now where its
    /// destination is down.
    Aged(Item<T>, Instant, Option<Trouble>),
}

/// What an attempt told about the destination as a whole.
#[derive(Debug)]
pub(super) enum Health {
    /// It took a message, or judged one.
    Up,
    /// No hop could be used; why.
    Down(Trouble),
    /// A session broke before anything was decided on it. One message may be to blame for that, several
    /// are not.
    Shaken(Trouble),
    /// Nothing: it was not asked.
    Unknown,
}

#[derive(Debug)]
struct Down {
    until: Millis,
    failures: usize,
    last: Trouble,
}

/// Orders what waits: by lane, then by time, then by arrival. One map for all lanes costs the same for
/// each message, whether they are for one destination or each for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    lane: LaneId,
    at: Millis,
    serial: u64,
}

/// A moment, in milliseconds since the lanes were made: half the size of an [`Instant`].
type Millis = u64;

#[derive(Debug)]
struct Lane {
    destination: Destination,
    /// Attempts at the same time, at most.
    limit: u32,
    /// How many of them the destination has earned.
    window: u32,
    active: u32,
    waiting: usize,
    /// Sessions that broke since something last went well.
    shaken: u32,
    down: Option<Box<Down>>,
    /// Whether the latest attempt that told anything went well.
    proven: bool,
    /// Whether it is among [`Lanes::crowded`].
    is_crowded: bool,
    in_turn: bool,
    wake: Option<Millis>,
}

/// Every lane there is.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    all: HashMap<LaneId, Lane>,
    names: HashMap<Destination, LaneId>,
    /// What waits, by the time at which it is to be tried.
    due: BTreeMap<Key, Item<T>>,
    /// The same, by deadline; with the time at which it is to be tried.
    ages: BTreeMap<Key, Millis>,
    /// Lanes that may have something to do now, in turn.
    turn: VecDeque<LaneId>,
    /// Lanes that will have something to do.
    wakes: BTreeSet<(Millis, LaneId)>,
    /// Attempts under way for destinations of which nothing good is known.
    unproven: u32,
    /// Lanes that wait for one of those to end.
    crowded: VecDeque<LaneId>,
    serial: u64,
    /// Begins anew with other settings.
    era: u64,
    start: Instant,
}

/// A destination that is down is asked again at least this often, however long the schedule's waits:
/// new mail should not wait hours for a server that is back.
const LONGEST_BACK_OFF: Duration = Duration::from_mins(15);
/// Attempts at the same time for a destination of which nothing is known; each one that goes well earns
/// it one more. Those that hang cannot take every attempt that the process may make.
const WINDOW: u32 = 5;
/// Attempts at the same time for all destinations of which nothing good is known, together: however
/// many of them hang, those that work have the rest of what the process may make.
const UNPROVEN_MAX: u32 = 700;
/// Sessions that break one after another until a destination counts as down.
const SHAKEN_MAX: u32 = 3;
/// With more than this before it, a message is not tried soon.
const SOON: usize = 1000;

impl<T> Lanes<T> {
    /// No lanes yet. No time that is told later lies before `start`.
    pub(super) fn new(start: Instant) -> Self {
        Self {
            all: HashMap::new(),
            names: HashMap::new(),
            due: BTreeMap::new(),
            ages: BTreeMap::new(),
            turn: VecDeque::new(),
            wakes: BTreeSet::new(),
            unproven: 0,
            crowded: VecDeque::new(),
            serial: 0,
            era: 0,
            start,
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
        self.due.len()
    }

    /// Puts an item into its destination's lane, to be tried at `due`. `limit` is how many attempts
    /// the destination takes at the same time.
    pub(super) fn push(&mut self, destination: Destination, limit: u32, mut item: Item<T>, due: Instant) {
        self.serial += 1;
        let (serial, deadline, due) = (self.serial, self.millis(item.deadline), self.millis(due));
        let id = match self.names.get(&destination) {
            Some(id) => *id,
            None => self.open(destination),
        };
        let Some(lane) = self.all.get_mut(&id) else { return };
        lane.limit = limit.max(1);
        lane.waiting += 1;
        // A hundred thousand messages for one domain need its name once.
        if let Destination::Domain(host) = &lane.destination
            && *host == item.host
        {
            item.host = host.clone();
        }
        self.ages.insert(Key { lane: id, at: deadline, serial }, due);
        self.due.insert(Key { lane: id, at: due, serial }, item);
        self.take_turn(id);
    }

    fn open(&mut self, destination: Destination) -> LaneId {
        let id = LaneId(self.serial);
        self.names.insert(destination.clone(), id);
        let lane = Lane {
            destination,
            limit: 1,
            window: WINDOW,
            active: 0,
            waiting: 0,
            shaken: 0,
            down: None,
            proven: false,
            is_crowded: false,
            in_turn: false,
            wake: None,
        };
        self.all.insert(id, lane);
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
        let now = self.millis(now);
        while let Some((at, id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, id));
            if let Some(lane) = self.all.get_mut(&id) {
                lane.wake = None;
            }
            self.take_turn(id);
        }
        while let Some(id) = self.turn.pop_front() {
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
            && !self.is_crowded_out(lane)
            && let Some(key) = first(&self.due, id).filter(|key| key.at <= now)
        {
            let item = self.remove(key)?;
            let lane = self.all.get_mut(&id)?;
            lane.active += 1;
            if !lane.proven {
                self.unproven += 1;
            }
            return Some(Job::Deliver(Ticket { lane: id, era: self.era }, item));
        }
        let due = self.next_age(id, lane).filter(|(at, _)| *at <= now)?.1;
        let last = lane.down.as_ref().map(|down| down.last.clone());
        Some(Job::Aged(self.remove(due)?, self.instant(due.at), last))
    }

    fn is_crowded_out(&self, lane: &Lane) -> bool {
        !lane.proven && self.unproven >= UNPROVEN_MAX
    }

    /// The next deadline in a lane that is to be acted upon, and by what key its item waits. Who expires
    /// while the destination is up has its turn there first.
    fn next_age(&self, id: LaneId, lane: &Lane) -> Option<(Millis, Key)> {
        let age = first(&self.ages, id)?;
        let due = Key { at: *self.ages.get(&age)?, ..age };
        let item = self.due.get(&due)?;
        (lane.down.is_some() || item.deadline < item.expires).then_some((age.at, due))
    }

    fn remove(&mut self, key: Key) -> Option<Item<T>> {
        let item = self.due.remove(&key)?;
        self.ages.remove(&Key { at: self.millis(item.deadline), ..key });
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
        if lane.waiting == 0 && lane.active == 0 && until.is_none() {
            self.names.remove(&lane.destination);
            self.all.remove(&id);
            return;
        }
        // With every connection in use, the next one that ends gives the lane its turn.
        let is_crowded_out = self.is_crowded_out(lane);
        let is_free = lane.active < lane.room(until.unwrap_or(now)) && !is_crowded_out;
        let joins_crowd = is_crowded_out && lane.waiting > 0 && !lane.is_crowded;
        let try_at =
            first(&self.due, id).filter(|_| is_free).map(|key| until.map_or(key.at, |until| key.at.max(until)));
        let age_at = self.next_age(id, lane).map(|(at, _)| at);
        let close_at = until.filter(|_| lane.waiting == 0);
        let wake = try_at.into_iter().chain(age_at).chain(close_at).min();
        self.wakes.extend(wake.map(|at| (at, id)));
        if let Some(lane) = self.all.get_mut(&id) {
            (lane.in_turn, lane.wake) = (false, wake);
            lane.is_crowded |= joins_crowd;
        }
        if joins_crowd {
            self.crowded.push_back(id);
        }
    }

    /// Takes the waiting items of these messages out, each with its due time. Looks at everything that
    /// waits: for operators, not for every event.
    pub(super) fn take(&mut self, ids: &HashSet<QueueId>) -> Vec<(Item<T>, Instant)> {
        let wanted = self.due.iter().filter(|(_, item)| ids.contains(&item.id));
        let keys: Vec<Key> = wanted.map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| Some((self.remove(key)?, self.instant(key.at)))).collect()
    }

    /// Takes out everything that waits, and forgets who is down: what is known of the destinations may
    /// no longer be so. Attempts under way are still counted, but what they find out is not.
    pub(super) fn take_all(&mut self) -> Vec<(Item<T>, Instant)> {
        self.era += 1;
        self.ages.clear();
        for lane in self.all.values_mut() {
            lane.waiting = 0;
            lane.down = None;
        }
        let ids: Vec<LaneId> = self.all.keys().copied().collect();
        for id in ids {
            self.take_turn(id);
        }
        std::mem::take(&mut self.due).into_iter().map(|(key, item)| (item, self.instant(key.at))).collect()
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
        self.wakes.first().map(|(at, _)| self.instant(*at))
    }

    /// An attempt has left its connection; `health` tells what it found. A destination that is down is
    /// left alone as `[queue] retry` says, by its own count of failures.
    pub(super) fn finished(&mut self, ticket: Ticket, now: Instant, health: Health, retry: &[Duration]) {
        let now = self.millis(now);
        let Some(lane) = self.all.get_mut(&ticket.lane) else { return };
        let before = lane.unproven();
        lane.active = lane.active.saturating_sub(1);
        match health {
            Health::Unknown => {}
            _ if ticket.era != self.era => {}
            Health::Up => {
                lane.down = None;
                lane.proven = true;
                lane.shaken = 0;
                lane.window = lane.window.saturating_add(1).min(lane.limit.max(WINDOW));
            }
            Health::Down(last) => lane.falls(now, last, retry),
            Health::Shaken(last) => {
                lane.shaken += 1;
                if lane.shaken >= SHAKEN_MAX || lane.down.is_some() {
                    lane.falls(now, last, retry);
                }
            }
        }
        self.unproven = self.unproven.saturating_sub(before) + lane.unproven();
        self.take_turn(ticket.lane);
        let free = UNPROVEN_MAX.saturating_sub(self.unproven) as usize;
        for id in self.crowded.drain(..free.min(self.crowded.len())).collect::<Vec<_>>() {
            if let Some(lane) = self.all.get_mut(&id) {
                lane.is_crowded = false;
            }
            self.take_turn(id);
        }
    }
}

impl Lane {
    /// How many of its attempts count as unproven.
    fn unproven(&self) -> u32 {
        if self.proven { 0 } else { self.active }
    }

    /// How many attempts may be under way.
    fn room(&self, now: Millis) -> u32 {
        match &self.down {
            Some(down) if now < down.until => 0,
            // One attempt finds out whether the destination is back.
            Some(_) => 1,
            None => self.window.min(self.limit),
        }
    }

    fn falls(&mut self, now: Millis, last: Trouble, retry: &[Duration]) {
        // Attempts that were already under way when the first one failed tell nothing new.
        if self.down.as_ref().is_some_and(|down| now < down.until) {
            return;
        }
        let failures = self.down.as_ref().map_or(0, |down| down.failures);
        let wait = retry.get(failures).or(retry.last()).map_or(LONGEST_BACK_OFF, |wait| *wait);
        let until = now + wait.min(LONGEST_BACK_OFF).as_millis().try_into().unwrap_or(0);
        self.down = Some(Box::new(Down { until, failures: failures + 1, last }));
        self.window = WINDOW;
        self.proven = false;
    }
}

/// The first of a lane's entries.
fn first<V>(map: &BTreeMap<Key, V>, lane: LaneId) -> Option<Key> {
    let key = map.range(Key { lane, at: 0, serial: 0 }..).next()?.0;
    (key.lane == lane).then_some(*key)
}

#[cfg(test)]
mod tests;
