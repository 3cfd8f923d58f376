//! The metrics as text: those that are counted continuously, and those that are read on request.
//!
//! The format is `OpenMetrics` 1.0 if the client requests it, or else the older text format of
//! Prometheus, which declares a counter by its full name.

use std::fmt::Write as _;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::crl_reading::{self, CrlReadings};
use super::labels::{
    AlarmLabel, CertificateLabels, ClientsLabel, ConnectorLabel, ListenerLabel, QueueLabels,
    ShareLabel, VersionLabel, clients_label,
};
use super::recipient_reading::{self, RecipientReading};

/// The text format of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Classic,
}

impl Format {
    /// Returns the format that an Accept header field requests.
    #[must_use]
    pub fn requested(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    /// Returns the media type of the format.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The values that are read on request.
#[derive(Debug, Clone, Default)]
pub struct MetricsReading {
    /// The queue of each connector.
    pub queue: Vec<QueueReading>,
    /// The number of destinations whose last attempt failed.
    pub troubled: usize,
    /// The delivery attempts of each share.
    pub attempts: Vec<AttemptsReading>,
    /// The reports to senders and to the postmaster.
    pub reports: ReportsReading,
    /// The size of the evidence; `None` if none is kept.
    pub evidence: Option<EvidenceReading>,
    /// True while the spool is this relay's.
    pub owns_spool: bool,
    /// The certificates: `own` or `partner`, name, and end of validity.
    pub certificates: Vec<(&'static str, String, Timestamp)>,
    /// The number of cached MTA-STS policies.
    pub policies: usize,
    /// The certificate revocation lists.
    pub crls: CrlReadings,
    /// The interception alarms, and whether each is on.
    pub alarms: Vec<(&'static str, bool)>,
    /// The sessions with clients.
    pub clients: ClientReading,
    /// The `[[recipients]]` tables.
    pub recipients: Vec<RecipientReading>,
    /// The number of tasks of the runtime.
    pub tasks: usize,
    /// The figures of the process.
    pub process: Process,
}

/// The queue of one connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueReading {
    /// The name of the connector.
    pub connector: String,
    /// Recipients that wait for delivery.
    pub waiting: u64,
    /// Recipients held for an operator.
    pub held: u64,
    /// The age of the oldest recipient in seconds.
    pub oldest: u64,
}

/// One share of the delivery attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptsReading {
    /// The name of the share.
    pub share: &'static str,
    /// The most attempts that may run.
    pub most: u64,
    /// The attempts that run.
    pub running: u64,
    /// The slow ones among them.
    pub slow: u64,
    /// Destinations that wait because all attempts of the share are in use.
    pub waiting: u64,
}

/// The sessions with clients, each pair for `[relay] networks` and for strangers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientReading {
    /// The open sessions.
    pub sessions: [usize; 2],
    /// The limits of sessions: for all clients together, and for strangers.
    pub seats: [usize; 2],
    /// The listeners, each with whether its seats are scarce.
    pub short: Vec<(String, bool)>,
    /// Clients and networks that reached one of `[limits]` in the last hour.
    pub held: usize,
    /// The memory of the recipients in open transactions, in octets.
    pub transaction_memory: usize,
}

/// The reports to senders and to the postmaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportsReading {
    /// Messages whose report waits.
    pub waiting: u64,
    /// Failed messages that wait for the postmaster's digest.
    pub for_digest: u64,
    /// Reports that were stored.
    pub stored: u64,
    /// Reports that had to wait for the rate limit.
    pub delayed: u64,
    /// Recipients whose report was merged into another one.
    pub merged: u64,
    /// Digests that were stored.
    pub digests: u64,
    /// Messages of strangers that were added to a digest because too many reports waited.
    pub diverted: u64,
}

/// The size of the evidence and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceReading {
    /// The size of the records in octets.
    pub octets: u64,
    /// The limit in octets.
    pub max_octets: u64,
    /// True while new mail is rejected because of the limit.
    pub rejects_mail: bool,
    /// True while records wait because they cannot be written.
    pub stuck: bool,
}

/// The figures of the process, as the system reports them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Process {
    /// Resident memory in octets.
    pub resident: u64,
    /// Address space in octets.
    pub virtual_memory: u64,
    /// Processor time in seconds.
    pub cpu: f64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// The limit of open file descriptors.
    pub descriptors_max: u64,
    /// The number of threads.
    pub threads: u64,
    /// The start of the process in seconds since 1970.
    pub started: f64,
}

