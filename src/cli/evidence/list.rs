//! `gatepost evidence list`.

use super::csv;
use super::form::OutputForm;
use super::query::{EvidenceQuery, QueryError};
use super::totals::closing_lines;
use crate::cli::format::{INDENT, Table, plain, short, width, wrap};
use crate::cli::output::show;
use crate::storage::evidence::{
    AcceptanceRecord, CertificateRecord, DeliveryRecord, Link, MailRecord, PolicyRecord,
    RecordedAssurance, SessionRecord,
};

/// The number of rows that are laid out as one table.
const PAGE: usize = 500;

/// The CSV columns.
const COLUMNS: [&str; 47] = [
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
    "kind",
    "demanded_levels",
    "more_names",
    "not_after",
    "downgraded_from",
    "client_name",
    "via",
    "prev",
    "hash",
];

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
        let text = query.nothing_found(&result.chain)?;
        if form.json || form.csv {
            eprint!("{text}");
        } else {
            show(&text);
        }
    } else if !form.json && !form.csv {
        show(&closing_lines(query.filter, &result));
    }
    result.show_damage(query.folder);
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
            show(&with_common_names(line, record));
        } else if self.form.csv {
            if !self.has_begun {
                show(&csv::line(COLUMNS));
            }
            show(&csv_line(chained, record));
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
            show(&csv::line(COLUMNS));
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
fn with_common_names(line: &str, record: &MailRecord) -> String {
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
        self.set("kind", &link.kind);
        self.set("prev", link.prev.to_string());
        self.set("hash", link.hash.to_string());
    }

    fn set_policy(&mut self, policy: &PolicyRecord) {
        self.set("policy", &policy.tls);
        let demands = policy
            .demands
            .iter()
            .map(|demand| format!("{}: {}", demand.layer, demand.wanted));
        self.set("demands", demands.collect::<Vec<_>>().join("; "));
        let levels = policy.demands.iter().map(|demand| demand.level.as_str());
        self.set("demanded_levels", levels.collect::<Vec<_>>().join("; "));
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
            self.set("more_names", certificate.more_names.to_string());
            self.set("not_after", certificate.not_after.to_string());
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
    row.set_optional("client_name", by.client_name.as_ref());
    row.set_optional("via", by.via.as_ref());
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
    row.set_optional("downgraded_from", delivery.downgraded_from.as_ref());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    /// A delivery in which every field is set.
    const DELIVERY: &str = r#"{"queue_id":"q1","message_id":"<m1>","from":"a@b.example","to":"c@d.example",
        "domain":"d.example","attempt":17,"connector":"partner","configuration":"c0ffee",
        "policy":{"tls":"forced","demands":[{"layer":"connector","wanted":"TLS with a name","level":"verified"},
        {"layer":"DANE","wanted":"TLS with TLSA","level":"dane"}]},
        "exception":{"until":"2027-01-31","reason":"ticket 7"},"host":"mx.d.example","address":"192.0.2.1:25",
        "session":{"level":"trusted","no_tls":"no reason","tls":{"version":"TLSv1.3","cipher":"TLS_X",
        "key_exchange":"X25519","client_hello":"classical","resumed":true,"authentication":"untrusted: other name",
        "matched_name":"n.example","certificate":{"spki":"sha256:CQ","names":["n1.example","n2.example"],
        "more_names":298,"issuer":"CN=Test CA","not_after":"2027-02-01T00:00:00Z"}}},
        "unmet":{"layer":"MTA-STS","wanted":"a listed host","got":"another host"},"downgraded_from":"DANE",
        "standing":"refused","outcome":"bounced","status":"5.7.5","reply":"550 no","reason":"refused by policy"}"#;

    /// An accepted message in which every field is set.
    const ACCEPTANCE: &str = r#"{"queue_id":"q2","message_id":"<m2>","from":"a@b.example","domain":"b.example",
        "to":["c@d.example","e@d.example"],"more_to":150,"size":4711,"listener":"mx","client":"192.0.2.7:4000",
        "client_name":"client.b.example","via":"198.51.100.1:5000","hello":"hello.example","connector":"partner",
        "configuration":"c0ffee","policy":{"tls":"opportunistic","demands":[]},
        "session":{"level":"clear","no_tls":"the client did not issue STARTTLS","tls":null},"standing":"met"}"#;

    fn link(kind: &str) -> Link {
        let text = format!(
            r#"{{"seq":7,"prev":"{}","time":"2026-11-26T10:00:00.5Z","kind":"{kind}","hash":"{}"}}"#,
            "1".repeat(64),
            "2".repeat(64)
        );
        serde_json::from_str(&text).expect("a link")
    }

    /// Collects the texts and numbers of a document.
    fn leaves(value: &Value, path: &str, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    leaves(value, &format!("{path}.{key}"), found);
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    leaves(item, &format!("{path}.{at}"), found);
                }
            }
            Value::String(text) => drop(found.insert(path.to_owned(), text.clone())),
            Value::Bool(true) => drop(found.insert(path.to_owned(), "yes".to_owned())),
            Value::Number(number) => drop(found.insert(path.to_owned(), number.to_string())),
            Value::Null | Value::Bool(false) => {}
        }
    }

    /// Returns the cells of a line of CSV, without their quotes.
    fn cells(line: &str) -> Vec<String> {
        let mut cells = vec![String::new()];
        let mut is_quoted = false;
        for c in line.trim_end().chars() {
            match c {
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => cells.push(String::new()),
                c => cells.last_mut().expect("it has a cell").push(c),
            }
        }
        cells
    }

    /// A line of CSV has every field of its record, and a cell for each column.
    #[test]
    fn csv_has_every_field_of_a_record() {
        let delivery: DeliveryRecord = serde_json::from_str(DELIVERY).expect("a delivery");
        let acceptance: AcceptanceRecord = serde_json::from_str(ACCEPTANCE).expect("a message");
        for (kind, document, record) in [
            (
                "delivery",
                serde_json::to_value(&delivery),
                MailRecord::Delivery(Box::new(delivery)),
            ),
            (
                "accepted",
                serde_json::to_value(&acceptance),
                MailRecord::Accepted(Box::new(acceptance)),
            ),
        ] {
            let document = document.expect("JSON");
            let mut fields = BTreeMap::new();
            leaves(&document, "", &mut fields);
            let is_complete = kind == "accepted" || !document.to_string().contains("null");
            assert!(is_complete, "a field of the sample is not set: {document}");
            for (name, text) in [
                ("seq", "7"),
                ("time", "2026-11-26T10:00:00.5Z"),
                ("kind", kind),
            ] {
                fields.insert(name.to_owned(), text.to_owned());
            }
            fields.extend([
                ("prev".to_owned(), "1".repeat(64)),
                ("hash".to_owned(), "2".repeat(64)),
            ]);
            let line = csv_line(&link(kind), &record);
            let cells = cells(&line);
            assert_eq!(cells.len(), COLUMNS.len(), "{line}");
            for (name, text) in &fields {
                let has = |cell: &str| {
                    cell.split([' ', ';']).any(|part| part == text)
                        || cell.contains(text.as_str()) && text.len() > 3
                };
                assert!(
                    cells.iter().any(|cell| has(cell)),
                    "{name} ({text}) is missing in {line}"
                );
            }
        }
    }

    /// The line of the file is unchanged before the appended names.
    #[test]
    fn the_common_names_stand_behind_the_record() {
        let acceptance = MailRecord::Accepted(serde_json::from_str(ACCEPTANCE).expect("a message"));
        assert_eq!(
            with_common_names("{\"seq\":7,\"hash\":\"22\"}", &acceptance),
            "{\"seq\":7,\"hash\":\"22\",\"sender\":\"a@b.example\",\"recipients\":[\"c@d.example\",\"e@d.example\"]}"
        );
    }
}
