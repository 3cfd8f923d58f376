//! A spool that is moved beneath a running relay.

use std::fs;

use serde_json::Value;

use crate::support::operated::{Relay, json, out};
use crate::support::sink::Sink;

/// The times at which lines with this message were logged.
fn times(relay: &Relay, message: &str) -> Vec<String> {
    let lines = relay.logged(message);
    let time = |line: Value| line["timestamp"].as_str().expect("a time").to_owned();
    lines.into_iter().map(time).collect()
}

/// New mail is refused at MAIL, and no delivery starts, until the folder is back. The log says it once.
#[test]
fn a_spool_that_is_moved_away_stops_mail_until_it_is_back() {
    let relay = Relay::start("");
    let (path, away) = (
        relay.folder.path().join("spool"),
        relay.folder.path().join("away"),
    );
    let id = relay.send("a@example.com", &["b@b.example"], "hello");
    relay.wait_for("an attempt", |queue| {
        !queue[0]["recipients"][0]["reason"].is_null()
    });
    let sink = Sink::at(relay.smart_host);

    fs::rename(&path, &away).expect("moved");
    let lost = relay.hears("spool lost: new mail is rejected with 451 and no delivery starts");
    let error = lost[0]["error"].as_str().expect("a reason").to_owned();
    assert!(
        error.contains(path.to_str().expect("text")) && error.contains("put it back"),
        "{error}"
    );
    relay.refused("a@example.com", "451 4.3.0");
    relay.refused("a@example.com", "451 4.3.0");
    let ready = relay.http("GET /readyz HTTP/1.1");
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains(&error),
        "{ready}"
    );
    let ready = relay.status(&["--ready"]);
    assert_eq!(ready.status.code(), Some(1));
    let reason = String::from_utf8_lossy(&ready.stdout);
    assert_eq!(reason, format!("{error}\n"));
    let metrics = relay.http("GET /metrics HTTP/1.1");
    assert!(metrics.contains("\ngatepost_spool_owned 0\n"), "{metrics}");
    let status = relay.status(&[]);
    assert!(
        out(&status).contains("NEW MAIL IS REJECTED AND NO DELIVERY STARTS"),
        "{status:?}"
    );
    let status = json(&relay.status(&["--json"]));
    assert_eq!(status["spool_lost"], error.as_str());
    // The message is due now.
    out(&relay.queue(&["retry", &id]));

    fs::rename(&away, &path).expect("moved back");
    let back = "spool is this relay's again: mail is accepted and delivered as before";
    assert_eq!(relay.hears(back).len(), 1);
    assert_eq!(relay.hears("message delivered").len(), 1);
    // No attempt had begun in between.
    assert_eq!(relay.logged("delivery deferred").len(), 1);
    let unread = "cannot read message from the spool; retrying in a minute";
    assert!(relay.logged(unread).is_empty(), "an attempt began");
    relay.send_quickly("a@example.com", &["c@c.example"], "hello again");
    relay.hears_all("message delivered", 2);
    let delivered = times(&relay, "message delivered");
    assert_eq!(delivered.len(), 2, "{delivered:?}");
    let lost = times(
        &relay,
        "spool lost: new mail is rejected with 451 and no delivery starts",
    );
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0] < delivered[0], "{lost:?} {delivered:?}");
    let subjects = sink.bodies();
    assert_eq!(subjects.len(), 2, "each arrived once: {subjects:?}");
    let ready = relay.http("GET /readyz HTTP/1.1");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert_eq!(out(&relay.status(&["--ready"])), "ready\n");
    let metrics = relay.http("GET /metrics HTTP/1.1");
    assert!(metrics.contains("\ngatepost_spool_owned 1\n"), "{metrics}");
}

/// Deliveries that are under way need the lease while the relay drains.
#[test]
fn the_lease_is_renewed_while_the_relay_drains() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let route = silent.local_addr().expect("bound");
    let relay = Relay::start(&format!(
        "[[connector]]\nname = \"silent\"\ndomains = [\"silent.example\"]\n[connector.outbound]\n\
         route = [\"{route}\"]\ntls = \"off\"\n"
    ));
    relay.send("a@example.com", &["b@silent.example"], "hello");
    // It waits for a greeting, for minutes.
    let _session = silent.accept().expect("it is tried");
    relay.terminate();
    let drains = relay.hears("waiting for running deliveries");
    assert_eq!(drains.len(), 1);
    let path = relay.folder.path().join("spool");
    fs::rename(&path, relay.folder.path().join("away")).expect("moved");
    let lost = relay.hears("spool lost: new mail is rejected with 451 and no delivery starts");
    assert_eq!(lost.len(), 1, "nobody has examined it");
}
