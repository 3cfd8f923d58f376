//! The parts of a destination's mail that are refused while the rest may go on.
//!
//! A refusal may concern less than a destination: one domain among those that share smart hosts, or
//! all mail except messages with `TLS-Required: No`. Such a part gets a queue and a backoff of its
//! own. Its attempts count towards the connection limit of the destination; when the limit is
//! reached, the part and the rest take turns. An item of a refused part moves to the queue of the
//! part when it reaches the front, so a refusal costs only the messages that it concerns.

use std::time::Duration;

use crate::smtp::address::Host;

use super::ids::{AttemptId, DestinationId, DueKey, Millis};
use super::item::Item;
use super::part::{CurrentBackoff, Part};
use super::queue::{DestinationQueue, Health};
use super::table::{DestinationQueues, first};

/// The most destination queues that are kept while empty.
pub(super) const REMEMBERED_MAX: usize = 10_000;

impl<T> DestinationQueues<T> {
    /// Returns the queue whose connections a queue uses: itself, or for a part the one of its
    /// destination.
    pub(super) fn parent(&self, id: DestinationId) -> Option<(DestinationId, &DestinationQueue)> {
        let queue = self.all.get(&id)?;
        match &queue.part {
            None => Some((id, queue)),
            Some(part) => Some((part.0, self.all.get(&part.0)?)),
        }
    }

    /// Returns true when the concurrency of a queue allows another attempt. The shares limit it
    /// further.
    pub(super) fn may_start(&self, id: DestinationId, at: Millis) -> bool {
        let own = self
            .all
            .get(&id)
            .is_some_and(|queue| queue.active < queue.allowed(at, self.cluster));
        own && self
            .parent(id)
            .is_some_and(|(_, parent)| parent.active < parent.allowed(at, self.cluster))
    }

    /// Starts an attempt of a queue. Call [`DestinationQueues::end`] when it ends.
    pub(super) fn begin(&mut self, id: DestinationId, now: Millis) -> Option<AttemptId> {
        let parent = self.parent(id)?.0;
        let attempt = self.attempts.begin(parent, self.all.get_mut(&parent)?, now);
        if parent != id {
            self.all.get_mut(&id)?.active += 1;
        }
        Some(attempt)
    }

    /// Ends an attempt of a queue. Returns false when it was not running.
    pub(super) fn end(&mut self, id: DestinationId, attempt: AttemptId) -> bool {
        let Some(parent) = self.parent(id).map(|(parent, _)| parent) else {
            return false;
        };
        if !self
            .all
            .get_mut(&parent)
            .is_some_and(|queue| self.attempts.end(attempt, queue))
        {
            return false;
        }
        if let Some(part) = self.all.get_mut(&id).filter(|_| parent != id) {
            part.active = part.active.saturating_sub(1);
        }
        true
    }

    /// Records the health that an attempt of a queue showed.
    pub(super) fn record_health(
        &mut self,
        id: DestinationId,
        now: Millis,
        health: Health,
        retry: &[Duration],
    ) {
        let Some(parent) = self.parent(id).map(|(parent, _)| parent) else {
            return;
        };
        let spread = self.spread;
        let record = |queues: &mut Self, id, health| {
            if let Some(queue) = queues.all.get_mut(&id) {
                queue.record(now, health, retry, spread);
            }
        };
        if parent != id {
            let own = if matches!(health, Health::Up) {
                Health::Up
            } else {
                Health::Unknown
            };
            record(self, id, own);
        }
        match health {
            Health::Refused(part, last) => {
                record(self, parent, Health::Unknown);
                if let Some(part) = self.open_part(parent, part) {
                    record(self, part, Health::Down(last));
                    self.take_turn(part);
                }
            }
            health => record(self, parent, health),
        }
    }

    /// Returns the queue of a part, which is created if it is missing; `None` when there are too
    /// many queues.
    fn open_part(&mut self, parent: DestinationId, part: Part) -> Option<DestinationId> {
        let key = (parent, part);
        if let Some(id) = self.parts.get(&key) {
            return Some(*id);
        }
        if self.all.len() > REMEMBERED_MAX {
            return None;
        }
        self.opened += 1;
        let id = DestinationId(self.opened);
        let destination = self.all.get_mut(&parent)?;
        destination.parts += 1;
        let mut queue = DestinationQueue::new(destination.destination.clone());
        (queue.limit, queue.share) = (destination.limit, destination.share);
        queue.part = Some(Box::new(key.clone()));
        self.all.insert(id, queue);
        self.parts.insert(key, id);
        Some(id)
    }

