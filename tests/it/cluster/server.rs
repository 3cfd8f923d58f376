//! A PostgreSQL primary with a synchronous standby, in folders of their own.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::NEVER;
use crate::support::within;

/// A server process, stopped when it is dropped.
pub(super) struct Server {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

/// The server that the relays write to.
pub(super) struct Primary(pub(super) Server);

/// The server that has a copy of each commit before it is answered.
pub(super) struct Standby(pub(super) Server);

/// Returns the folder with the server's programs, the newest if there are several.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("Debian's postgresql");
    let mut versions: Vec<_> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|folder| folder.join("postgres").exists())
        .collect();
    versions.sort();
    versions.pop().expect("Debian's postgresql is installed")
}

/// Returns a command of the server. It does not run as root, so there it runs as postgres.
fn command(name: &str) -> Command {
    let mut command = Command::new(programs().join(name));
    if rustix::process::geteuid().is_root() {
        let (user, group) = ids_of("postgres");
        command.uid(user).gid(group);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn ids_of(name: &str) -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").expect("users");
    let line = users
        .lines()
        .find(|line| line.split(':').next() == Some(name))
        .expect("the package makes the user");
    let number = |at| line.split(':').nth(at).and_then(|text| text.parse().ok());
    number(2).zip(number(3)).expect("numbers")
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// Makes a folder that the server's user may write to.
fn make_folder(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    if rustix::process::geteuid().is_root() {
        let (user, group) = ids_of("postgres");
        std::os::unix::fs::chown(folder, Some(user), Some(group)).expect("root may");
        // Ours, and the server's user must pass through it.
        let above = folder.parent().expect("it is in a folder of the test");
        let mode = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(above, mode).expect("ours");
    }
}

impl Server {
    /// Starts the server in a folder with data, and waits until it answers.
    pub(super) fn begin(&mut self) {
        let mut server = command("postgres");
        server
            .arg("-D")
            .arg(self.folder.join("data"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.folder.join("log")).expect("a log"));
        self.process = Some(server.spawn().expect("a server"));
        assert!(
            within(NEVER, || self.query("SELECT 1").as_deref() == Ok("1")),
            "the server does not answer: {}",
            std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
        );
    }

    /// Asks the server itself, beside all wires.
    pub(super) fn query(&self, statement: &str) -> Result<String, String> {
        self.query_in("gatepost", statement)
    }

    fn query_in(&self, database: &str, statement: &str) -> Result<String, String> {
        let output = Command::new(programs().join("psql"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "-X", "-q", "-A", "-t"])
            .args(["-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement])
            .args(["-p", &self.port.to_string()])
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Returns a backup of the schema of the relays.
    pub(super) fn dump(&self) -> Vec<u8> {
        let output = Command::new(programs().join("pg_dump"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "-d", "gatepost"])
            .args(["-n", "gatepost", "-p", &self.port.to_string()])
            .output()
            .expect("pg_dump is with the server");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// Replaces the schema of the relays by that of a backup.
    pub(super) fn restore(&self, backup: &[u8]) {
        self.query("DROP SCHEMA gatepost CASCADE").expect("dropped");
        let file = self.folder.with_extension("sql");
        std::fs::write(&file, backup).expect("ours");
        run(Command::new(programs().join("psql"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "-X", "-q"])
            .args(["-v", "ON_ERROR_STOP=1", "-d", "gatepost"])
            .args(["-p", &self.port.to_string(), "-f"])
            .arg(&file));
    }

    /// kill -9.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it runs");
            process.wait().expect("it ends");
        }
    }

    fn signal(&self, name: &str) {
        if let Some(process) = &self.process {
            let sent = Command::new("kill")
                .args([format!("-{name}"), process.id().to_string()])
                .status();
            sent.expect("kill can be called");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An immediate shutdown, which also ends the processes of its connections.
        self.signal("QUIT");
        if let Some(mut process) = self.process.take() {
            drop(process.wait());
        }
    }
}

impl Primary {
    /// Makes a server with an empty database, and starts it.
    pub(super) fn start(folder: &Path) -> Self {
        make_folder(folder);
        let port = free_port();
        run(command("initdb").arg("-D").arg(folder.join("data")).args([
            "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C",
        ]));
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n\
             max_connections = 100\nwal_keep_size = '256MB'\nlog_min_messages = warning\n"
        );
        let file = folder.join("data/postgresql.conf");
        let before = std::fs::read_to_string(&file).expect("a configuration");
        std::fs::write(&file, before + &settings).expect("ours");
        let mut server = Server {
            folder: folder.to_owned(),
            port,
            process: None,
        };
        let mut process = command("postgres");
        process
            .arg("-D")
            .arg(folder.join("data"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).expect("a log"));
        server.process = Some(process.spawn().expect("a server"));
        assert!(
            within(NEVER, || server
                .query_in("postgres", "CREATE DATABASE gatepost")
                .is_ok()),
            "the server does not answer"
        );
        server.query("CREATE ROLE gatepost LOGIN").expect("a role");
        server
            .query("GRANT CREATE ON DATABASE gatepost TO gatepost")
            .expect("granted");
        Self(server)
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    /// Moves the database to another disk.
    pub(super) fn move_database(&self, disk: &Path) {
        let folder = disk.join("database");
        make_folder(&folder);
        let tablespace = format!("CREATE TABLESPACE disk LOCATION '{}'", folder.display());
        let database = "ALTER DATABASE gatepost SET TABLESPACE disk";
        for statement in [&tablespace, database] {
            let done = self.0.query_in("postgres", statement);
            done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }
}

impl Standby {
    /// Copies a primary, and starts to follow it. Commits of the primary wait for it from now on. What
    /// the primary has on a disk of its own is on none here.
    pub(super) fn start(folder: &Path, primary: &Primary, disk: Option<&Path>) -> Self {
        make_folder(folder);
        let port = free_port();
        let mut copy = command("pg_basebackup");
        if let Some(disk) = disk {
            let (from, to) = (disk.join("database"), folder.join("database"));
            copy.arg(format!(
                "--tablespace-mapping={}={}",
                from.display(),
                to.display()
            ));
        }
        run(copy
            .arg("-D")
            .arg(folder.join("data"))
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
            ])
            .args(["-p", &primary.port().to_string()]));
        let settings = format!("port = {port}\ncluster_name = 'standby'\n");
        let file = folder.join("data/postgresql.conf");
        let before = std::fs::read_to_string(&file).expect("a configuration");
        std::fs::write(&file, before + &settings).expect("ours");
        let mut server = Server {
            folder: folder.to_owned(),
            port,
            process: None,
        };
        server.begin();
        let primary = &primary.0;
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'standby' AND state = 'streaming'";
        assert!(
            within(NEVER, || primary.query(streaming).as_deref() == Ok("1")),
            "the standby does not follow"
        );
        primary
            .query("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            .expect("set");
        primary.query("SELECT pg_reload_conf()").expect("set");
        Self(server)
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    /// Makes it the server that can be written to.
    pub(super) fn promote(&self) {
        self.0.query("SELECT pg_promote()").expect("promoted");
    }
}
