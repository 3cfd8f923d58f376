//! The downgrade memory: the best that the hosts of a domain have shown, on disk, and what a worse
//! sighting means.
//!
//! Opportunistic TLS takes what it gets, so whoever sits on the line can take it away (RFC 7435 §1.2);
//! a relay that remembers notices. What is done about it is the connector's `downgrade`: `allow`,
//! `warn` or `refuse`.
//!
//! - [`level`] puts sightings in order; `memory` keeps and compares
//!   them; `alarm` looks for what many domains suffer at once, counting related ones (`registrable`) as one.
//!   All of these are pure.
//! - `writer` writes behind, on a thread of its own; `disk` is the database. Reads never touch it.
//!
//! It judges no TLS and refuses nothing itself.

mod alarm;
mod disk;
pub mod level;
mod memory;
mod registrable;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::address::Host;
use crate::connector::MemoryFinding;
use alarm::{AlarmEvent, AlarmWatch, ObservedHost};
use disk::Disk;
use memory::DowngradeMemory;
use writer::Shared;

pub use level::{TlsLevel, issuer};

/// Pairs of domain and host that are remembered; beyond it those go that were not seen for the longest
/// time. Some 60 MB where each is used.
const ROWS_MAX: usize = 200_000;

/// Why the memory cannot be used, in a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HistoryError(String);

impl HistoryError {
    fn new(what: &str, file: &Path, error: &dyn std::error::Error) -> Self {
        let folder = file.parent().unwrap_or(Path::new(".")).display();
        Self(format!("cannot {what} {}: {error}; check owner, rights and free space of {folder}", file.display()))
    }
}

/// The best level that was reached, and from when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BestLevel {
    /// The level.
    pub level: TlsLevel,
    /// When it was first reached. After 90 days without it, counting begins again.
    pub first: Timestamp,
    /// When it was last reached.
    pub last: Timestamp,
}

/// What is remembered of one host of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostHistory {
    /// The recipient domain.
    pub domain: Host,
    /// The host that took its mail.
    pub host: Host,
    /// The best it has shown within 90 days.
    pub best: BestLevel,
    /// When it was last seen.
    pub seen: Timestamp,
    /// What it showed then.
    pub level: TlsLevel,
    /// The issuer of the last certificate it showed.
    pub issuer: Option<Arc<str>>,
}

/// What the memory holds against a host at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baseline {
    /// The best of the host itself; nothing where it is new or was not seen for 90 days.
    pub host: Option<BestLevel>,
    /// The best of all hosts of its domain.
    pub domain: Option<BestLevel>,
    /// When a host of its domain last took TLS of whatever kind, within 90 days.
    pub took_tls: Option<Timestamp>,
}

impl Baseline {
    /// What it comes to where all demands join. All hosts of a domain that took TLS must take it, a new one
    /// too: whoever forges an MX record brings a new name (RFC 7672 §1.3.2).
    #[must_use]
    pub fn finding(&self) -> MemoryFinding {
        self.took_tls.map_or(MemoryFinding::Nothing, |last| MemoryFinding::TookTls { last })
    }
}

/// What a sighting is against what was remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelChange {
    /// Nothing was remembered.
    First,
    /// As good as ever.
    Same,
    /// Better than ever.
    Better {
        /// What was best until now.
        was: BestLevel,
    },
    /// Worse than it was; or a new host without TLS, of a domain that takes TLS.
    Worse {
        /// What is remembered.
        was: BestLevel,
    },
}

/// An act of forgetting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetEntry {
    /// The domain.
    pub domain: Host,
    /// When.
    pub at: Timestamp,
    /// Why, as it was given.
    pub reason: String,
    /// By whom.
    pub who: String,
    /// How many of its hosts were remembered.
    pub hosts: usize,
}

/// A part of the memory, in the order of domains.
#[derive(Debug, Clone, Default)]
pub struct HistoryPage {
    /// Hosts; those of one domain stand together.
    pub remembered: Vec<HostHistory>,
    /// Where to go on; nothing at the end.
    pub next: Option<Host>,
    /// On the first page: what was forgotten, oldest first.
    pub forgotten: Vec<ForgetEntry>,
}

/// Many unrelated domains suffer the same at once: somebody is between us and the Internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What they suffer.
    pub kind: AlarmKind,
    /// Since when it is on.
    pub since: Timestamp,
    /// How many, within an hour; related ones count once.
    pub domains: usize,
    /// Of how many that could.
    pub of: usize,
    /// The first few.
    pub examples: Vec<Host>,
}

