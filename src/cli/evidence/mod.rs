//! `gatepost evidence`: lists and counts the records of accepted messages and of delivery attempts,
//! and verifies that the chain of records is whole.
//!
//! It reads the files and needs no daemon. Exit status: 0; 1 if the chain is not whole, a record
//! cannot be read, or no record matches; 2 for unusable arguments or an unusable configuration.

mod csv;
mod list;
mod summary;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::config_file::ConfigFile;
use super::format::count;
use super::output::show_faults;
use crate::config::{self, EvidencePath};
use crate::smtp::address::Host;
use crate::storage::evidence::{ReadResult, RecordHash};

/// List how mail was accepted and delivered, with its TLS, and verify the records
///
/// Gatepost writes a record of each accepted message and of each recipient in each attempt, each
/// with the hash of the record before it, in the folder that `[evidence] path` names. The commands
/// read that folder or a copy of it, and need no daemon.
#[derive(Debug, Args)]
pub(super) struct EvidenceArguments {
    #[command(subcommand)]
    command: EvidenceCommand,
}

#[derive(Debug, Subcommand)]
enum EvidenceCommand {
    /// List accepted messages, a line for each message, and deliveries, a line for each recipient
    /// and attempt
    List {
        /// Only accepted messages (in), or only deliveries (out)
        #[arg(long, value_name = "DIRECTION")]
        direction: Option<MailDirection>,
        /// Only deliveries to this recipient domain, and messages from this sender domain
        #[arg(long, value_name = "DOMAIN", value_parser = domain)]
        domain: Option<Host>,
        /// Only records of this message
        #[arg(long, value_name = "ID")]
        queue_id: Option<String>,
        /// Only records of this age or younger: 12h, 7d
        #[arg(long, value_name = "AGE", value_parser = age)]
        since: Option<std::time::Duration>,
        #[command(flatten)]
        form: OutputForm,
        #[command(flatten)]
        place: EvidenceLocation,
    },
    /// Count deliveries by connector and domain, and accepted messages by connector and listener
    ///
    /// The output also lists the domains that are still served in the clear.
    Summary {
        /// Only accepted messages (in), or only deliveries (out); CSV has deliveries by default
        #[arg(long, value_name = "DIRECTION")]
        direction: Option<MailDirection>,
        /// Only deliveries to this recipient domain, and messages from this sender domain
        #[arg(long, value_name = "DOMAIN", value_parser = domain)]
        domain: Option<Host>,
        /// Only records of this age or younger: 12h, 30d
        #[arg(long, value_name = "AGE", value_parser = age, default_value = "30d")]
        since: std::time::Duration,
        #[command(flatten)]
        form: OutputForm,
        #[command(flatten)]
        place: EvidenceLocation,
    },
    /// Verify the whole chain, and name every record that was edited, moved or removed
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
        place: EvidenceLocation,
    },
}

/// The direction of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MailDirection {
    /// Accepted messages
    In,
    /// Deliveries
    Out,
}

/// The output format; a table if neither is set.
#[derive(Debug, Clone, Copy, Args)]
struct OutputForm {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Print comma-separated values (RFC 4180)
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// The folder of the evidence.
#[derive(Debug, Args)]
struct EvidenceLocation {
    /// The folder with the files, in place of the one that the configuration names
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
}

fn age(text: &str) -> Result<std::time::Duration, String> {
    config::parse_duration(text).ok_or_else(|| "an age is written as 12h or 30d".to_owned())
}

fn domain(text: &str) -> Result<Host, String> {
    Host::parse(text).map_err(|error| error.to_string())
}

fn hash(text: &str) -> Result<RecordHash, String> {
    RecordHash::parse(text).ok_or_else(|| "a hash has 64 hexadecimal digits".to_owned())
}

impl EvidenceLocation {
    /// Returns the folder.
    ///
    /// # Errors
    /// Exit status 2, after the error has been printed.
    fn folder(&self) -> Result<PathBuf, ExitCode> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        let (config, _) = config::read(&self.file.config).map_err(|faults| {
            show_faults(&self.file.config, &faults);
            ExitCode::from(2)
        })?;
        match config.evidence.path.value {
            EvidencePath::Folder(folder) => Ok(folder),
            EvidencePath::Off => {
                let place = &config.evidence.path.location;
                eprintln!("gatepost evidence: {place}: path is \"\": no evidence is written");
                Err(ExitCode::from(2))
            }
        }
    }
}

pub(super) fn run(arguments: &EvidenceArguments) -> ExitCode {
    let (EvidenceCommand::List { place, .. }
    | EvidenceCommand::Summary { place, .. }
    | EvidenceCommand::Verify { place, .. }) = &arguments.command;
    let folder = match place.folder() {
        Ok(folder) => folder,
        Err(status) => return status,
    };
    let result = match &arguments.command {
        EvidenceCommand::List {
            direction,
            domain,
            queue_id,
            since,
            form,
            ..
        } => {
            let filter = list::RecordFilter {
                direction: *direction,
                domain: domain.as_ref(),
                queue_id: queue_id.as_deref(),
            };
            list::run(&folder, &filter, since.map(ago), *form)
        }
        EvidenceCommand::Summary {
            direction,
            domain,
            since,
            form,
            ..
        } => summary::run(&folder, *direction, domain.as_ref(), ago(*since), *form),
        EvidenceCommand::Verify {
            head,
            expect_head,
            json,
            ..
        } => verify::run(&folder, *head, expect_head, *json),
    };
    result.unwrap_or_else(|error| {
        eprintln!("gatepost evidence: {error}");
        ExitCode::FAILURE
    })
}

/// Returns the time that is this long ago.
fn ago(age: std::time::Duration) -> Timestamp {
    Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN)
}

/// Prints an error if damaged lines were left out. Returns true in that case: the output is
/// incomplete then.
fn has_damaged_lines(reading: ReadResult, folder: &Path) -> bool {
    if reading.bad > 0 {
        eprintln!(
            "gatepost evidence: {} left out; see gatepost evidence verify --folder {}",
            count(reading.bad, "damaged line"),
            folder.display()
        );
    }
    reading.bad > 0
}

fn status(is_success: bool) -> ExitCode {
    if is_success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
