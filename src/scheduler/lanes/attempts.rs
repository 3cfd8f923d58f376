//! The running attempts, counted by share, and the destinations that wait for a place.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::lane::Lane;
use super::share::{self, Counts, Row, SLOW, Share};
use super::{LaneId, Millis};

/// The id of a running attempt. Ids grow with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::scheduler) struct AttemptId(u64);

impl AttemptId {
    #[cfg(test)]
    pub(super) const NONE: Self = Self(0);
}

#[derive(Debug)]
struct Running {
    lane: LaneId,
    is_slow: bool,
    /// The attempt has been ordered to end.
    is_ending: bool,
}

/// The use of one share.
#[derive(Debug, Default)]
struct Used {
    counts: Counts,
    ending: u32,
    /// The waiting destinations of each [`Row`], by position.
    rows: [BTreeMap<u64, LaneId>; 3],
}

impl Used {
    fn row(&mut self, row: Row) -> &mut BTreeMap<u64, LaneId> {
        let [first, further, slow] = &mut self.rows;
        match row {
            Row::First => first,
            Row::Further => further,
            Row::Slow => slow,
        }
    }

    /// Returns the number of destinations that wait for a place and are not slow.
    fn waiting_for_place(&self) -> usize {
        let [first, further, _] = &self.rows;
        first.len() + further.len()
    }
}

/// The published use of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) struct ShareUse {
    pub(in crate::scheduler) share: Share,
    /// The most attempts that may run.
    pub(in crate::scheduler) most: u32,
    /// The running attempts.
    pub(in crate::scheduler) running: u32,
    /// The slow attempts among them.
    pub(in crate::scheduler) slow: u32,
    /// The destinations with due mail that are not slow and wait for a place.
    pub(in crate::scheduler) waiting: usize,
}

/// The running attempts of both shares.
#[derive(Debug)]
pub(super) struct Attempts {
    /// The most attempts that may run, of both shares.
    most: u32,
    running: BTreeMap<AttemptId, Running>,
    /// The attempts that are not slow yet, by the time at which they become so. Some may have ended.
    young: VecDeque<(Millis, AttemptId)>,
    named: Used,
    by_mx: Used,
    begun: u64,
    joined: u64,
}

