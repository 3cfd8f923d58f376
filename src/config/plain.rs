//! The tables without rules between them: `[queue]`, `[limits]`, `[timeouts]`, `[dns]`, `[evidence]`, `[admin]` and
//! `[log]`, with their defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use super::clients::{self, COUNT_MAX};
use super::hosts::dns_server;
use super::place::Notes;
use super::reader::{Given, Table, Value, nearest, short};
use super::values::{choice, count, duration, full_list, list, path, size, text};
use super::{
    Admin, AdminHttp, AdminSocket, Dns, Dnssec, Evidence, EvidencePath, Limits, Located, Log, LogFormat, Queue,
    Timeouts, TransactionMemory, TrustAnchor, WarnAfter,
};

/// Where operators are answered unless `[admin] socket` says otherwise.
const SOCKET: &str = "/run/gatepost/admin.sock";
/// Octets in the path of a unix socket, at most (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// Where evidence is kept unless `[evidence] path` says otherwise.
const EVIDENCE: &str = "/var/lib/gatepost/evidence";
/// Where monitoring is answered unless `[admin] http` says otherwise: on this machine alone.
const HTTP: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9025);
/// Fewer delivery attempts at the same time cannot be shared out.
const ATTEMPTS_MIN: u32 = 100;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

pub(super) fn queue(mut table: Table<'_>, notes: &mut Notes<'_>) -> Queue {
    let retry = table.read(notes, "retry", |value, notes| {
        full_list(value, notes, "Write the wait after each failed attempt, such as [\"1m\", \"5m\", \"1h\"].", duration)
    });
    let expire = table.read(notes, "expire", duration);
    let steps = [MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR];
    let default = || steps.map(Duration::from_secs).to_vec();
    let retry_meant = match retry {
        Given::Good(located) => located.value.into_iter().map(|step| step.value).collect(),
        Given::Absent | Given::Bad => default(),
    };
    let expire_place = expire.located().map_or(table.place(), |located| &located.place).clone();
    let expire = expire.or(Duration::from_secs(5 * DAY));
    if retry_meant.first().is_some_and(|first| expire < *first) {
        let first = retry_meant.first().map(|first| humantime::format_duration(*first).to_string()).unwrap_or_default();
        notes.warn(
            &expire_place,
            format!("mail expires before it is tried a second time: the first wait is {first}"),
            "Raise expire, or shorten the first wait in retry.",
        );
    }
    let warn_after = table.or(notes, "warn_after", WarnAfter::Age(Duration::from_secs(4 * HOUR)), warn_after);
    let dsn_gather = table.or(notes, "dsn_gather", Duration::from_secs(30), duration);
    let postmaster_digest = table.or(notes, "postmaster_digest", Duration::from_secs(HOUR), duration);
    table.finish(notes);
    Queue { retry: retry_meant, expire, warn_after, dsn_gather, postmaster_digest }
}

fn warn_after(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<WarnAfter> {
    match value.raw {
        DeValue::String(text) if text == "never" => Some(WarnAfter::Never),
        _ => duration(value, notes).map(WarnAfter::Age),
    }
}

pub(super) fn limits(mut table: Table<'_>, notes: &mut Notes<'_>) -> Limits {
    let mut number = |notes: &mut Notes<'_>, key| {
        table.read(notes, key, |value: &Value<'_>, notes: &mut Notes<'_>| count(value, notes, COUNT_MAX))
    };
    let recipients = number(notes, "recipients");
    let errors = number(notes, "errors").or(20);
    let received = number(notes, "received");
    let delivery_attempts = number(notes, "delivery_attempts");
    let dsn_per_minute = number(notes, "dsn_per_minute").or(600);
    let dsn_per_minute_per_domain = number(notes, "dsn_per_minute_per_domain").or(60);
    let message_size = table.read(notes, "message_size", size);
    let delivery_attempt_time = table.or(notes, "delivery_attempt_time", Duration::from_secs(30 * MINUTE), duration);
    let clients = clients::read(&mut table, notes);
    let all = table.or(notes, "transaction_memory", 128 << 20, size);
    let per_session = table.read(notes, "transaction_memory_per_session", size);
    table.finish(notes);
    if let Some(few) = delivery_attempts.located().filter(|given| given.value < ATTEMPTS_MIN) {
        let message = format!("delivery_attempts = {} is too low: slow destinations would hold up all mail", few.value);
        notes.fault(
            &few.place,
            message,
            format!("Write {ATTEMPTS_MIN} or more, or remove it for the default of 2000."),
        );
    }
    at_least(&recipients, 100, "recipients", "RFC 5321 4.5.3.1.8 wants at least 100", notes);
    at_least(&received, 100, "received", "RFC 5321 6.3 wants at least 100", notes);
    at_least(&message_size, 64 << 10, "message_size", "RFC 5321 4.5.3.1.7 wants at least 64KiB", notes);
    let rule = "RFC 5321 4.5.3.1.8 wants room for 100 recipients, which may take 128KiB";
    at_least(&per_session, 128 << 10, "transaction_memory_per_session", rule, notes);
    Limits {
        message_size: message_size.or(50 << 20),
        recipients: recipients.or(1000) as usize,
        clients,
        transaction_memory: TransactionMemory { all, per_session: per_session.or(512 << 10) },
        errors,
        received: received.or(100),
        delivery_attempts: delivery_attempts.or(2000),
        delivery_attempt_time,
        dsn_per_minute,
        dsn_per_minute_per_domain,
    }
}

