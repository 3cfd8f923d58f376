//! Idle cleared connections, kept for the next message to the same destination.
//!
//! The pool does not decide whether a connection is good enough for a message: each is judged by
//! its own handshake. Connections that are idle for too long are closed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{Connector, SmartHost};
use crate::net::route::Hop;
use crate::storage::spool::ClusterShare;

use super::cleared::Cleared;

/// The time for which a connection may be idle. Peers close idle connections after minutes, and an
/// idle connection uses one of the peer's slots.
const MAX_IDLE_TIME: Duration = Duration::from_secs(5);
/// The interval between two searches for connections that are idle for too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of idle connections to one destination.
const MAX_PER_DESTINATION: usize = 32;
/// The maximum number of idle connections to all destinations.
const MAX_IDLE: usize = 512;
/// The number of destinations with closing sessions above which the finished ones are removed.
const MAX_CLOSING: usize = 1024;

/// The key of an idle connection. Connectors share no connections, since they differ in trust and
/// in the identity that we show.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    /// The generation of the configuration under which the connection was judged.
    generation: u64,
    /// The name of the connector.
    connector: String,
    /// The user that we log in as, if we do.
    user: Option<String>,
    server: SmartHost,
    /// The connection limit of the connector.
    connections: u32,
}

impl PoolKey {
    pub(super) fn new(generation: u64, connector: &Connector, hop: &Hop) -> Self {
        Self {
            generation,
            connector: connector.name.clone(),
            user: connector
                .outbound
                .auth
                .as_ref()
                .map(|auth| auth.user.clone()),
            server: SmartHost {
                host: hop.host.clone(),
                port: hop.port,
                protocol: hop.protocol.clone(),
            },
            connections: connector.outbound.connections,
        }
    }

    /// The host, port and protocol.
    pub(super) fn server(&self) -> &SmartHost {
        &self.server
    }
}

/// The pool of idle connections.
#[derive(Default)]
pub(super) struct Pool(Arc<Mutex<PoolState>>);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("idle", &self.state().count)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct PoolState {
    idle: HashMap<PoolKey, Vec<IdleConnection>>,
    count: usize,
    /// The sessions that are closing; the peer counts them until they are closed.
    closing: HashMap<PoolKey, Vec<JoinHandle<()>>>,
    is_sweeping: bool,
    /// The oldest generation of the configuration whose connections are kept.
    oldest: u64,
    /// This node's part of the connection limits.
    cluster: ClusterShare,
    is_closed: bool,
}

struct IdleConnection {
    connection: Cleared,
    since: Instant,
}

impl PoolState {
    /// Returns the most idle connections to a destination. A relay that is alone keeps what its
    /// deliveries leave; several nodes keep no more than each one's part of the limit.
    fn most(&self, key: &PoolKey) -> usize {
        if self.cluster.is_all() {
            return MAX_PER_DESTINATION;
        }
        let part = usize::try_from(self.cluster.of(key.connections)).unwrap_or(usize::MAX);
        part.min(MAX_PER_DESTINATION)
    }

    fn quit(&mut self, key: PoolKey, connection: Cleared) {
        if self.closing.len() >= MAX_CLOSING {
            self.closing
                .retain(|_, list| list.iter().any(|session| !session.is_finished()));
        }
        self.closing.entry(key).or_default().push(connection.quit());
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        lock(&self.0)
    }

    /// Moves a hop with an idle connection to the front, among the hops of the best preference.
    pub(super) fn prefer(&self, generation: u64, connector: &Connector, hops: &mut [Hop]) {
        if hops.len() < 2 {
            return;
        }
        let equals = hops
            .iter()
            .take_while(|hop| hop.has_same_preference(&hops[0]));
        let mut keys = equals.map(|hop| PoolKey::new(generation, connector, hop));
        if let Some(at) = keys.position(|key| self.has(&key)) {
            hops.swap(0, at);
        }
    }

    /// Returns whether there is an idle connection to this destination.
    fn has(&self, key: &PoolKey) -> bool {
        self.state().idle.contains_key(key)
    }

