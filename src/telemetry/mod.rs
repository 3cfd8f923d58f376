//! Observations of the relay: metrics, the TLS coverage of the last days, recent refusals and
//! downgrades, and the certificates of partners.
//!
//! Services report to a [`Monitor`], each event with one call. It makes no decisions and is not
//! global. Its size is bounded: labels are names from the configuration or words of our own, never
//! text of a peer. It opens no socket; [`crate::admin`] shows its contents. Metric names follow the
//! Prometheus conventions, and the text format is `OpenMetrics`.

pub mod certificates;
pub mod coverage;
mod crl_reading;
mod file;
pub mod labels;
pub mod last_attempts;
mod log_budget;
mod metrics;
pub mod recent;
mod recipient_reading;
mod repeats;
mod text;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::policy::networks;
use crate::policy::tls::{Clearance, TlsVersion};
use crate::smtp::address::Host;
use certificates::Certificates;
use coverage::Coverage;
pub use crl_reading::{CrlReading, CrlReadings};
use labels::{
    AttemptEndedLabel, ConnectorLabel, ConnectorTlsLabels, Direction, HandshakeLabels,
    InboundLabels, JudgedLabels, LimitLabels, LogMoveLabel, LoginLabels, RecipientCheckLabels,
    RecipientLabels, RefusedLabels, SmartHostLoginLabels, TlsLabels,
};
pub use labels::{
    DeliveryResult, HandshakeResult, LogMove, LoginOutcome, PolicyDecision, PolicyLevel,
    RecipientCheckResult, RefusalReason, SessionEnd,
};
use last_attempts::{LastAttempt, LastAttempts};
pub use log_budget::LogClient;
use metrics::{GaugeGuard, Metrics};
use recent::{ListedDowngrade, ListedRefusal, RecentEvents};
pub use recipient_reading::RecipientReading;
use repeats::{LogDecision, Repeats};
pub use text::{
    AttemptsReading, ClientReading, EvidenceReading, Format, MetricsReading, Process, QueueReading,
    ReportsReading,
};

/// The limits that turn clients away, by their keys in `[limits]` and in the file of the users.
const LIMITS: [&str; 13] = [
    "connections",
    "connections_per_client",
    "connections_per_network",
    "connections_per_minute",
    "messages_per_minute",
    "recipients_per_minute",
    "handshakes_per_minute",
    "unknown_recipients_per_minute",
    "unchecked_recipients_per_minute",
    "transaction_memory",
    "transaction_memory_per_session",
    "messages_per_hour",
    "recipients_per_hour",
];

/// The interval at which repeated log lines are summed up and the state is saved.
pub const SAVE_INTERVAL: Duration = Duration::from_mins(1);

/// All observations. Cheap to clone; all clones share the same state.
#[derive(Debug, Clone, Default)]
pub struct Monitor(Arc<MonitorState>);

#[derive(Debug, Default)]
struct MonitorState {
    metrics: Metrics,
    coverage: Mutex<Coverage>,
    certificates: Mutex<Certificates>,
    recent_events: Mutex<RecentEvents>,
    last_attempts: LastAttempts,
    repeats: Mutex<Repeats>,
}

/// An open session or connection: counted in a gauge until this is dropped.
#[derive(Debug)]
pub struct OpenGuard {
    _gauge: GaugeGuard,
}

/// A message that was accepted.
#[derive(Debug, Clone, Copy)]
pub struct AcceptedMessage<'a> {
    /// The listener that accepted it.
    pub listener: &'a str,
    /// The connector of its sender.
    pub connector: &'a str,
    /// The clearance of its session.
    pub clearance: &'a Clearance,
    /// The size of its content in octets.
    pub octets: u64,
    /// The number of its recipients.
    pub recipients: usize,
}

impl Monitor {
    /// Reads the state that an earlier run saved in `folder`, which must exist. An unreadable file
    /// is logged and ignored.
    pub fn restore(&self, folder: &Path, now: Timestamp) {
        let state = file::read(folder);
        *lock(&self.0.coverage) = Coverage::from_stored(state.coverage, now);
        *lock(&self.0.certificates) = Certificates::from_stored(state.certificates);
    }

    /// Saves the state for the next run if it has changed. Blocks.
    pub fn save(&self, folder: &Path) {
        let is_changed =
            lock(&self.0.coverage).take_changed() | lock(&self.0.certificates).take_changed();
        if is_changed {
            let (coverage, certificates) = (
                lock(&self.0.coverage).to_stored(),
                lock(&self.0.certificates).to_stored(),
            );
            file::write(
                folder,
                &file::StoredState {
                    coverage,
                    certificates,
                },
            );
        }
    }

