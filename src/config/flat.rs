//! A configuration as plain pairs of key and value, with every default filled in: for comparing two of them.
//!
//! Keys are those of the file. What stands where it does not matter to the meaning (order of tables,
//! spelling of a size) is gone here.

use std::fmt::Display;
use std::time::Duration;

use super::{
    AdminSocket, Config, Connector, Dns, Dnssec, Downgrade, EvidencePath, IdentityFiles, Inbound, Limits, Listener,
    ListenerTls, LogFormat, OnFailure, Outbound, OwnTls, Publication, Queue, Route, SendReports, Timeouts, TlsDemand,
    TlsReports, Trust, TrustAnchor, VerifyWanted, WarnAfter,
};
use crate::tls::TlsVersion;

/// A key and its value, as in the file.
pub type Pair = (&'static str, String);

/// A table of the file, or all that stands outside of `[[listener]]` and `[[connector]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// `[queue]`, `[[listener]] mx`, `[[connector]] partner`; empty for what stands before the first table.
    pub title: String,
    /// Its pairs, always the same keys in the same order.
    pub pairs: Vec<Pair>,
}

impl Section {
    fn new(title: impl Into<String>, pairs: Vec<Pair>) -> Self {
        Self { title: title.into(), pairs }
    }
}

/// Every table of a configuration; the built-in connector is not among them.
#[must_use]
pub fn sections(config: &Config) -> Vec<Section> {
    // By name, so that no new table can be forgotten here.
    let Config {
        hostname,
        postmaster,
        tls: own,
        spool,
        listeners,
        relay,
        connectors,
        queue: waits,
        limits: bounds,
        timeouts: patience,
        dns: servers,
        evidence,
        admin,
        tlsrpt: reported,
        log,
        written: _,
    } = config;
    let socket = match &admin.socket.value {
        AdminSocket::Off => text(""),
        AdminSocket::Path(path) => text(path.display()),
    };
    let kept = match &evidence.path.value {
        EvidencePath::Off => text(""),
        EvidencePath::Folder(path) => text(path.display()),
    };
    let mut all = vec![
        Section::new("", vec![("hostname", text(hostname)), ("postmaster", text(postmaster))]),
        tls(own),
        Section::new("[spool]", vec![("path", text(spool.value.display()))]),
        Section::new("[relay]", vec![("networks", list(&relay.networks)), ("domains", list(&relay.domains))]),
        queue(waits),
        limits(bounds),
        timeouts(patience),
        dns(servers),
        Section::new("[evidence]", vec![("path", kept), ("keep", time(evidence.keep))]),
        Section::new("[admin]", vec![("socket", socket)]),
        tlsrpt(reported),
        Section::new("[log]", vec![("format", text(format(log.format.value))), ("level", text(&log.level))]),
    ];
    all.extend(listeners.iter().map(listener));
    all.extend(connectors.iter().map(|connector| {
        let mut pairs = vec![("domains", list(&connector.domains))];
        pairs.extend(partner(connector));
        pairs.extend(outbound(connector));
        pairs.extend(inbound(connector));
        Section::new(format!("[[connector]] {}", connector.name), pairs)
    }));
    all
}

/// What of a connector decides how mail to its domains goes.
#[must_use]
pub fn treatment(connector: &Connector) -> Vec<Pair> {
    partner(connector).into_iter().chain(outbound(connector)).collect()
}

fn text(value: impl Display) -> String {
    format!("\"{value}\"")
}

fn list<T: Display>(items: &[T]) -> String {
    format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(", "))
}

fn number(value: impl Display) -> String {
    value.to_string()
}

fn time(value: Duration) -> String {
    text(humantime::format_duration(value))
}

fn version(value: TlsVersion) -> String {
    text(match value {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    })
}

fn trust(value: &Trust) -> String {
    match value {
        Trust::Webpki => text("webpki"),
        Trust::System => text("system"),
        Trust::File(path) => text(path.display()),
    }
}

fn identity(files: Option<&IdentityFiles>) -> (String, String) {
    let path = |path: &std::path::Path| text(path.display());
    files.map_or((none(), none()), |files| (path(&files.certificate.value), path(&files.key.value)))
}

/// A key that is not set.
fn none() -> String {
    "-".to_owned()
}

