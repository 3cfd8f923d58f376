//! A relay that runs for one trial, Gatepost or Postfix: its address, its process, and its end.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::processes::{any_lives, cpu_time, family, memory, peak_memory, written};

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(40);

/// The settings of a relay, Gatepost or Postfix.
pub(crate) struct Task<'a> {
    /// The folder of this trial, on disk.
    pub(crate) folder: &'a Path,
    /// The address of the sink, to which all mail goes.
    pub(crate) sink: SocketAddr,
    /// STARTTLS on both legs, or on neither.
    pub(crate) tls: bool,
    /// The maximum number of connections to the sink.
    pub(crate) connections: usize,
    /// The maximum number of messages per connection; `None` leaves it to the relay.
    pub(crate) messages_per_connection: Option<usize>,
    /// True if Gatepost keeps evidence of each delivery.
    pub(crate) evidence: bool,
    /// The database of Gatepost's spool; `None`: the spool is in the folder.
    pub(crate) database: Option<NodeOfDatabase>,
}

/// A node of a cluster, and its database.
pub(crate) struct NodeOfDatabase {
    pub(crate) url: String,
    pub(crate) name: String,
}

/// The way to end a relay.
pub(crate) enum Ending {
    /// SIGTERM to the process that was started.
    Terminate(Child),
    /// A command, which returns when the relay has ended.
    Ask(Command),
}

/// A running relay; dropping it ends it.
pub(crate) struct Relay {
    /// The address at which it accepts mail.
    pub(crate) address: SocketAddr,
    pid: u32,
    ending: Ending,
    log: PathBuf,
}

impl Relay {
    /// Waits until a started relay greets.
    ///
    /// # Errors
    /// An error with the end of the log, if it ends or does not greet in time.
    pub(crate) fn greeted(
        address: SocketAddr,
        pid: u32,
        ending: Ending,
        log: &Path,
    ) -> io::Result<Self> {
        let mut relay = Self {
            address,
            pid,
            ending,
            log: log.to_owned(),
        };
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

    /// Returns whether its first process still runs.
    pub(crate) fn lives(&self) -> bool {
        any_lives(&[self.pid])
    }

    /// Returns an error with the text and the end of the log.
    pub(crate) fn with_log(&self, what: &str) -> io::Error {
        with_log(what, &self.log)
    }

    /// Returns the processor time that all its processes have used so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        cpu_time(self.pid)
    }

    /// Returns the peak memory of its processes, in octets.
    pub(crate) fn peak_memory(&self) -> u64 {
        peak_memory(self.pid)
    }

    /// Returns the present memory of its first process, in octets.
    pub(crate) fn memory(&self) -> u64 {
        memory(self.pid)
    }

    /// Returns the octets that its first process has written to disks.
    pub(crate) fn written(&self) -> u64 {
        written(self.pid)
    }

    /// Kills its first process with SIGKILL.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        match &mut self.ending {
            Ending::Terminate(child) => child.kill().and_then(|()| child.wait().map(drop)),
            Ending::Ask(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match &mut self.ending {
            Ending::Ask(command) => command.status().map(drop),
            Ending::Terminate(child) => {
                if child.try_wait()?.is_some() {
                    return Ok(());
                }
                Command::new("kill")
                    .args(["-TERM", &child.id().to_string()])
                    .status()?;
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
        // Postfix's master does not wait for its children, and the next trial must not share the
        // computer with them.
        let deadline = Instant::now() + STOP;
        while any_lives(&processes) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns a port that is free now.
///
/// # Errors
/// An error if there is none.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Runs a command to its end, with its output in the log.
///
/// # Errors
/// An error with the end of the log, if it cannot be started or fails.
pub(crate) fn run(command: &mut Command, log: &Path) -> io::Result<()> {
    let file = File::options().create(true).append(true).open(log)?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(with_log(&format!("{command:?} failed, {status}"), log))
    }
}

/// Returns the path of the relay's log.
pub(crate) fn log_in(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn with_log(what: &str, log: &Path) -> io::Error {
    let text = fs::read_to_string(log).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(20);
    io::Error::other(format!(
        "{what}\nthe end of {}:\n{}",
        log.display(),
        lines[last..].join("\n")
    ))
}

fn greeting(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut code = [0; 3];
    stream.read_exact(&mut code)?;
    stream.write_all(b"QUIT\r\n")?;
    if &code == b"220" {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "greeted with {}",
            code.escape_ascii()
        )))
    }
}
