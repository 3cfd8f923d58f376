//! The real daemon as a child process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::within;

/// The time that a start or an end may take; many times the usual one.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// The program under test: the one that was built for the tests, or the one that `GATEPOST` names.
pub(crate) fn program() -> PathBuf {
    let named = std::env::var_os("GATEPOST").map(PathBuf::from);
    let program = named.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_gatepost")));
    program
        .canonicalize()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// A relay that has ended.
#[derive(Debug)]
pub(crate) struct End {
    /// `None`: it did not end by itself and was killed.
    pub(crate) status: Option<ExitStatus>,
    /// Everything it said.
    pub(crate) log: String,
}

impl End {
    /// Checks that it ended by itself, without a panic, and by no signal that it raised itself.
    ///
    /// # Errors
    /// The way in which it ended, if that was not in order.
    pub(crate) fn check(&self) -> Result<(), String> {
        use std::os::unix::process::ExitStatusExt as _;
        let ended = self
            .status
            .is_some_and(|status| status.signal().is_none_or(|signal| signal == 9));
        if !ended || self.log.contains("panicked") {
            return Err(format!(
                "the relay ended with {:?} and said:\n{}",
                self.status, self.log
            ));
        }
        Ok(())
    }
}

/// A relay that runs. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    /// The process that was started: the relay, or the program that watches it.
    child: Child,
    /// The relay itself.
    pid: u32,
    lines: Receiver<String>,
    log: String,
}

impl Relay {
    /// Starts a relay with this configuration, by another program where `under` names one with its
    /// arguments.
    ///
    /// # Errors
    /// [`End`] where it ended before it listened.
    pub(crate) fn run(configuration: &Path, under: &[String]) -> Result<Self, End> {
        let program = program();
        let words = under.iter().map(std::ffi::OsString::from);
        let mut words = words.chain([program.clone().into(), "run".into(), "--config".into()]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command
            .args(words)
            .arg(configuration)
            .env("NO_COLOR", "1")
            .env_remove("JOURNAL_STREAM");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = listen(&mut child);
        let pid = child.id();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut relay = Self {
            address,
            child,
            pid,
            lines,
            log: String::new(),
        };
        loop {
            match relay.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    relay.log.push_str(&line);
                    if let Some(address) = listening(&line) {
                        relay.address = address;
                        if !under.is_empty() {
                            relay.pid = watched(relay.pid, &program).unwrap_or(relay.pid);
                        }
                        return Ok(relay);
                    }
                }
                Err(_) => return Err(relay.kill()),
            }
        }
    }

    /// Returns true if it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, and the end.
    pub(crate) fn terminate(mut self) -> End {
        self.signal("TERM");
        self.ends_by_itself()
    }

    /// The end that was asked for.
    pub(crate) fn ends_by_itself(mut self) -> End {
        if !within(PATIENCE, || self.has_ended()) {
            let End { log, .. } = self.kill();
            return End { status: None, log };
        }
        self.end()
    }

    /// SIGKILL, and the end.
    pub(crate) fn kill(mut self) -> End {
        self.signal("KILL");
        self.end()
    }

    /// The end that a signal makes, of a relay that stays where it is.
    #[allow(dead_code, reason = "for the durability tests")]
    pub(crate) fn has_said_all(&mut self) -> End {
        if !within(PATIENCE, || self.has_ended()) {
            self.signal("KILL");
            return End {
                status: None,
                log: self.end().log,
            };
        }
        self.end()
    }

    fn end(&mut self) -> End {
        let status = self.child.wait().ok();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.log.push_str(&line);
        }
        End {
            status,
            log: std::mem::take(&mut self.log),
        }
    }

    /// Waits for a line of the log with this text in it.
    pub(crate) fn hears(&mut self, words: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("{words:?} was not said; the relay said:\n{}", self.log)
            };
            self.log.push_str(&line);
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Returns whether its log has this text by now.
    #[allow(dead_code, reason = "for the durability tests")]
    pub(crate) fn has_said(&mut self, words: &str) -> bool {
        while let Ok(line) = self.lines.try_recv() {
            self.log.push_str(&line);
        }
        self.log.contains(words)
    }

    /// Returns its log, up to the line that was last waited for.
    pub(crate) fn said(&self) -> &str {
        &self.log
    }

    /// Does something while the relay is stopped, so that it changes no file meanwhile.
    #[allow(dead_code, reason = "for the durability tests")]
    pub(crate) fn while_stopped<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let tasks = format!("/proc/{}/task", self.pid);
        let is_stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The state follows the name, which is in parentheses.
            let state = stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.split_whitespace().next());
            matches!(state, None | Some("T" | "t" | "Z" | "X"))
        };
        self.signal("STOP");
        let stopped = within(PATIENCE, || {
            std::fs::read_dir(&tasks).is_ok_and(|tasks| tasks.flatten().all(is_stopped))
        });
        assert!(stopped, "the relay does not stop");
        let done = act();
        self.signal("CONT");
        done
    }

    pub(crate) fn signal(&mut self, name: &str) {
        // One that has been waited for has no process id any more.
        if !self.has_ended() {
            let told = Command::new("kill")
                .args([&format!("-{name}"), &self.pid.to_string()])
                .stderr(Stdio::null())
                .status();
            told.expect("kill can be called");
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.signal("KILL");
        let _status = self.child.wait();
    }
}

/// Everything a child says, by the line; the channel closes with its last descriptor.
fn listen(child: &mut Child) -> Receiver<String> {
    let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    let (told, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stderr.split(b'\n').map_while(Result::ok) {
            // If the receiver is gone, nobody needs the line.
            let _unheard = told.send(format!("{}\n", String::from_utf8_lossy(&line)));
        }
    });
    lines
}

fn listening(line: &str) -> Option<SocketAddr> {
    line.contains(" listening ")
        .then(|| line.split("address=").nth(1))
        .flatten()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The child of `watcher` that runs `program`.
fn watched(watcher: u32, program: &Path) -> Option<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{watcher}/task/{watcher}/children")).ok()?;
    let mut children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse::<u32>().ok());
    children
        .find(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == *program))
}
