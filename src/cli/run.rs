//! `gatepost run`: the daemon in the foreground, as systemd and people start it.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{self, Log, LogFormat};
use crate::daemon;

/// Runs the daemon until SIGTERM or SIGINT.
///
/// Exit status 0 after an orderly end, 2 where the configuration cannot be used, 1 where the daemon
/// could not go on.
#[must_use]
pub fn run(file: &Path) -> ExitCode {
    let (config, warnings) = match config::read(file) {
        Ok(read) => read,
        Err(faults) => return refuse(&faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    if let Err(error) = start_logging(&config.log) {
        return refuse(&format!("{}: [log]: {error}", file.display()));
    }
    for warning in warnings {
        tracing::warn!(place = %warning.place, remedy = %warning.remedy, "{}", warning.message);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("the system gives us no threads: {error}")),
    };
    let end = runtime.block_on(serve(config));
    // What is still blocked (a lookup, a disk) must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    end
}

async fn serve(config: config::Config) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return refuse(&format!("signals cannot be received: {error}")),
    };
    let mut running = match daemon::start(config, Arc::new(|_, _| ())).await {
        Ok(running) => running,
        Err(error) => return refuse(&error.to_string()),
    };
    for (listener, address) in &running.addresses {
        tracing::info!(listener, %address, "listening");
    }
    notify(&[sd_notify::NotifyState::Ready]);
    let end = tokio::select! {
        end = running.ended() => end,
        name = signals.next() => {
            tracing::info!(signal = name, "stopping: no new mail is taken, deliveries in flight may finish");
            notify(&[sd_notify::NotifyState::Stopping]);
            running.stop();
            running.ended().await
        }
    };
    match end {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("gatepost: not started\n{message}");
    ExitCode::from(2)
}

/// Tells systemd; without systemd nobody listens and nothing happens.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// The signals that end us.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Sends log lines where `[log]` says.
///
/// # Errors
/// A filter that cannot be read, or a journal that cannot be reached, in words.
fn start_logging(log: &Log) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(&log.level).map_err(|error| format!("level = \"{}\" is no filter: {error}", log.level))?;
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let text = || tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = match log.format {
        LogFormat::Text => text().boxed(),
        LogFormat::Auto if !under_systemd => text().boxed(),
        LogFormat::Json => {
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
        }
        LogFormat::Auto | LogFormat::Journald => tracing_journald::layer()
            .map_err(|error| format!("the journal cannot be reached ({error}); set format = \"text\""))?
            .with_field_prefix(Some("GATEPOST".to_owned()))
            .boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|error| error.to_string())
}
