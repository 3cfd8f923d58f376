//! `gatepost queue`: lists the messages in the queue, and changes them on an operator's order.
//!
//! It asks the running daemon over the admin socket. Exit status: 0; 1 if no message matches, an
//! order is refused, no daemon answers or the output cannot be written; 2 for unusable arguments or
//! an unusable configuration.

mod act;
mod error;
mod list;
mod select;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::admin_client::{AdminClient, SocketError};
use super::runtime::{self, run_with_daemon};
use crate::config::{AdminSocket, Config};
use crate::relay::scheduler::Order;
use error::QueueError;
use select::{SelectedMessages, Selection};

/// List the messages in the queue; retry, hold, release, remove or bounce them
///
/// The commands ask the running daemon over its admin socket. Messages are named by their ids, or
/// selected by --domain, --sender, --older-than, --state and --connector, all of which must match;
/// --all selects every message.
#[derive(Debug, Args)]
pub(super) struct QueueArguments {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// List all messages, or those that are selected
    List(SelectedMessages),
    /// Show messages: envelope, protocol and client, the state of each recipient, every attempt with its
    /// reason, and the next one
    Show {
        #[command(flatten)]
        chosen: SelectedMessages,
        /// Write the header fields instead, as they are stored; with --body the whole message
        #[arg(long)]
        headers: bool,
        /// Write the body instead, as it is stored
        #[arg(long)]
        body: bool,
    },
    /// Try to deliver messages now; the backoff of their destinations ends, too
    Retry(OrderArguments),
    /// Hold messages: no attempt is made until they are released
    Hold(OrderArguments),
    /// Release held messages
    Release(OrderArguments),
    /// Delete messages without a report to their senders
    Remove(OrderArguments),
    /// Bounce messages: their senders get a report
    Bounce(OrderArguments),
}

/// The arguments of the commands that change messages.
#[derive(Debug, Args)]
struct OrderArguments {
    #[command(flatten)]
    chosen: SelectedMessages,
    /// Do not ask for confirmation (remove and bounce ask; without a terminal they need this)
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(arguments: &QueueArguments) -> ExitCode {
    let (chosen, order) = match &arguments.command {
        QueueCommand::List(chosen) | QueueCommand::Show { chosen, .. } => (chosen, None),
        QueueCommand::Retry(change) => (&change.chosen, Some((Order::Retry, change.yes))),
        QueueCommand::Hold(change) => (&change.chosen, Some((Order::Hold, change.yes))),
        QueueCommand::Release(change) => (&change.chosen, Some((Order::Release, change.yes))),
        QueueCommand::Remove(change) => (&change.chosen, Some((Order::Remove, change.yes))),
        QueueCommand::Bounce(change) => (&change.chosen, Some((Order::Bounce, change.yes))),
    };
    run_with_daemon("queue", &chosen.file.config, async |client| {
        match (&arguments.command, order) {
            (
                QueueCommand::Show {
                    chosen,
                    headers,
                    body,
                },
                _,
            ) => show::run(&client, chosen, *headers, *body).await,
            (_, Some((order, yes))) => act::run(&client, chosen, order, yes).await,
            (_, None) => list::run(&client, &chosen.selection, chosen.json).await,
        }
    })
}

/// A queue command that `sendmail` has as well.
#[derive(Debug, Clone, Copy)]
pub(super) enum SendmailQueueCommand {
    /// Lists the queue: `mailq`, `sendmail -bp`.
    List,
    /// Retries all messages and prints only errors: `sendmail -q`.
    Flush,
}

/// Runs a queue command for `sendmail`.
///
/// # Errors
/// [`SendmailQueueError`].
pub(super) fn run_for_sendmail(
    config: &Config,
    command: SendmailQueueCommand,
) -> Result<ExitCode, SendmailQueueError> {
    let AdminSocket::Path(path) = &config.admin.socket.value else {
        return Err(SendmailQueueError::NoSocket);
    };
    let client = AdminClient::at(path.clone());
    let runtime =
        runtime::single_threaded().map_err(|error| SendmailQueueError::Other(error.to_string()))?;
    let result = runtime.block_on(async {
        match command {
            SendmailQueueCommand::List => list::run(&client, &Selection::default(), false).await,
            SendmailQueueCommand::Flush => act::flush(&client).await,
        }
    });
    result.map_err(|error| match error {
        QueueError::Socket(error @ (SocketError::NoDaemon { .. } | SocketError::Timeout)) => {
            SendmailQueueError::NotNow(error.to_string())
        }
        error => SendmailQueueError::Other(error.to_string()),
    })
}

/// The reason why a queue command of `sendmail` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendmailQueueError {
    /// The daemon does not answer; the command may work later.
    #[error("{0}")]
    NotNow(String),
    /// The configuration has no admin socket.
    #[error("cannot ask the daemon for the queue: [admin] socket is switched off")]
    NoSocket,
    /// Any other error.
    #[error("{0}")]
    Other(String),
}