/// Writes all metrics as text.
pub(super) fn write(registry: &Registry, reading: &MetricsReading, format: Format) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode_registry(&mut text, registry);
    let _ = encode_registry(&mut text, &read(reading));
    let _ = encode_registry(&mut text, &process(&reading.process));
    match format {
        Format::OpenMetrics => text + "# EOF\n",
        Format::Classic => classic(&text),
    }
}

fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// Builds a registry for one request, so that values that no longer exist are not shown.
fn read(reading: &MetricsReading) -> Registry {
    let mut registry = Registry::with_prefix("gatepost");
    queue(&mut registry, &reading.queue);
    let gauge_of = |value: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        gauge
    };
    let help = "Destinations whose mail waits after a failed attempt";
    registry.register(
        "queue_troubled_destinations",
        help,
        gauge_of(number(reading.troubled)),
    );
    attempts(&mut registry, &reading.attempts);
    reports(&mut registry, reading.reports);
    if let Some(size) = reading.evidence {
        evidence(&mut registry, size);
    }
    let help =
        "1 while the spool is this relay's; at 0 new mail is rejected and no delivery starts";
    let owns = gauge_of(i64::from(reading.owns_spool));
    registry.register("spool_owned", help, owns);
    certificates(&mut registry, &reading.certificates);
    registry.register(
        "mta_sts_policies",
        "MTA-STS policies that are cached",
        gauge_of(number(reading.policies)),
    );
    let alarms = Family::<AlarmLabel, Gauge>::default();
    for (alarm, is_on) in &reading.alarms {
        alarms
            .get_or_create(&AlarmLabel { alarm })
            .set(i64::from(*is_on));
    }
    let help = "1 while many unrelated domains show the same fault: somebody may intercept our connections";
    registry.register("interception_alarm", help, alarms);
    clients(&mut registry, &reading.clients);
    recipient_reading::register(&mut registry, &reading.recipients);
    crl_reading::register(&mut registry, &reading.crls);
    registry.register(
        "runtime_tasks",
        "Tasks of the asynchronous runtime",
        gauge_of(number(reading.tasks)),
    );
    let version = Family::<VersionLabel, Gauge>::default();
    version
        .get_or_create(&VersionLabel {
            version: env!("CARGO_PKG_VERSION"),
        })
        .set(1);
    registry.register("build_info", "The version of Gatepost", version);
    registry
}

fn queue(registry: &mut Registry, readings: &[QueueReading]) {
    let (queued, oldest) = (
        Family::<QueueLabels, Gauge>::default(),
        Family::<ConnectorLabel, Gauge>::default(),
    );
    for queue in readings {
        for (state, count) in [("waiting", queue.waiting), ("held", queue.held)] {
            queued
                .get_or_create(&QueueLabels {
                    connector: queue.connector.clone(),
                    state,
                })
                .set(number(count));
        }
        oldest
            .get_or_create(&ConnectorLabel {
                connector: queue.connector.clone(),
            })
            .set(number(queue.oldest));
    }
    registry.register("queue_recipients", "Recipients in the queue", queued);
    let help = "Age of the oldest message in the queue";
    registry.register_with_unit("queue_oldest_age", help, Unit::Seconds, oldest);
}

