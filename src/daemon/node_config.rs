//! The configuration of this node as others compare it before they send its messages.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use crate::config::{
    Config, Connector, Fault, KeyValue, TrustAnchor, TrustSource, default_connector,
    outbound_settings, sections,
};
use crate::net::tls_io::TlsMaterial;
use crate::policy::adoption::{NodeConfig, PublishedConnector};
use crate::relay::running_config::Snapshot;
use crate::storage::spool::Spool;

/// The settings that may differ between nodes: they decide from where, how fast and how often mail is
/// tried, and not how it is protected. Any other setting counts, one that is added later too.
const FREE: [&str; 8] = [
    "outbound.connections",
    "outbound.messages_per_connection",
    "outbound.source",
    "outbound.ehlo",
    "outbound.retry",
    "outbound.expire",
    "outbound.warn_after",
    "outbound.client_key",
];

/// Publishes the configuration in use to the other nodes of a spool.
pub(super) struct ConfigPublisher(Arc<dyn Spool>);

impl fmt::Debug for ConfigPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigPublisher").finish_non_exhaustive()
    }
}

impl ConfigPublisher {
    /// Publishes the configuration of the start, before anything is claimed.
    pub(super) fn start(spool: Arc<dyn Spool>, snapshot: &Snapshot) -> Self {
        let publisher = Self(spool);
        publisher.publish(snapshot);
        publisher
    }

    /// Publishes a configuration, after a reload.
    pub(super) fn publish(&self, snapshot: &Snapshot) {
        self.0.publish(node_config(&snapshot.config, &snapshot.tls));
    }
}

/// Returns what a relay with this configuration publishes, for commands that act in its place. Blocks.
///
/// # Errors
/// The faults of the files that the configuration names.
pub fn published_config(config: &Config) -> Result<NodeConfig, Vec<Fault>> {
    let (tls, _) = TlsMaterial::load(config)?;
    Ok(node_config(config, &tls))
}

/// Returns the configuration to publish. The content of files with trust anchors counts, and not where
/// they lie; of a client certificate the names count, since each node renews its own. Blocks.
fn node_config(config: &Config, tls: &TlsMaterial) -> NodeConfig {
    let global = global_rules(config);
    let identities: HashMap<_, _> = tls
        .identities()
        .into_iter()
        .map(|identity| (identity.file, identity.names.join(" ")))
        .collect();
    let default = default_connector(&config.tls.trust);
    let connectors: Vec<_> = config
        .connectors
        .iter()
        .chain([&default])
        .map(|connector| {
            let client = connector.outbound.client_identity.as_ref();
            let client = client.and_then(|files| identities.get(&files.certificate.value));
            PublishedConnector {
                name: connector.name.clone(),
                domains: connector.domains.iter().map(ToString::to_string).collect(),
                rules: sha256(&connector_rules(connector, client, &global)),
            }
        })
        .collect();
    NodeConfig {
        digest: config.source.digest.clone(),
        rules: sha256(&format!("{connectors:?}")),
        connectors,
    }
}

/// Returns the settings for all mail that can weaken a connector's, one a line.
fn global_rules(config: &Config) -> String {
    let mut rules = String::new();
    for section in sections(config) {
        let keys: &[&str] = match section.title.as_str() {
            "[tls]" => &["min_version"],
            "[dns]" => &["dnssec"],
            _ => continue,
        };
        let pairs = section.pairs.iter();
        add(&mut rules, pairs.filter(|(key, _)| keys.contains(key)));
    }
    if let TrustAnchor::File(file) = &config.dns.trust_anchor {
        add_file(&mut rules, "trust_anchor", &file.value);
    }
    rules
}

/// Returns all that decides how mail by a connector is sent, one setting a line.
fn connector_rules(connector: &Connector, client: Option<&String>, global: &str) -> String {
    let mut rules = global.to_owned();
    let settings = outbound_settings(connector);
    // Where mail from the domain must come by TLS, reports to it are without content.
    let inbound = connector.inbound.tls;
    let _ = writeln!(rules, "inbound.tls = {inbound:?}");
    let counts = settings.iter().filter(|(key, _)| {
        let is_by_content = match *key {
            "trust" => matches!(connector.trust.value, TrustSource::File(_)),
            "outbound.client_certificate" => client.is_some(),
            _ => false,
        };
        !FREE.contains(key) && !is_by_content
    });
    add(&mut rules, counts);
    if let TrustSource::File(file) = &connector.trust.value {
        add_file(&mut rules, "trust", file);
    }
    if let Some(names) = client {
        rules.push_str("client certificate of ");
        rules.push_str(names);
    }
    rules
}

fn add<'a>(rules: &mut String, pairs: impl Iterator<Item = &'a KeyValue>) {
    for (key, value) in pairs {
        // Writing into a String cannot fail.
        let _ = writeln!(rules, "{key} = {value}");
    }
}

