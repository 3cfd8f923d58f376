//! `gatepost run`: the daemon in the foreground, as systemd and people start it.

mod journal;
mod manager;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{self as signal, SignalKind};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{self, LogConfig, LogFormat};
use crate::daemon::{self, RunningDaemon, StartError, SystemdSockets, TestOverrides};
use journal::Journal;
use manager::Heart;

/// Puts another `[log] level` in force.
type LogLevel = tracing_subscriber::reload::Handle<EnvFilter, Registry>;

/// Runs the daemon until SIGTERM or SIGINT; a second one ends it at once. SIGHUP reloads the configuration.
///
/// Exit status 0 after an orderly end, 2 where the configuration cannot be used, 1 where the daemon
/// could not go on, or could not start for another reason.
#[must_use]
pub(super) fn run(file: &Path) -> ExitCode {
    // First of all: it must happen before there are threads.
    let passed = SystemdSockets::from_environment();
    let (config, warnings) = match config::read(file) {
        Ok(read) => read,
        Err(faults) => return refuse(&faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    let level = match start_logging(&config.log) {
        Ok(level) => level,
        Err(error) => return fail(&format!("{}: [log]: {error}", config.log.format.location)),
    };
    for warning in warnings {
        tracing::warn!(place = %warning.location, remedy = %warning.remedy, "{}", warning.message);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the system gives us no threads: {error}")),
    };
    let end = runtime.block_on(serve(config, passed, file, &level));
    // What is still blocked (a lookup, a disk) must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    end
}

async fn serve(config: config::Config, passed: SystemdSockets, file: &Path, level: &LogLevel) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("signals cannot be received: {error}")),
    };
    let mut running = match daemon::start_with(TestOverrides::default(), passed, config, Arc::new(|_, _| ())).await {
        Ok(running) => running,
        Err(error @ StartError::Faults(_)) => return refuse(&error.to_string()),
        Err(error) => return fail(&error.to_string()),
    };
    for (listener, address) in &running.addresses {
        tracing::info!(listener, %address, "listening");
    }
    if let Some(address) = running.http {
        tracing::info!(%address, "showing status and metrics");
    }
    manager::ready();
    let heart = Heart::start(running.liveness());
    let mut stopping = false;
    let end = loop {
        tokio::select! {
            end = running.ended() => break end,
            signal = signals.next() => match signal {
                Signal::Reload if stopping => {}
                Signal::Reload => reload(&running, file, level),
                Signal::End(name) if stopping => {
                    tracing::warn!(signal = name, "stopped at once: what was under way starts again with the next run");
                    return ExitCode::FAILURE;
                }
                Signal::End(name) => {
                    tracing::info!(signal = name, "stopping: no new mail is taken, deliveries in flight may finish");
                    heart.stopping();
                    stopping = true;
                    running.stop();
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
fn reload(running: &RunningDaemon, file: &Path, level: &LogLevel) {
    manager::reloading();
    let taken = config::read(file).and_then(|(config, mut warnings)| {
        let log = config.log.clone();
        warnings.extend(running.reload(config)?);
        // Reading has tried it already.
        if let Ok(filter) = filter(&log.level) {
            // Only a program that ends has no log any more.
            let _ = level.reload(filter);
        }
        Ok(warnings)
    });
    match taken {
        Ok(warnings) => {
            for warning in warnings {
                tracing::warn!(place = %warning.location, remedy = %warning.remedy, "{}", warning.message);
            }
            tracing::info!(file = %file.display(), "configuration reloaded");
            manager::reloaded("Configuration reloaded");
        }
        Err(faults) => {
            for fault in faults {
                tracing::error!(place = %fault.location, remedy = %fault.remedy, "{}", fault.message);
            }
            tracing::error!(file = %file.display(), "configuration not reloaded, the old one stays in force");
            manager::reloaded("Configuration not reloaded: the old one stays in force, the log says why");
        }
    }
}

/// The configuration cannot be used: another start would find the same. systemd does not try one then.
fn refuse(message: &str) -> ExitCode {
    eprintln!("gatepost: not started\n{message}");
    ExitCode::from(2)
}

/// A disk, an address or a resolver may be back in a moment: worth another start.
fn fail(message: &str) -> ExitCode {
    eprintln!("gatepost: not started\n{message}");
    ExitCode::FAILURE
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

/// The filter as it is written, but that the resolver library is quiet unless it is named: it writes out whole
/// messages of strangers, as long as they like.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("hickory_net=off,hickory_proto=off,hickory_resolver=off,{level}"))
}

/// Sends log lines where `[log]` says.
///
/// # Errors
/// A filter that cannot be read, or a journal that cannot be reached, in words.
fn start_logging(log: &LogConfig) -> Result<LogLevel, String> {
    let filter = filter(&log.level).map_err(|error| format!("level = \"{}\" is no filter: {error}", log.level))?;
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter);
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let colour = std::io::stderr().is_terminal();
    let text = || tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour).with_target(false);
    let layer = match log.format.value {
        LogFormat::Text => text().boxed(),
        LogFormat::Auto if !under_systemd => text().boxed(),
        LogFormat::Json => {
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
        }
        LogFormat::Auto | LogFormat::Journald => Journal::open(Path::new(journal::SOCKET))
            .map_err(|error| format!("the journal cannot be reached ({error}); set format = \"text\""))?
            .boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|error| error.to_string())?;
    Ok(handle)
}
