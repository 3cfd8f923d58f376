//! `gatepost evidence`: how each message came in, what became of each delivery, and whether the record of it is whole.
//!
//! It reads the files and needs no daemon. Exit status: 0; 1 where the chain is not whole, a record cannot be
//! read, or nothing was found to list or to count; 2 where arguments or configuration cannot be used.

mod csv;
mod list;
mod summary;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::{ConfigFile, show_faults};
use crate::address::Host;
use crate::config::{self, EvidencePath};
use crate::evidence::{Reading, RecordHash};

/// See how mail came in, what became of each delivery and under which TLS, and prove that the record is whole
///
/// Gatepost keeps a record of each message that comes in and of each recipient in each attempt, each with the hash of
/// the one before, in the folder that `[evidence] path` names. The commands read that folder, or a copy of it; they need no daemon.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what came in, one line for each message, and deliveries, one line for each recipient and attempt
    List {
        /// Only messages that came in, or only deliveries
        #[arg(long, value_name = "DIRECTION")]
        direction: Option<Direction>,
        /// Only deliveries to this recipient domain, and messages from this sender domain
        #[arg(long, value_name = "DOMAIN", value_parser = domain)]
        domain: Option<Host>,
        /// Only of this message
        #[arg(long, value_name = "ID")]
        queue_id: Option<String>,
        /// Only so far back: 12h, 7d
        #[arg(long, value_name = "AGE", value_parser = age)]
        since: Option<std::time::Duration>,
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        place: Place,
    },
    /// Count deliveries by connector and domain, and messages that came in by connector and listener
    ///
    /// It lists the domains still served in the clear as well.
    Summary {
        /// Only messages that came in, or only deliveries; as CSV, deliveries without this
        #[arg(long, value_name = "DIRECTION")]
        direction: Option<Direction>,
        /// Only deliveries to this recipient domain, and messages from this sender domain
        #[arg(long, value_name = "DOMAIN", value_parser = domain)]
        domain: Option<Host>,
        /// So far back: 12h, 30d
        #[arg(long, value_name = "AGE", value_parser = age, default_value = "30d")]
        since: std::time::Duration,
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        place: Place,
    },
    /// Read the whole chain and name every record that was edited, cut out, moved or is missing
    ///
    /// Only a head that was kept elsewhere can prove that the end was not cut off: write down what --head prints,
    /// out of reach of whoever can write the files, and give it back later with --expect-head.
    Verify {
        /// Print the hash of the last record, and nothing else, where the chain is whole
        #[arg(long)]
        head: bool,
        /// The hash of a record that must be in the chain; may be given more than once
        #[arg(long, value_name = "HASH", value_parser = hash)]
        expect_head: Vec<RecordHash>,
        /// Answer with one JSON document
        #[arg(long, conflicts_with = "head")]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

/// The way of a message through us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    /// It came in.
    In,
    /// It was to be delivered.
    Out,
}

/// How the answer looks; a table without these.
#[derive(Debug, Clone, Copy, Args)]
struct Form {
    /// Answer with one JSON document
    #[arg(long)]
    json: bool,
    /// Answer with comma-separated values (RFC 4180)
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// Where the files are.
#[derive(Debug, Args)]
struct Place {
    /// The folder with the files, instead of the one that the configuration names
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

impl Place {
    fn folder(&self) -> Result<PathBuf, ExitCode> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        let (config, _) = config::read(&self.file.config).map_err(|faults| {
            show_faults(&faults);
            ExitCode::from(2)
        })?;
        match config.evidence.path.value {
            EvidencePath::Folder(folder) => Ok(folder),
            EvidencePath::Off => {
                eprintln!("gatepost evidence: {}: path is \"\": no evidence is kept", config.evidence.path.location);
                Err(ExitCode::from(2))
            }
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (Command::List { place, .. } | Command::Summary { place, .. } | Command::Verify { place, .. }) =
        &arguments.command;
    let folder = match place.folder() {
        Ok(folder) => folder,
        Err(status) => return status,
    };
    let done = match &arguments.command {
        Command::List { direction, domain, queue_id, since, form, .. } => {
            let wanted = list::Wanted { direction: *direction, domain: domain.as_ref(), queue_id: queue_id.as_deref() };
            list::run(&folder, &wanted, since.map(ago), *form)
        }
        Command::Summary { direction, domain, since, form, .. } => {
            summary::run(&folder, *direction, domain.as_ref(), ago(*since), *form)
        }
        Command::Verify { head, expect_head, json, .. } => verify::run(&folder, *head, expect_head, *json),
    };
    done.unwrap_or_else(|error| {
        eprintln!("gatepost evidence: {error}");
        ExitCode::FAILURE
    })
}

fn ago(age: std::time::Duration) -> Timestamp {
    Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN)
}

/// Says what was left out; then the answer is not whole, and neither is the exit status.
fn left_out(reading: Reading, folder: &Path) -> bool {
    if reading.bad > 0 {
        let lines = if reading.bad == 1 { "1 line is".to_owned() } else { format!("{} lines are", reading.bad) };
        eprintln!(
            "gatepost evidence: {lines} not as written and left out; gatepost evidence verify --folder {} names them",
            folder.display()
        );
    }
    reading.bad > 0
}

fn status(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
