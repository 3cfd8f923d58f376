//! `gatepost evidence archive`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::location::{EvidenceFolder, EvidenceLocation, fail};
use super::remedy::with_remedy;
use crate::admin::api::evidence::EvidenceStatus;
use crate::cli::admin_client::{AdminClient, SocketError};
use crate::cli::format::{count, plain, size};
use crate::cli::json;
use crate::cli::output::show;
use crate::cli::runtime::run_with_daemon;
use crate::storage::evidence::{
    ArchiveError, ArchivedDays, copy_closed_days, is_in_use, remove_archived_days,
};

#[derive(Debug, Args)]
pub(super) struct ArchiveArguments {
    /// The folder to which the days go; it is created if it is missing
    #[arg(value_name = "FOLDER")]
    archive: PathBuf,
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
    let EvidenceFolder { path, key, .. } = match arguments.place.find() {
        Ok(found) => found,
        Err(status) => return status,
    };
    let archived = match copy_closed_days(&path, &arguments.archive, arguments.damaged) {
        Ok(Some(archived)) => archived,
        Ok(None) => {
            let folder = path.display();
            return fail(
                &format!("{folder} has no day that is over; nothing was archived"),
                1,
            );
        }
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
        let why =
            "a running daemon has the folder; run the command with its --config, not with --folder";
        return fail(&not_removed(&path, why), 1);
    }
    run_with_daemon("evidence", &arguments.place.file.config, async |client| {
        order_removal(&client, &archived, arguments.json).await
    })
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
