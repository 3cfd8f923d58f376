//! The table of seats: their number for each group of clients, and the rules of eviction when all
//! are in use.
//!
//! Clients of `[relay] networks` ("own") have a reserve and are never evicted. Strangers share the
//! other seats. When all of these are in use, a new client gets the seat of a session that has sent
//! no message for a while: of the site (an IPv4 /24 or an IPv6 /48) with the most sessions, the
//! session that is idle the longest. [`super::seat_queue`] decides the order in which waiting
//! clients are served. [`super::provisional`] holds proxies and load balancers that have named no
//! client; they use no seat.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use super::provisional::ProvisionalSeats;
use super::seat_queue::{SeatQueue, ServedSites, WaitingClient};
use super::seat_request::{ClientKind, GrantedSeat, NoSeat, SeatRequest};
use crate::config::ClientLimits;
use crate::policy::networks;

/// The time after its last message for which a session is safe from eviction by strangers.
pub(super) const GRACE: Duration = Duration::from_secs(6);
/// Scarcity begins when this fraction of strangers' seats is in use, and ends below [`PLENTY`].
const SCARCE: (usize, usize) = (3, 4);
const PLENTY: (usize, usize) = (1, 2);
/// The divisors of `[limits] connections` that limit the number of evicted sessions that have not
/// ended. At the limit, strangers (the first divisor) or own clients (the second) evict no further
/// session.
const LEAVING_PARTS: (usize, usize) = (4, 2);
const LEAVING_MIN: usize = 4;
/// The time that an evicted session has for its last reply and for closing its connection: the
/// first while few sessions are being evicted, the second while many are (see [`MANY_LEAVING`]).
const FAREWELL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(250));
/// The divisor of the limit for strangers that makes many evicted sessions. Clients that never
/// close their side hold up the evictions for others for a moment only.
const MANY_LEAVING: usize = 4;

/// A session with a seat.
#[derive(Debug)]
struct SeatedSession {
    address: IpAddr,
    is_own: bool,
    listener: Arc<str>,
    /// The time of its last message, or of its beginning if it has sent none.
    since: Duration,
    evicted: CancellationToken,
}

/// The sort key of evictions: sessions of the largest sites first, and among these the longest idle
/// ones. The size of a site is rounded to a power of two, so that few sessions move when the site
/// gains or loses one. The fields are the size, the time of the last message and the seat number.
type EvictionKey = (Reverse<u32>, Duration, u64);

/// The sessions of strangers on one listener.
#[derive(Debug, Default)]
struct ListenerSeats {
    eviction_order: BTreeSet<EvictionKey>,
    /// The seats of strangers, by the configuration of the latest request.
    seats: usize,
    is_scarce: bool,
}

impl ListenerSeats {
    /// Returns the first session to be evicted among those that have been idle since `before`.
    fn first(&self, before: Duration) -> Option<EvictionKey> {
        let mut from = (Reverse(u32::MAX), Duration::ZERO, 0);
        loop {
            let key = *self.eviction_order.range(from..).next()?;
            if key.1 <= before {
                return Some(key);
            }
            // All others of this size have been idle for a shorter time; continue with the next
            // smaller size.
            from = (Reverse(key.0.0.checked_sub(1)?), Duration::ZERO, 0);
        }
    }
}

/// The table of all seats in use. Times are relative to any fixed moment of the caller's choice.
#[derive(Debug)]
pub(super) struct Seats<G> {
    last: u64,
    sessions: HashMap<u64, SeatedSession>,
    /// The number of sessions of each client and network.
    by_network: HashMap<IpNet, usize>,
    /// The strangers' sessions of each site.
    by_site: HashMap<IpNet, HashSet<u64>>,
    by_listener: HashMap<Arc<str>, ListenerSeats>,
    strangers: usize,
    /// The seats of strangers on all listeners, by the configuration of the latest request.
    strangers_max: usize,
    is_scarce: bool,
    /// The number of times that scarcity has begun or ended.
    changes: u64,
    /// The evicted sessions that have not ended.
    leaving: HashSet<u64>,
    /// The number of these at which strangers evict no further session, by the configuration of
    /// the latest request.
    leaving_max: usize,
    pub(super) provisional: ProvisionalSeats,
    pub(super) queue: SeatQueue<G>,
    served: ServedSites,
}

