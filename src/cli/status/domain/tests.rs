//! The screen about one domain, by what is known of it.

use serde_json::{Value, json};

use super::*;

/// A domain whose mail is refused since its TLS was lost.
fn lost_tls() -> Value {
    let reason = json!({
        "at": "2026-11-30T03:10:02Z", "status": "4.7.4", "host": "mx.lawyers.example", "reply": null,
        "text": "mx.lawyers.example [192.0.2.1]:25: TLS is demanded by downgrade memory, but the peer does not offer STARTTLS",
        "explanation": "The mail system relay.example.com sends to lawyers.example only encrypted, because their server accepted it so until 29 Nov 2026."
    });
    json!({
        "domain": "lawyers.example", "at": "2026-11-30T03:12:44Z", "since": "2026-11-28T00:00:00Z",
        "connector": {
            "name": "internet", "demand": "TLS opportunistic", "exception": null, "on_failure": "defer", "downgrade": "refuse"
        },
        "queue": {
            "counted": "2026-11-30T03:12:44Z", "waiting": 3, "held": 0, "oldest": "2026-11-30T01:07:44Z",
            "next": "2026-11-30T03:16:44Z", "expires": "2026-12-05T01:07:44Z", "reports_holds": true, "delays_reported": 1, "next_delay_report": "2026-11-30T05:12:44Z",
            "reason": reason, "part_down": null,
            "destination_down": {"until": "2026-11-30T03:16:44Z", "reason": {
                "at": "2026-11-30T03:10:02Z", "status": "4.7.4",
                "text": "mx.lawyers.example [192.0.2.1]:25: TLS is demanded", "host": null, "reply": null
            }}
        },
        "last_attempt": {
            "at": "2026-11-30T03:10:02Z", "queue_id": "0sbe82jf40000", "outcome": "deferred", "status": "4.7.4",
            "text": "mx.lawyers.example [192.0.2.1]:25: TLS is demanded", "host": "mx.lawyers.example",
            "demand": "forced (downgrade memory: TLS)", "tls": null, "explanation": null, "reported": false
        },
        "memory": [{
            "domain": "lawyers.example", "host": "mx.lawyers.example", "best": "tls", "first": "2026-09-01T10:00:00Z",
            "last": "2026-11-29T10:00:00Z", "seen": "2026-11-30T03:10:02Z", "level": "plain", "worse": true, "issuer": null
        }],
        "forgotten": [],
        "mta_sts": {
            "mode": "testing", "mx": ["*.lawyers.example"], "id": "1", "fetched": "2026-11-29T03:12:44Z",
            "expires": "2026-12-01T03:12:44Z"
        }
    })
}

fn status(value: Value) -> DomainStatus {
    serde_json::from_value(value).expect("a status")
}

/// The names of the commands that are advised.
fn advised(status: &DomainStatus) -> Vec<String> {
    let name = |one: HelpfulCommand| one.command.trim_start_matches("gatepost ").to_owned();
    commands(status).into_iter().map(name).collect()
}

