//! `gatepost evidence verify`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::super::format::{count, plain, time};
use super::status;
use crate::cli::json;
use crate::cli::output::show;
use crate::storage::evidence::{ChainStart, EvidenceError, Link, RecordHash, Verification, verify};

/// Verifies the chain and prints the result. With `head`, only the hash of the last record is
/// printed. `heads` are hashes that must be in the chain.
pub(super) fn run(
    folder: &Path,
    head: bool,
    heads: &[RecordHash],
    json: bool,
) -> Result<ExitCode, EvidenceError> {
    let verified = verify(folder, heads)?;
    let is_whole = verified.findings.is_empty() && verified.last.is_some();
    if json {
        show(&document(&verified, is_whole));
        return Ok(status(is_whole));
    }
    for finding in &verified.findings {
        eprintln!("{}", plain(&finding.to_string()));
    }
    if verified.more > 0 {
        eprintln!("and {} more", verified.more);
    }
    match &verified.last {
        None => eprintln!("there is no evidence in {}", folder.display()),
        Some(last) if head && is_whole => show(&format!("{}\n", last.hash)),
        Some(_) if head => eprintln!("the chain is not whole, so its head proves nothing"),
        Some(last) => show(&text(&verified, last, heads, is_whole)),
    }
    Ok(status(is_whole))
}

fn text(verified: &Verification, last: &Link, heads: &[RecordHash], is_whole: bool) -> String {
    let Verification { files, records, .. } = verified;
    let verdict = if is_whole { "whole" } else { "NOT WHOLE" };
    let first = verified.first.as_ref().map_or(0, |first| first.seq);
    let since = time(
        verified
            .first
            .as_ref()
            .map_or(last.time, |first| first.time),
    );
    let (last_seq, until) = (last.seq, time(last.time));
    let (records, files) = (count(*records, "record"), count(*files, "file"));
    let mut out = format!(
        "the chain is {verdict}: {records} in {files}, number {first} of {since} to number {last_seq} of {until}\n"
    );
    // Writing into a String cannot fail.
    match verified.beginning {
        ChainStart::Empty | ChainStart::First | ChainStart::Unexplained => {}
        ChainStart::Expired { dropped } => {
            let before = count(dropped, "older record");
            let _ = writeln!(
                out,
                "{before} expired and were dropped, as a record of it says"
            );
        }
    }
    if verified.is_growing {
        out.push_str("the daemon is writing another record at this moment\n");
    }
    let _ = writeln!(out, "head: {}", last.hash);
    if heads.is_empty() {
        out.push_str(
            "only a head that is stored elsewhere (--expect-head) proves that the end was not cut off and that the chain \
             was not rewritten\n",
        );
    } else if is_whole {
        if let Some(hash) = verified.dropped_head {
            let _ = writeln!(
                out,
                "{hash} is the last record that expired and was dropped: the chain continues it"
            );
        }
        if heads
            .iter()
            .any(|head| Some(*head) != verified.dropped_head)
        {
            out.push_str(
                "the expected heads are in the chain: up to the last of them nothing was cut off or rewritten\n",
            );
        }
    }
    out
}

fn document(verified: &Verification, is_whole: bool) -> String {
    use serde_json::json;
    let link = |link: &Link| json!({ "seq": link.seq, "time": link.time, "hash": link.hash });
    let dropped = match verified.beginning {
        ChainStart::Expired { dropped } => Some(dropped),
        ChainStart::First => Some(0),
        ChainStart::Empty | ChainStart::Unexplained => None,
    };
    let findings = verified.findings.iter().map(|finding| {
        json!({ "file": finding.file.display().to_string(), "line": finding.line, "found": finding.found.to_string() })
    });
    let document = json!({
        "whole": is_whole,
        "files": verified.files,
        "records": verified.records,
        "first": verified.first.as_ref().map(link),
        "head": verified.last.as_ref().map(link),
        "dropped": dropped,
        "findings": findings.collect::<Vec<_>>(),
        "more_findings": verified.more,
    });
    json::indented(&document)
}
