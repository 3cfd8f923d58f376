//! What the movers see, counted and kept for those who watch: metrics, the TLS coverage of the last days,
//! the last refusals and downgrades, and the certificates of partners.
//!
//! A [`Monitor`] is handed to whoever has something to tell, in a line each; nothing here is asked before a
//! decision, and nothing is global. Whatever it holds is bounded: labels are names from the configuration or
//! words of ours, never a peer's. It opens no socket; who shows it is [`crate::admin`]. Metric names follow
//! the Prometheus conventions and are written in the `OpenMetrics` text format.

pub mod certificates;
pub mod coverage;
mod file;
pub mod labels;
mod log_budget;
mod meters;
mod repeats;
mod text;
pub mod troubles;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::address::Host;
use crate::networks;
use crate::tls::{Clearance, TlsVersion};
use certificates::Certificates;
use coverage::Coverage;
use labels::{
    AttemptEnded, Connector, ConnectorReached, Direction, Handshake, Inbound, Judged, Limit, Reached, Recipients,
    Refused,
};
pub use labels::{Demanded, Fate, HandshakeEnd, PolicyEnd, Reason, SessionEnd};
pub use log_budget::LogClient;
use meters::{Meters, Open};
use repeats::{Repeats, Verdict};
pub use text::{AttemptsReading, ClientReading, Format, Process, QueueReading, Reading, ReportsReading};
use troubles::{Downgrade, Refusal, Troubles};

/// The limits that turn clients away, by their keys in `[limits]`.
const LIMITS: [&str; 9] = [
    "connections",
    "connections_per_client",
    "connections_per_network",
    "connections_per_minute",
    "messages_per_minute",
    "recipients_per_minute",
    "handshakes_per_minute",
    "transaction_memory",
    "transaction_memory_per_session",
];

/// How often repeated log lines are summed up and what is kept is written.
pub const ROUND: Duration = Duration::from_mins(1);

/// Everything that is watched. Cheap to clone; every clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Monitor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    meters: Meters,
    coverage: Mutex<Coverage>,
    certificates: Mutex<Certificates>,
    troubles: Mutex<Troubles>,
    repeats: Mutex<Repeats>,
}

/// Something that is open: counted until it is dropped.
#[derive(Debug)]
pub struct Counted {
    _open: Open,
}

/// A message that came in.
#[derive(Debug, Clone, Copy)]
pub struct Accepted<'a> {
    /// By which listener.
    pub listener: &'a str,
    /// The connector that speaks for its sender.
    pub connector: &'a str,
    /// What its session reached.
    pub clearance: &'a Clearance,
    /// Octets of its content.
    pub octets: u64,
    /// Its recipients.
    pub recipients: usize,
}

impl Monitor {
    /// Takes up what an earlier run kept in `folder`, which exists. Reads a file; one that cannot be read is
    /// told in the log and begun anew.
    pub fn restore(&self, folder: &Path, now: Timestamp) {
        let kept = file::read(folder);
        *lock(&self.0.coverage) = Coverage::restored(kept.coverage, now);
        *lock(&self.0.certificates) = Certificates::restored(kept.certificates);
    }

    /// Writes what a later run should know, where it has changed. Blocks.
    pub fn save(&self, folder: &Path) {
        let is_dirty = lock(&self.0.coverage).take_dirt() | lock(&self.0.certificates).take_dirt();
        if is_dirty {
            let (coverage, certificates) = (lock(&self.0.coverage).kept(), lock(&self.0.certificates).kept());
            file::write(folder, &file::Kept { coverage, certificates });
        }
    }

