//! The seats of sessions: how many there are, for whom, and whose is given to somebody else when all are taken.
//!
//! Clients of `[relay] networks` ("ours") have a reserve and lose their seats to nobody. Strangers share the rest. Where
//! they have taken all of it, a newcomer gets the seat of a session that has brought no message for a while: of a client
//! with more sessions than the newcomer, if there is one; of the one that is idle the longest, if the newcomer has none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::config::ClientLimits;
use crate::networks;

/// A session keeps its seat so long without a message, whoever waits for one.
pub(super) const GRACE: Duration = Duration::from_secs(8);
/// Between two searches for a seat that a stranger could have: each looks at every session.
const SEARCH_PAUSE: Duration = Duration::from_millis(10);
/// Seats are scarce from this part of them on, until they are down to the other.
const SCARCE: (usize, usize) = (3, 4);
const PLENTY: (usize, usize) = (1, 2);

/// A client that wants a seat.
#[derive(Debug, Clone)]
pub(super) struct Newcomer {
    pub(super) address: IpAddr,
    /// True where the client is of `[relay] networks`.
    pub(super) is_ours: bool,
    /// True where the client is a proxy that is about to name another, whose seats are counted then.
    pub(super) is_proxy: bool,
    pub(super) listener: Arc<str>,
    /// Seats of strangers on this listener.
    pub(super) listener_seats: usize,
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
    is_ours: bool,
    listener: Arc<str>,
    /// The time at which it last brought a message, or began, where it has brought none.
    since: Duration,
    evicted: CancellationToken,
}

/// Every seat that is taken. Times count from whatever moment the caller likes.
#[derive(Debug, Default)]
pub(super) struct Seats {
    last: u64,
    sessions: HashMap<u64, Session>,
    /// Sessions of each client and network.
    by_network: HashMap<IpNet, usize>,
    /// Strangers of each listener, and whether its seats are scarce.
    by_listener: HashMap<Arc<str>, (usize, bool)>,
    strangers: usize,
    is_scarce: bool,
    searched: Option<Duration>,
}

/// A seat that was given: its number, and the token that is cancelled where it is given to somebody else.
pub(super) type Given = (u64, CancellationToken);

impl Seats {
    /// Gives a seat, if need be another session's.
    pub(super) fn give(&mut self, who: &Newcomer, limits: &ClientLimits, now: Duration) -> Result<Given, Full> {
        let client = networks::client(who.address);
        let of_client = self.of(&client);
        if of_client >= limits.connections_per_client && !who.is_proxy {
            return Err(Full::Client);
        }
        let is_full = |network: &IpNet| self.of(network) >= limits.connections_per_network;
        if let Some(network) = networks::networks(who.address).find(is_full).filter(|_| !who.is_ours) {
            return Err(Full::Network(network));
        }
        let public = limits.connections.saturating_sub(limits.connections_reserved);
        let of_listener = self.by_listener.get(&who.listener).map_or(0, |(strangers, _)| *strangers);
        let is_full = self.sessions.len() >= limits.connections || (!who.is_ours && self.strangers >= public);
        if is_full || (!who.is_ours && of_listener >= who.listener_seats) {
            // Only a seat of this listener helps where this listener's are all taken.
            let here = (!is_full).then(|| Arc::clone(&who.listener));
            let victim = self.victim(who, of_client, here.as_ref(), now).ok_or(Full::Everyone)?;
            if let Some(session) = self.remove(victim) {
                session.evicted.cancel();
            }
        }
        Ok(self.enter(who, limits, now))
    }

    fn enter(&mut self, who: &Newcomer, limits: &ClientLimits, now: Duration) -> Given {
        self.last += 1;
        for network in std::iter::once(networks::client(who.address)).chain(networks::networks(who.address)) {
            *self.by_network.entry(network).or_default() += 1;
        }
        if !who.is_ours {
            self.strangers += 1;
            let public = limits.connections.saturating_sub(limits.connections_reserved);
            self.is_scarce |= is_at(self.strangers, SCARCE, public);
            let (strangers, is_scarce) = self.by_listener.entry(Arc::clone(&who.listener)).or_default();
            *strangers += 1;
            *is_scarce |= is_at(*strangers, SCARCE, who.listener_seats);
        }
        let evicted = CancellationToken::new();
        let Newcomer { address, is_ours, listener, .. } = who.clone();
        let session = Session { address, is_ours, listener, since: now, evicted: evicted.clone() };
        self.sessions.insert(self.last, session);
        (self.last, evicted)
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
        if !session.is_ours {
            self.strangers = self.strangers.saturating_sub(1);
            if let Some((strangers, _)) = self.by_listener.get_mut(&session.listener) {
                *strangers = strangers.saturating_sub(1);
            }
        }
        Some(session)
    }

    /// Takes a seat back, unless somebody else has it already.
    pub(super) fn take_back(&mut self, seat: u64, limits: &ClientLimits, listener_seats: usize) {
        let Some(session) = self.remove(seat) else { return };
        let public = limits.connections.saturating_sub(limits.connections_reserved);
        self.is_scarce &= is_at(self.strangers, PLENTY, public);
        if let Some((strangers, is_scarce)) = self.by_listener.get_mut(&session.listener) {
            *is_scarce &= is_at(*strangers, PLENTY, listener_seats);
        }
    }

    /// The session has brought a message, or a good part of one.
    pub(super) fn brought(&mut self, seat: u64, now: Duration) {
        if let Some(session) = self.sessions.get_mut(&seat) {
            session.since = now;
        }
    }

    /// Returns whether the short timeouts hold for strangers: most of their seats are taken, on all listeners or on this one.
    pub(super) fn are_scarce(&self, listener: &str) -> bool {
        let (everywhere, here) = self.scarcity(listener);
        everywhere || here
    }

    /// Returns whether seats are scarce on all listeners together, and on this one.
    pub(super) fn scarcity(&self, listener: &str) -> (bool, bool) {
        (self.is_scarce, self.by_listener.get(listener).is_some_and(|(_, is_scarce)| *is_scarce))
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

    /// The session whose seat a newcomer gets, where `own` sessions are of its own client.
    fn victim(&mut self, who: &Newcomer, own: usize, here: Option<&Arc<str>>, now: Duration) -> Option<u64> {
        if !who.is_ours && self.searched.is_some_and(|searched| now < searched + SEARCH_PAUSE) {
            return None;
        }
        self.searched = Some(now);
        let idle = |session: &Session| now.saturating_sub(session.since);
        let strangers = self.sessions.iter().filter(|(_, session)| {
            !session.is_ours
                && here.is_none_or(|listener| *listener == session.listener)
                && (who.is_ours || idle(session) >= GRACE)
        });
        let ranked = strangers.filter_map(|(seat, session)| {
            let held = self.of(&networks::client(session.address));
            // It would have no more than the newcomer has then.
            let surplus = if held > own + 1 { held } else { 0 };
            (surplus > 0 || own == 0 || who.is_ours).then_some((surplus, idle(session), *seat))
        });
        ranked.max().map(|(_, _, seat)| seat)
    }
}

/// Returns whether `taken` is at least this part of `all`.
fn is_at(taken: usize, (part, of): (usize, usize), all: usize) -> bool {
    taken.saturating_mul(of) >= all.saturating_mul(part)
}

#[cfg(test)]
mod tests;
