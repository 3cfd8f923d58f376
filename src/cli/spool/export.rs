//! `gatepost spool export`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::location::{SpoolLocation, fail, with_remedy};
use crate::cli::format::{count, plain, size};
use crate::cli::json;
use crate::cli::output::show;
use crate::storage::spool::{ExportError, SpoolExport, UserRoutedMessage, export};

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// The new folder; it must be missing or empty
    #[arg(value_name = "FOLDER")]
    target: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: SpoolLocation,
}

/// An entry that cannot be read, in JSON.
#[derive(Serialize)]
struct UnreadableDocument<'a> {
    name: &'a str,
    fault: &'a str,
}

/// A message that goes by the connector of a user, in JSON.
#[derive(Serialize)]
struct UserRoutedDocument<'a> {
    id: &'a str,
    connector: &'a str,
}

#[derive(Serialize)]
struct ExportDocument<'a> {
    spool: String,
    folder: String,
    /// The version of `queue.db` in the new folder.
    version: u8,
    messages: u64,
    octets: u64,
    stores: &'a [String],
    unreadable: Vec<UnreadableDocument<'a>>,
    by_users: Vec<UserRoutedDocument<'a>>,
}

pub(super) fn run(arguments: &ExportArguments) -> ExitCode {
    let folder = match arguments.place.find() {
        Ok(folder) => folder,
        Err(status) => return status,
    };
    let exported = match export(&folder, &arguments.target) {
        Ok(exported) => exported,
        Err(ExportError::Source(error)) => return fail(&with_remedy(&error)),
        Err(error @ ExportError::Target { .. }) => return fail(&error.to_string()),
    };
    for entry in &exported.unreadable {
        let line = format!("cannot read {}: {}", entry.name, entry.fault);
        eprintln!("{}", plain(&line));
    }
    for UserRoutedMessage { id, connector } in &exported.by_users {
        let line = format!(
            "not exported: {id} goes by the connector {connector} of the user who sent it; the earlier version would send it another way"
        );
        eprintln!("{}", plain(&line));
    }
    if arguments.json {
        show(&json::indented(&ExportDocument {
            spool: folder.display().to_string(),
            folder: arguments.target.display().to_string(),
            version: 1,
            messages: exported.messages,
            octets: exported.octets,
            stores: &exported.stores,
            unreadable: documents(&exported),
            by_users: user_routed(&exported),
        }));
    } else {
        show(&text(&exported, arguments));
    }
    if exported.unreadable.is_empty() && exported.by_users.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn documents(exported: &SpoolExport) -> Vec<UnreadableDocument<'_>> {
    let unreadable = exported.unreadable.iter();
    let document = unreadable.map(|entry| UnreadableDocument {
        name: &entry.name,
        fault: &entry.fault,
    });
    document.collect()
}

fn user_routed(exported: &SpoolExport) -> Vec<UserRoutedDocument<'_>> {
    let messages = exported.by_users.iter();
    let document = messages.map(|message| UserRoutedDocument {
        id: &message.id,
        connector: &message.connector,
    });
    document.collect()
}

fn text(exported: &SpoolExport, arguments: &ExportArguments) -> String {
    let target = plain(&arguments.target.display().to_string());
    let (messages, octets) = (count(exported.messages, "message"), size(exported.octets));
    let copied = match &exported.stores[..] {
        [] => String::new(),
        stores => format!("copied {}\n", stores.join(", ")),
    };
    let left = match exported.unreadable.len() {
        0 => String::new(),
        faults => format!(
            "NOT COMPLETE: {}; what cannot be read stays in the old folder alone\n",
            count(faults, "fault")
        ),
    };
    let by_users = match exported.by_users.len() {
        0 => String::new(),
        messages => format!(
            "NOT COMPLETE: {} by connectors of users; in the old folder alone: let such mail be delivered, or bounce it, before the export\n",
            count(messages, "message")
        ),
    };
    format!(
        "exported {messages} ({octets}) to {target}, with queue.db in version 1\n{copied}{left}{by_users}\
         mail must be delivered from one of the two folders only: do not start gatepost on both\n"
    )
}
