//! `gatepost evidence`: lists and counts the records of accepted messages and of delivery attempts,
//! verifies that the chain of records is whole, and moves days that are over to another folder.
//!
//! It reads the files, or the database that nodes share, and needs no daemon; only `archive` asks a running one. Exit status: 0; 1 if the chain is not whole, a record
//! cannot be read, or no record matches; 2 for unusable arguments, a connector that does not exist,
//! or an unusable configuration.

mod archive;
mod csv;
mod filter;
mod form;
mod list;
mod location;
mod query;
mod record_csv;
mod remedy;
mod summary;
mod totals;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::format::plain;
use crate::cli::output::show;
use crate::storage::evidence::{EvidenceSource, NodeChain, RecordHash};
use filter::{FilterArguments, RecordFilter};
use form::OutputForm;
use location::{ArchiveFolders, EvidenceFolder, EvidenceLocation, fail};
use query::{EvidenceQuery, QueryError};
use remedy::with_remedy;

/// The age of the records that `summary` counts if no period is given.
const SUMMARY_AGE: Duration = Duration::from_hours(24 * 30);

/// List how mail was accepted and delivered, with its TLS, and verify the records
///
/// Gatepost writes a record of each accepted message and of each recipient in each attempt, each
/// with the hash of the record before it, in the folder that `[evidence] path` names. The commands
/// read that folder or a copy of it, and need no daemon. With `[spool] url`, each node has a chain of
/// its own in the database, and the commands read the chains of all nodes. The output ends with the totals of the
/// selected records and the state of the chain.
#[derive(Debug, Args)]
pub(super) struct EvidenceArguments {
    #[command(subcommand)]
    command: EvidenceCommand,
}

#[derive(Debug, Subcommand)]
enum EvidenceCommand {
    /// List accepted messages, a line for each message, and deliveries, a line for each recipient
    /// and attempt
    ///
    /// If the lines are too wide for the terminal, each record has a block of lines. CSV and JSON
    /// have every field of each record.
    List {
        #[command(flatten)]
        filter: FilterArguments,
        #[command(flatten)]
        form: OutputForm,
        #[command(flatten)]
        place: EvidenceLocation,
        #[command(flatten)]
        archives: ArchiveFolders,
    },
    /// Count deliveries by connector and domain, and accepted messages by connector and listener
    ///
    /// The output also lists the domains that are still served in the clear. Without --since,
    /// --from or --to, records of the last 30 days are counted. CSV has deliveries, and accepted
    /// messages with --direction in.
    Summary {
        #[command(flatten)]
        filter: FilterArguments,
        #[command(flatten)]
        form: OutputForm,
        #[command(flatten)]
        place: EvidenceLocation,
        #[command(flatten)]
        archives: ArchiveFolders,
    },
    /// Verify the chain from its first record to its last, and name every record that was edited,
    /// moved or removed
    ///
    /// The other options select the records of the totals at the end; the entire chain is verified
    /// in any case.
    ///
    /// That the end was not cut off can be proven only with a head that is stored elsewhere: store
    /// the output of --head where nobody who can write the files can change it, and pass it later
    /// with --expect-head.
    Verify {
        /// Print only the hash of the last record, if the chain is whole
        #[arg(long)]
        head: bool,
        /// The hash of a record that must be in the chain; may be given more than once
        #[arg(long, value_name = "HASH", value_parser = hash)]
        expect_head: Vec<RecordHash>,
        /// Print one JSON document
        #[arg(long, conflicts_with = "head")]
        json: bool,
        #[command(flatten)]
        filter: FilterArguments,
        #[command(flatten)]
        place: EvidenceLocation,
        #[command(flatten)]
        archives: ArchiveFolders,
    },
    /// Move the days that are over to another folder, to free space
    ///
    /// Each day is copied, compressed, compared with its copy and synced, and the chain of the
    /// copies is verified; then the days are removed here. The remaining days say in the chain which
    /// record they continue. It works while the daemon runs, and while it does not, and may be
    /// repeated if it was interrupted. A daemon that rejected mail for lack of space accepts it
    /// again.
    ///
    /// If the present day alone fills the disk, --today archives it as well. Its further records go to
    /// the file of the next day, so do not use it every day.
    Archive {
        #[command(flatten)]
        arguments: archive::ArchiveArguments,
    },
}

