//! `gatepost history` as an operator runs it: the real program against a real daemon, which finds a
//! memory beside its spool.

use std::fs;

use gatepost::discovery::history::{History, TlsLevel};
use gatepost::smtp::address::Host;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::operated::{Relay, code, err, json, out, raw};

fn host(name: &str) -> Host {
    Host::parse(name).expect(name)
}

fn days_ago(days: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(24 * days)
}

/// A daemon that remembers two hosts of one domain, one of which got worse, and a host of another.
fn remembering() -> Relay {
    let mut relay = Relay::start("");
    relay.stop();
    let memory =
        History::open(&relay.folder.path().join("spool"), Timestamp::now()).expect("a memory");
    for (domain, name, level, issuer, days) in [
        (
            "a.example",
            "mx1.a.example",
            TlsLevel::Verified,
            Some("CN=R12, O=Let's Encrypt"),
            30,
        ),
        ("a.example", "mx1.a.example", TlsLevel::Plain, None, 1),
        ("a.example", "mx2.a.example", TlsLevel::Dane, None, 2),
        (
            "b\u{fc}cher.example",
            "mx.b.example",
            TlsLevel::Tls,
            None,
            3,
        ),
    ] {
        let _ = memory.record(&host(domain), &host(name), level, issuer, days_ago(days));
    }
    drop(memory);
    relay.start_again();
    relay
}

fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

