//! TLS reports: results of outbound sessions, counted by day and domain, and reported to the
//! domains that request it (RFC 8460).
//!
//! Outbound sessions are reported as [`Observation`]s to a [`Reporter`], which never blocks. A
//! [`ReportService`] counts them on disk. After the end of a UTC day it sends each domain its
//! report, as mail through our own queue or to an `https:` address. It does not judge sessions
//! ([`crate::policy::tls`] does) and does not deliver mail.
//!
//! Sessions that carry a report are not observed (RFC 8460 §3: "SHOULD NOT include this SMTP
//! session in the next report"); otherwise two relays would report their reports to each other for
//! ever. [`is_report`] recognises such messages.

mod counter;
mod deliver;
pub mod dkim;
mod mail;
mod network;
mod observation;
pub mod record;
pub mod report;
pub mod result;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Fault};
use crate::smtp::address::{Domain, Mailbox};
use crate::smtp::envelope::Envelope;
use crate::storage::spool::{Entry, Spool};
use counter::{CountBatch, Counter};
use dkim::Signer;
use store::CountStore;

pub use network::{Internet, Network, NetworkFuture};
pub use observation::{
    AppliedPolicy, Observation, ReportedPolicy, ResultType, SessionFailure, SessionResult,
};
pub use store::{Bounds, CountStoreError};

/// The most observations that wait to be counted. Further ones are dropped, which is logged.
const WAITING_MAX: usize = 8192;
/// The prefix of the envelope id of a report.
const ENVELOPE_ID: &str = "gatepost-tlsrpt-";

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

/// Returns whether a message is a report of ours, whose own sessions are not observed.
#[must_use]
pub fn is_report(envelope: &Envelope) -> bool {
    envelope
        .envid
        .as_deref()
        .is_some_and(|id| id.starts_with(ENVELOPE_ID))
}

/// The times at which reports are sent.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The time after the end of a day during which its last sessions may still be counted.
    pub delay: Duration,
    /// The period over which reports are then spread at random, so that not all relays of the world
    /// report to a domain at midnight (RFC 8460 §4.1).
    pub spread: Duration,
    /// The time for which a destination is tried (RFC 8460 §5.5).
    pub give_up_after: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            delay: Duration::from_mins(10),
            spread: Duration::from_hours(4),
            give_up_after: Duration::from_hours(24),
        }
    }
}

/// The identity of the reporting relay.
#[derive(Debug)]
pub struct Submitter {
    /// The name of the organization.
    pub organization: String,
    /// The sender and contact address of reports.
    pub contact: Mailbox,
    /// The domain of the contact address.
    pub domain: Domain,
    /// The DKIM key that signs reports by mail, if there is one.
    pub signer: Option<Signer>,
}

impl Submitter {
    /// Loads the identity that `[tlsrpt]` configures. Also returns warnings.
    ///
    /// # Errors
    /// The fault of the DKIM key, with its location in the configuration.
    pub fn load(config: &config::TlsrptConfig) -> Result<(Self, Vec<Fault>), Fault> {
        let (signer, warning) = match &config.dkim {
            Some(key) => Signer::load(key).map(|(signer, warning)| (Some(signer), warning))?,
            None => (None, None),
        };
        let submitter = Self {
            organization: config.organization.clone(),
            contact: config.contact.clone(),
            domain: config.submitter.clone(),
            signer,
        };
        Ok((submitter, warning.into_iter().collect()))
    }
}

/// The means by which reports are sent.
#[derive(Clone)]
pub struct ReportSender {
    /// The identity of the relay; can be replaced while the service runs.
    pub submitter: Arc<ArcSwap<Submitter>>,
    /// The spool that stores reports by mail.
    pub spool: Arc<dyn Spool>,
    /// The channel to the scheduler, which delivers them.
    pub accepted: mpsc::Sender<Entry>,
    /// DNS and HTTPS.
    pub network: Arc<dyn Network>,
}

/// The service that counts observations and sends reports.
#[derive(Debug)]
pub struct ReportService {
    counter: Counter,
    store: Arc<CountStore>,
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
        let (channel, observations) = mpsc::channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let reporter = Reporter(ReporterState::On {
            observations: channel,
            dropped: Arc::clone(&dropped),
        });
        let counter = Counter {
            observations,
            dropped,
            store: Arc::clone(&store),
            batch: CountBatch::default(),
        };
        Ok((
            reporter,
            Self {
                counter,
                store,
                schedule,
            },
        ))
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
