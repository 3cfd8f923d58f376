//! The seats of sessions: how many there are, for whom, and whose is given to somebody else when all are in use.
//!
//! Clients of `[relay] networks` ("own") have a reserve and lose their seats to nobody. Strangers share the rest. Where
//! they use all of it, a newcomer gets the seat of a session that has brought no message for a while: of the site (an
//! IPv4 /24 or an IPv6 /48) with the most sessions, and there of the session that is idle the longest. Who comes first
//! when several wait is the affair of [`super::waiting`]. Proxies and balancers that have named no client are in
//! [`super::lobby`] and use no seat.

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

/// A session keeps its seat so long without a message, whoever waits for one.
pub(super) const GRACE: Duration = Duration::from_secs(8);
/// Seats are scarce from this part of them on, until they are down to the other.
const SCARCE: (usize, usize) = (3, 4);
const PLENTY: (usize, usize) = (1, 2);
/// The parts of `[limits] connections` that sessions may be that have lost their seats and have not ended: none loses
/// its seat to a stranger above the first, and none to an own client above the second.
const LEAVING_PARTS: (usize, usize) = (4, 2);
const LEAVING_MIN: usize = 4;

/// The standing of a client that wants a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// It is of `[relay] networks`.
    Own,
    /// It is not.
    Stranger,
    /// A proxy that has not named its client yet.
    Proxy,
    /// A balancer that checks whether the relay is well.
    Check,
}

/// A client that wants a seat.
#[derive(Debug, Clone)]
pub(super) struct Newcomer {
    pub(super) address: IpAddr,
    pub(super) rank: Rank,
    pub(super) listener: Arc<str>,
    /// Seats of strangers on this listener.
    pub(super) listener_seats: usize,
}

impl Newcomer {
    fn is_own(&self) -> bool {
        self.rank == Rank::Own
    }
}

/// The reason for which there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// As many sessions as `[limits] connections` and `[[listener]] connections` allow.
    Everyone,
    /// As many of this client as `[limits] connections_per_client` allows.
    Client,
    /// As many of this network as `[limits] connections_per_network` allows.
    Network(IpNet),
}

/// A session with a seat.
#[derive(Debug)]
struct Session {
    address: IpAddr,
    is_own: bool,
    listener: Arc<str>,
    /// The time at which it last brought a message, or began, where it has brought none.
    since: Duration,
    evicted: CancellationToken,
}

/// The order in which sessions of strangers lose their seats: those of the largest sites first, and among these the
/// longest without a message. Sites are of one size up to the next power of two, so that few sessions move where one
/// comes or goes.
type Turn = (Reverse<u32>, Duration, u64);

/// The strangers of one listener.
#[derive(Debug, Default)]
struct Line {
    turns: BTreeSet<Turn>,
    /// Seats of strangers, as the last newcomer's configuration has it.
    seats: usize,
    is_scarce: bool,
}

impl Line {
    /// The first to lose its seat of those that have been idle since `before`.
    fn first(&self, before: Duration) -> Option<Turn> {
        let mut from = (Reverse(u32::MAX), Duration::ZERO, 0);
        loop {
            let turn = *self.turns.range(from..).next()?;
            if turn.1 <= before {
                return Some(turn);
            }
            // The others of this size are younger still.
            from = (Reverse(turn.0.0.checked_sub(1)?), Duration::ZERO, 0);
        }
    }
}

/// Every seat that is in use. Times count from whatever moment the caller likes.
#[derive(Debug, Default)]
pub(super) struct Seats {
    last: u64,
    sessions: HashMap<u64, Session>,
    /// Sessions of each client and network.
    by_network: HashMap<IpNet, usize>,
    /// Strangers' sessions of each site.
    by_site: HashMap<IpNet, HashSet<u64>>,
    by_listener: HashMap<Arc<str>, Line>,
    strangers: usize,
    /// Seats of strangers, as the last newcomer's configuration has it.
    public: usize,
    is_scarce: bool,
    /// The number of times that scarcity has begun or ended.
    changes: u64,
    /// Sessions that have lost their seats and have not ended.
    leaving: HashSet<u64>,
    pub(super) lobby: Lobby,
    pub(super) waiting: Waiting,
    served: Served,
}

/// A seat that was given: its number, and the token that is cancelled where it is given to somebody else.
pub(super) type Given = (u64, CancellationToken);