/// A limit that a standard has an opinion about.
fn at_least<T: Copy + Into<u64>>(given: &Given<T>, least: u64, key: &str, rule: &str, notes: &mut Notes<'_>) {
    let Some(low) = given.located().filter(|given| given.value.into() < least) else { return };
    let message = format!("{key} = {} is low: {rule}", low.value.into());
    notes.warn(&low.place, message, "Raise it, unless this is a test.");
}

pub(super) fn timeouts(mut table: Table<'_>, notes: &mut Notes<'_>) -> Timeouts {
    let mut time = |notes: &mut Notes<'_>, key, seconds| {
        table.or(notes, key, Duration::from_secs(seconds), |value: &Value<'_>, notes: &mut Notes<'_>| {
            duration(value, notes)
        })
    };
    let command = time(notes, "command", 5 * MINUTE);
    let data_block = time(notes, "data_block", 3 * MINUTE);
    let message = time(notes, "message", 30 * MINUTE);
    let handshake = time(notes, "handshake", 30);
    let connect = time(notes, "connect", 30);
    let reply = time(notes, "reply", 5 * MINUTE);
    let final_reply = time(notes, "final_reply", 10 * MINUTE);
    let drain = time(notes, "drain", 30);
    let data_rate = table.or(notes, "data_rate", 1024, size);
    table.finish(notes);
    Timeouts { command, data_block, data_rate, message, handshake, connect, reply, final_reply, drain }
}

pub(super) fn dns(mut table: Table<'_>, notes: &mut Notes<'_>) -> Dns {
    let servers = table.or(notes, "servers", Vec::new(), |value, notes| list(value, notes, dns_server));
    let dnssec = table.read(notes, "dnssec", |value, notes| {
        let choices = [
            ("validate", Dnssec::Validate),
            ("require", Dnssec::Require),
            ("trust-resolver", Dnssec::TrustResolver),
            ("off", Dnssec::Off),
        ];
        choice(value, notes, &choices)
    });
    let anchor = table.read(notes, "trust_anchor", path);
    let place = dnssec.located().map_or(table.place(), |located| &located.place).clone();
    table.finish(notes);
    let is_written = dnssec.located().is_some();
    let dnssec = Located { value: dnssec.or(Dnssec::Validate), place };
    if is_written
        && matches!(dnssec.value, Dnssec::TrustResolver | Dnssec::Off)
        && let Some(anchor) = anchor.located()
    {
        let message = "trust_anchor has no use: nothing is validated in this process";
        notes.fault(&anchor.place, message, "Remove it, or write dnssec = \"validate\".");
    }
    if dnssec.value == Dnssec::TrustResolver {
        for server in servers.iter().filter(|server| !server.value.ip().to_canonical().is_loopback()) {
            let message = format!("servers: {} is not on this machine, so its AD bit proves nothing", server.value);
            let remedy = "Name a validating resolver on a loopback address, or write dnssec = \"validate\".";
            notes.fault(&server.place, message, remedy);
        }
    }
    let trust_anchor = match anchor {
        Given::Good(file) => TrustAnchor::File(file),
        Given::Absent | Given::Bad => TrustAnchor::BuiltIn,
    };
    Dns { servers, dnssec, trust_anchor }
}

