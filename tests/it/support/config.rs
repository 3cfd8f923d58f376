//! Configurations for the tests: the least that a relay needs, and the tables that a test adds.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gatepost::config::{Config, parse};

/// Builds the text of a configuration: a host name, a postmaster, one listener, and then what is
/// added, in that order.
///
/// ```ignore
/// let builder = ConfigBuilder::new().table("dns", "dnssec = \"off\"");
/// let config = builder.relays_to(peer.address).parse();
/// ```
#[derive(Debug, Clone)]
pub(crate) struct ConfigBuilder {
    hostname: String,
    postmaster: String,
    listener: String,
    tls: String,
    added: String,
}

impl ConfigBuilder {
    /// The least: `relay.example.com` with the listener `mx` without TLS, at an address that only
    /// the program would bind.
    pub(crate) fn new() -> Self {
        let [hostname, postmaster] =
            ["relay.example.com", "postmaster@example.com"].map(str::to_owned);
        let [listener, tls] = ["127.0.0.1:2525", "off"].map(str::to_owned);
        Self {
            hostname,
            postmaster,
            listener,
            tls,
            added: String::new(),
        }
    }

    /// The least for a relay that runs: it listens at a free port, keeps its spool beside the file,
    /// and opens no admin socket.
    pub(crate) fn running() -> Self {
        Self::new()
            .listener("127.0.0.1:0")
            .table("spool", "path = \"spool\"")
            .table("admin", "socket = \"\"\nhttp = \"\"")
    }

    /// Sets the name of the relay.
    pub(crate) fn hostname(self, hostname: &str) -> Self {
        Self {
            hostname: hostname.to_owned(),
            ..self
        }
    }

    /// Sets the address of the postmaster.
    pub(crate) fn postmaster(self, postmaster: &str) -> Self {
        Self {
            postmaster: postmaster.to_owned(),
            ..self
        }
    }

    /// Sets the address of the listener.
    pub(crate) fn listener(self, address: &str) -> Self {
        Self {
            listener: address.to_owned(),
            ..self
        }
    }

    /// Sets `tls` of the listener.
    pub(crate) fn tls(self, tls: &str) -> Self {
        Self {
            tls: tls.to_owned(),
            ..self
        }
    }

    /// Adds a table with these lines.
    pub(crate) fn table(self, name: &str, lines: &str) -> Self {
        self.with(&format!("[{name}]\n{lines}"))
    }

    /// Adds lines as they are.
    pub(crate) fn with(mut self, lines: &str) -> Self {
        self.added.push_str(lines);
        if !lines.ends_with('\n') {
            self.added.push('\n');
        }
        self
    }

    /// Adds a connector `all` for every domain, with these lines under `[connector.outbound]`.
    pub(crate) fn all_mail(self, outbound: &str) -> Self {
        self.with(&format!(
            "[[connector]]\nname = \"all\"\ndomains = [\"*\"]\n[connector.outbound]\n{outbound}"
        ))
    }

    /// Adds a connector by which all mail goes to this address, without TLS.
    pub(crate) fn relays_to(self, address: SocketAddr) -> Self {
        self.all_mail(&format!("route = [\"{address}\"]\ntls = \"off\""))
    }

    /// Returns the text.
    pub(crate) fn text(&self) -> String {
        let Self {
            hostname,
            postmaster,
            listener,
            tls,
            added,
        } = self;
        format!(
            "hostname = \"{hostname}\"\npostmaster = \"{postmaster}\"\n\
             [[listener]]\nname = \"mx\"\naddress = [\"{listener}\"]\ntls = \"{tls}\"\n{added}"
        )
    }

    /// Writes the text to `gatepost.toml` in a folder, and returns that path.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let file = folder.join("gatepost.toml");
        std::fs::write(&file, self.text()).expect("the folder is ours");
        file
    }

    /// Returns the configuration, as if the text lay in the current folder.
    pub(crate) fn parse(&self) -> Config {
        self.parse_in(Path::new(""))
    }

    /// Returns the configuration, as if the text lay in this folder.
    pub(crate) fn parse_in(&self, folder: &Path) -> Config {
        let text = self.text();
        match parse(&text, &folder.join("gatepost.toml")) {
            Ok((config, _)) => config,
            Err(faults) => panic!("{faults:#?}\n{text}"),
        }
    }
}