    /// Takes the idle connection that was used last.
    pub(super) fn take(&self, key: &PoolKey) -> Option<Cleared> {
        let mut state = self.state();
        let list = state.idle.get_mut(key)?;
        let newest = list.pop();
        if list.is_empty() {
            state.idle.remove(key);
        }
        state.count -= usize::from(newest.is_some());
        newest.map(|idle| idle.connection)
    }

    /// Keeps a connection for the next message, or closes it if the pool is full.
    pub(super) fn put(&self, key: PoolKey, mut connection: Cleared) {
        connection.prepare_idle();
        let mut state = self.state();
        let most = state.most(&key);
        let is_full = state.idle.get(&key).is_some_and(|list| list.len() >= most);
        if state.is_closed || key.generation < state.oldest || state.count >= MAX_IDLE || is_full {
            return state.quit(key, connection);
        }
        state.idle.entry(key).or_default().push(IdleConnection {
            connection,
            since: Instant::now(),
        });
        state.count += 1;
        if !state.is_sweeping {
            state.is_sweeping = true;
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    /// Closes a session with QUIT.
    pub(super) fn quit(&self, key: PoolKey, connection: Cleared) {
        self.state().quit(key, connection);
    }

    /// Waits until one closing session with this destination is closed, if there is one, so that a
    /// new session does not exceed the destination's concurrency.
    pub(super) async fn wait_for_closing(&self, key: &PoolKey) {
        let closing = {
            let mut state = self.state();
            let Some(list) = state.closing.get_mut(key) else {
                return;
            };
            list.retain(|session| !session.is_finished());
            let closing = list.pop();
            if list.is_empty() {
                state.closing.remove(key);
            }
            closing
        };
        if let Some(session) = closing {
            let _ = session.await;
        }
    }

    /// Closes the idle connections of older generations, and keeps none of them from now on.
    pub(super) fn close_older(&self, generation: u64) {
        let mut state = self.state();
        state.oldest = state.oldest.max(generation);
        let oldest = state.oldest;
        let old: Vec<_> = state
            .idle
            .extract_if(|key, _| key.generation < oldest)
            .collect();
        for (key, list) in old {
            state.count -= list.len();
            for idle in list {
                state.quit(key.clone(), idle.connection);
            }
        }
    }

    /// Changes this node's part of the connection limits, and closes the idle connections that are more,
    /// the oldest first.
    pub(super) fn set_cluster_share(&self, share: ClusterShare) {
        let mut state = self.state();
        state.cluster = share;
        let mut surplus = Vec::new();
        let state = &mut *state;
        let keys: Vec<PoolKey> = state.idle.keys().cloned().collect();
        for key in keys {
            let most = state.most(&key);
            if let Some(list) = state.idle.get_mut(&key) {
                let more = list.len().saturating_sub(most);
                surplus.extend(list.drain(..more).map(|idle| (key.clone(), idle)));
            }
        }
        state.count -= surplus.len();
        for (key, idle) in surplus {
            state.quit(key, idle.connection);
        }
    }

    /// Closes all idle connections, and keeps none from now on.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.count = 0;
        for idle in state.idle.drain().flat_map(|(_, list)| list) {
            idle.connection.quit();
        }
    }
}

fn lock(state: &Mutex<PoolState>) -> MutexGuard<'_, PoolState> {
    // No code panics while it holds the lock, and no change leaves the state half-done.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes the connections that are idle for too long; ends when none is idle.
async fn sweep(state: Weak<Mutex<PoolState>>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(state) = state.upgrade() else { return };
        let mut state = lock(&state);
        let mut old = Vec::new();
        state.idle.retain(|key, list| {
            // The list is in the order of time, the oldest first.
            let fresh = list
                .iter()
                .position(|idle| idle.since.elapsed() < MAX_IDLE_TIME)
                .unwrap_or(list.len());
            old.extend(
                list.drain(..fresh)
                    .map(|idle| (key.clone(), idle.connection)),
            );
            !list.is_empty()
        });
        state.count -= old.len();
        for (key, connection) in old {
            state.quit(key, connection);
        }
        if state.count == 0 {
            state.is_sweeping = false;
            return;
        }
    }
}
