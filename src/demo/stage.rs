//! The stage: peers, a configuration in a temporary folder, and a relay that runs from it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Notify;

use crate::daemon::{self, Passed, Running};
use crate::outbound::{Attempt, Report};
use crate::outcome::{Cause, Failure, Outcome, Persistence};
use crate::tls::{Authentication, NoTls, TlsOutcome};

use super::DemoError;
use super::authority::{Authority, Flaw, Identity};
use super::peer::{Interceptor, Manner, Peer};
use super::scenarios::{OUTGOING, Outgoing, Shown};

/// How long the demo waits for one message: far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The name that the partner's certificates must carry.
pub(super) const PARTNER: &str = "mail.partner.example";

/// How the relay's attempt for one recipient ended, as the relay recorded it.
#[derive(Clone)]
pub(super) struct Record {
    to: String,
    pub(super) end: End,
}

/// See [`Record`].
#[derive(Clone)]
pub(super) enum End {
    Clear(NoTls),
    Tls { version: String, cipher: String, authentication: Authentication },
    Waits { status: String, reason: String },
    GivenUp { status: String, reason: String },
}

/// What the relay recorded so far.
#[derive(Default)]
pub(super) struct Ledger {
    records: Mutex<Vec<Record>>,
    news: Notify,
}

impl Ledger {
    fn enter(&self, attempt: &Attempt, report: &Report) {
        let envelope = &attempt.entry.envelope;
        let record = |result: &crate::outbound::RecipientResult| {
            let to = envelope.recipients.get(result.recipient).map(|recipient| recipient.mailbox.to_string());
            Record { to: to.unwrap_or_default(), end: End::of(result) }
        };
        self.records.lock().unwrap_or_else(PoisonError::into_inner).extend(report.results.iter().map(record));
        self.news.notify_waiters();
    }

