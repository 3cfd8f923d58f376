//! The running attempts, counted by share, and the destinations that wait for a place.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::ids::{AttemptId, DestinationId, Millis, WaitPosition};
use super::queue::DestinationQueue;
use super::share::{self, AttemptCounts, SLOW, Share, WaitList};

#[derive(Debug)]
struct Running {
    queue: DestinationId,
    is_slow: bool,
    /// The attempt has been ordered to end.
    is_ending: bool,
}

/// The use of one share.
#[derive(Debug, Default)]
struct ShareState {
    counts: AttemptCounts,
    ending: u32,
    /// The waiting destinations of each [`WaitList`], by position.
    wait_lists: [BTreeMap<WaitPosition, DestinationId>; 3],
}

impl ShareState {
    fn wait_list_mut(&mut self, wait_list: WaitList) -> &mut BTreeMap<WaitPosition, DestinationId> {
        let [first, further, slow] = &mut self.wait_lists;
        match wait_list {
            WaitList::First => first,
            WaitList::Further => further,
            WaitList::Slow => slow,
        }
    }

    /// Returns the number of destinations that wait for a place and are not slow.
    fn waiting_for_place(&self) -> usize {
        let [first, further, _] = &self.wait_lists;
        first.len() + further.len()
    }
}

/// The published use of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay::scheduler) struct ShareUse {
    pub(in crate::relay::scheduler) share: Share,
    /// The most attempts that may run.
    pub(in crate::relay::scheduler) most: u32,
    /// The running attempts.
    pub(in crate::relay::scheduler) running: u32,
    /// The slow attempts among them.
    pub(in crate::relay::scheduler) slow: u32,
    /// The destinations with due mail that are not slow and wait for a place.
    pub(in crate::relay::scheduler) waiting: usize,
}

/// The running attempts of both shares.
#[derive(Debug)]
pub(super) struct Attempts {
    /// The most attempts that may run, of both shares.
    most: u32,
    running: BTreeMap<AttemptId, Running>,
    /// The attempts that are not slow yet, by the time at which they become so. Some may have
    /// ended.
    not_slow: VecDeque<(Millis, AttemptId)>,
    named: ShareState,
    by_mx: ShareState,
    begun: u64,
    joined: u64,
}

