//! `gatepost run`: runs the daemon in the foreground, under systemd or in a terminal.

mod journald;
mod log_filter;
mod log_text;
mod log_writer;
mod systemd;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{self as signal, SignalKind};
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::runtime;
use crate::admin::ReloadOrder;
use crate::admin::api::{ConfigFault, ReloadOutcome};
use crate::config::{self, Fault, LogConfig, LogFormat};
use crate::daemon::{self, RunError, RunningDaemon, StartError, SystemdSockets, TestOverrides};
use journald::JournaldLayer;
use log_text::TextFields;
use log_writer::LineGatherer;
use systemd::StatusNotifier;

/// Replaces the log filter on a reload.
type LogFilterHandle = tracing_subscriber::reload::Handle<EnvFilter, Registry>;

/// Runs the daemon until SIGTERM or SIGINT; a second signal ends it at once. SIGHUP reloads the
/// configuration.
///
/// Exit status: 0 after an orderly stop; 2 for an unusable configuration; 1 if the daemon failed,
/// or could not start for another reason.
#[must_use]
pub(super) fn run(file: &Path) -> ExitCode {
    // This must happen before the first thread is started, since it changes the environment.
    let passed = SystemdSockets::from_environment();
    let (config, warnings) = match config::read(file) {
        Ok(read) => read,
        Err(faults) => {
            return config_error(
                &faults
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n"),
            );
        }
    };
    let (level, _log) = match start_logging(&config.log) {
        Ok(started) => started,
        Err(error) => {
            return start_error(&format!("{}: [log]: {error}", config.log.format.location));
        }
    };
    for warning in warnings {
        tracing::warn!(place = %warning.location, remedy = %warning.remedy, "{}", warning.message);
    }
    let runtime = match runtime::multi_threaded() {
        Ok(runtime) => runtime,
        Err(error) => return start_error(&error.to_string()),
    };
    let status = runtime.block_on(serve(config, passed, file, &level));
    // Blocked threads (in a lookup, or on a disk) must not delay the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    status
}

/// Starts the daemon and handles signals until it has ended.
async fn serve(
    config: config::Config,
    passed: SystemdSockets,
    file: &Path,
    level: &LogFilterHandle,
) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return start_error(&format!("cannot receive signals: {error}")),
    };
    let mut running =
        match daemon::start_with(TestOverrides::default(), passed, config, Arc::new(())).await {
            Ok(running) => running,
            Err(error @ StartError::Faults(_)) => return config_error(&error.to_string()),
            Err(error) => return start_error(&error.to_string()),
        };
    for (listener, address) in &running.addresses {
        tracing::info!(listener, %address, "listening");
    }
    if let Some(address) = running.http {
        tracing::info!(%address, "showing status and metrics");
    }
    systemd::ready();
    let notifier = StatusNotifier::start(running.liveness());
    let mut stopping = false;
    let mut orders = running.take_reload_orders();
    let result = loop {
        tokio::select! {
            result = running.ended() => break result,
            signal = signals.next() => match signal {
                Signal::Reload if stopping => {}
                Signal::Reload => drop(reload(&running, file, level)),
                Signal::End(name) if stopping => {
                    tracing::warn!(signal = name, "stopped at once; interrupted deliveries are retried after the next start");
                    return ExitCode::FAILURE;
                }
                Signal::End(name) => {
                    tracing::info!(signal = name, "stopping: no new mail is accepted, running deliveries may finish");
                    notifier.stopping();
                    stopping = true;
                    running.stop();
                }
            },
            Some(order) = next_order(&mut orders), if !stopping => {
                order.carried_out(reload(&running, file, level));
            }
        }
    };
    match result {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "failed");
            match error {
                // Started again, each of two nodes with one folder would end the other for ever.
                RunError::SpoolClosed => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Waits for the next order of an operator; for ever if there can be none.
async fn next_order(orders: &mut Option<mpsc::Receiver<ReloadOrder>>) -> Option<ReloadOrder> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}

