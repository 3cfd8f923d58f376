//! A configuration in a folder, and the program on it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::certificates::{Authority, BOTH, Pair, server_config};
use crate::support::config::ConfigBuilder;
use crate::support::dns::NameServer;
use crate::support::peer::{Heard, Manner, Peer, Starttls};

/// The name of the hop of most tests.
pub(crate) const HOP: &str = "mx.partner.example";

const ZONE: &str = "
    mx.partner.example A 127.0.0.1
    mx1.partner.example A 127.0.0.1
    mx2.partner.example A 127.0.0.2
    partner.example MX 10 mx1.partner.example
    partner.example MX 20 mx2.partner.example
    null.example MX 0 .
    other.example MX 10 mx1.partner.example
";

/// The output of a probe, and its exit code.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn has(&self, words: &str) -> &Self {
        assert!(
            self.out.contains(words),
            "{words:?} is not in\n{}{}",
            self.out,
            self.err
        );
        self
    }

    pub(crate) fn lacks(&self, words: &str) -> &Self {
        assert!(!self.out.contains(words), "{words:?} is in\n{}", self.out);
        self
    }

    pub(crate) fn ends(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) folder: tempfile::TempDir,
    names: NameServer,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// One with more records below "example".
    pub(crate) async fn with(records: &str) -> Self {
        let authority = Authority::root("The Test Authority");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the folder is ours");
        Self {
            authority,
            folder,
            names: NameServer::start(&[("example", &format!("{ZONE}{records}"))]).await,
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("gatepost.toml")
    }

    /// Writes a configuration with these connectors.
    pub(crate) fn write(&self, connectors: &str) {
        self.write_with(&self.dns(), connectors);
    }

    /// The same, for a probe that waits for two seconds at most.
    pub(crate) fn write_impatient(&self, connectors: &str) {
        self.write_waiting("2s", &self.dns(), connectors);
    }

    /// The same with another `[dns]`.
    pub(crate) fn write_with(&self, dns: &str, connectors: &str) {
        // A peer of the test answers, however busy the computer is.
        self.write_waiting("1m", dns, connectors);
    }

    fn dns(&self) -> String {
        format!("servers = [\"{}\"]\ndnssec = \"off\"", self.names.address)
    }

    fn write_waiting(&self, wait: &str, dns: &str, connectors: &str) {
        let config = ConfigBuilder::new()
            .listener("127.0.0.1:0")
            .table("tls", "trust = \"ca.pem\"")
            .table("spool", "path = \"spool\"")
            .table("evidence", "path = \"\"")
            .table("admin", "socket = \"run/admin.sock\"\nhttp = \"\"")
            .table("dns", dns)
            .table(
                "timeouts",
                &format!("connect = \"1m\"\nreply = \"{wait}\"\nhandshake = \"{wait}\""),
            )
            .with(connectors);
        std::fs::write(self.file(), config.text()).expect("the folder is ours");
    }

    /// `gatepost probe …`. The peers and the name server go on meanwhile.
    pub(crate) async fn probe(&self, arguments: &[&str]) -> Answer {
        // Wide enough for every reason to be one line.
        self.probe_within("500", arguments).await
    }

    /// `gatepost probe …` in a terminal with these columns.
    pub(crate) async fn probe_within(&self, columns: &str, arguments: &[&str]) -> Answer {
        self.run(columns, &[&["probe"], arguments].concat()).await
    }

    /// The program with these arguments and the configuration, in a terminal with these columns.
    pub(crate) async fn run(&self, columns: &str, arguments: &[&str]) -> Answer {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command
            .env("COLUMNS", columns)
            .args(arguments)
            .arg("--config")
            .arg(self.file())
            .stdin(Stdio::null());
        let ran = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("no panic");
        let Output {
            status,
            stdout,
            stderr,
        } = ran.expect("gatepost runs");
        let text = |octets| String::from_utf8(octets).expect("UTF-8");
        Answer {
            code: status.code().expect("it ended by itself"),
            out: text(stdout),
            err: text(stderr),
        }
    }

    /// A peer with a certificate of the authority for these names.
    pub(crate) async fn good(&self, names: &[&str]) -> Peer {
        showing(&self.authority.issue(names)).await
    }
}

pub(crate) async fn showing(pair: &Pair) -> Peer {
    Peer::start(Manner::new(tls(pair))).await
}

pub(crate) fn tls(pair: &Pair) -> Starttls {
    Starttls::Tls(server_config(pair, BOTH).into())
}

/// A connector to one smart host, with more lines in `[connector.outbound]`.
pub(crate) fn smart(name: &str, domains: &[&str], port: u16, more: &str) -> String {
    connector(
        name,
        domains,
        &format!("route = [\"{HOP}:{port}\"]\n{more}"),
    )
}

pub(crate) fn connector(name: &str, domains: &[&str], more: &str) -> String {
    format!(
        "[[connector]]\nname = \"{name}\"\ndomains = {domains:?}\n[connector.outbound]\ndiscover = []\n{more}\n"
    )
}

/// The commands of each connection, once all have ended. No connection ever had a mail command.
pub(crate) async fn commands(peer: &Peer) -> Vec<Vec<String>> {
    let heard: Vec<Heard> = peer.heard_to_the_end().await;
    for connection in &heard {
        for command in ["MAIL", "RCPT", "DATA", "HELO", "RSET"] {
            assert!(!connection.has(command), "{command} was said: {heard:#?}");
        }
    }
    heard.into_iter().map(|heard| heard.commands).collect()
}

pub(crate) const WHOLE: [&str; 5] = [
    "EHLO relay.example.com",
    "STARTTLS",
    "(TLS)",
    "EHLO relay.example.com",
    "QUIT",
];
