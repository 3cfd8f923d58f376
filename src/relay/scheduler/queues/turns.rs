//! The turns of the queues: which destination has a job next, and what the end of an attempt
//! changes.
//!
//! The queues are served round robin. No step goes past the front of a list, except for operators'
//! orders and a reload.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use crate::smtp::address::Host;
use crate::smtp::envelope::QueueId;
use crate::storage::spool::ClusterShare;

use super::attempts::ShareUse;
use super::ids::{AttemptId, AttemptToken, DestinationId, DueKey, Millis};
use super::item::{Destination, Item, Job, Placement};
use super::part::CurrentBackoff;
use super::parts::REMEMBERED_MAX;
use super::queue::{DestinationQueue, Health};
use super::share::WaitList;
use super::table::{DestinationQueues, first};

/// The time for which a destination is remembered after its last attempt or the end of its backoff,
/// unless there are more than [`REMEMBERED_MAX`].
const REMEMBERED: Millis = 15 * 60 * 1000;
/// The length of a queue from which on a new message does not count as tried soon.
const SOON: usize = 1000;

/// The obstacle to an attempt of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueueObstacle {
    /// No mail is due, or no obstacle.
    None,
    /// A backoff that ends at this time.
    Backoff(Millis),
    /// All attempts of the share are in use; the queue waits in this list.
    Place(WaitList),
    /// The connections of the destination are all in use. The next attempt that ends gives the
    /// queue its turn, at the earliest after the backoff.
    Connections { backoff_end: Option<Millis> },
    /// The attempts of the part itself reach its concurrency. Their end gives it its turn.
    OwnAttempts,
}

impl QueueObstacle {
    /// Returns the time at which it has passed, if that is known.
    fn passes_at(self) -> Option<Millis> {
        match self {
            Self::Backoff(at) => Some(at),
            Self::Connections { backoff_end } => backoff_end,
            Self::None | Self::Place(_) | Self::OwnAttempts => None,
        }
    }

    /// Returns the list in which the queue waits for a place.
    fn wait_list(self) -> Option<WaitList> {
        match self {
            Self::Place(list) => Some(list),
            Self::None | Self::Backoff(_) | Self::Connections { .. } | Self::OwnAttempts => None,
        }
    }
}

impl<T> DestinationQueues<T> {
    /// Puts a due item into the queue of its destination.
    fn admit(
        &mut self,
        mut item: Item<T>,
        due: Millis,
        serial: u64,
        placement: Placement,
        now: Millis,
    ) {
        let Placement {
            destination,
            limit,
            share,
        } = placement;
        let id = match self.names.get(&destination) {
            Some(id) => *id,
            None => self.open(destination),
        };
        let Some(queue) = self.all.get_mut(&id) else {
            return;
        };
        queue.limit = limit.max(1);
        self.attempts.transfer(id, queue, share);
        // Items of one domain share the memory of its name.
        if let Destination::Domain(host) = &queue.destination
            && *host == item.host
        {
            item.host = host.clone();
        }
        let part = self.refused_part(id, &item.host, item.is_relaxed, id, now);
        self.insert(part.unwrap_or(id), item, due, serial);
    }

