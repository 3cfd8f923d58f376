//! `gatepost spool`: writes what waits in the form of an earlier version.
//!
//! The commands read the folder and need no daemon. Exit status: 0; 1 if something cannot be read;
//! 2 if nothing was done, or for unusable arguments or an unusable configuration.

mod export;
mod location;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Export the spool to an earlier version
///
/// The spool is the folder in which the queue lies. The commands work on its files; the daemon need
/// not run.
#[derive(Debug, Args)]
pub(super) struct SpoolArguments {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// Write all that waits to a new folder, in the form that the version before reads
    ///
    /// The new folder is a complete spool of the form of queue.db version 1: every message with its
    /// content and the state of each recipient, the known clock jumps, the downgrade memory, the
    /// policies and the counts for TLS reports. Nothing in the old folder changes. The daemon must be
    /// stopped, and the command run by the user that it runs as.
    Export(export::ExportArguments),
}

pub(super) fn run(arguments: &SpoolArguments) -> ExitCode {
    match &arguments.command {
        SpoolCommand::Export(arguments) => export::run(arguments),
    }
}
