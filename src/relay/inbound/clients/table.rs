//! The shared table of all clients, the seats that it gives, and the wait for one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::select;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::held_networks::{HeldNetwork, HeldNetworks};
use super::limit::Limit;
use super::limit_reached::LimitReached;
use super::memory::MemoryAccount;
use super::memory::MemoryPool;
use super::rates::{ClientRates, RateExceeded};
use super::seat_queue::QueueKey;
use super::seat_queue::WaitingClient;
use super::seat_request::{ClientKind, GrantedSeat, NoSeat, Occupancy, SeatRequest, SeatStage};
use super::seats::Seats;
use crate::config::{ClientLimits, Config, ListenerConfig, Rate};
use crate::config::{Timeouts, TransactionMemory};
use crate::policy::networks::{self, network_text};
use crate::policy::relay_access;
use crate::relay::inbound::proxied::{self, Origin};
use crate::relay::inbound::timeouts::SessionTimeouts;
use crate::relay::users::Logins;
use crate::telemetry::{LogClient, Monitor};

/// The maximum time for which a client waits for a seat.
pub(super) const WAIT: Duration = Duration::from_secs(20);
/// The interval at which each waiting client checks for sessions that have become idle for long
/// enough.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// The interval if more than [`MANY`] clients wait: together they check often enough.
const CHECK_INTERVAL_OF_MANY: Duration = Duration::from_secs(1);
const MANY: usize = 64;

/// The answer to a client that requests a seat.
pub(in crate::relay::inbound) enum SeatAnswer {
    /// The client has a seat.
    Seat(Seat),
    /// The client may wait for a seat.
    Waiting(SeatWait),
}

/// A client's position in the queue for a seat. Dropping it removes the client from the queue.
pub(in crate::relay::inbound) struct SeatWait {
    pub(super) clients: Clients,
    pub(super) listener: Arc<str>,
    pub(super) key: QueueKey,
    pub(super) granted: oneshot::Receiver<Seat>,
    pub(super) refusal: LimitReached,
    pub(super) until: Instant,
}

impl SeatWait {
    /// Waits for a seat.
    ///
    /// # Errors
    /// Returns the refusal if there was no seat within [`WAIT`], or if the client was removed from
    /// the queue.
    pub(in crate::relay::inbound) async fn seat(mut self) -> Result<Seat, LimitReached> {
        loop {
            let waiting = lock(&self.clients.0.seats).queue.count();
            let interval = if waiting > MANY {
                CHECK_INTERVAL_OF_MANY
            } else {
                CHECK_INTERVAL
            };
            select! {
                biased;
                granted = &mut self.granted => return granted.map_err(|_| self.refusal),
                () = sleep_until(self.until.into()) => return Err(self.refusal),
                () = sleep(interval) => self.clients.serve_waiting(),
            }
        }
    }
}

impl Drop for SeatWait {
    fn drop(&mut self) {
        let waiter = lock(&self.clients.0.seats)
            .queue
            .remove(&self.listener, self.key);
        drop(waiter);
    }
}

/// The seat of a session. Dropping it frees the seat.
#[derive(Debug)]
pub(in crate::relay::inbound) struct Seat {
    clients: Clients,
    listener: Arc<str>,
    kind: ClientKind,
    number: u64,
    evicted: CancellationToken,
    scarcity: watch::Receiver<u64>,
    account: MemoryAccount,
}

impl Seat {
    pub(super) fn new(
        clients: &Clients,
        request: &SeatRequest,
        (number, evicted): GrantedSeat,
    ) -> Self {
        let scarcity = clients.0.scarcity.subscribe();
        let (clients, listener, kind) =
            (clients.clone(), Arc::clone(&request.listener), request.kind);
        Self {
            clients,
            listener,
            kind,
            number,
            evicted,
            scarcity,
            account: MemoryAccount::new(kind == ClientKind::Own),
        }
    }