/// Reads the configuration file again. If there is any error, the running configuration is
/// unchanged.
fn reload(running: &RunningDaemon, file: &Path, level: &LogFilterHandle) -> ReloadOutcome {
    systemd::reloading();
    let mut included = 0;
    let reloaded = config::read(file).and_then(|(config, mut warnings)| {
        let log = config.log.clone();
        included = config.source.included.len();
        warnings.extend(running.reload(config)?);
        // `config::read` has checked the filter.
        if let Ok(filter) = log_filter::parse(&log.level) {
            // This fails only if the subscriber is gone, which lives as long as the process.
            let _ = level.reload(filter);
        }
        Ok(warnings)
    });
    let (faults, warnings) = match reloaded {
        Ok(warnings) => (Vec::new(), warnings),
        Err(faults) => (faults, Vec::new()),
    };
    for warning in &warnings {
        tracing::warn!(place = %warning.location, remedy = %warning.remedy, "{}", warning.message);
    }
    for fault in &faults {
        tracing::error!(place = %fault.location, remedy = %fault.remedy, "{}", fault.message);
    }
    if faults.is_empty() {
        tracing::info!(file = %file.display(), included, "configuration reloaded");
        systemd::reloaded("Configuration reloaded");
    } else {
        tracing::error!(file = %file.display(), "configuration not reloaded, the running one is unchanged");
        systemd::reloaded("Configuration not reloaded, the running one is unchanged; see the log");
    }
    ReloadOutcome {
        file: std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf()),
        included,
        faults: faults.iter().map(shown_fault).collect(),
        warnings: warnings.iter().map(shown_fault).collect(),
    }
}

fn shown_fault(fault: &Fault) -> ConfigFault {
    ConfigFault {
        place: fault.location.to_string(),
        message: fault.message.clone(),
        remedy: fault.remedy.clone(),
    }
}

/// Prints the errors of a configuration and returns exit status 2, after which systemd does not
/// restart the daemon: it would fail again (`RestartPreventExitStatus=2`).
fn config_error(message: &str) -> ExitCode {
    eprintln!("gatepost: not started\n{message}");
    ExitCode::from(2)
}

/// Prints another error and returns exit status 1, after which systemd restarts the daemon: a disk,
/// an address or a resolver may be available again by then.
fn start_error(message: &str) -> ExitCode {
    eprintln!("gatepost: not started\n{message}");
    ExitCode::FAILURE
}

/// The action that a signal requests.
enum Signal {
    Reload,
    /// Stop, with the name of the signal.
    End(&'static str),
}

/// The signals that the daemon handles.
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

/// The reason why logging cannot start.
#[derive(Debug, thiserror::Error)]
enum LoggingError {
    /// The filter cannot be parsed.
    #[error("level = \"{level}\" is not a filter: {error}")]
    Filter {
        /// `[log] level`.
        level: String,
        /// The error of the parser.
        error: tracing_subscriber::filter::ParseError,
    },
    /// The thread that writes the log cannot be started.
    #[error("cannot start the writer of the log: {0}")]
    Writer(std::io::Error),
    /// The journal cannot be reached.
    #[error("cannot reach the journal ({0}); set format = \"text\"")]
    Journal(std::io::Error),
    /// Logging has been started before.
    #[error(transparent)]
    Again(#[from] tracing_subscriber::util::TryInitError),
}

/// Closes the log when it is dropped, at the end of the process.
struct OpenLog(Option<LineGatherer>);

impl OpenLog {
    /// Returns the destination of lines that go to stderr.
    fn gather(&mut self) -> Result<LineGatherer, LoggingError> {
        let lines = LineGatherer::start(std::io::stderr()).map_err(LoggingError::Writer)?;
        Ok(self.0.insert(lines).clone())
    }
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        if let Some(lines) = &self.0 {
            lines.close();
        }
    }
}

/// Starts logging as `[log]` says. Returns the log, which is to be closed at the end, and the handle
/// of its filter.
///
/// # Errors
/// A filter that cannot be parsed, or a journal that cannot be reached.
fn start_logging(log: &LogConfig) -> Result<(LogFilterHandle, OpenLog), LoggingError> {
    let filter = log_filter::parse(&log.level).map_err(|error| LoggingError::Filter {
        level: log.level.clone(),
        error,
    })?;
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter);
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let colour = std::io::stderr().is_terminal();
    let mut open = OpenLog(None);
    let text = |lines| {
        tracing_subscriber::fmt::layer()
            .fmt_fields(TextFields)
            .with_writer(lines)
            .with_ansi(colour)
            .with_target(false)
    };
    let layer = match log.format.value {
        LogFormat::Text => text(open.gather()?).boxed(),
        LogFormat::Auto if !under_systemd => text(open.gather()?).boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(open.gather()?)
            .boxed(),
        LogFormat::Auto | LogFormat::Journald => JournaldLayer::open(Path::new(journald::SOCKET))
            .map_err(LoggingError::Journal)?
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()?;
    Ok((handle, open))
}