fn certificates(registry: &mut Registry, read: &[(&'static str, String, Timestamp)]) {
    let certificates = Family::<CertificateLabels, Gauge>::default();
    for (owner, certificate, ends) in read {
        let label = CertificateLabels {
            owner,
            certificate: certificate.clone(),
        };
        certificates.get_or_create(&label).set(ends.as_second());
    }
    let help =
        "End of validity of certificates: our own by file, of partners (the earliest) by connector";
    registry.register_with_unit(
        "certificate_expiry_timestamp",
        help,
        Unit::Seconds,
        certificates,
    );
}

fn attempts(registry: &mut Registry, shares: &[AttemptsReading]) {
    let mut family = |name: &str, help: &str, value: fn(&AttemptsReading) -> u64| {
        let family = Family::<ShareLabel, Gauge>::default();
        for share in shares {
            family
                .get_or_create(&ShareLabel { share: share.share })
                .set(number(value(share)));
        }
        registry.register(name, help, family);
    };
    let help = "Delivery attempts under way, by share: destinations that connectors name, and others by their MX records";
    family("delivery_attempts", help, |share| share.running);
    let help = "Delivery attempts that have run for more than two seconds; most of these leave their place to others";
    family("delivery_attempts_slow", help, |share| share.slow);
    let help =
        "Delivery attempts that may be under way: the share's part of [limits] delivery_attempts";
    family("delivery_attempts_max", help, |share| share.most);
    let help = "Destinations whose mail is due and waits because all delivery attempts of the share are in use";
    family("delivery_destinations_waiting", help, |share| share.waiting);
}

fn clients(registry: &mut Registry, reading: &ClientReading) {
    let (sessions, seats) = (
        Family::<ClientsLabel, Gauge>::default(),
        Family::<ClientsLabel, Gauge>::default(),
    );
    for (at, clients) in [clients_label(true), clients_label(false)]
        .into_iter()
        .enumerate()
    {
        sessions
            .get_or_create(&ClientsLabel { clients })
            .set(number(reading.sessions[at]));
        seats
            .get_or_create(&ClientsLabel { clients })
            .set(number(reading.seats[at]));
    }
    registry.register(
        "inbound_sessions_now",
        "Open sessions, by group of clients",
        sessions,
    );
    let help = "Sessions that may be open: [limits] connections, and without what is reserved for [relay] networks";
    registry.register("inbound_sessions_limit", help, seats);
    let short = Family::<ListenerLabel, Gauge>::default();
    for (listener, is_short) in &reading.short {
        short
            .get_or_create(&ListenerLabel {
                listener: listener.clone(),
            })
            .set(i64::from(*is_short));
    }
    let help = "1 while seats are scarce on a listener, so that strangers get less time";
    registry.register("inbound_seats_scarce", help, short);
    let held_back = Gauge::<i64>::default();
    held_back.set(number(reading.held));
    let help = "Clients and networks that were held back by one of [limits] in the last hour";
    registry.register("inbound_clients_held_back", help, held_back);
    let memory = Gauge::<i64>::default();
    memory.set(number(reading.transaction_memory));
    let help = "Memory of the recipients in open transactions";
    registry.register_with_unit("inbound_transaction_memory", help, Unit::Bytes, memory);
}

fn evidence(registry: &mut Registry, reading: EvidenceReading) {
    let gauge_of = |value: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        gauge
    };
    let sizes = [
        ("evidence_size", "Size of the evidence", reading.octets),
        (
            "evidence_max_size",
            "The limit of the evidence: [evidence] max_size",
            reading.max_octets,
        ),
    ];
    for (name, help, octets) in sizes {
        registry.register_with_unit(name, help, Unit::Bytes, gauge_of(number(octets)));
    }
    let help = "1 while new mail is rejected because the evidence has reached its limit";
    let rejects = gauge_of(i64::from(reading.rejects_mail));
    registry.register("evidence_rejects_mail", help, rejects);
    let help = "1 while deliveries wait because their evidence cannot be written";
    let stuck = gauge_of(i64::from(reading.stuck));
    registry.register("evidence_stuck", help, stuck);
}

fn reports(registry: &mut Registry, reading: ReportsReading) {
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(number(value));
        registry.register(name, help, gauge);
    };
    let help = "Messages whose report to the sender waits, for other recipients' reports or for [limits] dsn_per_minute";
    gauge("dsn_waiting", help, reading.waiting);
    let help = "Failed messages that wait for the postmaster's next digest";
    gauge("dsn_digest_waiting", help, reading.for_digest);
    let mut counter = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    counter("dsn", "Reports to senders", reading.stored);
    counter(
        "dsn_delayed",
        "Reports to senders that waited for [limits] dsn_per_minute",
        reading.delayed,
    );
    counter(
        "dsn_merged",
        "Recipients whose report was merged into that of another recipient",
        reading.merged,
    );
    counter(
        "dsn_digests",
        "Digests of failed mail for the postmaster",
        reading.digests,
    );
    let help = "Messages of strangers in the postmaster's digest, because too many reports waited";
    counter("dsn_diverted", help, reading.diverted);
}

