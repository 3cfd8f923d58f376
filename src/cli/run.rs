//! `gatepost run`: the daemon in the foreground, as systemd and people start it.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::signal::unix::{self as signal, SignalKind};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{self, Log, LogFormat};
use crate::daemon::{self, Running};

/// Runs the daemon until SIGTERM or SIGINT. SIGHUP reloads the configuration.
///
/// Exit status 0 after an orderly end, 2 where the configuration cannot be used, 1 where the daemon
/// could not go on.
#[must_use]
pub(super) fn run(file: &Path) -> ExitCode {
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
    let end = runtime.block_on(serve(config, file));
    // What is still blocked (a lookup, a disk) must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    end
}

async fn serve(config: config::Config, file: &Path) -> ExitCode {
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
    notify(&[NotifyState::Ready]);
    let end = loop {
        tokio::select! {
            end = running.ended() => break end,
            signal = signals.next() => match signal {
                Signal::Reload => reload(&running, file),
                Signal::End(name) => {
                    tracing::info!(signal = name, "stopping: no new mail is taken, deliveries in flight may finish");
                    notify(&[NotifyState::Stopping]);
                    running.stop();
                    break running.ended().await;
                }
            },
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

/// Takes the configuration file anew, whole or not at all.
fn reload(running: &Running, file: &Path) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
    let taken = config::read(file).and_then(|(config, mut warnings)| {
        warnings.extend(running.reload(config)?);
        Ok(warnings)
    });
    match taken {
        Ok(warnings) => {
            for warning in warnings {
                tracing::warn!(place = %warning.place, remedy = %warning.remedy, "{}", warning.message);
            }
            tracing::info!(file = %file.display(), "configuration reloaded");
        }
        Err(faults) => {
            for fault in faults {
                tracing::error!(place = %fault.place, remedy = %fault.remedy, "{}", fault.message);
            }
            tracing::error!(file = %file.display(), "configuration not reloaded, the old one stays in force");
        }
    }
    notify(&[NotifyState::Ready]);
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("gatepost: not started\n{message}");
    ExitCode::from(2)
}

/// Tells systemd; without systemd nobody listens and nothing happens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// What a signal asks for.
enum Signal {
    Reload,
    End(&'static str),
}

/// The signals that we listen to.
struct Signals {
    hangup: signal::Signal,
    terminate: signal::Signal,
    interrupt: signal::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal::signal(SignalKind::hangup())?,
            terminate: signal::signal(SignalKind::terminate())?,
            interrupt: signal::signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.terminate.recv() => Signal::End("SIGTERM"),
            _ = self.interrupt.recv() => Signal::End("SIGINT"),
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
    let colour = std::io::stderr().is_terminal();
    let text = || tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour).with_target(false);
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
