//! The downgrade memory: the best TLS level that each host of a domain has shown, and the
//! comparison of new sessions with it.
//!
//! Opportunistic TLS accepts a session in the clear, so an attacker on the network can remove TLS
//! unnoticed (RFC 7435 §1.2). A relay that remembers earlier sessions notices this. The connector's
//! `downgrade` decides what follows: `allow`, `warn` or `refuse`.
//!
//! - [`level`] orders the TLS levels. `memory` keeps and compares them. `alarm` detects downgrades
//!   of many domains at once, and counts related domains (`registrable`) as one. These do no I/O.
//! - `writer` is the thread that writes to the file, and `disk` is the file. Reads never access it.
//! - `shared_writer` is the task that exchanges changes with the other nodes, where several share a
//!   database, and `tables` are its statements.
//!
//! Nothing here judges TLS or refuses a session.

mod alarm;
mod disk;
mod error;
pub mod level;
mod memory;
mod registrable;
mod remembered;
mod shared_writer;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::smtp::address::Host;
use crate::storage::postgresql::Database;
use alarm::{AlarmEvent, AlarmWatch, ObservedHost};
use disk::{Disk, StoredHistory};
use memory::DowngradeMemory;
use writer::Shared;

pub use alarm::{Alarm, AlarmKind};
pub use error::{HistoryError, WriteError};
pub use level::{TlsLevel, issuer};
pub use remembered::{Baseline, BestLevel, ForgetEntry, HostHistory, LevelChange, MemoryPage};

/// The maximum number of pairs of domain and host. Above it those that were not seen for the
/// longest time are removed. A full memory takes about 60 MB.
const ROWS_MAX: usize = 200_000;

/// A downgrade that the connector allows, for the log.
#[derive(Debug, Clone, Copy)]
pub struct DowngradeEvent<'a> {
    /// The connector that allows it.
    pub connector: &'a str,
    /// The recipient domain.
    pub domain: &'a Host,
    /// The host.
    pub host: &'a Host,
    /// The remembered level.
    pub was: BestLevel,
    /// The level of the session.
    pub got: TlsLevel,
}

/// The downgrade memory. Clones share it.
///
/// Queries are answered from main memory. A recorded session reaches the disk, or the database that
/// nodes share, within a second or two. [`History::close`] waits for it; so does dropping the last
/// clone, except with a shared database.
#[derive(Debug, Clone)]
pub struct History(Arc<HistoryInner>);

#[derive(Debug)]
struct HistoryInner {
    shared: Arc<Shared>,
    writer: Mutex<Option<Writer>>,
}

/// The writer of the changes.
#[derive(Debug)]
enum Writer {
    /// The thread that writes to the file.
    Thread(JoinHandle<()>),
    /// The task that exchanges changes with the other nodes.
    Task(tokio::task::JoinHandle<()>),
}

impl Drop for HistoryInner {
    fn drop(&mut self) {
        match self.take_writer() {
            Some(Writer::Thread(writer)) => finish(&self.shared, writer),
            Some(Writer::Task(_)) => self.shared.close(),
            None => {}
        }
    }
}

