//! `gatepost spool move`.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::location::{fail, with_remedy};
use crate::cli::config_file::ConfigFile;
use crate::cli::format::{count, plain, size};
use crate::cli::json;
use crate::cli::output::{show, show_faults};
use crate::cli::runtime::single_threaded;
use crate::config::{self, Config};
use crate::daemon::published_config;
use crate::policy::adoption::NodeConfig;
use crate::storage::postgresql::{Database, DatabaseAccess};
use crate::storage::spool::{MoveError, QueueMove, move_to_database, move_to_folder};

/// The place of a queue, by its key in the table [spool].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum QueuePlace {
    /// The folder that [spool] path names
    Path,
    /// The database that [spool] url names
    Url,
}

#[derive(Debug, Args)]
pub(super) struct MoveArguments {
    /// The place where the queue is now
    #[arg(long, value_enum)]
    from: QueuePlace,
    /// The place where it is to be
    #[arg(long, value_enum)]
    to: QueuePlace,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// The result of a move in JSON.
#[derive(Serialize)]
struct MoveDocument {
    from: String,
    to: String,
    messages: u64,
    octets: u64,
    /// Messages that stay since living nodes own them.
    owned: u64,
    /// Messages that stay since their node had other rules.
    refused: u64,
    remaining: Vec<RemainingDocument>,
}

/// A message that could not be moved, in JSON.
#[derive(Serialize)]
struct RemainingDocument {
    id: String,
    reason: String,
}

pub(super) fn run(arguments: &MoveArguments) -> ExitCode {
    if arguments.from == arguments.to {
        return fail("--from and --to name the same place; one is path and the other url");
    }
    let (config, _) = match config::read(&arguments.file.config) {
        Ok(read) => read,
        Err(faults) => {
            show_faults(&arguments.file.config, &faults);
            return ExitCode::from(2);
        }
    };
    let access = match DatabaseAccess::load(&config) {
        Ok((Some(access), _)) => access,
        Ok((None, _)) => {
            return fail(&format!(
                "{} has no [spool] url; write it there first, and move the queue before gatepost starts",
                arguments.file.config.display()
            ));
        }
        Err(faults) => {
            show_faults(&arguments.file.config, &faults);
            return ExitCode::from(2);
        }
    };
    let rules = match published_config(&config) {
        Ok(rules) => rules,
        Err(faults) => {
            show_faults(&arguments.file.config, &faults);
            return ExitCode::from(2);
        }
    };
    let runtime = match single_threaded() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let folder = &config.spool.value;
    let moved = runtime.block_on(async {
        let database = access.database().map_err(|error| error.to_string())?;
        let moved = relocate(arguments.to, folder, &database, rules).await;
        moved.map_err(|error| match error {
            MoveError::Folder(error) => with_remedy(&error),
            MoveError::Spool(error) => error.to_string(),
        })
    });
    match moved {
        Ok(moved) => report(arguments, &config, &moved),
        Err(error) => fail(&format!(
            "{error}\nWhat was moved until then stays moved; the same command goes on with the rest"
        )),
    }
}

async fn relocate(
    to: QueuePlace,
    folder: &Path,
    database: &Database,
    rules: NodeConfig,
) -> Result<QueueMove, MoveError> {
    match to {
        QueuePlace::Url => move_to_database(folder, database, rules).await,
        QueuePlace::Path => move_to_folder(database, folder, rules).await,
    }
}

fn report(arguments: &MoveArguments, config: &Config, moved: &QueueMove) -> ExitCode {
    let url = config.database.as_ref();
    let name = |place| match place {
        QueuePlace::Path => config.spool.value.display().to_string(),
        // It has no password.
        QueuePlace::Url => url.map_or_else(String::new, |database| database.url.value.to_string()),
    };
    for (id, reason) in &moved.remaining {
        eprintln!("{}", plain(&format!("not moved: {id}: {reason}")));
    }
    if arguments.json {
        let remaining = moved
            .remaining
            .iter()
            .map(|(id, reason)| RemainingDocument {
                id: id.to_string(),
                reason: reason.clone(),
            });
        show(&json::indented(&MoveDocument {
            from: name(arguments.from),
            to: name(arguments.to),
            messages: moved.messages,
            octets: moved.octets,
            owned: moved.owned,
            refused: moved.refused,
            remaining: remaining.collect(),
        }));
    } else {
        let (messages, octets) = (count(moved.messages, "message"), size(moved.octets));
        show(&format!(
            "moved {messages} ({octets}) to {}\n",
            plain(&name(arguments.to))
        ));
        if moved.refused > 0 {
            show(&format!(
                "NOT COMPLETE: {} of nodes whose connectors are not those of this configuration, which might send them weaker; \
                 run the command with the configuration of their node, or hand them over: gatepost node remove NAME --hand-over\n",
                count(moved.refused, "message")
            ));
        }
        if moved.owned > 0 {
            show(&format!(
                "NOT COMPLETE: {} of running relays; stop these, and run the command again\n",
                count(moved.owned, "message")
            ));
        }
    }
    if moved.remaining.is_empty() && moved.owned == 0 && moved.refused == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
