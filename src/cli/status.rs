//! `gatepost status`: shows the state of the relay on one screen.
//!
//! It asks the running daemon over the admin socket. Exit status: 0; 1 if no daemon answers; 2 for
//! unusable arguments or an unusable configuration.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::admin_client::SocketError;
use super::format::{age, brief, count, plain, short, size, time};
use super::history::alarm_line;
use super::runtime::run_with_daemon;
use super::{ConfigFile, json, show};
use crate::admin::api::status::{
    AttemptsStatus, CertificateOwner, CertificateStatus, ClientsStatus, ExceptionStatus,
    FailingDestination, RecentDowngrade, RecentRefusal, RelayStatus, ReportsStatus,
};

/// The maximum number of lines of each list. JSON has all of them.
const LINES_MAX: usize = 5;

/// Show the state of the relay: queue, destinations in trouble, certificates, exceptions, refusals
///
/// The command asks the running daemon over its admin socket. The status page ([admin] http) shows
/// the same.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// Print one JSON document, with everything that is known
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: &StatusArguments) -> ExitCode {
    run_with_daemon("status", &arguments.file.config, async |client| {
        let status: RelayStatus = client.get("/v1/status").await?;
        show(&if arguments.json {
            json::line(&status)
        } else {
            screen(&status)
        });
        Ok::<_, SocketError>(ExitCode::SUCCESS)
    })
}

/// Returns the whole screen.
fn screen(status: &RelayStatus) -> String {
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
        .for_each(|alarm| text.push_str(&alarm_line(alarm)));
    let queue = &status.queue;
    let oldest = queue
        .oldest
        .map(|oldest| format!(", oldest {}", age(oldest, now)))
        .unwrap_or_default();
    let (octets, waiting, held) = (size(queue.octets), queue.waiting, queue.held);
    let messages = count(queue.messages, "message");
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "\nqueue: {messages} ({octets}), recipients: {waiting} waiting, {held} held{oldest}"
    );
    text.push_str(&reports(&status.reports));
    status
        .attempts
        .iter()
        .for_each(|share| text.push_str(&attempts(share)));
    list(
        &mut text,
        "destinations in trouble",
        &status.troubles,
        status.more_troubles,
        |item| destination(item, now),
    );
    list(
        &mut text,
        "certificates",
        &status.certificates,
        status.more_certificates,
        certificate,
    );
    list(
        &mut text,
        "exceptions in force",
        &status.exceptions,
        0,
        exception,
    );
    list(
        &mut text,
        "downgrade warnings",
        &status.downgrades,
        0,
        downgrade,
    );
    text.push_str(&clients(&status.clients));
    list(&mut text, "last refusals", &status.refusals, 0, refusal);
    text
}

/// Returns the line about reports that are not stored yet; empty if there are none.
fn reports(reports: &ReportsStatus) -> String {
    let ReportsStatus {
        waiting,
        for_digest,
        ..
    } = reports;
    if *waiting == 0 && *for_digest == 0 {
        return String::new();
    }
    format!(
        "reports to senders: {waiting} waiting; for the postmaster's next digest: {for_digest}\n"
    )
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
        "delivery attempts for {}: {running} of {most}, {slow} slow{full}\n",
        share.destinations()
    )
}

/// Adds a heading and the first lines of a list. `more` counts the items that are not in `items`.
fn list<T>(
    text: &mut String,
    heading: &str,
    items: &[T],
    more: usize,
    line: impl Fn(&T) -> String,
) {
    // Writing into a String cannot fail.
    if items.is_empty() {
        let _ = writeln!(text, "\n{heading}: none");
        return;
    }
    let _ = writeln!(text, "\n{heading}:");
    for item in items.iter().take(LINES_MAX) {
        let _ = writeln!(text, "  {}", line(item));
    }
    let more = more + items.len().saturating_sub(LINES_MAX);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
}

