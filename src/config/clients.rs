//! The part of `[limits]` that bounds what clients do: seats, rates by client and network, and memory.

use super::place::Notes;
use super::reader::{Given, Table, Value};
use super::values::count;
use super::{Config, Listener};

/// More than any of these counts can mean in earnest.
pub(super) const COUNT_MAX: u32 = 1_000_000;
/// A network may do so many times what one of its clients may.
const NETWORK_FACTOR: u32 = 5;
/// The part of all seats that is kept for clients of `[relay] networks`.
const RESERVED_PART: u32 = 10;

/// Seats of all, and of one client, where nothing is written.
const CONNECTIONS: u32 = 4000;
const CONNECTIONS_PER_CLIENT: u32 = 100;

/// The part of `[limits]` that bounds what clients do. A client is an address (IPv6: a /64); a network is a /24 (IPv6: a
/// /56, and a /48). Clients of `[relay] networks` have no rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Sessions at the same time.
    pub connections: usize,
    /// Sessions of one client at the same time.
    pub connections_per_client: usize,
    /// Sessions of one network at the same time.
    pub connections_per_network: usize,
    /// Those of `connections` that only clients of `[relay] networks` have.
    pub connections_reserved: usize,
    /// New connections of one client in a minute.
    pub connections_per_minute: u32,
    /// Messages of one client in a minute.
    pub messages_per_minute: u32,
    /// Recipients of one client in a minute.
    pub recipients_per_minute: u32,
    /// TLS handshakes of one client in a minute.
    pub handshakes_per_minute: u32,
}

/// Octets that the recipients in open transactions may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionMemory {
    /// In all sessions together, above what each has for itself.
    pub all: u64,
    /// In one session.
    pub per_session: u64,
}

/// The actions of clients that are limited by the minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rate {
    /// New connections.
    Connections,
    /// Messages: MAIL commands.
    Messages,
    /// Recipients: RCPT commands.
    Recipients,
    /// TLS handshakes.
    Handshakes,
}

impl Rate {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Connections, Self::Messages, Self::Recipients, Self::Handshakes];

    /// Its key in `[limits]`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Connections => "connections_per_minute",
            Self::Messages => "messages_per_minute",
            Self::Recipients => "recipients_per_minute",
            Self::Handshakes => "handshakes_per_minute",
        }
    }
}

impl ClientLimits {
    /// The limits where nothing is written beside the number of seats, of all and of one client.
    #[must_use]
    pub fn of(connections: u32, connections_per_client: u32) -> Self {
        Self {
            connections: connections as usize,
            connections_per_client: connections_per_client as usize,
            connections_per_network: connections_per_client.saturating_mul(NETWORK_FACTOR) as usize,
            connections_reserved: (connections / RESERVED_PART) as usize,
            connections_per_minute: 120,
            messages_per_minute: 600,
            recipients_per_minute: 6000,
            handshakes_per_minute: 240,
        }
    }

    /// Returns the limit of one client in a minute.
    #[must_use]
    pub fn per_minute(&self, rate: Rate) -> u32 {
        match rate {
            Rate::Connections => self.connections_per_minute,
            Rate::Messages => self.messages_per_minute,
            Rate::Recipients => self.recipients_per_minute,
            Rate::Handshakes => self.handshakes_per_minute,
        }
    }

    /// Returns the limit of one network in a minute.
    #[must_use]
    pub fn per_network_and_minute(&self, rate: Rate) -> u32 {
        self.per_minute(rate).saturating_mul(NETWORK_FACTOR)
    }
}

impl Config {
    /// The sessions of strangers at the same time that a listener may have: those that it names, else three quarters of
    /// what is not reserved where there are other listeners, so that none of them can take everything.
    #[must_use]
    pub fn seats(&self, listener: &Listener) -> usize {
        let limits = &self.limits.clients;
        let public = limits.connections.saturating_sub(limits.connections_reserved);
        let default = if self.listeners.len() > 1 { (public * 3).div_ceil(4) } else { public };
        listener.connections.unwrap_or(default).min(public)
    }
}

/// Takes the keys that bound clients.
pub(super) fn read(table: &mut Table<'_>, notes: &mut Notes<'_>) -> ClientLimits {
    let mut number = |notes: &mut Notes<'_>, key| {
        table.read(notes, key, |value: &Value<'_>, notes: &mut Notes<'_>| count(value, notes, COUNT_MAX))
    };
    let all = number(notes, "connections").or(CONNECTIONS);
    let per_client = number(notes, "connections_per_client").or(CONNECTIONS_PER_CLIENT);
    let default = ClientLimits::of(all, per_client);
    let per_network = number(notes, "connections_per_network");
    let reserved = number(notes, "connections_reserved");
    let rates = Rate::ALL.map(|rate| number(notes, rate.key()).or(default.per_minute(rate)));
    let [connections_per_minute, messages_per_minute, recipients_per_minute, handshakes_per_minute] = rates;
    if let Some(reserved) = reserved.located().filter(|reserved| reserved.value >= all) {
        let message = format!("connections_reserved leaves no connection for others: all together are {all}");
        notes.fault(&reserved.place, message, "Write less than connections; a tenth of it is the default.");
    }
    if let Some(network) = per_network.located().filter(|network| network.value < per_client) {
        let message = format!("connections_per_network is less than connections_per_client, which is {per_client}");
        notes.fault(&network.place, message, "A network has many clients: write more here, or less there.");
    }
    let or = |given: Given<u32>, default: usize| given.located().map_or(default, |given| given.value as usize);
    ClientLimits {
        connections_per_network: or(per_network, default.connections_per_network),
        connections_reserved: or(reserved, default.connections_reserved),
        connections_per_minute,
        messages_per_minute,
        recipients_per_minute,
        handshakes_per_minute,
        ..default
    }
}