    /// Returns true for the provisional seat of a proxy or load balancer that has named no client
    /// yet.
    pub(in crate::relay::inbound) fn is_provisional(&self) -> bool {
        matches!(self.kind, ClientKind::Proxy | ClientKind::Check)
    }

    /// Records that the session has sent a message or a significant part of one.
    pub(in crate::relay::inbound) fn record_activity(&self) {
        let now = self.clients.0.start.elapsed();
        lock(&self.clients.0.seats).record_activity(self.number, now);
    }

    /// Reserves memory for a recipient of the session's transaction.
    ///
    /// # Errors
    /// Returns the limit that would be exceeded.
    pub(in crate::relay::inbound) fn reserve(
        &mut self,
        octets: usize,
        limits: TransactionMemory,
    ) -> Result<(), LimitReached> {
        let reserved = lock(&self.clients.0.memory).reserve(&mut self.account, octets, limits);
        reserved.map_err(|(limit, most)| LimitReached {
            limit,
            network: None,
            most,
            wait: None,
        })
    }

    /// Frees the memory of the transaction, which has ended.
    pub(in crate::relay::inbound) fn free(&mut self) {
        if !self.account.is_empty() {
            lock(&self.clients.0.memory).free(&mut self.account);
        }
    }

    /// Returns the session's timeouts at this moment.
    pub(in crate::relay::inbound) fn timeouts(&self, timeouts: &Timeouts) -> SessionTimeouts {
        SessionTimeouts::of(timeouts, self.has_short_timeouts())
    }

    /// Returns true if the short timeouts apply: the client is a stranger, and seats are scarce.
    fn has_short_timeouts(&self) -> bool {
        self.kind == ClientKind::Stranger && lock(&self.clients.0.seats).are_scarce(&self.listener)
    }

    /// Waits until the session is evicted (`true`), or until scarcity, and so the timeouts, may
    /// have changed (`false`).
    pub(in crate::relay::inbound) async fn changed(&mut self) -> bool {
        select! {
            () = self.evicted.cancelled() => true,
            // The sender is never dropped before the seat, which holds a clone of its table.
            _ = self.scarcity.changed() => false,
        }
    }

    /// Returns the time that an evicted session has for its last reply and for closing its
    /// connection.
    pub(in crate::relay::inbound) fn farewell(&self) -> Duration {
        lock(&self.clients.0.seats).farewell()
    }

    /// Waits until the session is evicted.
    pub(in crate::relay::inbound) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.free();
        self.clients
            .with_seats(|seats| seats.take_back(self.number));
        self.clients.serve_waiting();
    }
}

/// The shared table of all clients of all listeners. Clones share one table.
#[derive(Debug, Clone)]
pub struct Clients(Arc<ClientTables>);

/// The tables of all limits, each under its own lock.
#[derive(Debug)]
pub(super) struct ClientTables {
    pub(super) start: Instant,
    pub(super) seats: Mutex<Seats<Seat>>,
    pub(super) rates: Mutex<ClientRates>,
    pub(super) held: Mutex<HeldNetworks>,
    pub(super) memory: Mutex<MemoryPool>,
    /// The number of times that scarcity has begun or ended; sessions watch it.
    pub(super) scarcity: watch::Sender<u64>,
    /// The number of connections that wait for their PROXY headers.
    pub(super) pending_headers: AtomicUsize,
    logins: Logins,
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
            logins: Logins::default(),
        };
        Self(Arc::new(tables))
    }
}

