//! TLS reports: what was seen of sessions, gathered per day and domain, and told to the domains that ask
//! for it (RFC 8460).
//!
//! Whoever makes a session hands an [`Observation`] to a [`Reporter`], which never blocks. A [`Desk`]
//! counts them on disk and, when a UTC day is over, sends each domain its report: as mail through our own
//! queue, and to `https:` addresses. It judges no session ([`crate::tls`] does) and delivers no mail.
//!
//! Sessions that carry a report are not to be observed (RFC 8460 §3: "SHOULD NOT include this SMTP
//! session in the next report"); otherwise two relays would report their reports to each other for ever.
//! [`is_report`] knows them.

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

use crate::address::{Domain, Mailbox};
use crate::config::{self, Fault};
use crate::envelope::Envelope;
use crate::spool::{Entry, Spool};
use counter::{Batch, Counter};
use dkim::Signer;
use store::Store;

pub use network::{Answer, Internet, Network};
pub use observation::{Failure, Found, Observation, Policy, ResultType, Session};
pub use store::{Bounds, StoreError};

/// Observations that wait to be counted, at most; what comes faster is dropped, and said.
const SEEN_MAX: usize = 8192;
/// How the envelope id of a report begins.
const ENVELOPE_ID: &str = "gatepost-tlsrpt-";

/// Where observations go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reporter(Way);

#[derive(Debug, Clone)]
enum Way {
    Off,
    On { seen: mpsc::Sender<Observation>, dropped: Arc<AtomicU64> },
}

impl Reporter {
    /// A reporter that forgets everything.
    #[must_use]
    pub fn off() -> Self {
        Self(Way::Off)
    }

    /// Whether an observation is worth making.
    #[must_use]
    pub fn is_on(&self) -> bool {
        matches!(self.0, Way::On { .. })
    }

    /// Takes an observation. Never waits: where counting does not keep up it is dropped and counted as
    /// dropped, which the log then says.
    pub fn observe(&self, observation: Observation) {
        let Way::On { seen, dropped } = &self.0 else { return };
        if seen.try_send(observation).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a message is a report of ours, whose own sessions are not to be observed.
#[must_use]
pub fn is_report(envelope: &Envelope) -> bool {
    envelope.envid.as_deref().is_some_and(|id| id.starts_with(ENVELOPE_ID))
}

/// When reports go out.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How long after the end of a day its last sessions may still come in.
    pub settle: Duration,
    /// Reports are spread at random over this long after that, so that not all relays of the world write
    /// to a domain at midnight (RFC 8460 §4.1).
    pub spread: Duration,
    /// How long a destination is tried (RFC 8460 §5.5).
    pub patience: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { settle: Duration::from_mins(10), spread: Duration::from_hours(4), patience: Duration::from_hours(24) }
    }
}

/// Who reports.
#[derive(Debug)]
pub struct Submitter {
    /// Its name, in words.
    pub organization: String,
    /// Whom reports come from.
    pub contact: Mailbox,
    /// The contact's domain.
    pub domain: Domain,
    /// What reports by mail are signed with.
    pub signer: Option<Signer>,
}

impl Submitter {
    /// Loads what `[tlsrpt]` names. With it come warnings.
    ///
    /// # Errors
    /// What is wrong with the DKIM key, at its location in the configuration.
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

/// What reports go out by.
#[derive(Clone)]
pub struct Outbox {
    /// Who reports; can be replaced while the desk runs.
    pub submitter: Arc<ArcSwap<Submitter>>,
    /// Where reports by mail are made durable …
    pub spool: Arc<dyn Spool>,
    /// … and who delivers them then.
    pub accepted: mpsc::Sender<Entry>,
    /// DNS and HTTPS.
    pub network: Arc<dyn Network>,
}

/// Counts what is observed, and reports it.
#[derive(Debug)]
pub struct Desk {
    counter: Counter,
    store: Arc<Store>,
    schedule: Schedule,
}

impl Desk {
    /// Opens the counts in `folder` (`tlsrpt.db`), and the way to them. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: the file cannot be opened, or is not ours.
    pub fn open(folder: &Path, bounds: Bounds, schedule: Schedule) -> Result<(Reporter, Self), StoreError> {
        let store = Arc::new(Store::open(folder, bounds)?);
        let (way, seen) = mpsc::channel(SEEN_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let reporter = Reporter(Way::On { seen: way, dropped: Arc::clone(&dropped) });
        let counter = Counter { seen, dropped, store: Arc::clone(&store), batch: Batch::default() };
        Ok((reporter, Self { counter, store, schedule }))
    }

    /// Counts everything that has been observed so far.
    pub async fn count(&mut self) {
        self.counter.count_all().await;
    }

    /// Sends what is due at `now`. Tells when to come again.
    pub async fn report(&self, outbox: &Outbox, now: Timestamp) -> Timestamp {
        deliver::turn(&self.store, self.schedule, outbox, now).await
    }

    /// Reports until `stop`, and counts until `end`, for deliveries that are still under way after `stop`
    /// are observed too.
    pub async fn run(self, outbox: Outbox, stop: CancellationToken, end: CancellationToken) {
        let Self { counter, store, schedule } = self;
        let reports = stop.run_until_cancelled_owned(deliver::run(store, schedule, outbox));
        tokio::join!(counter.run(end), reports);
    }
}
