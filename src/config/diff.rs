//! Configurations as lists of keys and values, with every default filled in, for comparing two of
//! them.
//!
//! The keys are those of the file. Differences without a meaning, such as the order of tables or
//! the spelling of a size, disappear.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::limits_diff::{limit_settings, timeout_settings};
use super::recipients_diff::recipient_settings;
use super::setting::SettingValue;
use super::settings::{
    AdminConfig, AdminHttp, AdminSocket, Config, DnsConfig, Dnssec, ListenerConfig, ListenerTls,
    LogFormat, NetConfig, QueueConfig, SendReports, TlsConfig, TlsrptConfig, TrustAnchor,
    UsersConfig,
};
use super::spool_diff::{cluster_settings, evidence_settings, spool_settings};
use crate::policy::connector::{
    ClientProof, Connector, IdentityFiles, InboundConfig, LoginSecret, OnDowngrade, OnFailure,
    OutboundConfig, Publication, Route, ScheduleOverrides, SmartHostAuth, TlsDemand, TlsException,
    TokenGrant, TokenSettings, VerifyWanted, WarnAfter,
};
use crate::policy::location::Located;
use crate::policy::tls::TlsVersion;
use crate::smtp::address::Domain;

/// A key and its value, as in the file.
pub type KeyValue = (&'static str, SettingValue);

/// A table of the file, or the keys before the first table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The title: `[queue]`, `[[listener]] mx`, `[[connector]] partner`; empty for the keys before
    /// the first table.
    pub title: String,
    /// The pairs. Tables of one kind have the same keys in the same order.
    pub pairs: Vec<KeyValue>,
}

impl Section {
    fn new(title: impl Into<String>, pairs: Vec<KeyValue>) -> Self {
        Self {
            title: title.into(),
            pairs,
        }
    }
}

/// Returns all tables of a configuration, without the built-in connector.
#[must_use]
pub fn sections(config: &Config) -> Vec<Section> {
    // Destructured, so that a new table cannot be forgotten here.
    let Config {
        hostname,
        postmaster,
        tls,
        spool,
        database,
        listeners,
        relay,
        recipients,
        connectors,
        queue,
        limits,
        timeouts,
        dns,
        net,
        users,
        evidence,
        admin,
        tlsrpt,
        log,
        source: _,
    } = config;
    let mut all = vec![
        Section::new(
            "",
            vec![
                ("hostname", text(hostname)),
                ("postmaster", text(postmaster)),
            ],
        ),
        tls_section(tls),
        Section::new("[spool]", spool_settings(spool, database.as_ref())),
        Section::new("[cluster]", cluster_settings(database.as_ref())),
        Section::new(
            "[relay]",
            vec![
                ("networks", list(&relay.networks)),
                ("domains", list(&relay.domains)),
            ],
        ),
        queue_section(queue),
        Section::new("[limits]", limit_settings(limits)),
        Section::new("[timeouts]", timeout_settings(timeouts)),
        dns_section(dns),
        net_section(net),
        users_section(users.as_ref()),
        Section::new("[evidence]", evidence_settings(evidence)),
        admin_section(admin),
        tlsrpt_section(tlsrpt),
        Section::new(
            "[log]",
            vec![
                ("format", text(format(log.format.value))),
                ("level", text(&log.level)),
            ],
        ),
    ];
    all.extend(recipients.iter().map(|table| {
        let title = format!("[[recipients]] {}", table.name());
        Section::new(title, recipient_settings(table))
    }));
    all.extend(listeners.iter().map(|listener| listener_section(listener)));
    all.extend(
        connectors
            .iter()
            .map(|connector| connector_section(connector)),
    );
    all
}

/// Returns the table of a connector.
#[must_use]
pub fn connector_section(connector: &Connector) -> Section {
    let mut pairs = vec![("domains", list(&connector.domains))];
    pairs.extend(both_directions(connector));
    pairs.extend(outbound(connector));
    pairs.extend(inbound(connector));
    Section::new(format!("[[connector]] {}", connector.name), pairs)
}

/// The settings of a connector that affect mail to its domains.
#[must_use]
pub fn outbound_settings(connector: &Connector) -> Vec<KeyValue> {
    both_directions(connector)
        .into_iter()
        .chain(outbound(connector))
        .collect()
}

