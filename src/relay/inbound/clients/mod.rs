//! The limits on clients: seats, rates and memory, and the list of clients that are held back.
//!
//! The submodules hold tables without locks, with the time as an argument. This module adds the
//! locks and the clock.

mod held_networks;
mod limit_reached;
mod memory;
mod provisional;
mod rates;
mod seat;
mod seat_queue;
mod seats;

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::proxied::{self, Origin};
use crate::config::{Config, ListenerConfig, Rate};
use crate::policy::networks::{self, network_text};
use crate::policy::relay_access;
use crate::telemetry::{LogClient, Monitor};
pub use held_networks::HeldNetwork;
use held_networks::HeldNetworks;
pub(super) use limit_reached::LimitReached;
use memory::MemoryPool;
use rates::ClientRates;
pub(super) use seat::{Seat, SeatAnswer};
use seat::{SeatWait, WAIT};
use seat_queue::WaitingClient;
use seats::{ClientKind, NoSeat, SeatRequest, Seats};

/// A limit on clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// Sessions of all clients, or of all strangers on one listener.
    All,
    /// Sessions of one client.
    PerClient,
    /// Sessions of one network.
    PerNetwork,
    /// Events of one rate in a minute.
    PerMinute(Rate),
    /// Memory of the recipients in all transactions.
    Memory,
    /// Memory of the recipients in one transaction.
    MemoryPerSession,
}

impl Limit {
    /// Returns the limit's key in `[limits]`.
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

/// The present use of seats and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupancy {
    /// Sessions with a seat.
    pub sessions: usize,
    /// Sessions of strangers, a part of `sessions`.
    pub strangers: usize,
    /// The listeners on which seats are scarce.
    pub short: Vec<Arc<str>>,
    /// Clients and networks that were held back in the last hour.
    pub held: usize,
    /// Octets in use for the recipients of open transactions.
    pub memory: usize,
}

/// The point in a session at which a seat is requested; it decides how much is known about the
/// client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeatStage {
    /// The connection was accepted. A proxy may still name the client, and a load balancer that
    /// names none performs a health check.
    Connection,
    /// A proxy has named the client with XCLIENT. The client may be another proxy.
    XClient,
    /// The session sends MAIL. It counts as a client even if it is a proxy or a load balancer.
    Mail,
}

/// The shared table of all clients of all listeners. Clones share one table.
#[derive(Debug, Clone)]
pub struct Clients(Arc<ClientTables>);

/// The tables of all limits, each under its own lock.
#[derive(Debug)]
struct ClientTables {
    start: Instant,
    seats: Mutex<Seats>,
    rates: Mutex<ClientRates>,
    held: Mutex<HeldNetworks>,
    memory: Mutex<MemoryPool>,
    /// The number of times that scarcity has begun or ended; sessions watch it.
    scarcity: watch::Sender<u64>,
    /// The number of connections that wait for their PROXY headers.
    pending_headers: AtomicUsize,
}

impl Default for Clients {
    fn default() -> Self {
        let tables = ClientTables {
            start: Instant::now(),
            seats: Mutex::default(),
            rates: Mutex::default(),
            held: Mutex::default(),
            memory: Mutex::default(),
            scarcity: watch::Sender::new(0),
            pending_headers: AtomicUsize::new(0),
        };
        Self(Arc::new(tables))
    }
}

