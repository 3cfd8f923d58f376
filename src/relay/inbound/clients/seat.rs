//! The seat of a session, and the wait for one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::limit_reached::LimitReached;
use super::memory::MemoryAccount;
use super::seat_queue::QueueKey;
use super::seats::{ClientKind, GrantedSeat, SeatRequest};
use super::{Clients, lock};
use crate::config::{Timeouts, TransactionMemory};
use crate::relay::inbound::timeouts::SessionTimeouts;

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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::relay::inbound::Limit;

    fn wait(time: Duration) -> (oneshot::Sender<Seat>, SeatWait) {
        let (grant, granted) = oneshot::channel();
        let refusal = LimitReached {
            limit: Limit::All,
            network: None,
            most: 1,
            wait: None,
        };
        let (clients, until) = (Clients::default(), Instant::now() + time);
        (
            grant,
            SeatWait {
                clients,
                listener: "mx".into(),
                key: (None, 1),
                granted,
                refusal,
                until,
            },
        )
    }

    #[tokio::test]
    async fn the_wait_ends_after_its_time_or_with_the_removal_from_the_queue() {
        let (grant, waiting) = wait(Duration::from_millis(20));
        let waited = timeout(Duration::from_secs(5), waiting.seat())
            .await
            .expect("in time");
        assert_eq!(waited.err().map(|refusal| refusal.limit), Some(Limit::All));
        drop(grant);
        let (grant, waiting) = wait(WAIT);
        drop(grant);
        let waited = timeout(Duration::from_secs(5), waiting.seat())
            .await
            .expect("in time");
        assert!(waited.is_err(), "others are served first");
    }
}