/// One screen of 80 columns joins what queue, history and probe show, with what the senders read.
#[test]
fn a_domain_in_trouble_is_one_screen_of_80_columns() {
    let text = screen(&status(lost_tls()), 80);
    let expected = "\
lawyers.example, 2026-11-30 03:12:44 UTC

queue        3 waiting, oldest 2h 5m
next attempt 2026-11-30 03:16:44 UTC, in 4m
expires      2026-12-05 01:07:44 UTC, in 4d 21h; then the oldest bounces
backoff      the destination is not tried until 2026-11-30 03:16:44 UTC, in 4m
last attempt 2026-11-30 03:10:02 UTC, 2m ago: deferred (0sbe82jf40000)
             4.7.4 mx.lawyers.example [192.0.2.1]:25: TLS is demanded
senders      a delay report was sent for 1 of 3 waiting; next delay report
             2026-11-30 05:12:44 UTC, in 2h 0m
report text  \"The mail system relay.example.com sends to lawyers.example only
             encrypted, because their server accepted it so until 29 Nov 2026.\"
connector    internet: TLS opportunistic; on_failure = \"defer\", downgrade =
             \"refuse\"
demand       forced (downgrade memory: TLS), at the last attempt
MTA-STS      testing: *.lawyers.example; fetched 1d 0h ago, cached until
             2026-12-01 03:12:44 UTC, in 1d 0h

downgrade memory:
  lawyers.example
    host   mx.lawyers.example
    best   TLS
    since  2026-09-01
    last   2026-11-29
    seen   2026-11-30
    now    WORSE: no TLS

commands:
  gatepost probe lawyers.example
      dial its hosts now, and see the result that mail would have
  gatepost queue list --domain lawyers.example
      list the messages
  gatepost queue retry --domain lawyers.example
      try now, once the cause is repaired
  gatepost history forget lawyers.example --reason TEXT
      accept that the domain has no TLS now; ask its administrators first
  gatepost evidence list --domain lawyers.example
      list all attempts on record
  gatepost explain lawyers.example
      show what each layer demands of mail to it, and why
";
    assert_eq!(text, expected);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

/// Counts that are older than those of a short queue have their age, also if no mail was counted.
#[test]
fn old_counts_have_their_age() {
    let screen = |counted: &str, waiting: u64| {
        let mut value = lost_tls();
        value["queue"]["counted"] = json!(counted);
        value["queue"]["waiting"] = json!(waiting);
        if waiting == 0 {
            value["queue"]["oldest"] = Value::Null;
        }
        screen(&status(value), 80)
    };
    let old = "2026-11-30T03:12:04Z";
    let text = screen(old, 3);
    assert!(
        text.contains("\nqueue        3 waiting, oldest 2h 5m; counted 40s ago\n"),
        "{text}"
    );
    let text = screen(old, 0);
    assert!(
        text.contains("\nqueue        no mail waits; counted 40s ago\n"),
        "{text}"
    );
    for fresh in ["2026-11-30T03:12:43Z", "2026-11-30T03:12:45Z"] {
        assert!(!screen(fresh, 3).contains("counted"), "{fresh}");
    }
}

/// The time at which waiting mail bounces is shown, and not for held mail.
#[test]
fn waiting_mail_has_the_time_of_its_bounce() {
    let expiry = |waiting: u64, expires: &str| {
        let mut value = lost_tls();
        value["queue"]["waiting"] = json!(waiting);
        value["queue"]["held"] = json!(1);
        value["queue"]["expires"] = json!(expires);
        let text = screen(&status(value), 80);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("expires      "));
        line.map(str::to_owned)
    };
    let in_future = "2026-12-05T01:07:44Z";
    assert_eq!(
        expiry(1, in_future).as_deref(),
        Some("2026-12-05 01:07:44 UTC, in 4d 21h; then it bounces")
    );
    assert_eq!(
        expiry(2, "2026-11-30T03:12:00Z").as_deref(),
        Some("2026-11-30 03:12:00 UTC: the oldest bounces after a last attempt")
    );
    assert_eq!(expiry(0, in_future), None);
}

/// Held mail has a line about its senders, of its own if other mail waits.
#[test]
fn held_mail_has_its_senders() {
    let senders = |waiting: u64, reports_holds: bool| {
        let mut value = lost_tls();
        (value["queue"]["waiting"], value["queue"]["held"]) = (json!(waiting), json!(2));
        value["queue"]["reports_holds"] = json!(reports_holds);
        let text = screen(&status(value), 200);
        let start = text.find("\nsenders").expect("a line");
        let end = text.find("\nreport text").expect("a line");
        text[start..end].to_owned()
    };
    let held = "held mail: a delay report was sent if a TLS policy held it, none if an operator did; it bounces only by an order";
    assert_eq!(senders(0, true), format!("\nsenders      {held}"));
    assert_eq!(
        senders(0, false),
        "\nsenders      held mail: no report was sent, as [queue] warn_after says; it bounces only by an order"
    );
    assert_eq!(
        senders(3, true),
        format!(
            "\nsenders      a delay report was sent for 1 of 3 waiting; next delay report 2026-11-30 05:12:44 UTC, in 2h 0m\n\
             {:13}{held}",
            ""
        )
    );
}

