//! The parts of a destination's mail that are refused while the rest may go on.
//!
//! A refusal may concern less than a destination: one domain among those that share smart hosts, or all mail except
//! messages with `TLS-Required: No`. Such a part gets a queue and a backoff of its own. Its attempts count towards the
//! connection limit of the destination; when the limit is reached, the part and the rest take turns. An item of a
//! refused part moves to the queue of the part when it reaches the front, so a refusal costs only the messages that it
//! concerns.

use std::fmt;
use std::time::Duration;

use crate::address::Host;
use crate::envelope::AttemptFailure;

use super::lane::{Health, Lane, Millis};
use super::{Item, Key, LaneId, Lanes, REMEMBERED_MAX, first};

/// A part of a destination's mail.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::scheduler) struct Part {
    /// Only mail for this recipient domain, when several share the destination.
    pub(in crate::scheduler) domain: Option<Host>,
    /// Only mail without `TLS-Required: No`.
    pub(in crate::scheduler) spares_relaxed: bool,
}

impl Part {
    /// Returns the parts that mail for a domain belongs to, the largest first.
    fn of(host: &Host, is_relaxed: bool) -> impl Iterator<Item = Self> {
        let domain = |spares_relaxed| Self { domain: Some(host.clone()), spares_relaxed };
        let honours = [Self { domain: None, spares_relaxed: true }, domain(true)];
        honours.into_iter().filter(move |_| !is_relaxed).chain(std::iter::once(domain(false)))
    }
}

/// The backoff of mail: its end and its reason.
#[derive(Debug)]
pub(in crate::scheduler) struct Wait<'a> {
    pub(in crate::scheduler) until: Millis,
    pub(in crate::scheduler) last: &'a AttemptFailure,
    /// The part that is in backoff; `None` for the whole destination.
    pub(in crate::scheduler) part: Option<&'a Part>,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.domain {
            Some(domain) => write!(f, "mail for {domain}")?,
            None => f.write_str("mail")?,
        }
        f.write_str(if self.spares_relaxed { " without \"TLS-Required: No\"" } else { "" })
    }
}

impl<T> Lanes<T> {
    /// Returns the queue whose connections a queue uses: itself, or for a part the one of its destination.
    pub(super) fn whole(&self, id: LaneId) -> Option<(LaneId, &Lane)> {
        let lane = self.all.get(&id)?;
        match &lane.part {
            None => Some((id, lane)),
            Some(part) => Some((part.0, self.all.get(&part.0)?)),
        }
    }

    /// Returns true when the concurrency of a queue allows another attempt. The shares limit it further.
    pub(super) fn has_room(&self, id: LaneId, at: Millis) -> bool {
        let own = self.all.get(&id).is_some_and(|lane| lane.active < lane.room(at));
        own && self.whole(id).is_some_and(|(_, whole)| whole.active < whole.room(at))
    }

    /// Starts an attempt of a queue. Call [`Lanes::end`] when it ends.
    pub(super) fn begin(&mut self, id: LaneId, now: Millis) -> Option<super::AttemptId> {
        let whole = self.whole(id)?.0;
        let attempt = self.attempts.begin(whole, self.all.get_mut(&whole)?, now);
        if whole != id {
            self.all.get_mut(&id)?.active += 1;
        }
        Some(attempt)
    }

    /// Ends an attempt of a queue. Returns false when it was not running.
    pub(super) fn end(&mut self, id: LaneId, attempt: super::AttemptId) -> bool {
        let Some(whole) = self.whole(id).map(|(whole, _)| whole) else { return false };
        if !self.all.get_mut(&whole).is_some_and(|lane| self.attempts.end(attempt, lane)) {
            return false;
        }
        if let Some(part) = self.all.get_mut(&id).filter(|_| whole != id) {
            part.active = part.active.saturating_sub(1);
        }
        true
    }

    /// Records the health that an attempt of a queue showed.
    pub(super) fn learn(&mut self, id: LaneId, now: Millis, health: Health, retry: &[Duration]) {
        let Some(whole) = self.whole(id).map(|(whole, _)| whole) else { return };
        let spread = self.spread;
        let enter = |lanes: &mut Self, id, health| {
            if let Some(lane) = lanes.all.get_mut(&id) {
                lane.ended(now, health, retry, spread);
            }
        };
        if whole != id {
            let own = if matches!(health, Health::Up) { Health::Up } else { Health::Unknown };
            enter(self, id, own);
        }
        match health {
            Health::Refused(part, last) => {
                enter(self, whole, Health::Unknown);
                if let Some(part) = self.open_part(whole, part) {
                    enter(self, part, Health::Down(last));
                    self.take_turn(part);
                }
            }
            health => enter(self, whole, health),
        }
    }

