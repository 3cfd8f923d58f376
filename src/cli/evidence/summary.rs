//! `gatepost evidence summary`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;

use super::super::format::{frameless_table, plain, short, table_lines};
use super::{MailDirection, OutputForm, csv, has_damaged_lines, status};
use crate::cli::json;
use crate::cli::output::show;
use crate::smtp::address::Host;
use crate::storage::evidence::{
    AcceptedCounts, AssuranceCounts, ClearDeliveries, DeliveryCounts, EvidenceError,
    ExceptionRecord, MailRecord, Summary, records,
};

/// The CSV columns of deliveries.
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

/// The CSV columns of accepted messages.
const COLUMNS_IN: [&str; 9] = [
    "connector",
    "listener",
    "messages",
    "clear",
    "tls",
    "trusted",
    "verified",
    "pinned",
    "dane",
];

/// Counts the records since a time and prints the result.
pub(super) fn run(
    folder: &Path,
    direction: Option<MailDirection>,
    domain: Option<&Host>,
    since: Timestamp,
    form: OutputForm,
) -> Result<ExitCode, EvidenceError> {
    let mut summary = Summary::default();
    let domain = domain.map(ToString::to_string);
    let is_selected = |other: &str| domain.as_ref().is_none_or(|domain| domain == other);
    let reading = records(folder, Some(since), |_, link, record| {
        match record {
            MailRecord::Accepted(acceptance)
                if direction != Some(MailDirection::Out) && is_selected(&acceptance.domain) =>
            {
                summary.count_in(&acceptance);
            }
            MailRecord::Delivery(delivery)
                if direction != Some(MailDirection::In) && is_selected(&delivery.domain) =>
            {
                summary.count(link.time, &delivery);
            }
            MailRecord::Accepted(_) | MailRecord::Delivery(_) => {}
        }
        true
    })?;
    show(&match (form, direction) {
        (OutputForm { json: true, .. }, _) => document(&summary, since),
        (OutputForm { csv: true, .. }, Some(MailDirection::In)) => accepted_csv(&summary),
        (OutputForm { csv: true, .. }, _) => delivery_csv(&summary),
        (OutputForm { .. }, Some(MailDirection::In)) => accepted_text(&summary, since),
        (OutputForm { .. }, Some(MailDirection::Out)) => delivery_text(&summary, since),
        (OutputForm { .. }, None) => {
            delivery_text(&summary, since) + &accepted_text(&summary, since)
        }
    });
    let has_records = summary.rows().next().is_some() || summary.came_in().next().is_some();
    Ok(status(!has_damaged_lines(reading, folder) && has_records))
}

/// Returns the counts of a row in the order of [`COLUMNS`].
fn counts(row: &DeliveryCounts) -> [u64; 14] {
    let [clear, tls, trusted, verified, pinned, dane] = row.levels.all();
    let DeliveryCounts {
        delivered,
        exceeded,
        fallback,
        refused,
        deferred,
        held,
        bounced,
        removed,
        levels: _,
    } = *row;
    [
        delivered, clear, tls, trusted, verified, pinned, dane, exceeded, fallback, refused,
        deferred, held, bounced, removed,
    ]
}

#[derive(Serialize)]
struct SummaryDocument<'a> {
    since: Timestamp,
    rows: Vec<DeliveryEntry<'a>>,
    /// The domains whose last delivery was in the clear.
    in_clear: Vec<ClearEntry<'a>>,
    /// The domains that were served in the clear before and are served under TLS now.
    in_clear_before: Vec<ClearEntry<'a>>,
    accepted: Vec<AcceptedEntry<'a>>,
}

#[derive(Serialize)]
struct AcceptedEntry<'a> {
    connector: &'a str,
    listener: &'a str,
    #[serde(flatten)]
    counts: &'a AcceptedCounts,
}

#[derive(Serialize)]
struct DeliveryEntry<'a> {
    connector: &'a str,
    domain: &'a str,
    #[serde(flatten)]
    row: &'a DeliveryCounts,
}

#[derive(Serialize)]
struct ClearEntry<'a> {
    connector: &'a str,
    domain: &'a str,
    #[serde(flatten)]
    clear: &'a ClearDeliveries,
}

