//! `gatepost evidence list`.

use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use jiff::Timestamp;

use super::super::queue::words::{plain, short};
use super::{Direction, Form, csv, left_out, status};
use crate::address::Host;
use crate::cli::show;
use crate::evidence::{
    Acceptance, Certificate, Delivery, EvidenceError, Level, Link, Policy, Record, Session, TlsSession, records,
};

/// Rows that are laid out at a time.
const PAGE: usize = 500;

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

/// Which records.
pub(super) struct Wanted<'a> {
    pub(super) direction: Option<Direction>,
    /// The recipient domain of a delivery, the sender's of a message that came in.
    pub(super) domain: Option<&'a Host>,
    pub(super) queue_id: Option<&'a str>,
}

impl Wanted<'_> {
    fn is(&self, record: &Record) -> bool {
        let (direction, domain, queue_id) = match record {
            Record::In(acceptance) => (Direction::In, &acceptance.domain, &acceptance.queue_id),
            Record::Out(delivery) => (Direction::Out, &delivery.domain, &delivery.queue_id),
        };
        self.direction.is_none_or(|wanted| wanted == direction)
            && self.domain.is_none_or(|wanted| wanted.to_string() == *domain)
            && self.queue_id.is_none_or(|id| id.eq_ignore_ascii_case(queue_id))
    }
}

pub(super) fn run(
    folder: &Path,
    wanted: &Wanted<'_>,
    since: Option<Timestamp>,
    form: Form,
) -> Result<ExitCode, EvidenceError> {
    let (mut accepted, mut delivered) = (0_u64, 0_u64);
    let mut rows = Vec::new();
    if form.csv {
        show(&csv::line(COLUMNS));
    }
    let reading = records(folder, since, |line, link, record| {
        if !wanted.is(&record) {
            return true;
        }
        if form.json {
            show(if accepted + delivered == 0 { "[\n" } else { ",\n" });
            show(line);
        } else if form.csv {
            show(&match &record {
                Record::In(acceptance) => accepted_as_csv(link, acceptance),
                Record::Out(delivery) => as_csv(link, delivery),
            });
        } else {
            rows.push(match &record {
                Record::In(acceptance) => accepted_row(link, acceptance),
                Record::Out(delivery) => row(link, delivery),
            });
            if rows.len() >= PAGE {
                show(&table(&std::mem::take(&mut rows)));
            }
        }
        match record {
            Record::In(_) => accepted += 1,
            Record::Out(_) => delivered += 1,
        }
        true
    })?;
    let count = accepted + delivered;
    if form.json {
        show(if count == 0 { "[]\n" } else { "\n]\n" });
    } else if !form.csv {
        if !rows.is_empty() {
            show(&table(&rows));
        }
        show(&counted(accepted, delivered));
    }
    Ok(status(!left_out(reading, folder) && count > 0))
}

/// The last line of a table.
fn counted(accepted: u64, delivered: u64) -> String {
    let of = |count: u64, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {more}")),
    };
    let parts = [of(accepted, "message accepted", "messages accepted"), of(delivered, "delivery", "deliveries")];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "no record matches\n".to_owned() } else { parts.join(", ") + "\n" }
}

fn time(link: &Link) -> String {
    link.time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn address(text: &str) -> String {
    if text.is_empty() { "<>".to_owned() } else { plain(text) }
}

fn accepted_row(link: &Link, acceptance: &Acceptance) -> [String; 9] {
    let by = &acceptance.by;
    let more = acceptance.to.len().saturating_sub(1) + acceptance.more_to;
    let to = acceptance.to.first().map(|to| address(to)).unwrap_or_default();
    let client = by.client.as_ref().or(by.via.as_ref()).map(|client| plain(client)).unwrap_or_default();
    [
        time(link),
        "in".to_owned(),
        plain(&acceptance.queue_id),
        address(&acceptance.from),
        if more == 0 { to } else { format!("{to} and {more} more") },
        plain(&by.connector),
        by.session.level.to_string(),
        by.standing.word().to_owned(),
        short(&format!("accepted from {client} by {}", plain(&by.listener))),
    ]
}

fn row(link: &Link, delivery: &Delivery) -> [String; 9] {
    let level = delivery.session.as_ref().map_or_else(|| "no session".to_owned(), |session| session.level.to_string());
    [
        time(link),
        "out".to_owned(),
        plain(&delivery.queue_id),
        address(&delivery.from),
        address(&delivery.to),
        plain(&delivery.connector),
        level,
        delivery.standing.word().to_owned(),
        short(&outcome(delivery)),
    ]
}

fn outcome(delivery: &Delivery) -> String {
    let mut text = delivery.outcome.word().to_owned();
    if !delivery.status.is_empty() {
        text = format!("{text} {}", delivery.status);
    }
    let session = delivery.session.as_ref().filter(|session| session.level == Level::Clear);
    match (&delivery.reason, session.and_then(|session| session.no_tls.as_ref())) {
        (Some(reason), _) => format!("{text}: {reason}"),
        (None, Some(no_tls)) => format!("{text} ({no_tls})"),
        (None, None) => text,
    }
}

fn table(rows: &[[String; 9]]) -> String {
    let mut table = Table::new();
    let header = ["time (UTC)", "way", "id", "from", "to", "connector", "TLS", "demand", "outcome"];
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    // There is no frame, nor should there be blanks in its place.
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned() + "\n").collect()
}