impl Attempts {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            running: BTreeMap::new(),
            young: VecDeque::new(),
            named: Used::default(),
            by_mx: Used::default(),
            begun: 0,
            joined: 0,
        }
    }

    /// Changes the most attempts that may run. Running attempts continue.
    pub(super) fn resize(&mut self, most: u32) {
        self.most = most;
    }

    fn used(&mut self, share: Share) -> &mut Used {
        match share {
            Share::Named => &mut self.named,
            Share::ByMx => &mut self.by_mx,
        }
    }

    fn used_of(&self, share: Share) -> &Used {
        match share {
            Share::Named => &self.named,
            Share::ByMx => &self.by_mx,
        }
    }

    /// Decides if a destination may start an attempt now.
    ///
    /// # Errors
    /// The row in which it waits otherwise.
    pub(super) fn decide(&self, lane: &Lane) -> Result<(), Row> {
        let counts = self.used_of(lane.share).counts;
        share::decide(lane.share.size(self.most), counts, lane.counts())
    }

    /// Changes the counts of a destination, and the sums of its share with them.
    fn change(&mut self, lane: &mut Lane, change: impl FnOnce(&mut Lane)) {
        let before = lane.counts();
        change(lane);
        let used = self.used(lane.share);
        used.counts = used.counts + lane.counts() - before;
    }

    /// Starts an attempt.
    pub(super) fn begin(&mut self, id: LaneId, lane: &mut Lane, now: Millis) -> AttemptId {
        self.begun += 1;
        let attempt = AttemptId(self.begun);
        self.running.insert(attempt, Running { lane: id, is_slow: false, is_ending: false });
        self.young.push_back((now + SLOW, attempt));
        self.change(lane, |lane| lane.active += 1);
        attempt
    }

    /// Ends an attempt of this destination. Returns false when it was not running.
    pub(super) fn end(&mut self, attempt: AttemptId, lane: &mut Lane) -> bool {
        let Some(ended) = self.running.remove(&attempt) else { return false };
        self.change(lane, |lane| {
            lane.active = lane.active.saturating_sub(1);
            lane.slow = lane.slow.saturating_sub(u32::from(ended.is_slow));
        });
        let used = self.used(lane.share);
        used.ending = used.ending.saturating_sub(u32::from(ended.is_ending));
        while self.young.front().is_some_and(|(_, attempt)| !self.running.contains_key(attempt)) {
            self.young.pop_front();
        }
        true
    }

    /// Marks the attempts as slow that have run for [`SLOW`].
    pub(super) fn age(&mut self, now: Millis, lanes: &mut HashMap<LaneId, Lane>) {
        while let Some((_, attempt)) = self.young.pop_front_if(|(at, _)| *at <= now) {
            let Some(running) = self.running.get_mut(&attempt) else { continue };
            running.is_slow = true;
            if let Some(lane) = lanes.get_mut(&running.lane) {
                self.change(lane, |lane| lane.slow += 1);
            }
        }
    }

    /// Returns the time at which the next attempt becomes slow, if a destination waits for a place.
    pub(super) fn next_slow(&self) -> Option<Millis> {
        let waits = Share::ALL.iter().any(|share| self.used_of(*share).rows.iter().any(|row| !row.is_empty()));
        self.young.front().map(|(at, _)| *at).filter(|_| waits)
    }

    /// Moves a destination to another share, with its running attempts.
    pub(super) fn transfer(&mut self, id: LaneId, lane: &mut Lane, share: Share) {
        if lane.share == share {
            return;
        }
        self.wait(id, lane, None);
        let (counts, ending) = (lane.counts(), self.ending(id));
        let used = self.used(lane.share);
        used.counts = used.counts - counts;
        used.ending = used.ending.saturating_sub(ending);
        lane.share = share;
        let used = self.used(share);
        used.counts = used.counts + counts;
        used.ending += ending;
    }

    /// Returns the number of attempts of a destination that have been ordered to end.
    fn ending(&self, id: LaneId) -> u32 {
        let ending = self.running.values().filter(|running| running.lane == id && running.is_ending).count();
        u32::try_from(ending).unwrap_or(u32::MAX)
    }

    /// Puts a destination at the end of a row, or with `None` removes it from its row.
    pub(super) fn wait(&mut self, id: LaneId, lane: &mut Lane, row: Option<Row>) {
        if lane.row.map(|(row, _)| row) == row {
            return;
        }
        if let Some((row, place)) = lane.row.take() {
            self.used(lane.share).row(row).remove(&place);
        }
        if let Some(row) = row {
            self.joined += 1;
            let place = self.joined;
            self.used(lane.share).row(row).insert(place, id);
            lane.row = Some((row, place));
        }
    }

    /// Removes the destinations from their rows that may start an attempt now, the longest-waiting first.
    pub(super) fn call(&mut self, lanes: &mut HashMap<LaneId, Lane>) -> Vec<LaneId> {
        let mut called = Vec::new();
        for share in Share::ALL {
            let size = share.size(self.most);
            let mut counts = self.used_of(share).counts;
            for row in Row::ALL {
                for _ in 0..share::free(size, counts, row) {
                    let Some((_, id)) = self.used(share).row(row).pop_first() else { break };
                    // The destination is about to take the place.
                    counts.running += 1;
                    counts.of_slow += u32::from(row == Row::Slow);
                    if let Some(lane) = lanes.get_mut(&id) {
                        lane.row = None;
                    }
                    called.push(id);
                }
            }
        }
        called
    }

    /// Chooses the slow attempts that must end so that other destinations get a place, among those that `may` end.
    /// The destination with the most slow attempts is first, and its longest-running attempt.
    pub(super) fn choose_to_end(
        &mut self,
        lanes: &HashMap<LaneId, Lane>,
        may: impl Fn(AttemptId) -> bool,
    ) -> Vec<AttemptId> {
        let mut chosen = Vec::new();
        for share in Share::ALL {
            let used = self.used_of(share);
            let waiting = u32::try_from(used.waiting_for_place()).unwrap_or(u32::MAX);
            let wanted = share::to_end(share.size(self.most), used.counts, waiting, used.ending) as usize;
            if wanted == 0 {
                continue;
            }
            let of_share = |running: &Running| lanes.get(&running.lane).is_some_and(|lane| lane.share == share);
            let slow = self.running.iter().filter(|(_, running)| running.is_slow && !running.is_ending);
            let slow: Vec<(AttemptId, LaneId)> = slow
                .filter(|(attempt, running)| of_share(running) && may(**attempt))
                .map(|(attempt, running)| (*attempt, running.lane))
                .collect();
            let mut ends = in_turn(slow);
            ends.truncate(wanted);
            for attempt in &ends {
                if let Some(running) = self.running.get_mut(attempt) {
                    running.is_ending = true;
                }
            }
            self.used(share).ending += u32::try_from(ends.len()).unwrap_or(u32::MAX);
            chosen.extend(ends);
        }
        chosen
    }

    /// Returns the use of each share.
    pub(super) fn in_use(&self) -> [ShareUse; 2] {
        Share::ALL.map(|share| {
            let (size, used) = (share.size(self.most), self.used_of(share));
            ShareUse {
                share,
                most: size.places + size.aside,
                running: used.counts.running,
                slow: used.counts.slow,
                waiting: used.waiting_for_place(),
            }
        })
    }

    #[cfg(test)]
    pub(super) fn is_under_way(&self, attempt: AttemptId) -> bool {
        self.running.contains_key(&attempt)
    }

    #[cfg(test)]
    pub(super) fn oldest_of(&self, id: LaneId) -> Option<AttemptId> {
        self.running.iter().find(|(_, running)| running.lane == id).map(|(attempt, _)| *attempt)
    }
}

/// Orders attempts so that the next one is always of the destination with the most left. The input is oldest first.
fn in_turn(attempts: Vec<(AttemptId, LaneId)>) -> Vec<AttemptId> {
    let mut left: HashMap<LaneId, usize> = HashMap::new();
    for (_, lane) in &attempts {
        *left.entry(*lane).or_default() += 1;
    }
    let mut ordered: Vec<(usize, AttemptId)> = Vec::with_capacity(attempts.len());
    for (attempt, lane) in attempts {
        let left = left.entry(lane).or_default();
        ordered.push((*left, attempt));
        *left = left.saturating_sub(1);
    }
    ordered.sort_by(|(one, older), (other, younger)| other.cmp(one).then(older.cmp(younger)));
    ordered.into_iter().map(|(_, attempt)| attempt).collect()
}
