//! The records as comma-separated values, with every field of a record.

use std::collections::BTreeMap;

use super::csv;
use crate::storage::evidence::{
    AcceptanceRecord, CertificateRecord, DeliveryRecord, Link, MailRecord, PolicyRecord,
    SessionRecord,
};

/// Defines [`CsvColumn`], and [`COLUMNS`] with the name of each column in the first line, in the order
/// in which the lines have them.
macro_rules! columns {
    ($($column:ident: $name:literal,)*) => {
        /// A column of the lines.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        enum CsvColumn {
            $($column,)*
        }

        /// The columns in their order, with their names.
        const COLUMNS: &[(CsvColumn, &str)] = &[$((CsvColumn::$column, $name),)*];
    };
}

columns! {
    Seq: "seq",
    Time: "time",
    QueueId: "queue_id",
    MessageId: "message_id",
    From: "from",
    To: "to",
    Domain: "domain",
    Attempt: "attempt",
    Connector: "connector",
    Configuration: "configuration",
    Policy: "policy",
    Demands: "demands",
    Exception: "exception",
    Host: "host",
    Address: "address",
    Level: "level",
    NoTls: "no_tls",
    TlsVersion: "tls_version",
    Cipher: "cipher",
    KeyExchange: "key_exchange",
    Resumed: "resumed",
    Spki: "spki",
    Names: "names",
    Issuer: "issuer",
    Authentication: "authentication",
    MatchedName: "matched_name",
    Standing: "standing",
    Unmet: "unmet",
    Outcome: "outcome",
    Status: "status",
    Reply: "reply",
    Reason: "reason",
    ClientHello: "client_hello",
    Direction: "direction",
    Listener: "listener",
    Hello: "hello",
    Size: "size",
    MoreTo: "more_to",
    Kind: "kind",
    DemandedLevels: "demanded_levels",
    MoreNames: "more_names",
    NotAfter: "not_after",
    DowngradedFrom: "downgraded_from",
    ClientName: "client_name",
    Via: "via",
    Prev: "prev",
    Hash: "hash",
    User: "user",
    Mechanism: "mechanism",
    Protocol: "protocol",
    Source: "source",
    RecipientConnector: "recipient_connector",
}

/// Returns the first line, with the names of the columns.
pub(super) fn header() -> String {
    csv::line(COLUMNS.iter().map(|(_, name)| *name))
}

fn names(certificate: &CertificateRecord) -> String {
    let all = certificate.names.join(" ");
    if certificate.more_names == 0 {
        all
    } else {
        format!("{all} and {} more", certificate.more_names)
    }
}

/// A line of CSV with a cell for each [`CsvColumn`]. A cell that is not set is empty.
#[derive(Default)]
struct CsvRow(BTreeMap<CsvColumn, String>);

impl CsvRow {
    fn set(&mut self, column: CsvColumn, value: impl Into<String>) {
        self.0.insert(column, value.into());
    }

    fn set_optional(&mut self, column: CsvColumn, value: Option<&String>) {
        if let Some(value) = value {
            self.set(column, value);
        }
    }

    fn set_link(&mut self, link: &Link) {
        self.set(CsvColumn::Seq, link.seq.to_string());
        self.set(CsvColumn::Time, link.time.to_string());
        self.set(CsvColumn::Kind, &link.kind);
        self.set(CsvColumn::Prev, link.prev.to_string());
        self.set(CsvColumn::Hash, link.hash.to_string());
    }

    fn set_policy(&mut self, policy: &PolicyRecord) {
        self.set(CsvColumn::Policy, &policy.tls);
        let demands = policy
            .demands
            .iter()
            .map(|demand| format!("{}: {}", demand.layer, demand.wanted));
        self.set(CsvColumn::Demands, demands.collect::<Vec<_>>().join("; "));
        let levels = policy.demands.iter().map(|demand| demand.level.as_str());
        self.set(
            CsvColumn::DemandedLevels,
            levels.collect::<Vec<_>>().join("; "),
        );
    }