impl HistoryInner {
    fn take_writer(&self) -> Option<Writer> {
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

fn finish(shared: &Shared, writer: JoinHandle<()>) {
    shared.close();
    if writer.join().is_err() {
        tracing::error!("the writer of the downgrade memory crashed; unwritten changes are lost");
    }
}

impl History {
    /// Opens or creates `history.db` in an existing folder and reads it. A damaged file is moved to
    /// `aside/`, with an error in the log. Blocks on file access.
    ///
    /// # Errors
    /// The file can be neither used nor moved, or was written by another version of Gatepost, in
    /// which case it stays as it is.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Self, HistoryError> {
        Self::open_bounded(folder, now, ROWS_MAX)
    }

    fn open_bounded(folder: &Path, now: Timestamp, rows_max: usize) -> Result<Self, HistoryError> {
        let (disk, stored) = Disk::open(folder)?;
        let shared = restored(stored, now, rows_max);
        let writer = writer::start(Arc::clone(&shared), disk).map_err(HistoryError::Thread)?;
        Ok(Self::new(shared, Writer::Thread(writer)))
    }

    /// Reads the memory that all nodes share from a database whose schema is made, and exchanges
    /// changes with the others from then on: what one node records, the others know a second or two
    /// later. While the database is gone, this node goes on with what it knows, and writes later
    /// what it has learnt. Requires a tokio runtime.
    ///
    /// # Errors
    /// [`HistoryError::Database`] if the database cannot be read.
    pub async fn open_shared(database: Database, now: Timestamp) -> Result<Self, HistoryError> {
        let (stored, seen) = tables::read_all(&database).await?;
        let shared = restored(stored, now, ROWS_MAX);
        let writer = shared_writer::start(Arc::clone(&shared), database, seen);
        Ok(Self::new(shared, Writer::Task(writer)))
    }

    fn new(shared: Arc<Shared>, writer: Writer) -> Self {
        Self(Arc::new(HistoryInner {
            shared,
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// Returns the memory of one host of a domain.
    #[must_use]
    pub fn best(&self, domain: &Host, host: &Host, now: Timestamp) -> Option<HostHistory> {
        self.state().memory.get(domain, host, now.as_second())
    }

    /// Returns the memory of the domain's host with the best level.
    #[must_use]
    pub fn best_of_domain(&self, domain: &Host, now: Timestamp) -> Option<HostHistory> {
        self.state().memory.best_of(domain, now.as_second())
    }

    /// Returns the levels that a session with a host of a domain is compared with.
    #[must_use]
    pub fn baseline(&self, domain: &Host, host: &Host, now: Timestamp) -> Baseline {
        self.state().memory.baseline(domain, host, now.as_second())
    }

    /// Records the level of a session, cleared or refused, and compares it with the memory.
    /// `issuer` is the issuer of the certificate in RFC 4514 form. If many domains are affected at
    /// once, the alarm is raised in the log.
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

    /// Logs a warning about a downgrade that the connector allows, at most once a day for each
    /// domain.
    pub fn warn(&self, downgrade: &DowngradeEvent<'_>, at: Timestamp) {
        if !self
            .state()
            .memory
            .should_warn(downgrade.domain, at.as_second())
        {
            return;
        }
        let DowngradeEvent {
            connector,
            domain,
            host,
            was,
            got,
        } = downgrade;
        let (was, since, last) = (was.level, was.first, was.last);
        if *got == TlsLevel::Plain {
            tracing::warn!(
                connector, %domain, %host, %was, %since, %last, %got,
                "the domain took TLS before and no longer does"
            );
        } else {
            tracing::warn!(
                connector, %domain, %host, %was, %since, %last, %got,
                "the domain authenticated itself better before than now"
            );
        }
    }

    /// Forgets a domain permanently. The command is logged and stored with its reason. Returns the
    /// number of hosts that were forgotten; if there were none, nothing is stored.
    ///
    /// # Errors
    /// The change cannot be written to disk. Writing is tried again, but a restart before that
    /// restores the domain.
    pub async fn forget(
        &self,
        domain: &Host,
        reason: &str,
        who: &str,
        at: Timestamp,
    ) -> Result<usize, HistoryError> {
        let (sender, written) = oneshot::channel();
        let hosts = {
            let mut state = self.state();
            let hosts = state.memory.forget(domain, reason, who, at.as_second());
            if hosts == 0 {
                return Ok(0);
            }
            state.waiters.push(sender);
            hosts
        };
        self.0.shared.wake();
        tracing::warn!(%domain, hosts, reason, who, "the downgrade memory of a domain was removed");
        match written.await {
            Ok(Ok(())) => Ok(hosts),
            Ok(Err(error)) => Err(HistoryError::NotWritten {
                domain: domain.clone(),
                error,
            }),
            Err(_) => Err(HistoryError::Stopping),
        }
    }

    /// Returns whole domains after `after` until the page has `limit` hosts.
    #[must_use]
    pub fn page(
        &self,
        domain: Option<&Host>,
        after: Option<&Host>,
        limit: usize,
        now: Timestamp,
    ) -> MemoryPage {
        self.state()
            .memory
            .page(domain, after, limit, now.as_second())
    }

    /// Returns the active alarms.
    #[must_use]
    pub fn alarms(&self, now: Timestamp) -> Vec<Alarm> {
        let mut state = self.state();
        let events = state.watch.evaluate(now.as_second());
        let current = state.watch.current();
        drop(state);
        log_alarm_events(events);
        current
    }

    /// Writes all pending changes and closes the file or ends the exchange. Sessions recorded later
    /// are not stored.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.0.shared);
        match self.0.take_writer() {
            Some(Writer::Thread(writer)) => {
                // This fails only if the runtime shuts down, and then the thread ends by itself.
                let _ = tokio::task::spawn_blocking(move || finish(&shared, writer)).await;
            }
            Some(Writer::Task(writer)) => {
                shared.close();
                if writer.await.is_err() {
                    tracing::error!(
                        "the writer of the downgrade memory crashed; unwritten changes are lost"
                    );
                }
            }
            None => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, writer::HistoryState> {
        self.0.shared.state()
    }
}

/// Returns the state with what is stored.
fn restored(stored: StoredHistory, now: Timestamp, rows_max: usize) -> Arc<Shared> {
    let mut memory = DowngradeMemory::new(rows_max);
    memory.restore(stored.rows, stored.forgotten, now.as_second());
    let mut watch = AlarmWatch::default();
    for (level, issuer, since) in memory.issuers() {
        watch.add_known_issuer(level, issuer, since);
    }
    Arc::new(Shared::new(memory, watch))
}

/// Logs alarms that were raised or have ended.
fn log_alarm_events(events: Vec<AlarmEvent>) {
    for one in events {
        match one {
            AlarmEvent::Raised(Alarm {
                kind: AlarmKind::TlsLost,
                since,
                domains,
                of,
                examples,
            }) => tracing::error!(
                domains, of, examples = listed(&examples), %since,
                "many unrelated domains lost TLS within an hour: most likely something between us and the Internet \
                 removes STARTTLS. Check the firewall and its mail inspection (\"SMTP fixup\", antivirus), then the \
                 provider's line; until then mail without a forced policy goes in the clear"
            ),
            AlarmEvent::Raised(Alarm {
                kind: AlarmKind::NewIssuer(issuer),
                since,
                domains,
                of,
                examples,
            }) => {
                tracing::error!(
                    domains, of, examples = listed(&examples), ?issuer, %since,
                    "many unrelated domains have certificates of one new issuer within an hour: most likely something \
                     between us and the Internet answers in their place. Check the firewall and its TLS inspection, \
                     then the provider's line; until then mail can be read unless a forced policy verifies the host"
                );
            }
            AlarmEvent::Ended(Alarm {
                kind: AlarmKind::TlsLost,
                domains,
                ..
            }) => {
                tracing::warn!(domains, "alarm ended: many domains lost TLS");
            }
            AlarmEvent::Ended(Alarm {
                kind: AlarmKind::NewIssuer(issuer),
                domains,
                ..
            }) => {
                tracing::warn!(
                    domains,
                    ?issuer,
                    "alarm ended: many domains have certificates of one new issuer"
                );
            }
        }
    }
}

fn listed(domains: &[Host]) -> String {
    domains
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