impl Clients {
    /// Counts a connection, and gives it a seat or a place in the queue for one.
    ///
    /// # Errors
    /// Returns the limit that refuses the connection.
    pub(in crate::relay::inbound) fn connect(
        &self,
        config: &Config,
        listener: &ListenerConfig,
        origin: Origin,
        stage: SeatStage,
    ) -> Result<SeatAnswer, LimitReached> {
        let limits = config.limits.clients;
        let is_own = relay_access::is_own_client(&config.relay, origin.client());
        let kind = kind_of(config, listener, origin, stage);
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
            let all = if is_own {
                limits.connections
            } else {
                listener_seats
            };
            limit_reached(no_seat, address, all, &limits)
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
    pub(super) fn serve_waiting(&self) {
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
    pub(super) fn with_seats<T>(&self, change: impl FnOnce(&mut Seats<Seat>) -> T) -> T {
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
    pub(in crate::relay::inbound) fn permit_header_wait(
        &self,
        most: usize,
    ) -> Option<HeaderPermit> {
        let permit = HeaderPermit(self.clone());
        let waiting = self.0.pending_headers.fetch_add(1, Ordering::Relaxed);
        (waiting < most).then_some(permit)
    }

    /// Counts an event against the rate limit of `address`. Clients of `[relay] networks` have no
    /// such limit. `client` is the address that decides about that; `None` if the client is
    /// unknown, as behind a load balancer that names none.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub(in crate::relay::inbound) fn count(
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
        counted.map_err(|exceeded| rate_reached(rate, exceeded))
    }

    /// Checks a rate limit, without counting an event.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub(in crate::relay::inbound) fn check(
        &self,
        config: &Config,
        rate: Rate,
        client: Option<IpAddr>,
        address: IpAddr,
    ) -> Result<(), LimitReached> {
        if relay_access::is_own_client(&config.relay, client) {
            return Ok(());
        }
        let (limits, now) = (&config.limits.clients, self.0.start.elapsed());
        let checked = lock(&self.0.rates).check(rate, address, limits, now);
        checked.map_err(|exceeded| rate_reached(rate, exceeded))
    }

    /// Takes back an event that was counted against the rate limit of `address`.
    pub(in crate::relay::inbound) fn uncount(&self, config: &Config, rate: Rate, address: IpAddr) {
        let limits = &config.limits.clients;
        lock(&self.0.rates).uncount(rate, address, limits);
    }

    /// Counts a refusal, and logs it if the client was not held back by this limit in the last hour
    /// and its network has log lines left. A refusal because all seats are in use is logged at most
    /// once a minute for each listener.
    pub(in crate::relay::inbound) fn log_refusal(
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

    /// Returns the state about clients that log in.
    #[must_use]
    pub fn logins(&self) -> &Logins {
        &self.0.logins
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
        if network.is_none() {
            self.0.logins.forget_hours();
        }
        self.0.logins.forget_failures(network);
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

/// Returns the kind of client at a stage of its session.
fn kind_of(
    config: &Config,
    listener: &ListenerConfig,
    origin: Origin,
    stage: SeatStage,
) -> ClientKind {
    match origin.client() {
        None if stage == SeatStage::Connection => ClientKind::Check,
        Some(client)
            if stage != SeatStage::Mail && proxied::is_listed(&listener.xclient, client) =>
        {
            ClientKind::Proxy
        }
        client if relay_access::is_own_client(&config.relay, client) => ClientKind::Own,
        _ => ClientKind::Stranger,
    }
}

/// Returns the limit of a rate that is reached.
fn rate_reached(rate: Rate, exceeded: RateExceeded) -> LimitReached {
    LimitReached {
        limit: Limit::PerMinute(rate),
        network: Some(exceeded.network),
        most: exceeded.most as usize,
        wait: Some(exceeded.wait),
    }
}

/// Returns the limit for which a client has no seat. `all` is the limit of all clients of its kind.
fn limit_reached(
    no_seat: NoSeat,
    address: IpAddr,
    all: usize,
    limits: &ClientLimits,
) -> LimitReached {
    let (limit, network, most) = match no_seat {
        NoSeat::All => (Limit::All, None, all),
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
}

/// Locks a table. A poisoned lock is ignored, since no change to the tables is interrupted by a
/// panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The permit of a load balancer's connection to wait for its PROXY header. Dropping it gives it
/// back.
#[derive(Debug)]
pub(crate) struct HeaderPermit(Clients);

impl Drop for HeaderPermit {
    fn drop(&mut self) {
        self.0.0.pending_headers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
