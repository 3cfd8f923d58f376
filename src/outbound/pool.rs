//! Idle cleared connections, kept for the next message to the same destination.
//!
//! The pool does not decide whether a connection is good enough for a message: each is judged by its own handshake.
//! Connections that are idle for too long are closed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::address::Host;
use crate::config::Connector;
use crate::route::Hop;

use super::cleared::Cleared;

/// The time for which a connection may be idle. Peers close idle connections after minutes, and an idle connection uses
/// one of the peer's slots.
const IDLE: Duration = Duration::from_secs(5);
/// The interval between two searches for connections that are idle for too long.
const ROUND: Duration = Duration::from_secs(1);
/// The maximum number of idle connections to one destination.
const PER_DESTINATION: usize = 32;
/// The maximum number of idle connections to all destinations.
const IN_ALL: usize = 512;
/// The number of destinations with closing sessions above which the finished ones are removed.
const ENDING: usize = 1024;

/// The key of an idle connection. Connectors share no connections, since they differ in trust and in the identity that
/// we show.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    /// The generation of the configuration under which the connection was judged.
    generation: u64,
    /// The name of the connector.
    connector: String,
    host: Host,
    port: u16,
}

impl Destination {
    pub(super) fn new(generation: u64, connector: &Connector, hop: &Hop) -> Self {
        Self { generation, connector: connector.name.clone(), host: hop.host.clone(), port: hop.port }
    }
}

/// The pool of idle connections.
#[derive(Default)]
pub(super) struct Pool(Arc<Mutex<Shelf>>);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("waiting", &self.shelf().count).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shelf {
    waiting: HashMap<Destination, Vec<Waiting>>,
    count: usize,
    /// The sessions that are closing; the peer counts them until they are closed.
    ending: HashMap<Destination, Vec<JoinHandle<()>>>,
    is_swept: bool,
    /// The oldest generation of the configuration whose connections are kept.
    oldest: u64,
    is_closed: bool,
}

struct Waiting {
    connection: Cleared,
    since: Instant,
}

impl Shelf {
    fn quit(&mut self, destination: Destination, connection: Cleared) {
        if self.ending.len() >= ENDING {
            self.ending.retain(|_, list| list.iter().any(|session| !session.is_finished()));
        }
        self.ending.entry(destination).or_default().push(connection.quit());
    }
}

impl Pool {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.0)
    }

    /// Moves a hop with an idle connection to the front, among the hops of the best preference.
    pub(super) fn prefer(&self, generation: u64, connector: &Connector, hops: &mut [Hop]) {
        if hops.len() < 2 {
            return;
        }
        let equals = hops.iter().take_while(|hop| hop.has_same_preference(&hops[0]));
        let mut destinations = equals.map(|hop| Destination::new(generation, connector, hop));
        if let Some(at) = destinations.position(|destination| self.has(&destination)) {
            hops.swap(0, at);
        }
    }

    /// Returns whether there is an idle connection to this destination.
    fn has(&self, destination: &Destination) -> bool {
        self.shelf().waiting.contains_key(destination)
    }

    /// Takes the idle connection that was used last.
    pub(super) fn take(&self, destination: &Destination) -> Option<Cleared> {
        let mut held = self.shelf();
        let list = held.waiting.get_mut(destination)?;
        let taken = list.pop();
        if list.is_empty() {
            held.waiting.remove(destination);
        }
        held.count -= usize::from(taken.is_some());
        taken.map(|waiting| waiting.connection)
    }

    /// Keeps a connection for the next message, or closes it if the pool is full.
    pub(super) fn put(&self, destination: Destination, mut connection: Cleared) {
        connection.rest();
        let mut held = self.shelf();
        let is_full = held.waiting.get(&destination).is_some_and(|list| list.len() >= PER_DESTINATION);
        if held.is_closed || destination.generation < held.oldest || held.count >= IN_ALL || is_full {
            return held.quit(destination, connection);
        }
        held.waiting.entry(destination).or_default().push(Waiting { connection, since: Instant::now() });
        held.count += 1;
        if !held.is_swept {
            held.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    /// Closes a session with QUIT.
    pub(super) fn quit(&self, destination: Destination, connection: Cleared) {
        self.shelf().quit(destination, connection);
    }

    /// Waits until one closing session with this destination is closed, if there is one, so that a new session does not
    /// exceed the destination's concurrency.
    pub(super) async fn room(&self, destination: &Destination) {
        let ending = {
            let mut held = self.shelf();
            let Some(list) = held.ending.get_mut(destination) else { return };
            list.retain(|session| !session.is_finished());
            let ending = list.pop();
            if list.is_empty() {
                held.ending.remove(destination);
            }
            ending
        };
        if let Some(session) = ending {
            let _ = session.await;
        }
    }

    /// Closes the idle connections of older generations, and keeps none of them from now on.
    pub(super) fn close_older(&self, generation: u64) {
        let mut held = self.shelf();
        held.oldest = held.oldest.max(generation);
        let oldest = held.oldest;
        let old: Vec<_> = held.waiting.extract_if(|destination, _| destination.generation < oldest).collect();
        for (destination, list) in old {
            held.count -= list.len();
            for waiting in list {
                held.quit(destination.clone(), waiting.connection);
            }
        }
    }

    /// Closes all idle connections, and keeps none from now on.
    pub(super) fn close(&self) {
        let mut held = self.shelf();
        held.is_closed = true;
        held.count = 0;
        for waiting in held.waiting.drain().flat_map(|(_, list)| list) {
            waiting.connection.quit();
        }
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    // No code panics while it holds the lock, and no change leaves the state half-done.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes the connections that are idle for too long; ends when none is idle.
async fn sweep(shelf: Weak<Mutex<Shelf>>) {
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(shelf) = shelf.upgrade() else { return };
        let mut shelf = lock(&shelf);
        let mut old = Vec::new();
        shelf.waiting.retain(|destination, list| {
            // The list is in the order of time, the oldest first.
            let fresh = list.iter().position(|waiting| waiting.since.elapsed() < IDLE).unwrap_or(list.len());
            old.extend(list.drain(..fresh).map(|waiting| (destination.clone(), waiting.connection)));
            !list.is_empty()
        });
        shelf.count -= old.len();
        for (destination, connection) in old {
            shelf.quit(destination, connection);
        }
        if shelf.count == 0 {
            shelf.is_swept = false;
            return;
        }
    }
}