fn text(value: impl Display) -> SettingValue {
    SettingValue::text(value)
}

fn list<T: Display>(items: &[T]) -> SettingValue {
    SettingValue::list(items)
}

fn time(value: Duration) -> SettingValue {
    SettingValue::duration(value)
}

fn version(value: TlsVersion) -> SettingValue {
    text(match value {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    })
}

fn identity(files: Option<&IdentityFiles>) -> (SettingValue, SettingValue) {
    let path = |path: &std::path::Path| text(path.display());
    files.map_or((SettingValue::Unset, SettingValue::Unset), |files| {
        (path(&files.certificate.value), path(&files.key.value))
    })
}

fn tls_section(tls: &TlsConfig) -> Section {
    let (certificate, key) = identity(tls.identity.as_ref());
    let sni = tls.sni.iter().map(|sni| {
        let (certificate, key) = identity(Some(&sni.files));
        SettingValue::Table(vec![
            ("names", list(&sni.names)),
            ("certificate", certificate),
            ("key", key),
        ])
    });
    let pairs = vec![
        ("certificate", certificate),
        ("key", key),
        ("sni", SettingValue::List(sni.collect())),
        ("trust", SettingValue::trust(&tls.trust.value)),
        ("min_version", version(tls.min_version)),
    ];
    Section::new("[tls]", pairs)
}

fn queue_section(queue: &QueueConfig) -> Section {
    let pairs = vec![
        ("retry", steps(&queue.retry)),
        ("expire", time(queue.expire)),
        ("warn_after", delay(queue.warn_after)),
        ("dsn_gather", time(queue.dsn_gather)),
        ("postmaster_digest", time(queue.postmaster_digest)),
    ];
    Section::new("[queue]", pairs)
}

fn steps(retry: &[Duration]) -> SettingValue {
    SettingValue::List(retry.iter().map(|wait| time(*wait)).collect())
}

fn delay(warn_after: WarnAfter) -> SettingValue {
    match warn_after {
        WarnAfter::Never => text("never"),
        WarnAfter::Age(age) => time(age),
    }
}

fn dns_section(dns: &DnsConfig) -> Section {
    let servers: Vec<_> = dns.servers.iter().map(|server| server.value).collect();
    let dnssec = match dns.dnssec.value {
        Dnssec::Validate => "validate",
        Dnssec::Require => "require",
        Dnssec::TrustResolver => "trust-resolver",
        Dnssec::Off => "off",
    };
    let anchor = match &dns.trust_anchor {
        TrustAnchor::BuiltIn => SettingValue::Unset,
        TrustAnchor::File(file) => text(file.value.display()),
    };
    Section::new(
        "[dns]",
        vec![
            ("servers", list(&servers)),
            ("dnssec", text(dnssec)),
            ("trust_anchor", anchor),
        ],
    )
}

fn net_section(net: &NetConfig) -> Section {
    let proxy = net.http_proxy.as_ref();
    Section::new(
        "[net]",
        vec![("http_proxy", proxy.map_or(SettingValue::Unset, text))],
    )
}

fn users_section(users: Option<&UsersConfig>) -> Section {
    let file = users.map_or(SettingValue::Unset, |users| {
        text(users.file.value.display())
    });
    Section::new("[users]", vec![("file", file)])
}

fn admin_section(admin: &AdminConfig) -> Section {
    let socket = match &admin.socket.value {
        AdminSocket::Off => text(""),
        AdminSocket::Path(path) => text(path.display()),
    };
    let http = match admin.http.value {
        AdminHttp::Off => text(""),
        AdminHttp::Address(address) => text(address),
    };
    Section::new("[admin]", vec![("socket", socket), ("http", http)])
}

