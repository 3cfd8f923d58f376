//! Valid configurations: their meaning, and the documented defaults.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gatepost::config::{
    self, AdminHttp, AdminSocket, Config, Connector, Dnssec, DomainPattern, EvidenceLimit,
    EvidencePath, Fault, ListenAddress, ListenerTls, LogFormat, LoginSecret, OnDowngrade,
    OnFailure, Publication, Rate, Route, ScheduleOverrides, SecretPlace, SendReports, TlsDemand,
    TransactionMemory, TrustAnchor, TrustSource, VerifyWanted, WarnAfter,
};
use gatepost::policy::tls::{Pin, Revocation, Strength, TlsVersion};

use crate::support::config::ConfigBuilder;

fn read(path: &str) -> (Config, Vec<Fault>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    config::read(&path).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

fn has_the_documented_tables(config: &Config) {
    assert_eq!(config.tls.trust.value, TrustSource::Webpki);
    assert_eq!(config.tls.min_version, TlsVersion::V1_2);
    assert_eq!(config.spool.value, Path::new("/var/spool/gatepost"));
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].tls, ListenerTls::Opportunistic);
    assert!(config.listeners[0].request_client_certificate);
    assert_eq!(texts(&config.relay.networks), ["127.0.0.0/8", "::1/128"]);
    assert!(config.relay.domains.is_empty() && config.recipients.is_empty());
    assert!(config.dns.servers.is_empty());
    assert_eq!(config.dns.dnssec.value, Dnssec::Validate);
    assert_eq!(config.dns.trust_anchor, TrustAnchor::BuiltIn);
    assert_eq!(
        config.admin.socket.value,
        AdminSocket::Path("/run/gatepost/admin.sock".into())
    );
    assert_eq!(
        config.evidence.path.value,
        EvidencePath::Folder("/var/lib/gatepost/evidence".into())
    );
    assert_eq!(config.evidence.keep, minutes(400 * 24 * 60));
    assert_eq!(config.evidence.max_size.octets(), 50 << 30);
    assert_eq!(
        config.admin.http.value,
        AdminHttp::Address("127.0.0.1:9025".parse().expect("an address"))
    );
    assert_eq!(config.tlsrpt.send.value, SendReports::Off);
    assert_eq!(config.tlsrpt.organization, "relay.example.com");
    assert_eq!(config.tlsrpt.contact.to_string(), "postmaster@example.com");
    assert_eq!(config.tlsrpt.dkim, None);
    assert_eq!(config.log.format.value, LogFormat::Auto);
    assert_eq!(config.log.level, "info");
}

fn has_the_documented_connector(config: &Config) {
    let connector = &config.connectors[0];
    assert_eq!(connector.domains, [DomainPattern::Any]);
    assert!(connector.names.is_empty());
    assert_eq!(connector.trust.value, TrustSource::Webpki);
    assert_eq!(connector.outbound.route, Route::Mx { port: 25 });
    assert_eq!(connector.outbound.tls, TlsDemand::Opportunistic);
    assert_eq!(connector.outbound.on_failure, OnFailure::Defer);
    assert_eq!(
        connector.outbound.discover,
        [Publication::Dane, Publication::MtaSts]
    );
    assert_eq!(
        (connector.outbound.downgrade, &connector.outbound.exception),
        (OnDowngrade::Warn, &None)
    );
    assert!(connector.pins.is_empty());
    assert_eq!(connector.outbound.client_identity, None);
    assert_eq!(
        (
            connector.outbound.connections,
            connector.outbound.messages_per_connection
        ),
        (20, 100)
    );
    assert_eq!(connector.inbound.tls, TlsDemand::Opportunistic);
    assert!(connector.inbound.networks.is_empty() && !connector.inbound.relay);
}

