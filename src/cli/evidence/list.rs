//! `gatepost evidence list`.

use super::form::OutputForm;
use super::query::{EvidenceQuery, QueryError};
use super::record_csv;
use super::totals::closing_lines;
use crate::cli::format::{INDENT, Table, plain, short, width, wrap};
use crate::cli::output::show;
use crate::storage::evidence::{
    AcceptanceRecord, DeliveryRecord, Link, MailRecord, RecordedAssurance,
};

/// The number of rows that are laid out as one table.
const PAGE: usize = 500;

/// Prints the selected records and their totals. Returns true if records were found, every line is
/// a valid record, and the chain is whole.
pub(super) fn run(query: &EvidenceQuery<'_>, form: OutputForm) -> Result<bool, QueryError> {
    let mut printer = RecordPrinter {
        form,
        width: width(),
        has_begun: false,
        is_table: true,
        rows: Vec::new(),
    };
    let result = query.read(|line, link, record| printer.add(line, link, record))?;
    printer.finish();
    if result.totals.is_empty() {
        let text = query.nothing_found(&result.chain, width())?;
        if form.json || form.csv {
            eprint!("{text}");
        } else {
            show(&text);
        }
    } else if !form.json && !form.csv {
        show(&closing_lines(query.filter, &result, width()));
    }
    result.show_damage(query.source);
    Ok(result.is_success())
}

/// Prints records in one of the forms, as they are read. Nothing is printed before the first
/// record, so that an error has no output before it.
struct RecordPrinter {
    form: OutputForm,
    width: usize,
    has_begun: bool,
    /// True while all rows fit the terminal.
    is_table: bool,
    rows: Vec<ListRow>,
}

impl RecordPrinter {
    fn add(&mut self, line: &str, chained: &Link, record: &MailRecord) {
        if self.form.json {
            show(if self.has_begun { ",\n" } else { "[\n" });
            show(&append_envelope_fields(line, record));
        } else if self.form.csv {
            if !self.has_begun {
                show(&record_csv::header());
            }
            show(&record_csv::line(chained, record));
        } else {
            self.rows.push(match record {
                MailRecord::Accepted(acceptance) => acceptance_row(chained, acceptance),
                MailRecord::Delivery(delivery) => delivery_row(chained, delivery),
            });
            if self.rows.len() >= PAGE {
                self.show_rows();
            }
        }
        self.has_begun = true;
    }

    fn finish(&mut self) {
        if self.form.json {
            show(if self.has_begun { "\n]\n" } else { "[]\n" });
        } else if self.form.csv && !self.has_begun {
            show(&record_csv::header());
        } else {
            self.show_rows();
        }
    }

    fn show_rows(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        // Once a page is too wide for a table, it and all later ones are printed as blocks.
        let table = if self.is_table {
            table(&rows, self.width)
        } else {
            None
        };
        self.is_table = table.is_some();
        show(&table.unwrap_or_else(|| rows.iter().map(|row| block(row, self.width)).collect()));
    }
}

/// Returns the line of a record, with `sender` and `recipient` or `recipients` appended to its
/// fields: the names that all other JSON documents use. The text before these is the line as it is
/// in the file.
fn append_envelope_fields(line: &str, record: &MailRecord) -> String {
    use serde_json::json;
    let names = match record {
        MailRecord::Accepted(acceptance) => {
            format!(
                "\"sender\":{},\"recipients\":{}",
                json!(acceptance.from),
                json!(acceptance.to)
            )
        }
        MailRecord::Delivery(delivery) => {
            format!(
                "\"sender\":{},\"recipient\":{}",
                json!(delivery.from),
                json!(delivery.to)
            )
        }
    };
    format!(
        "{},{names}}}",
        line.trim_end().strip_suffix('}').unwrap_or(line)
    )
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

/// The cells of a record in the list.
type ListRow = [String; 9];

fn acceptance_row(link: &Link, acceptance: &AcceptanceRecord) -> ListRow {
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

fn delivery_row(link: &Link, delivery: &DeliveryRecord) -> ListRow {
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

/// Returns the rows as a table; `None` if it is wider than the terminal.
fn table(rows: &[ListRow], width: usize) -> Option<String> {
    let mut table = Table::new(&[
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
        table.row(row.iter().cloned());
    }
    let text = table.render(usize::MAX);
    text.lines()
        .all(|line| line.chars().count() <= width)
        .then_some(text)
}

/// Returns a row as a block: message and recipient, and below them the session and the outcome.
fn block(row: &ListRow, width: usize) -> String {
    let [time, way, id, from, to, connector, tls, demand, outcome] = row;
    let mut text = String::new();
    wrap(
        &mut text,
        &format!("{time}  {way}  {id}  "),
        INDENT,
        &format!("{from} to {to}"),
        width,
    );
    wrap(
        &mut text,
        INDENT,
        INDENT,
        &format!("{connector}: {tls}, demand {demand}; {outcome}"),
        width,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An accepted message in which every field is set.
    const ACCEPTANCE: &str = r#"{"queue_id":"q2","message_id":"<m2>","from":"a@b.example","domain":"b.example",
        "to":["c@d.example","e@d.example"],"more_to":150,"size":4711,"listener":"mx","client":"192.0.2.7:4000",
        "client_name":"client.b.example","via":"198.51.100.1:5000","hello":"hello.example","connector":"partner",
        "configuration":"c0ffee","policy":{"tls":"opportunistic","demands":[]},
        "session":{"level":"clear","no_tls":"the client did not issue STARTTLS","tls":null},"standing":"met"}"#;

    /// The line of the file is unchanged before the appended names.
    #[test]
    fn the_envelope_fields_follow_the_record() {
        let acceptance = MailRecord::Accepted(serde_json::from_str(ACCEPTANCE).expect("a message"));
        assert_eq!(
            append_envelope_fields("{\"seq\":7,\"hash\":\"22\"}", &acceptance),
            "{\"seq\":7,\"hash\":\"22\",\"sender\":\"a@b.example\",\"recipients\":[\"c@d.example\",\"e@d.example\"]}"
        );
    }
}
