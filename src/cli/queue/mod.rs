//! `gatepost queue`: an operator's hands on the queue of a running daemon.
//!
//! It asks over the admin socket and decides nothing itself. Exit status: 0; 1 where nothing matches, an
//! order is refused, no daemon answers or the answer cannot be written; 2 where arguments or configuration cannot
//! be used.

mod act;
pub(super) mod list;
mod select;
mod show;
pub(super) mod words;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::ConfigFile;
use super::socket::{Client, SocketError};
use crate::config::{AdminSocket, Config};
use crate::scheduler::Order;
use select::Selection;

/// See what waits in the queue, and decide about it
///
/// The commands speak to the running daemon over its admin socket. Messages are named by their ids, or chosen
/// by --domain, --sender, --older-than, --state and --connector, all of which must hold; --all chooses every message.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what waits: every message, or those that are chosen
    List(Chosen),
    /// Show messages: envelope, each recipient's state, every attempt with its reason, and the next one
    Show {
        #[command(flatten)]
        chosen: Chosen,
        /// Write the header fields instead, as they are stored; with --body the whole message
        #[arg(long)]
        headers: bool,
        /// Write the body instead, as it is stored
        #[arg(long)]
        body: bool,
    },
    /// Forget all waiting, that of the destination included, and dial now
    Retry(Change),
    /// Keep messages, and try nothing until they are released
    Hold(Change),
    /// Let held messages go
    Release(Change),
    /// Delete messages; nobody is told
    Remove(Change),
    /// Give messages up; their senders are told
    Bounce(Change),
}

#[derive(Debug, Args)]
struct Chosen {
    #[command(flatten)]
    selection: Selection,
    /// Answer with one JSON document: an array, but for `show` with a single ID
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Debug, Args)]
struct Change {
    #[command(flatten)]
    chosen: Chosen,
    /// Do not ask (remove and bounce do, and need this where no terminal is)
    #[arg(long)]
    yes: bool,
}

/// Why a command ends without its answer.
#[derive(Debug, thiserror::Error)]
enum QueueError {
    /// Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// Exit status 1.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Exit status 1.
    #[error("{0}")]
    No(String),
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (chosen, order) = match &arguments.command {
        Command::List(chosen) | Command::Show { chosen, .. } => (chosen, None),
        Command::Retry(change) => (&change.chosen, Some((Order::Retry, change.yes))),
        Command::Hold(change) => (&change.chosen, Some((Order::Hold, change.yes))),
        Command::Release(change) => (&change.chosen, Some((Order::Release, change.yes))),
        Command::Remove(change) => (&change.chosen, Some((Order::Remove, change.yes))),
        Command::Bounce(change) => (&change.chosen, Some((Order::Bounce, change.yes))),
    };
    ask(&chosen.file.config, async |client| match (&arguments.command, order) {
        (Command::Show { chosen, headers, body }, _) => show::run(&client, chosen, *headers, *body).await,
        (_, Some((order, yes))) => act::run(&client, chosen, order, yes).await,
        (_, None) => list::run(&client, &chosen.selection, chosen.json).await,
    })
}

/// A command that is also called by the names of sendmail.
#[derive(Debug, Clone, Copy)]
pub(super) enum Classic {
    /// `mailq`, `sendmail -bp`: lists everything.
    List,
    /// `sendmail -q`: tries everything now, in silence.
    Flush,
}

/// Runs a command for sendmail, with the daemon of a configuration that was read.
///
/// # Errors
/// The reason why there is no answer.
pub(super) fn for_sendmail(config: &Config, classic: Classic) -> Result<ExitCode, ClassicError> {
    let AdminSocket::Path(path) = &config.admin.socket.value else { return Err(ClassicError::NoSocket) };
    let client = Client::at(path.clone());
    block_on(async {
        match classic {
            Classic::List => list::run(&client, &Selection::default(), false).await,
            Classic::Flush => act::flush(&client).await,
        }
    })
    .map_err(|error| match error {
        QueueError::Socket(error @ (SocketError::NoDaemon { .. } | SocketError::Silent)) => {
            ClassicError::NotNow(error.to_string())
        }
        error => ClassicError::Other(error.to_string()),
    })
}

/// The reason why sendmail has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClassicError {
    /// The same again later may do.
    #[error("{0}")]
    NotNow(String),
    /// There is nobody to ask.
    #[error("[admin] socket is switched off: the queue cannot be asked")]
    NoSocket,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Runs a command with the daemon of a configuration.
fn ask(config: &Path, command: impl AsyncFnOnce(Client) -> Result<ExitCode, QueueError>) -> ExitCode {
    let client = match Client::of(config, "queue") {
        Ok(client) => client,
        Err(status) => return status,
    };
    block_on(command(client)).unwrap_or_else(|error| end(&error))
}

fn block_on(command: impl Future<Output = Result<ExitCode, QueueError>>) -> Result<ExitCode, QueueError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| QueueError::No(format!("the system gives us no threads: {error}")))?;
    runtime.block_on(command)
}

fn end(error: &QueueError) -> ExitCode {
    eprintln!("gatepost queue: {error}");
    ExitCode::from(match error {
        QueueError::Usage(_) => 2,
        QueueError::Socket(_) | QueueError::No(_) => 1,
    })
}
