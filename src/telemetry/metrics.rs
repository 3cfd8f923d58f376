//! The metrics that are counted continuously, with their names.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::labels::{
    AttemptEndedLabel, ClientsLabel, ConnectorLabel, ConnectorTlsLabels, HandshakeLabels,
    InboundLabels, JudgedLabels, LimitLabels, ListenerLabel, LogMoveLabel, LoginLabels,
    RecipientCheckLabels, RecipientLabels, RefusedLabels, SessionLabels, SmartHostLoginLabels,
};
use super::text::{Format, MetricsReading};

/// The buckets of the delivery delay in seconds: most deliveries take a moment, some take days.
const DELAYS: [f64; 14] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0, 172_800.0,
];

type IntGauge = Gauge<i64, AtomicI64>;

/// One open session or connection, counted in a gauge.
#[derive(Debug)]
pub(super) struct GaugeGuard(IntGauge);

impl GaugeGuard {
    pub(super) fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The metrics that are counted continuously.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    open_sessions: Family<ListenerLabel, IntGauge>,
    log_lines_suppressed: Family<ClientsLabel, Counter>,
    pub(super) sessions: Family<SessionLabels, Counter>,
    pub(super) turned_away: Family<LimitLabels, Counter>,
    pub(super) handshakes: Family<HandshakeLabels, Counter>,
    pub(super) judged: Family<JudgedLabels, Counter>,
    pub(super) inbound_messages: Family<InboundLabels, Counter>,
    pub(super) inbound_bytes: Family<InboundLabels, Counter>,
    pub(super) inbound_recipients: Family<InboundLabels, Counter>,
    pub(super) refused: Family<RefusedLabels, Counter>,
    pub(super) logins: Family<LoginLabels, Counter>,
    pub(super) recipient_checks: Family<RecipientCheckLabels, Counter>,
    pub(super) recipients: Family<RecipientLabels, Counter>,
    pub(super) smart_host_logins: Family<SmartHostLoginLabels, Counter>,
    pub(super) outbound_messages: Family<ConnectorTlsLabels, Counter>,
    pub(super) outbound_bytes: Family<ConnectorTlsLabels, Counter>,
    pub(super) open_connections: IntGauge,
    pub(super) attempts_ended: Family<AttemptEndedLabel, Counter>,
    pub(super) delay: Family<ConnectorLabel, Histogram>,
    pub(super) downgrades: Family<ConnectorLabel, Counter>,
    pub(super) spool_sync: Histogram,
    pub(super) spool_log: IntGauge,
    pub(super) spool_scarce: IntGauge,
    pub(super) spool_log_moves: Family<LogMoveLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("gatepost"),
            open_sessions: Family::default(),
            log_lines_suppressed: Family::default(),
            sessions: Family::default(),
            turned_away: Family::default(),
            handshakes: Family::default(),
            judged: Family::default(),
            inbound_messages: Family::default(),
            inbound_bytes: Family::default(),
            inbound_recipients: Family::default(),
            refused: Family::default(),
            logins: Family::default(),
            recipient_checks: Family::default(),
            recipients: Family::default(),
            smart_host_logins: Family::default(),
            outbound_messages: Family::default(),
            outbound_bytes: Family::default(),
            open_connections: IntGauge::default(),
            attempts_ended: Family::default(),
            delay: Family::new_with_constructor(|| Histogram::new(DELAYS)),
            downgrades: Family::default(),
            // From a quarter of a millisecond to four seconds.
            spool_sync: Histogram::new(exponential_buckets(0.000_25, 2.0, 15)),
            spool_log: IntGauge::default(),
            spool_scarce: IntGauge::default(),
            spool_log_moves: Family::default(),
        };
        metrics.register_inbound();
        metrics.register_outbound();
        metrics
    }
}

