//! `gatepost spool check`.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::location::{SpoolLocation, fail, with_remedy};
use crate::cli::format::{INDENT, count, plain, size, width, wrap};
use crate::cli::json;
use crate::cli::output::show;
use crate::storage::spool::{SpoolCheck, SpoolFinding, check_spool};

#[derive(Debug, Args)]
pub(super) struct SpoolCheckArguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: SpoolLocation,
}

/// Damage in JSON.
#[derive(Serialize)]
struct SpoolFindingDocument<'a> {
    place: &'a str,
    cause: &'a str,
    remedy: String,
}

/// The state of a spool in JSON.
#[derive(Serialize)]
pub(super) struct SpoolCheckDocument<'a> {
    spool: String,
    sound: bool,
    /// True if a relay ran on the spool.
    in_use: bool,
    messages: u64,
    octets: u64,
    segments: u64,
    torn_octets: u64,
    findings: Vec<SpoolFindingDocument<'a>>,
    aside: &'a [String],
}

impl<'a> SpoolCheckDocument<'a> {
    /// Returns the document of a check.
    pub(super) fn of(folder: &Path, found: &'a SpoolCheck) -> Self {
        let findings = found.findings.iter().map(|finding| SpoolFindingDocument {
            place: &finding.place,
            cause: &finding.cause,
            remedy: finding.remedy.to_string(),
        });
        Self {
            spool: folder.display().to_string(),
            sound: found.findings.is_empty(),
            in_use: found.is_in_use,
            messages: found.messages,
            octets: found.octets,
            segments: found.segments,
            torn_octets: found.torn,
            findings: findings.collect(),
            aside: &found.aside,
        }
    }
}

pub(super) fn run(arguments: &SpoolCheckArguments) -> ExitCode {
    let folder = match arguments.place.find() {
        Ok(folder) => folder,
        Err(status) => return status,
    };
    let found = match check_spool(&folder) {
        Ok(found) => found,
        Err(error) => return fail(&with_remedy(&error)),
    };
    if arguments.json {
        show(&json::indented(&SpoolCheckDocument::of(&folder, &found)));
    } else {
        show_findings(&found);
        show(&summary(&found, width()));
    }
    if found.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints a line for each finding.
pub(super) fn show_findings(found: &SpoolCheck) {
    for SpoolFinding {
        place,
        cause,
        remedy,
    } in &found.findings
    {
        show(&format!(
            "{}\n",
            plain(&format!("{place}: {cause}; {remedy}"))
        ));
    }
}

/// Returns the state of a spool, for a terminal with `width` columns.
pub(super) fn summary(found: &SpoolCheck, width: usize) -> String {
    let mut out = String::new();
    let mut add = |line: &str| wrap(&mut out, "", INDENT, line, width);
    let verdict = match found.findings.len() {
        0 => "the spool is sound".to_owned(),
        findings => format!("the spool is NOT SOUND: {}", count(findings, "finding")),
    };
    let (messages, octets) = (count(found.messages, "message"), size(found.octets));
    let segments = count(found.segments, "segment");
    add(&format!(
        "{verdict}; {messages} ({octets}) can be read, {segments} in its log"
    ));
    if found.torn > 0 {
        let torn = count(found.torn, "octet");
        add(&format!(
            "{torn} at the end of the log are of a batch that a crash interrupted; nobody got a receipt for it"
        ));
    }
    if found.is_in_use {
        add("gatepost runs on it and may change it at this moment");
    }
    if !found.aside.is_empty() {
        let aside = plain(&found.aside.join(", "));
        add(&format!("set aside earlier, in aside/: {aside}"));
    }
    out
}
