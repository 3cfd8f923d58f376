//! The tables without rules between them, with their defaults: `[queue]`, `[limits]`, `[timeouts]`,
//! `[dns]`, `[users]`, `[evidence]`, `[admin]` and `[log]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use super::client_limits::{self, COUNT_MAX, TransactionMemory};
use super::fault_list::FaultList;
use super::hosts::dns_server;
use super::reader::{Field, TableReader, TomlValue};
use super::settings::{
    AdminConfig, AdminHttp, AdminSocket, DnsConfig, Dnssec, EvidenceConfig, EvidenceLimit,
    EvidencePath, Limits, LogConfig, LogFormat, QueueConfig, Timeouts, TrustAnchor, UsersConfig,
};
use super::spelling::{nearest_word, shorten};
use super::values::{
    choice, count, duration, full_list, list, path, size, text, without_locations, write_size,
};
use crate::policy::connector::WarnAfter;
use crate::policy::location::{Located, Location};

/// The default of `[admin] socket`.
const SOCKET: &str = "/run/gatepost/admin.sock";
/// The most octets in the path of a unix socket (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// The default of `[evidence] path`.
const EVIDENCE: &str = "/var/lib/gatepost/evidence";
/// The least of `[evidence] max_size` in octets.
const EVIDENCE_SIZE_MIN: u64 = 1 << 20;
/// The default of `[admin] http`: this machine only.
const HTTP: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9025);
/// The fewest concurrent delivery attempts that can be shared among destinations.
const ATTEMPTS_MIN: u32 = 100;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

