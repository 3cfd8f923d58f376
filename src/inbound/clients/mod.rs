//! Clients and what they take: seats, rates, and who was held back.
//!
//! The rules are pure tables with the clock as an argument; here they get a lock and a clock, and a refusal its reply.

mod holds;
mod lobby;
mod memory;
mod rates;
mod refusal;
mod seat;
mod seats;
mod waiting;

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::proxied::{self, Origin};
use crate::access;
use crate::config::{Config, ListenerConfig, Rate};
use crate::monitor::{LogClient, Monitor};
use crate::networks::{self, network_text};
pub use holds::Held;
use holds::Holds;
use memory::Memory;
use rates::Rates;
pub(super) use refusal::Refusal;
pub(super) use seat::{Place, Seat};
use seat::{WAIT, Wait};
use seats::{Full, Newcomer, Rank, Seats};
use waiting::Waiter;

/// A limit on clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// Sessions of all clients, or of all on one listener.
    All,
    /// Sessions of one client.
    PerClient,
    /// Sessions of one network.
    PerNetwork,
    /// Something in a minute.
    PerMinute(Rate),
    /// Memory of the recipients in all transactions.
    Memory,
    /// Memory of the recipients in one transaction.
    MemoryPerSession,
}

impl Limit {
    /// Its key in `[limits]`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::All => "connections",
            Self::PerClient => "connections_per_client",
            Self::PerNetwork => "connections_per_network",
            Self::PerMinute(rate) => rate.key(),
            Self::Memory => "transaction_memory",
            Self::MemoryPerSession => "transaction_memory_per_session",
        }
    }
}

/// The use of the seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupancy {
    /// Sessions.
    pub sessions: usize,
    /// Those of clients that are not of `[relay] networks`.
    pub strangers: usize,
    /// The listeners on which most seats of strangers are taken.
    pub short: Vec<Arc<str>>,
    /// Clients and networks that were held back lately.
    pub held: usize,
    /// Octets of the recipients in open transactions.
    pub memory: usize,
}

/// The knowledge about a session that wants a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Its address. A proxy may yet say whose session it is, and a balancer that names nobody checks the relay.
    Address,
    /// The client that a proxy has named. That may be a proxy, too.
    Client,
    /// It brings mail of its own: it is a client, whatever else it may be.
    Sender,
}

/// All clients of all listeners. Cheap to clone; every clone is the same.
#[derive(Debug, Clone)]
pub struct Clients(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    seats: Mutex<Seats>,
    rates: Mutex<Rates>,
    holds: Mutex<Holds>,
    memory: Mutex<Memory>,
    /// Changes where seats become scarce, and where they are not any more.
    scarcity: watch::Sender<u64>,
    /// Connections of balancers that wait for their headers.
    introductions: AtomicUsize,
}

impl Default for Clients {
    fn default() -> Self {
        let inner = Inner {
            start: Instant::now(),
            seats: Mutex::default(),
            rates: Mutex::default(),
            holds: Mutex::default(),
            memory: Mutex::default(),
            scarcity: watch::Sender::new(0),
            introductions: AtomicUsize::new(0),
        };
        Self(Arc::new(inner))
    }
}

impl Clients {
    /// Counts a connection and gives it a seat, or a place among those who wait for one.
    pub(super) fn connect(
        &self,
        config: &Config,
        listener: &ListenerConfig,
        origin: Origin,
        known: Known,
    ) -> Result<Place, Refusal> {
        let limits = config.limits.clients;
        let is_own = access::is_own_client(&config.relay, origin.client());
        let rank = match origin.client() {
            None if known == Known::Address => Rank::Check,
            Some(client) if known != Known::Sender && proxied::is_expected(&listener.xclient, client) => Rank::Proxy,
            _ if is_own => Rank::Own,
            _ => Rank::Stranger,
        };
        if let Some(client) = origin.client().filter(|_| rank != Rank::Proxy) {
            // A balancer's own checks are not counted, and what a proxy brings is when it says whose it is.
            self.count(config, Rate::Connections, Some(client), client)?;
        }
        let (address, listener_seats) = (origin.address().ip(), config.seats(listener));
        let who = Newcomer { address, rank, listener: listener.name.as_str().into(), listener_seats };
        self.serve_waiting();
        let given = self.with_seats(|seats| match seats.give(&who, &limits, self.0.start.elapsed()) {
            Err(Full::Everyone) if rank == Rank::Stranger && seats.of_client(&who) == 0 => {
                let (grant, granted) = oneshot::channel();
                let waiter = Waiter { who: who.clone(), limits, grant };
                let key = seats.waiting.enter(waiter, seats.last_served(address)).ok_or(Full::Everyone)?;
                Ok(Err((key, granted)))
            }
            given => given.map(Ok),
        });
        let refusal = |full| {
            let (limit, network, most) = match full {
                Full::Everyone => (Limit::All, None, if is_own { limits.connections } else { listener_seats }),
                Full::Client => (Limit::PerClient, Some(networks::client(address)), limits.connections_per_client),
                Full::Network(network) => (Limit::PerNetwork, Some(network), limits.connections_per_network),
            };
            Refusal { limit, network, most, wait: None }
        };
        Ok(match given.map_err(refusal)? {
            Ok(given) => Place::Seat(Seat::new(self, &who, given)),
            Err((key, granted)) => {
                let (clients, refusal, until) = (self.clone(), refusal(Full::Everyone), Instant::now() + WAIT);
                Place::Waiting(Wait { clients, listener: who.listener, key, granted, refusal, until })
            }
        })
    }

