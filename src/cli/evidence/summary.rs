//! `gatepost evidence summary`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use super::super::queue::words::{plain, short};
use super::{Direction, Form, csv, left_out, status};
use crate::address::Host;
use crate::cli::show;
use crate::evidence::{CameIn, EvidenceError, ExceptionHeld, InClear, Levels, Record, Row, Summary, records};

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

const COLUMNS_IN: [&str; 9] =
    ["connector", "listener", "messages", "clear", "tls", "trusted", "verified", "pinned", "dane"];

pub(super) fn run(
    folder: &Path,
    direction: Option<Direction>,
    domain: Option<&Host>,
    since: Timestamp,
    form: Form,
) -> Result<ExitCode, EvidenceError> {
    let mut summary = Summary::default();
    let domain = domain.map(ToString::to_string);
    let is_asked_for = |other: &str| domain.as_ref().is_none_or(|domain| domain == other);
    let reading = records(folder, Some(since), |_, link, record| {
        match record {
            Record::In(acceptance) if direction != Some(Direction::Out) && is_asked_for(&acceptance.domain) => {
                summary.count_in(&acceptance);
            }
            Record::Out(delivery) if direction != Some(Direction::In) && is_asked_for(&delivery.domain) => {
                summary.count(link.time, &delivery);
            }
            Record::In(_) | Record::Out(_) => {}
        }
        true
    })?;
    show(&match (form, direction) {
        (Form { json: true, .. }, _) => json(&summary, since),
        (Form { csv: true, .. }, Some(Direction::In)) => came_in_as_csv(&summary),
        (Form { csv: true, .. }, _) => as_csv(&summary),
        (Form { .. }, Some(Direction::In)) => came_in_as_text(&summary, since),
        (Form { .. }, Some(Direction::Out)) => text(&summary, since),
        (Form { .. }, None) => text(&summary, since) + &came_in_as_text(&summary, since),
    });
    let found = summary.rows().next().is_some() || summary.came_in().next().is_some();
    Ok(status(!left_out(reading, folder) && found))
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
    /// The domains whose last delivery was in the clear.
    in_clear: Vec<OneInClear<'a>>,
    /// The domains that were served in the clear before, and are served under TLS now.
    in_clear_before: Vec<OneInClear<'a>>,
    accepted: Vec<OneCameIn<'a>>,
}

#[derive(Serialize)]
struct OneCameIn<'a> {
    connector: &'a str,
    listener: &'a str,
    #[serde(flatten)]
    counts: &'a CameIn,
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
    let one = |(connector, domain, clear)| OneInClear { connector, domain, clear };
    let (in_clear, in_clear_before) =
        (summary.in_clear().map(one).collect(), summary.in_clear_before().map(one).collect());
    let accepted = summary.came_in().map(|(connector, listener, counts)| OneCameIn { connector, listener, counts });
    let document = Document { since, rows, in_clear, in_clear_before, accepted: accepted.collect() };
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

fn of_levels(messages: u64, levels: Levels) -> [String; 7] {
    let [clear, tls, trusted, verified, pinned, dane] = levels.all();
    [messages, clear, tls, trusted, verified, pinned, dane].map(|count| count.to_string())
}

fn came_in_as_csv(summary: &Summary) -> String {
    let mut text = csv::line(COLUMNS_IN);
    for (connector, listener, counts) in summary.came_in() {
        let cells = of_levels(counts.messages, counts.levels);
        text.push_str(&csv::line([connector, listener].into_iter().chain(cells.iter().map(String::as_str))));
    }
    text
}

fn came_in_as_text(summary: &Summary, since: Timestamp) -> String {
    let day = since.strftime("%Y-%m-%d %H:%M UTC");
    let mut table = Table::new();
    let header = ["connector", "listener", "accepted", "clear", "TLS", "trusted", "verified", "pinned", "DANE"];
    table.load_style(presets::NOTHING).set_header(header);
    for (connector, listener, counts) in summary.came_in() {
        let cells = of_levels(counts.messages, counts.levels);
        table.add_row([plain(connector), plain(listener)].into_iter().chain(cells));
    }
    if table.is_empty() {
        return format!("no message that came in is on record since {day}\n");
    }
    lines(&table) + &format!("since {day}; each message that came in counts as one\n")
}

fn lines(table: &Table) -> String {
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned() + "\n").collect()
}

fn text(summary: &Summary, since: Timestamp) -> String {
    let day = since.strftime("%Y-%m-%d %H:%M UTC");
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
    let mut out = lines(&table);
    // Writing into a String cannot fail.
    let _ = writeln!(out, "since {day}; each recipient of each attempt counts as one");
    let (still, before): (Vec<_>, Vec<_>) = (summary.in_clear().collect(), summary.in_clear_before().collect());
    if still.is_empty() {
        let no_longer = if before.is_empty() { "no domain was" } else { "no domain is still" };
        let _ = writeln!(out, "{no_longer} served in the clear");
    } else {
        out.push_str("still served in the clear:\n");
        out.extend(still.into_iter().map(in_clear));
    }
    if !before.is_empty() {
        out.push_str("served in the clear before, and under TLS now:\n");
        out.extend(before.into_iter().map(in_clear));
    }
    out
}

/// A line for a domain that was served in the clear.
fn in_clear((connector, domain, clear): (&str, &str, &InClear)) -> String {
    let time = |at: &Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
    let InClear { delivered, last, reason, exception, tls_since, .. } = clear;
    let (connector, domain) = (plain(connector), plain(domain));
    let mut line = format!("    {domain} ({connector}): {delivered}, last {}: {}", time(last), short(reason));
    if let Some(ExceptionHeld { until, reason }) = exception {
        let _ = write!(line, "; allowed by the exception until {} ({})", plain(until), short(reason));
    }
    if let Some(since) = tls_since {
        let _ = write!(line, "; TLS since {}", time(since));
    }
    line + "\n"
}
