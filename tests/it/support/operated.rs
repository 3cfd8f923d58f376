//! A daemon in a temporary folder, and a client that hands it mail.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;
use super::config::ConfigBuilder;
use super::peer::Nobody;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Wide enough for every table here.
const WIDE: &str = "160";
const PROGRAM: &str = env!("CARGO_BIN_EXE_gatepost");

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", out(output), err(output)))
}

/// A daemon that runs.
pub(crate) struct Relay {
    /// The server for all mail. Nobody listens there unless a test starts a server.
    pub(crate) smart_host: SocketAddr,
    _reserved: Nobody,
    pub(crate) folder: TempDir,
    daemon: Daemon,
    address: SocketAddr,
    /// The address of the status page and the metrics.
    pub(crate) http: SocketAddr,
}

/// A child that does not outlive us, and the lines that it has logged.
struct Daemon(Child, Arc<Mutex<Vec<String>>>);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Relay {
    /// `more` is added to the configuration.
    pub(crate) fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let reserved = Nobody::until_a_server_starts();
        let smart_host = reserved.address;
        ConfigBuilder::new()
            .listener("127.0.0.1:0")
            .table("spool", "path = \"spool\"")
            .table("evidence", "path = \"evidence\"")
            .table("admin", "socket = \"run/admin.sock\"\nhttp = \"127.0.0.1:0\"")
            .table("queue", "retry = [\"1h\"]")
            .with(&format!(
                "[[connector]]\nname = \"internet\"\ndomains = [\"*\"]\n[connector.outbound]\nroute = [\"{smart_host}\"]\ntls = \"off\""
            ))
            .table("log", "format = \"json\"")
            .with(more)
            .write(folder.path());
        let (daemon, address, http) = run(folder.path());
        Self {
            smart_host,
            _reserved: reserved,
            folder,
            daemon,
            address,
            http,
        }
    }

    /// Returns the address that accepts mail.
    pub(crate) fn smtp(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("gatepost.toml")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/admin.sock")
    }

    /// Starts the daemon again.
    pub(crate) fn start_again(&mut self) {
        (self.daemon, self.address, self.http) = run(self.folder.path());
    }

    /// The lines of the log with this message.
    pub(crate) fn logged(&self, message: &str) -> Vec<Value> {
        let lines = self.daemon.1.lock().expect("nobody panicked");
        let events = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["message"] == message).collect()
    }

    /// The same, once there are any.
    pub(crate) fn hears(&self, message: &str) -> Vec<Value> {
        self.hears_all(message, 1)
    }

    /// The same, once there are so many.
    pub(crate) fn hears_all(&self, message: &str, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.logged(message);
            if lines.len() >= count || Instant::now() > deadline {
                return lines;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Begins the end of the daemon in order.
    pub(crate) fn terminate(&self) {
        let id = rustix::process::Pid::from_child(&self.daemon.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("our own child");
    }

    /// Ends the daemon in order.
    pub(crate) fn stop(&mut self) {
        self.terminate();
        assert!(self.daemon.0.wait().expect("our own child").success());
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        self.daemon.0.kill().expect("our own child");
        self.daemon.0.wait().expect("our own child");
    }

    /// `gatepost queue …`, with nobody at the keyboard.
    pub(crate) fn queue(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.env("COLUMNS", WIDE).arg("queue").args(arguments);
        if !arguments.is_empty() {
            command.arg("--config").arg(self.config());
        }
        command
            .stdin(Stdio::null())
            .output()
            .expect("gatepost runs")
    }

    /// The same, with its answer written there.
    pub(crate) fn queue_into(&self, to: impl Into<Stdio>, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command
            .env("COLUMNS", WIDE)
            .arg("queue")
            .args(arguments)
            .arg("--config")
            .arg(self.config());
        // `output` would make a pipe of its own.
        let child = command
            .stdin(Stdio::null())
            .stdout(to)
            .stderr(Stdio::piped())
            .spawn()
            .expect("gatepost runs");
        child.wait_with_output().expect("it ends")
    }

    /// `gatepost history …`.
    pub(crate) fn history(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command
            .env("COLUMNS", WIDE)
            .arg("history")
            .args(arguments)
            .arg("--config")
            .arg(self.config());
        command
            .stdin(Stdio::null())
            .output()
            .expect("gatepost runs")
    }

    /// `gatepost clients …`.
    pub(crate) fn clients(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command
            .env("COLUMNS", WIDE)
            .arg("clients")
            .args(arguments)
            .arg("--config")
            .arg(self.config());
        command
            .stdin(Stdio::null())
            .output()
            .expect("gatepost runs")
    }

    /// `gatepost status …`.
    pub(crate) fn status(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command
            .env("COLUMNS", WIDE)
            .arg("status")
            .args(arguments)
            .arg("--config")
            .arg(self.config());
        command
            .stdin(Stdio::null())
            .output()
            .expect("gatepost runs")
    }

    /// Asks the status page's address: the complete answer.
    pub(crate) fn http(&self, head: &str) -> String {
        self.http_at("x", head)
    }

    /// The same, asked of this host.
    pub(crate) fn http_at(&self, host: &str, head: &str) -> String {
        let mut stream = TcpStream::connect(self.http).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
            .write_all(format!("{head}\r\nhost: {host}\r\n\r\n").as_bytes())
            .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// `gatepost queue …` on a terminal, where somebody types.
    pub(crate) fn queue_on_terminal(&self, arguments: &[&str], typed: &str) -> (i32, String) {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours)
            .and_then(|()| unlockpt(&ours))
            .expect("our own terminal");
        let name = ptsname(&ours, Vec::new())
            .expect("its name")
            .into_string()
            .expect("text");
        let theirs: OwnedFd = fs::File::options()
            .read(true)
            .write(true)
            .open(name)
            .expect("our own terminal")
            .into();
        fs::File::from(ours.try_clone().expect("a descriptor"))
            .write_all(typed.as_bytes())
            .expect("typing");
        let mut command = Command::new(PROGRAM);
        command
            .env("COLUMNS", WIDE)
            .arg("queue")
            .args(arguments)
            .arg("--config")
            .arg(self.config());
        let output = command
            .stdin(Stdio::from(theirs))
            .output()
            .expect("gatepost runs");
        (code(&output), format!("{}{}", err(&output), out(&output)))
    }

    pub(crate) fn list(&self) -> Vec<Value> {
        let output = self.queue(&["list", "--json"]);
        json(&output).as_array().expect("an array").clone()
    }

    pub(crate) fn wait_for(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let queue = self.list();
            if is_so(&queue) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "waited for {what}, and there is {queue:#?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Hands a message in, and gives its id.
    pub(crate) fn send(&self, from: &str, to: &[&str], body: &str) -> String {
        self.send_whole(from, to, &format!("Subject: test\r\n\r\n{body}"))
    }

    /// The same, with a header of the test's own.
    pub(crate) fn send_whole(&self, from: &str, to: &[&str], content: &str) -> String {
        let id = self.hand_in(from, to, content);
        assert!(
            self.list().iter().any(|message| message["id"] == *id),
            "what was accepted is in the queue"
        );
        id
    }

    /// Hands a message in that may be delivered at once.
    pub(crate) fn send_quickly(&self, from: &str, to: &[&str], body: &str) {
        self.hand_in(from, to, &format!("Subject: test\r\n\r\n{body}"));
    }

    /// A session whose MAIL is refused.
    pub(crate) fn refused(&self, from: &str, code: &str) {
        let mut session = self.session();
        session.say(&format!("MAIL FROM:<{from}>"), code);
        session.say("QUIT", "221");
    }

    /// A session that asks for all these recipients, and what it hears.
    pub(crate) fn asks_for(
        &self,
        from: &str,
        recipients: impl Iterator<Item = String>,
    ) -> Vec<String> {
        let mut session = self.session();
        session.say(&format!("MAIL FROM:<{from}>"), "250");
        let replies = recipients
            .map(|to| session.say(&format!("RCPT TO:<{to}>"), ""))
            .collect();
        session.say("QUIT", "221");
        replies
    }

    pub(crate) fn session(&self) -> Session {
        Session(Client::connect(self.address).expect("a listener"))
    }

    fn hand_in(&self, from: &str, to: &[&str], content: &str) -> String {
        let mut session = self.session();
        session.say(&format!("MAIL FROM:<{from}> SMTPUTF8"), "250");
        for to in to {
            session.say(&format!("RCPT TO:<{to}>"), "250");
        }
        session.say("DATA", "354");
        let taken = session.say(&format!("{content}\r\n."), "250");
        session.say("QUIT", "221");
        taken.rsplit(' ').next().expect("an id").to_owned()
    }
}

/// A client's session.
pub(crate) struct Session(Client);

impl Session {
    /// Says a line, where it is not empty; the last line of the reply begins so.
    pub(crate) fn say(&mut self, line: &str, expected: &str) -> String {
        let reply = if line.is_empty() {
            self.0.reply()
        } else {
            self.0.command(line)
        };
        let reply = reply.expect("an answer");
        assert!(reply.starts_with(expected), "{line}: {reply}");
        reply
    }

    /// Sends octets as they are.
    pub(crate) fn send(&mut self, octets: &[u8]) {
        self.0.write(octets).expect("a session");
    }
}

/// A daemon on the configuration in a folder, and where it listens.
fn run(folder: &Path) -> (Daemon, SocketAddr, SocketAddr) {
    let mut command = Command::new(PROGRAM);
    command
        .arg("run")
        .arg("--config")
        .arg(folder.join("gatepost.toml"));
    let mut daemon = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map(|child| Daemon(child, Arc::default()))
        .expect("gatepost runs");
    let lines = Arc::clone(&daemon.1);
    let log = BufReader::new(daemon.0.stderr.take().expect("its log"));
    let (sender, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            // The listener comes first.
            if event["message"] == "listening" || event["message"] == "showing status and metrics" {
                let _ = sender.send(
                    event["address"]
                        .as_str()
                        .and_then(|text| text.parse().ok())
                        .expect("an address"),
                );
            }
            lines.lock().expect("nobody panicked").push(line);
        }
        // Shown by the test runner where a test fails.
        println!("{}", lines.lock().expect("nobody panicked").join("\n"));
    });
    let next = || address.recv_timeout(PATIENCE).expect("it listens");
    (daemon, next(), next())
}

/// Stands in for a daemon at its socket: what is asked for that is not among the answers is not
/// there.
pub(crate) fn stand_in(socket: &Path, answers: Vec<(String, Value)>) {
    fs::create_dir_all(socket.parent().expect("a folder")).expect("our own folder");
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("nobody is there");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = BufReader::new(stream.try_clone().expect("a descriptor"))
                .lines()
                .map_while(Result::ok);
            let line = request.next().unwrap_or_default();
            request.take_while(|line| !line.is_empty()).for_each(drop);
            let target = line.split(' ').nth(1).unwrap_or_default();
            let found = answers
                .iter()
                .find(|(at, _)| target.split("?limit").next() == Some(at.as_str()));
            let (status, body) = match found {
                Some((_, body)) => ("200 OK", body.to_string()),
                None => (
                    "404 Not Found",
                    serde_json::json!({"error": "there is no such entry"}).to_string(),
                ),
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
}

/// Says something to the admin socket, and gives status line and body of the answer.
pub(crate) fn raw(socket: &Path, request: &str) -> (String, Value) {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("a daemon");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(request.as_bytes()).expect("a daemon");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    (head.lines().next().unwrap_or_default().to_owned(), body)
}