fn hash(text: &str) -> Result<RecordHash, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    RecordHash::parse(digits).ok_or_else(|| "a hash has 64 hexadecimal digits".to_owned())
}

pub(super) fn run(arguments: &EvidenceArguments) -> ExitCode {
    let (place, archives, filter, default_age) = match &arguments.command {
        EvidenceCommand::List {
            place,
            archives,
            filter,
            ..
        }
        | EvidenceCommand::Verify {
            place,
            archives,
            filter,
            ..
        } => (place, archives, filter, None),
        EvidenceCommand::Summary {
            place,
            archives,
            filter,
            ..
        } => (place, archives, filter, Some(SUMMARY_AGE)),
        EvidenceCommand::Archive { arguments } => return archive::run(arguments),
    };
    let filter = match filter.filter(default_age) {
        Ok(filter) => filter,
        Err(error) => return fail(&error.to_string(), 2),
    };
    let mut found = match place.find() {
        Ok(found) => found,
        Err(status) => return status,
    };
    if let Some(chains) = found.chains.take() {
        return run_on_chains(&arguments.command, (&chains, archives), &filter, &found);
    }
    let source = EvidenceSource {
        folder: &found.path,
        archives: &archives.folders,
        chain: None,
    };
    run_on(&arguments.command, source, &filter, &found)
}

/// Runs a command on the chain of each node, and returns the worst of the results.
fn run_on_chains(
    command: &EvidenceCommand,
    (chains, archives): (&[NodeChain], &ArchiveFolders),
    filter: &RecordFilter<'_>,
    found: &EvidenceFolder,
) -> ExitCode {
    if !archives.folders.is_empty() {
        return fail("--archive: evidence in a database has no archives", 2);
    }
    if chains.is_empty() {
        return fail("there is no evidence in the database", 1);
    }
    if chains.len() > 1 && command.is_for_programs() {
        let names: Vec<_> = chains.iter().map(NodeChain::name).collect();
        let names = names.join(", ");
        return fail(
            &format!("the database has evidence of several nodes; name one with --node: {names}"),
            2,
        );
    }
    let mut worst = ExitCode::SUCCESS;
    for (at, chain) in chains.iter().enumerate() {
        if chains.len() > 1 {
            let space = if at > 0 { "\n" } else { "" };
            show(&format!("{space}node {}:\n", plain(chain.name())));
        }
        let result = run_on(command, chain.into(), filter, found);
        if result != ExitCode::SUCCESS {
            worst = result;
        }
    }
    worst
}

/// Runs a command on one chain.
fn run_on(
    command: &EvidenceCommand,
    source: EvidenceSource<'_>,
    filter: &RecordFilter<'_>,
    found: &EvidenceFolder,
) -> ExitCode {
    let query = EvidenceQuery {
        source,
        filter,
        connectors: found.connectors.as_deref(),
    };
    let result = match command {
        EvidenceCommand::List { form, .. } => list::run(&query, *form),
        EvidenceCommand::Summary { form, .. } => summary::run(&query, *form),
        EvidenceCommand::Verify {
            head,
            expect_head,
            json,
            ..
        } => {
            if *head {
                verify::show_head(query.source, expect_head)
            } else {
                verify::run(&query, expect_head, *json)
            }
        }
        EvidenceCommand::Archive { arguments } => return archive::run(arguments),
    };
    match result {
        Ok(is_success) => status(is_success),
        Err(error @ QueryError::Connector(_)) => fail(&error.to_string(), 2),
        Err(QueryError::Evidence(error)) => {
            fail(&with_remedy(&error, source.folder, found.key.as_ref()), 1)
        }
    }
}

impl EvidenceCommand {
    /// Returns whether the output is read by programs, and so is one document.
    fn is_for_programs(&self) -> bool {
        match self {
            Self::List { form, .. } | Self::Summary { form, .. } => form.json || form.csv,
            // A head is that of one chain, and so is one that is expected.
            Self::Verify {
                head,
                json,
                expect_head,
                ..
            } => *head || *json || !expect_head.is_empty(),
            Self::Archive { arguments: _ } => false,
        }
    }
}

fn status(is_success: bool) -> ExitCode {
    if is_success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
