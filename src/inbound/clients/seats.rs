//! The table of seats: their number for each group of clients, and the rules of eviction when all are in use.
//!
//! Clients of `[relay] networks` ("own") have a reserve and are never evicted. Strangers share the other seats. When
//! all of these are in use, a new client gets the seat of a session that has sent no message for a while: of the site
//! (an IPv4 /24 or an IPv6 /48) with the most sessions, the session that is idle the longest. [`super::waiting`]
//! decides the order in which waiting clients are served. [`super::lobby`] holds proxies and load balancers that have
//! named no client; they use no seat.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use super::lobby::Lobby;
use super::waiting::{Served, Waiter, Waiting};
use crate::config::ClientLimits;
use crate::networks;

/// The time after its last message for which a session is safe from eviction by strangers.
pub(super) const GRACE: Duration = Duration::from_secs(8);
/// Scarcity begins when this fraction of strangers' seats is in use, and ends below [`PLENTY`].
const SCARCE: (usize, usize) = (3, 4);
const PLENTY: (usize, usize) = (1, 2);
/// The divisors of `[limits] connections` that limit the number of evicted sessions that have not ended. At the limit,
/// strangers (the first divisor) or own clients (the second) evict no further session.
const LEAVING_PARTS: (usize, usize) = (4, 2);
const LEAVING_MIN: usize = 4;

/// The kind of a client that requests a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// A client of `[relay] networks`.
    Own,
    /// Any other client.
    Stranger,
    /// A proxy that has not named its client yet.
    Proxy,
    /// A load balancer that checks the relay's health.
    Check,
}

/// A client that requests a seat.
#[derive(Debug, Clone)]
pub(super) struct Newcomer {
    pub(super) address: IpAddr,
    pub(super) rank: Rank,
    pub(super) listener: Arc<str>,
    /// The seats of strangers on this listener.
    pub(super) listener_seats: usize,
}

impl Newcomer {
    fn is_own(&self) -> bool {
        self.rank == Rank::Own
    }
}

/// The reason for which a client gets no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// All seats are in use (`[limits] connections` or `[[listener]] connections`).
    Everyone,
    /// The client has as many sessions as `[limits] connections_per_client` allows.
    Client,
    /// The network has as many sessions as `[limits] connections_per_network` allows.
    Network(IpNet),
}

/// A session with a seat.
#[derive(Debug)]
struct Session {
    address: IpAddr,
    is_own: bool,
    listener: Arc<str>,
    /// The time of its last message, or of its beginning if it has sent none.
    since: Duration,
    evicted: CancellationToken,
}

/// The sort key of evictions: sessions of the largest sites first, and among these the longest idle ones. The size of a
/// site is rounded to a power of two, so that few sessions move when the site gains or loses one. The fields are the
/// size, the time of the last message and the seat number.
type Turn = (Reverse<u32>, Duration, u64);

/// The sessions of strangers on one listener.
#[derive(Debug, Default)]
struct Line {
    turns: BTreeSet<Turn>,
    /// The seats of strangers, by the configuration of the latest request.
    seats: usize,
    is_scarce: bool,
}

impl Line {
    /// Returns the first session to be evicted among those that have been idle since `before`.
    fn first(&self, before: Duration) -> Option<Turn> {
        let mut from = (Reverse(u32::MAX), Duration::ZERO, 0);
        loop {
            let turn = *self.turns.range(from..).next()?;
            if turn.1 <= before {
                return Some(turn);
            }
            // All others of this size have been idle for a shorter time; continue with the next smaller size.
            from = (Reverse(turn.0.0.checked_sub(1)?), Duration::ZERO, 0);
        }
    }
}

/// The table of all seats in use. Times are relative to any fixed moment of the caller's choice.
#[derive(Debug, Default)]
pub(super) struct Seats {
    last: u64,
    sessions: HashMap<u64, Session>,
    /// The number of sessions of each client and network.
    by_network: HashMap<IpNet, usize>,
    /// The strangers' sessions of each site.
    by_site: HashMap<IpNet, HashSet<u64>>,
    by_listener: HashMap<Arc<str>, Line>,
    strangers: usize,
    /// The seats of strangers on all listeners, by the configuration of the latest request.
    public: usize,
    is_scarce: bool,
    /// The number of times that scarcity has begun or ended.
    changes: u64,
    /// The evicted sessions that have not ended.
    leaving: HashSet<u64>,
    pub(super) lobby: Lobby,
    pub(super) waiting: Waiting,
    served: Served,
}

/// A granted seat: its number, and the token that is cancelled when the session is evicted.
pub(super) type Given = (u64, CancellationToken);