fn destination(destination: &FailingDestination, now: Timestamp) -> String {
    let FailingDestination {
        domain,
        connector,
        waiting,
        held,
        oldest,
        reason,
        next,
    } = destination;
    let next = match next {
        Some(next) => format!(", next attempt in {}", brief(now.duration_until(*next))),
        None if *waiting > 0 => ", next attempt as soon as a connection is free".to_owned(),
        None => String::new(),
    };
    let (domain, connector, since) = (plain(domain), plain(connector), age(*oldest, now));
    let (status, reason) = (plain(&reason.status), short(&reason.text));
    format!(
        "{domain} ({connector}): {waiting} waiting, {held} held, since {since}{next}\n    {status} {reason}"
    )
}

fn certificate(certificate: &CertificateStatus) -> String {
    let place = plain(&certificate.place);
    let name = match (certificate.owner, &certificate.connector) {
        (CertificateOwner::Own, _) | (CertificateOwner::Partner, None) => place,
        (CertificateOwner::Partner, Some(connector)) => format!("{place} ({})", plain(connector)),
    };
    let left = match certificate.days_left {
        ..=-1 => "EXPIRED".to_owned(),
        days => format!("{} left", count(days, "day")),
    };
    let refused = certificate
        .refused
        .as_ref()
        .map(|why| format!("\n    REFUSED: {}", short(why)))
        .unwrap_or_default();
    format!(
        "{name}: {left}, until {}{refused}",
        certificate.not_after.strftime("%Y-%m-%d")
    )
}

fn exception(exception: &ExceptionStatus) -> String {
    let ExceptionStatus {
        connector,
        tls,
        until,
        reason,
    } = exception;
    format!(
        "{}: {} until the end of {until}: {}",
        plain(connector),
        plain(tls),
        short(reason)
    )
}

fn downgrade(downgrade: &RecentDowngrade) -> String {
    let RecentDowngrade {
        connector,
        domain,
        host,
        was,
        got,
        ..
    } = downgrade;
    let [domain, host, was, got, connector] =
        [domain, host, was, got, connector].map(|text| plain(text));
    format!("{domain} ({connector}): {host} had {was} and now has {got}")
}

/// Returns the lines about sessions and about the clients that are held back.
fn clients(clients: &ClientsStatus) -> String {
    let ClientsStatus {
        sessions,
        sessions_max,
        strangers,
        strangers_max,
        ..
    } = clients;
    let mut text = format!(
        "\nsessions: {sessions} of {sessions_max}, {strangers} of {strangers_max} by clients outside of [relay] networks\n"
    );
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "  memory of transactions: {}",
        size(clients.transaction_memory)
    );
    for listener in &clients.short {
        let _ = writeln!(
            text,
            "  SCARCE on listener {}: clients outside of [relay] networks get less time",
            plain(listener)
        );
    }
    list(
        &mut text,
        "clients held back",
        &clients.held,
        clients.more_held,
        |held| {
            format!(
                "{}: {}, {} times, last {}",
                plain(&held.client),
                plain(&held.limit),
                held.times,
                time(held.last)
            )
        },
    );
    text
}

