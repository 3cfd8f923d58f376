//! `gatepost spool`: checks and repairs the folder of the queue, writes what waits in the form of an
//! earlier version, prints the schema for a queue in a database, and moves the queue there and back.
//!
//! The commands need no daemon. Exit status: 0; 1 if something cannot be read;
//! 2 if nothing was done, or for unusable arguments or an unusable configuration.

mod check;
mod export;
mod location;
mod relocate;
mod repair;
mod schema;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Check, repair, export or move the spool, or print the schema of a database
///
/// The spool is the folder in which the queue lies, unless [spool] url names a database. The commands
/// work on its files; the daemon need not run.
#[derive(Debug, Args)]
pub(super) struct SpoolArguments {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// Read all of the spool, and name all damage
    ///
    /// Each page and each row of queue.db, each content and each segment of the log is read, and each
    /// checksum is verified. A line names the place of each damage, its cause and the remedy. Nothing
    /// changes. The daemon may be running; while a large queue.db is read, new mail then stays in the
    /// log.
    Check(check::SpoolCheckArguments),
    /// Make a damaged spool usable: what can be read goes on, the rest is set aside and named
    ///
    /// All pages of a damaged queue.db are read into a new one, and the damaged one is kept in the
    /// folder aside. Damaged parts of the log are copied there, too. The command may be interrupted at
    /// any moment and repeated. The daemon must be stopped, and the command run by the user that it
    /// runs as.
    Repair(repair::SpoolRepairArguments),
    /// Write all that waits to a new folder, in the form that the version before reads
    ///
    /// The new folder is a complete spool of the form of queue.db version 1: every message with its
    /// content and the state of each recipient, the known clock jumps, the downgrade memory, the
    /// policies and the counts for TLS reports. Nothing in the old folder changes. The daemon must be
    /// stopped, and the command run by the user that it runs as.
    Export(export::ExportArguments),
    /// Print the SQL that makes the schema for a queue in a PostgreSQL database
    ///
    /// A relay makes the schema by itself if its role may do so. Where it may not, the owner of the
    /// database runs this SQL once, for instance: gatepost spool schema --role gatepost | psql mail.
    /// The SQL is one transaction. The daemon is not needed, nor is a configuration.
    Schema(schema::SchemaArguments),
    /// Move a waiting queue from the folder into the database, or back
    ///
    /// Each message is durable in its new place before it leaves the old one, keeps its queue id, its age
    /// and its state, and is delivered from one of the two places only. The command may be interrupted at
    /// any moment and repeated. No relay may run on the folder. Relays may run on the database: they
    /// deliver at once what comes; to move out of it, stop them, since what they own stays with them.
    /// Evidence stays where it is.
    Move(relocate::MoveArguments),
}

pub(super) fn run(arguments: &SpoolArguments) -> ExitCode {
    match &arguments.command {
        SpoolCommand::Check(arguments) => check::run(arguments),
        SpoolCommand::Repair(arguments) => repair::run(arguments),
        SpoolCommand::Export(arguments) => export::run(arguments),
        SpoolCommand::Schema(arguments) => schema::run(arguments),
        SpoolCommand::Move(arguments) => relocate::run(arguments),
    }
}
