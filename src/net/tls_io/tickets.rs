//! Session tickets: they resume sessions with servers (RFC 8446 §2.2, §4.6.1).
//!
//! A server that resumes a session proves only that it knows the session's secret, and sends no
//! certificate. The certificate of the first handshake still stands for it, and is judged again.
//! Tickets are therefore used only if no demand concerns the peer's identity
//! ([`Handshake::Resumed`](crate::policy::tls::Handshake)), and for at most an hour after that
//! first handshake. Only TLS 1.3 sessions are resumed, because a resumed TLS 1.2 session has no key
//! exchange of its own. A session with a server whose key cannot be checked is never resumed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// The time for which the certificate of a full handshake stands for later sessions.
const LIFETIME: Duration = Duration::from_hours(1);
/// The most servers. One that is evicted needs a full handshake.
const SERVERS_MAX: u64 = 256;
/// The most tickets of a server. Servers send one or two in every session.
const TICKETS_MAX: usize = 16;

/// The tickets of all servers.
#[derive(Clone)]
pub(super) struct Tickets {
    by_server: Cache<ServerName<'static>, Arc<Mutex<VecDeque<StoredTicket>>>>,
    /// The key exchange group that each server chose. An entry ends after an hour, so that our
    /// preferred group is tried again.
    groups: Cache<ServerName<'static>, NamedGroup>,
}

#[derive(Debug)]
struct StoredTicket {
    value: Tls13ClientSessionValue,
    /// The time at which the server presented its certificate.
    shown: Instant,
}

impl Tickets {
    pub(super) fn new() -> Self {
        Self {
            by_server: Cache::builder()
                .max_capacity(SERVERS_MAX)
                .time_to_idle(LIFETIME)
                .build(),
            groups: Cache::builder()
                .max_capacity(SERVERS_MAX)
                .time_to_live(LIFETIME)
                .build(),
        }
    }

    /// Returns the session store for one handshake.
    pub(super) fn for_one_session(&self) -> Arc<SessionTickets> {
        Arc::new(SessionTickets {
            tickets: self.clone(),
            state: Mutex::default(),
        })
    }

    /// Removes a server, because its ticket or group may have caused the handshake to fail.
    pub(super) fn forget(&self, server: &ServerName<'static>) {
        self.by_server.invalidate(server);
        self.groups.invalidate(server);
    }

    fn take(&self, server: &ServerName<'static>) -> Option<StoredTicket> {
        let tickets = self.by_server.get(server)?;
        let ticket = tickets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_back();
        ticket.filter(|ticket| ticket.shown.elapsed() < LIFETIME)
    }

    fn store(&self, server: ServerName<'static>, ticket: StoredTicket) {
        let tickets = self.by_server.get_with(server, Arc::default);
        let mut tickets = tickets.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() == TICKETS_MAX {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets")
            .field("servers", &self.by_server.entry_count())
            .finish_non_exhaustive()
    }
}

/// The session store of one handshake. New tickets count as old as the ticket that the session
/// began with. They are stored once the session is admitted, because a session with a peer that
/// proved nothing must not be resumed.
#[derive(Debug)]
pub(super) struct SessionTickets {
    tickets: Tickets,
    state: Mutex<SessionState>,
}

#[derive(Debug, Default)]
struct SessionState {
    /// The time at which the server presented the certificate that stands for the session.
    shown: Option<Instant>,
    admitted: bool,
    /// The tickets that came before the session was admitted.
    pending: Vec<(ServerName<'static>, StoredTicket)>,
}

impl SessionTickets {
    /// Admits the session, whose peer proved that it holds its key, and stores the tickets.
    pub(super) fn admit(&self) {
        let mut state = self.state();
        state.admitted = true;
        for (server, ticket) in state.pending.drain(..) {
            self.tickets.store(server, ticket);
        }
    }

    fn state(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for SessionTickets {
    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let ticket = self.tickets.take(server)?;
        self.state().shown = Some(ticket.shown);
        Some(ticket.value)
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut state = self.state();
        let shown = *state.shown.get_or_insert_with(Instant::now);
        let ticket = StoredTicket { value, shown };
        if state.admitted {
            self.tickets.store(server, ticket);
        } else if state.pending.len() < TICKETS_MAX {
            state.pending.push((server, ticket));
        }
    }

    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        // An existing entry is not renewed, or it would never expire.
        self.tickets.groups.entry(server).or_insert(group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.tickets.groups.get(&server.to_owned())
    }

    fn set_tls12_session(&self, _server: ServerName<'static>, _value: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server: &ServerName<'static>) {}
}