impl Seats {
    /// Gives a seat to a client, if necessary by evicting another session.
    ///
    /// # Errors
    /// Returns the reason for which there is no seat.
    pub(super) fn give(&mut self, who: &Newcomer, limits: &ClientLimits, now: Duration) -> Result<Given, Full> {
        if matches!(who.rank, Rank::Proxy | Rank::Check) {
            self.last += 1;
            let given = (self.last, CancellationToken::new());
            return if self.lobby.enter(who.rank, &given, limits, now) { Ok(given) } else { Err(Full::Everyone) };
        }
        if self.of_client(who) >= limits.connections_per_client {
            return Err(Full::Client);
        }
        let is_full = |network: &IpNet| self.of(network) >= limits.connections_per_network;
        if let Some(network) = networks::networks(who.address).find(is_full).filter(|_| !who.is_own()) {
            return Err(Full::Network(network));
        }
        self.public = limits.connections.saturating_sub(limits.connections_reserved);
        let line = self.by_listener.entry(Arc::clone(&who.listener)).or_default();
        line.seats = who.listener_seats;
        let is_line_full = !who.is_own() && line.turns.len() >= line.seats;
        let is_full = self.sessions.len() >= limits.connections || (!who.is_own() && self.strangers >= self.public);
        if is_full || is_line_full {
            // If only this listener is full, the seat must be one of this listener.
            let here = (!is_full).then_some(&who.listener);
            let victim = self.victim(who, here, limits, now).ok_or(Full::Everyone)?;
            self.evict(victim);
        }
        Ok(self.enter(who, now))
    }

    /// Gives seats to waiting clients, as long as there are any. Returns the clients with their seats.
    pub(super) fn serve(&mut self, now: Duration) -> Vec<(Waiter, Given)> {
        let mut served = Vec::new();
        while self.serve_one(&mut served, now) {}
        served
    }

    /// Removes one client from the queue that gets a seat, or that its own limits now refuse. Returns false if there is
    /// none.
    fn serve_one(&mut self, served: &mut Vec<(Waiter, Given)>, now: Duration) -> bool {
        for listener in self.waiting.listeners() {
            let Some((key, waiter)) = self.waiting.take_first(&listener) else { continue };
            match self.give(&waiter.who, &waiter.limits, now) {
                Ok(given) => {
                    served.push((waiter, given));
                    return true;
                }
                // Its network has reached a limit meanwhile. Dropping the waiter refuses the client.
                Err(Full::Client | Full::Network(_)) => return true,
                Err(Full::Everyone) => self.waiting.put_back(key, waiter),
            }
        }
        false
    }

    /// Returns the time at which the client's site was last given a seat.
    pub(super) fn last_served(&self, address: IpAddr) -> Option<Duration> {
        self.served.last(&networks::site(address))
    }

    /// Returns the number of seats that the client has already.
    pub(super) fn of_client(&self, who: &Newcomer) -> usize {
        self.of(&networks::client(who.address))
    }

    /// Adds a session to all tables.
    fn enter(&mut self, who: &Newcomer, now: Duration) -> Given {
        self.last += 1;
        let seat = self.last;
        for network in std::iter::once(networks::client(who.address)).chain(networks::networks(who.address)) {
            *self.by_network.entry(network).or_default() += 1;
        }
        let evicted = CancellationToken::new();
        let (address, is_own, listener) = (who.address, who.is_own(), Arc::clone(&who.listener));
        self.sessions.insert(seat, Session { address, is_own, listener, since: now, evicted: evicted.clone() });
        if !is_own {
            self.strangers += 1;
            let site = networks::site(address);
            self.served.note(site, now);
            self.resize(site, seat, true);
            self.weigh(&who.listener);
        }
        (seat, evicted)
    }

