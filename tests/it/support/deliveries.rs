//! Configurations, messages and deliveries for the tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use gatepost::config::Config;
use gatepost::discovery::Discovery;
use gatepost::discovery::history::History;
use gatepost::discovery::mta_sts::{MtaSts, POLICY_FETCH_TIMEOUT, WebSource};
use gatepost::net::dns::Dns;
use gatepost::net::https::Https;
use gatepost::net::oauth::TokenCaches;
use gatepost::net::tls_io::TlsMaterial;
use gatepost::policy::failure::{Failure, RecipientOutcome};
use gatepost::relay::outbound::{Attempt, AttemptResult, Outbound, RecipientResult};
use gatepost::relay::running_config::{RunningConfig, Snapshot};
use gatepost::relay::smart_host_logins::SmartHostLogins;
use gatepost::relay::tlsrpt::Reporter;
use gatepost::smtp::address::{Host, Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, QueueId, Recipient};
use gatepost::storage::spool::{Body, Entry};

use super::certificates::Authority;
use super::config::ConfigBuilder;
use super::dns::NameServer;

/// The zone of every test: all hosts are on loopback, and differ in their ports.
const PARTNER: &str = "
    mx.partner.example A 127.0.0.1
    mx1.partner.example A 127.0.0.1
    mx2.partner.example A 127.0.0.2
    two.partner.example A 127.0.0.1
    two.partner.example A 127.0.0.2
    partner.example MX 10 mx1.partner.example
    partner.example MX 20 mx2.partner.example
    other.example MX 10 mx1.partner.example
    backup.example MX 10 mx2.partner.example
    backup.example MX 20 mx1.partner.example
    null.example MX 0 .
";

pub(crate) struct World {
    pub(crate) authority: Authority,
    folder: tempfile::TempDir,
    /// The lines of `[dns]`.
    pub(crate) dns: String,
    /// The port of the policy hosts.
    pub(crate) policy_port: u16,
    /// The time for a handshake.
    pub(crate) handshake: &'static str,
    /// The time for the reply to the content.
    pub(crate) final_reply: &'static str,
    /// A name server of unsigned zones, where there is no other.
    _names: Option<NameServer>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(PARTNER).await
    }

    /// One with these records below "example".
    pub(crate) async fn with(records: &str) -> Self {
        let names = NameServer::start(&[("example", records)]).await;
        let dns = format!("servers = [\"{}\"]", names.address);
        Self {
            _names: Some(names),
            ..Self::of(Authority::root("The Test Authority"), dns)
        }
    }

    /// One that trusts this authority, and asks for names as these lines of `[dns]` say.
    pub(crate) fn of(authority: Authority, dns: String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the folder is ours");
        Self {
            authority,
            folder,
            dns,
            policy_port: 443,
            handshake: "5s",
            final_reply: "2s",
            _names: None,
        }
    }

    /// A configuration that trusts the authority, with these connectors.
    pub(crate) fn config(&self, connectors: &str) -> Config {
        let timeouts = format!(
            "connect = \"5s\"\nreply = \"2s\"\nhandshake = \"{}\"\nfinal_reply = \"{}\"\ndata_block = \"2s\"",
            self.handshake, self.final_reply
        );
        ConfigBuilder::new()
            .table("tls", "trust = \"ca.pem\"")
            .table("dns", &self.dns)
            .table("timeouts", &timeouts)
            .with(connectors)
            .parse_in(self.folder.path())
    }

    pub(crate) fn snapshot(&self, connectors: &str) -> Snapshot {
        let config = Arc::new(self.config(connectors));
        let tls = match TlsMaterial::load(&config) {
            Ok((material, _)) => material,
            Err(faults) => panic!("{faults:?}"),
        };
        let dns = Dns::new(&config.dns).expect("a resolver");
        let caches = TokenCaches::default();
        let loaded = SmartHostLogins::load(&config, &dns, &caches);
        let (logins, _) = loaded.expect("readable secrets");
        Snapshot::new(config, tls, dns).with_logins(logins)
    }

    /// Everything that is known apart from the connectors, if it is in this folder.
    pub(crate) fn discovery(&self, folder: &Path) -> Discovery {
        let config = self.config("");
        let dns = Dns::new(&config.dns).expect("a resolver");
        let (material, _) = TlsMaterial::load(&config).expect("a configuration that can be loaded");
        let web = WebSource::new(dns.clone(), Https::new(dns, material.https().clone()));
        let policies = MtaSts::open(
            folder,
            web.with_port_and_timeout(self.policy_port, POLICY_FETCH_TIMEOUT),
        )
        .expect("our own version");
        Discovery::new(
            policies,
            History::open(folder, jiff::Timestamp::now()).expect("a memory"),
        )
    }

    /// A folder of its own, for what is known outside of connectors.
    pub(crate) fn folder(&self) -> PathBuf {
        tempfile::tempdir_in(self.folder.path())
            .expect("a folder")
            .keep()
    }

    pub(crate) fn outbound(&self, connectors: &str) -> Outbound {
        self.observed(connectors, Reporter::off())
    }

    pub(crate) fn observed(&self, connectors: &str, reporter: Reporter) -> Outbound {
        Outbound::new(
            RunningConfig::new(self.snapshot(connectors)),
            self.discovery(&self.folder()),
            reporter,
        )
    }
}