impl<G> Default for Seats<G> {
    fn default() -> Self {
        Self {
            last: 0,
            sessions: HashMap::default(),
            by_network: HashMap::default(),
            by_site: HashMap::default(),
            by_listener: HashMap::default(),
            strangers: 0,
            strangers_max: Default::default(),
            is_scarce: Default::default(),
            changes: Default::default(),
            leaving: HashSet::default(),
            leaving_max: LEAVING_MIN,
            provisional: ProvisionalSeats::default(),
            queue: SeatQueue::default(),
            served: ServedSites::default(),
        }
    }
}

impl<G> Seats<G> {
    /// Gives a seat to a client, if necessary by evicting another session.
    ///
    /// # Errors
    /// Returns the reason for which there is no seat.
    pub(super) fn give(
        &mut self,
        request: &SeatRequest,
        limits: &ClientLimits,
        now: Duration,
    ) -> Result<GrantedSeat, NoSeat> {
        if matches!(request.kind, ClientKind::Proxy | ClientKind::Check) {
            self.last += 1;
            let given = (self.last, CancellationToken::new());
            return if self.provisional.add(request.kind, &given, limits, now) {
                Ok(given)
            } else {
                Err(NoSeat::All)
            };
        }
        if self.sessions_of_client(request) >= limits.connections_per_client {
            return Err(NoSeat::Client);
        }
        let at_limit =
            |network: &IpNet| self.sessions_of(network) >= limits.connections_per_network;
        if let Some(network) = networks::networks(request.address)
            .find(at_limit)
            .filter(|_| !request.is_own())
        {
            return Err(NoSeat::Network(network));
        }
        self.strangers_max = limits
            .connections
            .saturating_sub(limits.connections_reserved);
        self.leaving_max = leaving_max(limits, LEAVING_PARTS.0);
        let of_listener = self
            .by_listener
            .entry(Arc::clone(&request.listener))
            .or_default();
        of_listener.seats = request.listener_seats;
        let is_listener_full =
            !request.is_own() && of_listener.eviction_order.len() >= of_listener.seats;
        let is_full = self.sessions.len() >= limits.connections
            || (!request.is_own() && self.strangers >= self.strangers_max);
        if is_full || is_listener_full {
            // If only this listener is full, the seat must be one of this listener.
            let here = (!is_full).then_some(&request.listener);
            let victim = self.victim(request, here, limits, now).ok_or(NoSeat::All)?;
            self.evict(victim);
        }
        Ok(self.add(request, now))
    }

    /// Gives seats to waiting clients, as long as seats are available. Returns the clients with
    /// their seats.
    pub(super) fn serve(&mut self, now: Duration) -> Vec<(WaitingClient<G>, GrantedSeat)> {
        let mut served = Vec::new();
        while self.serve_next(&mut served, now) {}
        served
    }

    /// Removes one client from the queue that gets a seat, or that its own limits now refuse.
    /// Returns false if there is none.
    fn serve_next(
        &mut self,
        served: &mut Vec<(WaitingClient<G>, GrantedSeat)>,
        now: Duration,
    ) -> bool {
        for listener in self.queue.listeners() {
            let Some((key, waiter)) = self.queue.take_first(&listener) else {
                continue;
            };
            match self.give(&waiter.request, &waiter.limits, now) {
                Ok(given) => {
                    served.push((waiter, given));
                    return true;
                }
                // Its network has reached a limit meanwhile. Dropping the waiter refuses the
                // client.
                Err(NoSeat::Client | NoSeat::Network(_)) => return true,
                Err(NoSeat::All) => self.queue.insert(key, waiter),
            }
        }
        false
    }

    /// Returns the time at which the client's site was last given a seat.
    pub(super) fn last_served(&self, address: IpAddr) -> Option<Duration> {
        self.served.last(&networks::site(address))
    }

