//! A configuration in a folder, a name server, and the program run on both.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::dns::NameServer;
use crate::support::operated::{code, err, out};

/// The zone of every test.
const ZONE: &str = "
    partner.example MX 20 mx2.partner.example
    partner.example MX 10 mx1.partner.example
    mx1.partner.example A 127.0.0.1
    mx2.partner.example A 127.0.0.2
    mx2.partner.example AAAA ::1
    alone.example A 127.0.0.3
    null.example MX 0 .
    nowhere.example MX 10 missing.example
    half.example MX 10 missing.example
    half.example MX 20 mx1.partner.example
    xn--bcher-kva.example MX 10 mx1.partner.example
    smart.partner.example A 127.0.0.4
    sts.example MX 10 mx1.partner.example
    _mta-sts.sts.example TXT v=STSv1; id=20261126;
    mta-sts.sts.example A 127.0.0.1
";

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) names: NameServer,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            folder,
            names: NameServer::start(&[("example", ZONE)]).await,
        }
    }

    /// A configuration with these connectors; nobody listens on its admin socket.
    pub(crate) fn config(&self, tls: &str, connectors: &str) -> String {
        format!(
            "hostname = \"relay.example.com\"\npostmaster = \"postmaster@partner.example\"\n\
             [tls]\n{tls}\n[spool]\npath = \"spool\"\n[evidence]\npath = \"\"\n[admin]\nsocket = \"admin.sock\"\nhttp = \"\"\n\
             [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:2525\"]\n{}\
             [dns]\nservers = [\"{}\"]\ndnssec = \"off\"\n{connectors}",
            if tls.contains("certificate") {
                ""
            } else {
                "tls = \"off\"\n"
            },
            self.names.address
        )
    }

    /// Runs `gatepost explain` on a configuration with these connectors.
    pub(crate) fn explain(&self, connectors: &str, arguments: &[&str]) -> Output {
        self.explain_file(&self.config("", connectors), arguments)
    }

    pub(crate) fn explain_file(&self, text: &str, arguments: &[&str]) -> Output {
        // Wide enough for every text to be one line.
        self.explain_within("500", text, arguments)
    }

    /// Runs `gatepost explain` in a terminal with these columns.
    pub(crate) fn explain_within(&self, columns: &str, text: &str, arguments: &[&str]) -> Output {
        let file = self.folder.path().join("gatepost.toml");
        fs::write(&file, text).expect("the folder is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command
            .env("COLUMNS", columns)
            .arg("explain")
            .args(arguments)
            .arg("--config")
            .arg(file);
        command
            .stdin(Stdio::null())
            .output()
            .expect("gatepost runs")
    }

    /// The text of an explanation with this exit status.
    pub(crate) fn said(&self, connectors: &str, arguments: &[&str], status: i32) -> String {
        let output = self.explain(connectors, arguments);
        assert_eq!(
            code(&output),
            status,
            "{arguments:?}: {}{}",
            out(&output),
            err(&output)
        );
        out(&output)
    }
}

/// A connector as TOML, with `more` lines in `[connector.outbound]`.
pub(crate) fn connector(name: &str, domains: &[&str], more: &str) -> String {
    format!(
        "[[connector]]\nname = \"{name}\"\ndomains = {domains:?}\n[connector.outbound]\n{more}\n"
    )
}

/// Each of these stands in the text, in this order.
pub(crate) fn in_order(text: &str, pieces: &[&str]) {
    let mut rest = text;
    for piece in pieces {
        let at = rest
            .find(piece)
            .unwrap_or_else(|| panic!("{piece:?} does not follow in\n{text}"));
        rest = &rest[at + piece.len()..];
    }
}

/// The row of a hop for a kind of peer.
pub(crate) fn row<'a>(hop: &'a Value, peer: &str) -> &'a Value {
    let rows = hop["peers"].as_array().expect("rows");
    rows.iter()
        .find(|row| row["peer"] == peer)
        .unwrap_or_else(|| panic!("{peer}: {hop:#}"))
}

/// The note of a hop for a layer.
pub(crate) fn layer<'a>(hop: &'a Value, layer: &str) -> &'a Value {
    let layers = hop["layers"].as_array().expect("layers");
    layers
        .iter()
        .find(|note| note["layer"] == layer)
        .unwrap_or_else(|| panic!("{layer}: {hop:#}"))
}