    /// The certificates of partners, and what was said of our own.
    pub fn certificates(&self) -> MutexGuard<'_, Certificates> {
        lock(&self.0.certificates)
    }

    /// The TLS coverage of the last days.
    pub fn coverage(&self) -> MutexGuard<'_, Coverage> {
        lock(&self.0.coverage)
    }

    /// The last refusals and downgrades.
    pub fn troubles(&self) -> MutexGuard<'_, Troubles> {
        lock(&self.0.troubles)
    }

    /// All metrics as text, with what is read at this moment.
    #[must_use]
    pub fn text(&self, reading: &Reading, format: Format) -> String {
        self.0.meters.text(reading, format)
    }

    /// Counts from nothing what alerts look at: a counter that appears with its first event has not risen. To be
    /// called for whatever a configuration names.
    pub fn prepare<'a>(&self, listeners: impl Iterator<Item = &'a str>, connectors: impl Iterator<Item = &'a str>) {
        let meters = &self.0.meters;
        for listener in listeners {
            for limit in LIMITS {
                drop(meters.turned_away.get_or_create(&Limit { listener: listener.to_owned(), limit }));
            }
        }
        for is_own in [true, false] {
            drop(meters.log_lines_suppressed(is_own));
        }
        for reason in ["time_over", "gave_way"] {
            drop(meters.attempts_ended.get_or_create(&AttemptEnded { reason }));
        }
        for connector in connectors.map(str::to_owned) {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let (direction, connector) = (direction.word(), connector.clone());
                let (policy, outcome) = (Demanded::Forced.word(), PolicyEnd::Refused.word());
                drop(meters.judged.get_or_create(&Judged { direction, connector, policy, outcome }));
            }
            drop(meters.downgrades.get_or_create(&Connector { connector: connector.clone() }));
            drop(meters.delay.get_or_create(&Connector { connector }));
        }
    }

    /// A session has begun.
    #[must_use]
    pub fn session(&self, listener: &str) -> Counted {
        Counted { _open: Open::new(self.0.meters.open_sessions(listener)) }
    }

    /// A session has ended.
    pub fn session_ended(&self, listener: &str, end: SessionEnd) {
        let label = labels::Session { listener: listener.to_owned(), end: end.word() };
        self.0.meters.sessions.get_or_create(&label).inc();
    }

    /// A connection, a message or a recipient was turned away; which of `[limits]` was reached.
    pub fn turned_away(&self, listener: &str, limit: &'static str) {
        self.0.meters.turned_away.get_or_create(&Limit { listener: listener.to_owned(), limit }).inc();
    }

    /// A handshake is over: with this version, or without success.
    pub fn handshake(&self, direction: Direction, end: HandshakeEnd) {
        let (result, tls) = match end {
            HandshakeEnd::Completed(TlsVersion::V1_2) => ("completed", "1.2"),
            HandshakeEnd::Completed(TlsVersion::V1_3) => ("completed", "1.3"),
            HandshakeEnd::Failed => ("failed", "none"),
        };
        self.0.meters.handshakes.get_or_create(&Handshake { direction: direction.word(), result, tls }).inc();
    }

    /// The judge has spoken about a session.
    pub fn judged(&self, direction: Direction, connector: &str, policy: Demanded, end: PolicyEnd) {
        let (direction, connector) = (direction.word(), connector.to_owned());
        let label = Judged { direction, connector, policy: policy.word(), outcome: end.word() };
        self.0.meters.judged.get_or_create(&label).inc();
    }

    /// A message is in the spool.
    pub fn accepted(&self, message: &Accepted<'_>) {
        let Reached { tls, verification } = Reached::of(message.clearance);
        let (listener, connector) = (message.listener.to_owned(), message.connector.to_owned());
        let label = Inbound { listener, connector, tls, verification };
        let meters = &self.0.meters;
        meters.inbound_messages.get_or_create(&label).inc();
        meters.inbound_bytes.get_or_create(&label).inc_by(message.octets);
        meters.inbound_recipients.get_or_create(&label).inc_by(message.recipients as u64);
        let mut coverage = self.coverage();
        coverage.note(message.connector, Direction::Inbound, message.clearance, message.recipients as u64);
    }

    /// A sender or a recipient was refused in a session.
    pub fn refused(&self, listener: &str, connector: &str, reason: Reason) {
        let (listener, connector) = (listener.to_owned(), connector.to_owned());
        self.0.meters.refused.get_or_create(&Refused { listener, connector, reason: reason.word() }).inc();
    }

    /// Some refusal that an administrator should see.
    pub fn note_refusal(&self, refusal: Refusal) {
        self.troubles().refused(refusal);
    }

    /// A domain shows less than before, and that was let through.
    pub fn note_downgrade(&self, downgrade: Downgrade) {
        let label = Connector { connector: downgrade.connector.clone() };
        self.0.meters.downgrades.get_or_create(&label).inc();
        self.troubles().downgraded(downgrade);
    }

    /// A host shows as much TLS as it did before: its downgrade, where there was one, is over.
    pub fn end_downgrade(&self, domain: &Host, host: &Host) {
        let host = host.to_string();
        self.troubles().recovered(&domain.to_string(), |one| one == host);
    }

    /// Nothing is remembered of a domain any more, so nothing is less than before.
    pub fn end_downgrades(&self, domain: &Host) {
        self.troubles().recovered(&domain.to_string(), |_| true);
    }

    /// A connection to a next hop is open.
    #[must_use]
    pub fn connection(&self) -> Counted {
        Counted { _open: Open::new(self.0.meters.open_connections.clone()) }
    }

    /// An attempt was ended by one of `[limits]`; why.
    pub fn attempt_ended(&self, reason: &'static str) {
        self.0.meters.attempts_ended.get_or_create(&AttemptEnded { reason }).inc();
    }

    /// An attempt has ended like this for so many recipients, on a session with that clearance, if any.
    pub fn tried(&self, connector: &str, fate: Fate, clearance: Option<&Clearance>, recipients: u64) {
        let Reached { tls, verification } = clearance.map_or(Reached::NOTHING, Reached::of);
        let label = Recipients { connector: connector.to_owned(), outcome: fate.word(), tls, verification };
        self.0.meters.recipients.get_or_create(&label).inc_by(recipients);
    }

    /// A message was handed over, so long after it was accepted.
    pub fn delivered(&self, connector: &str, clearance: &Clearance, octets: u64, recipients: u64, delay: Duration) {
        let Reached { tls, verification } = Reached::of(clearance);
        let meters = &self.0.meters;
        let label = ConnectorReached { connector: connector.to_owned(), tls, verification };
        meters.outbound_messages.get_or_create(&label).inc();
        meters.outbound_bytes.get_or_create(&label).inc_by(octets);
        meters.delay.get_or_create(&Connector { connector: connector.to_owned() }).observe(delay.as_secs_f64());
        self.coverage().note(connector, Direction::Outbound, clearance, recipients);
    }

    /// One transaction of the spool, its sync included.
    pub fn spool_sync(&self, took: Duration) {
        self.0.meters.spool_sync.observe(took.as_secs_f64());
    }

    /// Whether this log line is to be written. One like it within the last minute was written already: it is
    /// only counted, and the count is logged by [`Monitor::tell_repeats`].
    #[must_use]
    pub fn is_news(&self, what: &'static str, who: impl std::fmt::Display, said: impl std::fmt::Display) -> bool {
        lock(&self.0.repeats).is_news(what, &who, &said)
    }

    /// Checks that a log line about a client is to be written: it was not within the last minute, and the client's
    /// network has lines left. Otherwise it is counted, and [`Monitor::tell_repeats`] logs the count.
    #[must_use]
    pub fn should_log_client(&self, what: &'static str, client: LogClient, said: impl std::fmt::Display) -> bool {
        let verdict = lock(&self.0.repeats).judge_client(what, client, &said);
        if verdict == Verdict::Suppressed {
            self.0.meters.log_lines_suppressed(client.is_own).inc();
        }
        verdict == Verdict::News
    }

    /// Logs how often lines were repeated, and how many were suppressed; to be called once a minute.
    pub fn tell_repeats(&self) {
        let (told, suppressed) = lock(&self.0.repeats).round();
        for one in suppressed {
            let network = one.network.as_ref().map_or_else(|| "all".to_owned(), networks::network_text);
            let clients = labels::of_clients(one.is_own);
            tracing::warn!(
                network,
                clients,
                lines = one.lines,
                "log lines about clients suppressed, there were too many within a minute"
            );
        }
        for line in told {
            tracing::info!(
                what = line.what,
                who = line.who,
                reason = line.said,
                times = line.times,
                "the same again within a minute"
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