    /// Returns the next job, round robin over the queues, or `None` until
    /// [`DestinationQueues::next_wake`] or the end of an attempt. `place` returns the destination
    /// of mail for a domain.
    pub(in crate::relay::scheduler) fn next(
        &mut self,
        now: Instant,
        placement: impl Fn(&Item<T>) -> Placement,
    ) -> Option<Job<T>> {
        let now = self.millis(now);
        self.attempts.mark_slow(now, &mut self.all);
        self.call_waiting();
        while let Some(entry) = self
            .parked
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            let ((_, serial), parked) = entry.remove_entry();
            let (item, due) = parked.item(|at| self.instant(at));
            let placement = placement(&item);
            // Only the deadline of a report of delay is reached. (A due item gets an attempt, and
            // an expired item its last one.)
            if due > now && item.deadline < item.expires {
                let id = self.names.get(&placement.destination).copied();
                let wait = id.and_then(|id| self.current_backoff(id, &item.host, item.is_relaxed));
                let last = wait.map(|wait| wait.last.clone());
                return Some(Job::DeadlineReached(item, self.instant(due), last));
            }
            self.admit(item, due, serial, placement, now);
        }
        while let Some((at, id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, id));
            if let Some(queue) = self.all.get_mut(&id) {
                queue.wake = None;
            }
            self.take_turn(id);
        }
        while let Some(id) = self
            .first_turns
            .pop_front()
            .or_else(|| self.turn.pop_front())
        {
            if let Some(job) = self.job(id, now) {
                self.turn.push_back(id);
                return Some(job);
            }
            self.suspend(id, now);
        }
        None
    }

    /// Returns the job that a queue has now.
    fn job(&mut self, id: DestinationId, now: Millis) -> Option<Job<T>> {
        self.divert_front(id, now);
        let (parent, destination) = self.parent(id)?;
        if self.may_start(id, now)
            && self.attempts.decide(destination).is_ok()
            && let Some(key) = first(&self.due, id)
        {
            let (item, _) = self.remove(key)?;
            let attempt = self.begin(id, now)?;
            return Some(Job::Deliver(
                AttemptToken {
                    queue: id,
                    attempt,
                    generation: self.generation,
                },
                item,
            ));
        }
        let key = self.next_deadline(id).filter(|(at, _)| *at <= now)?.1;
        let (item, due) = self.remove(key)?;
        let last = self
            .current_backoff(parent, &item.host, item.is_relaxed)
            .map(|wait| wait.last.clone());
        Some(Job::DeadlineReached(item, self.instant(due), last))
    }

    /// Gives queues that waited for a place their turn, before others, as far as places are free.
    fn call_waiting(&mut self) {
        for id in self.attempts.take_waiting(&mut self.all) {
            let Some(queue) = self.all.get_mut(&id) else {
                continue;
            };
            if !queue.in_turn {
                queue.in_turn = true;
                self.first_turns.push_back(id);
            }
        }
    }

    /// Returns the next deadline of a queue that needs a job, and the key of its item. An item that
    /// expires while the destination is up waits for its last attempt; reports of delay do not wait
    /// for it.
    fn next_deadline(&self, id: DestinationId) -> Option<(Millis, DueKey)> {
        let next = |deadlines: &BTreeMap<DueKey, Millis>| {
            let age = first(deadlines, id)?;
            Some((
                age.at,
                DueKey {
                    at: *deadlines.get(&age)?,
                    ..age
                },
            ))
        };
        let is_down = |queue: &DestinationQueue| queue.backoff.is_some();
        let is_down = self.all.get(&id).is_some_and(is_down)
            || self.parent(id).is_some_and(|(_, queue)| is_down(queue));
        let end = next(&self.expiries).filter(|_| is_down);
        next(&self.delays).into_iter().chain(end).min()
    }

    /// Suspends a queue without a job: removes it, or sets the time at which it may have one.
    fn suspend(&mut self, id: DestinationId, now: Millis) {
        if let Some(at) = self.all.get(&id).and_then(|queue| queue.wake) {
            self.wakes.remove(&(at, id));
        }
        let (Some(queue), Some((_, parent))) = (self.all.get(&id), self.parent(id)) else {
            return;
        };
        let close_at = self.close_at(queue, now);
        if close_at.is_some_and(|at| at <= now) {
            self.close(id);
            return;
        }
        let obstacle = self.obstacle(id, queue, parent, now);
        let deadline_at = self.next_deadline(id).map(|(at, _)| at);
        let wake = obstacle
            .passes_at()
            .into_iter()
            .chain(deadline_at)
            .chain(close_at)
            .min();
        let (limit, share) = (parent.limit, parent.share);
        let front = first(&self.due, id).and_then(|key| self.due.get(&key));
        let turn = now + front.map_or(0, Item::gives_way);
        self.wakes.extend(wake.map(|at| (at, id)));
        if let Some(queue) = self.all.get_mut(&id) {
            (queue.limit, queue.in_turn, queue.wake) = (limit, false, wake);
            if queue.share != share {
                self.attempts.set_wait_list(id, queue, None, turn);
                queue.share = share;
            }
            self.attempts
                .set_wait_list(id, queue, obstacle.wait_list(), turn);
        }
        if let QueueObstacle::Connections { .. } = obstacle {
            self.block(id);
        }
        self.unblock(id, now);
    }

    /// Returns the time at which an empty queue is removed; `None` while it is in use.
    fn close_at(&self, queue: &DestinationQueue, now: Millis) -> Option<Millis> {
        let is_empty = queue.waiting == 0 && queue.active == 0 && queue.parts == 0;
        let memory = if self.all.len() > REMEMBERED_MAX {
            0
        } else {
            REMEMBERED
        };
        is_empty.then(|| queue.backoff_end(now).unwrap_or(queue.used) + memory)
    }

    /// Returns the obstacle to an attempt of a queue. `parent` is the queue of its destination.
    fn obstacle(
        &self,
        id: DestinationId,
        queue: &DestinationQueue,
        parent: &DestinationQueue,
        now: Millis,
    ) -> QueueObstacle {
        let backoff_end = queue.backoff_end(now).max(parent.backoff_end(now));
        let next = backoff_end.unwrap_or(now);
        if queue.waiting == 0 {
            QueueObstacle::None
        } else if !self.may_start(id, next) {
            // The limit that is reached is the queue's own or, for a part, perhaps that of the
            // destination.
            let is_of_destination =
                queue.part.is_none() || queue.active < queue.allowed(next, self.cluster);
            if is_of_destination {
                QueueObstacle::Connections { backoff_end }
            } else {
                QueueObstacle::OwnAttempts
            }
        } else if let Some(at) = backoff_end {
            QueueObstacle::Backoff(at)
        } else {
            self.attempts
                .decide(parent)
                .map_or_else(QueueObstacle::Place, |()| QueueObstacle::None)
        }
    }

    /// Removes the waiting items of these messages and returns them with their due times. It scans
    /// every waiting item, so it is for operators' orders only.
    pub(in crate::relay::scheduler) fn take(
        &mut self,
        ids: &HashSet<QueueId>,
    ) -> Vec<(Item<T>, Instant)> {
        let wanted = self.due.iter().filter(|(_, item)| ids.contains(&item.id()));
        let keys: Vec<DueKey> = wanted.map(|(key, _)| *key).collect();
        for key in &keys {
            self.take_turn(key.queue);
        }
        let due = keys
            .into_iter()
            .filter_map(|key| self.remove(key))
            .collect::<Vec<_>>();
        let parked: Vec<_> = self
            .parked
            .extract_if(.., |_, parked| ids.contains(&parked.claim.id()))
            .collect();
        let parked = parked
            .into_iter()
            .map(|(_, parked)| parked.item(|at| self.instant(at)));
        let all: Vec<_> = due.into_iter().chain(parked).collect();
        all.into_iter()
            .map(|(item, due)| (item, self.instant(due)))
            .collect()
    }

    /// Applies a new configuration: clears every backoff, and routes every item again. `rebase`
    /// recomputes the deadlines of an item. Running attempts still count towards limits, but their
    /// results do not change the health of destinations.
    pub(in crate::relay::scheduler) fn reload(&mut self, rebase: impl Fn(&mut Item<T>)) {
        self.generation += 1;
        self.delays.clear();
        self.expiries.clear();
        let due =
            std::mem::take(&mut self.due)
                .into_iter()
                .map(|(DueKey { at, serial, .. }, item)| {
                    let due = at.saturating_sub(item.gives_way());
                    (serial, item, due)
                });
        let waited = std::mem::take(&mut self.parked);
        let again = |queues: &mut Self, mut item: Item<T>, due: Millis, serial| {
            rebase(&mut item);
            // An expired item gets a last attempt.
            let due = due.min(queues.millis(item.expires));
            queues.park(item, due, serial);
        };
        for (serial, item, due) in due {
            again(self, item, due, serial);
        }
        for ((_, serial), parked) in waited {
            let (item, due) = parked.item(|at| self.instant(at));
            again(self, item, due, serial);
        }
        for queue in self.all.values_mut() {
            queue.waiting = 0;
            queue.backoff = None;
        }
        let ids: Vec<DestinationId> = self.all.keys().copied().collect();
        for id in ids {
            self.take_turn(id);
        }
    }

    /// Returns true when a message that is due now would be tried soon.
    pub(in crate::relay::scheduler) fn is_tried_soon(
        &self,
        destination: &Destination,
        host: &Host,
        is_relaxed: bool,
    ) -> bool {
        let Some(id) = self.names.get(destination) else {
            return true;
        };
        let is_short = self.all.get(id).is_none_or(|queue| queue.waiting < SOON);
        is_short && self.current_backoff(*id, host, is_relaxed).is_none()
    }

    /// Returns the end of the backoff of mail for a domain, with its reason; `None` when there is
    /// no backoff.
    pub(in crate::relay::scheduler) fn backoff(
        &self,
        destination: &Destination,
        host: &Host,
        is_relaxed: bool,
        now: Instant,
    ) -> Option<(Instant, CurrentBackoff<'_>)> {
        let wait = self.current_backoff(*self.names.get(destination)?, host, is_relaxed)?;
        (self.millis(now) < wait.until).then_some((self.instant(wait.until), wait))
    }

    /// Clears the backoff of a destination, and of the parts that mail for a domain belongs to.
    pub(in crate::relay::scheduler) fn clear_backoff(
        &mut self,
        destination: &Destination,
        host: &Host,
        is_relaxed: bool,
    ) {
        let Some(parent) = self.names.get(destination).copied() else {
            return;
        };
        let parts: Vec<DestinationId> = self.parts_of(parent, host, is_relaxed).collect();
        for id in parts.into_iter().chain([parent]) {
            if let Some(queue) = self.all.get_mut(&id) {
                queue.backoff = None;
            }
            self.take_turn(id);
        }
    }

    /// Returns the time at which to call [`DestinationQueues::next`] again, if no event comes
    /// first.
    pub(in crate::relay::scheduler) fn next_wake(&self) -> Option<Instant> {
        let parked = self.parked.first_key_value().map(|((at, _), _)| *at);
        let slow = self.attempts.next_slow();
        let next = self
            .wakes
            .first()
            .map(|(at, _)| *at)
            .into_iter()
            .chain(parked)
            .chain(slow)
            .min();
        next.map(|at| self.instant(at))
    }

    /// Ends an attempt. `health` is what it showed of the destination. A destination that is down
    /// gets a backoff by the steps of `[queue] retry`, one for each failure in a row.
    pub(in crate::relay::scheduler) fn finished(
        &mut self,
        token: AttemptToken,
        now: Instant,
        health: Health,
        retry: &[Duration],
    ) {
        let now = self.millis(now);
        if !self.end(token.queue, token.attempt) {
            return;
        }
        let health = if token.generation == self.generation {
            health
        } else {
            Health::Unknown
        };
        self.record_health(token.queue, now, health, retry);
        self.unblock(token.queue, now);
        self.take_turn(token.queue);
        if let Some((parent, _)) = self.parent(token.queue) {
            self.take_turn(parent);
        }
        self.call_waiting();
    }

    /// Changes this node's part of the connection limits. Running attempts continue. Returns true if it
    /// was another one.
    pub(in crate::relay::scheduler) fn set_cluster_share(&mut self, cluster: ClusterShare) -> bool {
        if self.cluster == cluster {
            return false;
        }
        self.cluster = cluster;
        let ids: Vec<DestinationId> = self.all.keys().copied().collect();
        for id in ids {
            self.take_turn(id);
        }
        true
    }

    /// Changes the maximum number of attempts. Running attempts continue.
    pub(in crate::relay::scheduler) fn resize(&mut self, attempts: u32) {
        self.attempts.resize(attempts);
    }

    /// Returns the slow attempts that must end so that other destinations get a place, each once.
    /// `may` returns true for an attempt that has not started to send its message. Call it after
    /// [`DestinationQueues::next`] returned `None`.
    pub(in crate::relay::scheduler) fn choose_to_end(
        &mut self,
        may: impl Fn(AttemptId) -> bool,
    ) -> Vec<AttemptId> {
        self.attempts.choose_to_end(&self.all, may)
    }

    /// Returns the use of each share of the attempts.
    pub(in crate::relay::scheduler) fn in_use(&self) -> [ShareUse; 2] {
        self.attempts.in_use()
    }
}