impl Clients {
    /// Counts a connection, and gives it a seat or a place in the queue for one.
    ///
    /// # Errors
    /// Returns the limit that refuses the connection.
    pub(super) fn connect(
        &self,
        config: &Config,
        listener: &ListenerConfig,
        origin: Origin,
        stage: SeatStage,
    ) -> Result<SeatAnswer, LimitReached> {
        let limits = config.limits.clients;
        let is_own = relay_access::is_own_client(&config.relay, origin.client());
        let kind = match origin.client() {
            None if stage == SeatStage::Connection => ClientKind::Check,
            Some(client)
                if stage != SeatStage::Mail && proxied::is_listed(&listener.xclient, client) =>
            {
                ClientKind::Proxy
            }
            _ if is_own => ClientKind::Own,
            _ => ClientKind::Stranger,
        };
        if let Some(client) = origin.client().filter(|_| kind != ClientKind::Proxy) {
            // A load balancer's health checks are not counted, and a proxy's sessions are counted
            // at XCLIENT.
            self.count(config, Rate::Connections, Some(client), client)?;
        }
        let (address, listener_seats) = (origin.address().ip(), config.seats(listener));
        let request = SeatRequest {
            address,
            kind,
            listener: listener.name.as_str().into(),
            listener_seats,
        };
        self.serve_waiting();
        let given =
            self.with_seats(
                |seats| match seats.give(&request, &limits, self.0.start.elapsed()) {
                    Err(NoSeat::All)
                        if kind == ClientKind::Stranger
                            && seats.sessions_of_client(&request) == 0 =>
                    {
                        let (grant, granted) = oneshot::channel();
                        let waiter = WaitingClient {
                            request: request.clone(),
                            limits,
                            grant,
                        };
                        let key = seats
                            .queue
                            .push(waiter, seats.last_served(address))
                            .ok_or(NoSeat::All)?;
                        Ok(Err((key, granted)))
                    }
                    given => given.map(Ok),
                },
            );
        let refusal = |no_seat| {
            let (limit, network, most) = match no_seat {
                NoSeat::All => (
                    Limit::All,
                    None,
                    if is_own {
                        limits.connections
                    } else {
                        listener_seats
                    },
                ),
                NoSeat::Client => (
                    Limit::PerClient,
                    Some(networks::client(address)),
                    limits.connections_per_client,
                ),
                NoSeat::Network(network) => (
                    Limit::PerNetwork,
                    Some(network),
                    limits.connections_per_network,
                ),
            };
            LimitReached {
                limit,
                network,
                most,
                wait: None,
            }
        };
        Ok(match given.map_err(refusal)? {
            Ok(given) => SeatAnswer::Seat(Seat::new(self, &request, given)),
            Err((key, granted)) => {
                let (clients, refusal, until) =
                    (self.clone(), refusal(NoSeat::All), Instant::now() + WAIT);
                SeatAnswer::Waiting(SeatWait {
                    clients,
                    listener: request.listener,
                    key,
                    granted,
                    refusal,
                    until,
                })
            }
        })
    }

    /// Gives free seats to the waiting clients.
    fn serve_waiting(&self) {
        let served = self.with_seats(|seats| {
            if seats.queue.count() == 0 {
                Vec::new()
            } else {
                seats.serve(self.0.start.elapsed())
            }
        });
        for (waiter, given) in served {
            // If the client has gone meanwhile, dropping the returned seat frees it.
            drop(waiter.grant.send(Seat::new(self, &waiter.request, given)));
        }
    }

    /// Changes the table of seats, and notifies sessions if scarcity has begun or ended by it.
    fn with_seats<T>(&self, change: impl FnOnce(&mut Seats) -> T) -> T {
        let mut seats = lock(&self.0.seats);
        let before = seats.changes();
        let result = change(&mut seats);
        if seats.changes() != before {
            self.0
                .scarcity
                .send_modify(|changes| *changes = changes.wrapping_add(1));
        }
        result
    }

    /// Lets a load balancer's connection wait for its PROXY header; `None` if `most` connections
    /// wait already.
    pub(super) fn permit_header_wait(&self, most: usize) -> Option<HeaderPermit> {
        let permit = HeaderPermit(self.clone());
        let waiting = self.0.pending_headers.fetch_add(1, Ordering::Relaxed);
        (waiting < most).then_some(permit)
    }