impl Metrics {
    fn register_inbound(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "inbound_open_sessions",
            "Sessions that are open",
            self.open_sessions.clone(),
        );
        registry.register(
            "inbound_sessions",
            "Sessions that ended, by kind of end",
            self.sessions.clone(),
        );
        let help =
            "Connections, messages and recipients turned away because one of [limits] was reached";
        registry.register("inbound_turned_away", help, self.turned_away.clone());
        let help = "Log lines about clients that were suppressed because their network, or all networks, caused too many";
        registry.register(
            "log_lines_suppressed",
            help,
            self.log_lines_suppressed.clone(),
        );
        let help = "Messages accepted, by the TLS of their session";
        registry.register("inbound_messages", help, self.inbound_messages.clone());
        let help = "Octets of content accepted";
        registry.register_with_unit("inbound", help, Unit::Bytes, self.inbound_bytes.clone());
        registry.register(
            "inbound_recipients",
            "Recipients of accepted messages",
            self.inbound_recipients.clone(),
        );
        let help = "Senders and recipients refused, by reason";
        registry.register("inbound_refused", help, self.refused.clone());
        let help = "Logins (AUTH), by mechanism and outcome: accepted, failed, limited after too many failures, or busy";
        registry.register("inbound_logins", help, self.logins.clone());
        let help = "Recipients checked, by source (from in [[recipients]]) and result";
        registry.register("recipient_checks", help, self.recipient_checks.clone());
        let help = "TLS handshakes, by result";
        registry.register("tls_handshakes", help, self.handshakes.clone());
        let help = "Sessions judged by the TLS policy of their connector";
        registry.register("tls_judged_sessions", help, self.judged.clone());
    }

    fn register_outbound(&mut self) {
        let registry = &mut self.registry;
        let help = "Open connections to next hops, including idle ones";
        registry.register(
            "outbound_open_connections",
            help,
            self.open_connections.clone(),
        );
        let help = "Delivery attempts ended early, by reason: time_over or gave_way to other destinations by [limits], or not_owner since another relay has the message";
        registry.register("delivery_attempts_ended", help, self.attempts_ended.clone());
        let help = "Recipients attempted, by result and the TLS of the session";
        registry.register("outbound_recipients", help, self.recipients.clone());
        let help = "Our logins at smart hosts (AUTH), by mechanism and outcome: accepted, rejected, failed, or impossible for want of a mechanism or of the proof who the host is";
        registry.register("outbound_logins", help, self.smart_host_logins.clone());
        let help = "Messages delivered, once for each destination";
        registry.register("outbound_messages", help, self.outbound_messages.clone());
        let help = "Octets of content delivered";
        registry.register_with_unit("outbound", help, Unit::Bytes, self.outbound_bytes.clone());
        let help = "Time from acceptance to delivery";
        registry.register_with_unit("delivery_delay", help, Unit::Seconds, self.delay.clone());
        let help = "Deliveries to hosts that showed less TLS than before";
        registry.register("tls_downgrades", help, self.downgrades.clone());
        let help = "Time of one commit of the spool, including its sync";
        registry.register_with_unit("spool_sync", help, Unit::Seconds, self.spool_sync.clone());
        let help = "Size of the spool's log, with what waits to be moved into the database";
        registry.register_with_unit("spool_log", help, Unit::Bytes, self.spool_log.clone());
        let help = "1 while delivery attempts start one at a time because the spool has hardly any room for their results, else 0";
        registry.register("spool_scarce", help, self.spool_scarce.clone());
        let help = "Moves of mail from the spool's log into the database, by result: complete, blocked by another program, or failed";
        registry.register("spool_log_moves", help, self.spool_log_moves.clone());
    }

    pub(super) fn open_sessions(&self, listener: &str) -> IntGauge {
        self.open_sessions.get_or_create_owned(&ListenerLabel {
            listener: listener.to_owned(),
        })
    }

    /// Returns the counter of suppressed lines about clients in `[relay] networks`, or about all
    /// others.
    pub(super) fn log_lines_suppressed(&self, is_own: bool) -> Counter {
        self.log_lines_suppressed
            .get_or_create_owned(&ClientsLabel {
                clients: super::labels::clients_label(is_own),
            })
    }

    pub(super) fn text(&self, reading: &MetricsReading, format: Format) -> String {
        super::text::write(&self.registry, reading, format)
    }
}
