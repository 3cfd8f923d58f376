//! A domain that is refused alone, behind smart hosts that it shares: what waits, what goes, and
//! what is said of it.

use std::time::{Duration, Instant};

use gatepost::discovery::history::{History, TlsLevel};
use gatepost::smtp::address::Host;
use jiff::Timestamp;
use serde_json::Value;

use crate::support::operated::{Relay, code, err, json, out};
use crate::support::sink::Sink;

/// A relay whose smart host has no TLS, which one of the two domains behind it had before.
fn relay(sink: &Sink) -> Relay {
    let mut relay = Relay::start(&format!(
        "[[connector]]\nname = \"shared\"\ndomains = [\"lost.example\", \"fine.example\"]\n[connector.outbound]\n\
         route = [\"{}\"]\ntls = \"opportunistic\"\ndowngrade = \"refuse\"\n",
        sink.address
    ));
    relay.stop();
    let memory =
        History::open(&relay.folder.path().join("spool"), Timestamp::now()).expect("a memory");
    let [lost, host] = ["lost.example", "[127.0.0.1]"].map(|name| Host::parse(name).expect(name));
    let _ = memory.record(&lost, &host, TlsLevel::Tls, None, Timestamp::now());
    drop(memory);
    relay.start_again();
    relay
}

fn attempts(queue: &[Value]) -> u64 {
    queue
        .iter()
        .map(|message| {
            message["recipients"][0]["attempts"]
                .as_u64()
                .expect("a number")
        })
        .sum()
}

/// The status of the domain names the part that is not tried; the smart host that it shares is up.
#[test]
fn the_status_of_a_refused_domain_names_the_part_in_backoff() {
    let sink = Sink::start();
    let relay = relay(&sink);
    relay.send("alice@example.org", &["bob@lost.example"], "first");
    relay.wait_for("a refusal", |queue| attempts(queue) == 1);
    relay.send("alice@example.org", &["carol@lost.example"], "second");
    let status = json(&relay.status(&["lost.example", "--json"]));
    let queue = &status["queue"];
    assert_eq!(queue["waiting"], 2, "{status:#}");
    assert_eq!(
        queue["next"], queue["part_down"]["until"],
        "the second one is due and waits for the end of the backoff"
    );
    assert_eq!(queue["part_down"]["part"], "mail for lost.example");
    assert_eq!(queue["part_down"]["reason"]["status"], "4.7.4");
    assert_eq!(queue["destination_down"], Value::Null, "{status:#}");
    let text = out(&relay.status(&["lost.example"]));
    let words = "\nbackoff      mail for lost.example is not tried until 20";
    assert!(text.contains(words), "{words:?} is not in\n{text}");
}

#[test]
fn one_domains_lost_tls_holds_up_its_own_mail_alone() {
    let sink = Sink::start();
    let relay = relay(&sink);
    let first = relay.send("alice@example.org", &["bob@lost.example"], "first");
    relay.wait_for("a refusal", |queue| attempts(queue) == 1);
    let second = relay.send("alice@example.org", &["carol@lost.example"], "second");
    relay.send_quickly("alice@example.org", &["bob@fine.example"], "fine");
    relay.wait_for("the other domain's mail has gone", |queue| queue.len() == 2);
    assert_eq!(sink.bodies(), ["fine"]);
    let queue = relay.list();
    assert_eq!(attempts(&queue), 1, "the second one waits with the first");
    for message in &queue {
        let recipient = &message["recipients"][0];
        assert_eq!(
            recipient["destination_down"],
            Value::Null,
            "the smart host is up: {recipient}"
        );
        let part = &recipient["part_down"];
        assert_eq!(part["part"], "mail for lost.example");
        assert_eq!(part["reason"]["status"], "4.7.4");
        assert!(
            recipient["next"].as_str() >= part["until"].as_str(),
            "{recipient}"
        );
    }
    let output = relay.queue(&["show", &second]);
    let words = "mail for lost.example is in backoff until 20";
    assert!(
        out(&output).contains(words),
        "{words:?} is not in\n{}",
        out(&output)
    );
    assert!(
        !out(&output).contains("its destination is in backoff"),
        "{}",
        out(&output)
    );
    assert!(
        out(&relay.queue(&["list", &second])).contains("4.7.4"),
        "a list gives the reason"
    );
    let status = json(&relay.status(&["--json"]));
    let (trouble, until) = (
        &status["troubles"][0],
        &queue[1]["recipients"][0]["part_down"]["until"],
    );
    assert_eq!(trouble["domain"], "lost.example");
    let seconds = |time: &Value| {
        time.as_str()
            .and_then(|time| time.parse::<Timestamp>().ok())
            .expect("a time")
            .as_second()
    };
    assert!(
        (seconds(&trouble["next"]) - seconds(until)).abs() <= 2,
        "the second one goes first then: {trouble}"
    );

    // An operator's order forgets the refusal, for one attempt.
    let output = relay.queue(&["retry", &first]);
    assert_eq!(
        (code(&output), out(&output)),
        (0, "1 message retried\n".to_owned()),
        "{}",
        err(&output)
    );
    let deadline = Instant::now() + Duration::from_secs(30);
    while attempts(&relay.list()) < 2 {
        assert!(Instant::now() < deadline, "it is not tried");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(sink.bodies(), ["fine"]);
}
