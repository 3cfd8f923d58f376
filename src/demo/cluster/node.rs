//! A relay of the cluster: the program itself, as a process of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::super::cases::PARTNER;
use super::child::DemoChild;
use super::error::ClusterDemoError;
use crate::admin::api::nodes::NodeDetails;

/// The time for the start of a relay; the first one makes the schema.
const START_TIME: Duration = Duration::from_secs(30);
/// The time for the answer of a relay, whose greeting is otherwise not waited for.
const GREETING_TIME: Duration = Duration::from_secs(1);

/// A relay.
pub(super) struct DemoNode {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    config_file: PathBuf,
    process: DemoChild,
}

/// The settings that are the same for all relays.
pub(super) struct NodePlan<'a> {
    /// The folder with the certificates.
    pub(super) folder: &'a Path,
    pub(super) url: &'a str,
    /// The address of the partner's server.
    pub(super) partner: SocketAddr,
    /// The lease, as written in the configuration.
    pub(super) lease: &'static str,
}

impl DemoNode {
    /// Starts a relay, and waits until it accepts mail.
    pub(super) async fn start(
        plan: &NodePlan<'_>,
        number: usize,
    ) -> Result<Self, ClusterDemoError> {
        let name = format!("relay-{number}");
        let folder = plan.folder.join(&name);
        std::fs::create_dir(&folder)?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = free.local_addr()?;
        drop(free);
        let config_file = folder.join("gatepost.toml");
        std::fs::write(&config_file, configuration(plan, &name, address))?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["run", "--config"])
            .arg(&config_file)
            .env("NO_COLOR", "1")
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET");
        let log = folder.join("log");
        let mut process = DemoChild::start(&name, &mut command, &log, Signal::KILL)?;
        process
            .ready(START_TIME, async || is_greeted(address).await)
            .await?;
        Ok(Self {
            name,
            address,
            config_file,
            process,
        })
    }

    /// Returns the process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it with SIGKILL.
    pub(super) async fn kill(&mut self) -> Result<(), ClusterDemoError> {
        self.process.stop(Signal::KILL).await
    }

    /// Stops it in an orderly way.
    pub(super) async fn stop(&mut self) -> Result<(), ClusterDemoError> {
        self.process.stop(Signal::TERM).await
    }

    /// Returns the nodes, as `gatepost node list` has them.
    pub(super) async fn list(&self) -> Result<Vec<NodeDetails>, ClusterDemoError> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["node", "list", "--json", "--config"])
            .arg(&self.config_file);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.map_err(std::io::Error::other)??;
        if !output.status.success() {
            let fault = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(ClusterDemoError::NodeList(fault));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| ClusterDemoError::NodeList(error.to_string()))
    }
}

/// Returns true if a relay greets at this address.
async fn is_greeted(address: SocketAddr) -> bool {
    let greeting = async {
        let mut code = [0; 3];
        let mut stream = TcpStream::connect(address).await?;
        stream.read_exact(&mut code).await?;
        std::io::Result::Ok(&code == b"220")
    };
    matches!(
        tokio::time::timeout(GREETING_TIME, greeting).await,
        Ok(Ok(true))
    )
}

/// Returns the configuration file of a relay.
fn configuration(plan: &NodePlan<'_>, name: &str, address: SocketAddr) -> String {
    let NodePlan {
        url,
        partner,
        lease,
        ..
    } = plan;
    format!(
        r#"# A relay of `gatepost demo --cluster`.
hostname = "relay.example"
postmaster = "postmaster@our.example"

[tls]
certificate = "../relay.pem"
key = "../relay.key"
trust = "../ca.pem"

[spool]
path = "spool"
url = "{url}"

[cluster]
node = "{name}"
lease = "{lease}"

[evidence]
path = "evidence"

[admin]
socket = "admin.sock"
http = ""

[[listener]]
name = "mx"
address = ["{address}"]
tls = "opportunistic"

[relay]
networks = ["127.0.0.0/8"]

[queue]
retry = ["1s"]

[[connector]]
name = "partner"
domains = ["partner.example"]
names = ["{PARTNER}"]

[connector.outbound]
route = ["{partner}"]
tls = "forced"
verify = "name"
"#
    )
}