fn names(certificate: &Certificate) -> String {
    let all = certificate.names.join(" ");
    if certificate.more_names == 0 { all } else { format!("{all} and {} more", certificate.more_names) }
}

/// The cells that tell of a session, in the order of their columns.
struct SessionCells {
    level: String,
    no_tls: String,
    tls: [String; 8],
    matched_name: String,
    client_hello: String,
}

impl SessionCells {
    fn of(session: Option<&Session>) -> Self {
        let tls = session.and_then(|session| session.tls.as_ref());
        let of_tls = |part: fn(&TlsSession) -> String| tls.map(part).unwrap_or_default();
        let certificate = tls.and_then(|tls| tls.certificate.as_ref());
        let shown = |part: fn(&Certificate) -> String| certificate.map(part).unwrap_or_default();
        Self {
            level: session.map(|session| session.level.word().to_owned()).unwrap_or_default(),
            no_tls: session.and_then(|session| session.no_tls.clone()).unwrap_or_default(),
            tls: [
                of_tls(|tls| tls.version.clone()),
                of_tls(|tls| tls.cipher.clone()),
                of_tls(|tls| tls.key_exchange.clone().unwrap_or_default()),
                of_tls(|tls| if tls.resumed { "yes".to_owned() } else { String::new() }),
                shown(|certificate| certificate.spki.clone()),
                shown(names),
                shown(|certificate| certificate.issuer.clone()),
                of_tls(|tls| tls.authentication.clone()),
            ],
            matched_name: of_tls(|tls| tls.matched_name.clone().unwrap_or_default()),
            client_hello: of_tls(|tls| tls.client_hello.clone().unwrap_or_default()),
        }
    }
}

fn demands(policy: &Policy) -> String {
    let all = policy.demands.iter().map(|demand| format!("{}: {}", demand.layer, demand.wanted));
    all.collect::<Vec<_>>().join("; ")
}

fn accepted_as_csv(link: &Link, acceptance: &Acceptance) -> String {
    let by = &acceptance.by;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let cells = SessionCells::of(Some(&by.session));
    let [version, cipher, key_exchange, resumed, spki, names, issuer, authentication] = cells.tls;
    let none = String::new;
    let cells: [String; COLUMNS.len()] = [
        link.seq.to_string(),
        link.time.to_string(),
        acceptance.queue_id.clone(),
        text(&acceptance.message_id),
        acceptance.from.clone(),
        acceptance.to.join(" "),
        acceptance.domain.clone(),
        none(),
        by.connector.clone(),
        by.configuration.clone(),
        by.policy.tls.clone(),
        demands(&by.policy),
        none(),
        none(),
        text(&by.client.clone().or_else(|| by.via.clone())),
        cells.level,
        cells.no_tls,
        version,
        cipher,
        key_exchange,
        resumed,
        spki,
        names,
        issuer,
        authentication,
        cells.matched_name,
        by.standing.word().to_owned(),
        none(),
        "accepted".to_owned(),
        none(),
        none(),
        none(),
        cells.client_hello,
        "in".to_owned(),
        by.listener.clone(),
        text(&by.hello),
        acceptance.size.to_string(),
        acceptance.more_to.to_string(),
    ];
    csv::line(cells.iter().map(String::as_str))
}

fn as_csv(link: &Link, delivery: &Delivery) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let exception = delivery.exception.as_ref().map(|held| format!("until {}: {}", held.until, held.reason));
    let unmet = delivery.unmet.as_ref().map(|unmet| format!("{}: {}, but {}", unmet.layer, unmet.wanted, unmet.got));
    let cells = SessionCells::of(delivery.session.as_ref());
    let [version, cipher, key_exchange, resumed, spki, names, issuer, authentication] = cells.tls;
    let none = String::new;
    let cells: [String; COLUMNS.len()] = [
        link.seq.to_string(),
        link.time.to_string(),
        delivery.queue_id.clone(),
        text(&delivery.message_id),
        delivery.from.clone(),
        delivery.to.clone(),
        delivery.domain.clone(),
        delivery.attempt.to_string(),
        delivery.connector.clone(),
        delivery.configuration.clone(),
        delivery.policy.as_ref().map(|policy| policy.tls.clone()).unwrap_or_default(),
        delivery.policy.as_ref().map(demands).unwrap_or_default(),
        exception.unwrap_or_default(),
        text(&delivery.host),
        text(&delivery.address),
        cells.level,
        cells.no_tls,
        version,
        cipher,
        key_exchange,
        resumed,
        spki,
        names,
        issuer,
        authentication,
        cells.matched_name,
        delivery.standing.word().to_owned(),
        unmet.unwrap_or_default(),
        delivery.outcome.word().to_owned(),
        delivery.status.clone(),
        text(&delivery.reply),
        text(&delivery.reason),
        cells.client_hello,
        "out".to_owned(),
        none(),
        none(),
        none(),
        none(),
    ];
    csv::line(cells.iter().map(String::as_str))
}