    /// The first attempt for a recipient.
    pub(super) async fn wait_for(&self, to: &str) -> Result<Record, DemoError> {
        let found = async {
            loop {
                let news = self.news.notified();
                let records = self.records.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(record) = records.into_iter().find(|record| record.to == to) {
                    return record;
                }
                // Registered before the look, so that nothing falls between.
                news.await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.map_err(|_| DemoError::Silence(to.to_owned()))
    }
}

impl End {
    fn of(result: &crate::outbound::RecipientResult) -> Self {
        let why = |failure: &Failure| match &failure.cause {
            Cause::Policy(refusal) => refusal.got.to_string(),
            Cause::Unpromised(_) | Cause::Reply { .. } | Cause::Other(_) => failure.to_string(),
        };
        match (&result.outcome, &result.via) {
            (Outcome::Delivered(_), Some(via)) => match via.clearance.outcome() {
                TlsOutcome::Clear(reason) => Self::Clear(reason.clone()),
                TlsOutcome::Tls(facts) => Self::Tls {
                    version: facts.version.to_string(),
                    cipher: super::short_cipher(facts.cipher),
                    authentication: via.clearance.authentication().clone(),
                },
            },
            (Outcome::Delivered(reply), None) => {
                Self::GivenUp { status: "none".to_owned(), reason: format!("delivered without a session?! {reply}") }
            }
            (Outcome::Deferred(failure) | Outcome::Held(failure), _) => {
                Self::Waits { status: failure.enhanced(Persistence::Transient).to_string(), reason: why(failure) }
            }
            (Outcome::Bounced(failure), _) => {
                Self::GivenUp { status: failure.enhanced(Persistence::Permanent).to_string(), reason: why(failure) }
            }
        }
    }
}

/// Everything that plays.
pub(super) struct Stage {
    pub(super) relay: SocketAddr,
    pub(super) ledger: Arc<Ledger>,
    pub(super) authority: Authority,
    pub(super) partner: Identity,
    /// One for each of [`OUTGOING`], in order.
    pub(super) peers: Vec<Peer>,
    pub(super) mailboxes: Peer,
    pub(super) domain_a: Peer,
    pub(super) domain_b: Peer,
    pub(super) domain_c: Peer,
    pub(super) on_the_way_to_c: Interceptor,
    pub(super) config_file: PathBuf,
    running: Running,
    /// Removed when the stage is.
    _folder: TempDir,
}

impl Stage {
    pub(super) async fn set() -> Result<Self, DemoError> {
        let folder = tempfile::Builder::new().prefix("gatepost-demo-").tempdir()?;
        let authority = Authority::new()?;
        let partner = authority.issue(PARTNER, Flaw::None)?;
        let relay = authority.issue("relay.example", Flaw::None)?;
        std::fs::write(folder.path().join("ca.pem"), authority.pem())?;
        std::fs::write(folder.path().join("relay.pem"), &relay.certificate_pem)?;
        write_secret(&folder.path().join("relay.key"), &relay.key_pem)?;
        let mut peers = Vec::new();
        for case in OUTGOING {
            peers.push(Peer::start(manner(&authority, case)?).await?);
        }
        let mailboxes = Peer::start(Manner::NoTls).await?;
        let domain_a = Peer::start(Manner::NoTls).await?;
        let domain_b = Peer::start(Manner::Tls(authority.issue("mail.domain-b.com", Flaw::None)?.server()?)).await?;
        let domain_c = Peer::start(Manner::Tls(authority.issue("mail.domain-c.com", Flaw::None)?.server()?)).await?;
        let on_the_way_to_c = Interceptor::start(domain_c.address).await?;
        let addresses = [mailboxes.address, domain_a.address, domain_b.address, on_the_way_to_c.address];
        let config_file = folder.path().join("gatepost.toml");
        std::fs::write(&config_file, configuration(&peers, addresses))?;
        let (config, _) = crate::config::read(&config_file).map_err(DemoError::Faults)?;
        let ledger = Arc::new(Ledger::default());
        let scribe = Arc::clone(&ledger);
        let running =
            daemon::start(config, Passed::default(), Arc::new(move |attempt, report| scribe.enter(attempt, report)))
                .await?;
        let relay = running.addresses.first().map(|(_, address)| *address).ok_or(DemoError::NoListener)?;
        Ok(Self {
            relay,
            ledger,
            authority,
            partner,
            peers,
            mailboxes,
            domain_a,
            domain_b,
            domain_c,
            on_the_way_to_c,
            config_file,
            running,
            _folder: folder,
        })
    }

    /// Stops the relay in order and clears everything away.
    pub(super) async fn strike(mut self) -> Result<(), DemoError> {
        self.running.stop();
        self.running.ended().await?;
        Ok(())
    }
}

fn write_secret(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

fn manner(authority: &Authority, case: &Outgoing) -> Result<Manner, DemoError> {
    let (name, flaw) = match case.shows {
        Shown::NoTls => return Ok(Manner::NoTls),
        Shown::BrokenTls => return Ok(Manner::BrokenTls),
        Shown::Good | Shown::GoodAndDemandsTls => (PARTNER, Flaw::None),
        Shown::OtherName => ("mail.stranger.example", Flaw::None),
        Shown::SelfSigned => (PARTNER, Flaw::SelfSigned),
        Shown::Expired => (PARTNER, Flaw::Expired),
    };
    let config = authority.issue(name, flaw)?.server()?;
    Ok(if case.shows == Shown::GoodAndDemandsTls { Manner::DemandsTls(config) } else { Manner::Tls(config) })
}

/// The relay's configuration: the same language that an administrator writes.
fn configuration(peers: &[Peer], [mailboxes, a, b, c]: [SocketAddr; 4]) -> String {
    let mut text = String::from(
        r#"# The relay of `gatepost demo`.
hostname = "relay.example"
postmaster = "postmaster@our.example"

[tls]
certificate = "relay.pem"
key = "relay.key"
trust = "ca.pem"

[spool]
path = "spool"

[admin]
socket = "admin.sock"

[[listener]]
name = "mx"
address = ["127.0.0.1:0"]
tls = "opportunistic"

[relay]
networks = ["127.0.0.0/8"]
domains = ["our.example"]

[queue]
retry = ["1h"]

# Incoming: these partners must show TLS, or a certificate with their name.
[[connector]]
name = "forced-partner"
domains = ["forced.example"]
[connector.inbound]
tls = "forced"

[[connector]]
name = "named-partner"
domains = ["partner.example"]
names = ["mail.partner.example"]
[connector.inbound]
tls = "forced"
verify = "name"
"#,
    );
    let name_c = "tls = \"forced\"\nverify = \"name\"\nmessages_per_connection = 1";
    for (domain, address, names, policy) in [
        ("our.example", mailboxes, "", "tls = \"opportunistic\""),
        ("domain-a.com", a, "", "tls = \"opportunistic\""),
        ("domain-b.com", b, "", "tls = \"opportunistic\""),
        ("domain-c.com", c, "names = [\"mail.domain-c.com\"]", name_c),
    ] {
        connector(&mut text, domain, address, names, policy);
    }
    for (case, peer) in OUTGOING.iter().zip(peers) {
        let names = if case.policy.by_name() { format!("names = [\"{PARTNER}\"]") } else { String::new() };
        connector(&mut text, case.domain, peer.address, &names, case.policy.toml());
    }
    text
}

fn connector(text: &mut String, domain: &str, route: SocketAddr, names: &str, policy: &str) {
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "\n[[connector]]\nname = \"{domain}\"\ndomains = [\"{domain}\"]\n{names}\n[connector.outbound]\nroute = [\"{route}\"]\n{policy}\n"
    );
}
