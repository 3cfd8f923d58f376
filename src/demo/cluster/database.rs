//! A PostgreSQL server that exists only while the demo runs. Nobody else can reach it: its socket is in
//! a folder of the server's user alone, and it listens on no port.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::child::DemoChild;
use super::error::ClusterDemoError;
use super::programs::ServerPrograms;

/// The time for `initdb`, and for the start of the server.
const START_TIME: Duration = Duration::from_mins(1);

/// The server.
pub(super) struct DemoDatabase {
    process: DemoChild,
    folder: PathBuf,
}

impl DemoDatabase {
    /// Makes a database in a folder of the demo, and starts the server.
    pub(super) async fn start(demo_folder: &Path) -> Result<Self, ClusterDemoError> {
        let programs = ServerPrograms::find()?;
        let folder = demo_folder.join("database");
        programs.make_folder(&folder)?;
        let data = folder.join("data");
        // The user of the database is the superuser of it, so nothing more has to be set up. Trust: who
        // gets to the socket is the server's user or root.
        let mut initdb = programs.command("initdb");
        initdb.arg("-D").arg(&data).args([
            "-A",
            "trust",
            "-U",
            "gatepost",
            "-E",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
        ]);
        let log = demo_folder.join("initdb.log");
        let mut initdb = DemoChild::start("initdb", &mut initdb, &log, Signal::KILL)?;
        if !initdb.ended(START_TIME).await?.success() {
            return Err(initdb.fault("failed"));
        }
        let mut server = programs.command("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(&folder).args([
            "-c",
            "listen_addresses=",
            "-c",
            "shared_buffers=32MB",
        ]);
        let log = demo_folder.join("database.log");
        let mut process = DemoChild::start("PostgreSQL", &mut server, &log, Signal::QUIT)?;
        let pid_file = data.join("postmaster.pid");
        process
            .ready(START_TIME, async || is_ready(&pid_file))
            .await?;
        Ok(Self { process, folder })
    }

    /// Returns the URL of the database.
    pub(super) fn url(&self) -> String {
        format!(
            "postgresql://gatepost@/postgres?host={}",
            self.folder.display()
        )
    }

    /// Stops the server in an orderly way: SIGINT is its fast shutdown.
    pub(super) async fn stop(mut self) -> Result<(), ClusterDemoError> {
        self.process.stop(Signal::INT).await
    }
}

/// Returns true once the server accepts connections: the last line of its file says so.
fn is_ready(pid_file: &Path) -> bool {
    std::fs::read_to_string(pid_file).is_ok_and(|text| {
        text.lines()
            .last()
            .is_some_and(|line| line.trim() == "ready")
    })
}