    /// Removes an empty queue.
    pub(super) fn close(&mut self, id: DestinationId) {
        let Some(mut queue) = self.all.remove(&id) else {
            return;
        };
        self.attempts.set_wait_list(id, &mut queue, None, 0);
        let Some(part) = queue.part else {
            self.names.remove(&queue.destination);
            return;
        };
        self.parts.remove(&*part);
        if let Some(parent) = self.all.get_mut(&part.0) {
            parent.parts = parent.parts.saturating_sub(1);
        }
        self.take_turn(part.0);
    }

    /// Returns the queue of a refused part that mail for a domain belongs to, other than the queue
    /// `but`.
    ///
    /// From the queue of the destination, mail moves to a refused part even after its backoff
    /// ended, since the probe comes from the queue of the part. Between two parts, mail moves only
    /// to the longer backoff, so it does not move back while both last.
    pub(super) fn refused_part(
        &self,
        parent: DestinationId,
        host: &Host,
        is_relaxed: bool,
        but: DestinationId,
        now: Millis,
    ) -> Option<DestinationId> {
        let until = |id| {
            self.all
                .get(&id)
                .and_then(|queue| queue.backoff.as_ref())
                .map(|backoff| backoff.until)
        };
        let own = (until(but), but);
        let is_refused = |id: &DestinationId| {
            let backoff = until(*id);
            *id != but
                && backoff
                    .is_some_and(|until| but == parent || (now < until && (backoff, *id) > own))
        };
        self.parts_of(parent, host, is_relaxed).find(is_refused)
    }

    /// Returns the existing queues of the parts that mail for a domain belongs to.
    pub(super) fn parts_of(
        &self,
        parent: DestinationId,
        host: &Host,
        is_relaxed: bool,
    ) -> impl Iterator<Item = DestinationId> {
        let is_any = self.all.get(&parent).is_some_and(|queue| queue.parts > 0);
        let parts = is_any
            .then(|| Part::of(host, is_relaxed))
            .into_iter()
            .flatten();
        parts.filter_map(move |part| self.parts.get(&(parent, part)).copied())
    }

    /// Moves items from the front of a queue to the refused part that they belong to.
    pub(super) fn divert_front(&mut self, id: DestinationId, now: Millis) {
        while let Some((key, part)) = self.front_to_divert(id, now) {
            let Some((item, due)) = self.remove(key) else {
                return;
            };
            self.insert(part, item, due, key.serial);
        }
    }

    /// Returns the front of a queue and the refused part that it belongs to, if any.
    fn front_to_divert(&self, id: DestinationId, now: Millis) -> Option<(DueKey, DestinationId)> {
        let (parent, _) = self.parent(id).filter(|(_, parent)| parent.parts > 0)?;
        let key = first(&self.due, id)?;
        let Item {
            host, is_relaxed, ..
        } = self.due.get(&key)?;
        Some((key, self.refused_part(parent, host, *is_relaxed, id, now)?))
    }

    /// Registers a queue that waits for a connection of its destination, if the destination has
    /// parts.
    pub(super) fn block(&mut self, id: DestinationId) {
        let Some(parent) = self
            .parent(id)
            .filter(|(_, parent)| parent.parts > 0)
            .map(|(parent, _)| parent)
        else {
            return;
        };
        let Some(queue) = self.all.get_mut(&id).filter(|queue| !queue.is_blocked) else {
            return;
        };
        queue.is_blocked = true;
        if let Some(parent) = self.all.get_mut(&parent) {
            parent.blocked.push_back(id);
        }
    }

    /// Gives the queue that has waited longest for a connection of this destination its turn, if
    /// one is free.
    pub(super) fn unblock(&mut self, id: DestinationId, now: Millis) {
        let Some(parent) = self
            .parent(id)
            .filter(|(_, queue)| queue.active < queue.allowed(now, self.cluster))
            .map(|(parent, _)| parent)
        else {
            return;
        };
        while let Some(next) = self
            .all
            .get_mut(&parent)
            .and_then(|queue| queue.blocked.pop_front())
        {
            if let Some(queue) = self.all.get_mut(&next) {
                queue.is_blocked = false;
                self.take_turn(next);
                return;
            }
        }
    }

    /// Returns the backoff of mail for a domain: the longest of its destination's and of those of
    /// its parts.
    pub(super) fn current_backoff(
        &self,
        parent: DestinationId,
        host: &Host,
        is_relaxed: bool,
    ) -> Option<CurrentBackoff<'_>> {
        let queue = self.all.get(&parent)?;
        let parts = self
            .parts_of(parent, host, is_relaxed)
            .filter_map(|id| self.all.get(&id));
        let waits = parts.chain(std::iter::once(queue)).filter_map(|queue| {
            let backoff = queue.backoff.as_ref()?;
            Some(CurrentBackoff {
                until: backoff.until,
                last: &backoff.last,
                part: queue.part.as_ref().map(|part| &part.1),
            })
        });
        waits.max_by_key(|wait| wait.until)
    }
}