    /// Removes a session from all tables.
    fn remove(&mut self, seat: u64) -> Option<Session> {
        let session = self.sessions.remove(&seat)?;
        let address = session.address;
        for network in std::iter::once(networks::client(address)).chain(networks::networks(address)) {
            match self.by_network.get_mut(&network) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.by_network.remove(&network)),
            }
        }
        if !session.is_own {
            self.strangers = self.strangers.saturating_sub(1);
            let site = networks::site(address);
            let rank = size(self.by_site.get(&site).map_or(0, HashSet::len));
            if let Some(line) = self.by_listener.get_mut(&session.listener) {
                line.turns.remove(&(Reverse(rank), session.since, seat));
            }
            self.resize(site, seat, false);
            self.weigh(&session.listener);
        }
        Some(session)
    }

    /// Adds a session to its site or removes it, and updates the sort keys of the site's sessions if its size changes.
    fn resize(&mut self, site: IpNet, seat: u64, is_there: bool) {
        let sessions = self.by_site.entry(site).or_default();
        let before = size(sessions.len());
        if is_there {
            sessions.insert(seat)
        } else {
            sessions.remove(&seat)
        };
        let after = size(sessions.len());
        for other in sessions.iter().filter(|other| **other == seat || before != after) {
            let Some(session) = self.sessions.get(other) else { continue };
            let Some(line) = self.by_listener.get_mut(&session.listener) else { continue };
            line.turns.remove(&(Reverse(before), session.since, *other));
            line.turns.insert((Reverse(after), session.since, *other));
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
        if !self.leaving.remove(&seat) && !self.lobby.leave(seat) {
            self.remove(seat);
        }
    }

    /// Recomputes scarcity, on all listeners together and on one.
    fn weigh(&mut self, listener: &Arc<str>) {
        let mut weigh = |is_scarce: &mut bool, taken, all| {
            let after = is_at(taken, SCARCE, all) || (*is_scarce && is_at(taken, PLENTY, all));
            self.changes += u64::from(after != *is_scarce);
            *is_scarce = after;
        };
        weigh(&mut self.is_scarce, self.strangers, self.public);
        if let Some(line) = self.by_listener.get_mut(listener) {
            weigh(&mut line.is_scarce, line.turns.len(), line.seats);
        }
    }

    /// Records that the session has sent a message or a significant part of one, so it counts as idle from now on.
    pub(super) fn brought(&mut self, seat: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&seat) else { return };
        let before = std::mem::replace(&mut session.since, now);
        let size = Reverse(size(self.by_site.get(&networks::site(session.address)).map_or(0, HashSet::len)));
        if let Some(line) = self.by_listener.get_mut(&session.listener)
            && line.turns.remove(&(size, before, seat))
        {
            line.turns.insert((size, now, seat));
        }
    }

    /// Returns true if seats of strangers are scarce, on all listeners together or on this one.
    pub(super) fn are_scarce(&self, listener: &str) -> bool {
        self.is_scarce || self.by_listener.get(listener).is_some_and(|line| line.is_scarce)
    }

    /// Returns the number of times that scarcity has begun or ended.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns the number of all sessions, and of those of strangers.
    pub(super) fn taken(&self) -> (usize, usize) {
        (self.sessions.len(), self.strangers)
    }

    /// Returns the listeners on which seats are scarce.
    pub(super) fn short(&self) -> Vec<Arc<str>> {
        let mut short: Vec<_> = self.by_listener.keys().filter(|name| self.are_scarce(name)).cloned().collect();
        short.sort();
        short
    }

    /// Returns the number of sessions of a client or network.
    fn of(&self, network: &IpNet) -> usize {
        self.by_network.get(network).copied().unwrap_or(0)
    }

    /// Returns the number of strangers' sessions of a site.
    fn of_site(&self, address: IpAddr) -> usize {
        self.by_site.get(&networks::site(address)).map_or(0, HashSet::len)
    }

    /// Returns the session to be evicted for a client, on the listener `here` if one is given.
    fn victim(&self, who: &Newcomer, here: Option<&Arc<str>>, limits: &ClientLimits, now: Duration) -> Option<u64> {
        let part = if who.is_own() { LEAVING_PARTS.1 } else { LEAVING_PARTS.0 };
        if self.leaving.len() >= (limits.connections / part).max(LEAVING_MIN) {
            return None;
        }
        let before = if who.is_own() { now } else { now.checked_sub(GRACE)? };
        let lines = self.by_listener.iter().filter(|(listener, _)| here.is_none_or(|here| here == *listener));
        let (_, _, seat) = lines.filter_map(|(_, line)| line.first(before)).min()?;
        let held = self.sessions.get(&seat).map_or(0, |session| self.of_site(session.address));
        // A client that has a seat evicts only from a site that keeps at least as many sessions as its own site gets.
        let is_due = who.is_own() || self.of_client(who) == 0 || held > self.of_site(who.address) + 1;
        is_due.then_some(seat)
    }
}

/// Returns the binary logarithm of a site's number of sessions, rounded down.
fn size(sessions: usize) -> u32 {
    sessions.checked_ilog2().unwrap_or(0)
}

/// Returns true if `taken` is at least the fraction `part / of` of `all`.
fn is_at(taken: usize, (part, of): (usize, usize), all: usize) -> bool {
    taken.saturating_mul(of) >= all.saturating_mul(part)
}

#[cfg(test)]
mod tests;
