//! Parsing: from a TOML text to a valid configuration, or to all its faults.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::connector_rules::check_connectors;
use super::connector_toml::ConnectorToml;
use super::fault::Fault;
use super::fault_list::FaultList;
use super::hosts::{domain, mailbox};
use super::reader::{Field, TableReader};
use super::settings::{Config, ConfigSource, DnsConfig};
use super::tls_toml::{ListenerToml, TlsToml, relay};
use super::tlsrpt::TlsrptToml;
use super::values::path;
use super::{rules, tables, unmeetable};
use crate::policy::location::{Located, Location};
use crate::policy::relay_access::RelayConfig;

/// The default of `[spool] path`.
const SPOOL: &str = "/var/spool/gatepost";

/// Reads and parses a configuration file. Returns warnings with the configuration.
///
/// # Errors
/// All faults of the file, or a single one if the file cannot be read.
pub fn read(path: &Path) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    let single = |message: String, remedy: &str| {
        let location = Location {
            file: Arc::from(path),
            line: 1,
            column: 1,
        };
        vec![Fault {
            location,
            message,
            remedy: remedy.to_owned(),
        }]
    };
    let octets = std::fs::read(path).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => "Create it, or name another file with --config.",
            std::io::ErrorKind::PermissionDenied => {
                "Let the user that Gatepost runs as read it; for a command, use sudo."
            }
            _ => "Name a readable file with --config.",
        };
        single(format!("the configuration cannot be read: {error}"), remedy)
    })?;
    match String::from_utf8(octets) {
        Ok(text) => parse(&text, path),
        Err(error) => Err(not_utf8(error.as_bytes(), path)),
    }
}

