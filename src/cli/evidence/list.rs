//! `gatepost evidence list`.

use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;

use super::super::format::{count, frameless_table, plain, short, table_lines};
use super::{MailDirection, OutputForm, csv, has_damaged_lines, status};
use crate::cli::output::show;
use crate::smtp::address::Host;
use crate::storage::evidence::{
    AcceptanceRecord, CertificateRecord, DeliveryRecord, EvidenceError, Link, MailRecord,
    PolicyRecord, RecordedAssurance, SessionRecord, records,
};

/// The number of rows that are laid out as one table.
const PAGE: usize = 500;

/// The CSV columns.
const COLUMNS: [&str; 38] = [
    "seq",
    "time",
    "queue_id",
    "message_id",
    "from",
    "to",
    "domain",
    "attempt",
    "connector",
    "configuration",
    "policy",
    "demands",
    "exception",
    "host",
    "address",
    "level",
    "no_tls",
    "tls_version",
    "cipher",
    "key_exchange",
    "resumed",
    "spki",
    "names",
    "issuer",
    "authentication",
    "matched_name",
    "standing",
    "unmet",
    "outcome",
    "status",
    "reply",
    "reason",
    "client_hello",
    "direction",
    "listener",
    "hello",
    "size",
    "more_to",
];

/// The options that select records.
pub(super) struct RecordFilter<'a> {
    pub(super) direction: Option<MailDirection>,
    /// The recipient domain of a delivery, or the sender domain of an accepted message.
    pub(super) domain: Option<&'a Host>,
    pub(super) queue_id: Option<&'a str>,
}

impl RecordFilter<'_> {
    fn matches(&self, record: &MailRecord) -> bool {
        let (direction, domain, queue_id) = match record {
            MailRecord::Accepted(acceptance) => {
                (MailDirection::In, &acceptance.domain, &acceptance.queue_id)
            }
            MailRecord::Delivery(delivery) => {
                (MailDirection::Out, &delivery.domain, &delivery.queue_id)
            }
        };
        self.direction.is_none_or(|wanted| wanted == direction)
            && self
                .domain
                .is_none_or(|wanted| wanted.to_string() == *domain)
            && self
                .queue_id
                .is_none_or(|id| id.eq_ignore_ascii_case(queue_id))
    }
}

/// Prints the selected records and their number.
pub(super) fn run(
    folder: &Path,
    filter: &RecordFilter<'_>,
    since: Option<Timestamp>,
    form: OutputForm,
) -> Result<ExitCode, EvidenceError> {
    let (mut accepted, mut delivered) = (0_u64, 0_u64);
    let mut rows = Vec::new();
    if form.csv {
        show(&csv::line(COLUMNS));
    }
    let reading = records(folder, since, |line, link, record| {
        if !filter.matches(&record) {
            return true;
        }
        if form.json {
            show(if accepted + delivered == 0 {
                "[\n"
            } else {
                ",\n"
            });
            show(line);
        } else if form.csv {
            show(&csv_line(link, &record));
        } else {
            rows.push(match &record {
                MailRecord::Accepted(acceptance) => acceptance_row(link, acceptance),
                MailRecord::Delivery(delivery) => delivery_row(link, delivery),
            });
            if rows.len() >= PAGE {
                show(&table(&std::mem::take(&mut rows)));
            }
        }
        match record {
            MailRecord::Accepted(_) => accepted += 1,
            MailRecord::Delivery(_) => delivered += 1,
        }
        true
    })?;
    let is_empty = accepted + delivered == 0;
    if form.json {
        show(if is_empty { "[]\n" } else { "\n]\n" });
    } else if !form.csv {
        if !rows.is_empty() {
            show(&table(&rows));
        }
        show(&totals(accepted, delivered));
    }
    Ok(status(!has_damaged_lines(reading, folder) && !is_empty))
}