fn has_the_documented_limits(config: &Config) {
    assert_eq!(
        config.queue.retry,
        [1, 5, 15, 30, 60, 120, 240].map(minutes)
    );
    assert_eq!(config.queue.expire, minutes(5 * 24 * 60));
    assert_eq!(
        (config.queue.dsn_gather, config.queue.postmaster_digest),
        (Duration::from_secs(30), minutes(60))
    );

    let limits = &config.limits;
    assert_eq!(
        (limits.message_size, limits.recipients),
        (50 * 1024 * 1024, 1000)
    );
    let clients = &limits.clients;
    assert_eq!(
        (clients.connections, clients.connections_reserved),
        (4000, 400)
    );
    assert_eq!(
        (
            clients.connections_per_client,
            clients.connections_per_network
        ),
        (100, 500)
    );
    assert_eq!(
        Rate::ALL.map(|rate| clients.per_minute(rate)),
        [120, 600, 6000, 240, 60, 60]
    );
    assert_eq!(
        Rate::ALL.map(|rate| clients.per_network_and_minute(rate)),
        [600, 3000, 30_000, 1200, 300, 300]
    );
    assert_eq!(config.seats(&config.listeners[0]), 3600);
    assert_eq!(
        limits.transaction_memory,
        TransactionMemory {
            all: 128 << 20,
            per_session: 512 << 10
        }
    );
    assert_eq!((limits.errors, limits.received), (20, 100));
    assert_eq!(
        (limits.delivery_attempts, limits.delivery_attempt_time),
        (2000, minutes(30))
    );
    assert_eq!(
        (limits.dsn_per_minute, limits.dsn_per_minute_per_domain),
        (600, 60)
    );

    let timeouts = &config.timeouts;
    assert_eq!(
        (timeouts.command, timeouts.data_block, timeouts.data_rate),
        (minutes(5), minutes(3), 1024)
    );
    assert_eq!(timeouts.message, minutes(30));
    assert_eq!(
        (timeouts.handshake, timeouts.connect),
        (Duration::from_secs(30), Duration::from_secs(30))
    );
    assert_eq!(
        (timeouts.reply, timeouts.final_reply),
        (minutes(5), minutes(10))
    );
    assert_eq!(timeouts.drain, Duration::from_secs(30));
}

#[test]
fn defaults_are_the_documented_values() {
    for file in [
        "tests/it/config_good/documented.toml",
        "tests/it/config_good/least.toml",
    ] {
        let (config, warnings) = read(file);
        assert_eq!(warnings, [], "{file}");
        has_the_documented_tables(&config);
        has_the_documented_connector(&config);
        has_the_documented_limits(&config);
    }
}

#[test]
fn the_built_in_connector_is_a_connector_without_keys() {
    let (config, _) = read("tests/it/config_good/least.toml");
    let mut default = config::default_connector(&config.tls.trust)
        .as_ref()
        .clone();
    assert_eq!(default.name, "default");
    default.name = "internet".to_owned();
    assert_eq!(
        format!("{default:?}"),
        format!("{:?}", config.connectors[0])
    );
}

