//! The receiving side of the relay: listeners, and one task for each SMTP session.
//!
//! The state machine in [`crate::smtp::server`] decides which commands are allowed and yields
//! replies, without I/O and without a clock. This module connects it to sockets, timeouts, the TLS
//! judge, the relay rules and the spool. An accepted message goes to the scheduler after the spool
//! has stored it durably.

mod buffered;
mod clients;
mod listener;
mod min_rate;
mod policy;
mod proxied;
mod received;
mod session;
mod timeouts;
mod user_notice;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::relay::recipients::RecipientCheck;
use crate::relay::running_config::RunningConfig;
use crate::smtp::envelope::QueueId;
use crate::smtp::server::Durable;
use crate::storage::evidence::Evidence;
use crate::storage::spool::{Claimed, Entry, Receipt, Spool};
use crate::telemetry::Monitor;

pub use clients::{Clients, HeldNetwork, Limit, Occupancy};
pub use listener::serve;
pub use policy::{SenderClearance, connector as connector_for, judge as judge_sender};
#[cfg(fuzzing)]
pub use proxied::fuzzed as proxy_header;

/// The state that all listeners share.
pub struct Inbound {
    running: RunningConfig,
    spool: Arc<dyn Spool>,
    accepted: mpsc::Sender<Claimed<Entry>>,
    clients: Clients,
    monitor: Monitor,
    evidence: Evidence,
    recipients: RecipientCheck,
}

impl Inbound {
    /// Creates the shared state. Each accepted message is sent to `accepted` after it is stored
    /// durably and its 250 is ready to be sent. A full channel slows the session down. If the
    /// receiver is closed, the message stays in the spool until the next start.
    #[must_use]
    pub fn new(
        running: RunningConfig,
        spool: Arc<dyn Spool>,
        accepted: mpsc::Sender<Claimed<Entry>>,
    ) -> Self {
        Self {
            running,
            spool,
            accepted,
            clients: Clients::default(),
            monitor: Monitor::default(),
            evidence: Evidence::off(),
            recipients: RecipientCheck::new(None, Monitor::default()),
        }
    }

    /// Accepts mail only while this evidence has space for its records.
    #[must_use]
    pub fn with_evidence(self, evidence: Evidence) -> Self {
        Self { evidence, ..self }
    }

    /// Asks about recipients through this check.
    #[must_use]
    pub fn with_recipients(self, recipients: RecipientCheck) -> Self {
        Self { recipients, ..self }
    }

    /// Uses this table of clients, which the admin socket and the metrics share.
    #[must_use]
    pub fn with_clients(self, clients: Clients) -> Self {
        Self { clients, ..self }
    }

    /// Reports the events of sessions to this monitor.
    #[must_use]
    pub fn with_monitor(self, monitor: Monitor) -> Self {
        Self { monitor, ..self }
    }
}

impl Durable for Receipt {
    fn id(&self) -> QueueId {
        Self::id(self)
    }
}