    fn set_session(&mut self, session: &SessionRecord) {
        self.set(CsvColumn::Level, session.level.as_str());
        self.set_optional(CsvColumn::NoTls, session.no_tls.as_ref());
        let Some(tls) = &session.tls else { return };
        self.set(CsvColumn::TlsVersion, &tls.version);
        self.set(CsvColumn::Cipher, &tls.cipher);
        self.set_optional(CsvColumn::KeyExchange, tls.key_exchange.as_ref());
        if tls.resumed {
            self.set(CsvColumn::Resumed, "yes");
        }
        self.set(CsvColumn::Authentication, &tls.authentication);
        self.set_optional(CsvColumn::MatchedName, tls.matched_name.as_ref());
        self.set_optional(CsvColumn::ClientHello, tls.client_hello.as_ref());
        if let Some(certificate) = &tls.certificate {
            self.set(CsvColumn::Spki, &certificate.spki);
            self.set(CsvColumn::Names, names(certificate));
            self.set(CsvColumn::Issuer, &certificate.issuer);
            self.set(CsvColumn::MoreNames, certificate.more_names.to_string());
            self.set(CsvColumn::NotAfter, certificate.not_after.to_string());
        }
    }

    fn into_line(self) -> String {
        let cells = COLUMNS.iter().map(|(column, _)| self.0.get(column));
        csv::line(cells.map(|cell| cell.map_or("", String::as_str)))
    }
}

/// Returns the line of a record.
pub(super) fn line(link: &Link, record: &MailRecord) -> String {
    let mut row = CsvRow::default();
    row.set_link(link);
    match record {
        MailRecord::Accepted(acceptance) => set_acceptance(&mut row, acceptance),
        MailRecord::Delivery(delivery) => set_delivery(&mut row, delivery),
    }
    row.into_line()
}

fn set_acceptance(row: &mut CsvRow, acceptance: &AcceptanceRecord) {
    let by = &acceptance.by;
    row.set(CsvColumn::Direction, "in");
    row.set(CsvColumn::QueueId, &acceptance.queue_id);
    row.set_optional(CsvColumn::MessageId, acceptance.message_id.as_ref());
    row.set(CsvColumn::From, &acceptance.from);
    row.set(CsvColumn::To, acceptance.to.join(" "));
    row.set(CsvColumn::MoreTo, acceptance.more_to.to_string());
    row.set(CsvColumn::Domain, &acceptance.domain);
    row.set(CsvColumn::Size, acceptance.size.to_string());
    row.set(CsvColumn::Connector, &by.connector);
    row.set(CsvColumn::Configuration, &by.configuration);
    row.set_policy(&by.policy);
    row.set_optional(CsvColumn::Address, by.client.as_ref().or(by.via.as_ref()));
    row.set_optional(CsvColumn::ClientName, by.client_name.as_ref());
    row.set_optional(CsvColumn::Via, by.via.as_ref());
    row.set(CsvColumn::Listener, &by.listener);
    row.set_optional(CsvColumn::Hello, by.hello.as_ref());
    row.set_optional(CsvColumn::User, by.user.as_ref());
    row.set_optional(CsvColumn::Protocol, by.protocol.as_ref());
    row.set_session(&by.session);
    row.set(CsvColumn::Standing, by.standing.as_str());
    row.set(CsvColumn::Outcome, "accepted");
}