#[test]
fn values_are_resolved() {
    let (config, warnings) = read("tests/it/config_good/partners.toml");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config_good");
    assert_eq!(warnings, []);
    assert_eq!(config.hostname.as_str(), "relay.xn--bcher-kva.example");
    assert_eq!(config.postmaster.to_string(), "\"post master\"@example.com");
    let servers: Vec<_> = config
        .dns
        .servers
        .iter()
        .map(|server| server.value)
        .collect();
    assert_eq!(
        texts(&servers),
        ["127.0.0.1:5353", "[2001:db8::53]:53", "[2001:db8::54]:54"]
    );
    let TrustAnchor::File(anchor) = &config.dns.trust_anchor else {
        panic!("{:?}", config.dns.trust_anchor)
    };
    assert_eq!(anchor.value, folder.join("root.key"));
    assert_eq!(config.log.level, "warn,gatepost::outbound=debug");
    assert_eq!(config.admin.socket.value, AdminSocket::Off);
    assert_eq!(config.evidence.path.value, EvidencePath::Off);
    assert_eq!(config.evidence.keep, Duration::from_hours(48));
    assert_eq!(config.evidence.max_size, EvidenceLimit::Default);
    assert_eq!(config.admin.http.value, AdminHttp::Off);
    assert_eq!(config.spool.value, folder.join("spool"));
    assert_eq!(
        config.spool.location.to_string(),
        format!("{}:6:14", folder.join("partners.toml").display())
    );

    let identity = config.tls.identity.as_ref().expect("a certificate");
    assert_eq!(
        identity.certificate.value,
        PathBuf::from("/etc/gatepost/relay.pem")
    );
    assert_eq!(identity.key.value, folder.join("relay.key"));
    assert_eq!(
        texts(&config.tls.sni[0].names),
        ["mx.example.net", "*.example.net"]
    );
    assert_eq!(config.tls.sni[0].files.key.value, folder.join("net.key"));

    let addresses: Vec<_> = config.listeners[0]
        .addresses
        .iter()
        .map(|address| &address.value)
        .collect();
    assert_eq!(texts(&addresses), ["[::]:25", "192.0.2.1:26", "systemd:mx"]);
    assert_eq!(config.listeners[1].tls, ListenerTls::Implicit);
    assert!(!config.listeners[1].request_client_certificate);
    assert_eq!(
        texts(&config.relay.networks),
        ["10.0.0.0/8", "2001:db8::7/128"]
    );
    assert_eq!(
        texts(&config.relay.domains),
        ["example.com", "*.example.com"]
    );
    assert_eq!(
        config.queue.retry,
        [Duration::from_secs(90), Duration::from_mins(90)]
    );
}

/// DNS names may have underscores, and some partners' names do.
#[test]
fn every_name_may_have_an_underscore() {
    let text = "hostname = \"relay.example.com\"\npostmaster = \"p@mail_1.example.com\"\n[[listener]]\nname = \"mx\"\n\
                address = [\"127.0.0.1:2525\"]\ntls = \"off\"\n[relay]\ndomains = [\"our_own.example\", \"*.our_own.example\"]\n\
                [[connector]]\nname = \"partner\"\ndomains = [\"a_b.example\", \"*.a_b.example\"]\n\
                names = [\"mail_1.a_b.example\", \"*.a_b.example\"]\n[connector.outbound]\n\
                route = [\"mail_1.a_b.example:25\"]\ntls = \"forced\"\nverify = \"name\"\n";
    let (config, warnings) = config::parse(text, Path::new("gatepost.toml"))
        .unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(warnings, []);
    assert_eq!(config.postmaster.to_string(), "p@mail_1.example.com");
    assert_eq!(
        texts(&config.relay.domains),
        ["our_own.example", "*.our_own.example"]
    );
    let partner = &config.connectors[0];
    assert_eq!(texts(&partner.domains), ["a_b.example", "*.a_b.example"]);
    assert_eq!(
        texts(&partner.names),
        ["mail_1.a_b.example", "*.a_b.example"]
    );
    let Route::SmartHosts(hosts) = &partner.outbound.route else {
        panic!("a smart host is written")
    };
    assert_eq!(texts(hosts), ["mail_1.a_b.example:25"]);
}

#[test]
fn tlsrpt_settings_are_resolved() {
    let (config, _) = read("tests/it/config_good/partners.toml");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config_good");
    let reports = &config.tlsrpt;
    assert_eq!(reports.send.value, SendReports::Daily);
    assert_eq!(
        (
            reports.organization.as_str(),
            reports.contact.to_string().as_str()
        ),
        ("Bücher AG", "tls@mail.example.com")
    );
    assert_eq!(reports.submitter.as_str(), "mail.example.com");
    let key = reports.dkim.as_ref().expect("a key");
    assert_eq!(
        (key.domain.as_str(), key.selector.as_str()),
        ("example.com", "2026.reports")
    );
    assert_eq!(key.file.value, folder.join("dkim.pem"));
}