#[test]
fn the_list_shows_the_best_and_what_is_worse_now() {
    let relay = remembering();
    let output = relay.history(&["list"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let said = out(&output);
    let line = |name: &str| {
        said.lines()
            .find(|line| line.contains(name))
            .unwrap_or_else(|| panic!("{said}"))
            .to_owned()
    };
    for words in [
        "a.example",
        "TLS, name verified",
        &date(days_ago(30)),
        &date(days_ago(1)),
        "WORSE: no TLS",
    ] {
        assert!(
            line("mx1.a.example").contains(words),
            "{words:?} is not in\n{said}"
        );
    }
    assert!(
        line("mx2.a.example").contains("DANE") && !line("mx2.a.example").contains("WORSE"),
        "{said}"
    );
    assert!(
        line("mx.b.example").starts_with("xn--bcher-kva.example"),
        "{said}"
    );
    assert!(
        said.contains("3 hosts of 2 domains, 1 worse than before"),
        "{said}"
    );

    let all = json(&relay.history(&["list", "--json"]));
    let all = all.as_array().expect("an array");
    let worse = all
        .iter()
        .find(|item| item["host"] == "mx1.a.example")
        .expect("the host");
    assert_eq!(
        (&worse["kind"], &worse["domain"]),
        (&json!("host"), &json!("a.example"))
    );
    assert_eq!(
        (&worse["best"], &worse["level"]),
        (&json!("verified"), &json!("plain"))
    );
    assert_eq!(
        (&worse["worse"], &worse["issuer"]),
        (&json!(true), &json!("CN=R12, O=Let's Encrypt"))
    );
    assert!(
        worse["first"] == worse["last"] && worse["last"].as_str() < worse["seen"].as_str(),
        "{worse}"
    );
}

#[test]
fn one_domain_is_chosen_in_either_spelling_and_none_is_a_no() {
    let relay = remembering();
    for domain in ["B\u{dc}CHER.example", "xn--bcher-kva.example"] {
        let output = relay.history(&["list", "--json", "--domain", domain]);
        assert_eq!(
            (code(&output), json(&output).as_array().map(Vec::len)),
            (0, Some(1)),
            "{}",
            err(&output)
        );
    }
    let output = relay.history(&["list", "--domain", "c.example"]);
    assert_eq!(
        (code(&output), out(&output).as_str()),
        (1, "nothing is remembered of c.example\n")
    );
    let output = relay.history(&["list", "--json", "--domain", "c.example"]);
    assert_eq!((code(&output), json(&output)), (1, json!([])));
    for (arguments, said) in [
        (&["list", "--domain", "a b"][..], "is not a domain name"),
        (&["forget", "a.example"], "--reason"),
        (
            &["forget", "a.example", "--reason", " "],
            "a reason has 1 to 500 characters",
        ),
    ] {
        let output = relay.history(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(
            err(&output).contains(said),
            "{arguments:?}: {}",
            err(&output)
        );
    }
}

#[test]
fn what_is_forgotten_stays_forgotten_and_is_logged() {
    let mut relay = remembering();
    let output = relay.history(&[
        "forget",
        "A.example",
        "--reason",
        "moved to\u{1b} another provider",
    ]);
    assert_eq!(
        (code(&output), out(&output).as_str()),
        (0, "a.example forgotten, 2 hosts\n"),
        "{}",
        err(&output)
    );
    let output = relay.history(&["forget", "a.example", "--reason", "again"]);
    assert_eq!(code(&output), 1);
    assert_eq!(
        err(&output),
        "gatepost history: nothing is remembered of a.example\n"
    );
    // As hard as an end can be: what was answered is on disk.
    relay.kill();
    relay.start_again();
    let output = relay.history(&["list"]);
    assert!(
        out(&output).contains("1 host of 1 domain, 0 worse than before"),
        "{}",
        out(&output)
    );
    let (today, uid) = (date(Timestamp::now()), rustix::process::getuid().as_raw());
    let told = format!(
        "forgotten {today}: a.example, 2 hosts, by uid {uid}: moved to\u{fffd} another provider\n"
    );
    assert!(out(&output).ends_with(&told), "{}", out(&output));
    let listed = json(&relay.history(&["list", "--json", "--domain", "a.example"]));
    assert_eq!(listed[0]["kind"], "forgotten");
    assert_eq!(listed[0]["reason"], "moved to\u{1b} another provider");
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
}

#[test]
fn without_a_daemon_it_says_so_and_what_to_do() {
    let mut relay = Relay::start("");
    let output = relay.history(&["list"]);
    assert_eq!(
        (code(&output), out(&output).as_str()),
        (0, "nothing is remembered yet\n")
    );
    relay.stop();
    for arguments in [&["list"][..], &["forget", "a.example", "--reason", "x"]] {
        let output = relay.history(arguments);
        assert_eq!(code(&output), 1);
        for words in [
            "gatepost history: no running Gatepost answers on ",
            "run/admin.sock",
            "systemctl status gatepost",
        ] {
            assert!(
                err(&output).contains(words),
                "{words:?} is not in {}",
                err(&output)
            );
        }
    }
}

#[test]
fn a_damaged_memory_keeps_no_daemon_from_starting() {
    let mut relay = remembering();
    relay.stop();
    let spool = relay.folder.path().join("spool");
    fs::write(spool.join("history.db"), "nonsense ".repeat(1000)).expect("a file");
    relay.start_again();
    assert_eq!(
        out(&relay.history(&["list"])),
        "nothing is remembered yet\n"
    );
    assert_eq!(
        fs::read_dir(spool.join("aside")).expect("a folder").count(),
        1
    );
    relay.send("a@example.org", &["b@example.net"], "mail goes on");
}

#[test]
fn pages_and_what_cannot_be_answered() {
    let relay = remembering();
    let get = |target: &str| {
        raw(
            &relay.socket(),
            &format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"),
        )
    };
    let (_, first) = get("/v1/history?limit=1");
    assert_eq!(
        (first["items"].as_array().map(Vec::len), &first["next"]),
        (Some(2), &json!("a.example"))
    );
    let (_, second) = get("/v1/history?limit=1&after=a.example");
    assert_eq!(
        (second["items"].as_array().map(Vec::len), &second["next"]),
        (Some(1), &Value::Null)
    );
    for (target, said) in [
        ("/v1/history?limit=0", "limit must be from 1 to 1000"),
        (
            "/v1/history?domain=a%20b",
            "domain: \"a b\" is not a domain name",
        ),
        ("/v1/history?colour=red", "unknown field `colour`"),
    ] {
        let (line, body) = get(target);
        assert!(line.starts_with("HTTP/1.1 400 "), "{target}: {line}");
        assert!(
            body["error"].as_str().expect("a sentence").contains(said),
            "{target}: {body}"
        );
    }
}

/// The memory that DNSSEC has worked is a file beside the spool, which only this command removes.
#[test]
fn dnssec_is_forgotten_by_order_alone() {
    let mut relay = Relay::start("");
    let file = relay.folder.path().join("spool/dnssec.json");
    let order = ["forget", "--dnssec", "--reason", "a new resolver"];
    let output = relay.history(&order);
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("DNSSEC validation has not worked here before"),
        "{}",
        err(&output)
    );

    relay.stop();
    fs::write(&file, r#"{"validated_since":"2026-11-29T10:00:00Z"}"#).expect("written");
    relay.start_again();
    let output = relay.history(&["forget", "--dnssec", "a.example", "--reason", "both"]);
    assert_eq!(code(&output), 2, "one at a time");
    assert!(file.exists());
    let output = relay.history(&order);
    assert_eq!(
        (code(&output), file.exists()),
        (0, false),
        "{}",
        err(&output)
    );
    assert_eq!(
        out(&output),
        "DNSSEC forgotten; it is remembered again once validation works\n"
    );
}