/// Returns the last line of a table.
fn totals(accepted: u64, delivered: u64) -> String {
    let deliveries = if delivered == 1 {
        "1 delivery".to_owned()
    } else {
        format!("{delivered} deliveries")
    };
    match (accepted, delivered) {
        (0, 0) => "no record matches\n".to_owned(),
        (0, _) => deliveries + "\n",
        (_, 0) => format!("{} accepted\n", count(accepted, "message")),
        (_, _) => format!("{} accepted, {deliveries}\n", count(accepted, "message")),
    }
}

fn time(link: &Link) -> String {
    link.time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn address(text: &str) -> String {
    if text.is_empty() {
        "<>".to_owned()
    } else {
        plain(text)
    }
}

fn acceptance_row(link: &Link, acceptance: &AcceptanceRecord) -> [String; 9] {
    let by = &acceptance.by;
    let more = acceptance.to.len().saturating_sub(1) + acceptance.more_to;
    let to = acceptance
        .to
        .first()
        .map(|to| address(to))
        .unwrap_or_default();
    let client = by
        .client
        .as_ref()
        .or(by.via.as_ref())
        .map(|client| plain(client))
        .unwrap_or_default();
    [
        time(link),
        "in".to_owned(),
        plain(&acceptance.queue_id),
        address(&acceptance.from),
        if more == 0 {
            to
        } else {
            format!("{to} and {more} more")
        },
        plain(&by.connector),
        by.session.level.to_string(),
        by.standing.as_str().to_owned(),
        short(&format!(
            "accepted from {client} by {}",
            plain(&by.listener)
        )),
    ]
}

fn delivery_row(link: &Link, delivery: &DeliveryRecord) -> [String; 9] {
    let level = delivery.session.as_ref().map_or_else(
        || "no session".to_owned(),
        |session| session.level.to_string(),
    );
    [
        time(link),
        "out".to_owned(),
        plain(&delivery.queue_id),
        address(&delivery.from),
        address(&delivery.to),
        plain(&delivery.connector),
        level,
        delivery.standing.as_str().to_owned(),
        short(&outcome(delivery)),
    ]
}

fn outcome(delivery: &DeliveryRecord) -> String {
    let mut text = delivery.outcome.as_str().to_owned();
    if !delivery.status.is_empty() {
        text = format!("{text} {}", delivery.status);
    }
    let session = delivery
        .session
        .as_ref()
        .filter(|session| session.level == RecordedAssurance::Clear);
    match (
        &delivery.reason,
        session.and_then(|session| session.no_tls.as_ref()),
    ) {
        (Some(reason), _) => format!("{text}: {reason}"),
        (None, Some(no_tls)) => format!("{text} ({no_tls})"),
        (None, None) => text,
    }
}

fn table(rows: &[[String; 9]]) -> String {
    let mut table = frameless_table(&[
        "time (UTC)",
        "way",
        "id",
        "from",
        "to",
        "connector",
        "TLS",
        "demand",
        "outcome",
    ]);
    for row in rows {
        table.add_row(row);
    }
    table_lines(&table).collect()
}

fn names(certificate: &CertificateRecord) -> String {
    let all = certificate.names.join(" ");
    if certificate.more_names == 0 {
        all
    } else {
        format!("{all} and {} more", certificate.more_names)
    }
}

/// A line of CSV with a cell for each of [`COLUMNS`]. A cell that is not set is empty.
struct CsvRow([String; COLUMNS.len()]);

impl CsvRow {
    fn set(&mut self, column: &str, value: impl Into<String>) {
        let index = COLUMNS.iter().position(|name| *name == column);
        self.0[index.expect("every column that is set below is in COLUMNS")] = value.into();
    }

    fn set_optional(&mut self, column: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.set(column, value);
        }
    }

    fn set_link(&mut self, link: &Link) {
        self.set("seq", link.seq.to_string());
        self.set("time", link.time.to_string());
    }

    fn set_policy(&mut self, policy: &PolicyRecord) {
        self.set("policy", &policy.tls);
        let demands = policy
            .demands
            .iter()
            .map(|demand| format!("{}: {}", demand.layer, demand.wanted));
        self.set("demands", demands.collect::<Vec<_>>().join("; "));
    }

    fn set_session(&mut self, session: &SessionRecord) {
        self.set("level", session.level.as_str());
        self.set_optional("no_tls", session.no_tls.as_ref());
        let Some(tls) = &session.tls else { return };
        self.set("tls_version", &tls.version);
        self.set("cipher", &tls.cipher);
        self.set_optional("key_exchange", tls.key_exchange.as_ref());
        if tls.resumed {
            self.set("resumed", "yes");
        }
        self.set("authentication", &tls.authentication);
        self.set_optional("matched_name", tls.matched_name.as_ref());
        self.set_optional("client_hello", tls.client_hello.as_ref());
        if let Some(certificate) = &tls.certificate {
            self.set("spki", &certificate.spki);
            self.set("names", names(certificate));
            self.set("issuer", &certificate.issuer);
        }
    }

    fn into_line(self) -> String {
        csv::line(self.0.iter().map(String::as_str))
    }
}

