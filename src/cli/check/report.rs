//! `gatepost check`: the configuration as text, with all defaults.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::layout::Block;
use super::load::LoadedConfig;
use super::words::{self, listed};
use crate::cli::connector_name;
use crate::cli::format::{count, wrap};
use crate::config::{
    AdminHttp, AdminSocket, ClientLimits, Config, DnsConfig, Dnssec, EvidencePath, Limits,
    ListenerConfig, ListenerTls, LogFormat, NetConfig, QueueConfig, SendReports, Timeouts,
    TrustAnchor, WarnAfter, write_duration, write_size,
};
use crate::net::revocation::CrlFileSummary;
use crate::net::tls_io::IdentitySummary;
use crate::policy::tls::TlsVersion;
use crate::relay::recipient_tables::RecipientTables;
use crate::relay::tlsrpt::Submitter;
use crate::smtp::sasl::Mechanism;
use crate::storage::postgresql::DatabaseDurability;

/// The width of the labels in a block.
const LABEL: usize = 12;

/// Returns the configuration as text, with all defaults, in lines of at most `width` columns.
pub(super) fn text(loaded: &LoadedConfig, now: Timestamp, width: usize) -> String {
    let LoadedConfig {
        config,
        identities,
        crls,
        submitter,
        recipients: tables,
        durability,
        ..
    } = loaded;
    let sections = [
        relay(config, durability.as_ref(), width),
        listeners(config, width),
        relay_rules(config, width),
        recipients(tables, width),
        connectors(config, now, width),
        queue(&config.queue, width),
        limits(&config.limits, width),
        timeouts(&config.timeouts, width),
        dns(&config.dns, width),
        net(&config.net, width),
        tls_reports(config.tlsrpt.send.value, submitter, width),
        certificates(identities, now, width),
        revocation_lists(crls, now, width),
    ];
    let sections = sections.iter().filter(|section| !section.is_empty());
    sections.map(String::as_str).collect::<Vec<_>>().join("\n")
}

fn relay(config: &Config, durability: Option<&DatabaseDurability>, width: usize) -> String {
    let mut block = Block::new(&format!("Relay {}", config.hostname), (2, LABEL), width);
    block.line("postmaster", &config.postmaster.to_string());
    block.line("spool", &config.spool.value.display().to_string());
    if let Some(database) = &config.database {
        block.parts("database", &words::database(database));
        if let Some(durability) = durability {
            block.parts("", &durability.parts());
        }
        let lease = format!("lease {}", write_duration(database.lease));
        block.parts("node", &[&database.node.value, &lease]);
    }
    let evidence = match &config.evidence.path.value {
        EvidencePath::Off => "off".to_owned(),
        EvidencePath::Folder(folder) => {
            let place = match &config.database {
                Some(_) => "in the database".to_owned(),
                None => folder.display().to_string(),
            };
            format!(
                "{place}, kept for {}, at most {}",
                write_duration(config.evidence.keep),
                write_size(config.evidence.max_size.octets())
            )
        }
    };
    block.line("evidence", &evidence);
    let socket = match &config.admin.socket.value {
        AdminSocket::Off => "no admin socket".to_owned(),
        AdminSocket::Path(path) => path.display().to_string(),
    };
    let http = match config.admin.http.value {
        AdminHttp::Off => "no status page".to_owned(),
        AdminHttp::Address(address) => format!("status page at http://{address}"),
    };
    block.parts("admin", &[socket, http]);
    let format = match config.log.format.value {
        LogFormat::Auto => "to the journal under systemd, else as text",
        LogFormat::Text => "as text",
        LogFormat::Json => "as JSON",
        LogFormat::Journald => "to the journal",
    };
    block.parts(
        "log",
        &[format!("level {}", config.log.level).as_str(), format],
    );
    let versions = match config.tls.min_version {
        TlsVersion::V1_2 => "TLS 1.2 and 1.3",
        TlsVersion::V1_3 => "TLS 1.3 alone",
    };
    block.parts(
        "trust",
        &[words::trust(&config.tls.trust.value).as_str(), versions],
    );
    block.end()
}