fn set_delivery(row: &mut CsvRow, delivery: &DeliveryRecord) {
    row.set(CsvColumn::Direction, "out");
    row.set(CsvColumn::QueueId, &delivery.queue_id);
    row.set_optional(CsvColumn::MessageId, delivery.message_id.as_ref());
    row.set(CsvColumn::From, &delivery.from);
    row.set(CsvColumn::To, &delivery.to);
    row.set(CsvColumn::Domain, &delivery.domain);
    row.set(CsvColumn::Attempt, delivery.attempt.to_string());
    row.set(CsvColumn::Connector, &delivery.connector);
    row.set(CsvColumn::Configuration, &delivery.configuration);
    if let Some(policy) = &delivery.policy {
        row.set_policy(policy);
    }
    if let Some(exception) = &delivery.exception {
        row.set(
            CsvColumn::Exception,
            format!("until {}: {}", exception.until, exception.reason),
        );
    }
    row.set_optional(CsvColumn::Host, delivery.host.as_ref());
    row.set_optional(CsvColumn::Address, delivery.address.as_ref());
    row.set_optional(CsvColumn::Protocol, delivery.protocol.as_ref());
    row.set_optional(CsvColumn::Source, delivery.source.as_ref());
    row.set_optional(
        CsvColumn::RecipientConnector,
        delivery.recipient_connector.as_ref(),
    );
    if let Some(session) = &delivery.session {
        row.set_session(session);
    }
    if let Some(login) = &delivery.login {
        row.set(CsvColumn::User, &login.user);
        row.set(CsvColumn::Mechanism, &login.mechanism);
    }
    row.set_optional(CsvColumn::DowngradedFrom, delivery.downgraded_from.as_ref());
    row.set(CsvColumn::Standing, delivery.standing.as_str());
    if let Some(unmet) = &delivery.unmet {
        row.set(
            CsvColumn::Unmet,
            format!("{}: {}, but {}", unmet.layer, unmet.wanted, unmet.got),
        );
    }
    row.set(CsvColumn::Outcome, delivery.outcome.as_str());
    row.set(CsvColumn::Status, &delivery.status);
    row.set_optional(CsvColumn::Reply, delivery.reply.as_ref());
    row.set_optional(CsvColumn::Reason, delivery.reason.as_ref());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    /// A delivery in which every field is set.
    const DELIVERY: &str = r#"{"queue_id":"q1","message_id":"<m1>","from":"a@b.example","to":"c@d.example",
        "domain":"d.example","attempt":17,"connector":"partner","recipient_connector":"recipients-own","configuration":"c0ffee",
        "policy":{"tls":"forced","demands":[{"layer":"connector","wanted":"TLS with a name","level":"verified"},
        {"layer":"DANE","wanted":"TLS with TLSA","level":"dane"}]},
        "exception":{"until":"2027-01-31","reason":"ticket 7"},"host":"mx.d.example","address":"192.0.2.1:25","protocol":"smtps",
        "source":"198.51.100.25","session":{"level":"trusted","no_tls":"no reason","tls":{"version":"TLSv1.3","cipher":"TLS_X",
        "key_exchange":"X25519","client_hello":"classical","resumed":true,"authentication":"untrusted: other name",
        "matched_name":"n.example","certificate":{"spki":"sha256:CQ","names":["n1.example","n2.example"],
        "more_names":298,"issuer":"CN=Test CA","not_after":"2027-02-01T00:00:00Z"}}},
        "login":{"user":"relay@example.com","mechanism":"SCRAM-SHA-256"},
        "unmet":{"layer":"MTA-STS","wanted":"a listed host","got":"another host"},"downgraded_from":"DANE",
        "standing":"refused","outcome":"bounced","status":"5.7.5","reply":"550 no","reason":"refused by policy"}"#;

    /// An accepted message in which every field is set.
    const ACCEPTANCE: &str = r#"{"queue_id":"q2","message_id":"<m2>","from":"a@b.example","domain":"b.example",
        "to":["c@d.example","e@d.example"],"more_to":150,"size":4711,"listener":"mx","client":"192.0.2.7:4000",
        "client_name":"client.b.example","via":"198.51.100.1:5000","hello":"hello.example","user":"scanner","protocol":"ESMTPSA","connector":"partner",
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
            let line = super::line(&link(kind), &record);
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
}
