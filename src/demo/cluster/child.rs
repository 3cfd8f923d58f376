//! The child processes of the demo.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::ClusterDemoError;

/// The interval at which a process is looked at.
const INTERVAL: Duration = Duration::from_millis(20);
/// The time that a process has to end when it is asked to.
const END_TIME: Duration = Duration::from_secs(10);
/// The number of lines of a log that an error shows.
const LOG_LINES: usize = 10;

/// A child process, which is ended when this is dropped.
///
/// It is in a process group of its own: Ctrl-C reaches the demo alone, and the demo ends its children
/// in the right order.
pub(super) struct DemoChild {
    name: String,
    process: Child,
    log: PathBuf,
    /// The signal by which it ends at once.
    abort: Signal,
}

impl DemoChild {
    /// Starts a process whose output goes to a file. `abort` is the signal by which it ends at once.
    pub(super) fn start(
        name: &str,
        command: &mut Command,
        log: &Path,
        abort: Signal,
    ) -> Result<Self, ClusterDemoError> {
        let output = File::create(log)?;
        let process = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self {
            name: name.to_owned(),
            process,
            log: log.to_owned(),
            abort,
        })
    }

    /// Returns the process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal. The process has not been waited for, so the id is still its own.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<(), ClusterDemoError> {
        if self.status()?.is_none() {
            kill_process(Pid::from_child(&self.process), signal).map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    fn status(&mut self) -> Result<Option<ExitStatus>, ClusterDemoError> {
        Ok(self.process.try_wait()?)
    }

    /// Waits for the end of the process.
    pub(super) async fn ended(&mut self, limit: Duration) -> Result<ExitStatus, ClusterDemoError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(self.fault("did not end in time"));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Waits until the process is ready.
    pub(super) async fn ready(
        &mut self,
        limit: Duration,
        is_ready: impl AsyncFn() -> bool,
    ) -> Result<(), ClusterDemoError> {
        let deadline = Instant::now() + limit;
        while !is_ready().await {
            if self.status()?.is_some() {
                return Err(self.fault("ended at its start"));
            }
            if Instant::now() > deadline {
                return Err(self.fault("was not ready in time"));
            }
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(())
    }

    /// Ends the process in an orderly way, by a signal.
    pub(super) async fn stop(&mut self, signal: Signal) -> Result<(), ClusterDemoError> {
        self.signal(signal)?;
        self.ended(END_TIME).await.map(drop)
    }

    /// Returns an error about this process, with the end of its log.
    pub(super) fn fault(&self, fault: &'static str) -> ClusterDemoError {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.len().saturating_sub(LOG_LINES);
        ClusterDemoError::Process {
            name: self.name.clone(),
            fault,
            log: lines[last..].join("\n"),
        }
    }
}

impl Drop for DemoChild {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.signal(self.abort);
        let deadline = Instant::now() + END_TIME;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            std::thread::sleep(INTERVAL);
        }
    }
}