/// What many domains suffer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// They took TLS, and no longer do.
    TlsLost,
    /// Their certificates have this issuer, which none of them had before: its whole name, or the
    /// organization where a trusted authority vouches for it.
    NewIssuer(Arc<str>),
}

/// A downgrade that was let through, for the log.
#[derive(Debug, Clone, Copy)]
pub struct DowngradeEvent<'a> {
    /// The connector that lets it through.
    pub connector: &'a str,
    /// The recipient domain.
    pub domain: &'a Host,
    /// The host.
    pub host: &'a Host,
    /// What was remembered.
    pub was: BestLevel,
    /// What was got.
    pub got: TlsLevel,
}

/// The memory. Cheap to clone; every clone is the same memory.
///
/// What is asked of it is answered from main memory. What is observed reaches the disk within a second or
/// two; [`History::close`], or dropping the last clone, waits for it.
#[derive(Debug, Clone)]
pub struct History(Arc<HistoryInner>);

#[derive(Debug)]
struct HistoryInner {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for HistoryInner {
    fn drop(&mut self) {
        finish(&self.shared, self.take_writer());
    }
}

impl HistoryInner {
    fn take_writer(&self) -> Option<JoinHandle<()>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn finish(shared: &Shared, writer: Option<JoinHandle<()>>) {
    let Some(writer) = writer else { return };
    shared.close();
    if writer.join().is_err() {
        tracing::error!("the writer of the memory of earlier deliveries died; what it had not written is lost");
    }
}

impl History {
    /// Opens `history.db` in `folder`, which exists, and reads it. One that is damaged is set aside in
    /// `aside/`, with an error in the log. Blocks.
    ///
    /// # Errors
    /// Where the file can be neither used nor set aside, and where another version of Gatepost wrote it: then
    /// it is not touched.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Self, HistoryError> {
        Self::open_bounded(folder, now, ROWS_MAX)
    }

    fn open_bounded(folder: &Path, now: Timestamp, rows_max: usize) -> Result<Self, HistoryError> {
        let (disk, stored) = Disk::open(folder, now.as_second())?;
        let mut memory = DowngradeMemory::new(rows_max);
        memory.restore(stored.rows, stored.forgotten, now.as_second());
        let mut watch = AlarmWatch::default();
        for (level, issuer, since) in memory.issuers() {
            watch.add_known_issuer(level, issuer, since);
        }
        let shared = Arc::new(Shared::new(memory, watch));
        let writer = writer::start(Arc::clone(&shared), disk)
            .map_err(|error| HistoryError(format!("the system gives us no threads: {error}")))?;
        Ok(Self(Arc::new(HistoryInner { shared, writer: Mutex::new(Some(writer)) })))
    }

    /// What is remembered of one host of a domain.
    #[must_use]
    pub fn best(&self, domain: &Host, host: &Host, now: Timestamp) -> Option<HostHistory> {
        self.state().memory.get(domain, host, now.as_second())
    }

    /// What is remembered of the best of a domain's hosts.
    #[must_use]
    pub fn best_of_domain(&self, domain: &Host, now: Timestamp) -> Option<HostHistory> {
        self.state().memory.best_of(domain, now.as_second())
    }

    /// What it holds against a host of a domain.
    #[must_use]
    pub fn baseline(&self, domain: &Host, host: &Host, now: Timestamp) -> Baseline {
        self.state().memory.baseline(domain, host, now.as_second())
    }

    /// Notes what a host of a domain showed: cleared, or refused for what it lacks. `issuer` is that of
    /// its certificate, as RFC 4514 writes a name. Where it fits into what others show, the alarm is
    /// raised, in the log.
    #[must_use]
    pub fn record(
        &self,
        domain: &Host,
        host: &Host,
        level: TlsLevel,
        issuer: Option<&str>,
        at: Timestamp,
    ) -> LevelChange {
        let seconds = at.as_second();
        let mut state = self.state();
        let observed = state.memory.record(domain, host, level, issuer, seconds);
        let events = state.watch.observe(ObservedHost {
            domain,
            host,
            level,
            took_tls: observed.took_tls,
            issuer,
            issuer_before: observed.issuer_before.as_deref(),
            at: seconds,
        });
        let is_dirty = state.memory.is_dirty();
        drop(state);
        if is_dirty {
            self.0.shared.wake();
        }
        log_alarm_events(events);
        observed.change
    }

