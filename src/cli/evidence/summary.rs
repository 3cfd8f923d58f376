//! `gatepost evidence summary`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use super::super::queue::words::{plain, short};
use super::{Form, csv, left_out, status};
use crate::address::Host;
use crate::cli::show;
use crate::evidence::{EvidenceError, InClear, Row, Summary, deliveries};

const COLUMNS: [&str; 16] = [
    "connector",
    "domain",
    "delivered",
    "clear",
    "tls",
    "trusted",
    "verified",
    "pinned",
    "dane",
    "exceeded",
    "fallback",
    "refused",
    "deferred",
    "held",
    "bounced",
    "removed",
];

pub(super) fn run(
    folder: &Path,
    domain: Option<&Host>,
    since: Timestamp,
    form: Form,
) -> Result<ExitCode, EvidenceError> {
    let mut summary = Summary::default();
    let domain = domain.map(ToString::to_string);
    let reading = deliveries(folder, Some(since), |_, link, delivery| {
        if domain.as_ref().is_none_or(|domain| *domain == delivery.domain) {
            summary.count(link.time, &delivery);
        }
        true
    })?;
    show(&match form {
        Form { json: true, .. } => json(&summary, since),
        Form { csv: true, .. } => as_csv(&summary),
        Form { .. } => text(&summary, since),
    });
    Ok(status(!left_out(reading, folder)))
}

fn counts(row: &Row) -> [u64; 14] {
    let [clear, tls, trusted, verified, pinned, dane] = row.levels.all();
    let Row { delivered, exceeded, fallback, refused, deferred, held, bounced, removed, levels: _ } = *row;
    [
        delivered, clear, tls, trusted, verified, pinned, dane, exceeded, fallback, refused, deferred, held, bounced,
        removed,
    ]
}

#[derive(Serialize)]
struct Document<'a> {
    since: Timestamp,
    rows: Vec<OneRow<'a>>,
    in_clear: Vec<OneInClear<'a>>,
}

#[derive(Serialize)]
struct OneRow<'a> {
    connector: &'a str,
    domain: &'a str,
    #[serde(flatten)]
    row: &'a Row,
}

#[derive(Serialize)]
struct OneInClear<'a> {
    connector: &'a str,
    domain: &'a str,
    #[serde(flatten)]
    clear: &'a InClear,
}

fn json(summary: &Summary, since: Timestamp) -> String {
    let rows = summary.rows().map(|(connector, domain, row)| OneRow { connector, domain, row }).collect();
    let in_clear = summary.in_clear().map(|(connector, domain, clear)| OneInClear { connector, domain, clear });
    let document = Document { since, rows, in_clear: in_clear.collect() };
    // Our own words always have a form in JSON.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn as_csv(summary: &Summary) -> String {
    let mut text = csv::line(COLUMNS);
    for (connector, domain, row) in summary.rows() {
        let counts = counts(row).map(|count| count.to_string());
        text.push_str(&csv::line([connector, domain].into_iter().chain(counts.iter().map(String::as_str))));
    }
    text
}

fn text(summary: &Summary, since: Timestamp) -> String {
    let day = since.strftime("%Y-%m-%d %H:%M UTC");
    let mut out = String::new();
    let mut table = Table::new();
    let header = [
        "connector",
        "domain",
        "delivered",
        "clear",
        "TLS",
        "trusted",
        "verified",
        "pinned",
        "DANE",
        "exceeded",
        "fell back",
        "refused",
        "deferred",
        "held",
        "bounced",
    ];
    table.load_style(presets::NOTHING).set_header(header);
    let mut is_empty = true;
    for (connector, domain, row) in summary.rows() {
        is_empty = false;
        let [counts @ .., _removed] = counts(row);
        table.add_row([plain(connector), plain(domain)].into_iter().chain(counts.map(|count| count.to_string())));
    }
    if is_empty {
        return format!("no delivery is on record since {day}\n");
    }
    for line in table.lines() {
        out.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        out.push('\n');
    }
    // Writing into a String cannot fail.
    let _ = writeln!(out, "since {day}; each recipient of each attempt counts as one");
    let in_clear: Vec<_> = summary.in_clear().collect();
    if in_clear.is_empty() {
        out.push_str("no domain was served in clear\n");
        return out;
    }
    out.push_str("still served in clear:\n");
    for (connector, domain, InClear { delivered, last, reason }) in in_clear {
        let last = last.strftime("%Y-%m-%d %H:%M");
        let (connector, domain) = (plain(connector), plain(domain));
        let _ = writeln!(out, "    {domain} ({connector}): {delivered}, last {last}: {}", short(reason));
    }
    out
}