    /// Returns the certificates of partners, and the warnings about our own.
    pub fn certificates(&self) -> MutexGuard<'_, Certificates> {
        lock(&self.0.certificates)
    }

    /// Returns the TLS coverage of the last days.
    pub fn coverage(&self) -> MutexGuard<'_, Coverage> {
        lock(&self.0.coverage)
    }

    /// Returns the recent refusals and downgrades.
    pub fn recent_events(&self) -> MutexGuard<'_, RecentEvents> {
        lock(&self.0.recent_events)
    }

    /// Returns the last attempt to deliver a message to a domain, if there was one since the start.
    #[must_use]
    pub fn last_attempt(&self, domain: &Host) -> Option<Arc<LastAttempt>> {
        self.0.last_attempts.get(domain)
    }

    /// Stores the last attempt to deliver a message to a domain.
    pub fn set_last_attempt(&self, domain: &Host, last: LastAttempt) {
        self.0.last_attempts.set(domain, last);
    }

    /// Returns all metrics as text, with the values of `reading`.
    #[must_use]
    pub fn text(&self, reading: &MetricsReading, format: Format) -> String {
        self.0.metrics.text(reading, format)
    }

    /// Creates the counters that alerts watch, at 0: Prometheus sees no increase in a counter that
    /// first appears with a value. Call this for all names in a configuration.
    pub fn prepare<'a>(
        &self,
        listeners: impl Iterator<Item = &'a str>,
        connectors: impl Iterator<Item = &'a str>,
    ) {
        let metrics = &self.0.metrics;
        for listener in listeners {
            for limit in LIMITS {
                drop(metrics.turned_away.get_or_create(&LimitLabels {
                    listener: listener.to_owned(),
                    limit,
                }));
            }
        }
        for is_own in [true, false] {
            drop(metrics.log_lines_suppressed(is_own));
        }
        for reason in ["time_over", "gave_way", "not_owner"] {
            drop(
                metrics
                    .attempts_ended
                    .get_or_create(&AttemptEndedLabel { reason }),
            );
        }
        for connector in connectors.map(str::to_owned) {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let (direction, connector) = (direction.as_str(), connector.clone());
                let (policy, outcome) = (
                    PolicyLevel::Forced.as_str(),
                    PolicyDecision::Refused.as_str(),
                );
                drop(metrics.judged.get_or_create(&JudgedLabels {
                    direction,
                    connector,
                    policy,
                    outcome,
                }));
            }
            drop(metrics.downgrades.get_or_create(&ConnectorLabel {
                connector: connector.clone(),
            }));
            drop(metrics.delay.get_or_create(&ConnectorLabel { connector }));
        }
    }

    /// Creates the counters of our failed logins at smart hosts for a connector, at 0, as
    /// [`Monitor::prepare`] does for others.
    pub fn prepare_logins(&self, connector: &str, mechanisms: impl Iterator<Item = &'static str>) {
        let failures = mechanisms.flat_map(|name| [(name, "rejected"), (name, "failed")]);
        for (mechanism, outcome) in failures.chain([("none", "impossible")]) {
            drop(
                self.0
                    .metrics
                    .smart_host_logins
                    .get_or_create(&SmartHostLoginLabels {
                        connector: connector.to_owned(),
                        mechanism,
                        outcome,
                    }),
            );
        }
    }

    /// Counts an open session of a listener.
    #[must_use]
    pub fn open_session(&self, listener: &str) -> OpenGuard {
        OpenGuard {
            _gauge: GaugeGuard::new(self.0.metrics.open_sessions(listener)),
        }
    }

    /// Counts a session that has ended.
    pub fn session_ended(&self, listener: &str, end: SessionEnd) {
        let label = labels::SessionLabels {
            listener: listener.to_owned(),
            end: end.as_str(),
        };
        self.0.metrics.sessions.get_or_create(&label).inc();
    }

    /// Counts a connection, message or recipient that was turned away, by the key in `[limits]`
    /// that was reached.
    pub fn turned_away(&self, listener: &str, limit: &'static str) {
        self.0
            .metrics
            .turned_away
            .get_or_create(&LimitLabels {
                listener: listener.to_owned(),
                limit,
            })
            .inc();
    }

    /// Counts a completed or failed handshake.
    pub fn handshake(&self, direction: Direction, end: HandshakeResult) {
        let (result, tls) = match end {
            HandshakeResult::Completed(TlsVersion::V1_2) => ("completed", "1.2"),
            HandshakeResult::Completed(TlsVersion::V1_3) => ("completed", "1.3"),
            HandshakeResult::Failed => ("failed", "none"),
        };
        self.0
            .metrics
            .handshakes
            .get_or_create(&HandshakeLabels {
                direction: direction.as_str(),
                result,
                tls,
            })
            .inc();
    }

    /// Counts a decision of the TLS judge about a session.
    pub fn judged(
        &self,
        direction: Direction,
        connector: &str,
        policy: PolicyLevel,
        end: PolicyDecision,
    ) {
        let (direction, connector) = (direction.as_str(), connector.to_owned());
        let label = JudgedLabels {
            direction,
            connector,
            policy: policy.as_str(),
            outcome: end.as_str(),
        };
        self.0.metrics.judged.get_or_create(&label).inc();
    }

    /// Counts a message that has been accepted.
    pub fn accepted(&self, message: &AcceptedMessage<'_>) {
        let TlsLabels { tls, verification } = TlsLabels::of(message.clearance);
        let (listener, connector) = (message.listener.to_owned(), message.connector.to_owned());
        let label = InboundLabels {
            listener,
            connector,
            tls,
            verification,
        };
        let metrics = &self.0.metrics;
        metrics.inbound_messages.get_or_create(&label).inc();
        metrics
            .inbound_bytes
            .get_or_create(&label)
            .inc_by(message.octets);
        metrics
            .inbound_recipients
            .get_or_create(&label)
            .inc_by(message.recipients as u64);
        let mut coverage = self.coverage();
        coverage.count(
            message.connector,
            Direction::Inbound,
            message.clearance,
            message.recipients as u64,
        );
    }

    /// Counts a sender or recipient that was refused in a session.
    pub fn refused(&self, listener: &str, connector: &str, reason: RefusalReason) {
        let (listener, connector) = (listener.to_owned(), connector.to_owned());
        self.0
            .metrics
            .refused
            .get_or_create(&RefusedLabels {
                listener,
                connector,
                reason: reason.as_str(),
            })
            .inc();
    }

    /// Counts the outcome of an AUTH command.
    pub fn login(&self, listener: &str, mechanism: &'static str, outcome: LoginOutcome) {
        let labels = LoginLabels {
            listener: listener.to_owned(),
            mechanism,
            outcome: outcome.as_str(),
        };
        self.0.metrics.logins.get_or_create(&labels).inc();
    }

    /// Counts a login of ours at a smart host.
    pub fn smart_host_login(
        &self,
        connector: &str,
        mechanism: Option<&'static str>,
        outcome: &'static str,
    ) {
        let labels = SmartHostLoginLabels {
            connector: connector.to_owned(),
            mechanism: mechanism.unwrap_or("none"),
            outcome,
        };
        self.0
            .metrics
            .smart_host_logins
            .get_or_create(&labels)
            .inc();
    }

    /// Counts a check of a recipient, by the value of `from` in its `[[recipients]]` table.
    pub fn recipient_checked(&self, from: &'static str, result: RecipientCheckResult) {
        let result = result.as_str();
        self.0
            .metrics
            .recipient_checks
            .get_or_create(&RecipientCheckLabels { from, result })
            .inc();
    }

    /// Lists a refusal for the administrator.
    pub fn list_refusal(&self, refusal: ListedRefusal) {
        self.recent_events().add_refusal(refusal);
    }

    /// Counts and lists a downgrade that the connector allowed.
    pub fn list_downgrade(&self, downgrade: ListedDowngrade) {
        let label = ConnectorLabel {
            connector: downgrade.connector.clone(),
        };
        self.0.metrics.downgrades.get_or_create(&label).inc();
        self.recent_events().add_downgrade(downgrade);
    }

    /// Ends the downgrade of a host that shows as much TLS as before.
    pub fn end_downgrade(&self, domain: &Host, host: &Host) {
        let host = host.to_string();
        self.recent_events()
            .end_downgrades(&domain.to_string(), |one| one == host);
    }

    /// Ends the downgrades of a domain that was removed from the downgrade memory.
    pub fn end_downgrades(&self, domain: &Host) {
        self.recent_events()
            .end_downgrades(&domain.to_string(), |_| true);
    }

    /// Counts an open connection to a next hop.
    #[must_use]
    pub fn open_connection(&self) -> OpenGuard {
        OpenGuard {
            _gauge: GaugeGuard::new(self.0.metrics.open_connections.clone()),
        }
    }

    /// Counts an attempt that was ended by one of `[limits]`.
    pub fn attempt_ended(&self, reason: &'static str) {
        self.0
            .metrics
            .attempts_ended
            .get_or_create(&AttemptEndedLabel { reason })
            .inc();
    }

    /// Counts the recipients for which an attempt ended with this result, by the clearance of the
    /// session, if there was one.
    pub fn attempted(
        &self,
        connector: &str,
        result: DeliveryResult,
        clearance: Option<&Clearance>,
        recipients: u64,
    ) {
        let TlsLabels { tls, verification } = clearance.map_or(TlsLabels::NONE, TlsLabels::of);
        let label = RecipientLabels {
            connector: connector.to_owned(),
            outcome: result.as_str(),
            tls,
            verification,
        };
        self.0
            .metrics
            .recipients
            .get_or_create(&label)
            .inc_by(recipients);
    }

    /// Counts a delivered message, with the time since it was accepted.
    pub fn delivered(
        &self,
        connector: &str,
        clearance: &Clearance,
        octets: u64,
        recipients: u64,
        delay: Duration,
    ) {
        let TlsLabels { tls, verification } = TlsLabels::of(clearance);
        let metrics = &self.0.metrics;
        let label = ConnectorTlsLabels {
            connector: connector.to_owned(),
            tls,
            verification,
        };
        metrics.outbound_messages.get_or_create(&label).inc();
        metrics.outbound_bytes.get_or_create(&label).inc_by(octets);
        metrics
            .delay
            .get_or_create(&ConnectorLabel {
                connector: connector.to_owned(),
            })
            .observe(delay.as_secs_f64());
        self.coverage()
            .count(connector, Direction::Outbound, clearance, recipients);
    }

    /// Measures one transaction of the spool, including its sync.
    pub fn spool_sync(&self, took: Duration) {
        self.0.metrics.spool_sync.observe(took.as_secs_f64());
    }

    /// Sets the size of the spool's log in octets.
    pub fn spool_log(&self, octets: u64) {
        let octets = i64::try_from(octets).unwrap_or(i64::MAX);
        self.0.metrics.spool_log.set(octets);
    }

    /// Sets whether the spool has hardly any room for the results of delivery attempts.
    pub fn spool_scarce(&self, is_scarce: bool) {
        self.0.metrics.spool_scarce.set(i64::from(is_scarce));
    }

    /// Counts an attempt to move mail from the spool's log into the database.
    pub fn spool_log_move(&self, result: LogMove) {
        let label = LogMoveLabel {
            result: result.as_str(),
        };
        self.0.metrics.spool_log_moves.get_or_create(&label).inc();
    }

    /// Returns whether a log line should be written. If the same line was written within the last
    /// minute, it is only counted, and [`Monitor::log_suppressed`] logs the count.
    #[must_use]
    pub fn should_log(
        &self,
        event: &'static str,
        peer: impl std::fmt::Display,
        text: impl std::fmt::Display,
    ) -> bool {
        lock(&self.0.repeats).should_log(event, &peer, &text)
    }

    /// Returns whether a log line about a client should be written. It should not if the same line
    /// was written within the last minute, or if the client's network has used up its budget of
    /// lines; [`Monitor::log_suppressed`] logs the count.
    #[must_use]
    pub fn should_log_client(
        &self,
        event: &'static str,
        client: LogClient,
        text: impl std::fmt::Display,
    ) -> bool {
        let decision = lock(&self.0.repeats).decide_client(event, client, &text);
        if decision == LogDecision::Suppressed {
            self.0.metrics.log_lines_suppressed(client.is_own).inc();
        }
        decision == LogDecision::Write
    }

    /// Logs how often lines were repeated and how many were suppressed. Call this once a minute.
    pub fn log_suppressed(&self) {
        let (repeated, suppressed) = lock(&self.0.repeats).next_minute();
        for one in suppressed {
            let network = one
                .network
                .as_ref()
                .map_or_else(|| "all".to_owned(), networks::network_text);
            let clients = labels::clients_label(one.is_own);
            tracing::warn!(
                network,
                clients,
                lines = one.lines,
                "too many log lines about clients within a minute, some suppressed"
            );
        }
        for line in repeated {
            tracing::info!(
                what = line.event,
                who = line.peer,
                reason = line.text,
                times = line.times,
                "log line repeated within a minute"
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves no inconsistent state in these structures.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