/// Adds the content of a file. A file that cannot be read any more is like none of another node, unless
/// that cannot read it either.
fn add_file(rules: &mut String, key: &str, file: &Path) {
    let content = match std::fs::read(file) {
        Ok(content) => HEXLOWER.encode(digest(&SHA256, &content).as_ref()),
        Err(error) => format!("{}: {error}", file.display()),
    };
    // Writing into a String cannot fail.
    let _ = writeln!(rules, "{key} has {content}");
}

fn sha256(text: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n";
    const LISTENER: &str =
        "[[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n";

    /// The tables and the lines of another node, with ' for ", and the connectors that differ from those
    /// with forced TLS alone.
    const CASES: &[(&str, &str, &str)] = &[
        ("", "outbound.tls = 'forced'", ""),
        ("", "outbound.tls = 'opportunistic'", "p"),
        ("", "outbound = { tls = 'forced', verify = 'chain' }", "p"),
        (
            "",
            "outbound = { tls = 'forced', min_version = '1.3' }",
            "p",
        ),
        (
            "",
            "outbound = { tls = 'forced', on_failure = 'bounce' }",
            "p",
        ),
        (
            "",
            "outbound = { tls = 'forced', downgrade = 'allow' }",
            "p",
        ),
        ("", "outbound = { tls = 'forced', discover = [] }", "p"),
        (
            "",
            "outbound = { tls = 'forced', route = ['192.0.2.1:25'] }",
            "p",
        ),
        ("", "outbound = { tls = 'forced', port = 2525 }", "p"),
        (
            "",
            "outbound = { tls = 'forced', min_strength = 'post-quantum' }",
            "p",
        ),
        (
            "",
            "outbound = { tls = 'forced', exception = { tls = 'opportunistic', until = '2030-01-01', reason = 'x' } }",
            "p",
        ),
        (
            "",
            "trust = 'system'\noutbound = { tls = 'forced', verify = 'chain' }",
            "p",
        ),
        (
            "[tls]\nmin_version = '1.3'",
            "outbound.tls = 'forced'",
            "p default",
        ),
        (
            "[dns]\ndnssec = 'off'",
            "outbound = { tls = 'forced', discover = ['mta-sts'] }",
            "p default",
        ),
        // Speed, schedule and mail that comes in.
        (
            "",
            "outbound = { tls = 'forced', connections = 3, messages_per_connection = 7 }",
            "",
        ),
        (
            "",
            "outbound = { tls = 'forced', source = ['192.0.2.9'], ehlo = 'b.example.com', retry = ['1h'], expire = '2d' }",
            "",
        ),
        (
            "[queue]\nexpire = '3d'\n[limits]\ndelivery_attempts = 500",
            "inbound.networks = ['192.0.2.0/24']\noutbound.tls = 'forced'",
            "",
        ),
    ];

    /// Publishes a configuration with these tables and one connector with these lines.
    fn published(tables: &str, lines: &str) -> NodeConfig {
        let connector = "[[connector]]\nname = \"p\"\ndomains = [\"p.example\"]\n";
        let text = format!("{START}{tables}\n{LISTENER}{connector}{lines}\n");
        let (config, _) = crate::config::parse(&text, Path::new("gatepost.toml"))
            .unwrap_or_else(|faults| panic!("{text}\n{faults:?}"));
        let (tls, _) =
            TlsMaterial::load(&config).unwrap_or_else(|faults| panic!("{text}\n{faults:?}"));
        node_config(&config, &tls)
    }

    #[test]
    fn all_that_decides_how_mail_is_sent_counts_and_nothing_else() {
        let own = published("", "outbound.tls = \"forced\"");
        for (tables, lines, expected) in CASES {
            let lines = lines.replace('\'', "\"");
            let other = published(&tables.replace('\'', "\""), &lines);
            let differing = own.differing_connectors(&other).join(" ");
            assert_eq!(differing, *expected, "{tables} {lines}");
            assert_eq!(own.rules == other.rules, expected.is_empty(), "{lines}");
        }
    }

    #[test]
    fn the_content_of_trust_counts_and_not_where_it_lies() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = rcgen::KeyPair::generate().expect("a key");
        let authority = |name: &str, file: &str| {
            let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names");
            parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let name = (rcgen::DnType::CommonName, name);
            parameters.distinguished_name.push(name.0, name.1);
            let pem = parameters.self_signed(&key).expect("signed").pem();
            let path = folder.path().join(file);
            std::fs::write(&path, pem).expect("the folder is ours");
            path
        };
        let (one, other) = (authority("one", "one.pem"), authority("other", "other.pem"));
        let moved = folder.path().join("moved.pem");
        std::fs::copy(&one, &moved).expect("the folder is ours");
        let with = |file: &Path| {
            let lines = format!(
                "trust = \"{}\"\noutbound = {{ tls = \"forced\", verify = \"chain\" }}",
                file.display()
            );
            published("", &lines)
        };
        assert!(with(&one).differing_connectors(&with(&moved)).is_empty());
        assert_eq!(with(&one).differing_connectors(&with(&other)), ["p"]);
    }
}