/// A reason is shown once: that of the last attempt is not repeated, and another one is kept.
#[test]
fn each_reason_is_shown_once() {
    let count = |value: Value, text: &str| screen(&status(value), 200).matches(text).count();
    let same = "4.7.4 mx.lawyers.example [192.0.2.1]:25: TLS is demanded";
    assert_eq!(count(lost_tls(), same), 1);
    let mut other = lost_tls();
    other["queue"]["destination_down"]["reason"]["text"] = json!("mx2.lawyers.example: timeout");
    assert_eq!(count(other.clone(), same), 1);
    assert_eq!(
        count(
            other,
            "until 2026-11-30 03:16:44 UTC, in 4m: 4.7.4 mx2.lawyers.example: timeout\n"
        ),
        1
    );
    // After a restart, or a delivery of other mail, the queue knows why mail waits.
    let queued = "\nreason       4.7.4 mx.lawyers.example [192.0.2.1]:25: TLS is demanded by downgrade memory";
    let mut restarted = lost_tls();
    restarted["last_attempt"] = Value::Null;
    restarted["queue"]["destination_down"] = Value::Null;
    assert_eq!(count(restarted.clone(), queued), 1);
    restarted["queue"]["destination_down"] = json!({
        "until": "2026-11-30T03:16:44Z", "reason": restarted["queue"]["reason"]
    });
    assert_eq!(count(restarted.clone(), queued), 0);
    assert_eq!(count(restarted, "TLS is demanded by downgrade memory"), 1);
    let mut delivered = lost_tls();
    delivered["last_attempt"]["outcome"] = json!("delivered");
    assert_eq!(count(delivered, queued), 1);
    assert_eq!(count(lost_tls(), "\nreason "), 0);
    let mut cut = lost_tls();
    cut["last_attempt"]["text"] = json!("mx.lawyers.example [192.0.2.1]:25: TLS…");
    assert_eq!(count(cut, "mx.lawyers.example [192.0.2.1]:25: TLS"), 1);
}

/// Of a domain without any trace, only the connector is known, and the commands show what would
/// happen.
#[test]
fn a_domain_without_a_trace_is_said_to_be_unknown() {
    let mut unknown = lost_tls();
    unknown["queue"] = json!({
        "counted": "2026-11-30T03:12:44Z", "waiting": 0, "held": 0, "oldest": null, "next": null, "delays_reported": 0,
        "next_delay_report": null, "reason": null, "destination_down": null, "part_down": null
    });
    for key in ["last_attempt", "mta_sts"] {
        unknown[key] = Value::Null;
    }
    unknown["memory"] = json!([]);
    let unknown = status(unknown);
    assert!(!is_known(&unknown));
    let text = screen(&unknown, 80);
    let paragraph = text
        .split("\n\n")
        .nth(1)
        .unwrap_or_default()
        .replace('\n', " ");
    assert_eq!(
        paragraph,
        "nothing is known of this domain: no mail for it waits or was tried since the start (2026-11-28 00:00:00 UTC), and \
         no TLS and no MTA-STS policy of it are remembered"
    );
    assert!(
        text.contains("connector    internet: TLS opportunistic"),
        "{text}"
    );
    for absent in [
        "queue ",
        "senders",
        "last attempt",
        "demand",
        "downgrade memory",
    ] {
        assert!(
            !text.contains(&format!("\n{absent}")),
            "{absent:?} in\n{text}"
        );
    }
    assert_eq!(
        advised(&unknown),
        ["probe lawyers.example", "explain lawyers.example"]
    );
}

/// The commands follow from the situation: what is held can be released, and what goes well needs
/// no order.
#[test]
fn the_commands_fit_the_situation() {
    let mut held = lost_tls();
    (held["queue"]["waiting"], held["queue"]["held"]) = (json!(0), json!(2));
    held["connector"]["downgrade"] = json!("warn");
    assert_eq!(
        advised(&status(held)),
        [
            "probe lawyers.example",
            "queue list --domain lawyers.example",
            "queue release --domain lawyers.example --state held",
            "queue bounce --domain lawyers.example --state held",
            "evidence list --domain lawyers.example",
            "explain lawyers.example"
        ]
    );
    let mut fine = lost_tls();
    (fine["queue"]["waiting"], fine["queue"]["reason"]) = (json!(0), Value::Null);
    fine["last_attempt"]["outcome"] = json!("delivered");
    fine["memory"][0]["worse"] = json!(false);
    let fine = status(fine);
    assert_eq!(
        advised(&fine),
        [
            "evidence list --domain lawyers.example",
            "explain lawyers.example"
        ]
    );
    let text = screen(&fine, 80);
    assert!(
        text.contains("queue        no mail waits\n") && !text.contains("senders"),
        "{text}"
    );
    let document = serde_json::to_value(document(&fine)).expect("a document");
    assert_eq!(
        document["commands"][1]["command"],
        "gatepost explain lawyers.example"
    );
    assert_eq!(
        (&document["known"], &document["domain"]),
        (&json!(true), &json!("lawyers.example"))
    );
}