    /// Counts an event against the rate limit of `address`. Clients of `[relay] networks` have
    /// none; `client` is the client's address if it may give rights.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub(super) fn count(
        &self,
        config: &Config,
        rate: Rate,
        client: Option<IpAddr>,
        address: IpAddr,
    ) -> Result<(), LimitReached> {
        if relay_access::is_own_client(&config.relay, client) {
            return Ok(());
        }
        let counted = lock(&self.0.rates).count(
            rate,
            address,
            &config.limits.clients,
            self.0.start.elapsed(),
        );
        counted.map_err(|exceeded| LimitReached {
            limit: Limit::PerMinute(rate),
            network: Some(exceeded.network),
            most: exceeded.most as usize,
            wait: Some(exceeded.wait),
        })
    }

    /// Counts a refusal, and logs it if the client was not held back by this limit in the last hour
    /// and its network has log lines left.
    pub(super) fn log_refusal(
        &self,
        monitor: &Monitor,
        listener: &str,
        client: LogClient,
        refusal: &LimitReached,
    ) {
        let limit = refusal.limit.key();
        monitor.turned_away(listener, limit);
        if matches!(refusal.limit, Limit::Memory | Limit::MemoryPerSession) {
            // This refusal is logged with its reply.
            return;
        }
        let Some(network) = refusal.network else {
            if monitor.should_log("connection refused: all seats are in use", listener, limit) {
                let (peer, most) = (client.address, refusal.most);
                info!(listener, %peer, limit, most, "connection refused: all seats are in use");
            }
            return;
        };
        let now = Timestamp::now();
        if !lock(&self.0.held).record(network, refusal.limit, now) {
            return;
        }
        let held = network_text(&network);
        if monitor.should_log_client(
            "client held back by a limit",
            client,
            format_args!("{held} {limit}"),
        ) {
            lock(&self.0.held).set_logged(network, refusal.limit);
            warn!(
                listener,
                client = held,
                limit,
                most = refusal.most,
                remedy = "`gatepost clients list` shows the clients that are held back; if this one is legitimate, release it \
                          with `gatepost clients release`, or raise the limit in [limits]",
                "client held back by a limit"
            );
        }
    }

    /// Returns the clients and networks that were held back in the last hour, the latest first.
    #[must_use]
    pub fn held(&self) -> Vec<HeldNetwork> {
        lock(&self.0.held).list()
    }

    /// Releases the clients within a network, and the networks that contain it; all if `network` is
    /// `None`. Returns those that were held back.
    #[must_use]
    pub fn release(&self, network: Option<&IpNet>) -> Vec<HeldNetwork> {
        lock(&self.0.rates).forget(network);
        lock(&self.0.held).release(network)
    }

    /// Returns the present use of seats and memory.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let (held, memory) = (lock(&self.0.held).count(), lock(&self.0.memory).used());
        let seats = lock(&self.0.seats);
        let (sessions, strangers) = seats.counts();
        Occupancy {
            sessions,
            strangers,
            short: seats.scarce_listeners(),
            held,
            memory,
        }
    }

    /// Logs the clients that are no longer held back, and removes them from the list. Must be
    /// called periodically.
    pub fn announce_releases(&self, monitor: &Monitor, config: &Config) {
        for held in lock(&self.0.held).remove_quiet(Timestamp::now()) {
            let (address, limit) = (held.network.addr(), held.limit.key());
            let client = LogClient {
                address,
                is_own: relay_access::is_own_client(&config.relay, Some(address)),
            };
            let name = network_text(&held.network);
            if held.is_logged
                && monitor.should_log_client(
                    "client no longer held back",
                    client,
                    format_args!("{name} {limit}"),
                )
            {
                info!(
                    client = name, limit, times = held.times, since = %held.since,
                    "client no longer held back: it was within the limit for an hour"
                );
            }
        }
    }
}

/// The permit of a load balancer's connection to wait for its PROXY header. Dropping it gives it
/// back.
#[derive(Debug)]
pub(super) struct HeaderPermit(Clients);

impl Drop for HeaderPermit {
    fn drop(&mut self) {
        self.0.0.pending_headers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Locks a table. A poisoned lock is ignored, since no change to the tables is interrupted by a
/// panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_about_held_clients_count_against_their_networks_budget() {
        let (clients, monitor) = (Clients::default(), Monitor::default());
        let note = |address: &str, is_own| {
            let address: IpAddr = address.parse().expect("an address");
            let network = Some(networks::client(address));
            let refusal = LimitReached {
                limit: Limit::PerClient,
                network,
                most: 1,
                wait: None,
            };
            clients.log_refusal(&monitor, "mx", LogClient { address, is_own }, &refusal);
        };
        for n in 0..150 {
            note(&format!("192.0.2.{n}"), false);
        }
        note("198.51.100.1", false);
        note("192.0.2.200", true);
        let held = clients.held();
        let logged: Vec<_> = held
            .iter()
            .filter(|held| held.is_logged)
            .map(|held| network_text(&held.network))
            .collect();
        assert_eq!(
            (held.len(), logged.len()),
            (152, 102),
            "all are listed, and a hundred of one network logged"
        );
        assert!(
            logged.contains(&"198.51.100.1".to_owned())
                && logged.contains(&"192.0.2.200".to_owned())
        );
    }
}
