//! `gatepost evidence archive`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::civil::Date;

use super::location::{EvidenceFolder, EvidenceLocation, fail};
use super::remedy::with_remedy;
use crate::admin::api::evidence::{ClosedDay, EvidenceStatus};
use crate::cli::admin_client::{AdminClient, SocketError};
use crate::cli::format::{count, plain, size};
use crate::cli::json;
use crate::cli::output::show;
use crate::cli::runtime::run_with_daemon;
use crate::storage::evidence::{
    ArchiveError, ArchivedDays, copy_closed_days, copy_days_until, is_in_use, newest_day,
    remove_archived_days,
};

/// The reason why a folder of a running daemon is left alone.
const NEEDS_CONFIG: &str =
    "a running daemon has the folder; run the command with its --config, not with --folder";

#[derive(Debug, Args)]
pub(super) struct ArchiveArguments {
    /// The folder to which the days go; it is created if it is missing
    #[arg(value_name = "FOLDER")]
    archive: PathBuf,
    /// Archive the present day, too; its further records go to the file of the next day
    #[arg(long)]
    today: bool,
    /// Archive days whose chain has defects, as they are
    #[arg(long)]
    damaged: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: EvidenceLocation,
}

/// Copies closed days to the archive, and has them removed here.
pub(super) fn run(arguments: &ArchiveArguments) -> ExitCode {
    let EvidenceFolder {
        path, key, chains, ..
    } = match arguments.place.find() {
        Ok(found) => found,
        Err(status) => return status,
    };
    if chains.is_some() {
        return fail(&ArchiveError::InDatabase.to_string(), 1);
    }
    let until = match closed_day(arguments, &path, key.is_some()) {
        Ok(until) => until,
        Err(status) => return status,
    };
    let copied = match until {
        Some(day) => copy_days_until(&path, &arguments.archive, day, arguments.damaged),
        None => copy_closed_days(&path, &arguments.archive, arguments.damaged),
    };
    let archived = match copied {
        Ok(Some(archived)) => archived,
        Ok(None) => return fail(&nothing_to_archive(&path, arguments.today), 1),
        Err(ArchiveError::Evidence(error)) => {
            return fail(&with_remedy(&error, &path, key.as_ref()), 1);
        }
        Err(error) => return fail(&error.to_string(), 1),
    };
    if !is_in_use(&path) {
        return match remove_archived_days(&path, &archived) {
            Ok(()) => {
                show_archived(&archived, None, arguments.json);
                ExitCode::SUCCESS
            }
            Err(error) => fail(&not_removed(&path, &error.to_string()), 1),
        };
    }
    if key.is_none() {
        return fail(&not_removed(&path, NEEDS_CONFIG), 1);
    }
    run_with_daemon("evidence", &arguments.place.file.config, async |client| {
        order_removal(&client, &archived, arguments.json).await
    })
}

/// Returns the present day, which is closed with `--today`, if it has a record.
fn closed_day(
    arguments: &ArchiveArguments,
    folder: &Path,
    has_config: bool,
) -> Result<Option<Date>, ExitCode> {
    if !arguments.today {
        return Ok(None);
    }
    if !is_in_use(folder) {
        // The removal checks that no daemon has appended to it meanwhile.
        return newest_day(folder).map_err(|error| fail(&with_remedy(&error, folder, None), 1));
    }
    if !has_config {
        return Err(fail(&format!("nothing was archived: {NEEDS_CONFIG}"), 1));
    }
    let mut closed = None;
    let config = &arguments.place.file.config;
    let status = run_with_daemon("evidence", config, async |client: AdminClient| {
        let day: ClosedDay = client.post("/v1/evidence/close-day", &()).await?;
        closed = Some(day);
        Ok::<_, SocketError>(ExitCode::SUCCESS)
    });
    closed.map(|closed| closed.day).ok_or(status)
}

/// Returns the error for a folder without a day that can be archived.
fn nothing_to_archive(folder: &Path, today: bool) -> String {
    let folder = folder.display();
    if today {
        return format!("{folder} has no record; nothing was archived");
    }
    format!(
        "{folder} has no day that is over; nothing was archived (--today archives the present day, too)"
    )
}

/// Returns the error for days that were copied and are still here.
fn not_removed(folder: &Path, why: &str) -> String {
    format!(
        "the days were copied, and stay in {}: {why}",
        folder.display()
    )
}

async fn order_removal(
    client: &AdminClient,
    archived: &ArchivedDays,
    json: bool,
) -> Result<ExitCode, SocketError> {
    let status: Option<EvidenceStatus> = client.post("/v1/evidence/archived", archived).await?;
    show_archived(archived, status.as_ref(), json);
    Ok(ExitCode::SUCCESS)
}

/// Prints the days, and the size of the days that remain if the daemon reports it.
fn show_archived(archived: &ArchivedDays, status: Option<&EvidenceStatus>, json: bool) {
    if json {
        show(&json::line(archived));
        return;
    }
    let archive = plain(&archived.archive.display().to_string());
    let (first, until) = (archived.first, archived.until);
    let remaining = status.map_or_else(String::new, |status| {
        let (octets, max) = (size(status.octets), size(status.max_octets));
        format!("evidence: {octets} of {max} ({} %)\n", status.percent)
    });
    show(&format!(
        "archived {} ({first} to {until}, {}) in {archive}\n{remaining}gatepost evidence verify --archive {archive} \
         verifies all of it\n",
        count(archived.days, "day"),
        size(archived.octets)
    ));
}