fn tlsrpt_section(reports: &TlsrptConfig) -> Section {
    let send = match reports.send.value {
        SendReports::Off => false,
        SendReports::Daily => true,
    };
    let dkim = reports.dkim.as_ref();
    let pairs = vec![
        ("send", send.into()),
        ("organization", text(&reports.organization)),
        ("contact", text(&reports.contact)),
        (
            "dkim_domain",
            dkim.map_or(SettingValue::Unset, |dkim| text(&dkim.domain)),
        ),
        (
            "dkim_selector",
            dkim.map_or(SettingValue::Unset, |dkim| text(&dkim.selector)),
        ),
        (
            "dkim_key",
            dkim.map_or(SettingValue::Unset, |dkim| text(dkim.file.value.display())),
        ),
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

fn listener_section(listener: &ListenerConfig) -> Section {
    let addresses: Vec<_> = listener
        .addresses
        .iter()
        .map(|address| &address.value)
        .collect();
    let tls = match listener.tls {
        ListenerTls::Off => "off",
        ListenerTls::Opportunistic => "opportunistic",
        ListenerTls::Forced => "forced",
        ListenerTls::Implicit => "implicit",
    };
    let pairs = vec![
        ("address", list(&addresses)),
        ("tls", text(tls)),
        (
            "request_client_certificate",
            listener.request_client_certificate.into(),
        ),
        ("proxy_protocol", list(&listener.proxy_protocol)),
        ("xclient", list(&listener.xclient)),
        (
            "connections",
            listener
                .connections
                .map_or(SettingValue::Unset, SettingValue::from),
        ),
        (
            "auth",
            SettingValue::list(listener.auth.iter().map(|one| one.name().to_lowercase())),
        ),
        ("auth_required", listener.auth_required.into()),
    ];
    Section::new(format!("[[listener]] {}", listener.name), pairs)
}

/// The settings for both directions.
fn both_directions(connector: &Connector) -> Vec<KeyValue> {
    vec![
        ("names", list(&connector.names)),
        ("trust", SettingValue::trust(&connector.trust.value)),
        ("pins", list(&connector.pins)),
        (
            "crl",
            SettingValue::list(connector.crl.iter().map(|file| file.value.display())),
        ),
    ]
}

/// The values of `tls`, `verify` and `min_version`.
fn demand_values(demand: TlsDemand) -> [SettingValue; 3] {
    match demand {
        TlsDemand::Off => [text("off"), SettingValue::Unset, SettingValue::Unset],
        TlsDemand::Opportunistic => [
            text("opportunistic"),
            SettingValue::Unset,
            SettingValue::Unset,
        ],
        TlsDemand::Forced {
            min_version,
            verify,
        } => {
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

/// Returns what a connector has of its own in place of settings of the relay.
fn own_values(
    source: &[IpAddr],
    ehlo: Option<&Domain>,
    schedule: &ScheduleOverrides,
) -> [KeyValue; 5] {
    let source = if source.is_empty() {
        SettingValue::Unset
    } else {
        list(source)
    };
    let retry = schedule.retry.as_deref();
    [
        ("outbound.source", source),
        ("outbound.ehlo", ehlo.map_or(SettingValue::Unset, text)),
        ("outbound.retry", retry.map_or(SettingValue::Unset, steps)),
        (
            "outbound.expire",
            schedule.expire.map_or(SettingValue::Unset, time),
        ),
        (
            "outbound.warn_after",
            schedule.warn_after.map_or(SettingValue::Unset, delay),
        ),
    ]
}

fn exception_value(exception: &TlsException) -> SettingValue {
    let [tls, ..] = demand_values(exception.tls);
    SettingValue::Table(vec![
        ("tls", tls),
        ("until", text(exception.until)),
        ("reason", text(&exception.reason)),
    ])
}

fn auth_value(SmartHostAuth { user, secret }: &SmartHostAuth) -> SettingValue {
    let secret = match secret {
        LoginSecret::Password(place) => ("password_file", text(&place.value)),
        LoginSecret::OAuth2(settings) => ("oauth2", SettingValue::Table(token_values(settings))),
    };
    SettingValue::Table(vec![("user", text(user)), secret])
}

/// Returns the settings of access tokens. The secrets themselves are in their files.
fn token_values(settings: &TokenSettings) -> Vec<KeyValue> {
    let file = |file: &Located<PathBuf>| text(file.value.display());
    let mut values = vec![
        ("grant", text(settings.grant.name())),
        ("token_url", text(&settings.token_url.value)),
    ];
    values.extend(
        settings
            .trust
            .as_ref()
            .map(|source| ("trust", SettingValue::trust(&source.value))),
    );
    values.extend(settings.scope.as_ref().map(|scope| ("scope", text(scope))));
    let proof = match &settings.grant {
        TokenGrant::ClientCredentials { client_id, proof } => {
            values.push(("client_id", text(client_id)));
            Some(proof)
        }
        TokenGrant::RefreshToken {
            client_id,
            proof,
            refresh_token_file,
        } => {
            values.push(("client_id", text(client_id)));
            values.push(("refresh_token_file", file(refresh_token_file)));
            proof.as_ref()
        }
        TokenGrant::JwtBearer {
            key_file,
            issuer,
            subject,
        } => {
            values.push(("key_file", file(key_file)));
            values.push(("issuer", text(issuer)));
            values.push(("subject", text(subject)));
            None
        }
    };
    match proof {
        Some(ClientProof::Secret(secret)) => values.push(("client_secret_file", file(secret))),
        Some(ClientProof::Certificate(files)) => {
            let (certificate, key) = identity(Some(files));
            values.extend([("certificate", certificate), ("key", key)]);
        }
        None => {}
    }
    values
}

fn outbound(connector: &Connector) -> Vec<KeyValue> {
    let OutboundConfig {
        route,
        tls,
        discover,
        downgrade,
        exception,
        revocation,
        on_failure,
        client_identity,
        groups,
        min_strength,
        connections,
        messages_per_connection,
        source,
        ehlo,
        auth,
        schedule,
    } = &connector.outbound;
    let own = own_values(source, ehlo.as_ref(), schedule);
    let (route, port) = match route {
        Route::Mx { port } => (text("mx"), u32::from(*port).into()),
        Route::SmartHosts(hosts) => (list(hosts), SettingValue::Unset),
    };
    let [tls, verify, min_version] = demand_values(*tls);
    let (certificate, key) = identity(client_identity.as_ref());
    let publication_name = |publication: &Publication| match publication {
        Publication::Dane => "dane",
        Publication::MtaSts => "mta-sts",
    };
    let exception = exception
        .as_ref()
        .map_or(SettingValue::Unset, exception_value);
    let downgrade = match downgrade {
        OnDowngrade::Allow => "allow",
        OnDowngrade::Warn => "warn",
        OnDowngrade::Refuse => "refuse",
    };
    let on_failure = match on_failure {
        OnFailure::Defer => "defer",
        OnFailure::Hold => "hold",
        OnFailure::Bounce => "bounce",
    };
    let mut values = vec![
        ("outbound.route", route),
        ("outbound.port", port),
        ("outbound.tls", tls),
        ("outbound.verify", verify),
        ("outbound.min_version", min_version),
        (
            "outbound.discover",
            SettingValue::list(discover.iter().map(publication_name)),
        ),
        ("outbound.downgrade", text(downgrade)),
        ("outbound.exception", exception),
        ("outbound.revocation", text(revocation)),
        ("outbound.on_failure", text(on_failure)),
        ("outbound.client_certificate", certificate),
        ("outbound.client_key", key),
        ("outbound.groups", text(groups)),
        ("outbound.min_strength", text(min_strength)),
        ("outbound.connections", (*connections).into()),
        (
            "outbound.messages_per_connection",
            (*messages_per_connection).into(),
        ),
    ];
    values.extend(own);
    let auth = auth.as_ref().map_or(SettingValue::Unset, auth_value);
    values.push(("outbound.auth", auth));
    values
}

fn inbound(connector: &Connector) -> Vec<KeyValue> {
    let InboundConfig {
        tls,
        revocation,
        networks,
        relay,
    } = &connector.inbound;
    let [tls, verify, min_version] = demand_values(*tls);
    vec![
        ("inbound.tls", tls),
        ("inbound.verify", verify),
        ("inbound.min_version", min_version),
        ("inbound.revocation", text(revocation)),
        ("inbound.networks", list(networks)),
        ("inbound.relay", (*relay).into()),
    ]
}

/// A key whose value has changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ChangedKey {
    /// The key.
    pub key: String,
    /// The old value, as in the file; `-` if it is not set.
    pub old: String,
    /// The new value.
    pub new: String,
}

/// Returns the keys with different values in two tables of one kind.
#[must_use]
pub fn changed_keys(old: &[KeyValue], new: &[KeyValue]) -> Vec<ChangedKey> {
    let differs = old.iter().zip(new).filter(|(old, new)| old.1 != new.1);
    differs
        .map(|(old, new)| ChangedKey {
            key: new.0.to_owned(),
            old: old.1.to_string(),
            new: new.1.to_string(),
        })
        .collect()
}
