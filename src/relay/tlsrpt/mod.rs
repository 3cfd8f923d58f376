//! TLS reports: results of outbound sessions, counted by day and domain, and reported to the
//! domains that request it (RFC 8460).
//!
//! Outbound sessions are reported as [`Observation`]s to a [`Reporter`], which never blocks. A
//! [`ReportService`] counts them, on disk or in the database that several nodes share. After the end of a UTC day it sends each domain its
//! report, as mail through our own queue or to an `https:` address. It does not judge sessions
//! ([`crate::policy::tls`] does) and does not deliver mail.
//!
//! Sessions that carry a report are not observed (RFC 8460 §3: "SHOULD NOT include this SMTP
//! session in the next report"); otherwise two relays would report their reports to each other for
//! ever. [`is_report`] recognises such messages.

mod count;
mod count_access;
mod counter;
mod deliver;
pub mod dkim;
mod mail;
mod network;
mod observation;
pub mod record;
pub mod report;
pub mod result;
mod sender;
mod shared;
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::storage::postgresql::Database;
use count::CountBatch;
use count_access::CountAccess;
use counter::Counter;
pub use network::{Internet, Network, NetworkError, NetworkFuture};
pub use observation::{
    AppliedPolicy, Observation, ReportedPolicy, ResultType, SessionFailure, SessionResult,
};
pub use sender::{ReportSender, Schedule, Submitter, is_report};
use shared::SharedCounts;
use store::CountStore;
pub use store::{Bounds, CountStoreError};

/// The most observations that wait to be counted. Further ones are dropped, which is logged.
const WAITING_MAX: usize = 8192;

/// The handle through which sessions are observed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reporter(ReporterState);

#[derive(Debug, Clone)]
enum ReporterState {
    Off,
    On {
        observations: mpsc::Sender<Observation>,
        dropped: Arc<AtomicU64>,
    },
}

impl Reporter {
    /// Returns a reporter that discards all observations.
    #[must_use]
    pub fn off() -> Self {
        Self(ReporterState::Off)
    }

    /// Returns whether observations are counted at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        matches!(self.0, ReporterState::On { .. })
    }

    /// Hands in an observation. Never waits: if counting cannot keep up, the observation is
    /// dropped, and the log says how many were.
    pub fn observe(&self, observation: Observation) {
        let ReporterState::On {
            observations,
            dropped,
        } = &self.0
        else {
            return;
        };
        if observations.try_send(observation).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The service that counts observations and sends reports.
#[derive(Debug)]
pub struct ReportService {
    counter: Counter,
    store: CountAccess,
    schedule: Schedule,
}

impl ReportService {
    /// Opens the counts in `folder` (`tlsrpt.db`) and returns a reporter for them. Blocks.
    ///
    /// # Errors
    /// [`CountStoreError`] if the file cannot be opened or is not ours.
    pub fn open(
        folder: &Path,
        bounds: Bounds,
        schedule: Schedule,
    ) -> Result<(Reporter, Self), CountStoreError> {
        let store = Arc::new(CountStore::open(folder, bounds)?);
        Ok(Self::over(CountAccess::Folder(store), schedule))
    }

    /// Uses the counts in the database that all nodes share, and returns a reporter for them.
    #[must_use]
    pub fn open_shared(database: Database, bounds: Bounds, schedule: Schedule) -> (Reporter, Self) {
        let shared = SharedCounts::new(database, bounds);
        Self::over(CountAccess::Shared(Arc::new(shared)), schedule)
    }

    fn over(store: CountAccess, schedule: Schedule) -> (Reporter, Self) {
        let (channel, observations) = mpsc::channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let reporter = Reporter(ReporterState::On {
            observations: channel,
            dropped: Arc::clone(&dropped),
        });
        let counter = Counter {
            observations,
            dropped,
            store: store.clone(),
            batch: CountBatch::default(),
            is_failing: false,
        };
        let service = Self {
            counter,
            store,
            schedule,
        };
        (reporter, service)
    }

    /// Counts all observations made so far.
    pub async fn count(&mut self) {
        self.counter.count_all().await;
    }

    /// Sends the reports that are due at `now`. Returns the time of the next call.
    pub async fn report(&self, sender: &ReportSender, now: Timestamp) -> Timestamp {
        deliver::send_due(&self.store, self.schedule, sender, now).await
    }

    /// Sends reports until `stop`, and counts until `end`: deliveries that still run after `stop`
    /// are observed too.
    pub async fn run(self, sender: ReportSender, stop: CancellationToken, end: CancellationToken) {
        let Self {
            counter,
            store,
            schedule,
        } = self;
        let reports = stop.run_until_cancelled_owned(deliver::run(store, schedule, sender));
        tokio::join!(counter.run(end), reports);
    }
}
