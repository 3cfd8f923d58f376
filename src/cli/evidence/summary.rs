//! `gatepost evidence summary`.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::csv;
use super::filter::MailDirection;
use super::form::OutputForm;
use super::query::{EvidenceQuery, QueryError, QueryResult};
use super::totals::closing_lines;
use super::verify::ChainDocument;
use crate::cli::format::{INDENT, Table, plain, short, width, wrap};
use crate::cli::json;
use crate::cli::output::show;
use crate::storage::evidence::{
    AcceptedCounts, AssuranceCounts, ClearDeliveries, DeliveryCounts, ExceptionRecord, MailRecord,
    Period, Summary, Totals,
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

/// Counts the selected records and prints the result. Returns true if records were found, every
/// line is a valid record, and the chain is whole.
pub(super) fn run(query: &EvidenceQuery<'_>, form: OutputForm) -> Result<bool, QueryError> {
    let mut summary = Summary::default();
    let result = query.read(|_, link, record| match record {
        MailRecord::Accepted(acceptance) => summary.count_in(acceptance),
        MailRecord::Delivery(delivery) => summary.count(link.time, delivery),
    })?;
    let direction = query.filter.direction();
    if form.json {
        show(&document(&summary, query.filter.period(), &result));
    } else if form.csv {
        let is_in = direction == Some(MailDirection::In);
        show(&if is_in {
            accepted_csv(&summary)
        } else {
            delivery_csv(&summary)
        });
    }
    let is_text = !form.json && !form.csv;
    if result.totals.is_empty() {
        let text = query.nothing_found(&result.chain, width())?;
        if is_text {
            show(&text);
        } else {
            eprint!("{text}");
        }
    } else if is_text {
        show(&text(
            &summary,
            direction,
            &query.filter.period_text(),
            width(),
        ));
        show(&closing_lines(query.filter, &result, width()));
    }
    result.show_damage(query.source);
    Ok(result.is_success())
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
    /// The beginning of the period.
    since: Option<Timestamp>,
    /// The time before which the period ends.
    until: Option<Timestamp>,
    rows: Vec<DeliveryEntry<'a>>,
    /// The domains whose last delivery was in the clear.
    in_clear: Vec<ClearEntry<'a>>,
    /// The domains that were served in the clear before and are served under TLS now.
    in_clear_before: Vec<ClearEntry<'a>>,
    accepted: Vec<AcceptedEntry<'a>>,
    totals: &'a Totals,
    chain: ChainDocument<'a>,
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

fn document(summary: &Summary, period: Period, result: &QueryResult) -> String {
    let entry = |(connector, domain, clear)| ClearEntry {
        connector,
        domain,
        clear,
    };
    let accepted = summary
        .came_in()
        .map(|(connector, listener, counts)| AcceptedEntry {
            connector,
            listener,
            counts,
        });
    json::indented(&SummaryDocument {
        since: period.from,
        until: period.until,
        rows: summary
            .rows()
            .map(|(connector, domain, row)| DeliveryEntry {
                connector,
                domain,
                row,
            })
            .collect(),
        in_clear: summary.in_clear().map(entry).collect(),
        in_clear_before: summary.in_clear_before().map(entry).collect(),
        accepted: accepted.collect(),
        totals: &result.totals,
        chain: ChainDocument::of(&result.chain),
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

/// Returns the tables of both directions, or of one.
fn text(summary: &Summary, direction: Option<MailDirection>, period: &str, width: usize) -> String {
    match direction {
        Some(MailDirection::In) => accepted_text(summary, period, width),
        Some(MailDirection::Out) => delivery_text(summary, period, width),
        None => delivery_text(summary, period, width) + &accepted_text(summary, period, width),
    }
}

fn accepted_text(summary: &Summary, period: &str, width: usize) -> String {
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
    let mut table = Table::new(&header);
    for (connector, listener, counts) in summary.came_in() {
        let cells = accepted_counts(counts.messages, counts.levels);
        table.row([plain(connector), plain(listener)].into_iter().chain(cells));
    }
    let mut out = table.render(width);
    let line = if out.is_empty() {
        format!("no record of an accepted message{period}")
    } else {
        format!("accepted messages{period}")
    };
    wrap(&mut out, "", INDENT, &line, width);
    out
}

fn delivery_text(summary: &Summary, period: &str, width: usize) -> String {
    let mut table = Table::new(&[
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
        "removed",
    ]);
    for (connector, domain, row) in summary.rows() {
        let counts = counts(row).map(|count| count.to_string());
        table.row([plain(connector), plain(domain)].into_iter().chain(counts));
    }
    let mut out = table.render(width);
    if out.is_empty() {
        let line = format!("no record of a delivery{period}");
        wrap(&mut out, "", INDENT, &line, width);
        return out;
    }
    let line = format!("recipients of all attempts{period}");
    wrap(&mut out, "", INDENT, &line, width);
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
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{none} served in the clear");
    } else {
        out.push_str("still served in the clear:\n");
        for clear in still {
            add_clear_domain(&mut out, clear, width);
        }
    }
    if !before.is_empty() {
        out.push_str("served in the clear before, and under TLS now:\n");
        for clear in before {
            add_clear_domain(&mut out, clear, width);
        }
    }
    out
}

/// Appends a line for a domain that is or was served in the clear.
fn add_clear_domain(
    out: &mut String,
    (connector, domain, clear): (&str, &str, &ClearDeliveries),
    width: usize,
) {
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
        "{domain} ({connector}): {delivered}, last {}: {}",
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
    wrap(out, "    ", "        ", &line, width);
}