/// Strangers at the only listener may use every seat that is not reserved, and three quarters of
/// them where there are several listeners. A listener's own limit never reaches into the reserve.
#[test]
fn a_listener_has_its_part_of_the_seats() {
    let limits = "connections = 13\nconnections_reserved = 3";
    let other = "name = \"other\"\naddress = [\"127.0.0.1:2526\"]\ntls = \"off\"";
    for (own_limit, expected) in [
        (None, &[10][..]),
        (Some(""), &[8, 8]),
        (Some("\nconnections = 2"), &[8, 2]),
        (Some("\nconnections = 13"), &[8, 10]),
    ] {
        let mut builder = ConfigBuilder::new().table("limits", limits);
        if let Some(own_limit) = own_limit {
            builder = builder.table("[listener]", &format!("{other}{own_limit}"));
        }
        let config = builder.parse();
        let listeners = config.listeners.iter();
        let seats: Vec<_> = listeners.map(|listener| config.seats(listener)).collect();
        assert_eq!(seats, expected, "{own_limit:?}");
    }
}

/// The four connectors of `partners.toml`: with smart hosts, a partner's, without TLS, with pins.
fn partners() -> [Arc<Connector>; 4] {
    let (config, _) = read("tests/it/config_good/partners.toml");
    config
        .connectors
        .try_into()
        .unwrap_or_else(|_| panic!("four connectors are written"))
}

#[test]
fn a_connector_with_smart_hosts_is_resolved() {
    let [smart, ..] = partners();
    let Route::SmartHosts(hosts) = &smart.outbound.route else {
        panic!("smart hosts are written")
    };
    let meant = [
        "mx1.example.org:25",
        "[192.0.2.7]:587",
        "[IPv6:2001:db8::1]:25",
        "[IPv6:2001:db8::1]:26",
        "[10.0.0.5]:25",
    ];
    assert_eq!(texts(hosts), meant);
    let chain = TlsDemand::Forced {
        min_version: TlsVersion::V1_3,
        verify: VerifyWanted::Chain,
    };
    assert_eq!(smart.outbound.tls, chain);
    assert_eq!(smart.outbound.on_failure, OnFailure::Bounce);
    assert_eq!(
        smart.trust.value,
        TrustSource::System,
        "the default trust of this file"
    );
    assert_eq!(smart.inbound.tls, TlsDemand::Opportunistic);
    assert_eq!(smart.outbound.discover, [Publication::MtaSts]);
    assert_eq!(smart.outbound.downgrade, OnDowngrade::Refuse);
    let exception = smart.outbound.exception.as_ref().expect("an exception");
    let any = TlsDemand::Forced {
        min_version: TlsVersion::V1_3,
        verify: VerifyWanted::None,
    };
    assert_eq!(
        (exception.tls, exception.until.to_string().as_str()),
        (any, "2027-01-31")
    );
    assert_eq!(exception.reason, "their new gateway, ticket 4711");
}

#[test]
fn a_partners_connector_is_resolved() {
    let [_, partner, ..] = partners();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config_good");
    let name = TlsDemand::Forced {
        min_version: TlsVersion::V1_2,
        verify: VerifyWanted::Name,
    };
    assert_eq!((partner.outbound.tls, partner.inbound.tls), (name, name));
    assert_eq!(texts(&partner.domains), ["domain-c.com", "*.domain-c.com"]);
    assert_eq!(
        texts(&partner.names),
        ["mail.domain-c.com", "*.mx.domain-c.com"]
    );
    assert_eq!(
        partner.trust.value,
        TrustSource::File(folder.join("partner-ca.pem"))
    );
    assert_eq!(partner.outbound.route, Route::Mx { port: 2525 });
    assert_eq!(
        (
            partner.outbound.connections,
            partner.outbound.messages_per_connection
        ),
        (2, 1)
    );
    let client = partner
        .outbound
        .client_identity
        .as_ref()
        .expect("a client certificate");
    assert_eq!(client.certificate.value, folder.join("client.pem"));
    assert_eq!(texts(&partner.inbound.networks), ["203.0.113.0/24"]);
    assert!(partner.inbound.relay);
    // What is written for both directions holds where a direction has nothing of its own.
    assert_eq!(
        (partner.outbound.revocation, partner.inbound.revocation),
        (Revocation::IfKnown, Revocation::Required)
    );
    let crls: Vec<_> = partner.crl.iter().map(|file| file.value.clone()).collect();
    assert_eq!(
        crls,
        [
            folder.join("partner.crl"),
            folder.join("partner-issuing.crl")
        ]
    );
}

