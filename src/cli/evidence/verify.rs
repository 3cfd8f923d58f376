//! `gatepost evidence verify`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::super::queue::words::plain;
use super::status;
use crate::cli::show;
use crate::evidence::{Beginning, EvidenceError, Link, RecordHash, Verified, verify};

pub(super) fn run(folder: &Path, head: bool, heads: &[RecordHash], json: bool) -> Result<ExitCode, EvidenceError> {
    let verified = verify(folder, heads)?;
    let is_whole = verified.findings.is_empty() && verified.last.is_some();
    if json {
        show(&as_json(&verified, is_whole));
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
        Some(_) if head => eprintln!("the chain is not whole, so its head is worth nothing"),
        Some(last) => show(&text(&verified, last, heads, is_whole)),
    }
    Ok(status(is_whole))
}

fn text(verified: &Verified, last: &Link, heads: &[RecordHash], is_whole: bool) -> String {
    let Verified { files, records, .. } = verified;
    let verdict = if is_whole { "whole" } else { "NOT WHOLE" };
    let first = verified.first.as_ref().map_or(0, |first| first.seq);
    let since = verified.first.as_ref().map_or(last.time, |first| first.time).strftime("%Y-%m-%d %H:%M:%S UTC");
    let until = last.time.strftime("%Y-%m-%d %H:%M:%S UTC");
    let files = if *files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    let mut out = format!(
        "the chain is {verdict}: {records} records in {files}, number {first} of {since} to number {} of {until}\n",
        last.seq
    );
    match verified.beginning {
        Beginning::Nothing | Beginning::First | Beginning::Unexplained => {}
        Beginning::Kept { dropped } => {
            // Writing into a String cannot fail.
            let _ = writeln!(out, "the {dropped} records before were dropped as too old, which is on record");
        }
    }
    if verified.is_growing {
        out.push_str("the daemon is writing one more at this moment\n");
    }
    let _ = writeln!(out, "head: {}", last.hash);
    if heads.is_empty() {
        out.push_str(
            "that its end was not cut off, nor all of it written anew, is proven only by a head that was kept elsewhere \
             (--expect-head)\n",
        );
    } else if is_whole {
        if let Some(hash) = verified.dropped_head {
            let _ =
                writeln!(out, "{hash} is the last record that was dropped as too old: the chain goes on from there");
        }
        if heads.iter().any(|head| Some(*head) != verified.dropped_head) {
            out.push_str("what was kept elsewhere is in it: up to there nothing was cut off or written anew\n");
        }
    }
    out
}

fn as_json(verified: &Verified, is_whole: bool) -> String {
    let link = |link: &Link| json!({ "seq": link.seq, "time": link.time, "hash": link.hash });
    let dropped = match verified.beginning {
        Beginning::Kept { dropped } => Some(dropped),
        Beginning::First => Some(0),
        Beginning::Nothing | Beginning::Unexplained => None,
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
    format!("{document:#}\n")
}