fn listeners(config: &Config, width: usize) -> String {
    let mut block = Block::new("Listeners", (2, LABEL), width);
    for listener in &config.listeners {
        let addresses: Vec<_> = listener
            .addresses
            .iter()
            .map(|address| address.value.to_string())
            .collect();
        block.parts(&listener.name, &addresses);
        block.parts("", &listener_rules(config, listener));
    }
    block.end()
}

fn listener_rules(config: &Config, listener: &ListenerConfig) -> Vec<String> {
    let tls = match listener.tls {
        ListenerTls::Off => "TLS off",
        ListenerTls::Opportunistic => "TLS opportunistic",
        ListenerTls::Forced => "TLS forced",
        ListenerTls::Implicit => "TLS implicit, from the first byte",
    };
    let mut rules = vec![tls.to_owned()];
    match (listener.tls, listener.request_client_certificate) {
        (ListenerTls::Off, _) => {}
        (_, true) => rules.push("client certificate requested".to_owned()),
        (_, false) => rules.push("client certificate not requested".to_owned()),
    }
    rules.push(format!(
        "{} sessions of clients outside of [relay] networks",
        config.seats(listener)
    ));
    for (networks, what) in [
        (&listener.proxy_protocol, "PROXY header"),
        (&listener.xclient, "XCLIENT"),
    ] {
        if !networks.is_empty() {
            rules.push(format!("{what} from {}", listed(networks, "")));
        }
    }
    if !listener.auth.is_empty() {
        let names: Vec<_> = listener.auth.iter().map(Mechanism::name).collect();
        let login = if listener.auth_required {
            "login required"
        } else {
            "login possible"
        };
        rules.push(format!("{login} under TLS: {}", names.join(", ")));
    }
    rules
}

fn relay_rules(config: &Config, width: usize) -> String {
    let mut block = Block::new("Relay rules", (2, LABEL), width);
    let networks = listed(&config.relay.networks, "no network");
    block.bare(&[format!("clients in {networks} may send to any domain")]);
    if let Some(users) = &config.users {
        block.bare(&[format!(
            "clients that log in as a user of {} may send to any domain",
            users.file.value.display()
        )]);
    }
    block.bare(&[format!(
        "any client may send to {}",
        listed(&config.relay.domains, "no domain")
    )]);
    block.end()
}

fn recipients(tables: &RecipientTables, width: usize) -> String {
    let tables = tables.readings();
    if tables.is_empty() {
        return String::new();
    }
    let mut block = Block::new("Recipients (checked at RCPT)", (2, LABEL), width);
    for table in &tables {
        block.raw(&format!("  {}\n", table.rules.name()));
        block.parts("from", &words::recipients(table));
    }
    block.end()
}

fn connectors(config: &Config, now: Timestamp, width: usize) -> String {
    let mut block = Block::new(
        "Connectors (for each domain the most specific pattern wins)",
        (4, 10),
        width,
    );
    for connector in connector_name::in_force(config) {
        let built_in = if connector.is_built_in() {
            " (built in)"
        } else {
            ""
        };
        block.raw(&format!("  {}{built_in}\n", connector.name));
        let domains: Vec<_> = connector.domains.iter().map(ToString::to_string).collect();
        block.parts("domains", &domains);
        block.parts("to them", &words::outbound(&connector, now));
        block.parts("from them", &words::inbound(&connector));
    }
    block.end()
}