fn csv_line(link: &Link, record: &MailRecord) -> String {
    let mut row = CsvRow([const { String::new() }; COLUMNS.len()]);
    row.set_link(link);
    match record {
        MailRecord::Accepted(acceptance) => set_acceptance(&mut row, acceptance),
        MailRecord::Delivery(delivery) => set_delivery(&mut row, delivery),
    }
    row.into_line()
}

fn set_acceptance(row: &mut CsvRow, acceptance: &AcceptanceRecord) {
    let by = &acceptance.by;
    row.set("direction", "in");
    row.set("queue_id", &acceptance.queue_id);
    row.set_optional("message_id", acceptance.message_id.as_ref());
    row.set("from", &acceptance.from);
    row.set("to", acceptance.to.join(" "));
    row.set("more_to", acceptance.more_to.to_string());
    row.set("domain", &acceptance.domain);
    row.set("size", acceptance.size.to_string());
    row.set("connector", &by.connector);
    row.set("configuration", &by.configuration);
    row.set_policy(&by.policy);
    row.set_optional("address", by.client.as_ref().or(by.via.as_ref()));
    row.set("listener", &by.listener);
    row.set_optional("hello", by.hello.as_ref());
    row.set_session(&by.session);
    row.set("standing", by.standing.as_str());
    row.set("outcome", "accepted");
}

fn set_delivery(row: &mut CsvRow, delivery: &DeliveryRecord) {
    row.set("direction", "out");
    row.set("queue_id", &delivery.queue_id);
    row.set_optional("message_id", delivery.message_id.as_ref());
    row.set("from", &delivery.from);
    row.set("to", &delivery.to);
    row.set("domain", &delivery.domain);
    row.set("attempt", delivery.attempt.to_string());
    row.set("connector", &delivery.connector);
    row.set("configuration", &delivery.configuration);
    if let Some(policy) = &delivery.policy {
        row.set_policy(policy);
    }
    if let Some(exception) = &delivery.exception {
        row.set(
            "exception",
            format!("until {}: {}", exception.until, exception.reason),
        );
    }
    row.set_optional("host", delivery.host.as_ref());
    row.set_optional("address", delivery.address.as_ref());
    if let Some(session) = &delivery.session {
        row.set_session(session);
    }
    row.set("standing", delivery.standing.as_str());
    if let Some(unmet) = &delivery.unmet {
        row.set(
            "unmet",
            format!("{}: {}, but {}", unmet.layer, unmet.wanted, unmet.got),
        );
    }
    row.set("outcome", delivery.outcome.as_str());
    row.set("status", &delivery.status);
    row.set_optional("reply", delivery.reply.as_ref());
    row.set_optional("reason", delivery.reason.as_ref());
}
