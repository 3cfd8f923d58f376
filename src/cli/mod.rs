//! The commands of the `gatepost` program. Each has a module that reads its arguments, asks the
//! modules below or the running daemon, prints the answer and returns an exit status.
//!
//! Exit status: 0; 1 for a negative answer, or one that could not be written; 2 for unusable
//! arguments, which clap reports itself. `sendmail` has the exit statuses of sysexits.h.

mod admin_client;
mod check;
mod clients;
mod connector_name;
mod demo;
mod evidence;
mod explain;
mod format;
mod history;
mod json;
mod pages;
mod probe;
mod queue;
mod run;
mod runtime;
mod sendmail;
mod status;

#[cfg(fuzzing)]
pub use sendmail::fuzzed as sendmail_message;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::Fault;

/// An SMTP relay that holds every domain to its TLS policy, in both directions.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the relay in the foreground, as systemd does
    Run(ConfigFile),
    Check(check::CheckArguments),
    Explain(explain::ExplainArguments),
    Probe(probe::ProbeArguments),
    Queue(queue::QueueArguments),
    History(history::HistoryArguments),
    Clients(clients::ClientsArguments),
    Evidence(evidence::EvidenceArguments),
    Status(status::StatusArguments),
    Sendmail(sendmail::SendmailArguments),
    #[command(hide = true)]
    Pages(pages::PagesArguments),
    /// Play the scenarios of opportunistic and forced TLS with built-in peers, and show each
    /// outcome
    Demo {
        /// Leave relay and peers running afterwards, until Ctrl-C
        #[arg(long)]
        keep: bool,
    },
}

/// The path of the configuration file where `--config` is not given.
const CONFIG_FILE: &str = "/etc/gatepost/gatepost.toml";

/// The `--config` option, which every command has.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
}

impl Cli {
    /// Runs the command and returns its exit status.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let status = match self.command {
            CliCommand::Run(file) => run::run(&file.config),
            CliCommand::Check(arguments) => check::run(&arguments),
            CliCommand::Explain(arguments) => explain::run(&arguments),
            CliCommand::Probe(arguments) => probe::run(&arguments),
            CliCommand::Queue(arguments) => queue::run(&arguments),
            CliCommand::History(arguments) => history::run(&arguments),
            CliCommand::Clients(arguments) => clients::run(&arguments),
            CliCommand::Evidence(arguments) => evidence::run(&arguments),
            CliCommand::Status(arguments) => status::run(&arguments),
            CliCommand::Sendmail(arguments) => sendmail::run(arguments),
            CliCommand::Pages(arguments) => pages::run(&arguments, &Self::command()),
            CliCommand::Demo { keep } => demo::run(keep),
        };
        finish_output(status)
    }
}

/// Runs the program. The first argument is the name that the program was called by, which may be
/// that of another program (`sendmail`, `mailq`, `newaliases`).
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let name = arguments
        .first()
        .and_then(|path| Path::new(path).file_name())
        .and_then(|name| name.to_str());
    let skip = |count| arguments.iter().skip(count).cloned().collect();
    if let Some(status) = name.and_then(|name| sendmail::run_by_name(name, skip(1))) {
        return finish_output(status);
    }
    // clap would drop the first "--", which sendmail must see.
    let is_sendmail = arguments
        .get(1)
        .is_some_and(|command| command == "sendmail");
    let asks_for_help =
        matches!(&arguments[..], [_, _, option] if option == "--help" || option == "-h");
    if is_sendmail && !asks_for_help {
        return finish_output(sendmail::run_raw(skip(2)));
    }
    Cli::parse_from(arguments).run()
}

/// The first error in writing to standard output.
static WRITE_ERROR: OnceLock<io::Error> = OnceLock::new();

/// Prints a text to standard output. An error is reported at the end by [`finish_output`], so that
/// an operation that has begun is completed.
fn show(text: &str) {
    record_write_error(io::stdout().write_all(text.as_bytes()));
}

/// Remembers an error in writing to standard output. A closed pipe (`| head`) is not an error.
fn record_write_error(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Only the first error is kept: later ones have the same cause.
        let _ = WRITE_ERROR.set(error);
    }
}

/// Returns true if a part of the output could not be written.
fn has_write_error() -> bool {
    WRITE_ERROR.get().is_some()
}

/// Flushes standard output and returns the exit status of the command, or failure if the output is
/// incomplete.
fn finish_output(status: ExitCode) -> ExitCode {
    record_write_error(io::stdout().flush());
    let Some(error) = WRITE_ERROR.get() else {
        return status;
    };
    eprintln!(
        "gatepost: cannot write the output, it is incomplete: {error}.\nFree some space or write it elsewhere, then run \
         the command again. A change that was ordered has been made."
    );
    ExitCode::FAILURE
}

/// Prints the errors that make a configuration file unusable, and their number.
fn show_faults(file: &Path, faults: &[Fault]) {
    let count = if faults.len() == 1 {
        "1 error".to_owned()
    } else {
        format!("{} errors", faults.len())
    };
    let mut stderr = std::io::stderr().lock();
    for fault in faults {
        let _ = writeln!(stderr, "{fault}");
    }
    let _ = writeln!(stderr, "{}: {count}", file.display());
}

/// Prints warnings about a configuration that is usable.
fn show_warnings(warnings: &[Fault]) {
    let mut stderr = std::io::stderr().lock();
    for warning in warnings {
        let _ = writeln!(stderr, "warning: {warning}");
    }
}