fn tls(tls: &OwnTls) -> Section {
    let (certificate, key) = identity(tls.identity.as_ref());
    let sni = tls.sni.iter().map(|sni| {
        let (certificate, key) = identity(Some(&sni.files));
        format!("{{ names = {}, certificate = {certificate}, key = {key} }}", list(&sni.names))
    });
    let sni: Vec<_> = sni.collect();
    let pairs = vec![
        ("certificate", certificate),
        ("key", key),
        ("sni", format!("[{}]", sni.join(", "))),
        ("trust", trust(&tls.trust.value)),
        ("min_version", version(tls.min_version)),
    ];
    Section::new("[tls]", pairs)
}

fn queue(queue: &Queue) -> Section {
    let retry: Vec<_> = queue.retry.iter().map(|wait| humantime::format_duration(*wait)).collect();
    let warn_after = match queue.warn_after {
        WarnAfter::Never => text("never"),
        WarnAfter::Age(age) => time(age),
    };
    let pairs = vec![
        ("retry", list(&retry)),
        ("expire", time(queue.expire)),
        ("warn_after", warn_after),
        ("dsn_gather", time(queue.dsn_gather)),
        ("postmaster_digest", time(queue.postmaster_digest)),
    ];
    Section::new("[queue]", pairs)
}

fn limits(limits: &Limits) -> Section {
    let clients = &limits.clients;
    let pairs = vec![
        ("message_size", number(limits.message_size)),
        ("recipients", number(limits.recipients)),
        ("connections", number(clients.connections)),
        ("connections_per_client", number(clients.connections_per_client)),
        ("connections_per_network", number(clients.connections_per_network)),
        ("connections_reserved", number(clients.connections_reserved)),
        ("connections_per_minute", number(clients.connections_per_minute)),
        ("messages_per_minute", number(clients.messages_per_minute)),
        ("recipients_per_minute", number(clients.recipients_per_minute)),
        ("handshakes_per_minute", number(clients.handshakes_per_minute)),
        ("transaction_memory", number(limits.transaction_memory.all)),
        ("transaction_memory_per_session", number(limits.transaction_memory.per_session)),
        ("errors", number(limits.errors)),
        ("received", number(limits.received)),
        ("delivery_attempts", number(limits.delivery_attempts)),
        ("delivery_attempt_time", time(limits.delivery_attempt_time)),
        ("dsn_per_minute", number(limits.dsn_per_minute)),
        ("dsn_per_minute_per_domain", number(limits.dsn_per_minute_per_domain)),
    ];
    Section::new("[limits]", pairs)
}

fn timeouts(timeouts: &Timeouts) -> Section {
    let pairs = vec![
        ("command", time(timeouts.command)),
        ("data_block", time(timeouts.data_block)),
        ("data_rate", number(timeouts.data_rate)),
        ("message", time(timeouts.message)),
        ("handshake", time(timeouts.handshake)),
        ("connect", time(timeouts.connect)),
        ("reply", time(timeouts.reply)),
        ("final_reply", time(timeouts.final_reply)),
        ("drain", time(timeouts.drain)),
    ];
    Section::new("[timeouts]", pairs)
}

fn dns(dns: &Dns) -> Section {
    let servers: Vec<_> = dns.servers.iter().map(|server| server.value).collect();
    let dnssec = match dns.dnssec.value {
        Dnssec::Validate => "validate",
        Dnssec::Require => "require",
        Dnssec::TrustResolver => "trust-resolver",
        Dnssec::Off => "off",
    };
    let anchor = match &dns.trust_anchor {
        TrustAnchor::BuiltIn => none(),
        TrustAnchor::File(file) => text(file.value.display()),
    };
    Section::new("[dns]", vec![("servers", list(&servers)), ("dnssec", text(dnssec)), ("trust_anchor", anchor)])
}

fn tlsrpt(reports: &TlsReports) -> Section {
    let send = match reports.send.value {
        SendReports::Off => false,
        SendReports::Daily => true,
    };
    let dkim = reports.dkim.as_ref();
    let pairs = vec![
        ("send", number(send)),
        ("organization", text(&reports.organization)),
        ("contact", text(&reports.contact)),
        ("dkim_domain", dkim.map_or_else(none, |dkim| text(&dkim.domain))),
        ("dkim_selector", dkim.map_or_else(none, |dkim| text(&dkim.selector))),
        ("dkim_key", dkim.map_or_else(none, |dkim| text(dkim.file.value.display()))),
    ];
    Section::new("[tlsrpt]", pairs)
}

fn format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
        LogFormat::Journald => "journald",
    }
}