    /// Warns of a downgrade that is let through: for each domain once a day at most.
    pub fn warn(&self, downgrade: &DowngradeEvent<'_>, at: Timestamp) {
        if !self.state().memory.should_warn(downgrade.domain, at.as_second()) {
            return;
        }
        let DowngradeEvent { connector, domain, host, was, got } = downgrade;
        let (was, since, last) = (was.level, was.first, was.last);
        if *got == TlsLevel::Plain {
            tracing::warn!(
                connector, %domain, %host, %was, %since, %last, %got,
                "a domain that took TLS before and no longer does"
            );
        } else {
            tracing::warn!(
                connector, %domain, %host, %was, %since, %last, %got,
                "a domain that proved better who it is before than it does now"
            );
        }
    }

    /// Forgets a domain for good: as if it had never been reached. Who and why is logged and stored. How
    /// many hosts were forgotten; where nothing was remembered of it that is none, and nothing is stored.
    ///
    /// # Errors
    /// Where it is not on disk: it is forgotten until a restart, and writing is tried again.
    pub async fn forget(&self, domain: &Host, reason: &str, who: &str, at: Timestamp) -> Result<usize, HistoryError> {
        let (told, written) = oneshot::channel();
        let hosts = {
            let mut state = self.state();
            let hosts = state.memory.forget(domain, reason, who, at.as_second());
            if hosts == 0 {
                return Ok(0);
            }
            state.waiters.push(told);
            hosts
        };
        self.0.shared.wake();
        tracing::warn!(%domain, hosts, reason, who, "what was remembered of a domain is forgotten");
        match written.await {
            Ok(Ok(())) => Ok(hosts),
            Ok(Err(error)) => Err(HistoryError(format!(
                "{domain} is forgotten, but that could not be written ({error}); after a restart it may be back"
            ))),
            Err(_) => Err(HistoryError("the daemon is stopping".to_owned())),
        }
    }

    /// Some of the memory: whole domains, from behind `after` on, until there are `limit` hosts.
    #[must_use]
    pub fn page(&self, domain: Option<&Host>, after: Option<&Host>, limit: usize, now: Timestamp) -> HistoryPage {
        self.state().memory.page(domain, after, limit, now.as_second())
    }

    /// The alarms that are on.
    #[must_use]
    pub fn alarms(&self, now: Timestamp) -> Vec<Alarm> {
        let mut state = self.state();
        let events = state.watch.evaluate(now.as_second());
        let current = state.watch.current();
        drop(state);
        log_alarm_events(events);
        current
    }

    /// Writes what is not written, and gives the file up. What is observed afterwards is not stored.
    pub async fn close(&self) {
        let (shared, writer) = (Arc::clone(&self.0.shared), self.0.take_writer());
        // It fails only where the runtime goes down, and then the thread ends by itself.
        let _ = tokio::task::spawn_blocking(move || finish(&shared, writer)).await;
    }

    fn state(&self) -> MutexGuard<'_, writer::HistoryState> {
        self.0.shared.state()
    }
}

/// Tells the log what is new about the alarm.
fn log_alarm_events(events: Vec<AlarmEvent>) {
    for one in events {
        match one {
            AlarmEvent::Raised(Alarm { kind: AlarmKind::TlsLost, since, domains, of, examples }) => tracing::error!(
                domains, of, examples = listed(&examples), %since,
                "many unrelated domains that took TLS before no longer do, all within an hour: something between us \
                 and the Internet removes STARTTLS, most likely. Look at the firewall and its mail inspection (\"SMTP \
                 fixup\", antivirus), then at the provider's line; until then mail without a forced policy goes in clear"
            ),
            AlarmEvent::Raised(Alarm { kind: AlarmKind::NewIssuer(issuer), since, domains, of, examples }) => {
                tracing::error!(
                    domains, of, examples = listed(&examples), ?issuer, %since,
                    "many unrelated domains show certificates of one issuer that none of them had before, all within an \
                     hour: something between us and the Internet answers in their place, most likely. Look at the firewall \
                     and its TLS inspection, then at the provider's line; until then somebody reads mail without a forced \
                     policy that names whom it trusts"
                )
            }
            AlarmEvent::Ended(Alarm { kind: AlarmKind::TlsLost, domains, .. }) => {
                tracing::warn!(domains, "the alarm about many domains that lost TLS is over");
            }
            AlarmEvent::Ended(Alarm { kind: AlarmKind::NewIssuer(issuer), domains, .. }) => {
                tracing::warn!(
                    domains,
                    ?issuer,
                    "the alarm about many domains with certificates of a new issuer is over"
                );
            }
        }
    }
}

fn listed(domains: &[Host]) -> String {
    domains.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
