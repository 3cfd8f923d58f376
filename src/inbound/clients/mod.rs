//! Clients and what they take: seats, rates, and who was held back.
//!
//! The rules are pure tables with the clock as an argument; here they get a lock and a clock, and a refusal its reply.

mod holds;
mod memory;
mod rates;
mod seats;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::patience::Patience;
use super::proxied::{self, Origin};
use crate::access;
use crate::config::{ClientLimits, Config, Listener, Rate, Timeouts, TransactionMemory};
use crate::monitor::Monitor;
use crate::networks::{self, written};
use crate::smtp::reply::{Reply, Status};
pub use holds::Held;
use holds::Holds;
use memory::{Account, Memory};
use rates::Rates;
use seats::{Full, Newcomer, Seats};

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

/// A client is held back by a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) limit: Limit,
    /// Whose share is used up, where it is not everybody's.
    network: Option<IpNet>,
    most: usize,
    /// After this time it may go on, where that is known.
    wait: Option<Duration>,
}

impl Refusal {
    /// The answer: 421 where the session ends with it, else 450.
    pub(super) fn reply(&self, hostname: &impl fmt::Display) -> Reply {
        let who = self.network.as_ref().map(written).unwrap_or_default();
        let again = match self.wait {
            Some(wait) => format!("try again in {} s", wait.as_secs() + 1),
            None => "try again later".to_owned(),
        };
        let refused = |code: u16, what: &str| {
            let host = if code == 421 { format!("{hostname} ") } else { String::new() };
            let status = if code == 421 { Status(7, 0) } else { Status(7, 1) };
            Reply::new(code, status, format!("{host}Too many {what} a minute from {who}; {again}"))
        };
        match self.limit {
            Limit::All => Reply::new(421, Status(3, 2), format!("{hostname} Too many connections, try again later")),
            Limit::PerClient => {
                Reply::new(421, Status(7, 0), format!("{hostname} Too many connections from your address"))
            }
            Limit::PerNetwork => {
                Reply::new(421, Status(7, 0), format!("{hostname} Too many connections from your network {who}"))
            }
            Limit::PerMinute(Rate::Connections) => refused(421, "connections"),
            Limit::PerMinute(Rate::Handshakes) => refused(421, "TLS handshakes"),
            Limit::PerMinute(Rate::Messages) => refused(450, "messages"),
            Limit::PerMinute(Rate::Recipients) => refused(450, "recipients"),
            Limit::Memory => {
                Reply::new(452, Status(5, 3), "Too many recipients for the memory that is left; send the others later")
            }
            Limit::MemoryPerSession => {
                Reply::new(452, Status(5, 3), "Too many long recipients; send the others in another transaction")
            }
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
    /// Counts a connection and gives it a seat.
    pub(super) fn connect(&self, config: &Config, listener: &Listener, origin: Origin) -> Result<Seat, Refusal> {
        let limits = config.limits.clients;
        // What a proxy brings is counted when it says whose it is.
        let is_proxy = origin.client().is_some_and(|client| proxied::is_expected(&listener.xclient, client));
        if let Some(client) = origin.client().filter(|_| !is_proxy) {
            // A balancer's own checks are not counted: it would find us ill.
            self.count(config, Rate::Connections, Some(client), client)?;
        }
        let address = origin.address().ip();
        let listener_seats = config.seats(listener);
        let name: Arc<str> = listener.name.as_str().into();
        let is_ours = is_proxy || access::is_own_client(&config.relay, origin.client());
        let who = Newcomer { address, is_ours, is_proxy, listener: Arc::clone(&name), listener_seats };
        let (given, changed) = {
            let mut seats = lock(&self.0.seats);
            let before = seats.scarcity(&name);
            let given = seats.give(&who, &limits, self.0.start.elapsed());
            (given, before != seats.scarcity(&name))
        };
        self.announce(changed);
        let (number, evicted) = given.map_err(|full| match full {
            Full::Everyone => {
                let most = if is_ours { limits.connections } else { listener_seats };
                Refusal { limit: Limit::All, network: None, most, wait: None }
            }
            Full::Client => {
                let (network, most) = (Some(networks::client(address)), limits.connections_per_client);
                Refusal { limit: Limit::PerClient, network, most, wait: None }
            }
            Full::Network(network) => {
                let most = limits.connections_per_network;
                Refusal { limit: Limit::PerNetwork, network: Some(network), most, wait: None }
            }
        })?;
        let scarcity = self.0.scarcity.subscribe();
        let (clients, account) = (self.clone(), Account::new(is_ours));
        Ok(Seat { clients, limits, listener: name, listener_seats, is_ours, number, evicted, scarcity, account })
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

    /// Counts a refusal, and says so in the log where it is the first of its kind in a while.
    pub(super) fn note(&self, monitor: &Monitor, listener: &str, peer: IpAddr, refusal: &Refusal) {
        let limit = refusal.limit.key();
        monitor.turned_away(listener, limit);
        if matches!(refusal.limit, Limit::Memory | Limit::MemoryPerSession) {
            // The reply is logged as it is sent.
            return;
        }
        let Some(network) = refusal.network else {
            if monitor.is_news("connection refused, all seats are in use", listener, limit) {
                info!(listener, %peer, limit, most = refusal.most, "connection refused, all seats are in use");
            }
            return;
        };
        if lock(&self.0.holds).note(network, refusal.limit, Timestamp::now()) {
            warn!(
                listener,
                client = written(&network),
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
    pub fn announce_releases(&self) {
        for held in lock(&self.0.holds).take_quiet(Timestamp::now()) {
            info!(
                client = written(&held.network), limit = held.limit.key(), times = held.times, since = %held.since,
                "client no longer held back: it kept to the limit for an hour"
            );
        }
    }

    fn announce(&self, changed: bool) {
        if changed {
            self.0.scarcity.send_modify(|changes| *changes = changes.wrapping_add(1));
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

/// A session's seat. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    clients: Clients,
    limits: ClientLimits,
    listener: Arc<str>,
    listener_seats: usize,
    is_ours: bool,
    number: u64,
    evicted: CancellationToken,
    scarcity: watch::Receiver<u64>,
    account: Account,
}

impl Seat {
    /// The session has brought a message, or a good part of one.
    pub(super) fn brought(&self) {
        let now = self.clients.0.start.elapsed();
        lock(&self.clients.0.seats).brought(self.number, now);
    }

    /// Reserves memory for a recipient of the session's transaction.
    pub(super) fn reserve(&mut self, octets: usize, limits: TransactionMemory) -> Result<(), Refusal> {
        let reserved = lock(&self.clients.0.memory).reserve(&mut self.account, octets, limits);
        reserved.map_err(|(limit, most)| Refusal { limit, network: None, most, wait: None })
    }

    /// Gives all memory of the transaction back: it has ended.
    pub(super) fn free(&mut self) {
        if !self.account.is_empty() {
            lock(&self.clients.0.memory).free(&mut self.account);
        }
    }

    /// Returns the session's timeouts at this moment.
    pub(super) fn patience(&self, timeouts: &Timeouts) -> Patience {
        Patience::of(timeouts, self.is_pressed())
    }

    /// Returns whether the short timeouts hold: the session is a stranger's, and seats are scarce.
    fn is_pressed(&self) -> bool {
        !self.is_ours && lock(&self.clients.0.seats).are_scarce(&self.listener)
    }

    /// Waits until somebody else has the seat (`true`), or until it may have changed whether the session is to make haste.
    pub(super) async fn changed(&mut self) -> bool {
        tokio::select! {
            () = self.evicted.cancelled() => true,
            // The sender lives as long as the seat.
            _ = self.scarcity.changed() => false,
        }
    }

    /// Waits until somebody else has the seat.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.free();
        let changed = {
            let mut seats = lock(&self.clients.0.seats);
            let before = seats.scarcity(&self.listener);
            seats.take_back(self.number, &self.limits, self.listener_seats);
            before != seats.scarcity(&self.listener)
        };
        self.clients.announce(changed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