    /// Returns the number of seats that the client has already.
    pub(super) fn sessions_of_client(&self, request: &SeatRequest) -> usize {
        self.sessions_of(&networks::client(request.address))
    }

    /// Adds a session to all tables.
    fn add(&mut self, request: &SeatRequest, now: Duration) -> GrantedSeat {
        self.last += 1;
        let seat = self.last;
        for network in std::iter::once(networks::client(request.address))
            .chain(networks::networks(request.address))
        {
            *self.by_network.entry(network).or_default() += 1;
        }
        let evicted = CancellationToken::new();
        let (address, is_own, listener) = (
            request.address,
            request.is_own(),
            Arc::clone(&request.listener),
        );
        self.sessions.insert(
            seat,
            SeatedSession {
                address,
                is_own,
                listener,
                since: now,
                evicted: evicted.clone(),
            },
        );
        if !is_own {
            self.strangers += 1;
            let site = networks::site(address);
            self.served.record(site, now);
            self.resize(site, seat, true);
            self.update_scarcity(&request.listener);
        }
        (seat, evicted)
    }

    /// Removes a session from all tables.
    fn remove(&mut self, seat: u64) -> Option<SeatedSession> {
        let session = self.sessions.remove(&seat)?;
        let address = session.address;
        for network in std::iter::once(networks::client(address)).chain(networks::networks(address))
        {
            match self.by_network.get_mut(&network) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.by_network.remove(&network)),
            }
        }
        if !session.is_own {
            self.strangers = self.strangers.saturating_sub(1);
            let site = networks::site(address);
            let class = size_class(self.by_site.get(&site).map_or(0, HashSet::len));
            if let Some(of_listener) = self.by_listener.get_mut(&session.listener) {
                of_listener
                    .eviction_order
                    .remove(&(Reverse(class), session.since, seat));
            }
            self.resize(site, seat, false);
            self.update_scarcity(&session.listener);
        }
        Some(session)
    }

    /// Adds a session to its site or removes it, and updates the sort keys of the site's sessions
    /// if its size changes.
    fn resize(&mut self, site: IpNet, seat: u64, is_there: bool) {
        let sessions = self.by_site.entry(site).or_default();
        let before = size_class(sessions.len());
        if is_there {
            sessions.insert(seat)
        } else {
            sessions.remove(&seat)
        };
        let after = size_class(sessions.len());
        for other in sessions
            .iter()
            .filter(|other| **other == seat || before != after)
        {
            let Some(session) = self.sessions.get(other) else {
                continue;
            };
            let Some(of_listener) = self.by_listener.get_mut(&session.listener) else {
                continue;
            };
            of_listener
                .eviction_order
                .remove(&(Reverse(before), session.since, *other));
            of_listener
                .eviction_order
                .insert((Reverse(after), session.since, *other));
        }
        if sessions.is_empty() {
            self.by_site.remove(&site);
        }
    }

    /// Takes the seat from a session and signals it to end.
    fn evict(&mut self, seat: u64) {
        if let Some(session) = self.remove(seat) {
            self.leaving.insert(seat);
            session.evicted.cancel();
        }
    }

    /// Frees the seat of a session that has ended. An evicted session has no seat any more.
    pub(super) fn take_back(&mut self, seat: u64) {
        if !self.leaving.remove(&seat) && !self.provisional.remove(seat) {
            self.remove(seat);
        }
    }

    /// Returns the time that an evicted session has for its last reply and for closing its
    /// connection.
    pub(super) fn farewell(&self) -> Duration {
        if self.leaving.len() > self.leaving_max / MANY_LEAVING {
            FAREWELL.1
        } else {
            FAREWELL.0
        }
    }

    /// Recomputes scarcity, on all listeners together and on one.
    fn update_scarcity(&mut self, listener: &Arc<str>) {
        let mut update = |is_scarce: &mut bool, taken, all| {
            let after =
                is_at_least(taken, SCARCE, all) || (*is_scarce && is_at_least(taken, PLENTY, all));
            self.changes += u64::from(after != *is_scarce);
            *is_scarce = after;
        };
        update(&mut self.is_scarce, self.strangers, self.strangers_max);
        if let Some(of_listener) = self.by_listener.get_mut(listener) {
            update(
                &mut of_listener.is_scarce,
                of_listener.eviction_order.len(),
                of_listener.seats,
            );
        }
    }

    /// Records that the session has sent a message or a significant part of one, so it counts as
    /// idle from now on.
    pub(super) fn record_activity(&mut self, seat: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&seat) else {
            return;
        };
        let before = std::mem::replace(&mut session.since, now);
        let size = Reverse(size_class(
            self.by_site
                .get(&networks::site(session.address))
                .map_or(0, HashSet::len),
        ));
        if let Some(of_listener) = self.by_listener.get_mut(&session.listener)
            && of_listener.eviction_order.remove(&(size, before, seat))
        {
            of_listener.eviction_order.insert((size, now, seat));
        }
    }

    /// Returns true if seats of strangers are scarce, on all listeners together or on this one.
    pub(super) fn are_scarce(&self, listener: &str) -> bool {
        self.is_scarce
            || self
                .by_listener
                .get(listener)
                .is_some_and(|of_listener| of_listener.is_scarce)
    }

    /// Returns the number of times that scarcity has begun or ended.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns the number of all sessions, and of those of strangers.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.sessions.len(), self.strangers)
    }

    /// Returns the listeners on which seats are scarce.
    pub(super) fn scarce_listeners(&self) -> Vec<Arc<str>> {
        let mut scarce: Vec<_> = self
            .by_listener
            .keys()
            .filter(|name| self.are_scarce(name))
            .cloned()
            .collect();
        scarce.sort();
        scarce
    }

    /// Returns the number of sessions of a client or network.
    fn sessions_of(&self, network: &IpNet) -> usize {
        self.by_network.get(network).copied().unwrap_or(0)
    }

    /// Returns the number of strangers' sessions of a site.
    fn sessions_of_site(&self, address: IpAddr) -> usize {
        self.by_site
            .get(&networks::site(address))
            .map_or(0, HashSet::len)
    }

    /// Returns the session to be evicted for a client, on the listener `here` if one is given.
    fn victim(
        &self,
        request: &SeatRequest,
        here: Option<&Arc<str>>,
        limits: &ClientLimits,
        now: Duration,
    ) -> Option<u64> {
        let part = if request.is_own() {
            LEAVING_PARTS.1
        } else {
            LEAVING_PARTS.0
        };
        if self.leaving.len() >= leaving_max(limits, part) {
            return None;
        }
        let before = if request.is_own() {
            now
        } else {
            now.checked_sub(GRACE)?
        };
        let listeners = self
            .by_listener
            .iter()
            .filter(|(listener, _)| here.is_none_or(|here| here == *listener));
        let (_, _, seat) = listeners
            .filter_map(|(_, of_listener)| of_listener.first(before))
            .min()?;
        let held = self
            .sessions
            .get(&seat)
            .map_or(0, |session| self.sessions_of_site(session.address));
        // A client that has a seat evicts only from a site that keeps at least as many sessions as
        // its own site gets.
        let is_due = request.is_own()
            || self.sessions_of_client(request) == 0
            || held > self.sessions_of_site(request.address) + 1;
        is_due.then_some(seat)
    }
}

/// Returns the number of evicted sessions that have not ended at which no further one is evicted,
/// by a divisor of [`LEAVING_PARTS`].
fn leaving_max(limits: &ClientLimits, part: usize) -> usize {
    (limits.connections / part).max(LEAVING_MIN)
}

/// Returns the binary logarithm of a site's number of sessions, rounded down.
fn size_class(sessions: usize) -> u32 {
    sessions.checked_ilog2().unwrap_or(0)
}

/// Returns true if `taken` is at least the fraction `part / of` of `all`.
fn is_at_least(taken: usize, (part, of): (usize, usize), all: usize) -> bool {
    taken.saturating_mul(of) >= all.saturating_mul(part)
}

#[cfg(test)]
mod tests;
