//! A relay of the cluster, as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use super::LEASE;
use super::wire::Wire;
use crate::support::relay::{End, Relay, program};

/// The address of a relay; `None` while it does not run.
pub(super) type SharedAddress = Arc<Mutex<Option<SocketAddr>>>;

/// A relay, its folder, and its wires to the primary and to the standby.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) wires: [Wire; 2],
    folder: PathBuf,
    sink: SocketAddr,
    /// Each start has a host name of its own, which the sink remembers.
    starts: usize,
    /// Lines that are added to the connectors.
    pub(super) connectors: String,
    /// True if its queue is in the database, and not in its folder.
    pub(super) has_database: bool,
    address: SharedAddress,
    pub(super) relay: Option<Relay>,
}

impl Node {
    pub(super) fn place(folder: &Path, number: usize, wires: [Wire; 2], sink: SocketAddr) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        Self {
            name: format!("relay-{number}"),
            wires,
            folder: folder.to_owned(),
            sink,
            starts: 0,
            connectors: String::new(),
            has_database: true,
            address: SharedAddress::default(),
            relay: None,
        }
    }

    /// The URL of the database, by the wires.
    pub(super) fn url(&self) -> String {
        let [primary, standby] = self.wires.each_ref().map(|wire| wire.port);
        format!(
            "postgresql://gatepost@127.0.0.1:{primary},127.0.0.1:{standby}/gatepost?sslmode=disable&target_session_attrs=read-write"
        )
    }

    /// The part of the configuration about the database.
    fn database(&self) -> String {
        if !self.has_database {
            return String::new();
        }
        format!(
            "url = \"{}\"\n\n[cluster]\nnode = \"{}\"\nlease = \"{}s\"",
            self.url(),
            self.name,
            LEASE.as_secs()
        )
    }

    /// The file of the configuration.
    pub(super) fn configuration(&self) -> PathBuf {
        self.folder.join("gatepost.toml")
    }

    /// Writes the configuration for the next start.
    pub(super) fn configure(&self) {
        let text = format!(
            r#"
hostname = "start{starts}.{name}.example"
postmaster = "postmaster@example.com"

[admin]
socket = "{socket}"
http = ""

[spool]
path = "{spool}"
{database}

[evidence]
path = "{evidence}"

[[listener]]
name = "mx"
address = ["127.0.0.1:0"]
tls = "off"

[relay]
networks = ["127.0.0.0/8"]

[[connector]]
name = "all"
domains = ["*"]

[connector.outbound]
route = ["{sink}"]
tls = "off"

[[connector]]
name = "forced"
domains = ["forced.example"]

[connector.outbound]
route = ["{sink}"]
tls = "forced"
{connectors}
[queue]
retry = ["200ms"]

[log]
format = "text"
"#,
            starts = self.starts,
            name = self.name,
            socket = self.folder.join("admin.sock").display(),
            spool = self.folder.join("spool").display(),
            database = self.database(),
            evidence = self.folder.join("evidence").display(),
            sink = self.sink,
            connectors = self.connectors,
        );
        std::fs::write(self.configuration(), text).expect("ours");
    }

    /// Starts the relay.
    ///
    /// # Errors
    /// [`End`] where it ended before it listened.
    pub(super) fn try_start(&mut self, under: &[String]) -> Result<(), End> {
        self.starts += 1;
        self.configure();
        let relay = Relay::run(&self.configuration(), under)?;
        self.set_address(Some(relay.address));
        self.relay = Some(relay);
        Ok(())
    }

    pub(super) fn start(&mut self) {
        self.try_start(&[])
            .unwrap_or_else(|end| panic!("{} did not start:\n{}", self.name, end.log));
    }

    pub(super) fn address(&self) -> SharedAddress {
        Arc::clone(&self.address)
    }

    fn set_address(&self, address: Option<SocketAddr>) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    pub(super) fn running(&mut self) -> &mut Relay {
        self.relay.as_mut().expect("it runs")
    }

    /// kill -9.
    pub(super) fn kill(&mut self) {
        self.set_address(None);
        let end = self.relay.take().expect("it runs").kill();
        end.check().unwrap_or_else(|fault| panic!("{fault}"));
    }

    /// SIGTERM, and the end.
    pub(super) fn stop(&mut self) {
        self.set_address(None);
        let end = self.relay.take().expect("it runs").terminate();
        end.check().unwrap_or_else(|fault| panic!("{fault}"));
    }

    /// Runs a command of the program with this node's configuration. Returns its exit status and what it
    /// printed.
    pub(super) fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .arg("--config")
            .arg(self.configuration())
            .env("NO_COLOR", "1");
        let output = command.output().expect("the program");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        (output.status.code(), printed)
    }
}
