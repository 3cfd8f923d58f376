//! Mail coming in: listeners, and a task for each session that drives [`crate::smtp::server`].
//!
//! What may be said when is the machine's affair; here it meets sockets, clocks, the TLS judge, the
//! relay rules and the spool. A message is handed on only after it is durable; what becomes of it
//! then is the scheduler's.

mod clients;
mod listener;
mod pace;
mod patience;
mod policy;
mod proxied;
mod received;
mod session;
mod wire;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::envelope::QueueId;
use crate::monitor::Monitor;
use crate::running_config::RunningConfig;
use crate::smtp::server::Durable;
use crate::spool::{Entry, Receipt, Spool};

pub use clients::{Clients, Held, Limit, Occupancy};
pub use listener::serve;
pub use policy::{Standing, connector as connector_for, judge as judge_sender};
#[cfg(fuzzing)]
pub use proxied::fuzzed as proxy_header;

/// What all listeners share.
pub struct Inbound {
    running: RunningConfig,
    spool: Arc<dyn Spool>,
    accepted: mpsc::Sender<Entry>,
    clients: Clients,
    monitor: Monitor,
}

impl Inbound {
    /// Brings together what sessions need. Each accepted message is sent to `accepted` once it is
    /// durable and its 250 written. A full channel slows its session down; where the receiver is gone,
    /// the message stays in the spool and is taken up on the next start.
    #[must_use]
    pub fn new(running: RunningConfig, spool: Arc<dyn Spool>, accepted: mpsc::Sender<Entry>) -> Self {
        Self { running, spool, accepted, clients: Clients::default(), monitor: Monitor::default() }
    }

    /// Shares the table of clients with whoever shows it.
    #[must_use]
    pub fn with_clients(self, clients: Clients) -> Self {
        Self { clients, ..self }
    }

    /// Tells this monitor what sessions do.
    #[must_use]
    pub fn monitored(self, monitor: Monitor) -> Self {
        Self { monitor, ..self }
    }
}

impl Durable for Receipt {
    fn id(&self) -> QueueId {
        Self::id(self)
    }
}
