//! The metrics themselves: what is counted all the time, by name.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::labels::{
    AttemptEnded, Clients, Connector, ConnectorReached, Handshake, Inbound, Judged, Limit, Listener, Recipients,
    Refused, Session,
};
use super::text::{Format, Reading};

/// Seconds from acceptance to delivery: most take a moment, some days.
const DELAYS: [f64; 14] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0, 172_800.0];

type Count = Gauge<i64, AtomicI64>;

/// One thing that is open, on a gauge.
#[derive(Debug)]
pub(super) struct Open(Count);

impl Open {
    pub(super) fn new(gauge: Count) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is counted all the time.
#[derive(Debug)]
pub(super) struct Meters {
    registry: Registry,
    open_sessions: Family<Listener, Count>,
    log_lines_suppressed: Family<Clients, Counter>,
    pub(super) sessions: Family<Session, Counter>,
    pub(super) turned_away: Family<Limit, Counter>,
    pub(super) handshakes: Family<Handshake, Counter>,
    pub(super) judged: Family<Judged, Counter>,
    pub(super) inbound_messages: Family<Inbound, Counter>,
    pub(super) inbound_bytes: Family<Inbound, Counter>,
    pub(super) inbound_recipients: Family<Inbound, Counter>,
    pub(super) refused: Family<Refused, Counter>,
    pub(super) recipients: Family<Recipients, Counter>,
    pub(super) outbound_messages: Family<ConnectorReached, Counter>,
    pub(super) outbound_bytes: Family<ConnectorReached, Counter>,
    pub(super) open_connections: Count,
    pub(super) attempts_ended: Family<AttemptEnded, Counter>,
    pub(super) delay: Family<Connector, Histogram>,
    pub(super) downgrades: Family<Connector, Counter>,
    pub(super) spool_sync: Histogram,
}

impl Default for Meters {
    fn default() -> Self {
        let mut meters = Self {
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
            recipients: Family::default(),
            outbound_messages: Family::default(),
            outbound_bytes: Family::default(),
            open_connections: Count::default(),
            attempts_ended: Family::default(),
            delay: Family::new_with_constructor(|| Histogram::new(DELAYS)),
            downgrades: Family::default(),
            // From a quarter of a millisecond to four seconds.
            spool_sync: Histogram::new(exponential_buckets(0.000_25, 2.0, 15)),
        };
        meters.register_inbound();
        meters.register_outbound();
        meters
    }
}

impl Meters {
    fn register_inbound(&mut self) {
        let registry = &mut self.registry;
        registry.register("inbound_open_sessions", "Sessions that are open", self.open_sessions.clone());
        registry.register("inbound_sessions", "Sessions that have ended, by how", self.sessions.clone());
        let help = "Connections, messages and recipients turned away because one of [limits] was reached";
        registry.register("inbound_turned_away", help, self.turned_away.clone());
        let help = "Log lines about clients that were left out because their network, or all, had caused too many";
        registry.register("log_lines_suppressed", help, self.log_lines_suppressed.clone());
        let help = "Messages accepted, by what their session reached";
        registry.register("inbound_messages", help, self.inbound_messages.clone());
        let help = "Octets of content accepted";
        registry.register_with_unit("inbound", help, Unit::Bytes, self.inbound_bytes.clone());
        registry.register("inbound_recipients", "Recipients of accepted messages", self.inbound_recipients.clone());
        let help = "Senders and recipients refused, by why";
        registry.register("inbound_refused", help, self.refused.clone());
        let help = "TLS handshakes, by how they ended";
        registry.register("tls_handshakes", help, self.handshakes.clone());
        let help = "Sessions judged by the TLS policy of their connector";
        registry.register("tls_judged_sessions", help, self.judged.clone());
    }

    fn register_outbound(&mut self) {
        let registry = &mut self.registry;
        let help = "Connections to next hops that are open, those waiting for work included";
        registry.register("outbound_open_connections", help, self.open_connections.clone());
        let help = "Delivery attempts that [limits] ended, by why: time_over, or gave_way to other destinations";
        registry.register("delivery_attempts_ended", help, self.attempts_ended.clone());
        let help = "Recipients tried, by how the attempt ended for them and what its session reached";
        registry.register("outbound_recipients", help, self.recipients.clone());
        let help = "Messages handed over, once for each destination";
        registry.register("outbound_messages", help, self.outbound_messages.clone());
        let help = "Octets of content handed over";
        registry.register_with_unit("outbound", help, Unit::Bytes, self.outbound_bytes.clone());
        let help = "Time from acceptance to delivery";
        registry.register_with_unit("delivery_delay", help, Unit::Seconds, self.delay.clone());
        let help = "Deliveries that went on although the host showed less TLS than before";
        registry.register("tls_downgrades", help, self.downgrades.clone());
        let help = "Time of one commit of the spool, its sync included";
        registry.register_with_unit("spool_sync", help, Unit::Seconds, self.spool_sync.clone());
    }

    pub(super) fn open_sessions(&self, listener: &str) -> Count {
        self.open_sessions.get_or_create_owned(&Listener { listener: listener.to_owned() })
    }

    /// The count of suppressed lines about clients of `[relay] networks`, or about all others.
    pub(super) fn log_lines_suppressed(&self, is_own: bool) -> Counter {
        self.log_lines_suppressed.get_or_create_owned(&Clients { clients: super::labels::of_clients(is_own) })
    }

    pub(super) fn text(&self, reading: &Reading, format: Format) -> String {
        super::text::write(&self.registry, reading, format)
    }
}