impl Attempts {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            running: BTreeMap::new(),
            not_slow: VecDeque::new(),
            named: ShareState::default(),
            by_mx: ShareState::default(),
            begun: 0,
            joined: 0,
        }
    }

    /// Changes the most attempts that may run. Running attempts continue.
    pub(super) fn resize(&mut self, most: u32) {
        self.most = most;
    }

    fn share_mut(&mut self, share: Share) -> &mut ShareState {
        match share {
            Share::Named => &mut self.named,
            Share::ByMx => &mut self.by_mx,
        }
    }

    fn share(&self, share: Share) -> &ShareState {
        match share {
            Share::Named => &self.named,
            Share::ByMx => &self.by_mx,
        }
    }

    /// Decides if a destination may start an attempt now.
    ///
    /// # Errors
    /// The wait list in which it waits otherwise.
    pub(super) fn decide(&self, queue: &DestinationQueue) -> Result<(), WaitList> {
        let counts = self.share(queue.share).counts;
        share::decide(queue.share.size(self.most), counts, queue.counts())
    }

    /// Changes the counts of a destination, and the sums of its share with them.
    fn change(&mut self, queue: &mut DestinationQueue, change: impl FnOnce(&mut DestinationQueue)) {
        let before = queue.counts();
        change(queue);
        let used = self.share_mut(queue.share);
        used.counts = used.counts + queue.counts() - before;
    }

    /// Starts an attempt.
    pub(super) fn begin(
        &mut self,
        id: DestinationId,
        queue: &mut DestinationQueue,
        now: Millis,
    ) -> AttemptId {
        self.begun += 1;
        let attempt = AttemptId(self.begun);
        self.running.insert(
            attempt,
            Running {
                queue: id,
                is_slow: false,
                is_ending: false,
            },
        );
        self.not_slow.push_back((now + SLOW, attempt));
        self.change(queue, |queue| queue.active += 1);
        attempt
    }

    /// Ends an attempt of this destination. Returns false when it was not running.
    pub(super) fn end(&mut self, attempt: AttemptId, queue: &mut DestinationQueue) -> bool {
        let Some(ended) = self.running.remove(&attempt) else {
            return false;
        };
        self.change(queue, |queue| {
            queue.active = queue.active.saturating_sub(1);
            queue.slow = queue.slow.saturating_sub(u32::from(ended.is_slow));
        });
        let used = self.share_mut(queue.share);
        used.ending = used.ending.saturating_sub(u32::from(ended.is_ending));
        while self
            .not_slow
            .front()
            .is_some_and(|(_, attempt)| !self.running.contains_key(attempt))
        {
            self.not_slow.pop_front();
        }
        true
    }

    /// Marks the attempts as slow that have run for [`SLOW`].
    pub(super) fn mark_slow(
        &mut self,
        now: Millis,
        queues: &mut HashMap<DestinationId, DestinationQueue>,
    ) {
        while let Some((_, attempt)) = self.not_slow.pop_front_if(|(at, _)| *at <= now) {
            let Some(running) = self.running.get_mut(&attempt) else {
                continue;
            };
            running.is_slow = true;
            if let Some(queue) = queues.get_mut(&running.queue) {
                self.change(queue, |queue| queue.slow += 1);
            }
        }
    }

    /// Returns the time at which the next attempt becomes slow, if a destination waits for a place.
    pub(super) fn next_slow(&self) -> Option<Millis> {
        let waits = Share::ALL.iter().any(|share| {
            self.share(*share)
                .wait_lists
                .iter()
                .any(|wait_list| !wait_list.is_empty())
        });
        self.not_slow.front().map(|(at, _)| *at).filter(|_| waits)
    }

    /// Moves a destination to another share, with its running attempts.
    pub(super) fn transfer(
        &mut self,
        id: DestinationId,
        queue: &mut DestinationQueue,
        share: Share,
    ) {
        if queue.share == share {
            return;
        }
        self.set_wait_list(id, queue, None, 0);
        let (counts, ending) = (queue.counts(), self.ending(id));
        let used = self.share_mut(queue.share);
        used.counts = used.counts - counts;
        used.ending = used.ending.saturating_sub(ending);
        queue.share = share;
        let used = self.share_mut(share);
        used.counts = used.counts + counts;
        used.ending += ending;
    }

    /// Returns the number of attempts of a destination that have been ordered to end.
    fn ending(&self, id: DestinationId) -> u32 {
        let ending = self
            .running
            .values()
            .filter(|running| running.queue == id && running.is_ending)
            .count();
        u32::try_from(ending).unwrap_or(u32::MAX)
    }

    /// Puts a destination into a wait list, ordered by `turn`, or with `None` removes it from its
    /// wait list. In the list in which it waits already, it only moves forward.
    pub(super) fn set_wait_list(
        &mut self,
        id: DestinationId,
        queue: &mut DestinationQueue,
        wait_list: Option<WaitList>,
        turn: Millis,
    ) {
        let is_there = match queue.wait_list {
            None => wait_list.is_none(),
            Some((present, (earlier, _))) => wait_list == Some(present) && earlier <= turn,
        };
        if is_there {
            return;
        }
        if let Some((wait_list, position)) = queue.wait_list.take() {
            self.share_mut(queue.share)
                .wait_list_mut(wait_list)
                .remove(&position);
        }
        if let Some(wait_list) = wait_list {
            self.joined += 1;
            let position = (turn, self.joined);
            self.share_mut(queue.share)
                .wait_list_mut(wait_list)
                .insert(position, id);
            queue.wait_list = Some((wait_list, position));
        }
    }

    /// Removes the destinations from their wait lists that may start an attempt now, the
    /// longest-waiting first.
    pub(super) fn take_waiting(
        &mut self,
        queues: &mut HashMap<DestinationId, DestinationQueue>,
    ) -> Vec<DestinationId> {
        let mut called = Vec::new();
        for share in Share::ALL {
            let size = share.size(self.most);
            let mut counts = self.share(share).counts;
            for wait_list in WaitList::ALL {
                for _ in 0..share::free(size, counts, wait_list) {
                    let Some((_, id)) = self.share_mut(share).wait_list_mut(wait_list).pop_first()
                    else {
                        break;
                    };
                    // The destination is about to take the place.
                    counts.running += 1;
                    counts.of_slow += u32::from(wait_list == WaitList::Slow);
                    if let Some(queue) = queues.get_mut(&id) {
                        queue.wait_list = None;
                    }
                    called.push(id);
                }
            }
        }
        called
    }

    /// Chooses the slow attempts that must end so that other destinations get a place, among those
    /// that `may` end. The destination with the most slow attempts is first, and its
    /// longest-running attempt.
    pub(super) fn choose_to_end(
        &mut self,
        queues: &HashMap<DestinationId, DestinationQueue>,
        may: impl Fn(AttemptId) -> bool,
    ) -> Vec<AttemptId> {
        let mut chosen = Vec::new();
        for share in Share::ALL {
            let used = self.share(share);
            let waiting = u32::try_from(used.waiting_for_place()).unwrap_or(u32::MAX);
            let wanted =
                share::to_end(share.size(self.most), used.counts, waiting, used.ending) as usize;
            if wanted == 0 {
                continue;
            }
            let of_share = |running: &Running| {
                queues
                    .get(&running.queue)
                    .is_some_and(|queue| queue.share == share)
            };
            let slow = self
                .running
                .iter()
                .filter(|(_, running)| running.is_slow && !running.is_ending);
            let slow: Vec<(AttemptId, DestinationId)> = slow
                .filter(|(attempt, running)| of_share(running) && may(**attempt))
                .map(|(attempt, running)| (*attempt, running.queue))
                .collect();
            let mut to_end = in_turn(slow);
            to_end.truncate(wanted);
            for attempt in &to_end {
                if let Some(running) = self.running.get_mut(attempt) {
                    running.is_ending = true;
                }
            }
            self.share_mut(share).ending += u32::try_from(to_end.len()).unwrap_or(u32::MAX);
            chosen.extend(to_end);
        }
        chosen
    }

    /// Returns the use of each share.
    pub(super) fn in_use(&self) -> [ShareUse; 2] {
        Share::ALL.map(|share| {
            let (size, used) = (share.size(self.most), self.share(share));
            ShareUse {
                share,
                most: size.places + size.slow_extra,
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
    pub(super) fn oldest_of(&self, id: DestinationId) -> Option<AttemptId> {
        self.running
            .iter()
            .find(|(_, running)| running.queue == id)
            .map(|(attempt, _)| *attempt)
    }
}

/// Orders attempts so that the next one is always of the destination with the most left. The input
/// is oldest first.
fn in_turn(attempts: Vec<(AttemptId, DestinationId)>) -> Vec<AttemptId> {
    let mut remaining: HashMap<DestinationId, usize> = HashMap::new();
    for (_, queue) in &attempts {
        *remaining.entry(*queue).or_default() += 1;
    }
    let mut ordered: Vec<(usize, AttemptId)> = Vec::with_capacity(attempts.len());
    for (attempt, queue) in attempts {
        let remaining = remaining.entry(queue).or_default();
        ordered.push((*remaining, attempt));
        *remaining = remaining.saturating_sub(1);
    }
    ordered.sort_by(|(one, older), (other, younger)| other.cmp(one).then(older.cmp(younger)));
    ordered.into_iter().map(|(_, attempt)| attempt).collect()
}
