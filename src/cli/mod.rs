//! The commands: arguments in, exit status out. Each command is one thin file that asks the rooms below.
//!
//! Exit status: 0, 1 (the answer is no, or could not be written), 2 (unusable arguments, which clap answers
//! itself); `sendmail` has those of sysexits.h.

mod check;
mod clients;
mod demo;
mod evidence;
mod explain;
mod history;
mod pages;
mod probe;
mod queue;
mod run;
mod sendmail;
mod socket;
mod status;

#[cfg(fuzzing)]
pub use sendmail::fuzzed as sendmail_message;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Args, Parser, Subcommand};

use crate::config::Fault;

/// An SMTP relay that holds every domain to its TLS policy, in both directions.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the relay in the foreground, as systemd does
    Run(ConfigFile),
    Check(check::Arguments),
    Explain(explain::Arguments),
    Probe(probe::Arguments),
    Queue(queue::Arguments),
    History(history::Arguments),
    Clients(clients::Arguments),
    Evidence(evidence::Arguments),
    Status(status::Arguments),
    Sendmail(sendmail::Arguments),
    #[command(hide = true)]
    Pages(pages::Arguments),
    /// Plays the scenarios of opportunistic and forced TLS with built-in peers, and shows each outcome
    Demo {
        /// Leave relay and peers running afterwards, until Ctrl-C
        #[arg(long)]
        keep: bool,
    },
}

/// Where the configuration is, unless somebody says otherwise.
const CONFIG_FILE: &str = "/etc/gatepost/gatepost.toml";

/// Which configuration; the same for every command.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
}

impl Cli {
    /// Runs the command that was asked for.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let status = match self.command {
            Command::Run(file) => run::run(&file.config),
            Command::Check(arguments) => check::run(&arguments),
            Command::Explain(arguments) => explain::run(&arguments),
            Command::Probe(arguments) => probe::run(&arguments),
            Command::Queue(arguments) => queue::run(&arguments),
            Command::History(arguments) => history::run(&arguments),
            Command::Clients(arguments) => clients::run(&arguments),
            Command::Evidence(arguments) => evidence::run(&arguments),
            Command::Status(arguments) => status::run(&arguments),
            Command::Sendmail(arguments) => sendmail::run(arguments),
            Command::Pages(arguments) => pages::run(&arguments),
            Command::Demo { keep } => demo::run(keep),
        };
        written(status)
    }
}

/// The program: its first word is the name that it was called by, which may be another program's
/// (`sendmail`, `mailq`, `newaliases`).
#[must_use]
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<_> = words.into_iter().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name()).and_then(|name| name.to_str());
    let rest = |from| words.iter().skip(from).cloned().collect();
    let other = name.and_then(|name| sendmail::by_name(name, rest(1)));
    // The first "--" of sendmail is its own, and no parser of ours may take it away.
    let is_sendmail = words.get(1).is_some_and(|word| word == "sendmail");
    let asks_for_help = words.get(2).is_some_and(|word| word == "--help" || word == "-h") && words.len() == 3;
    let other = other.or_else(|| (is_sendmail && !asks_for_help).then(|| sendmail::by_words(rest(2))));
    other.map_or_else(|| Cli::parse_from(words).run(), written)
}

/// The first trouble in writing an answer out.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// Shows an answer. Trouble with that is told at the end ([`written`]): an order that is under way goes on.
fn show(text: &str) {
    note(io::stdout().write_all(text.as_bytes()));
}

/// Notes trouble in writing an answer out. A reader who has gone away (`| head`) is none.
fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Those that follow have the same reason as the first.
        let _ = UNWRITTEN.set(error);
    }
}

/// Whether some of the answer could not be written.
fn is_unwritten() -> bool {
    UNWRITTEN.get().is_some()
}

/// The exit status of a command, when its answer has been written out.
fn written(status: ExitCode) -> ExitCode {
    note(io::stdout().flush());
    let Some(error) = UNWRITTEN.get() else { return status };
    eprintln!(
        "gatepost: the answer could not be written, what there is of it is not whole: {error}.\nMake room where it goes, \
         or write it elsewhere, and ask again. An order that was given stands."
    );
    ExitCode::FAILURE
}

/// Shows what makes a configuration unusable, and how many there are.
fn show_faults(faults: &[Fault]) {
    let count = if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) };
    let mut stderr = std::io::stderr().lock();
    for fault in faults {
        let _ = writeln!(stderr, "{fault}");
    }
    let _ = writeln!(stderr, "{count}: this configuration is not taken");
}

/// Shows what an administrator should know, though the configuration is taken.
fn show_warnings(warnings: &[Fault]) {
    let mut stderr = std::io::stderr().lock();
    for warning in warnings {
        let _ = writeln!(stderr, "warning: {warning}");
    }
}
