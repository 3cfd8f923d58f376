//! A PostgreSQL server of the bench's own, with the settings of a server as it is installed, on the
//! same disk as everything else.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::processes::cpu_time;
use crate::relay::{free_address, run};

const START: Duration = Duration::from_mins(1);
/// The time after which an idle session has reported its transactions to `pg_stat_database`.
const REPORT: Duration = Duration::from_secs(11);

/// A server, stopped when this is dropped.
pub(crate) struct Database {
    folder: PathBuf,
    port: u16,
    process: Child,
    /// Dropped after the primary.
    standby: Option<Box<Database>>,
}

/// The work that a server has done so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct DatabaseUse {
    /// The processor time of all its processes, and of those of its standby.
    pub(crate) cpu: Duration,
    /// The octets of its WAL.
    pub(crate) wal: f64,
    pub(crate) commits: f64,
}

/// Returns the folder with the newest server programs.
fn programs() -> io::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    folders
        .filter(|folder| folder.join("initdb").exists())
        .max()
        .ok_or_else(|| {
            io::Error::other("PostgreSQL's server programs are missing: apt-get install postgresql")
        })
}

/// Returns a command of the server. It does not run as root, so there it runs as postgres.
fn command(name: &str) -> io::Result<Command> {
    let mut command = Command::new(programs()?.join(name));
    if let Some((user, group)) = server_user()? {
        command.uid(user).gid(group);
    }
    command.current_dir("/").env("LC_ALL", "C");
    Ok(command)
}

/// Returns user and group of the server; `None` if they are those of the bench.
fn server_user() -> io::Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let number = |at| line?.split(':').nth(at)?.parse().ok();
    let ids = number(2).zip(number(3));
    ids.map(Some)
        .ok_or_else(|| io::Error::other("there is no user postgres"))
}

fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    match server_user()? {
        Some((user, group)) => chown(folder, Some(user), Some(group)),
        None => Ok(()),
    }
}

impl Database {
    /// Makes a database in a folder, and starts its server, with a synchronous standby if there shall
    /// be one.
    ///
    /// # Errors
    /// An error if a server does not start.
    pub(crate) fn start(folder: &Path, has_standby: bool) -> io::Result<Self> {
        let own = folder.join("database");
        make_folder(&own)?;
        let mut initdb = command("initdb")?;
        initdb.arg("-D").arg(own.join("data")).args([
            "-A", "trust", "-U", "gatepost", "-E", "UTF8", "--locale", "C",
        ]);
        run(&mut initdb, &folder.join("initdb.log"))?;
        let mut database = Self::serve(own, folder)?;
        if has_standby {
            database.standby = Some(Box::new(database.start_standby(folder)?));
        }
        Ok(database)
    }

    fn serve(own: PathBuf, folder: &Path) -> io::Result<Self> {
        let port = free_address()?.port();
        let log = own.file_name().unwrap_or_default().to_owned();
        let file = File::create(folder.join(log).with_extension("log"))?;
        let process = command("postgres")?
            .arg("-D")
            .arg(own.join("data"))
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args([
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=100",
            ])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let database = Self {
            folder: own,
            port,
            process,
            standby: None,
        };
        let deadline = Instant::now() + START;
        while database.query("SELECT 1").is_err() {
            if Instant::now() > deadline {
                return Err(io::Error::other("PostgreSQL does not answer"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(database)
    }

    fn start_standby(&self, folder: &Path) -> io::Result<Self> {
        let own = folder.join("standby");
        make_folder(&own)?;
        let mut copy = command("pg_basebackup")?;
        copy.arg("-D").arg(own.join("data"));
        copy.args([
            "-h",
            "127.0.0.1",
            "-U",
            "gatepost",
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        ]);
        copy.args(["-p", &self.port.to_string()]);
        run(&mut copy, &folder.join("copy.log"))?;
        let standby = Self::serve(own, folder)?;
        self.query("ALTER SYSTEM SET synchronous_standby_names = '*'")?;
        self.query("SELECT pg_reload_conf()")?;
        Ok(standby)
    }

    /// Returns the URL of the database.
    pub(crate) fn url(&self) -> String {
        format!("postgresql://gatepost@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs statements; returns what the last one has found.
    ///
    /// # Errors
    /// Those of the server.
    pub(crate) fn query(&self, statements: &str) -> io::Result<String> {
        let output = Command::new(programs()?.join("psql"))
            .args(["-h", "127.0.0.1", "-U", "gatepost", "-d", "postgres"])
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-p", &self.port.to_string(), "-c", statements])
            .output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    fn number(&self, statement: &str) -> io::Result<f64> {
        self.query(statement)?.parse().map_err(io::Error::other)
    }

    /// Returns what the server has done so far: its processor time at once, its commits when its
    /// sessions have reported them.
    ///
    /// # Errors
    /// Those of the server.
    pub(crate) fn used(&self) -> io::Result<DatabaseUse> {
        let standby = self.standby.as_ref();
        let cpu = cpu_time(self.process.id())
            + standby.map_or(Duration::ZERO, |standby| cpu_time(standby.process.id()));
        let wal = self.number("SELECT pg_current_wal_insert_lsn() - '0/0'")?;
        thread::sleep(REPORT);
        let commits =
            self.number("SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'")?;
        Ok(DatabaseUse { cpu, wal, commits })
    }

    /// Returns the version of the server.
    ///
    /// # Errors
    /// Those of the server.
    pub(crate) fn version(&self) -> io::Result<String> {
        self.query("SHOW server_version")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SIGINT is the fast shutdown. It does not wait for a standby.
        let id = self.process.id().to_string();
        let stopped = Command::new("kill").args(["-INT", &id]).status();
        if let Err(error) = stopped.and_then(|_| self.process.wait()) {
            eprintln!("{} could not be stopped: {error}", self.folder.display());
        }
    }
}
