//! `gatepost status DOMAIN` as an operator runs it at night: the real program against a real
//! daemon.

use std::time::{Duration, Instant};

use gatepost::discovery::history::{History, TlsLevel};
use gatepost::smtp::address::Host;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::operated::{Relay, code, err, json, out};
use crate::support::sink::Sink;

/// The JSON document about a domain, once it is as expected. The queue is counted once in a second.
fn status_when(relay: &Relay, domain: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = json(&relay.status(&[domain, "--json"]));
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The commands that a document advises, without the name of the program.
fn advised(status: &Value) -> Vec<String> {
    let commands = status["commands"].as_array().expect("a list").iter();
    let text = |one: &Value| {
        one["command"]
            .as_str()
            .expect("a text")
            .replacen("gatepost ", "", 1)
    };
    commands.map(text).collect()
}

fn has_all(text: &str, wanted: &[&str]) {
    for words in wanted {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
}

/// A domain whose host is down: what waits, since when, the answer, the connector, and the command
/// that tries again, which delivers once the host is back.
#[test]
fn a_domain_that_is_down_is_shown_until_the_advised_command_has_helped() {
    let relay = Relay::start("");
    relay.send("alice@example.org", &["bob@b.example"], "hello");
    relay.send("alice@example.org", &["bob@other.example"], "hello");
    let status = status_when(&relay, "b.example", |status| {
        status["queue"]["waiting"] == 1
            && !status["queue"]["reason"].is_null()
            && !status["last_attempt"].is_null()
    });
    document_of_a_domain_that_is_down(&status);
    page_of_a_domain_that_is_down(&relay);

    let sink = Sink::at(relay.smart_host);
    assert_eq!(code(&relay.queue(&["retry", "--domain", "b.example"])), 0);
    let status = status_when(&relay, "b.example", |status| {
        status["queue"]["waiting"] == 0
    });
    assert_eq!(status["last_attempt"]["outcome"], "delivered", "{status:#}");
    assert_eq!(
        status["last_attempt"]["tls"],
        "none: TLS is switched off for this domain"
    );
    assert!(
        !advised(&status)
            .iter()
            .any(|command| command.starts_with("queue") || command.starts_with("probe"))
    );
    assert!(sink.bodies().contains(&"hello".to_owned()));
    has_all(
        &out(&relay.status(&["b.example"])),
        &["\nqueue        no mail waits\n", "ago: delivered ("],
    );
}

fn document_of_a_domain_that_is_down(status: &Value) {
    assert_eq!(
        (&status["domain"], &status["known"]),
        (&json!("b.example"), &json!(true)),
        "{status:#}"
    );
    assert_eq!(status["connector"]["name"], "internet");
    let last = &status["last_attempt"];
    assert_eq!(
        (&last["outcome"], &last["status"], &last["demand"]),
        (&json!("deferred"), &json!("4.4.1"), &json!("off"))
    );
    assert_eq!(
        (&last["tls"], &last["explanation"]),
        (&Value::Null, &Value::Null),
        "{last:#}"
    );
    assert_eq!(status["queue"]["delays_reported"], 0);
    assert!(
        status["queue"]["next"].as_str() > status["at"].as_str(),
        "{status:#}"
    );
    assert!(
        advised(status).contains(&"queue retry --domain b.example".to_owned()),
        "{status:#}"
    );
}

fn page_of_a_domain_that_is_down(relay: &Relay) {
    let output = relay.status(&["bob@B.example"]);
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
    has_all(
        &out(&output),
        &[
            "b.example, 20",
            "\nqueue        1 waiting, oldest ",
            "\nnext attempt 20",
            "\nbackoff      the destination is not tried until 20",
            "Connection refused",
            "ago: deferred (",
            "\nexpires      20",
            " UTC, in 4d 23h; then it bounces\n",
            "\nsenders      no delay report was sent; next delay report 20",
            "\nconnector    internet: TLS off; on_failure = \"defer\", downgrade = \"warn\"",
            "\ndowngrade memory:\n  no TLS of this domain is remembered\n",
            "\n  gatepost probe b.example\n",
            "\n  gatepost queue retry --domain b.example\n",
        ],
    );
    assert_eq!(
        out(&output).matches("Connection refused").count(),
        1,
        "a reason is shown once: {}",
        out(&output)
    );
    for absent in [
        "report text",
        "held",
        "MTA-STS",
        "release",
        "other.example",
        "counted",
    ] {
        assert!(
            !out(&output).contains(absent),
            "{absent:?} in\n{}",
            out(&output)
        );
    }
}

/// What an order has changed is shown at once, though the queue was counted just before.
#[test]
fn an_order_is_seen_at_once() {
    let relay = Relay::start("");
    relay.send("alice@example.org", &["bob@b.example"], "hello");
    relay.wait_for("an attempt", |queue| {
        !queue[0]["recipients"][0]["reason"].is_null()
    });
    let counts = || {
        let status = json(&relay.status(&["b.example", "--json"]));
        (
            status["queue"]["waiting"].as_u64(),
            status["queue"]["held"].as_u64(),
        )
    };
    assert_eq!(counts(), (Some(1), Some(0)));
    assert_eq!(code(&relay.queue(&["hold", "--domain", "b.example"])), 0);
    assert_eq!(counts(), (Some(0), Some(1)), "it is held");
    assert_eq!(code(&relay.queue(&["release", "--domain", "b.example"])), 0);
    assert_eq!(counts(), (Some(1), Some(0)), "it is released");
}

/// A relay that remembers TLS of lawyers.example, last used at that time, and finds none now. It
/// reports a delay at once.
fn relay_that_remembers_tls(sink: &Sink, last: Timestamp) -> Relay {
    let mut relay = Relay::start(&format!(
        "[[connector]]\nname = \"lawyers\"\ndomains = [\"lawyers.example\"]\n[connector.outbound]\nroute = [\"{}\"]\n\
         downgrade = \"refuse\"\n",
        sink.address
    ));
    relay.stop();
    let text = std::fs::read_to_string(relay.config()).expect("a configuration");
    let text = text.replace(
        "retry = [\"1h\"]",
        "retry = [\"1h\"]\nwarn_after = \"100ms\"",
    );
    std::fs::write(relay.config(), text).expect("a configuration");
    let memory =
        History::open(&relay.folder.path().join("spool"), Timestamp::now()).expect("a memory");
    let host = |name: &str| Host::parse(name).expect("a host");
    let _ = memory.record(
        &host("lawyers.example"),
        &host("[127.0.0.1]"),
        TlsLevel::Tls,
        None,
        last,
    );
    drop(memory);
    relay.start_again();
    relay
}

/// A domain that lost its TLS: the demand with its layer, what the memory has, what the senders
/// read, and the command that forgets the domain, after which the mail goes.
#[test]
fn a_domain_that_lost_its_tls_is_shown_with_its_memory_and_the_report_to_the_sender() {
    let sink = Sink::start();
    let last = Timestamp::now() - SignedDuration::from_hours(24);
    let relay = relay_that_remembers_tls(&sink, last);
    relay.send_quickly("alice@example.org", &["bob@lawyers.example"], "hello");
    let status = status_when(&relay, "lawyers.example", |status| {
        status["queue"]["delays_reported"] == 1
    });
    assert_eq!(
        status["last_attempt"]["demand"], "forced (downgrade memory: TLS)",
        "{status:#}"
    );
    assert_eq!(
        (&status["memory"][0]["best"], &status["memory"][0]["worse"]),
        (&json!("tls"), &json!(true))
    );
    let until = last.strftime("%-d %b %Y").to_string();
    let explanation = status["queue"]["reason"]["explanation"]
        .as_str()
        .expect("an explanation");
    assert!(
        explanation.contains(&format!(
            "because their server accepted it so until {until}"
        )),
        "{explanation}"
    );
    has_all(
        &out(&relay.status(&["lawyers.example"])),
        &[
            "\nsenders      a delay report was sent for 1 of 1 waiting\n",
            "\nreport text  \"The mail system relay.example.com passes mail for lawyers.example on only encrypted",
            "\ndemand       forced (downgrade memory: TLS), at the last attempt\n",
            "WORSE: no TLS",
            "\n  gatepost history forget lawyers.example --reason TEXT\n",
        ],
    );
    assert_eq!(
        code(&relay.history(&["forget", "lawyers.example", "--reason", "they confirmed it"])),
        0
    );
    assert_eq!(
        code(&relay.queue(&["retry", "--domain", "lawyers.example"])),
        0
    );
    let status = status_when(&relay, "lawyers.example", |status| {
        status["queue"]["waiting"] == 0
    });
    assert_eq!(status["last_attempt"]["outcome"], "delivered", "{status:#}");
    assert_eq!(sink.bodies(), ["hello"]);
    has_all(
        &out(&relay.status(&["lawyers.example"])),
        &["by uid ", ": they confirmed it\n"],
    );
}

/// Held mail is released by the advised command, and a bounce is named with its report.
#[test]
fn held_and_bounced_mail_is_named_with_what_its_sender_got() {
    let sink = Sink::start();
    let strict = |name: &str, on_failure: &str| {
        format!(
            "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\n[connector.outbound]\nroute = [\"{}\"]\n\
             tls = \"forced\"\nverify = \"none\"\non_failure = \"{on_failure}\"\n",
            sink.address
        )
    };
    let relay = Relay::start(&(strict("holds", "hold") + &strict("bounces", "bounce")));
    relay.send_quickly(
        "alice@example.org",
        &["bob@holds.example", "eve@bounces.example"],
        "hello",
    );
    let status = status_when(&relay, "holds.example", |status| {
        status["queue"]["held"] == 1
    });
    assert_eq!(
        (&status["queue"]["waiting"], &status["queue"]["next"]),
        (&json!(0), &Value::Null)
    );
    let advice = advised(&status);
    assert!(
        advice.contains(&"queue release --domain holds.example --state held".to_owned()),
        "{advice:?}"
    );
    assert!(
        !advice.iter().any(|command| command.contains("retry")),
        "{advice:?}"
    );
    let text = out(&relay.status(&["holds.example"]));
    has_all(
        &text,
        &[
            "\nqueue        1 held until an operator decides, oldest ",
            "\nsenders      held mail: a delay report was sent if a TLS policy held it, none if an operator did;",
            "\nreport text  \"The mail system relay.example.com passes mail for",
        ],
    );
    assert!(
        !text.contains("next attempt") && !text.contains("\nexpires"),
        "{text}"
    );
    assert_eq!(
        (
            &status["queue"]["expires"],
            &status["queue"]["reports_holds"]
        ),
        (&Value::Null, &json!(true))
    );

    let status = status_when(&relay, "bounces.example", |status| {
        !status["last_attempt"].is_null() && status["queue"]["waiting"] == 0
    });
    let last = &status["last_attempt"];
    assert_eq!(
        (&last["outcome"], &last["status"], &last["reported"]),
        (&json!("bounced"), &json!("5.7.4"), &json!(true))
    );
    let text = out(&relay.status(&["bounces.example"]));
    has_all(
        &text,
        &[
            "the sender of the bounced message gets a failure report\n",
            "server does not offer encryption at present",
        ],
    );
    assert_eq!(sink.bodies(), [""; 0], "nothing was sent in the clear");
}

/// Nothing is known of a domain without mail, and nobody asks the network about it: the answer is
/// no, with the commands that show what would happen.
#[test]
fn an_unknown_domain_is_said_to_be_unknown() {
    let mut relay = Relay::start("");
    let output = relay.status(&["nobody.example"]);
    assert_eq!((code(&output), err(&output).as_str()), (1, ""));
    has_all(
        &out(&output),
        &[
            "nothing is known of this domain",
            "gatepost probe nobody.example\n",
            "gatepost explain nobody.example\n",
        ],
    );
    assert!(!out(&output).contains("queue "), "{}", out(&output));
    let status = json(&relay.status(&["nobody.example", "--json"]));
    assert_eq!(
        (&status["known"], &status["queue"]["waiting"]),
        (&json!(false), &json!(0)),
        "{status:#}"
    );
    let output = relay.status(&["a b"]);
    assert_eq!((code(&output), out(&output).as_str()), (2, ""));
    assert!(
        err(&output).contains("is not a domain name"),
        "{}",
        err(&output)
    );
    relay.stop();
    let output = relay.status(&["nobody.example"]);
    assert_eq!((code(&output), out(&output).as_str()), (1, ""));
    assert!(
        err(&output).contains("no running Gatepost answers on"),
        "{}",
        err(&output)
    );
}

/// An exception of the connector and the MTA-STS policy in the cache are shown with their ends.
#[test]
fn an_exception_and_a_cached_policy_are_shown() {
    let mut relay = Relay::start(
        "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n[connector.outbound]\n\
         tls = \"forced\"\nverify = \"name\"\n\
         exception = { tls = \"off\", until = 2200-01-31, reason = \"ticket 4711\" }\n",
    );
    relay.stop();
    let file = relay.folder.path().join("spool/policies.db");
    let terms = "version: STSv1\nmode: enforce\nmx: mx.partner.example\nmax_age: 86400";
    let fetched = Timestamp::now().as_second() - 3600;
    let policies = rusqlite::Connection::open(file).expect("a database");
    policies
        .execute(
            "INSERT INTO policy VALUES ('partner.example', '7', ?1, ?2, ?2)",
            (terms, fetched),
        )
        .expect("a row");
    drop(policies);
    relay.start_again();
    let status = json(&relay.status(&["partner.example", "--json"]));
    assert_eq!(status["known"], true, "{status:#}");
    let exception = &status["connector"]["exception"];
    assert_eq!(
        (&exception["until"], &exception["reason"]),
        (&json!("2200-01-31"), &json!("ticket 4711"))
    );
    let policy = &status["mta_sts"];
    assert_eq!(
        (&policy["mode"], &policy["mx"], &policy["id"]),
        (
            &json!("enforce"),
            &json!(["mx.partner.example"]),
            &json!("7")
        )
    );
    has_all(
        &out(&relay.status(&["partner.example"])),
        &[
            "\nexception    TLS off until 2200-01-31 (ticket 4711)\n",
            "\nMTA-STS      enforce: mx.partner.example; fetched 1h 0m ago, cached until 20",
        ],
    );
}

/// A table that is too wide for 80 columns, the width where none is known, becomes blocks.
#[test]
fn no_line_is_wider_than_the_terminal() {
    let relay = Relay::start("");
    let recipient = format!(
        "a.rather.long.name.of.a.recipient@{}.example",
        "x".repeat(20)
    );
    relay.send("alice.with.a.long.name@example.org", &[&recipient], "hello");
    relay.wait_for("an attempt", |queue| {
        !queue[0]["recipients"][0]["reason"].is_null()
    });
    let list = |columns: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command
            .args(["queue", "list", "--config"])
            .arg(relay.config())
            .env_remove("COLUMNS");
        if let Some(columns) = columns {
            command.env("COLUMNS", columns);
        }
        out(&command.output().expect("it runs"))
    };
    for (columns, width) in [(None, 80), (Some("78"), 78)] {
        let text = list(columns);
        assert!(
            text.lines().all(|line| line.chars().count() <= width),
            "{text}"
        );
        has_all(
            &text,
            &[
                "  sender     alice.with.a.long.name@example.org\n",
                "1 message, ",
            ],
        );
        assert!(
            text.contains(&format!("  recipient  {recipient}\n")),
            "{text}"
        );
    }
    let wide = list(Some("160"));
    assert!(
        wide.starts_with("id ")
            && wide.contains(&format!(
                "alice.with.a.long.name@example.org  {recipient}  "
            )),
        "{wide}"
    );
}
