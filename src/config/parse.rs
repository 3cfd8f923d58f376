//! From text to the configuration as meant, or to every fault it has.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::hosts::{domain, mailbox};
use super::own::{WrittenListener, WrittenTls, relay};
use super::partner::WrittenConnector;
use super::place::Notes;
use super::reader::{Given, Table};
use super::values::path;
use super::{Config, Fault, Located, Place, Written, plain, rules, tlsrpt, unmet};

/// Where the spool is unless `[spool] path` says otherwise.
const SPOOL: &str = "/var/spool/gatepost";

/// Reads a configuration file. With the configuration come warnings.
///
/// # Errors
/// Every fault of the file; one, where it cannot be read at all.
pub fn read(path: &Path) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    let fault = |message: String, remedy: &str| {
        let place = Place { file: Arc::from(path), line: 1, column: 1 };
        vec![Fault { place, message, remedy: remedy.to_owned() }]
    };
    let octets = std::fs::read(path).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => "Create it, or name another file with --config.",
            std::io::ErrorKind::PermissionDenied => "Let the user that Gatepost runs as read it.",
            _ => "Name a readable file with --config.",
        };
        fault(format!("the configuration cannot be read: {error}"), remedy)
    })?;
    match String::from_utf8(octets) {
        Ok(text) => parse(&text, path),
        Err(error) => Err(not_utf8(error.as_bytes(), path)),
    }
}

/// A fault for each line that is not UTF-8, at its first octet that is none.
fn not_utf8(octets: &[u8], file: &Path) -> Vec<Fault> {
    let (mut text, mut bad) = (String::new(), Vec::new());
    for chunk in octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets).utf8_chunks() {
        text.push_str(chunk.valid());
        if let Some(octet) = chunk.invalid().first() {
            bad.push((text.len(), *octet));
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    let mut notes = Notes::new(&text, file);
    for (offset, octet) in bad {
        let place = notes.place(offset);
        if !notes.faults.iter().any(|fault| fault.place.line == place.line) {
            notes.fault(&place, format!("the octet 0x{octet:02X} here is not UTF-8 text"), "Save the file as UTF-8.");
        }
    }
    notes.faults
}

/// Parses a configuration; `file` is named in faults, and relative paths start from its folder. With the
/// configuration come warnings.
///
/// # Errors
/// Every fault of the text, in the order of their places. A text that is not TOML has only the faults
/// of its syntax: what the rest of it means cannot be known.
pub fn parse(text: &str, file: &Path) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    let digest = digest(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut notes = Notes::new(text, file);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut is_toml = true;
    for error in errors {
        let place = notes.place(error.span().map_or(0, |span| span.start));
        if error.message() == "duplicate key" {
            let remedy = "Remove one of the two: a key or table stands in one place only.";
            notes.fault(&place, "this key or table has been written before", remedy);
            continue;
        }
        is_toml = false;
        // One slip upsets the parser several times; the first on a line is the one that helps.
        if !notes.faults.iter().any(|fault| fault.place.line == place.line) {
            let message = format!("this is not TOML: {}", error.message());
            notes.fault(&place, message, "Text stands in double quotes, lists in square brackets, one key on a line.");
        }
    }
    let written = Written { file: Arc::from(file), text: Arc::from(text), digest };
    let config = if is_toml { document_meant(document.get_ref(), &mut notes, written) } else { None };
    let Notes { mut faults, mut warnings, strays, .. } = notes;
    faults.extend(strays.faults());
    faults.sort();
    faults.dedup();
    warnings.sort();
    match config {
        Some(config) if faults.is_empty() => Ok((config, warnings)),
        _ => Err(faults),
    }
}

/// The document as meant. Whatever is wrong has been noted; without a note there is a configuration.
fn document_meant(document: &DeTable<'_>, notes: &mut Notes<'_>, written: Written) -> Option<Config> {
    let mut root = Table::root(document, notes);
    let hostname = root.required(notes, "hostname", "hostname = \"relay.example.com\"", domain);
    let postmaster = root.required(notes, "postmaster", "postmaster = \"postmaster@example.com\"", mailbox);
    let tls = root.table(notes, "tls", "[tls]");
    let tls = WrittenTls::read(tls, notes);
    let spool = root.table(notes, "spool", "[spool]");
    let spool = spool_path(spool, notes);
    let listeners = root
        .tables(notes, "listener", "[[listener]]")
        .map(|tables| tables.into_iter().map(|table| WrittenListener::read(table, notes)).collect::<Vec<_>>());
    let relay_table = root.table(notes, "relay", "[relay]");
    let relay = relay(relay_table, notes);
    let connectors = root.tables(notes, "connector", "[[connector]]").unwrap_or_default();
    let connectors: Vec<_> = connectors.into_iter().map(|table| WrittenConnector::read(table, notes)).collect();
    let queue = root.table(notes, "queue", "[queue]");
    let queue = plain::queue(queue, notes);
    let limits = root.table(notes, "limits", "[limits]");
    let limits = plain::limits(limits, notes);
    let timeouts = plain::timeouts(root.table(notes, "timeouts", "[timeouts]"), notes);
    let dns = root.table(notes, "dns", "[dns]");
    let dns = plain::dns(dns, notes);
    let evidence = root.table(notes, "evidence", "[evidence]");
    let evidence = plain::evidence(evidence, notes);
    let admin = root.table(notes, "admin", "[admin]");
    let admin = plain::admin(admin, notes);
    let reports = root.table(notes, "tlsrpt", "[tlsrpt]");
    let reports = tlsrpt::Written::read(reports, notes);
    let log = plain::log(root.table(notes, "log", "[log]"), notes);
    root.finish(notes);

    rules::hostname(&hostname, notes);
    rules::own(&tls, listeners.as_deref(), notes);
    rules::balancers(listeners.as_deref().unwrap_or_default(), &relay.networks, notes);
    rules::connectors(&connectors, &tls, listeners.as_deref(), notes);
    unmet::dane(&connectors, &dns, notes);
    unmet::oldest_version(&tls, listeners.as_deref(), &connectors, notes);
    let reports = reports.meant(&hostname, &postmaster, notes);

    let (Given::Good(hostname), Given::Good(postmaster)) = (hostname, postmaster) else { return None };
    let tls = tls.meant();
    Some(Config {
        hostname: hostname.value,
        postmaster: postmaster.value,
        spool,
        listeners: listeners?.into_iter().map(WrittenListener::meant).collect(),
        relay,
        connectors: connectors.into_iter().map(|connector| connector.meant(&tls)).collect(),
        tls,
        queue,
        limits,
        timeouts,
        dns,
        evidence,
        admin,
        tlsrpt: reports?,
        log,
        written,
    })
}

/// What tells one text of a configuration from another.
fn digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut text, octet| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn spool_path(mut table: Table<'_>, notes: &mut Notes<'_>) -> Located<std::path::PathBuf> {
    let given = table.read(notes, "path", path);
    let place = table.place().clone();
    table.finish(notes);
    match given {
        Given::Good(path) => path,
        Given::Absent | Given::Bad => Located { value: SPOOL.into(), place },
    }
}