fn queue(queue: &QueueConfig, width: usize) -> String {
    let QueueConfig {
        retry,
        expire,
        warn_after,
        dsn_gather,
        postmaster_digest,
    } = queue;
    let mut block = Block::new("Queue", (2, LABEL), width);
    let waits: Vec<_> = retry.iter().map(|wait| write_duration(*wait)).collect();
    let last = waits.last().map(|last| format!("then every {last}"));
    block.parts(
        "retry",
        &[Some(format!("after {}", waits.join(", "))), last]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>(),
    );
    block.line("bounce", &format!("after {}", write_duration(*expire)));
    let delay = match warn_after {
        WarnAfter::Never => "no report of a delay".to_owned(),
        WarnAfter::Age(age) => format!("of a delay after {}", write_duration(*age)),
    };
    let gathered = format!("gathered for {}", write_duration(*dsn_gather));
    let digest = format!(
        "digest for the postmaster after {}",
        write_duration(*postmaster_digest)
    );
    block.parts("reports", &[delay, gathered, digest]);
    block.end()
}

fn limits(limits: &Limits, width: usize) -> String {
    let Limits {
        message_size,
        recipients,
        clients,
        transaction_memory,
        errors,
        received,
        delivery_attempts,
        delivery_attempt_time,
        dsn_per_minute,
        dsn_per_minute_per_domain,
    } = limits;
    let mut block = Block::new("Limits", (2, LABEL), width);
    block.parts(
        "message",
        &[
            write_size(*message_size),
            count(*recipients, "recipient"),
            format!("{received} Received fields"),
        ],
    );
    block.parts("sessions", &sessions(clients, *errors));
    block.parts("per minute", &rates(clients));
    block.parts(
        "memory",
        &[
            format!(
                "{} for the recipients of open transactions",
                write_size(transaction_memory.all)
            ),
            format!(
                "{} of one session",
                write_size(transaction_memory.per_session)
            ),
        ],
    );
    block.parts(
        "deliveries",
        &[
            format!("{delivery_attempts} at the same time"),
            format!("{} each", write_duration(*delivery_attempt_time)),
        ],
    );
    block.parts(
        "reports",
        &[
            format!("{dsn_per_minute} a minute"),
            format!("{dsn_per_minute_per_domain} to one domain"),
        ],
    );
    block.end()
}

fn sessions(clients: &ClientLimits, errors: u32) -> [String; 5] {
    [
        format!("{} at the same time", clients.connections),
        format!("{} of one client", clients.connections_per_client),
        format!("{} of one network", clients.connections_per_network),
        format!(
            "{} reserved for [relay] networks",
            clients.connections_reserved
        ),
        format!("421 after {}", count(errors, "bad command")),
    ]
}

fn rates(clients: &ClientLimits) -> [String; 6] {
    let connections = count(clients.connections_per_minute, "connection");
    [
        format!("{connections} of one client"),
        count(clients.messages_per_minute, "message"),
        count(clients.recipients_per_minute, "recipient"),
        count(clients.handshakes_per_minute, "TLS handshake"),
        count(clients.unknown_recipients_per_minute, "unknown recipient"),
        count(
            clients.unchecked_recipients_per_minute,
            "unchecked recipient",
        ),
    ]
}

fn timeouts(timeouts: &Timeouts, width: usize) -> String {
    let Timeouts {
        command,
        data_block,
        data_rate,
        message,
        handshake,
        connect,
        reply,
        final_reply,
        drain,
    } = timeouts;
    let [command, data_block, message, handshake] =
        [command, data_block, message, handshake].map(|time| write_duration(*time));
    let [connect, reply, final_reply, drain] =
        [connect, reply, final_reply, drain].map(|time| write_duration(*time));
    let mut block = Block::new("Timeouts", (2, LABEL), width);
    block.parts(
        "inbound",
        &[
            format!("command {command}"),
            format!("at least {} a second", write_size(*data_rate)),
            format!("session without a message {message}"),
        ],
    );
    block.parts(
        "outbound",
        &[
            format!("connection {connect}"),
            format!("reply {reply}"),
            format!("reply to the final dot {final_reply}"),
        ],
    );
    block.parts(
        "both",
        &[
            format!("TLS handshake {handshake}"),
            format!("block of a message {data_block}"),
        ],
    );
    block.line("stop", &format!("running deliveries {drain}"));
    block.end()
}