#[test]
fn a_connectors_own_source_name_and_schedule_are_resolved() {
    let [smart, partner, ..] = partners();
    assert_eq!(
        texts(&partner.outbound.source),
        ["192.0.2.10", "2001:db8::10"]
    );
    let name = partner.outbound.ehlo.as_ref().map(ToString::to_string);
    assert_eq!(name.as_deref(), Some("relay2.example.com"));
    let own = ScheduleOverrides {
        retry: Some(vec![minutes(5), minutes(30)]),
        expire: Some(minutes(24 * 60)),
        warn_after: Some(WarnAfter::Never),
    };
    assert_eq!(partner.outbound.schedule, own);
    let (config, _) = read("tests/it/config_good/partners.toml");
    let (one, other) = (
        config.queue.schedule(&partner),
        config.queue.schedule(&smart),
    );
    assert_eq!(
        (one.expire, one.warn_after),
        (minutes(24 * 60), WarnAfter::Never)
    );
    assert_eq!(
        (other.retry, other.expire),
        (&config.queue.retry[..], config.queue.expire)
    );
}

#[test]
fn the_strengths_of_the_key_exchange_are_resolved() {
    let [smart, partner, _, pinned] = partners();
    let strengths =
        |connector: &Arc<Connector>| (connector.outbound.groups, connector.outbound.min_strength);
    assert_eq!(
        [&partner, &pinned, &smart].map(strengths),
        [
            (Strength::PostQuantum, Strength::PostQuantum),
            (Strength::Classical, Strength::Classical),
            (Strength::PostQuantum, Strength::Classical),
        ]
    );
}

#[test]
fn a_connector_without_tls_discovers_nothing() {
    let [_, _, none, _] = partners();
    assert_eq!(none.outbound.tls, TlsDemand::Off);
    assert!(
        none.outbound.discover.is_empty(),
        "nothing can raise a demand for no TLS"
    );
}

#[test]
fn a_connector_with_pins_is_resolved() {
    let [.., pinned] = partners();
    assert_eq!(pinned.pins, [Pin::new([9; 32]), Pin::new([10; 32])]);
    let forced = |verify| TlsDemand::Forced {
        min_version: TlsVersion::V1_2,
        verify,
    };
    assert_eq!(
        (pinned.outbound.tls, pinned.inbound.tls),
        (forced(VerifyWanted::Dane), forced(VerifyWanted::Pin))
    );
}

#[test]
fn the_sample_is_valid_without_warnings() {
    let (config, warnings) = read("config/gatepost.toml");
    assert_eq!(warnings, []);
    for address in config
        .listeners
        .iter()
        .flat_map(|listener| &listener.addresses)
    {
        let ListenAddress::Bind(address) = &address.value else {
            panic!("the sample needs no systemd: {address:?}")
        };
        assert!(
            address.ip().is_loopback() && address.port() > 1023,
            "the sample needs no privilege"
        );
    }
    assert_eq!(
        texts(&config.relay.networks),
        ["127.0.0.1/32"],
        "127.0.0.2 is to be a stranger"
    );
    // The sample writes out the defaults, as it says.
    assert_eq!(config.evidence.keep, Duration::from_hours(400 * 24));
    assert_eq!(config.evidence.max_size.octets(), 50 << 30);
    assert_eq!(config.queue.expire, Duration::from_hours(5 * 24));
    assert_eq!(config.limits.message_size, 50 << 20);
}

