//! A relay that runs for one trial, whichever it is: where it listens, which process it is, how it ends.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::processes::{any_lives, cpu_time, family, peak_memory};

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(40);

/// What a relay is told, whichever it is.
pub(crate) struct Task<'a> {
    /// Where everything of this trial lies, on disk.
    pub(crate) folder: &'a Path,
    /// Where all mail goes.
    pub(crate) sink: SocketAddr,
    /// STARTTLS on both legs, or neither.
    pub(crate) tls: bool,
    /// On the way to the sink, at most.
    pub(crate) connections: usize,
    /// No more than these; `None` leaves it to the relay.
    pub(crate) messages_per_connection: Option<usize>,
    /// Gatepost keeps evidence of each delivery.
    pub(crate) evidence: bool,
}

/// How a relay is ended.
pub(crate) enum Ending {
    /// By SIGTERM to the process that was started.
    Terminate(Child),
    /// By this command, which returns when it is over.
    Ask(Command),
}

/// A running relay. Dropping it ends it.
pub(crate) struct Relay {
    /// Where it takes mail.
    pub(crate) address: SocketAddr,
    pid: u32,
    ending: Ending,
    log: PathBuf,
}

impl Relay {
    /// A relay whose process is up, as soon as it greets.
    ///
    /// # Errors
    /// If it ends or does not greet in time; with the end of its log.
    pub(crate) fn greeted(address: SocketAddr, pid: u32, ending: Ending, log: &Path) -> io::Result<Self> {
        let mut relay = Self { address, pid, ending, log: log.to_owned() };
        let deadline = Instant::now() + START;
        loop {
            let ended = match &mut relay.ending {
                Ending::Terminate(child) => child.try_wait()?.is_some(),
                Ending::Ask(_) => false,
            };
            let error = match greeting(address) {
                Ok(()) => return Ok(relay),
                Err(error) => error,
            };
            if ended || Instant::now() > deadline {
                return Err(with_log(&format!("no greeting on {address}: {error}"), log));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether its first process still runs.
    pub(crate) fn lives(&self) -> bool {
        any_lives(&[self.pid])
    }

    /// What went wrong with it, and the end of its log.
    pub(crate) fn with_log(&self, what: &str) -> io::Error {
        with_log(what, &self.log)
    }

    /// The processor time that it has used so far, with all its processes.
    pub(crate) fn cpu_time(&self) -> Duration {
        cpu_time(self.pid)
    }

    /// The most memory that its processes ever had, in octets.
    pub(crate) fn peak_memory(&self) -> u64 {
        peak_memory(self.pid)
    }

    fn end(&mut self) -> io::Result<()> {
        match &mut self.ending {
            Ending::Ask(command) => command.status().map(drop),
            Ending::Terminate(child) => {
                Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
                let deadline = Instant::now() + STOP;
                while child.try_wait()?.is_none() {
                    if Instant::now() > deadline {
                        child.kill()?;
                        return child.wait().map(drop);
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let processes = family(self.pid);
        if let Err(error) = self.end() {
            eprintln!("process {} could not be ended: {error}", self.pid);
        }
        // Postfix's master does not wait for its own: the next trial must not share the computer with them.
        let deadline = Instant::now() + STOP;
        while any_lives(&processes) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A port that is free at the moment.
///
/// # Errors
/// If there is none.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Runs a command to its end, its words into the log.
///
/// # Errors
/// If it cannot be started, or fails; with the end of the log.
pub(crate) fn run(command: &mut Command, log: &Path) -> io::Result<()> {
    let file = File::options().create(true).append(true).open(log)?;
    let status = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).status()?;
    if status.success() { Ok(()) } else { Err(with_log(&format!("{command:?} failed, {status}"), log)) }
}

/// Where a relay writes its log.
pub(crate) fn log_in(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn with_log(what: &str, log: &Path) -> io::Error {
    let text = fs::read_to_string(log).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(20);
    io::Error::other(format!("{what}\nthe end of {}:\n{}", log.display(), lines[last..].join("\n")))
}

fn greeting(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut code = [0; 3];
    stream.read_exact(&mut code)?;
    stream.write_all(b"QUIT\r\n")?;
    if &code == b"220" { Ok(()) } else { Err(io::Error::other(format!("greeted with {}", code.escape_ascii()))) }
}
