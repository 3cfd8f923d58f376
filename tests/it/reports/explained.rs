//! The explanation of an unmet TLS policy, as its sender reads it.

use gatepost::discovery::history::{History, TlsLevel};
use gatepost::smtp::address::Host;
use jiff::{SignedDuration, Timestamp};

use crate::support::operated::{Relay, json, out};
use crate::support::sink::Sink;

/// The downgrade memory refuses mail to a server that accepted TLS before: the sender reads until
/// when, on whose side the cause is, and what to do, in everyday terms.
#[test]
fn a_lost_encryption_is_explained_with_its_date() {
    let sink = Sink::start();
    let mut relay = Relay::start(&format!(
        "[[connector]]\nname = \"lawyers\"\ndomains = [\"lawyers.example\"]\n[connector.outbound]\nroute = [\"{}\"]\n\
         downgrade = \"refuse\"\non_failure = \"bounce\"\n",
        sink.address
    ));
    relay.stop();
    let last = Timestamp::now() - SignedDuration::from_hours(24);
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
    relay.send_quickly("alice@example.org", &["bob@lawyers.example"], "hello");
    relay.wait_for("the report", |queue| {
        queue.len() == 1 && queue[0]["sender"] == ""
    });
    let reports = json(&relay.queue(&["list", "--sender", "", "--json"]));
    let body = out(&relay.queue(&["show", reports[0]["id"].as_str().expect("an id"), "--body"]));
    let (people, fields) = body
        .split_once("Content-Type: message/delivery-status")
        .expect("two parts");
    let people = people.split_whitespace().collect::<Vec<_>>().join(" ");
    let (explanation, details) = people
        .split_once("Details for administrators:")
        .expect("both");
    let until = last.strftime("%-d %b %Y");
    for words in [
        "<bob@lawyers.example>: The mail system relay.example.com passes mail for lawyers.example on only encrypted",
        &format!(
            "because their server accepted it so until {until}. But the next mail server does not offer encryption"
        ),
        "Either their server was changed, or somebody on the way prevents encryption.",
        "The cause is on the side of the next mail server, or on the way there.",
        "Please reach the recipient in another way if it is urgent",
    ] {
        assert!(
            explanation.contains(words),
            "{words:?} is missing from\n{explanation}"
        );
    }
    for jargon in [
        "TLS",
        "memory",
        "policy",
        "peer",
        "hop",
        "127.0.0.1",
        "this relay",
    ] {
        assert!(
            !explanation.contains(jargon),
            "{jargon:?} in\n{explanation}"
        );
    }
    assert!(details.contains("5.7.4 [127.0.0.1]:"), "{details}");
    assert!(
        details.contains("TLS is demanded by downgrade memory"),
        "{details}"
    );
    assert!(fields.contains("Diagnostic-Code: x-gatepost; "), "{fields}");
    assert_eq!(sink.bodies(), [""; 0], "nothing was sent in the clear");
}