fn refusal(refusal: &RecentRefusal) -> String {
    let RecentRefusal {
        at,
        direction,
        connector,
        peer,
        reason,
        times,
    } = refusal;
    let times = if *times > 1 {
        format!(", {times} times")
    } else {
        String::new()
    };
    let connector = if connector.is_empty() {
        String::new()
    } else {
        format!(" ({})", plain(connector))
    };
    let (at, direction, peer) = (time(*at), plain(direction), plain(peer));
    format!(
        "{at} {direction} {peer}{connector}{times}\n    {}",
        short(reason)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_fits_on_one_screen() {
        let certificate = r#"{"owner":"own","place":"relay.pem","names":["relay.example.com"],"not_after":"2026-12-06T00:00:00Z","days_left":9}"#;
        let refusal = r#"{"at":"2026-11-26T00:31:00Z","direction":"inbound","connector":"","peer":"192.0.2.1","reason":"550 no","times":2}"#;
        let of_a_connector = r#"{"at":"2026-11-26T00:30:00Z","direction":"outbound","connector":"bank","peer":"mx.bank.example","reason":"no TLS","times":1}"#;
        let held = r#"{"client":"192.0.2.0/24","limit":"messages_per_minute","since":"2026-11-26T00:00:00Z","last":"2026-11-26T01:29:30Z","times":812}"#;
        let text = format!(
            r#"{{"version":"0.1.0","hostname":"relay.example.com","since":"2026-11-26T00:00:00Z","at":"2026-11-26T01:30:00Z",
            "queue":{{"messages":1,"octets":2048,"waiting":1,"held":0,"oldest":"2026-11-26T00:30:00Z","counted":null}},
            "reports":{{"waiting":3,"for_digest":12,"stored":9,"delayed":3,"merged":0,"digests":1}},
            "attempts":[{{"share":"named","most":800,"running":3,"slow":1,"waiting":0,"full_seconds":null}},
            {{"share":"mx","most":1200,"running":1200,"slow":900,"waiting":7,"full_seconds":130}}],
            "troubles":[{{"domain":"b.example","connector":"internet","waiting":1,"held":0,"oldest":"2026-11-26T00:30:00Z",
            "reason":{{"at":"2026-11-26T01:00:00Z","status":"4.7.4","text":"mx.b.example: no\u001b[31m TLS","host":null,"reply":null}},
            "next":"2026-11-26T01:35:00Z"}}],"more_troubles":0,"connectors":[],"more_connectors":0,
            "certificates":[{certificate},{certificate},{certificate},{certificate},{certificate},{certificate}],"more_certificates":2,
            "clients":{{"sessions":30,"sessions_max":40,"strangers":29,"strangers_max":36,"transaction_memory":2048,"short":["mx"],"held":[{held}],"more_held":0}},
            "exceptions":[],"refusals":[{refusal},{of_a_connector}],"downgrades":[],"alarms":[]}}"#
        );
        let status: RelayStatus = serde_json::from_str(&text).expect("a status");
        let line = "  relay.pem: 9 days left, until 2026-12-06\n";
        let expected = format!(
            "relay.example.com, Gatepost 0.1.0, up since 2026-11-26 00:00:00 UTC (1h 30m)\n\n\
             queue: 1 message (2.0 KiB), recipients: 1 waiting, 0 held, oldest 1h 0m\n\
             reports to senders: 3 waiting; for the postmaster's next digest: 12\n\
             delivery attempts for named connectors and smart hosts: 3 of 800, 1 slow\n\
             delivery attempts for destinations by MX: 1200 of 1200, 900 slow; ALL IN USE for 2m, 7 destinations wait\n\n\
             destinations in trouble:\n  b.example (internet): 1 waiting, 0 held, since 1h 0m, next attempt in 5m\n    \
             4.7.4 mx.b.example: no\u{fffd}[31m TLS\n\ncertificates:\n{}  and 3 more\n\nexceptions in force: none\n\n\
             downgrade warnings: none\n\nsessions: 30 of 40, 29 of 36 by clients outside of [relay] networks\n  \
             memory of transactions: 2.0 KiB\n  SCARCE on listener mx: clients outside of [relay] networks get less time\n\nclients held back:\n  \
             192.0.2.0/24: messages_per_minute, 812 times, last 2026-11-26 01:29:30 UTC\n\nlast refusals:\n  2026-11-26 00:31:00 UTC inbound 192.0.2.1, 2 times\n    550 no\n  \
             2026-11-26 00:30:00 UTC outbound mx.bank.example (bank)\n    no TLS\n",
            line.repeat(5)
        );
        assert_eq!(screen(&status), expected);
    }
}
