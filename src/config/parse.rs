//! Parsing: from TOML texts to a valid configuration, or to all its faults.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::cluster_toml::SpoolToml;
use super::connector_rules::check_connectors;
use super::connector_toml::ConnectorToml;
use super::fault::Fault;
use super::fault_list::FaultList;
use super::hosts::{domain, mailbox};
use super::include::SharedTables;
use super::reader::{Field, TableReader, read_all};
use super::settings::{Config, ConfigSource, DnsConfig, SourceFile};
use super::tls_toml::{ListenerToml, TlsToml, relay};
use super::tlsrpt::TlsrptToml;
use super::toml_text::toml_document;
use super::{include, logins, net_toml, recipients_toml, rules, tables, unmeetable};
use crate::policy::relay_access::RelayConfig;
use crate::smtp::address::{Domain, Mailbox};

/// Parses a configuration that includes no other file, and returns warnings with it. `file` is named in
/// faults, and relative paths start from its folder.
///
/// # Errors
/// All faults of the text, by location. If the text is not TOML, only its syntax errors are
/// reported.
pub fn parse(text: &str, file: &Path) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    parse_files(&SourceFile::new(text, file), Vec::new())
}

/// Parses a configuration from its file and those that it includes, and returns warnings with it.
/// Relative paths start from the folder of the file that has them.
///
/// # Errors
/// All faults, by location, as for [`parse`].
pub fn parse_files(
    main: &SourceFile,
    included: Vec<SourceFile>,
) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    let source = ConfigSource {
        file: Arc::clone(&main.file),
        text: Arc::from(without_mark(&main.text)),
        digest: digest(main, &included),
        included,
    };
    let (main, files) = (source.text.clone(), source.included.clone());
    let texts: Vec<&str> = std::iter::once(&*main)
        .chain(files.iter().map(|file| without_mark(&file.text)))
        .collect();
    let mut faults = FaultList::new(texts[0], &source.file);
    for (file, text) in files.iter().zip(&texts[1..]) {
        faults.add_text(text, &file.file);
    }
    let documents: Vec<_> = (0..)
        .zip(&texts)
        .map(|(number, text)| {
            faults.turn_to(number);
            toml_document(text, &mut faults)
        })
        .collect();
    faults.turn_to(0);
    // With a text that is not TOML, rules would report what only follows from that.
    let documents: Option<Vec<_>> = documents.into_iter().collect();
    let read = |faults: &mut FaultList<'_>| {
        let documents: Vec<_> = documents.as_ref()?.iter().map(Spanned::get_ref).collect();
        resolve_documents(&documents, faults, source.clone())
    };
    faults.resolve(read)
}

/// Returns the text without a byte order mark.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Resolves the document, and those that it includes, into a configuration. `None` only if a fault has
/// been reported.
fn resolve_documents(
    documents: &[&DeTable<'_>],
    faults: &mut FaultList<'_>,
    source: ConfigSource,
) -> Option<Config> {
    let (document, included) = documents.split_first()?;
    let mut root = TableReader::root(document, faults);
    let (hostname, postmaster) = own_names(&mut root, faults);
    let tls = TlsToml::read(root.table(faults, "tls", "[tls]"), faults);
    let spool = SpoolToml::read(&mut root, faults);
    let listeners = listeners(&mut root, faults);
    let relay = relay(root.table(faults, "relay", "[relay]"), faults);
    let tables = shared_tables(&mut root, included, faults);
    let (connectors, recipients) = (tables.connectors, tables.recipients);
    let queue = tables::queue(root.table(faults, "queue", "[queue]"), faults);
    let limits = tables::limits(root.table(faults, "limits", "[limits]"), faults);
    let timeouts = tables::timeouts(root.table(faults, "timeouts", "[timeouts]"), faults);
    let dns = tables::dns(root.table(faults, "dns", "[dns]"), faults);
    let net = net_toml::net(root.table(faults, "net", "[net]"), faults);
    let users = tables::users(root.table(faults, "users", "[users]"), faults);
    let evidence = tables::evidence(root.table(faults, "evidence", "[evidence]"), faults);
    let admin = tables::admin(root.table(faults, "admin", "[admin]"), faults);
    let reports = TlsrptToml::read(root.table(faults, "tlsrpt", "[tlsrpt]"), faults);
    let log = tables::log(root.table(faults, "log", "[log]"), faults);
    root.finish(faults);

    let written = (&tls, listeners.as_deref(), connectors.as_slice());
    rules::check_hostname(&hostname, faults);
    check_rules(written, &relay, &dns, faults);
    logins::check(listeners.as_deref(), &users, faults);
    let recipients = recipients_toml::resolve(recipients, &relay, faults);
    let reports = reports.resolve(&hostname, &postmaster, faults);

    let (Field::Valid(hostname), Field::Valid(postmaster)) = (hostname, postmaster) else {
        return None;
    };
    let tls = tls.resolve();
    let (spool, database) = spool.resolve(&hostname.value, &tls);
    let connectors: Vec<_> = connectors
        .into_iter()
        .map(|connector| connector.resolve(&tls))
        .collect();
    recipients_toml::warn_of_mx(&recipients, &connectors, &tls, faults);
    Some(Config {
        hostname: hostname.value,
        postmaster: postmaster.value,
        spool,
        database,
        listeners: listeners?
            .into_iter()
            .map(|listener| Arc::new(listener.resolve()))
            .collect(),
        relay,
        recipients,
        connectors,
        tls,
        queue,
        limits,
        timeouts,
        dns,
        net,
        users: users.value().cloned(),
        evidence,
        admin,
        tlsrpt: reports?,
        log,
        source,
    })
}

/// Reads the name of the host and the address of the postmaster.
fn own_names(
    root: &mut TableReader<'_>,
    faults: &mut FaultList<'_>,
) -> (Field<Domain>, Field<Mailbox>) {
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
    (hostname, postmaster)
}

/// Reads the listeners; `None` if their list itself is invalid.
fn listeners(root: &mut TableReader<'_>, faults: &mut FaultList<'_>) -> Option<Vec<ListenerToml>> {
    let tables = root.tables(faults, "listener", "[[listener]]")?;
    Some(read_all(tables, faults, ListenerToml::read))
}

/// Reads the connectors and the recipients of the document, and then those of the files that it
/// includes.
fn shared_tables<'d>(
    root: &mut TableReader<'d>,
    included: &[&'d DeTable<'d>],
    faults: &mut FaultList<'_>,
) -> SharedTables {
    let mut tables = SharedTables {
        connectors: Vec::new(),
        recipients: Vec::new(),
    };
    tables.read(root, faults);
    root.read(faults, "include", include::patterns);
    include::read_included(included, &mut tables, faults);
    tables
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

/// Returns the SHA-256 of a configuration's files, one after the other, in hexadecimal.
fn digest(main: &SourceFile, included: &[SourceFile]) -> String {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for file in std::iter::once(main).chain(included) {
        digest.update(file.text.as_bytes());
    }
    data_encoding::HEXLOWER.encode(digest.finish().as_ref())
}
