//! The part of `[limits]` that concerns clients: seats, rates by client and network, and memory.

use super::fault_list::FaultList;
use super::reader::{Field, TableReader, TomlValue};
use super::values::count;

/// The highest value of each count.
pub(super) const COUNT_MAX: u32 = 1_000_000;
/// The factor from the limit of a client to that of its network.
const NETWORK_FACTOR: u32 = 5;
/// The divisor for the share of seats that is reserved for clients in `[relay] networks`.
const RESERVED_PART: u32 = 10;

/// The default numbers of seats, for all clients and for each.
const CONNECTIONS: u32 = 4000;
const CONNECTIONS_PER_CLIENT: u32 = 100;

/// The part of `[limits]` that concerns clients. A client is an address (IPv6: a /64); a network is
/// a /24 (IPv6: a /56, and a /48). Clients in `[relay] networks` have no rate limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// The most concurrent sessions.
    pub connections: usize,
    /// The most concurrent sessions of one client.
    pub connections_per_client: usize,
    /// The most concurrent sessions of one network.
    pub connections_per_network: usize,
    /// The part of `connections` that is reserved for clients in `[relay] networks`.
    pub connections_reserved: usize,
    /// The most new connections of one client in a minute.
    pub connections_per_minute: u32,
    /// The most messages of one client in a minute.
    pub messages_per_minute: u32,
    /// The most recipients of one client in a minute.
    pub recipients_per_minute: u32,
    /// The most TLS handshakes of one client in a minute.
    pub handshakes_per_minute: u32,
    /// The most unknown recipients of one client in a minute.
    pub unknown_recipients_per_minute: u32,
    /// The most recipients of one client in a minute that cannot be checked.
    pub unchecked_recipients_per_minute: u32,
}

/// The octets that the recipients of open transactions may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionMemory {
    /// All sessions together, not counting the share that each has of its own.
    pub all: u64,
    /// One session.
    pub per_session: u64,
}

/// The actions of a client that have a rate limit.
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
    /// Recipients that do not exist ([`crate::policy::recipients`]).
    UnknownRecipients,
    /// Recipients about whom there is no answer, so that `on_trouble` decides.
    UncheckedRecipients,
}

impl Rate {
    /// All actions.
    pub const ALL: [Self; 6] = [
        Self::Connections,
        Self::Messages,
        Self::Recipients,
        Self::Handshakes,
        Self::UnknownRecipients,
        Self::UncheckedRecipients,
    ];

    /// The key in `[limits]`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Connections => "connections_per_minute",
            Self::Messages => "messages_per_minute",
            Self::Recipients => "recipients_per_minute",
            Self::Handshakes => "handshakes_per_minute",
            Self::UnknownRecipients => "unknown_recipients_per_minute",
            Self::UncheckedRecipients => "unchecked_recipients_per_minute",
        }
    }
}

impl ClientLimits {
    /// The default limits for these numbers of seats, for all clients and for each.
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
            unknown_recipients_per_minute: 60,
            unchecked_recipients_per_minute: 60,
        }
    }

    /// The limit of one client in a minute.
    #[must_use]
    pub fn per_minute(&self, rate: Rate) -> u32 {
        match rate {
            Rate::Connections => self.connections_per_minute,
            Rate::Messages => self.messages_per_minute,
            Rate::Recipients => self.recipients_per_minute,
            Rate::Handshakes => self.handshakes_per_minute,
            Rate::UnknownRecipients => self.unknown_recipients_per_minute,
            Rate::UncheckedRecipients => self.unchecked_recipients_per_minute,
        }
    }

    /// The limit of one network in a minute.
    #[must_use]
    pub fn per_network_and_minute(&self, rate: Rate) -> u32 {
        self.per_minute(rate).saturating_mul(NETWORK_FACTOR)
    }
}

/// Reads the keys that concern clients.
pub(super) fn read(table: &mut TableReader<'_>, faults: &mut FaultList<'_>) -> ClientLimits {
    let mut number = |faults: &mut FaultList<'_>, key| {
        table.read(
            faults,
            key,
            |value: &TomlValue<'_>, faults: &mut FaultList<'_>| count(value, faults, COUNT_MAX),
        )
    };
    let all = number(faults, "connections");
    let per_client = number(faults, "connections_per_client");
    let (known_all, known_per_client) = (
        all.resolve(CONNECTIONS),
        per_client.resolve(CONNECTIONS_PER_CLIENT),
    );
    let default = ClientLimits::of(all.or(CONNECTIONS), per_client.or(CONNECTIONS_PER_CLIENT));
    let per_network = number(faults, "connections_per_network");
    let reserved = number(faults, "connections_reserved");
    let rates = Rate::ALL.map(|rate| number(faults, rate.key()).or(default.per_minute(rate)));
    let [
        connections_per_minute,
        messages_per_minute,
        recipients_per_minute,
        handshakes_per_minute,
        unknown_recipients_per_minute,
        unchecked_recipients_per_minute,
    ] = rates;
    if let (Some(reserved), Some(all)) = (reserved.located(), known_all)
        && reserved.value >= all
    {
        let message =
            format!("connections_reserved leaves no connection for others: all together are {all}");
        faults.add(
            &reserved.location,
            message,
            "Write less than connections; a tenth of it is the default.",
        );
    }
    if let (Some(network), Some(per_client)) = (per_network.located(), known_per_client)
        && network.value < per_client
    {
        let message = format!(
            "connections_per_network is less than connections_per_client, which is {per_client}"
        );
        faults.add(
            &network.location,
            message,
            "A network has many clients: write more here, or less there.",
        );
    }
    let or = |given: Field<u32>, default: usize| {
        given
            .located()
            .map_or(default, |given| given.value as usize)
    };
    ClientLimits {
        connections_per_network: or(per_network, default.connections_per_network),
        connections_reserved: or(reserved, default.connections_reserved),
        connections_per_minute,
        messages_per_minute,
        recipients_per_minute,
        handshakes_per_minute,
        unknown_recipients_per_minute,
        unchecked_recipients_per_minute,
        ..default
    }
}