impl Seats {
    /// Gives a seat, if need be another session's.
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
            // Only a seat of this listener helps where this listener's are all in use.
            let here = (!is_full).then_some(&who.listener);
            let victim = self.victim(who, here, limits, now).ok_or(Full::Everyone)?;
            self.evict(victim);
        }
        Ok(self.enter(who, now))
    }

    /// Gives seats to clients that wait, as long as there are any.
    pub(super) fn serve(&mut self, now: Duration) -> Vec<(Waiter, Given)> {
        let mut served = Vec::new();
        while self.serve_one(&mut served, now) {}
        served
    }

    /// Takes the first client out of the waiting that can be served, or that never will be; false where there is none.
    fn serve_one(&mut self, served: &mut Vec<(Waiter, Given)>, now: Duration) -> bool {
        for listener in self.waiting.listeners() {
            let Some((key, waiter)) = self.waiting.take_first(&listener) else { continue };
            match self.give(&waiter.who, &waiter.limits, now) {
                Ok(given) => {
                    served.push((waiter, given));
                    return true;
                }
                // Others of its network were faster. It hears that there is no seat.
                Err(Full::Client | Full::Network(_)) => return true,
                Err(Full::Everyone) => self.waiting.put_back(key, waiter),
            }
        }
        false
    }

    /// Returns the time at which a client's site was last given a seat.
    pub(super) fn last_served(&self, address: IpAddr) -> Option<Duration> {
        self.served.last(&networks::site(address))
    }

    /// Returns the number of seats that a newcomer's client has already.
    pub(super) fn of_client(&self, who: &Newcomer) -> usize {
        self.of(&networks::client(who.address))
    }

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

    /// Adds a session to its site or takes it away, and puts the others where sites of that size belong.
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

    fn evict(&mut self, seat: u64) {
        if let Some(session) = self.remove(seat) {
            self.leaving.insert(seat);
            session.evicted.cancel();
        }
    }

    /// Takes back the seat of a session that has ended, unless somebody else has it already.
    pub(super) fn take_back(&mut self, seat: u64) {
        if !self.leaving.remove(&seat) && !self.lobby.leave(seat) {
            self.remove(seat);
        }
    }

    /// Finds out anew whether seats are scarce, on all listeners together and on one.
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

    /// The session has brought a message, or a good part of one.
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

    /// Returns whether the short timeouts hold for strangers: most of their seats are in use, on all listeners or on this one.
    pub(super) fn are_scarce(&self, listener: &str) -> bool {
        self.is_scarce || self.by_listener.get(listener).is_some_and(|line| line.is_scarce)
    }

    /// Returns the number of times that scarcity has begun or ended.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Sessions, and those of them that are strangers'.
    pub(super) fn taken(&self) -> (usize, usize) {
        (self.sessions.len(), self.strangers)
    }

    /// The listeners that are short of seats.
    pub(super) fn short(&self) -> Vec<Arc<str>> {
        let mut short: Vec<_> = self.by_listener.keys().filter(|name| self.are_scarce(name)).cloned().collect();
        short.sort();
        short
    }

    fn of(&self, network: &IpNet) -> usize {
        self.by_network.get(network).copied().unwrap_or(0)
    }

    fn of_site(&self, address: IpAddr) -> usize {
        self.by_site.get(&networks::site(address)).map_or(0, HashSet::len)
    }

    /// The session whose seat a newcomer gets.
    fn victim(&self, who: &Newcomer, here: Option<&Arc<str>>, limits: &ClientLimits, now: Duration) -> Option<u64> {
        let part = if who.is_own() { LEAVING_PARTS.1 } else { LEAVING_PARTS.0 };
        if self.leaving.len() >= (limits.connections / part).max(LEAVING_MIN) {
            return None;
        }
        let before = if who.is_own() { now } else { now.checked_sub(GRACE)? };
        let lines = self.by_listener.iter().filter(|(listener, _)| here.is_none_or(|here| here == *listener));
        let (_, _, seat) = lines.filter_map(|(_, line)| line.first(before)).min()?;
        let held = self.sessions.get(&seat).map_or(0, |session| self.of_site(session.address));
        // Who has a seat gets another only of a site that would still have no fewer than its own.
        let is_due = who.is_own() || self.of_client(who) == 0 || held > self.of_site(who.address) + 1;
        is_due.then_some(seat)
    }
}

/// The size of a site with so many sessions, in powers of two.
fn size(sessions: usize) -> u32 {
    sessions.checked_ilog2().unwrap_or(0)
}

/// Returns whether `taken` is at least this part of `all`.
fn is_at(taken: usize, (part, of): (usize, usize), all: usize) -> bool {
    taken.saturating_mul(of) >= all.saturating_mul(part)
}

#[cfg(test)]
mod tests;