/// A connector as TOML, with `more` lines in `[connector.outbound]`.
pub(crate) fn connector(name: &str, domains: &[&str], more: &str) -> String {
    format!(
        "[[connector]]\nname = \"{name}\"\ndomains = {domains:?}\n[connector.outbound]\n{more}\n"
    )
}

pub(crate) const CONTENT: &[u8] = b"Subject: test\r\n\r\n.a line with a dot\r\n";

pub(crate) fn message(recipients: &[&str]) -> Entry {
    let recipient = |text: &&str| Recipient::new(Mailbox::parse(text).expect(text));
    let sender = ReversePath::parse("sender@example.com").expect("a path");
    Entry {
        id: QueueId::from_number(7).expect("small"),
        accepted: jiff::Timestamp::UNIX_EPOCH,
        envelope: Envelope::new(sender, recipients.iter().map(recipient).collect()),
        size: CONTENT.len() as u64,
        body: Body::Memory(Bytes::from_static(CONTENT)),
    }
}

/// Replaces the configuration, as a reload does.
pub(crate) fn reload(outbound: &Outbound, snapshot: Snapshot) {
    outbound.running().replace(snapshot);
    outbound.close_replaced();
}

pub(crate) fn attempt(entry: Entry) -> Attempt {
    let host: Host = entry.envelope.recipients[0].mailbox.host().clone();
    let recipients = (0..entry.envelope.recipients.len()).collect();
    Attempt {
        entry: Arc::new(entry),
        recipients,
        apart: Vec::new(),
        host,
        may_be_last: false,
    }
}

pub(crate) async fn deliver(outbound: &Outbound, entry: Entry) -> AttemptResult {
    let count = entry.envelope.recipients.len();
    let report = outbound.deliver(attempt(entry)).await;
    let mut told: Vec<usize> = report
        .results
        .iter()
        .map(|result| result.recipient)
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        (0..count).collect::<Vec<_>>(),
        "each recipient has one result: {report:?}"
    );
    report
}

/// The result of a recipient.
pub(crate) fn result(report: &AttemptResult, recipient: usize) -> &RecipientResult {
    report
        .results
        .iter()
        .find(|result| result.recipient == recipient)
        .expect("a result")
}

/// `delivered`, or `deferred 4.7.4` and the like.
pub(crate) fn outcome(report: &AttemptResult, recipient: usize) -> String {
    use gatepost::policy::failure::Persistence::{Permanent, Transient};
    match &result(report, recipient).outcome {
        RecipientOutcome::Delivered(_) => "delivered".to_owned(),
        RecipientOutcome::Deferred(failure) => format!("deferred {}", failure.enhanced(Transient)),
        RecipientOutcome::Held(failure) => format!("held {}", failure.enhanced(Transient)),
        RecipientOutcome::Bounced(failure) => format!("bounced {}", failure.enhanced(Permanent)),
    }
}

pub(crate) fn failure(report: &AttemptResult, recipient: usize) -> &Failure {
    match &result(report, recipient).outcome {
        RecipientOutcome::Deferred(failure)
        | RecipientOutcome::Held(failure)
        | RecipientOutcome::Bounced(failure) => failure,
        RecipientOutcome::Delivered(reply) => panic!("it was delivered: {reply}"),
    }
}
