//! The commands of the `gatepost` program. Each has a module that reads its arguments, asks the
//! modules below or the running daemon, prints the answer and returns an exit status.
//!
//! Exit status: 0; 1 for a negative answer, or one that could not be written; 2 for unusable
//! arguments, which clap reports itself. `sendmail` has the exit statuses of sysexits.h.

mod admin_client;
mod check;
mod clients;
mod config_file;
mod connector;
mod connector_name;
mod demo;
mod evidence;
mod explain;
mod format;
mod history;
mod json;
mod login_users;
mod node;
mod output;
mod pages;
mod probe;
mod queue;
mod reload;
mod run;
mod runtime;
mod sendmail;
mod spool;
mod status;
mod test_mail;
mod user;

#[cfg(fuzzing)]
pub use sendmail::fuzzed as sendmail_message;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use config_file::ConfigFile;
use format::short;
use output::finish_output;

/// The maximum length of an argument that an error repeats completely, in octets.
const ARGUMENT_MAX: usize = 200;

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
    Connector(connector::ConnectorArguments),
    Queue(queue::QueueArguments),
    History(history::HistoryArguments),
    Clients(clients::ClientsArguments),
    User(login_users::UserArguments),
    Node(node::NodeArguments),
    Evidence(evidence::EvidenceArguments),
    Spool(spool::SpoolArguments),
    Status(status::StatusArguments),
    Reload(reload::ReloadArguments),
    Sendmail(sendmail::SendmailArguments),
    TestMail(test_mail::TestMailArguments),
    #[command(hide = true)]
    Pages(pages::PagesArguments),
    Demo(demo::DemoArguments),
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
            CliCommand::Connector(arguments) => connector::run(&arguments),
            CliCommand::Queue(arguments) => queue::run(&arguments),
            CliCommand::History(arguments) => history::run(&arguments),
            CliCommand::Clients(arguments) => clients::run(&arguments),
            CliCommand::User(arguments) => login_users::run(&arguments),
            CliCommand::Node(arguments) => node::run(&arguments),
            CliCommand::Evidence(arguments) => evidence::run(&arguments),
            CliCommand::Spool(arguments) => spool::run(&arguments),
            CliCommand::Status(arguments) => status::run(&arguments),
            CliCommand::Reload(arguments) => reload::run(&arguments),
            CliCommand::Sendmail(arguments) => sendmail::run(arguments),
            CliCommand::TestMail(arguments) => test_mail::run(&arguments),
            CliCommand::Pages(arguments) => pages::run(&arguments, &Self::command()),
            CliCommand::Demo(arguments) => demo::run(&arguments),
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
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli.run(),
        Err(error) => reject_arguments(&error, &arguments),
    }
}

/// Prints clap's error about arguments, or the help or version that they ask for. Returns the exit
/// status.
fn reject_arguments(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if error.use_stderr() && arguments.iter().any(|one| one.len() > ARGUMENT_MAX) {
        eprint!("{}", with_short_arguments(error.to_string(), arguments));
        return ExitCode::from(2);
    }
    error.exit()
}

/// Shortens each overlong argument, or value of one, that a text repeats.
fn with_short_arguments(mut text: String, arguments: &[OsString]) -> String {
    for argument in arguments.iter().filter(|one| one.len() > ARGUMENT_MAX) {
        let argument = argument.to_string_lossy();
        let (option, value) = argument.split_once('=').unwrap_or(("", &argument));
        for part in [&*argument, value, option] {
            if part.len() > ARGUMENT_MAX {
                text = text.replace(part, &short(part));
            }
        }
    }
    text
}
