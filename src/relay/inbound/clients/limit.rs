//! The limits on clients.

use crate::config::Rate;

/// A limit on clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// Sessions of all clients, or of all strangers on one listener.
    All,
    /// Sessions of one client.
    PerClient,
    /// Sessions of one network.
    PerNetwork,
    /// Events of one rate in a minute.
    PerMinute(Rate),
    /// Memory of the recipients in all transactions.
    Memory,
    /// Memory of the recipients in one transaction.
    MemoryPerSession,
}

impl Limit {
    /// Returns the limit's key in `[limits]`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::All => "connections",
            Self::PerClient => "connections_per_client",
            Self::PerNetwork => "connections_per_network",
            Self::PerMinute(rate) => rate.key(),
            Self::Memory => "transaction_memory",
            Self::MemoryPerSession => "transaction_memory_per_session",
        }
    }
}
