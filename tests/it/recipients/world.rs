//! A relay with `[[recipients]]` in this process.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use gatepost::config::Config;
use gatepost::daemon::RunningDaemon;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::config::ConfigBuilder;
use crate::support::in_process::{PATIENCE, connector, run};
use crate::support::peer::Peer;
use crate::support::session::Client;

/// A connector of `example.com` that leads to this server.
pub(super) fn mailboxes_to(server: &Peer) -> String {
    mailboxes_at(server.address, "")
}

/// A connector of `example.com` that leads to this address, with more lines.
pub(super) fn mailboxes_at(address: SocketAddr, more: &str) -> String {
    connector("example.com", address, more)
}

/// A table that asks the mailbox server, with more keys.
pub(super) fn ask(more: &str) -> String {
    format!("[[recipients]]\ndomains = [\"example.com\"]\nfrom = \"ask\"\n{more}\n")
}

/// A table whose file has this text. The file lies in a folder of its own.
pub(super) fn file(text: &str) -> String {
    file_at(text).1
}

/// As [`file`], with the path of the file.
pub(super) fn file_at(text: &str) -> (PathBuf, String) {
    thread_local! {
        static FOLDERS: Cell<Vec<TempDir>> = const { Cell::new(Vec::new()) };
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let path = folder.path().join("recipients.txt");
    std::fs::write(&path, text).expect("the folder is ours");
    let table = format!(
        "[[recipients]]\ndomains = [\"example.com\", \"all.example.com\"]\nfrom = \"file\"\nfile = \"{}\"\n",
        path.display()
    );
    // The folder lives as long as the test.
    FOLDERS.with(|folders| {
        let mut all = folders.take();
        all.push(folder);
        folders.set(all);
    });
    (path, table)
}

/// A configuration with these `[relay] networks`, tables and connectors.
pub(super) fn configured(
    folder: &TempDir,
    networks: &str,
    tables: &str,
    connectors: &[String],
) -> Config {
    let relay = format!(
        "networks = [{networks}]\ndomains = [\"example.com\", \"all.example.com\", \"unchecked.example\"]"
    );
    let least = ConfigBuilder::running()
        .table("evidence", "path = \"\"")
        .table("relay", &relay)
        .table("dns", "servers = [\"127.0.0.1:1\"]\ndnssec = \"off\"")
        .with(tables);
    let all = connectors
        .iter()
        .fold(least, |config, connector| config.with(connector));
    all.parse_in(folder.path())
}

/// A running relay.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    pub(super) running: RunningDaemon,
    folder: TempDir,
    networks: String,
}

impl Relay {
    /// Starts a relay whose clients are its own.
    pub(super) async fn start(tables: &str, connectors: &[String]) -> Self {
        Self::start_for("\"127.0.0.0/8\"", tables, connectors).await
    }

    /// Starts a relay with these `[relay] networks`.
    pub(super) async fn start_for(networks: &str, tables: &str, connectors: &[String]) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let config = configured(&folder, networks, tables, connectors);
        let (address, running) = run(config, Arc::new(())).await;
        Self {
            address,
            running,
            folder,
            networks: networks.to_owned(),
        }
    }

    /// Replaces the configuration.
    pub(super) fn reload(&self, tables: &str, connectors: &[String]) {
        let config = configured(&self.folder, &self.networks, tables, connectors);
        self.running.reload(config).expect("a good configuration");
    }

    /// A client that has said EHLO.
    pub(super) async fn client(&self) -> Client<TcpStream> {
        Client::connect(self.address).await
    }

    /// Asks about one recipient on a connection of its own, and returns the reply.
    pub(super) async fn rcpt(&self, to: &str) -> String {
        let mut client = self.client().await;
        client.asks("MAIL FROM:<a@sender.example>", "250").await;
        client.says(&format!("RCPT TO:<{to}>")).await;
        client.reply().await
    }

    /// Ends the relay.
    pub(super) async fn ends(mut self) {
        self.running.stop();
        timeout(PATIENCE, self.running.ended())
            .await
            .expect("in time")
            .expect("an orderly end");
    }
}
