//! The stage: peers, a configuration in a temporary folder, and a relay that runs from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use crate::daemon::{self, RunningDaemon, SystemdSockets, TestOverrides};

use super::DemoError;
use super::authority::{Authority, Flaw, Identity};
use super::configuration::configuration;
use super::ledger::Ledger;
use super::peer::{Interceptor, Manner, Peer};
use super::published::Publishers;
use super::scenarios::{OUTGOING, Shown};

/// The name that the partner's certificates must carry.
pub(super) const PARTNER: &str = "mail.partner.example";

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
    pub(super) publishers: Publishers,
    pub(super) config_file: PathBuf,
    running: RunningDaemon,
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
            peers.push(Peer::start(manner(&authority, case.shows, PARTNER)?.0).await?);
        }
        let mailboxes = Peer::start(Manner::NoTls).await?;
        let domain_a = Peer::start(Manner::NoTls).await?;
        let domain_b = Peer::start(Manner::Tls(authority.issue("mail.domain-b.com", Flaw::None)?.server()?)).await?;
        let domain_c = Peer::start(Manner::Tls(authority.issue("mail.domain-c.com", Flaw::None)?.server()?)).await?;
        let on_the_way_to_c = Interceptor::start(domain_c.address).await?;
        let publishers = Publishers::start(&authority, folder.path()).await?;
        let addresses = [mailboxes.address, domain_a.address, domain_b.address, on_the_way_to_c.address];
        let config_file = folder.path().join("gatepost.toml");
        std::fs::write(&config_file, configuration(&peers, addresses, &publishers))?;
        let (config, _) = crate::config::read(&config_file).map_err(DemoError::Faults)?;
        let ledger = Arc::new(Ledger::default());
        let scribe = Arc::clone(&ledger);
        let test_overrides = TestOverrides { policy_port: publishers.policies.port };
        let observer = Arc::new(move |attempt: &_, report: &_| scribe.enter(attempt, report));
        let running = daemon::start_with(test_overrides, SystemdSockets::default(), config, observer).await?;
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
            publishers,
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

/// How a host behaves that is called `name`, and who it is.
pub(super) fn manner(authority: &Authority, shows: Shown, name: &str) -> Result<(Manner, Option<Identity>), DemoError> {
    let (name, flaw) = match shows {
        Shown::NoTls => return Ok((Manner::NoTls, None)),
        Shown::BrokenTls => return Ok((Manner::BrokenTls, None)),
        Shown::Good | Shown::GoodAndDemandsTls => (name, Flaw::None),
        Shown::OtherName => ("mail.stranger.example", Flaw::None),
        Shown::SelfSigned => (name, Flaw::SelfSigned),
        Shown::Expired => (name, Flaw::Expired),
    };
    let identity = authority.issue(name, flaw)?;
    let config = identity.server()?;
    let manner = if shows == Shown::GoodAndDemandsTls { Manner::DemandsTls(config) } else { Manner::Tls(config) };
    Ok((manner, Some(identity)))
}
