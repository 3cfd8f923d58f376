//! Tickets: they resume sessions with servers (RFC 8446 §2.2, §4.6.1).
//!
//! A server that resumes a session proves to hold its secret and shows no certificate; the one that was shown at the
//! start still stands for it, and is judged again. So a ticket serves only where nobody asks who the peer
//! is ([`Acquaintance::Renewed`](crate::tls::Acquaintance)), and none serves longer than an hour after the certificate was shown. Of
//! TLS 1.3 only: a resumed session of an older version has no key exchange of its own. A server whose key could not
//! be checked is never resumed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// For so long the certificate that a server once showed stands for its sessions.
const LIFETIME: Duration = Duration::from_hours(1);
/// Servers remembered. One that falls out shows its certificate again.
const SERVERS_MAX: u64 = 256;
/// Tickets kept for each, at most; servers give one or two with every session.
const TICKETS_MAX: usize = 16;

/// What is remembered of servers.
#[derive(Clone)]
pub(super) struct Tickets {
    kept: Cache<ServerName<'static>, Arc<Mutex<VecDeque<Ticket>>>>,
    /// The key exchange that each chose; once an hour it is asked again what it thinks of our best.
    groups: Cache<ServerName<'static>, NamedGroup>,
}

#[derive(Debug)]
struct Ticket {
    value: Tls13ClientSessionValue,
    /// When the certificate was shown that stands for it.
    shown: Instant,
}

impl Tickets {
    pub(super) fn new() -> Self {
        Self {
            kept: Cache::builder().max_capacity(SERVERS_MAX).time_to_idle(LIFETIME).build(),
            groups: Cache::builder().max_capacity(SERVERS_MAX).time_to_live(LIFETIME).build(),
        }
    }

    /// What one handshake takes a ticket from, and its session leaves new ones in.
    pub(super) fn for_one_session(&self) -> Arc<OneSession> {
        Arc::new(OneSession { tickets: self.clone(), state: Mutex::default() })
    }

    /// Forgets a server: what it gave us may be why a handshake broke.
    pub(super) fn forget(&self, server: &ServerName<'static>) {
        self.kept.invalidate(server);
        self.groups.invalidate(server);
    }

    fn take(&self, server: &ServerName<'static>) -> Option<Ticket> {
        let kept = self.kept.get(server)?;
        let ticket = kept.lock().unwrap_or_else(PoisonError::into_inner).pop_back();
        ticket.filter(|ticket| ticket.shown.elapsed() < LIFETIME)
    }

    fn keep(&self, server: ServerName<'static>, ticket: Ticket) {
        let kept = self.kept.get_with(server, Arc::default);
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == TICKETS_MAX {
            kept.pop_front();
        }
        kept.push_back(ticket);
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("servers", &self.kept.entry_count()).finish_non_exhaustive()
    }
}

/// The tickets, as one handshake sees them: those that its session is given are as old as the one that it
/// began with. They are kept once the session is admitted, for a peer that proved nothing is not to be resumed.
#[derive(Debug)]
pub(super) struct OneSession {
    tickets: Tickets,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the certificate was shown that stands for the session.
    shown: Option<Instant>,
    admitted: bool,
    /// Tickets that came before the session was admitted.
    waiting: Vec<(ServerName<'static>, Ticket)>,
}

impl OneSession {
    /// Keeps the tickets of this session: its peer proved to hold the key of its certificate.
    pub(super) fn admit(&self) {
        let mut state = self.state();
        state.admitted = true;
        for (server, ticket) in state.waiting.drain(..) {
            self.tickets.keep(server, ticket);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for OneSession {
    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let ticket = self.tickets.take(server)?;
        self.state().shown = Some(ticket.shown);
        Some(ticket.value)
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut state = self.state();
        let shown = *state.shown.get_or_insert_with(Instant::now);
        let ticket = Ticket { value, shown };
        if state.admitted {
            self.tickets.keep(server, ticket);
        } else if state.waiting.len() < TICKETS_MAX {
            state.waiting.push((server, ticket));
        }
    }

    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        // What is known is not said again: it would never grow old.
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