    /// Gives seats to those who wait, as far as there are any.
    fn serve_waiting(&self) {
        let served =
            self.with_seats(
                |seats| {
                    if seats.waiting.count() == 0 { Vec::new() } else { seats.serve(self.0.start.elapsed()) }
                },
            );
        for (waiter, given) in served {
            // Where nobody waits any more, the seat is given back here.
            drop(waiter.grant.send(Seat::new(self, &waiter.who, given)));
        }
    }

    /// Does something with the seats, and lets sessions know where seats have become scarce by it, or are not any more.
    fn with_seats<T>(&self, change: impl FnOnce(&mut Seats) -> T) -> T {
        let mut seats = lock(&self.0.seats);
        let before = seats.changes();
        let result = change(&mut seats);
        if seats.changes() != before {
            self.0.scarcity.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
        result
    }

    /// Lets a balancer's connection wait for its header, where fewer than `most` do.
    pub(super) fn introduce(&self, most: usize) -> Option<Introduction> {
        let introduction = Introduction(self.clone());
        let waiting = self.0.introductions.fetch_add(1, Ordering::Relaxed);
        (waiting < most).then_some(introduction)
    }

    /// Counts something that a client does. Clients of `[relay] networks` have no rates; `client` is the address as far
    /// as it gives rights, and `address` the one that is counted.
    pub(super) fn count(
        &self,
        config: &Config,
        rate: Rate,
        client: Option<IpAddr>,
        address: IpAddr,
    ) -> Result<(), Refusal> {
        if access::is_own_client(&config.relay, client) {
            return Ok(());
        }
        let counted = lock(&self.0.rates).count(rate, address, &config.limits.clients, self.0.start.elapsed());
        counted.map_err(|over| Refusal {
            limit: Limit::PerMinute(rate),
            network: Some(over.network),
            most: over.most as usize,
            wait: Some(over.wait),
        })
    }

    /// Counts a refusal, and says so in the log where it is the first of its kind in a while and the client's network
    /// has log lines left.
    pub(super) fn note(&self, monitor: &Monitor, listener: &str, client: LogClient, refusal: &Refusal) {
        let limit = refusal.limit.key();
        monitor.turned_away(listener, limit);
        if matches!(refusal.limit, Limit::Memory | Limit::MemoryPerSession) {
            // The reply is logged as it is sent.
            return;
        }
        let Some(network) = refusal.network else {
            if monitor.should_log("connection refused, all seats are in use", listener, limit) {
                let (peer, most) = (client.address, refusal.most);
                info!(listener, %peer, limit, most, "connection refused, all seats are in use");
            }
            return;
        };
        let now = Timestamp::now();
        if !lock(&self.0.holds).note(network, refusal.limit, now) {
            return;
        }
        let held = network_text(&network);
        if monitor.should_log_client("client held back by a limit", client, format_args!("{held} {limit}")) {
            lock(&self.0.holds).logged(network, refusal.limit);
            warn!(
                listener,
                client = held,
                limit,
                most = refusal.most,
                remedy = "`gatepost clients list` shows who is held back; where this client is right, `gatepost clients release` \
                          lets it go on at once, and a higher limit in [limits] lets it go on for good",
                "client held back by a limit"
            );
        }
    }

    /// Everybody who was held back in the last hour, the last first.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        lock(&self.0.holds).list()
    }

    /// Lets clients within a network (and by the networks around it) go on; everybody, where none is named. Returns
    /// who was held back.
    #[must_use]
    pub fn release(&self, network: Option<&IpNet>) -> Vec<Held> {
        lock(&self.0.rates).forget(network);
        lock(&self.0.holds).release(network)
    }

    /// The use of the seats.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let (held, memory) = (lock(&self.0.holds).count(), lock(&self.0.memory).used());
        let seats = lock(&self.0.seats);
        let (sessions, strangers) = seats.taken();
        Occupancy { sessions, strangers, short: seats.short(), held, memory }
    }

    /// Says in the log who is held back no longer. To be called from time to time.
    pub fn announce_releases(&self, monitor: &Monitor, config: &Config) {
        for held in lock(&self.0.holds).take_quiet(Timestamp::now()) {
            let (address, limit) = (held.network.addr(), held.limit.key());
            let client = LogClient { address, is_own: access::is_own_client(&config.relay, Some(address)) };
            let name = network_text(&held.network);
            if held.is_logged
                && monitor.should_log_client("client no longer held back", client, format_args!("{name} {limit}"))
            {
                info!(
                    client = name, limit, times = held.times, since = %held.since,
                    "client no longer held back: it kept to the limit for an hour"
                );
            }
        }
    }
}

/// A connection of a balancer that waits for its header.
#[derive(Debug)]
pub(super) struct Introduction(Clients);

impl Drop for Introduction {
    fn drop(&mut self) {
        self.0.0.introductions.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_clients_that_are_held_back_come_out_of_their_networks_budget() {
        let (clients, monitor) = (Clients::default(), Monitor::default());
        let note = |address: &str, is_own| {
            let address: IpAddr = address.parse().expect("an address");
            let network = Some(networks::client(address));
            let refusal = Refusal { limit: Limit::PerClient, network, most: 1, wait: None };
            clients.note(&monitor, "mx", LogClient { address, is_own }, &refusal);
        };
        for n in 0..150 {
            note(&format!("192.0.2.{n}"), false);
        }
        note("198.51.100.1", false);
        note("192.0.2.200", true);
        let held = clients.held();
        let logged: Vec<_> =
            held.iter().filter(|held| held.is_logged).map(|held| network_text(&held.network)).collect();
        assert_eq!((held.len(), logged.len()), (152, 102), "all are listed, and a hundred of one network logged");
        assert!(logged.contains(&"198.51.100.1".to_owned()) && logged.contains(&"192.0.2.200".to_owned()));
    }
}
