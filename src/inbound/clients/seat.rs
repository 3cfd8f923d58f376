//! The seat of a session, and the wait for one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::memory::Account;
use super::refusal::Refusal;
use super::seats::{Given, Newcomer, Rank};
use super::waiting::Key;
use super::{Clients, lock};
use crate::config::{Timeouts, TransactionMemory};
use crate::inbound::patience::Patience;

/// The maximum time for which a client waits for a seat.
pub(super) const WAIT: Duration = Duration::from_secs(20);
/// The interval at which each waiting client checks for sessions that have become idle for long enough.
const LOOK: Duration = Duration::from_millis(200);
/// The interval if more than [`MANY`] clients wait: together they check often enough.
const LOOK_OF_MANY: Duration = Duration::from_secs(1);
const MANY: usize = 64;

/// The answer to a client that requests a seat.
pub(in crate::inbound) enum Place {
    /// The client has a seat.
    Seat(Seat),
    /// The client may wait for a seat.
    Waiting(Wait),
}

/// A client's position in the queue for a seat. Dropping it removes the client from the queue.
pub(in crate::inbound) struct Wait {
    pub(super) clients: Clients,
    pub(super) listener: Arc<str>,
    pub(super) key: Key,
    pub(super) granted: oneshot::Receiver<Seat>,
    pub(super) refusal: Refusal,
    pub(super) until: Instant,
}

impl Wait {
    /// Waits for a seat.
    ///
    /// # Errors
    /// Returns the refusal if there was no seat within [`WAIT`], or if the client was removed from the queue.
    pub(in crate::inbound) async fn seat(mut self) -> Result<Seat, Refusal> {
        loop {
            let waiting = lock(&self.clients.0.seats).waiting.count();
            let pause = if waiting > MANY { LOOK_OF_MANY } else { LOOK };
            select! {
                biased;
                granted = &mut self.granted => return granted.map_err(|_| self.refusal),
                () = sleep_until(self.until.into()) => return Err(self.refusal),
                () = sleep(pause) => self.clients.serve_waiting(),
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let waiter = lock(&self.clients.0.seats).waiting.leave(&self.listener, self.key);
        drop(waiter);
    }
}

/// The seat of a session. Dropping it frees the seat.
#[derive(Debug)]
pub(in crate::inbound) struct Seat {
    clients: Clients,
    listener: Arc<str>,
    rank: Rank,
    number: u64,
    evicted: CancellationToken,
    scarcity: watch::Receiver<u64>,
    account: Account,
}

impl Seat {
    pub(super) fn new(clients: &Clients, who: &Newcomer, (number, evicted): Given) -> Self {
        let scarcity = clients.0.scarcity.subscribe();
        let (clients, listener, rank) = (clients.clone(), Arc::clone(&who.listener), who.rank);
        Self { clients, listener, rank, number, evicted, scarcity, account: Account::new(rank == Rank::Own) }
    }

    /// Returns true for the provisional seat of a proxy or load balancer that has named no client yet.
    pub(in crate::inbound) fn is_provisional(&self) -> bool {
        matches!(self.rank, Rank::Proxy | Rank::Check)
    }

    /// Records that the session has sent a message or a significant part of one.
    pub(in crate::inbound) fn brought(&self) {
        let now = self.clients.0.start.elapsed();
        lock(&self.clients.0.seats).brought(self.number, now);
    }

    /// Reserves memory for a recipient of the session's transaction.
    ///
    /// # Errors
    /// Returns the limit that would be exceeded.
    pub(in crate::inbound) fn reserve(&mut self, octets: usize, limits: TransactionMemory) -> Result<(), Refusal> {
        let reserved = lock(&self.clients.0.memory).reserve(&mut self.account, octets, limits);
        reserved.map_err(|(limit, most)| Refusal { limit, network: None, most, wait: None })
    }

    /// Frees the memory of the transaction, which has ended.
    pub(in crate::inbound) fn free(&mut self) {
        if !self.account.is_empty() {
            lock(&self.clients.0.memory).free(&mut self.account);
        }
    }

    /// Returns the session's timeouts at this moment.
    pub(in crate::inbound) fn patience(&self, timeouts: &Timeouts) -> Patience {
        Patience::of(timeouts, self.is_pressed())
    }

    /// Returns true if the short timeouts apply: the client is a stranger, and seats are scarce.
    fn is_pressed(&self) -> bool {
        self.rank == Rank::Stranger && lock(&self.clients.0.seats).are_scarce(&self.listener)
    }

    /// Waits until the session is evicted (`true`), or until scarcity, and so the timeouts, may have changed (`false`).
    pub(in crate::inbound) async fn changed(&mut self) -> bool {
        select! {
            () = self.evicted.cancelled() => true,
            // The sender is never dropped before the seat, which holds a clone of its table.
            _ = self.scarcity.changed() => false,
        }
    }

    /// Waits until the session is evicted.
    pub(in crate::inbound) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.free();
        self.clients.with_seats(|seats| seats.take_back(self.number));
        self.clients.serve_waiting();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::inbound::Limit;

    fn wait(time: Duration) -> (oneshot::Sender<Seat>, Wait) {
        let (grant, granted) = oneshot::channel();
        let refusal = Refusal { limit: Limit::All, network: None, most: 1, wait: None };
        let (clients, until) = (Clients::default(), Instant::now() + time);
        (grant, Wait { clients, listener: "mx".into(), key: (None, 1), granted, refusal, until })
    }

    #[tokio::test]
    async fn the_wait_ends_after_its_time_or_with_the_removal_from_the_queue() {
        let (grant, waiting) = wait(Duration::from_millis(20));
        let waited = timeout(Duration::from_secs(5), waiting.seat()).await.expect("in time");
        assert_eq!(waited.err().map(|refusal| refusal.limit), Some(Limit::All));
        drop(grant);
        let (grant, waiting) = wait(WAIT);
        drop(grant);
        let waited = timeout(Duration::from_secs(5), waiting.seat()).await.expect("in time");
        assert!(waited.is_err(), "others are served first");
    }
}
