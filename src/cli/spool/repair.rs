//! `gatepost spool repair`.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::check::{SpoolCheckDocument, show_findings, summary};
use super::location::{SpoolLocation, fail, with_remedy};
use crate::cli::format::{plain, width};
use crate::cli::json;
use crate::cli::output::show;
use crate::storage::spool::{OfflineError, SpoolRepair, plan_repair, repair_spool};

#[derive(Debug, Args)]
pub(super) struct SpoolRepairArguments {
    /// Show what would be repaired, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: SpoolLocation,
}

/// A repair in JSON.
#[derive(Serialize)]
struct SpoolRepairDocument<'a> {
    found: SpoolCheckDocument<'a>,
    /// The damaged database, if a new one was made.
    kept: Option<String>,
    /// The messages that had been set aside and are in the queue again.
    restored: Vec<String>,
    lost: &'a [String],
    remaining: SpoolCheckDocument<'a>,
}

pub(super) fn run(arguments: &SpoolRepairArguments) -> ExitCode {
    let folder = match arguments.place.find() {
        Ok(folder) => folder,
        Err(status) => return status,
    };
    let repaired = if arguments.dry_run {
        plan(&folder, arguments.json)
    } else {
        repair(&folder, arguments.json)
    };
    repaired.unwrap_or_else(|error| fail(&with_remedy(&error)))
}

fn plan(folder: &Path, json: bool) -> Result<ExitCode, OfflineError> {
    let found = plan_repair(folder)?;
    if json {
        show(&json::indented(&SpoolCheckDocument::of(folder, &found)));
    } else {
        show_findings(&found);
        show(&summary(&found, width()));
        if found.needs_repair() {
            show(
                "a repair would read all pages of queue.db into a new one, and keep the old one in aside/\n",
            );
        }
    }
    Ok(if found.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn repair(folder: &Path, json: bool) -> Result<ExitCode, OfflineError> {
    let done = repair_spool(folder)?;
    if json {
        show(&json::indented(&SpoolRepairDocument {
            found: SpoolCheckDocument::of(folder, &done.found),
            kept: done.kept.as_ref().map(|kept| kept.display().to_string()),
            restored: done.restored.iter().map(ToString::to_string).collect(),
            lost: &done.lost,
            remaining: SpoolCheckDocument::of(folder, &done.remaining),
        }));
    } else {
        show(&text(&done));
        show_findings(&done.remaining);
        show(&summary(&done.remaining, width()));
    }
    Ok(
        if done.lost.is_empty() && done.remaining.findings.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        },
    )
}

fn text(done: &SpoolRepair) -> String {
    let found = done.found.findings.iter();
    let mut lines: Vec<_> = found
        .map(|finding| format!("found {}: {}", finding.place, finding.cause))
        .chain(done.lost.iter().map(|line| format!("lost {line}")))
        .map(|line| plain(&line))
        .collect();
    match &done.kept {
        Some(kept) => {
            let kept = plain(&kept.display().to_string());
            lines.push(format!("queue.db was made anew; the damaged one is {kept}"));
        }
        None if done.found.findings.is_empty() => {
            lines.push("nothing to repair".to_owned());
        }
        None => {}
    }
    for id in &done.restored {
        lines.push(format!("{id}: it was set aside, and is in the queue again"));
    }
    lines.push(String::new());
    lines.join("\n")
}
