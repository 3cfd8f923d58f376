//! The set-up of the demo: peers, a configuration in a temporary folder, and a relay that runs with
//! it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use crate::daemon::{self, RunningDaemon, SystemdSockets, TestOverrides};

use super::attempts::AttemptLog;
use super::authority::{Authority, DemoIdentity, Flaw};
use super::cases::{OUTGOING, PARTNER};
use super::configuration::configuration;
use super::error::DemoError;
use super::peer::{DemoPeer, Interceptor, PeerBehaviour};
use super::publishing::PublishingHosts;

/// The relay and its peers.
pub(super) struct DemoStage {
    pub(super) relay: SocketAddr,
    pub(super) attempts: Arc<AttemptLog>,
    pub(super) authority: Authority,
    pub(super) partner: DemoIdentity,
    /// The peer of each of [`OUTGOING`], in order.
    pub(super) peers: Vec<DemoPeer>,
    pub(super) mailboxes: DemoPeer,
    pub(super) domain_a: DemoPeer,
    pub(super) domain_b: DemoPeer,
    pub(super) domain_c: DemoPeer,
    pub(super) interceptor_of_c: Interceptor,
    pub(super) publishers: PublishingHosts,
    pub(super) config_file: PathBuf,
    running: RunningDaemon,
    /// The folder is deleted when this is dropped.
    _folder: TempDir,
}

impl DemoStage {
    /// Starts peers and relay.
    pub(super) async fn start() -> Result<Self, DemoError> {
        let folder = tempfile::Builder::new()
            .prefix("gatepost-demo-")
            .tempdir()?;
        let authority = Authority::new()?;
        let partner = authority.issue(PARTNER, Flaw::None)?;
        let relay = authority.issue("relay.example", Flaw::None)?;
        std::fs::write(folder.path().join("ca.pem"), authority.pem())?;
        relay.write_files(folder.path(), "relay")?;
        let mut peers = Vec::new();
        for case in OUTGOING {
            peers.push(
                DemoPeer::start(PeerBehaviour::of(&authority, case.shows, PARTNER)?.0).await?,
            );
        }
        let mailboxes = DemoPeer::start(PeerBehaviour::NoTls).await?;
        let domain_a = DemoPeer::start(PeerBehaviour::NoTls).await?;
        let domain_b = DemoPeer::start(PeerBehaviour::Tls(
            authority.issue("mail.domain-b.com", Flaw::None)?.server()?,
        ))
        .await?;
        let domain_c = DemoPeer::start(PeerBehaviour::Tls(
            authority.issue("mail.domain-c.com", Flaw::None)?.server()?,
        ))
        .await?;
        let interceptor_of_c = Interceptor::start(domain_c.address).await?;
        let publishers = PublishingHosts::start(&authority, folder.path()).await?;
        let addresses = [
            mailboxes.address,
            domain_a.address,
            domain_b.address,
            interceptor_of_c.address,
        ];
        let config_file = folder.path().join("gatepost.toml");
        std::fs::write(&config_file, configuration(&peers, addresses, &publishers))?;
        let (config, _) = crate::config::read(&config_file).map_err(DemoError::Faults)?;
        let attempts = Arc::new(AttemptLog::default());
        let log = Arc::clone(&attempts);
        let test_overrides = TestOverrides {
            policy_port: publishers.policies.port,
            ..TestOverrides::default()
        };
        let running =
            daemon::start_with(test_overrides, SystemdSockets::default(), config, log).await?;
        let relay = running
            .addresses
            .first()
            .map(|(_, address)| *address)
            .ok_or(DemoError::NoListener)?;
        Ok(Self {
            relay,
            attempts,
            authority,
            partner,
            peers,
            mailboxes,
            domain_a,
            domain_b,
            domain_c,
            interceptor_of_c,
            publishers,
            config_file,
            running,
            _folder: folder,
        })
    }

    /// Stops the relay in an orderly way, then the peers.
    pub(super) async fn stop(mut self) -> Result<(), DemoError> {
        self.running.stop();
        self.running.ended().await?;
        Ok(())
    }
}