fn document(summary: &Summary, since: Timestamp) -> String {
    let rows = summary
        .rows()
        .map(|(connector, domain, row)| DeliveryEntry {
            connector,
            domain,
            row,
        })
        .collect();
    let entry = |(connector, domain, clear)| ClearEntry {
        connector,
        domain,
        clear,
    };
    let (in_clear, in_clear_before) = (
        summary.in_clear().map(entry).collect(),
        summary.in_clear_before().map(entry).collect(),
    );
    let accepted = summary
        .came_in()
        .map(|(connector, listener, counts)| AcceptedEntry {
            connector,
            listener,
            counts,
        });
    json::indented(&SummaryDocument {
        since,
        rows,
        in_clear,
        in_clear_before,
        accepted: accepted.collect(),
    })
}

fn delivery_csv(summary: &Summary) -> String {
    let mut text = csv::line(COLUMNS);
    for (connector, domain, row) in summary.rows() {
        let counts = counts(row).map(|count| count.to_string());
        text.push_str(&csv::line(
            [connector, domain]
                .into_iter()
                .chain(counts.iter().map(String::as_str)),
        ));
    }
    text
}

/// Returns the cells with the counts of accepted messages, in the order of [`COLUMNS_IN`].
fn accepted_counts(messages: u64, levels: AssuranceCounts) -> [String; 7] {
    let [clear, tls, trusted, verified, pinned, dane] = levels.all();
    [messages, clear, tls, trusted, verified, pinned, dane].map(|count| count.to_string())
}

fn accepted_csv(summary: &Summary) -> String {
    let mut text = csv::line(COLUMNS_IN);
    for (connector, listener, counts) in summary.came_in() {
        let cells = accepted_counts(counts.messages, counts.levels);
        text.push_str(&csv::line(
            [connector, listener]
                .into_iter()
                .chain(cells.iter().map(String::as_str)),
        ));
    }
    text
}

fn accepted_text(summary: &Summary, since: Timestamp) -> String {
    let since = since.strftime("%Y-%m-%d %H:%M UTC");
    let header = [
        "connector",
        "listener",
        "accepted",
        "clear",
        "TLS",
        "trusted",
        "verified",
        "pinned",
        "DANE",
    ];
    let mut table = frameless_table(&header);
    for (connector, listener, counts) in summary.came_in() {
        let cells = accepted_counts(counts.messages, counts.levels);
        table.add_row([plain(connector), plain(listener)].into_iter().chain(cells));
    }
    if table.is_empty() {
        return format!("no record of an accepted message since {since}\n");
    }
    table_lines(&table).collect::<String>() + &format!("accepted messages since {since}\n")
}

fn delivery_text(summary: &Summary, since: Timestamp) -> String {
    let since = since.strftime("%Y-%m-%d %H:%M UTC");
    let mut table = frameless_table(&[
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
    ]);
    for (connector, domain, row) in summary.rows() {
        let [counts @ .., _removed] = counts(row);
        table.add_row(
            [plain(connector), plain(domain)]
                .into_iter()
                .chain(counts.map(|count| count.to_string())),
        );
    }
    if table.is_empty() {
        return format!("no record of a delivery since {since}\n");
    }
    let mut out: String = table_lines(&table).collect();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "recipients of all attempts since {since}");
    let (still, before): (Vec<_>, Vec<_>) = (
        summary.in_clear().collect(),
        summary.in_clear_before().collect(),
    );
    if still.is_empty() {
        let none = if before.is_empty() {
            "no domain was"
        } else {
            "no domain is still"
        };
        let _ = writeln!(out, "{none} served in the clear");
    } else {
        out.push_str("still served in the clear:\n");
        out.extend(still.into_iter().map(clear_domain_line));
    }
    if !before.is_empty() {
        out.push_str("served in the clear before, and under TLS now:\n");
        out.extend(before.into_iter().map(clear_domain_line));
    }
    out
}

/// Returns a line for a domain that is or was served in the clear.
fn clear_domain_line((connector, domain, clear): (&str, &str, &ClearDeliveries)) -> String {
    let time = |at: &Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
    let ClearDeliveries {
        delivered,
        last,
        reason,
        exception,
        tls_since,
        ..
    } = clear;
    let (connector, domain) = (plain(connector), plain(domain));
    let mut line = format!(
        "    {domain} ({connector}): {delivered}, last {}: {}",
        time(last),
        short(reason)
    );
    if let Some(ExceptionRecord { until, reason }) = exception {
        let _ = write!(
            line,
            "; allowed by the exception until {} ({})",
            plain(until),
            short(reason)
        );
    }
    if let Some(since) = tls_since {
        let _ = write!(line, "; TLS since {}", time(since));
    }
    line + "\n"
}