// Rule: RFC 5321 §4.5.4.1.
pub(super) fn queue(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> QueueConfig {
    let retry = table.read(faults, "retry", retry);
    let expire = table.read(faults, "expire", duration);
    let steps = [
        MINUTE,
        5 * MINUTE,
        15 * MINUTE,
        30 * MINUTE,
        HOUR,
        2 * HOUR,
        4 * HOUR,
    ];
    let default = || steps.map(Duration::from_secs).to_vec();
    let retry_meant = match retry {
        Field::Valid(located) => located.value,
        Field::Absent | Field::Invalid => default(),
    };
    let expire_place = expire
        .located()
        .map_or(table.location(), |located| &located.location)
        .clone();
    let expire = expire.or(Duration::from_secs(5 * DAY));
    warn_of_one_attempt(&expire_place, expire, &retry_meant, faults);
    let warn_after = table.read_or(
        faults,
        "warn_after",
        WarnAfter::Age(Duration::from_secs(4 * HOUR)),
        warn_after,
    );
    let dsn_gather = table.read_or(faults, "dsn_gather", Duration::from_secs(30), duration);
    let postmaster_digest = table.read_or(
        faults,
        "postmaster_digest",
        Duration::from_secs(HOUR),
        duration,
    );
    table.finish(faults);
    QueueConfig {
        retry: retry_meant,
        expire,
        warn_after,
        dsn_gather,
        postmaster_digest,
    }
}

/// Warns if mail expires before the second attempt.
pub(super) fn warn_of_one_attempt(
    place: &Location,
    expire: Duration,
    retry: &[Duration],
    faults: &mut FaultList<'_>,
) {
    if let Some(first) = retry.first().filter(|first| expire < **first) {
        let first = humantime::format_duration(*first);
        faults.warn(
            place,
            format!("mail expires before it is tried a second time: the first wait is {first}"),
            "Raise expire, or shorten the first wait in retry.",
        );
    }
}

/// Reads `retry`.
pub(super) fn retry(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Vec<Duration>> {
    let remedy = "Write the wait after each failed attempt, such as [\"1m\", \"5m\", \"1h\"].";
    full_list(value, faults, remedy, duration).map(without_locations)
}

/// Reads `warn_after`.
pub(super) fn warn_after(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<WarnAfter> {
    match value.raw {
        DeValue::String(text) if text == "never" => Some(WarnAfter::Never),
        _ => duration(value, faults).map(WarnAfter::Age),
    }
}

// Rule: RFC 5321 §4.5.3.1, §4.5.3.1.7, §4.5.3.1.8, §6.3.
pub(super) fn limits(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Limits {
    let mut number = |faults: &mut FaultList<'_>, key| {
        table.read(
            faults,
            key,
            |value: &TomlValue<'_>, faults: &mut FaultList<'_>| count(value, faults, COUNT_MAX),
        )
    };
    let recipients = number(faults, "recipients");
    let errors = number(faults, "errors").or(20);
    let received = number(faults, "received");
    let delivery_attempts = number(faults, "delivery_attempts");
    let dsn_per_minute = number(faults, "dsn_per_minute").or(600);
    let dsn_per_minute_per_domain = number(faults, "dsn_per_minute_per_domain").or(60);
    let message_size = table.read(faults, "message_size", size);
    let delivery_attempt_time = table.read_or(
        faults,
        "delivery_attempt_time",
        Duration::from_secs(30 * MINUTE),
        duration,
    );
    let clients = client_limits::read(&mut table, faults);
    let all = table.read_or(faults, "transaction_memory", 128 << 20, size);
    let per_session = table.read(faults, "transaction_memory_per_session", size);
    table.finish(faults);
    check_attempts(&delivery_attempts, faults);
    let rule = "RFC 5321 4.5.3.1.8 wants at least 100";
    at_least(&recipients, 100, "recipients", rule, faults);
    let rule = "RFC 5321 6.3 wants at least 100";
    at_least(&received, 100, "received", rule, faults);
    let rule = "RFC 5321 4.5.3.1.7 wants at least 64KiB";
    at_least(&message_size, 64 << 10, "message_size", rule, faults);
    let rule = "RFC 5321 4.5.3.1.8 wants room for 100 recipients, which may take 128KiB";
    at_least(
        &per_session,
        128 << 10,
        "transaction_memory_per_session",
        rule,
        faults,
    );
    Limits {
        message_size: message_size.or(50 << 20),
        recipients: recipients.or(1000) as usize,
        clients,
        transaction_memory: TransactionMemory {
            all,
            per_session: per_session.or(512 << 10),
        },
        errors,
        received: received.or(100),
        delivery_attempts: delivery_attempts.or(2000),
        delivery_attempt_time,
        dsn_per_minute,
        dsn_per_minute_per_domain,
    }
}

/// Rejects a number of delivery attempts that cannot be shared among destinations.
fn check_attempts(delivery_attempts: &Field<u32>, faults: &mut FaultList<'_>) {
    if let Some(few) = delivery_attempts
        .located()
        .filter(|given| given.value < ATTEMPTS_MIN)
    {
        let message = format!(
            "delivery_attempts = {} is too low: slow destinations would hold up all mail",
            few.value
        );
        faults.add(
            &few.location,
            message,
            format!("Write {ATTEMPTS_MIN} or more, or remove it for the default of 2000."),
        );
    }
}

/// Warns if a limit is below the minimum of a standard.
fn at_least<T: Copy + Into<u64>>(
    given: &Field<T>,
    least: u64,
    key: &str,
    rule: &str,
    faults: &mut FaultList<'_>,
) {
    let Some(low) = given.located().filter(|given| given.value.into() < least) else {
        return;
    };
    let message = format!("{key} = {} is low: {rule}", low.value.into());
    faults.warn(&low.location, message, "Raise it, unless this is a test.");
}

pub(super) fn timeouts(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Timeouts {
    let mut time = |faults: &mut FaultList<'_>, key, seconds| {
        table.read_or(
            faults,
            key,
            Duration::from_secs(seconds),
            |value: &TomlValue<'_>, faults: &mut FaultList<'_>| duration(value, faults),
        )
    };
    let command = time(faults, "command", 5 * MINUTE);
    let data_block = time(faults, "data_block", 3 * MINUTE);
    let message = time(faults, "message", 30 * MINUTE);
    let handshake = time(faults, "handshake", 30);
    let connect = time(faults, "connect", 30);
    let reply = time(faults, "reply", 5 * MINUTE);
    let final_reply = time(faults, "final_reply", 10 * MINUTE);
    let drain = time(faults, "drain", 30);
    let data_rate = table.read_or(faults, "data_rate", 1024, size);
    table.finish(faults);
    Timeouts {
        command,
        data_block,
        data_rate,
        message,
        handshake,
        connect,
        reply,
        final_reply,
        drain,
    }
}

pub(super) fn dns(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> DnsConfig {
    let servers = table.read_or(faults, "servers", Vec::new(), |value, faults| {
        list(value, faults, dns_server)
    });
    let dnssec = table.read(faults, "dnssec", |value, faults| {
        let choices = [
            ("validate", Dnssec::Validate),
            ("require", Dnssec::Require),
            ("trust-resolver", Dnssec::TrustResolver),
            ("off", Dnssec::Off),
        ];
        choice(value, faults, &choices)
    });
    let anchor = table.read(faults, "trust_anchor", path);
    let location = dnssec
        .located()
        .map_or(table.location(), |located| &located.location)
        .clone();
    table.finish(faults);
    let is_written = dnssec.located().is_some();
    let dnssec = Located {
        value: dnssec.or(Dnssec::Validate),
        location,
    };
    if is_written
        && matches!(dnssec.value, Dnssec::TrustResolver | Dnssec::Off)
        && let Some(anchor) = anchor.located()
    {
        let message = "trust_anchor has no use: nothing is validated in this process";
        faults.add(
            &anchor.location,
            message,
            "Remove it, or write dnssec = \"validate\".",
        );
    }
    if dnssec.value == Dnssec::TrustResolver {
        for server in servers
            .iter()
            .filter(|server| !server.value.ip().to_canonical().is_loopback())
        {
            let message = format!(
                "servers: {} is not on this machine, so its AD bit proves nothing",
                server.value
            );
            let remedy =
                "Name a validating resolver on a loopback address, or write dnssec = \"validate\".";
            faults.add(&server.location, message, remedy);
        }
    }
    let trust_anchor = match anchor {
        Field::Valid(file) => TrustAnchor::File(file),
        Field::Absent | Field::Invalid => TrustAnchor::BuiltIn,
    };
    DnsConfig {
        servers,
        dnssec,
        trust_anchor,
    }
}

/// Reads `[users]`.
pub(super) fn users(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Field<UsersConfig> {
    if table.is_absent() {
        return Field::Absent;
    }
    let file = table.required(faults, "file", "file = \"users.toml\"", path);
    table.finish(faults);
    match file {
        Field::Valid(file) => Field::Valid(Located {
            location: file.location.clone(),
            value: UsersConfig { file },
        }),
        Field::Absent | Field::Invalid => Field::Invalid,
    }
}

pub(super) fn evidence(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> EvidenceConfig {
    let path = table.read(faults, "path", evidence_path);
    let keep = table.read(faults, "keep", duration);
    let max_size = table.read(faults, "max_size", size);
    let location = table.location().clone();
    table.finish(faults);
    if let Some(small) = max_size
        .located()
        .filter(|size| size.value < EVIDENCE_SIZE_MIN)
    {
        faults.add(
            &small.location,
            format!("max_size = \"{}\" is less than 1MiB", write_size(small.value)),
            "Mail is rejected when the evidence reaches max_size: write the size that the folder may have, such as \"50GiB\".",
        );
    }
    if let Some(short) = keep
        .located()
        .filter(|keep| keep.value < Duration::from_secs(DAY))
    {
        let message = format!(
            "keep = \"{}\" is less than a day",
            humantime::format_duration(short.value)
        );
        faults.add(
            &short.location,
            message,
            "A file of evidence holds a day: write at least \"1d\".",
        );
    }
    let default = || Located {
        value: EvidencePath::Folder(EVIDENCE.into()),
        location,
    };
    let path = path.located().cloned().unwrap_or_else(default);
    EvidenceConfig {
        path,
        keep: keep.or(Duration::from_secs(400 * DAY)),
        max_size: max_size.located().map_or(EvidenceLimit::Default, |size| {
            EvidenceLimit::Set(size.value)
        }),
    }
}

fn evidence_path(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<EvidencePath> {
    match value.raw {
        DeValue::String(text) if text.is_empty() => Some(EvidencePath::Off),
        _ => path(value, faults).map(EvidencePath::Folder),
    }
}

pub(super) fn admin(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> AdminConfig {
    let socket = table.read(faults, "socket", socket);
    let http = table.read(faults, "http", http);
    let location = table.location().clone();
    table.finish(faults);
    if let Some(Located {
        value: AdminHttp::Address(address),
        location,
    }) = http.located()
        && !address.ip().to_canonical().is_loopback()
    {
        let message = format!(
            "http = \"{address}\" shows status and metrics to whoever can reach it, unencrypted"
        );
        let remedy = "Write an address of this machine alone, such as \"127.0.0.1:9025\", or see that a firewall lets \
                      only your monitoring in.";
        faults.warn(location, message, remedy);
    }
    let default = || Located {
        value: AdminSocket::Path(SOCKET.into()),
        location: location.clone(),
    };
    let socket = socket.located().cloned().unwrap_or_else(default);
    let default = || Located {
        value: AdminHttp::Address(SocketAddr::from(HTTP)),
        location: location.clone(),
    };
    AdminConfig {
        socket,
        http: http.located().cloned().unwrap_or_else(default),
    }
}

fn http(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<AdminHttp> {
    let written = text(value, faults)?;
    if written.is_empty() {
        return Some(AdminHttp::Off);
    }
    if let Ok(address) = written.parse() {
        return Some(AdminHttp::Address(address));
    }
    let message = format!(
        "{}: \"{}\" is not an address with a port",
        value.key,
        shorten(written)
    );
    faults.add(
        &value.location,
        message,
        "Write one such as \"127.0.0.1:9025\", or \"\" for no metrics and no status page.",
    );
    None
}

fn socket(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<AdminSocket> {
    match value.raw {
        DeValue::String(text) if text.is_empty() => Some(AdminSocket::Off),
        _ => {
            let path = path(value, faults)?;
            let length = path.as_os_str().len();
            if length > SOCKET_PATH_MAX {
                let message = format!(
                    "{}: the path of a socket cannot have {length} octets",
                    value.key
                );
                faults.add(
                    &value.location,
                    message,
                    format!("Choose one of {SOCKET_PATH_MAX} octets at most."),
                );
                return None;
            }
            Some(AdminSocket::Path(path))
        }
    }
}

pub(super) fn log(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> LogConfig {
    let format = table.read(faults, "format", |value, faults| {
        let formats = [
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
            ("journald", LogFormat::Journald),
        ];
        choice(value, faults, &formats)
    });
    let location = format
        .located()
        .map_or(table.location(), |located| &located.location)
        .clone();
    let format = Located {
        value: format.or(LogFormat::Auto),
        location,
    };
    let level = table.read_or(faults, "level", "info".to_owned(), level);
    table.finish(faults);
    LogConfig { format, level }
}

/// Reads a filter for tracing. A single word must be a level: tracing takes any other word for the
/// name of a module, and would then log almost nothing.
fn level(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let filter = text(value, faults)?;
    let is_word = |part: &str| !part.contains(['=', '[']);
    let unknown = filter
        .split(',')
        .find(|part| is_word(part) && !LEVELS.contains(&&*part.to_ascii_lowercase()));
    if unknown.is_none() && EnvFilter::builder().parse(filter).is_ok() {
        return Some(filter.to_owned());
    }
    let levels = LEVELS.join(", ");
    let remedy = match unknown.and_then(|word| nearest_word(word, &LEVELS)) {
        Some(meant) => format!("Did you mean \"{meant}\"? The levels are {levels}."),
        None => format!(
            "Write one of {levels}, or a filter such as \"info,gatepost::relay::outbound=debug\"."
        ),
    };
    faults.add(
        &value.location,
        format!("{}: \"{}\" is not a log filter", value.key, shorten(filter)),
        remedy,
    );
    None
}
