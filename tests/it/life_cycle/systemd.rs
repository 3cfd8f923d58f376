//! The notices to systemd, and the sockets that it passes: the tests stand in its place.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Wanted;
use crate::support::counting_sink::Sink;
use crate::support::relay::program;
use crate::support::session::Client;
use crate::support::within;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// systemd, as the program sees it.
struct Manager {
    socket: UnixDatagram,
    child: Child,
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Manager {
    /// Starts the program with these variables. Up to two sockets are passed as systemd does: from
    /// the descriptor 3 on, and `LISTEN_PID` is that of the program itself.
    fn start(configuration: &Path, sockets: Vec<TcpListener>, variables: &[(&str, &str)]) -> Self {
        let path = configuration.with_extension("notify");
        // An earlier start on the same configuration leaves its socket.
        let _none = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket for notices");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut command = Command::new("sh");
        let script = match sockets.len() {
            0 => "exec \"$@\"",
            1 => "LISTEN_PID=$$; export LISTEN_PID; exec \"$@\" 3<&0 0</dev/null",
            _ => "LISTEN_PID=$$; export LISTEN_PID; exec \"$@\" 3<&0 4<&1 0</dev/null 1>&2",
        };
        command
            .args(["-c", script, "sh"])
            .arg(program())
            .arg("run")
            .arg("--config")
            .arg(configuration);
        command.env("LISTEN_FDS", sockets.len().to_string());
        let mut sockets = sockets
            .into_iter()
            .map(|socket| Stdio::from(OwnedFd::from(socket)));
        command.stdin(sockets.next().unwrap_or_else(Stdio::null));
        command.stdout(sockets.next().unwrap_or_else(Stdio::null));
        command.stderr(
            std::fs::File::create(configuration.with_extension("log")).expect("a file for the log"),
        );
        command
            .env("NOTIFY_SOCKET", &path)
            .env("NO_COLOR", "1")
            .env_remove("JOURNAL_STREAM");
        command.envs(variables.iter().copied());
        let child = command.spawn().expect("a shell");
        Self { socket, child }
    }

    /// The next notice.
    fn told(&self) -> String {
        let mut notice = [0; 4096];
        let length = self.socket.recv(&mut notice).expect("a notice in time");
        String::from_utf8(notice[..length].to_vec()).expect("UTF-8")
    }

    /// Waits for a notice with this text.
    fn hears(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let notice = self.told();
            if notice.contains(words) {
                return notice;
            }
            assert!(Instant::now() < deadline, "{words} was not said");
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .expect("our own child");
    }

    fn ends(&mut self) -> Option<i32> {
        self.child.wait().expect("our own child").code()
    }
}

fn loopback() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

fn log(configuration: &Path) -> String {
    std::fs::read_to_string(configuration.with_extension("log")).expect("the log")
}

/// A place with a configuration; the folder goes when it is dropped.
fn place(wanted: &Wanted<'_>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = wanted.write(folder.path());
    (folder, file)
}

#[tokio::test]
async fn systemd_hears_of_start_reload_and_end() {
    let sink = Sink::start(1).await;
    let (_folder, file) = place(&Wanted::mail_to(sink.address));
    let mut manager = Manager::start(&file, Vec::new(), &[]);
    assert_eq!(manager.told(), "READY=1\n");
    let status = manager.told();
    assert!(
        status
            .starts_with("STATUS=Queue: 0 waiting, 0 under way; since the start none was refused"),
        "{status}"
    );

    manager.signal(rustix::process::Signal::HUP);
    let reloading = manager.told();
    let stamp = reloading
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .expect("a stamp beside it");
    assert!(
        stamp.trim_end().parse::<u64>().is_ok_and(|stamp| stamp > 0),
        "{reloading}"
    );
    assert_eq!(manager.told(), "READY=1\nSTATUS=Configuration reloaded\n");

    std::fs::write(&file, "hostname = 7").expect("our own file");
    manager.signal(rustix::process::Signal::HUP);
    manager.hears("RELOADING=1");
    let refused = manager.told();
    assert!(
        refused.starts_with("READY=1\nSTATUS=Configuration not reloaded"),
        "{refused}"
    );

    manager.signal(rustix::process::Signal::TERM);
    assert!(manager.told().starts_with("STOPPING=1\n"));
    assert_eq!(manager.ends(), Some(0));
}

#[tokio::test]
async fn the_watchdog_is_fed_while_the_spool_is_written_and_not_otherwise() {
    let nobody = crate::support::peer::Nobody::at([127, 0, 0, 1]);
    let (folder, file) = place(&Wanted {
        listener: "systemd:mx",
        ..Wanted::mail_to(nobody.address)
    });
    let (socket, mx) = loopback();
    let variables = [("LISTEN_FDNAMES", "mx"), ("WATCHDOG_USEC", "400000")];
    let manager = Manager::start(&file, vec![socket], &variables);
    let sign = manager.hears("WATCHDOG=1\n");
    assert!(sign.contains("STATUS=Queue: "), "{sign}");
    manager.hears("WATCHDOG=1\n");

    // A lock of the database stands for a disk that hangs: what waits cannot be moved there.
    let database = folder.path().join("spool/queue.db");
    let database = rusqlite::Connection::open(database).expect("the database");
    database.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    Client::connect(mx).await.sends_message("b@a.example").await;
    let sign = manager.hears("STATUS=In trouble: the spool's writer does not respond");
    assert!(!sign.contains("WATCHDOG"), "it must not be fed: {sign}");
    drop(database);
    manager.hears("WATCHDOG=1\n");
    assert_eq!(
        log(&file).matches("watchdog is not fed").count(),
        1,
        "once, not with every beat"
    );
}

#[tokio::test]
async fn listeners_take_the_sockets_that_systemd_passes_by_name() {
    let sink = Sink::start(1).await;
    let more =
        "[[listener]]\nname = \"submission\"\naddress = [\"systemd:submission\"]\ntls = \"off\"";
    let (_folder, file) = place(&Wanted {
        listener: "systemd:mx",
        more,
        ..Wanted::mail_to(sink.address)
    });
    let ((first, submission), (second, mx)) = (loopback(), loopback());
    // Against their order in the configuration: the names count.
    let manager = Manager::start(
        &file,
        vec![first, second],
        &[("LISTEN_FDNAMES", "submission:mx")],
    );
    assert_eq!(manager.told(), "READY=1\n");
    for line in [
        format!("listener=mx address={mx}"),
        format!("listener=submission address={submission}"),
    ] {
        // Lines wait a moment for others.
        let is_logged = within(PATIENCE, || log(&file).contains(&line));
        assert!(is_logged, "{line} is missing from\n{}", log(&file));
    }
    Client::connect(mx).await.sends_message("b@a.example").await;
    Client::connect(submission)
        .await
        .sends_message("b@a.example")
        .await;
}

#[test]
fn a_socket_that_is_not_passed_is_named_with_its_place_and_remedy() {
    let nobody = crate::support::peer::Nobody::at([127, 0, 0, 1]);
    let (_folder, file) = place(&Wanted {
        listener: "systemd:mx",
        ..Wanted::mail_to(nobody.address)
    });
    let place = format!(
        "{}:5:12: listener \"mx\" has no socket \"mx\" from systemd",
        file.display()
    );
    let mut manager = Manager::start(&file, vec![loopback().0], &[("LISTEN_FDNAMES", "other")]);
    assert_eq!(manager.ends(), Some(1));
    let said = log(&file);
    for words in [
        &*place,
        "systemd passed \"other\" only",
        "FileDescriptorName=mx",
        "gatepost.socket",
    ] {
        assert!(said.contains(words), "{words:?} is missing from\n{said}");
    }
    let mut manager = Manager::start(&file, Vec::new(), &[]);
    assert_eq!(manager.ends(), Some(1));
    assert!(
        log(&file).contains("systemd passed no socket"),
        "{}",
        log(&file)
    );
}

#[tokio::test]
async fn a_socket_that_no_listener_names_is_warned_of() {
    let sink = Sink::start(1).await;
    let (_folder, file) = place(&Wanted::mail_to(sink.address));
    let manager = Manager::start(&file, vec![loopback().0], &[("LISTEN_FDNAMES", "stray")]);
    assert_eq!(manager.told(), "READY=1\n");
    let said = log(&file);
    assert!(
        said.contains("systemd passed a socket that no listener names"),
        "{said}"
    );
    assert!(said.contains("socket=stray "), "{said}");
}
