//! `gatepost evidence list`.

use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use jiff::Timestamp;

use super::super::queue::words::{plain, short};
use super::{Form, csv, left_out, status};
use crate::address::Host;
use crate::cli::show;
use crate::evidence::{Certificate, Delivery, EvidenceError, Level, Link, TlsSession, deliveries};

/// Rows that are laid out at a time.
const PAGE: usize = 500;

const COLUMNS: [&str; 33] = [
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
];

/// Which deliveries.
pub(super) struct Wanted<'a> {
    pub(super) domain: Option<&'a Host>,
    pub(super) queue_id: Option<&'a str>,
}

impl Wanted<'_> {
    fn is(&self, delivery: &Delivery) -> bool {
        self.domain.is_none_or(|domain| domain.to_string() == delivery.domain)
            && self.queue_id.is_none_or(|id| id.eq_ignore_ascii_case(&delivery.queue_id))
    }
}

pub(super) fn run(
    folder: &Path,
    wanted: &Wanted<'_>,
    since: Option<Timestamp>,
    form: Form,
) -> Result<ExitCode, EvidenceError> {
    let mut count = 0_u64;
    let mut rows = Vec::new();
    if form.csv {
        show(&csv::line(COLUMNS));
    }
    let reading = deliveries(folder, since, |line, link, delivery| {
        if !wanted.is(&delivery) {
            return true;
        }
        if form.json {
            show(if count == 0 { "[\n" } else { ",\n" });
            show(line);
        } else if form.csv {
            show(&as_csv(link, &delivery));
        } else {
            rows.push(row(link, &delivery));
            if rows.len() >= PAGE {
                show(&table(&std::mem::take(&mut rows)));
            }
        }
        count += 1;
        true
    })?;
    if form.json {
        show(if count == 0 { "[]\n" } else { "\n]\n" });
    } else if !form.csv {
        if !rows.is_empty() {
            show(&table(&rows));
        }
        show(&match count {
            0 => "no delivery is on record that matches\n".to_owned(),
            1 => "1 delivery\n".to_owned(),
            more => format!("{more} deliveries\n"),
        });
    }
    Ok(status(!left_out(reading, folder) && count > 0))
}

fn row(link: &Link, delivery: &Delivery) -> [String; 8] {
    let level = delivery.session.as_ref().map_or_else(|| "no session".to_owned(), |session| session.level.to_string());
    let address = |text: &str| if text.is_empty() { "<>".to_owned() } else { plain(text) };
    [
        link.time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
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

fn table(rows: &[[String; 8]]) -> String {
    let mut table = Table::new();
    let header = ["time (UTC)", "id", "from", "to", "connector", "TLS", "demand", "outcome"];
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

fn as_csv(link: &Link, delivery: &Delivery) -> String {
    let session = delivery.session.as_ref();
    let tls = session.and_then(|session| session.tls.as_ref());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let of_tls = |part: fn(&TlsSession) -> String| tls.map(part).unwrap_or_default();
    let certificate = tls.and_then(|tls| tls.certificate.as_ref());
    let shown = |part: fn(&Certificate) -> String| certificate.map(part).unwrap_or_default();
    let demands = delivery.policy.as_ref().map(|policy| {
        let all = policy.demands.iter().map(|demand| format!("{}: {}", demand.layer, demand.wanted));
        all.collect::<Vec<_>>().join("; ")
    });
    let exception = delivery.exception.as_ref().map(|held| format!("until {}: {}", held.until, held.reason));
    let unmet = delivery.unmet.as_ref().map(|unmet| format!("{}: {}, but {}", unmet.layer, unmet.wanted, unmet.got));
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
        demands.unwrap_or_default(),
        exception.unwrap_or_default(),
        text(&delivery.host),
        text(&delivery.address),
        session.map(|session| session.level.word().to_owned()).unwrap_or_default(),
        session.and_then(|session| session.no_tls.clone()).unwrap_or_default(),
        of_tls(|tls| tls.version.clone()),
        of_tls(|tls| tls.cipher.clone()),
        of_tls(|tls| tls.key_exchange.clone().unwrap_or_default()),
        of_tls(|tls| if tls.resumed { "yes".to_owned() } else { String::new() }),
        shown(|certificate| certificate.spki.clone()),
        shown(names),
        shown(|certificate| certificate.issuer.clone()),
        of_tls(|tls| tls.authentication.clone()),
        of_tls(|tls| tls.matched_name.clone().unwrap_or_default()),
        delivery.standing.word().to_owned(),
        unmet.unwrap_or_default(),
        delivery.outcome.word().to_owned(),
        delivery.status.clone(),
        text(&delivery.reply),
        text(&delivery.reason),
        of_tls(|tls| tls.client_hello.clone().unwrap_or_default()),
    ];
    csv::line(cells.iter().map(String::as_str))
}