#[test]
fn the_packaged_configuration_is_valid_without_warnings() {
    let (config, warnings) = read("config/package/gatepost.toml");
    assert_eq!(warnings, []);
    let addresses: Vec<_> = config.listeners[0]
        .addresses
        .iter()
        .map(|address| &address.value)
        .collect();
    assert_eq!(
        addresses,
        [&ListenAddress::Systemd("mx".to_owned())],
        "gatepost.socket names it so"
    );
    assert_eq!(
        texts(&config.relay.networks),
        ["127.0.0.0/8", "::1/128"],
        "nobody else may relay"
    );
    assert!(config.relay.domains.is_empty());
}

#[test]
fn the_manual_page_knows_every_key() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: &str| std::fs::read_to_string(folder.join(path)).expect("it is there");
    let page = text("config/package/gatepost.toml.5");
    let named = |line: &&str| line.starts_with(".B") || line.starts_with(".SH [");
    let named: Vec<_> = page.lines().filter(named).collect();
    for file in ["documented", "partners", "recipients"] {
        let text = text(&format!("tests/it/config_good/{file}.toml"));
        let key = |line: &str| {
            line.split_once(" =")
                .map(|(key, _)| key.trim_start_matches(['#', ' ']).to_owned())
        };
        for key in text
            .lines()
            .filter_map(key)
            .filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        {
            let is_it = |word: &str| word.trim_matches(['[', ']', ',']) == key;
            assert!(
                named
                    .iter()
                    .any(|line| line.split([' ', '"', '.']).any(is_it)),
                "{key} is missing"
            );
        }
    }
}

/// The login of a connector, with the password in a file or in a credential of systemd.
#[test]
fn a_connector_may_log_in_at_its_smart_hosts() {
    let (config, _) = read("tests/it/config_good/smart_host_auth.toml");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config_good");
    let auth = |at: usize| {
        let auth = config.connectors[at]
            .outbound
            .auth
            .clone()
            .expect("a login");
        match auth.secret {
            LoginSecret::Password(place) => (auth.user, place.value),
            LoginSecret::OAuth2(settings) => panic!("{settings:?}"),
        }
    };
    let file = SecretPlace::File(folder.join("smart-host.password"));
    assert_eq!(auth(0), ("relay@example.com".to_owned(), file));
    let credential = SecretPlace::Credential("smart-host".to_owned());
    assert_eq!(auth(1), ("relay".to_owned(), credential));
}

/// What `[spool] url` and `[cluster]` leave out has the documented defaults.
#[test]
fn a_database_has_the_name_of_the_host_and_a_lease_of_30_seconds() {
    let read = |more: &str| {
        let text = format!(
            "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n[tls]\ntrust = \"system\"\n\
             [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:25\"]\ntls = \"off\"\n[spool]\n\
             url = \"postgresql://gatepost@db.example.com/mail\"\n{more}"
        );
        let (config, warnings) =
            config::parse(&text, Path::new("gatepost.toml")).expect("no fault");
        assert!(warnings.is_empty(), "{warnings:?}");
        config
    };
    let config = read("");
    let database = config.database.expect("a database");
    assert_eq!(config.spool.value, Path::new("/var/spool/gatepost"));
    assert_eq!(database.node.value, "relay.example.com");
    assert_eq!(database.lease, Duration::from_secs(30));
    assert_eq!(database.trust.value, TrustSource::System);
    assert_eq!(database.password_file, None);
    let more = "trust = \"db-ca.pem\"\npassword_file = \"credential:db\"\n[cluster]\nnode = \"relay-1\"\nlease = \"3s\"\n";
    let database = read(more).database.expect("a database");
    assert_eq!(
        (database.node.value.as_str(), database.lease),
        ("relay-1", Duration::from_secs(3))
    );
    assert_eq!(database.trust.value, TrustSource::File("db-ca.pem".into()));
    assert_eq!(
        database.password_file.map(|file| file.value),
        Some(SecretPlace::Credential("db".to_owned()))
    );
}
