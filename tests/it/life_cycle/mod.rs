//! Start, reload and end of the program itself, by signals, as systemd and people give them.

mod end;
mod lost_spool;
mod reload;
mod reload_command;
mod start;
mod systemd;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::config::ConfigBuilder;
use crate::support::relay::Relay;

/// The settings that a test may change.
struct Wanted<'a> {
    hostname: &'a str,
    listener: &'a str,
    /// The server for all mail.
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
        Self {
            hostname: "relay.example.com",
            listener: "127.0.0.1:0",
            route,
            outbound: "",
            log,
            queue,
            more: "",
        }
    }

    fn write(&self, folder: &Path) -> PathBuf {
        let Self {
            hostname,
            listener,
            route,
            outbound,
            log,
            queue,
            more,
        } = self;
        ConfigBuilder::running()
            .hostname(hostname)
            .listener(listener)
            .table("relay", "networks = [\"127.0.0.0/8\"]")
            .table("log", log)
            .table("queue", queue)
            .with(more)
            .relays_to(*route)
            .with(outbound)
            .table("evidence", "path = \"evidence\"")
            .write(folder)
    }

    fn start(&self) -> (TempDir, Relay) {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let relay =
            Relay::run(&self.write(folder.path()), &[]).unwrap_or_else(|end| panic!("{}", end.log));
        (folder, relay)
    }
}