fn listener(listener: &Listener) -> Section {
    let addresses: Vec<_> = listener.addresses.iter().map(|address| &address.value).collect();
    let tls = match listener.tls {
        ListenerTls::Off => "off",
        ListenerTls::Opportunistic => "opportunistic",
        ListenerTls::Forced => "forced",
        ListenerTls::Implicit => "implicit",
    };
    let pairs = vec![
        ("address", list(&addresses)),
        ("tls", text(tls)),
        ("request_client_certificate", number(listener.request_client_certificate)),
        ("proxy_protocol", list(&listener.proxy_protocol)),
        ("xclient", list(&listener.xclient)),
        ("connections", listener.connections.map_or_else(none, number)),
    ];
    Section::new(format!("[[listener]] {}", listener.name), pairs)
}

/// What concerns both directions.
fn partner(connector: &Connector) -> Vec<Pair> {
    vec![("names", list(&connector.names)), ("trust", trust(&connector.trust.value)), ("pins", list(&connector.pins))]
}

/// `tls`, `verify` and `min_version`.
fn demand(demand: TlsDemand) -> [String; 3] {
    match demand {
        TlsDemand::Off => [text("off"), none(), none()],
        TlsDemand::Opportunistic => [text("opportunistic"), none(), none()],
        TlsDemand::Forced { min_version, verify } => {
            let verify = match verify {
                VerifyWanted::None => "none",
                VerifyWanted::Chain => "chain",
                VerifyWanted::Name => "name",
                VerifyWanted::Dane => "dane",
                VerifyWanted::Pin => "pin",
            };
            [text("forced"), text(verify), version(min_version)]
        }
    }
}

fn outbound(connector: &Connector) -> Vec<Pair> {
    let Outbound {
        route,
        tls,
        discover,
        downgrade,
        exception,
        on_failure,
        client_identity,
        groups,
        min_strength,
        connections,
        messages_per_connection,
    } = &connector.outbound;
    let (route, port) = match route {
        Route::Mx { port } => (text("mx"), number(port)),
        Route::SmartHosts(hosts) => (list(hosts), none()),
    };
    let [tls, verify, min_version] = demand(*tls);
    let (certificate, key) = identity(client_identity.as_ref());
    let published = |publication: &Publication| match publication {
        Publication::Dane => "dane",
        Publication::MtaSts => "mta-sts",
    };
    let exception = exception.as_ref().map_or_else(none, |exception| {
        let [tls, ..] = demand(exception.tls);
        format!("{{ tls = {tls}, until = \"{}\", reason = \"{}\" }}", exception.until, exception.reason)
    });
    let downgrade = match downgrade {
        Downgrade::Allow => "allow",
        Downgrade::Warn => "warn",
        Downgrade::Refuse => "refuse",
    };
    let on_failure = match on_failure {
        OnFailure::Defer => "defer",
        OnFailure::Hold => "hold",
        OnFailure::Bounce => "bounce",
    };
    vec![
        ("outbound.route", route),
        ("outbound.port", port),
        ("outbound.tls", tls),
        ("outbound.verify", verify),
        ("outbound.min_version", min_version),
        ("outbound.discover", list(&discover.iter().map(published).collect::<Vec<_>>())),
        ("outbound.downgrade", text(downgrade)),
        ("outbound.exception", exception),
        ("outbound.on_failure", text(on_failure)),
        ("outbound.client_certificate", certificate),
        ("outbound.client_key", key),
        ("outbound.groups", text(groups)),
        ("outbound.min_strength", text(min_strength)),
        ("outbound.connections", number(connections)),
        ("outbound.messages_per_connection", number(messages_per_connection)),
    ]
}

fn inbound(connector: &Connector) -> Vec<Pair> {
    let Inbound { tls, networks, relay } = &connector.inbound;
    let [tls, verify, min_version] = demand(*tls);
    vec![
        ("inbound.tls", tls),
        ("inbound.verify", verify),
        ("inbound.min_version", min_version),
        ("inbound.networks", list(networks)),
        ("inbound.relay", number(relay)),
    ]
}

/// A key whose value is another.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ChangedKey {
    /// The key.
    pub key: String,
    /// Its value in the old configuration, as in a file; `-` where it is not set.
    pub old: String,
    /// Its value in the new one.
    pub new: String,
}

/// The keys of two tables of one kind that differ.
#[must_use]
pub fn changed(old: &[Pair], new: &[Pair]) -> Vec<ChangedKey> {
    let differs = old.iter().zip(new).filter(|(old, new)| old.1 != new.1);
    differs.map(|(old, new)| ChangedKey { key: new.0.to_owned(), old: old.1.clone(), new: new.1.clone() }).collect()
}