pub(super) fn evidence(mut table: Table<'_>, notes: &mut Notes<'_>) -> Evidence {
    let path = table.read(notes, "path", evidence_path);
    let keep = table.read(notes, "keep", duration);
    let place = table.place().clone();
    table.finish(notes);
    if let Some(short) = keep.located().filter(|keep| keep.value < Duration::from_secs(DAY)) {
        let message = format!("keep = \"{}\" is less than a day", humantime::format_duration(short.value));
        notes.fault(&short.place, message, "A file of evidence holds a day: write at least \"1d\".");
    }
    let default = || Located { value: EvidencePath::Folder(EVIDENCE.into()), place };
    let path = path.located().cloned().unwrap_or_else(default);
    Evidence { path, keep: keep.or(Duration::from_secs(400 * DAY)) }
}

fn evidence_path(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<EvidencePath> {
    match value.raw {
        DeValue::String(text) if text.is_empty() => Some(EvidencePath::Off),
        _ => path(value, notes).map(EvidencePath::Folder),
    }
}

pub(super) fn admin(mut table: Table<'_>, notes: &mut Notes<'_>) -> Admin {
    let socket = table.read(notes, "socket", socket);
    let http = table.read(notes, "http", http);
    let place = table.place().clone();
    table.finish(notes);
    if let Some(Located { value: AdminHttp::Address(address), place }) = http.located()
        && !address.ip().to_canonical().is_loopback()
    {
        let message = format!("http = \"{address}\" shows status and metrics to whoever can reach it, unencrypted");
        let remedy = "Write an address of this machine alone, such as \"127.0.0.1:9025\", or see that a firewall lets \
                      only your monitoring in.";
        notes.warn(place, message, remedy);
    }
    let default = || Located { value: AdminSocket::Path(SOCKET.into()), place: place.clone() };
    let socket = socket.located().cloned().unwrap_or_else(default);
    let default = || Located { value: AdminHttp::Address(SocketAddr::from(HTTP)), place: place.clone() };
    Admin { socket, http: http.located().cloned().unwrap_or_else(default) }
}

fn http(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<AdminHttp> {
    let written = text(value, notes)?;
    if written.is_empty() {
        return Some(AdminHttp::Off);
    }
    if let Ok(address) = written.parse() {
        return Some(AdminHttp::Address(address));
    }
    let message = format!("{}: \"{}\" is not an address with a port", value.key, short(written));
    notes.fault(
        &value.place,
        message,
        "Write one such as \"127.0.0.1:9025\", or \"\" for no metrics and no status page.",
    );
    None
}

fn socket(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<AdminSocket> {
    match value.raw {
        DeValue::String(text) if text.is_empty() => Some(AdminSocket::Off),
        _ => {
            let path = path(value, notes)?;
            let length = path.as_os_str().len();
            if length > SOCKET_PATH_MAX {
                let message = format!("{}: the path of a socket cannot have {length} octets", value.key);
                notes.fault(&value.place, message, format!("Choose one of {SOCKET_PATH_MAX} octets at most."));
                return None;
            }
            Some(AdminSocket::Path(path))
        }
    }
}

pub(super) fn log(mut table: Table<'_>, notes: &mut Notes<'_>) -> Log {
    let format = table.read(notes, "format", |value, notes| {
        let formats = [
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
            ("journald", LogFormat::Journald),
        ];
        choice(value, notes, &formats)
    });
    let place = format.located().map_or(table.place(), |located| &located.place).clone();
    let format = Located { value: format.or(LogFormat::Auto), place };
    let level = table.or(notes, "level", "info".to_owned(), level);
    table.finish(notes);
    Log { format, level }
}

/// A tracing filter. A word alone must be a level: tracing takes any other for the name of a module,
/// and would then log next to nothing.
fn level(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let filter = text(value, notes)?;
    let is_word = |part: &str| !part.contains(['=', '[']);
    let unknown = filter.split(',').find(|part| is_word(part) && !LEVELS.contains(&&*part.to_ascii_lowercase()));
    if unknown.is_none() && EnvFilter::builder().parse(filter).is_ok() {
        return Some(filter.to_owned());
    }
    let levels = LEVELS.join(", ");
    let remedy = match unknown.and_then(|word| nearest(word, &LEVELS)) {
        Some(meant) => format!("Did you mean \"{meant}\"? The levels are {levels}."),
        None => format!("Write one of {levels}, or a filter such as \"info,gatepost::outbound=debug\"."),
    };
    notes.fault(&value.place, format!("{}: \"{}\" is not a log filter", value.key, short(filter)), remedy);
    None
}
