//! A daemon in a temporary folder, a client that hands it mail, and a server that takes what it delivers.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
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
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", out(output), err(output)))
}

/// A daemon that runs.
pub(crate) struct Relay {
    /// Where all mail goes, and nobody listens unless a test makes somebody.
    pub(crate) smart_host: SocketAddr,
    pub(crate) folder: TempDir,
    daemon: Daemon,
    address: SocketAddr,
}

/// A child that does not outlive us.
struct Daemon(Child);

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
        // Free a moment ago.
        let smart_host = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let text = format!(
            "hostname = \"relay.example.com\"\npostmaster = \"postmaster@example.com\"\n[spool]\npath = \
             \"spool\"\n[evidence]\npath = \"evidence\"\n[admin]\nsocket = \"run/admin.sock\"\n[queue]\nretry = [\"1h\"]\n[[listener]]\nname = \
             \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n[[connector]]\nname = \"internet\"\ndomains = \
             [\"*\"]\n[connector.outbound]\nroute = [\"{smart_host}\"]\ntls = \"off\"\n[log]\nformat = \"json\"\n{more}"
        );
        fs::write(folder.path().join("gatepost.toml"), text).expect("a configuration");
        let (daemon, address) = run(folder.path());
        Self { smart_host, folder, daemon, address }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("gatepost.toml")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/admin.sock")
    }

    /// Starts the daemon again.
    pub(crate) fn start_again(&mut self) {
        (self.daemon, self.address) = run(self.folder.path());
    }

    /// Ends the daemon in order.
    pub(crate) fn stop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.daemon.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("our own child");
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
        command.arg("queue").args(arguments);
        if !arguments.is_empty() {
            command.arg("--config").arg(self.config());
        }
        command.stdin(Stdio::null()).output().expect("gatepost runs")
    }

    /// `gatepost history …`.
    pub(crate) fn history(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("history").args(arguments).arg("--config").arg(self.config());
        command.stdin(Stdio::null()).output().expect("gatepost runs")
    }

    /// `gatepost queue …` on a terminal, where somebody types.
    pub(crate) fn queue_on_terminal(&self, arguments: &[&str], typed: &str) -> (i32, String) {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("our own terminal");
        let name = ptsname(&ours, Vec::new()).expect("its name").into_string().expect("text");
        let theirs: OwnedFd = fs::File::options().read(true).write(true).open(name).expect("our own terminal").into();
        fs::File::from(ours.try_clone().expect("a descriptor")).write_all(typed.as_bytes()).expect("typing");
        let mut command = Command::new(PROGRAM);
        command.arg("queue").args(arguments).arg("--config").arg(self.config());
        let output = command.stdin(Stdio::from(theirs)).output().expect("gatepost runs");
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
            assert!(Instant::now() < deadline, "waited for {what}, and there is {queue:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Hands a message in, and gives its id.
    pub(crate) fn send(&self, from: &str, to: &[&str], body: &str) -> String {
        self.send_whole(from, to, &format!("Subject: test\r\n\r\n{body}"))
    }

    /// The same, with a header of the test's own.
    pub(crate) fn send_whole(&self, from: &str, to: &[&str], content: &str) -> String {
        let stream = TcpStream::connect(self.address).expect("a listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut answers = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
        let mut say = |line: &str, expected: &str| {
            if !line.is_empty() {
                (&stream).write_all(format!("{line}\r\n").as_bytes()).expect("a session");
            }
            loop {
                let answer = answers.next().expect("an answer").expect("an answer");
                if answer.as_bytes().get(3) != Some(&b'-') {
                    assert!(answer.starts_with(expected), "{line}: {answer}");
                    return answer;
                }
            }
        };
        say("", "220");
        say("EHLO client.example", "250");
        say(&format!("MAIL FROM:<{from}> SMTPUTF8"), "250");
        for to in to {
            say(&format!("RCPT TO:<{to}>"), "250");
        }
        say("DATA", "354");
        let taken = say(&format!("{content}\r\n."), "250");
        say("QUIT", "221");
        let id = taken.rsplit(' ').next().expect("an id").to_owned();
        assert!(self.list().iter().any(|message| message["id"] == *id), "what was accepted is in the queue");
        id
    }
}

/// A daemon on the configuration in a folder, and where it listens.
fn run(folder: &Path) -> (Daemon, SocketAddr) {
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("--config").arg(folder.join("gatepost.toml"));
    let mut daemon = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().map(Daemon).expect("gatepost runs");
    let log = BufReader::new(daemon.0.stderr.take().expect("its log"));
    let (sender, address) = mpsc::channel();
    std::thread::spawn(move || {
        let mut told = Vec::new();
        for line in log.lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["message"] == "listening" {
                let _ = sender.send(event["address"].as_str().and_then(|text| text.parse().ok()).expect("an address"));
            }
            told.push(line);
        }
        // Shown by the test runner where a test fails.
        println!("{}", told.join("\n"));
    });
    (daemon, address.recv_timeout(PATIENCE).expect("it listens"))
}

/// A server without TLS that takes everything.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    pub(crate) fn anywhere() -> Self {
        Self::start("127.0.0.1:0".parse().expect("an address"))
    }

    pub(crate) fn start(address: SocketAddr) -> Self {
        let socket = TcpListener::bind(address).expect("a free port");
        let address = socket.local_addr().expect("bound");
        let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
        let taken = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                let taken = Arc::clone(&taken);
                std::thread::spawn(move || converse(&stream, &taken));
            }
        });
        Self { address, bodies }
    }

    /// The bodies of what was taken.
    pub(crate) fn taken(&self) -> Vec<String> {
        self.bodies.lock().expect("nobody panicked").clone()
    }
}

fn converse(mut stream: &TcpStream, taken: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    stream.write_all(b"220 sink.example\r\n").ok()?;
    loop {
        let line = lines.next()?.ok()?;
        let answer = match line.split(' ').next()?.to_ascii_uppercase().as_str() {
            "DATA" => {
                stream.write_all(b"354 go on\r\n").ok()?;
                let content: Vec<_> = lines.by_ref().map_while(Result::ok).take_while(|line| line != ".").collect();
                let body = content.split(String::is_empty).skip(1).flatten();
                taken.lock().ok()?.push(body.map(String::as_str).collect::<Vec<_>>().join("\n"));
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => "250 so be it",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).ok()?;
    }
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
