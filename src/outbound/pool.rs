//! Cleared connections that wait for the next message to the same destination.
//!
//! Whether such a connection is good enough for a message is not asked here: each has its own handshake
//! to be judged by. What waits too long is closed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::address::Host;
use crate::config::Connector;
use crate::route::Hop;

use super::cleared::Cleared;

/// How long a connection waits for another message; peers close idle connections after minutes, and
/// their slots are not ours to hold.
const IDLE: Duration = Duration::from_secs(5);
/// How often is looked for those that wait too long.
const ROUND: Duration = Duration::from_secs(1);
/// Connections that wait, at most, for one destination.
const PER_DESTINATION: usize = 32;
/// Connections that wait, at most.
const IN_ALL: usize = 512;

/// Whom a connection leads to, and for whose mail: connectors share no connection, for they differ in
/// trust and in the identity that we show.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    /// The address of a connector that the settings, and so this pool, outlive.
    connector: usize,
    host: Host,
    port: u16,
}

impl Destination {
    pub(super) fn new(connector: &Arc<Connector>, hop: &Hop) -> Self {
        Self { connector: Arc::as_ptr(connector) as usize, host: hop.host.clone(), port: hop.port }
    }
}

/// The connections.
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
    is_swept: bool,
    is_closed: bool,
}

struct Waiting {
    connection: Cleared,
    since: Instant,
}

impl Pool {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.0)
    }

    /// Whether a connection waits for this destination.
    pub(super) fn has(&self, destination: &Destination) -> bool {
        self.shelf().waiting.contains_key(destination)
    }

    /// The connection that was used last.
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

    /// Keeps a connection for the next message, or closes it where there is no room.
    pub(super) fn put(&self, destination: Destination, mut connection: Cleared) {
        connection.rest();
        let mut held = self.shelf();
        if held.is_closed || held.count >= IN_ALL {
            return connection.quit();
        }
        let waiting = Waiting { connection, since: Instant::now() };
        match held.waiting.entry(destination) {
            Entry::Occupied(list) if list.get().len() >= PER_DESTINATION => return waiting.connection.quit(),
            Entry::Occupied(mut list) => list.get_mut().push(waiting),
            Entry::Vacant(place) => drop(place.insert(vec![waiting])),
        }
        held.count += 1;
        if !held.is_swept {
            held.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    /// Closes what waits, and keeps nothing from now on.
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
    // Nothing panics while it is held, and a list of connections has no half-done state.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes what waits too long; ends as soon as nothing waits.
async fn sweep(shelf: Weak<Mutex<Shelf>>) {
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(shelf) = shelf.upgrade() else { return };
        let mut shelf = lock(&shelf);
        let mut closed = 0;
        shelf.waiting.retain(|_, list| {
            // The oldest come first.
            let fresh = list.iter().position(|waiting| waiting.since.elapsed() < IDLE).unwrap_or(list.len());
            closed += fresh;
            for waiting in list.drain(..fresh) {
                waiting.connection.quit();
            }
            !list.is_empty()
        });
        shelf.count -= closed;
        if shelf.count == 0 {
            shelf.is_swept = false;
            return;
        }
    }
}
