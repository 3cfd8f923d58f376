//! `gatepost status`: shows the state of the relay on one screen, or that of mail to one domain.
//!
//! It asks the running daemon over the admin socket. Exit status: 0; 1 if nothing is known of the
//! domain, the relay is not ready or no daemon answers; 2 for unusable arguments or an unusable configuration.

mod domain;
mod revocation_lists;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::admin_client::{AdminClient, SocketError, percent_encoded};
use super::config_file::ConfigFile;
use super::format::{
    INDENT, Table, age, brief, count, count_age, plain, short, size, time, width, wrap,
};
use super::history::alarm_lines;
use super::json;
use super::output::show;
use super::runtime::run_with_daemon;
use crate::admin::api::HeldClient;
use crate::admin::api::domain::DomainStatus;
use crate::admin::api::evidence::EvidenceStatus;
use crate::admin::api::recipients::RecipientsStatus;
use crate::admin::api::status::{
    AttemptsStatus, CertificateOwner, CertificateStatus, ClientsStatus, DatabaseStatus,
    ExceptionStatus, FailingDestination, QueueStatus, Readiness, RecentDowngrade, RecentRefusal,
    RelayStatus, ReportsStatus,
};
use crate::smtp::address::Host;

/// The maximum number of lines of each list. JSON has all of them.
const LINES_MAX: usize = 5;

/// Show the state of the relay: queue, destinations in trouble, certificates, exceptions, refusals
///
/// With a domain, show what is known of mail to it: what waits and why, the last attempt, what
/// senders read in a report, the connector and the demand, the downgrade memory, and the
/// commands that help. The command asks the running daemon over its admin socket; no host is
/// dialled. The status page ([admin] http) shows the state of the relay too.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// A recipient domain, or an address at it
    #[arg(value_name = "DOMAIN|ADDRESS", value_parser = super::probe::host)]
    domain: Option<Host>,
    /// Show whether mail is accepted and delivered, as /readyz does; the exit status is 1 if not
    #[arg(long, conflicts_with = "domain")]
    ready: bool,
    /// Print one JSON document, with everything that is known
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: &StatusArguments) -> ExitCode {
    run_with_daemon("status", &arguments.file.config, async |client| {
        if let Some(domain) = &arguments.domain {
            return show_domain(&client, domain, arguments.json).await;
        }
        if arguments.ready {
            return show_readiness(&client, arguments.json).await;
        }
        let status: RelayStatus = client.get("/v1/status").await?;
        show(&if arguments.json {
            json::line(&status)
        } else {
            screen(&status, width())
        });
        Ok::<_, SocketError>(ExitCode::SUCCESS)
    })
}