/// Builds the registry of the figures that every process shows under the same names.
fn process(process: &Process) -> Registry {
    let mut registry = Registry::with_prefix("process");
    let mut gauge = |name: &str, help: &str, unit: Option<Unit>, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(number(value));
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, gauge),
            None => registry.register(name, help, gauge),
        }
    };
    gauge(
        "resident_memory",
        "Resident memory",
        Some(Unit::Bytes),
        process.resident,
    );
    gauge(
        "virtual_memory",
        "Virtual memory",
        Some(Unit::Bytes),
        process.virtual_memory,
    );
    gauge(
        "open_fds",
        "Open file descriptors",
        None,
        process.descriptors,
    );
    gauge(
        "max_fds",
        "Most file descriptors that may be open",
        None,
        process.descriptors_max,
    );
    gauge(
        "threads",
        "Threads of the operating system",
        None,
        process.threads,
    );
    let start = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    start.set(process.started);
    registry.register_with_unit(
        "start_time",
        "Start of the process since the Unix epoch",
        Unit::Seconds,
        start,
    );
    let cpu = Counter::<f64, std::sync::atomic::AtomicU64>::default();
    cpu.inc_by(process.cpu);
    registry.register_with_unit(
        "cpu",
        "Processor time of user and system",
        Unit::Seconds,
        cpu,
    );
    registry
}

/// Converts to the older format: HELP and TYPE name a counter with `_total`, and there is no UNIT.
fn classic(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
            continue;
        }
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|typed| typed.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take() {
                let _ = writeln!(written, "# HELP {name}{suffix} {words}");
            }
            let _ = writeln!(written, "# TYPE {name}{suffix} {kind}");
            continue;
        }
        written.push_str(line);
        written.push('\n');
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_declares_counters_by_their_full_name() {
        let text = "# HELP a_bytes Octets.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{x=\"1\"} 5\n\
                    # HELP b Now.\n# TYPE b gauge\nb 1\n";
        let expected = "# HELP a_bytes_total Octets.\n# TYPE a_bytes_total counter\na_bytes_total{x=\"1\"} 5\n\
                        # HELP b Now.\n# TYPE b gauge\nb 1\n";
        assert_eq!(classic(text), expected);
    }

    #[test]
    fn values_read_on_request_have_their_names_and_units() {
        let queue = QueueReading {
            connector: "internet".to_owned(),
            waiting: 3,
            held: 1,
            oldest: 60,
        };
        let ends = Timestamp::from_second(1_800_000_000).expect("a time");
        let certificates = vec![("own", "relay.pem".to_owned(), ends)];
        let attempts = vec![AttemptsReading {
            share: "mx",
            most: 1200,
            running: 601,
            slow: 600,
            waiting: 3,
        }];
        let alarms = vec![("tls_lost", true)];
        let reading = MetricsReading {
            queue: vec![queue],
            certificates,
            attempts,
            alarms,
            evidence: Some(EvidenceReading {
                octets: 960,
                max_octets: 1000,
                rejects_mail: true,
                stuck: false,
            }),
            owns_spool: true,
            recipients: vec![RecipientReading {
                domains: "example.com".to_owned(),
                remembered: 12,
                pending: 3,
                is_in_trouble: true,
                unchecked_domains: 1,
            }],
            ..MetricsReading::default()
        };
        let text = write(&Registry::default(), &reading, Format::OpenMetrics);
        for line in [
            "gatepost_queue_recipients{connector=\"internet\",state=\"held\"} 1",
            "gatepost_delivery_attempts{share=\"mx\"} 601",
            "gatepost_delivery_attempts_slow{share=\"mx\"} 600",
            "gatepost_delivery_attempts_max{share=\"mx\"} 1200",
            "gatepost_delivery_destinations_waiting{share=\"mx\"} 3",
            "gatepost_queue_oldest_age_seconds{connector=\"internet\"} 60",
            "gatepost_certificate_expiry_timestamp_seconds{owner=\"own\",certificate=\"relay.pem\"} 1800000000",
            "gatepost_interception_alarm{alarm=\"tls_lost\"} 1",
            "gatepost_evidence_size_bytes 960",
            "gatepost_evidence_max_size_bytes 1000",
            "gatepost_evidence_rejects_mail 1",
            "gatepost_evidence_stuck 0",
            "gatepost_spool_owned 1",
            "gatepost_recipient_answers{domains=\"example.com\"} 12",
            "gatepost_recipient_questions{domains=\"example.com\"} 3",
            "gatepost_recipients_in_trouble{domains=\"example.com\"} 1",
            "gatepost_recipients_unchecked_domains{domains=\"example.com\"} 1",
            "# TYPE process_cpu_seconds counter",
        ] {
            assert!(
                text.lines().any(|written| written == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!write(&Registry::default(), &reading, Format::Classic).contains("# EOF"));
    }
}