/// The HTTP proxy; empty if there is none.
fn net(net: &NetConfig, width: usize) -> String {
    let Some(proxy) = &net.http_proxy else {
        return String::new();
    };
    let mut block = Block::new("Network", (2, LABEL), width);
    block.line(
        "HTTP proxy",
        &format!("{proxy}, for MTA-STS policies, TLS reports, access tokens and CRLs"),
    );
    block.end()
}

fn dns(dns: &DnsConfig, width: usize) -> String {
    let mut block = Block::new("DNS", (2, LABEL), width);
    let servers: Vec<_> = dns.servers.iter().map(|server| server.value).collect();
    block.line("servers", &listed(&servers, "those of /etc/resolv.conf"));
    let validation = match dns.dnssec.value {
        Dnssec::Validate => "validated here",
        Dnssec::Require => "validated here, and required of the resolver",
        Dnssec::TrustResolver => "validated by the resolver, whose AD bit is trusted",
        Dnssec::Off => "off: each answer counts as insecure",
    };
    let anchor = match (dns.dnssec.value, &dns.trust_anchor) {
        (Dnssec::TrustResolver | Dnssec::Off, _) => None,
        (Dnssec::Validate | Dnssec::Require, TrustAnchor::BuiltIn) => {
            Some("with the root zone's keys".to_owned())
        }
        (Dnssec::Validate | Dnssec::Require, TrustAnchor::File(file)) => {
            Some(format!("with the keys in {}", file.value.display()))
        }
    };
    block.parts(
        "DNSSEC",
        &[Some(validation.to_owned()), anchor]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>(),
    );
    block.end()
}

fn tls_reports(send: SendReports, submitter: &Submitter, width: usize) -> String {
    let Submitter {
        organization,
        contact,
        signer,
        ..
    } = submitter;
    let mut text = String::new();
    if send == SendReports::Off {
        wrap(&mut text, "", "  ", "TLS reports are not sent", width);
        return text;
    }
    let signed = match signer {
        Some(_) => "signed; publish the key as",
        None => "not signed",
    };
    let line = format!("TLS reports are sent by {organization}, {contact}; by mail: {signed}");
    wrap(&mut text, "", "  ", &line, width);
    if let Some(signer) = signer {
        // The record is on one line, so that it can be copied.
        let record = format!("  {} TXT \"{}\"\n", signer.record_name(), signer.record());
        text.push_str(&record);
    }
    text
}

fn certificates(identities: &[IdentitySummary], now: Timestamp, width: usize) -> String {
    let mut block = Block::new("Our certificates", (4, 10), width);
    for identity in identities {
        block.raw(&format!("  {}\n", identity.file.display()));
        block.parts("names", &identity.names);
        block.line("expires", &expiry(identity.not_after, now));
    }
    block.end()
}

/// The CRLs of files; empty if there are none.
fn revocation_lists(crls: &[CrlFileSummary], now: Timestamp, width: usize) -> String {
    if crls.is_empty() {
        return String::new();
    }
    let mut block = Block::new("Revocation lists", (4, 10), width);
    for crl in crls {
        block.raw(&format!("  {}\n", crl.file.display()));
        block.line("issuer", &crl.issuer);
        block.line(
            "lists",
            &match crl.entries {
                1 => "1 certificate".to_owned(),
                entries => format!("{entries} certificates"),
            },
        );
        block.line("expires", &expiry(crl.next_update, now));
    }
    block.end()
}

fn expiry(not_after: Timestamp, now: Timestamp) -> String {
    let days = not_after.duration_since(now).as_hours() / 24;
    let date = not_after.to_zoned_datetime(TimeZone::UTC).date();
    match days {
        ..0 => format!("{date}, {} days ago", -days),
        0.. => format!("{date}, in {days} days"),
    }
}
