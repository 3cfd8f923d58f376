//! `gatepost evidence verify`.

use jiff::Timestamp;
use serde::Serialize;

use super::query::{EvidenceQuery, QueryError, QueryResult, is_whole};
use super::totals::closing_lines;
use crate::cli::format::{INDENT, count, plain, time, width, wrap};
use crate::cli::json;
use crate::cli::output::show;
use crate::storage::evidence::{
    ChainStart, EvidenceSource, Link, RecordHash, Totals, Verification, verify,
};

/// Verifies the chain and prints the result, with the totals of the selected records. `heads` are
/// hashes that must be in the chain. Returns whether the chain is whole and records were found, if
/// any were selected.
pub(super) fn run(
    query: &EvidenceQuery<'_>,
    heads: &[RecordHash],
    json: bool,
) -> Result<bool, QueryError> {
    let result = query.verify(heads)?;
    let chain = &result.chain;
    let is_whole = is_whole(chain);
    let is_success = is_whole && (query.filter.text().is_none() || !result.totals.is_empty());
    if json {
        show(&document(&result));
        return Ok(is_success);
    }
    show_findings(chain);
    match &chain.last {
        None => eprintln!("there is no evidence in {}", query.source.folder.display()),
        Some(last) => show(&text(chain, last, heads, width())),
    }
    if !result.totals.is_empty() {
        show(&closing_lines(query.filter, &result, width()));
    } else if chain.last.is_some() && query.filter.text().is_some() {
        show(&query.nothing_found(chain, width())?);
    }
    Ok(is_success)
}

/// Verifies the chain and prints the hash of its last record. Returns whether the chain is whole.
pub(super) fn show_head(
    source: EvidenceSource<'_>,
    heads: &[RecordHash],
) -> Result<bool, QueryError> {
    let chain = verify(source, heads)?;
    let is_whole = is_whole(&chain);
    show_findings(&chain);
    match &chain.last {
        None => eprintln!("there is no evidence in {}", source.folder.display()),
        Some(last) if is_whole => show(&format!("{}\n", last.hash)),
        Some(_) => eprintln!("the chain is not whole, so its head proves nothing"),
    }
    Ok(is_whole)
}

fn show_findings(chain: &Verification) {
    for finding in &chain.findings {
        eprintln!("{}", plain(&finding.to_string()));
    }
    if chain.more > 0 {
        eprintln!("and {} more", chain.more);
    }
}

/// Returns the result of the verification of a chain with a last record, for a terminal with
/// `width` columns.
fn text(verified: &Verification, last: &Link, heads: &[RecordHash], width: usize) -> String {
    let mut out = String::new();
    let mut add = |indent: &str, line: &str| wrap(&mut out, indent, INDENT, line, width);
    let is_whole = is_whole(verified);
    let verdict = if is_whole { "whole" } else { "NOT WHOLE" };
    let (records, files) = (
        count(verified.records, "record"),
        count(verified.files, "file"),
    );
    add(
        "",
        &format!("the chain is {verdict}: {records} in {files},"),
    );
    let first = verified.first.as_ref().map_or(0, |first| first.seq);
    let since = verified
        .first
        .as_ref()
        .map_or(last.time, |first| first.time);
    let (since, until) = (time(since), time(last.time));
    add(
        INDENT,
        &format!(
            "number {first} of {since} to number {} of {until}",
            last.seq
        ),
    );
    match verified.beginning {
        ChainStart::Empty | ChainStart::First | ChainStart::NotRead | ChainStart::Unexplained => {}
        ChainStart::Expired { dropped } => {
            let before = count(dropped, "older record");
            add(
                "",
                &format!("{before} expired and were dropped, as a record of it says"),
            );
        }
        ChainStart::Archived { archived } => {
            let before = count(archived, "older record");
            add(
                "",
                &format!(
                    "{before} were archived, as a record of it says; --archive DIR verifies them, too"
                ),
            );
        }
    }
    if verified.is_growing {
        add("", "the daemon is writing another record at this moment");
    }
    if !is_whole {
        add(
            "",
            "copy the evidence before anything else, and compare it with the last backup and with the last head that was \
             stored elsewhere",
        );
        return out;
    }
    add_head(&mut out, verified, (last, heads), width);
    out
}

/// Appends the head of a chain that is whole, and what it proves with the heads that were stored
/// elsewhere.
fn add_head(
    out: &mut String,
    verified: &Verification,
    (last, heads): (&Link, &[RecordHash]),
    width: usize,
) {
    let mut add = |line: &str| wrap(out, "", INDENT, line, width);
    add(&format!("head: {}", last.hash));
    if heads.is_empty() {
        add(
            "only a head that is stored elsewhere (--expect-head) proves that the end was not cut off and that the \
             chain was not rewritten",
        );
    }
    if let Some(hash) = verified.dropped_head {
        add(&format!(
            "{hash} is the last record that expired and was dropped: the chain continues it"
        ));
    }
    if heads
        .iter()
        .any(|head| Some(*head) != verified.dropped_head)
    {
        add(
            "the expected heads are in the chain: up to the last of them nothing was cut off or rewritten",
        );
    }
}

/// A record in the chain.
#[derive(Serialize)]
struct LinkDocument<'a> {
    seq: u64,
    time: Timestamp,
    hash: &'a RecordHash,
}

/// The state of the chain in JSON.
#[derive(Serialize)]
pub(super) struct ChainDocument<'a> {
    whole: bool,
    /// The first record that was verified.
    first: Option<LinkDocument<'a>>,
    /// The last record.
    head: Option<LinkDocument<'a>>,
}

/// A defect of the chain in JSON.
#[derive(Serialize)]
struct FindingDocument {
    file: String,
    line: u64,
    found: String,
}

#[derive(Serialize)]
struct VerificationDocument<'a> {
    #[serde(flatten)]
    chain: ChainDocument<'a>,
    files: u64,
    records: u64,
    dropped: Option<u64>,
    /// True if the older records were archived.
    archived: bool,
    findings: Vec<FindingDocument>,
    more_findings: u64,
    totals: &'a Totals,
}

impl<'a> ChainDocument<'a> {
    /// Returns the document of a verification.
    pub(super) fn of(chain: &'a Verification) -> Self {
        let link = |link: &'a Link| LinkDocument {
            seq: link.seq,
            time: link.time,
            hash: &link.hash,
        };
        Self {
            whole: is_whole(chain),
            first: chain.first.as_ref().map(link),
            head: chain.last.as_ref().map(link),
        }
    }
}

fn document(result: &QueryResult) -> String {
    let chain = &result.chain;
    let dropped = match chain.beginning {
        ChainStart::Expired { dropped } | ChainStart::Archived { archived: dropped } => {
            Some(dropped)
        }
        ChainStart::First => Some(0),
        ChainStart::Empty | ChainStart::NotRead | ChainStart::Unexplained => None,
    };
    let findings = chain.findings.iter().map(|finding| FindingDocument {
        file: finding.file.display().to_string(),
        line: finding.line,
        found: finding.found.to_string(),
    });
    json::indented(&VerificationDocument {
        chain: ChainDocument::of(chain),
        files: chain.files,
        records: chain.records,
        dropped,
        archived: matches!(chain.beginning, ChainStart::Archived { .. }),
        findings: findings.collect(),
        more_findings: chain.more,
        totals: &result.totals,
    })
}
