//! Start, reload and end of the program itself, by signals, as systemd and people give them.

mod end;
mod reload;
mod start;
mod systemd;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::relay::Relay;

/// What a test may write otherwise.
struct Wanted<'a> {
    hostname: &'a str,
    listener: &'a str,
    /// Where all mail goes.
    route: SocketAddr,
    /// Lines of the connector's outbound table.
    outbound: &'a str,
    log: &'a str,
    /// Lines of the queue's table.
    queue: &'a str,
    /// Other tables.
    more: &'a str,
}

impl Wanted<'_> {
    fn mail_to(route: SocketAddr) -> Self {
        let log = "format = \"text\"";
        let queue = "retry = [\"1h\"]";
        Self { hostname: "relay.example.com", listener: "127.0.0.1:0", route, outbound: "", log, queue, more: "" }
    }

    fn write(&self, folder: &Path) -> PathBuf {
        let Self { hostname, listener, route, outbound, log, queue, more } = self;
        let text = format!(
            "hostname = \"{hostname}\"\npostmaster = \"postmaster@example.com\"\n\
             [[listener]]\nname = \"mx\"\naddress = [\"{listener}\"]\ntls = \"off\"\n\
             [spool]\npath = \"spool\"\n[admin]\nsocket = \"\"\nhttp = \"\"\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n\
             [log]\n{log}\n[queue]\n{queue}\n{more}\n\
             [[connector]]\nname = \"all\"\ndomains = [\"*\"]\n[connector.outbound]\n\
             route = [\"{route}\"]\ntls = \"off\"\n{outbound}\n[evidence]\npath = \"evidence\"\n"
        );
        let file = folder.join("gatepost.toml");
        std::fs::write(&file, text).expect("the folder is ours");
        file
    }

    fn start(&self) -> (TempDir, Relay) {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let relay = Relay::run(&self.write(folder.path()), &[]).unwrap_or_else(|end| panic!("{}", end.log));
        (folder, relay)
    }
}