    /// Returns the queue of a part, which is created if it is missing; `None` when there are too many queues.
    fn open_part(&mut self, whole: LaneId, part: Part) -> Option<LaneId> {
        let key = (whole, part);
        if let Some(id) = self.parts.get(&key) {
            return Some(*id);
        }
        if self.all.len() > REMEMBERED_MAX {
            return None;
        }
        self.opened += 1;
        let id = LaneId(self.opened);
        let destination = self.all.get_mut(&whole)?;
        destination.parts += 1;
        let mut lane = Lane::new(destination.destination.clone());
        (lane.limit, lane.share) = (destination.limit, destination.share);
        lane.part = Some(Box::new(key.clone()));
        self.all.insert(id, lane);
        self.parts.insert(key, id);
        Some(id)
    }

    /// Removes an empty queue.
    pub(super) fn close(&mut self, id: LaneId) {
        let Some(mut lane) = self.all.remove(&id) else { return };
        self.attempts.wait(id, &mut lane, None);
        let Some(part) = lane.part else {
            self.names.remove(&lane.destination);
            return;
        };
        self.parts.remove(&*part);
        if let Some(whole) = self.all.get_mut(&part.0) {
            whole.parts = whole.parts.saturating_sub(1);
        }
        self.take_turn(part.0);
    }

    /// Returns the queue of a refused part that mail for a domain belongs to, other than the queue `but`.
    ///
    /// From the queue of the destination, mail moves to a refused part even after its backoff ended, since the probe
    /// comes from the queue of the part. Between two parts, mail moves only to the longer backoff, so it does not move
    /// back while both last.
    pub(super) fn refused(
        &self,
        whole: LaneId,
        host: &Host,
        is_relaxed: bool,
        but: LaneId,
        now: Millis,
    ) -> Option<LaneId> {
        let until = |id| self.all.get(&id).and_then(|lane| lane.down.as_ref()).map(|down| down.until);
        let own = (until(but), but);
        let is_refused = |id: &LaneId| {
            let down = until(*id);
            *id != but && down.is_some_and(|until| but == whole || (now < until && (down, *id) > own))
        };
        self.parts_of(whole, host, is_relaxed).find(is_refused)
    }

    /// Returns the existing queues of the parts that mail for a domain belongs to.
    pub(super) fn parts_of(&self, whole: LaneId, host: &Host, is_relaxed: bool) -> impl Iterator<Item = LaneId> {
        let is_any = self.all.get(&whole).is_some_and(|lane| lane.parts > 0);
        let parts = is_any.then(|| Part::of(host, is_relaxed)).into_iter().flatten();
        parts.filter_map(move |part| self.parts.get(&(whole, part)).copied())
    }

    /// Moves items from the front of a queue to the refused part that they belong to.
    pub(super) fn divert(&mut self, id: LaneId, now: Millis) {
        while let Some((key, part)) = self.diverted(id, now) {
            let Some(item) = self.remove(key) else { return };
            self.insert(part, item, key.at, key.serial);
        }
    }

    /// Returns the front of a queue and the refused part that it belongs to, if any.
    fn diverted(&self, id: LaneId, now: Millis) -> Option<(Key, LaneId)> {
        let (whole, _) = self.whole(id).filter(|(_, whole)| whole.parts > 0)?;
        let key = first(&self.due, id)?;
        let Item { host, is_relaxed, .. } = self.due.get(&key)?;
        Some((key, self.refused(whole, host, *is_relaxed, id, now)?))
    }

    /// Registers a queue that waits for a connection of its destination, if the destination has parts.
    pub(super) fn block(&mut self, id: LaneId) {
        let Some(whole) = self.whole(id).filter(|(_, whole)| whole.parts > 0).map(|(whole, _)| whole) else { return };
        let Some(lane) = self.all.get_mut(&id).filter(|lane| !lane.is_blocked) else { return };
        lane.is_blocked = true;
        if let Some(whole) = self.all.get_mut(&whole) {
            whole.blocked.push_back(id);
        }
    }

    /// Gives the queue that has waited longest for a connection of this destination its turn, if one is free.
    pub(super) fn unblock(&mut self, id: LaneId, now: Millis) {
        let Some(whole) = self.whole(id).filter(|(_, lane)| lane.active < lane.room(now)).map(|(whole, _)| whole)
        else {
            return;
        };
        while let Some(next) = self.all.get_mut(&whole).and_then(|lane| lane.blocked.pop_front()) {
            if let Some(lane) = self.all.get_mut(&next) {
                lane.is_blocked = false;
                self.take_turn(next);
                return;
            }
        }
    }

    /// Returns the backoff of mail for a domain: the longest of its destination's and of those of its parts.
    pub(super) fn wait(&self, whole: LaneId, host: &Host, is_relaxed: bool) -> Option<Wait<'_>> {
        let lane = self.all.get(&whole)?;
        let parts = self.parts_of(whole, host, is_relaxed).filter_map(|id| self.all.get(&id));
        let waits = parts.chain(std::iter::once(lane)).filter_map(|lane| {
            let down = lane.down.as_ref()?;
            Some(Wait { until: down.until, last: &down.last, part: lane.part.as_ref().map(|part| &part.1) })
        });
        waits.max_by_key(|wait| wait.until)
    }
}