/// Prints whether the relay is ready.
async fn show_readiness(client: &AdminClient, json: bool) -> Result<ExitCode, SocketError> {
    let readiness: Readiness = client.get("/v1/ready").await?;
    show(&if json {
        json::line(&readiness)
    } else {
        readiness.text()
    });
    Ok(if readiness.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints what is known of a domain. A domain of which nothing is known is a negative answer.
async fn show_domain(
    client: &AdminClient,
    domain: &Host,
    json: bool,
) -> Result<ExitCode, SocketError> {
    let target = format!("/v1/domain?domain={}", percent_encoded(&domain.to_string()));
    let status: DomainStatus = client.get(&target).await?;
    show(&if json {
        json::line(&domain::document(&status))
    } else {
        domain::screen(&status, width())
    });
    Ok(if domain::is_known(&status) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the screen for a terminal with `width` columns.
fn screen(status: &RelayStatus, width: usize) -> String {
    let now = status.at;
    let (version, since) = (plain(&status.version), time(status.since));
    let mut text = format!(
        "{}, Gatepost {version}, up since {since} ({})\n",
        plain(&status.hostname),
        age(status.since, now)
    );
    status
        .alarms
        .iter()
        .for_each(|alarm| text.push_str(&alarm_lines(alarm, width)));
    text.push('\n');
    if let Some(reason) = &status.spool_lost {
        let line = format!("NEW MAIL IS REJECTED AND NO DELIVERY STARTS: {reason}");
        wrap(&mut text, "", INDENT, &line, width);
    }
    wrap(&mut text, "", INDENT, &queue(&status.queue, now), width);
    if let Some(line) = reports(&status.reports) {
        wrap(&mut text, "", INDENT, &line, width);
    }
    if let Some(database) = &status.database {
        wrap(&mut text, "", INDENT, &database_line(database), width);
    }
    if let Some(evidence) = &status.evidence {
        wrap(&mut text, "", INDENT, &evidence_line(evidence), width);
    }
    for table in &status.recipients {
        recipients(&mut text, table, width);
    }
    for share in &status.attempts {
        wrap(&mut text, "", INDENT, &attempts(share), width);
    }
    let mut list =
        |heading: &str, table: Table, more: usize| section(&mut text, heading, &table, more, width);
    let (shown, more) = first(&status.troubles, status.more_troubles);
    list("destinations in trouble", destinations(shown, now), more);
    let (shown, more) = first(&status.certificates, status.more_certificates);
    list("certificates", certificates(shown), more);
    if !status.crls.is_empty() {
        let (shown, more) = first(&status.crls, status.more_crls);
        list(
            revocation_lists::HEADING,
            revocation_lists::table(shown, now),
            more,
        );
    }
    let (shown, more) = first(&status.exceptions, 0);
    list("exceptions in force", exceptions(shown), more);
    let (shown, more) = first(&status.downgrades, 0);
    list("downgrades that were let through", downgrades(shown), more);
    sessions(&mut text, &status.clients, width);
    let mut list =
        |heading: &str, table: Table, more: usize| section(&mut text, heading, &table, more, width);
    let (shown, more) = first(&status.clients.held, status.clients.more_held);
    list("clients held back", held_clients(shown), more);
    let (shown, more) = first(&status.refusals, 0);
    list("last refusals", refusals(shown), more);
    text
}

/// Returns the line about the database with the queue.
fn database_line(database: &DatabaseStatus) -> String {
    let durability: Vec<_> = database.durability.iter().map(|part| plain(part)).collect();
    let mut line = format!(
        "database: {}, as node {}; {}",
        plain(&database.url),
        plain(&database.node),
        durability.join("; ")
    );
    if let Some(trouble) = &database.trouble {
        line.push_str("; NEW MAIL IS REJECTED: ");
        line.push_str(&plain(trouble));
    }
    line
}

/// Returns the line about the queue.
fn queue(queue: &QueueStatus, now: Timestamp) -> String {
    let (messages, octets) = (count(queue.messages, "message"), size(queue.octets));
    let parts = [(queue.waiting, "waiting"), (queue.held, "held")];
    let recipients = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {state}"));
    let recipients: Vec<String> = recipients.collect();
    let counted = queue
        .counted
        .and_then(|counted| count_age(counted, now))
        .map(|age| format!("; {age}"))
        .unwrap_or_default();
    match (recipients.is_empty(), queue.oldest) {
        (true, _) if queue.messages == 0 => format!("queue: empty{counted}"),
        (true, _) => format!("queue: {messages} ({octets}){counted}"),
        (false, oldest) => {
            let oldest = oldest
                .map(|oldest| format!(", oldest {}", age(oldest, now)))
                .unwrap_or_default();
            format!(
                "queue: {messages} ({octets}), recipients: {}{oldest}{counted}",
                recipients.join(", ")
            )
        }
    }
}

/// Returns the line about reports that are not stored yet, if there are any.
fn reports(reports: &ReportsStatus) -> Option<String> {
    let ReportsStatus {
        waiting,
        for_digest,
        ..
    } = reports;
    let is_any = *waiting > 0 || *for_digest > 0;
    is_any.then(|| {
        format!(
            "reports to senders: {waiting} waiting; for the postmaster's next digest: {for_digest}"
        )
    })
}

/// Returns the line about the size of the evidence.
fn evidence_line(evidence: &EvidenceStatus) -> String {
    let (octets, max) = (size(evidence.octets), size(evidence.max_octets));
    let trouble = if evidence.stuck {
        "; CANNOT BE WRITTEN: deliveries wait, see the log"
    } else if evidence.rejects_mail {
        "; NEW MAIL IS REJECTED: run gatepost evidence archive, or raise [evidence] max_size"
    } else {
        ""
    };
    format!(
        "evidence: {octets} of {max} ({} %){trouble}",
        evidence.percent
    )
}

/// Adds the lines about a table of recipients.
fn recipients(text: &mut String, table: &RecipientsStatus, width: usize) {
    let domains = plain(&table.domains.join(", "));
    let line = format!("recipients of {domains}: {}", table.describe());
    wrap(text, "", INDENT, &line, width);
    for trouble in table.troubles() {
        wrap(text, "  ", INDENT, &plain(&trouble), width);
    }
}

/// Returns the line about one share of the delivery attempts.
fn attempts(share: &AttemptsStatus) -> String {
    let AttemptsStatus {
        most,
        running,
        slow,
        waiting,
        ..
    } = share;
    let slow = if *slow > 0 {
        format!(", {slow} slow")
    } else {
        String::new()
    };
    let full = match share.full_seconds {
        Some(seconds) => format!(
            "; ALL IN USE for {}, {waiting} destinations wait",
            brief(SignedDuration::from_secs(
                i64::try_from(seconds).unwrap_or(i64::MAX)
            ))
        ),
        None => String::new(),
    };
    format!(
        "delivery attempts for {}: {running} of {most}{slow}{full}",
        share.destinations()
    )
}

/// Returns the first items of a list, and the number of the others. `more` counts those that are
/// not in `items`.
fn first<T>(items: &[T], more: usize) -> (&[T], usize) {
    let shown = items.len().min(LINES_MAX);
    (&items[..shown], more + items.len() - shown)
}

/// Adds a table under a heading, and the number of rows that it does not have.
fn section(text: &mut String, heading: &str, table: &Table, more: usize, width: usize) {
    let rows = table.render(width.saturating_sub(2));
    // Writing into a String cannot fail.
    if rows.is_empty() {
        let _ = writeln!(text, "\n{heading}: none");
        return;
    }
    let _ = writeln!(text, "\n{heading}:");
    for line in rows.lines() {
        let _ = writeln!(text, "  {line}");
    }
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
}

fn destinations(destinations: &[FailingDestination], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "domain",
        "connector",
        "waiting",
        "held",
        "oldest",
        "next attempt",
    ]);
    for FailingDestination {
        domain,
        connector,
        waiting,
        held,
        oldest,
        reason,
        next,
    } in destinations
    {
        let next = match next {
            Some(next) => format!("in {}", brief(now.duration_until(*next))),
            None if *waiting > 0 => "due".to_owned(),
            None => String::new(),
        };
        let (waiting, held) = (waiting.to_string(), held.to_string());
        table.row([
            plain(domain),
            plain(connector),
            waiting,
            held,
            age(*oldest, now),
            next,
        ]);
        table.note(format!("{} {}", plain(&reason.status), short(&reason.text)));
    }
    table
}

fn certificates(certificates: &[CertificateStatus]) -> Table {
    let mut table = Table::new(&["certificate", "connector", "expires", "time left"]);
    for certificate in certificates {
        let connector = match (certificate.owner, &certificate.connector) {
            (CertificateOwner::Own, _) | (CertificateOwner::Partner, None) => String::new(),
            (CertificateOwner::Partner, Some(connector)) => plain(connector),
        };
        let left = match certificate.days_left {
            ..=-1 => "EXPIRED".to_owned(),
            days => count(days, "day"),
        };
        let expires = certificate.not_after.strftime("%Y-%m-%d").to_string();
        table.row([plain(&certificate.place), connector, expires, left]);
        table.note(
            certificate
                .refused
                .as_ref()
                .map(|why| format!("REFUSED: {}", short(why)))
                .unwrap_or_default(),
        );
    }
    table
}

fn exceptions(exceptions: &[ExceptionStatus]) -> Table {
    let mut table = Table::new(&["connector", "last day", "demand until then"]);
    for ExceptionStatus {
        connector,
        tls,
        until,
        reason,
    } in exceptions
    {
        table
            .row([plain(connector), until.to_string(), plain(tls)])
            .note(short(reason));
    }
    table
}

fn downgrades(downgrades: &[RecentDowngrade]) -> Table {
    let mut table = Table::new(&["domain", "connector", "host", "before", "now"]);
    for RecentDowngrade {
        connector,
        domain,
        host,
        was,
        got,
        ..
    } in downgrades
    {
        table.row([domain, connector, host, was, got].map(|text| plain(text)));
    }
    table
}

/// Adds the lines about sessions with clients.
fn sessions(text: &mut String, clients: &ClientsStatus, width: usize) {
    let ClientsStatus {
        sessions,
        sessions_max,
        strangers,
        strangers_max,
        ..
    } = clients;
    let line = format!(
        "sessions: {sessions} of {sessions_max}, {strangers} of {strangers_max} by clients outside of [relay] networks"
    );
    text.push('\n');
    wrap(text, "", INDENT, &line, width);
    if clients.transaction_memory > 0 {
        wrap(
            text,
            "  ",
            INDENT,
            &format!(
                "memory of transactions: {}",
                size(clients.transaction_memory)
            ),
            width,
        );
    }
    for listener in &clients.short {
        let listener = plain(listener);
        let line = format!(
            "SCARCE on listener {listener}: clients outside of [relay] networks get less time"
        );
        wrap(text, "  ", INDENT, &line, width);
    }
}

fn held_clients(clients: &[HeldClient]) -> Table {
    let mut table = Table::new(&["client", "limit", "times", "last"]);
    for held in clients {
        table.row([
            plain(&held.client),
            plain(&held.limit),
            held.times.to_string(),
            time(held.last),
        ]);
    }
    table
}

fn refusals(refusals: &[RecentRefusal]) -> Table {
    let mut table = Table::new(&["time", "direction", "peer", "connector", "times"]);
    for RecentRefusal {
        at,
        direction,
        connector,
        peer,
        reason,
        times,
    } in refusals
    {
        table
            .row([
                time(*at),
                plain(direction),
                plain(peer),
                plain(connector),
                times.to_string(),
            ])
            .note(short(reason));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_about_evidence_says_what_it_stops() {
        let line = |rejects_mail, stuck| {
            evidence_line(&EvidenceStatus {
                octets: 512 << 20,
                max_octets: 1 << 30,
                percent: 50,
                level: String::new(),
                rejects_mail,
                stuck,
            })
        };
        assert_eq!(line(false, false), "evidence: 512.0 MiB of 1.0 GiB (50 %)");
        assert!(line(true, false).ends_with("raise [evidence] max_size"));
        for rejects_mail in [false, true] {
            assert!(line(rejects_mail, true).contains("deliveries wait"));
        }
    }

    #[test]
    fn the_status_fits_on_a_screen_of_80_columns() {
        let certificate = r#"{"owner":"own","place":"relay.pem","names":["relay.example.com"],"not_after":"2026-12-06T00:00:00Z","days_left":9}"#;
        let refusal = r#"{"at":"2026-11-26T00:31:00Z","direction":"inbound","connector":"","peer":"192.0.2.1","reason":"550 no","times":2}"#;
        let of_a_connector = r#"{"at":"2026-11-26T00:30:00Z","direction":"outbound","connector":"bank","peer":"mx.bank.example","reason":"no TLS","times":1}"#;
        let held = r#"{"client":"192.0.2.0/24","limit":"messages_per_minute","since":"2026-11-26T00:00:00Z","last":"2026-11-26T01:29:30Z","times":812}"#;
        let text = format!(
            r#"{{"version":"0.1.0","hostname":"relay.example.com","since":"2026-11-26T00:00:00Z","at":"2026-11-26T01:30:00Z",
            "queue":{{"messages":1,"octets":2048,"waiting":1,"held":0,"oldest":"2026-11-26T00:30:00Z",
            "counted":"2026-11-26T01:28:50Z"}},
            "reports":{{"waiting":3,"for_digest":12,"stored":9,"delayed":3,"merged":0,"digests":1}},
            "spool_lost":"/var/spool/gatepost was moved; put it back",
            "database":{{"url":"postgresql://g@db:5432/mail","node":"relay-1","two_disks":false,
            "durability":["PostgreSQL 15.8","250 means on one disk"],"trouble":"the database does not answer: db:5432: no"}},
            "evidence":{{"octets":51858374656,"max_octets":53687091200,"percent":96,"level":"rejects_mail","rejects_mail":true,"stuck":false}},
            "attempts":[{{"share":"named","most":800,"running":3,"slow":1,"waiting":0,"full_seconds":null}},
            {{"share":"mx","most":1200,"running":1200,"slow":900,"waiting":7,"full_seconds":130}}],
            "troubles":[{{"domain":"b.example","connector":"internet","waiting":1,"held":0,"oldest":"2026-11-26T00:30:00Z",
            "reason":{{"at":"2026-11-26T01:00:00Z","status":"4.7.4","text":"mx.b.example: no\u001b[31m TLS","host":null,"reply":null}},
            "next":"2026-11-26T01:35:00Z"}}],"more_troubles":0,"connectors":[],"more_connectors":0,
            "certificates":[{certificate},{certificate},{certificate},{certificate},{certificate},{certificate}],"more_certificates":2,
            "clients":{{"sessions":30,"sessions_max":40,"strangers":29,"strangers_max":36,"transaction_memory":2048,"short":["mx"],"held":[{held}],"more_held":0}},
            "recipients":[{{"domains":["example.com"],"from":"ask","addresses":null,"known":812,"unknown":40,"pending":1,
            "trouble":"mbox.example.com: no answer","on_trouble":"defer","unchecked":["example.net"]}},
            {{"domains":["example.org"],"from":"file","addresses":7,"known":0,"unknown":0,"pending":0,
            "trouble":null,"on_trouble":"defer","unchecked":[]}}],
            "exceptions":[],"refusals":[{refusal},{of_a_connector}],"downgrades":[],"alarms":[]}}"#
        );
        let status: RelayStatus = serde_json::from_str(&text).expect("a status");
        let line = "  relay.pem    2026-12-06  9 days\n";
        let expected = format!(
            "relay.example.com, Gatepost 0.1.0, up since 2026-11-26 00:00:00 UTC (1h 30m)\n\n\
             NEW MAIL IS REJECTED AND NO DELIVERY STARTS: /var/spool/gatepost was moved; put\n    \
             it back\n\
             queue: 1 message (2.0 KiB), recipients: 1 waiting, oldest 1h 0m; counted 1m ago\n\
             reports to senders: 3 waiting; for the postmaster's next digest: 12\n\
             database: postgresql://g@db:5432/mail, as node relay-1; PostgreSQL 15.8; 250\n    \
             means on one disk; NEW MAIL IS REJECTED: the database does not answer:\n    \
             db:5432: no\n\
             evidence: 48.2 GiB of 50.0 GiB (96 %); NEW MAIL IS REJECTED: run gatepost\n    \
             evidence archive, or raise [evidence] max_size\n\
             recipients of example.com: asked at the server; remembered: 812 that exist, 40\n    \
             that do not\n  \
             NO ANSWER, mail is deferred: mbox.example.com: no answer\n  \
             NOT CHECKED: the server of example.net accepts any address\n\
             recipients of example.org: 7 addresses listed in a file\n\
             delivery attempts for named connectors and smart hosts: 3 of 800, 1 slow\n\
             delivery attempts for destinations by MX: 1200 of 1200, 900 slow; ALL IN USE for\n    \
             2m, 7 destinations wait\n\n\
             destinations in trouble:\n  domain     connector  waiting  oldest  next attempt\n  \
             b.example  internet   1        1h 0m   in 5m\n      4.7.4 mx.b.example: no\u{fffd}[31m TLS\n\n\
             certificates:\n  certificate  expires     time left\n{}  and 3 more\n\nexceptions in force: none\n\n\
             downgrades that were let through: none\n\nsessions: 30 of 40, 29 of 36 by clients outside of [relay] networks\n  \
             memory of transactions: 2.0 KiB\n  SCARCE on listener mx: clients outside of [relay] networks get less time\n\n\
             clients held back:\n  client        limit                times  last\n  \
             192.0.2.0/24  messages_per_minute  812    2026-11-26 01:29:30 UTC\n\nlast refusals:\n  \
             time                     direction  peer             connector  times\n  \
             2026-11-26 00:31:00 UTC  inbound    192.0.2.1                   2\n      550 no\n  \
             2026-11-26 00:30:00 UTC  outbound   mx.bank.example  bank       1\n      no TLS\n",
            line.repeat(5)
        );
        assert_eq!(screen(&status, 80), expected);
    }
}