/// Reports the first octet that is not UTF-8 in each line.
fn not_utf8(octets: &[u8], file: &Path) -> Vec<Fault> {
    let (mut text, mut bad) = (String::new(), Vec::new());
    for chunk in octets
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(octets)
        .utf8_chunks()
    {
        text.push_str(chunk.valid());
        if let Some(octet) = chunk.invalid().first() {
            bad.push((text.len(), *octet));
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    let mut faults = FaultList::new(&text, file);
    for (offset, octet) in bad {
        let location = faults.location(offset);
        if !faults
            .errors
            .iter()
            .any(|fault| fault.location.line == location.line)
        {
            faults.add(
                &location,
                format!("the octet 0x{octet:02X} here is not UTF-8 text"),
                "Save the file as UTF-8.",
            );
        }
    }
    faults.errors
}

/// Parses a configuration. Returns warnings with it. `file` is named in faults, and relative paths
/// start from its folder.
///
/// # Errors
/// All faults of the text, by location. If the text is not TOML, only its syntax errors are
/// reported.
pub fn parse(text: &str, file: &Path) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    let digest = digest(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut faults = FaultList::new(text, file);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut is_toml = true;
    for error in errors {
        let location = faults.location(error.span().map_or(0, |span| span.start));
        if error.message() == "duplicate key" {
            let remedy = "Remove one of the two: a key or table can be defined only once.";
            faults.add(&location, "this key or table is already defined", remedy);
            continue;
        }
        is_toml = false;
        // The parser reports one mistake several times; the first error on a line is the useful
        // one.
        if !faults
            .errors
            .iter()
            .any(|fault| fault.location.line == location.line)
        {
            let message = format!("this is not TOML: {}", error.message());
            faults.add(
                &location,
                message,
                "Write text in double quotes, lists in square brackets, and one key on each line.",
            );
        }
    }
    let source = ConfigSource {
        file: Arc::from(file),
        text: Arc::from(text),
        digest,
    };
    let duplicates = faults.errors.clone();
    let read =
        |faults: &mut FaultList<'_>| resolve_document(document.get_ref(), faults, source.clone());
    let mut config = if is_toml { read(&mut faults) } else { None };
    if !faults.unknown_keys.is_empty() {
        // A second reading reports no fault that only follows from an unknown key.
        faults = faults.for_second_reading();
        faults.errors = duplicates;
        config = read(&mut faults);
    }
    let FaultList {
        mut errors,
        mut warnings,
        unknown_keys,
        ..
    } = faults;
    errors.extend(unknown_keys.faults());
    errors.sort();
    errors.dedup();
    warnings.sort();
    match config {
        Some(config) if errors.is_empty() => Ok((config, warnings)),
        _ => Err(errors),
    }
}

/// Resolves the document into a configuration. `None` only if a fault has been reported.
fn resolve_document(
    document: &DeTable<'_>,
    faults: &mut FaultList<'_>,
    source: ConfigSource,
) -> Option<Config> {
    let mut root = TableReader::root(document, faults);
    let hostname = root.required(
        faults,
        "hostname",
        "hostname = \"relay.example.com\"",
        domain,
    );
    let postmaster = root.required(
        faults,
        "postmaster",
        "postmaster = \"postmaster@example.com\"",
        mailbox,
    );
    let tls = TlsToml::read(root.table(faults, "tls", "[tls]"), faults);
    let spool = spool_path(root.table(faults, "spool", "[spool]"), faults);
    let listeners = root.tables(faults, "listener", "[[listener]]");
    let listeners = listeners.map(|tables| read_all(tables, faults, ListenerToml::read));
    let relay = relay(root.table(faults, "relay", "[relay]"), faults);
    let connectors = root.tables(faults, "connector", "[[connector]]");
    let connectors = read_all(connectors.unwrap_or_default(), faults, ConnectorToml::read);
    let queue = tables::queue(root.table(faults, "queue", "[queue]"), faults);
    let limits = tables::limits(root.table(faults, "limits", "[limits]"), faults);
    let timeouts = tables::timeouts(root.table(faults, "timeouts", "[timeouts]"), faults);
    let dns = tables::dns(root.table(faults, "dns", "[dns]"), faults);
    let evidence = tables::evidence(root.table(faults, "evidence", "[evidence]"), faults);
    let admin = tables::admin(root.table(faults, "admin", "[admin]"), faults);
    let reports = TlsrptToml::read(root.table(faults, "tlsrpt", "[tlsrpt]"), faults);
    let log = tables::log(root.table(faults, "log", "[log]"), faults);
    root.finish(faults);

    let written = (&tls, listeners.as_deref(), connectors.as_slice());
    rules::check_hostname(&hostname, faults);
    check_rules(written, &relay, &dns, faults);
    let reports = reports.resolve(&hostname, &postmaster, faults);

    let (Field::Valid(hostname), Field::Valid(postmaster)) = (hostname, postmaster) else {
        return None;
    };
    let tls = tls.resolve();
    Some(Config {
        hostname: hostname.value,
        postmaster: postmaster.value,
        spool,
        listeners: listeners?
            .into_iter()
            .map(|listener| Arc::new(listener.resolve()))
            .collect(),
        relay,
        connectors: connectors
            .into_iter()
            .map(|connector| connector.resolve(&tls))
            .collect(),
        tls,
        queue,
        limits,
        timeouts,
        dns,
        evidence,
        admin,
        tlsrpt: reports?,
        log,
        source,
    })
}

/// Reads the tables of an array.
fn read_all<'d, 't, T>(
    tables: Vec<TableReader<'d>>,
    faults: &mut FaultList<'t>,
    read: fn(TableReader<'d>, &mut FaultList<'t>) -> T,
) -> Vec<T> {
    let read = |table| read(table, faults);
    tables.into_iter().map(read).collect()
}

/// Checks the rules between tables. `listeners` is `None` if their list itself is invalid.
fn check_rules(
    (tls, listeners, connectors): (&TlsToml, Option<&[ListenerToml]>, &[ConnectorToml]),
    relay: &RelayConfig,
    dns: &DnsConfig,
    faults: &mut FaultList<'_>,
) {
    rules::check_tls_and_listeners(tls, listeners, faults);
    rules::warn_of_trusted_proxies(listeners.unwrap_or_default(), &relay.networks, faults);
    check_connectors(connectors, tls, listeners, faults);
    unmeetable::check_dane(connectors, dns, faults);
    unmeetable::warn_of_old_peers(tls, listeners, connectors, faults);
}

/// Returns the SHA-256 of a configuration's text, in hexadecimal.
fn digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, octet| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{octet:02x}");
            text
        })
}

fn spool_path(
    mut table: TableReader<'_>,
    faults: &mut FaultList<'_>,
) -> Located<std::path::PathBuf> {
    let given = table.read(faults, "path", path);
    let location = table.location().clone();
    table.finish(faults);
    match given {
        Field::Valid(path) => path,
        Field::Absent | Field::Invalid => Located {
            value: SPOOL.into(),
            location,
        },
    }
}
