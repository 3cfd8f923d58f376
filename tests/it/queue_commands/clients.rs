//! `gatepost clients`, and what log, status and metrics say of clients that are held back.

use crate::support::operated::{Relay, code, err, json, out};

/// A daemon that one client has sent too much: two messages a minute are allowed.
fn crowded() -> Relay {
    let relay = Relay::start("[relay]\nnetworks = []\n[limits]\nmessages_per_minute = 2\n");
    for expected in ["250", "250", "450 4.7.1", "450 4.7.1", "450 4.7.1"] {
        relay.refused("a@example.org", expected);
    }
    relay
}

#[test]
fn a_client_that_is_held_back_is_logged_once_listed_and_counted() {
    let relay = crowded();
    let told = relay.hears("client held back by a limit");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["client"], &told[0]["limit"]),
        (&"127.0.0.1".into(), &"messages_per_minute".into())
    );
    assert!(
        told[0]["remedy"]
            .as_str()
            .is_some_and(|remedy| remedy.contains("gatepost clients release")),
        "{told:?}"
    );
    let held = json(&relay.clients(&["list", "--json"]));
    assert_eq!(held.as_array().map(Vec::len), Some(1), "{held:#}");
    assert_eq!(
        (&held[0]["client"], &held[0]["times"]),
        (&"127.0.0.1".into(), &3.into()),
        "{held:#}"
    );
    let listed = relay.clients(&["list"]);
    assert_eq!(code(&listed), 0);
    assert!(
        out(&listed).contains("127.0.0.1  messages_per_minute  "),
        "{}",
        out(&listed)
    );
    let status = json(&relay.status(&["--json"]));
    assert_eq!(
        status["clients"]["held"][0]["limit"], "messages_per_minute",
        "{status:#}"
    );
    assert_eq!(
        (
            &status["clients"]["sessions_max"],
            &status["clients"]["strangers_max"]
        ),
        (&4000.into(), &3600.into())
    );
    assert!(out(&relay.status(&[])).contains("  127.0.0.1  messages_per_minute  3      20"));
    let page = relay.http_at("localhost", "GET / HTTP/1.1");
    assert!(
        page.contains("<h3>127.0.0.1</h3>") && page.contains("messages_per_minute, 3 times"),
        "{page}"
    );
    let metrics = relay.http("GET /metrics HTTP/1.1");
    for line in [
        "gatepost_inbound_turned_away_total{listener=\"mx\",limit=\"messages_per_minute\"} 3",
        "gatepost_inbound_turned_away_total{listener=\"mx\",limit=\"handshakes_per_minute\"} 0",
        "gatepost_inbound_clients_held_back 1",
        "gatepost_inbound_sessions_limit{clients=\"strangers\"} 3600",
        "gatepost_inbound_seats_scarce{listener=\"mx\"} 0",
    ] {
        assert!(
            metrics.lines().any(|written| written == line),
            "{line} is not in\n{metrics}"
        );
    }
}

#[test]
fn who_is_released_goes_on_at_once() {
    let relay = crowded();
    let other = relay.clients(&["release", "192.0.2.1"]);
    assert_eq!(
        (code(&other), out(&other).as_str()),
        (1, "192.0.2.1 was not held back\n")
    );
    let user = relay.clients(&["release", "--user", "scanner"]);
    assert_eq!(
        (code(&user), out(&user).as_str()),
        (1, "user scanner was not held back\n")
    );
    relay.refused("a@example.org", "450");
    let released = relay.clients(&["release", "127.0.0.1"]);
    assert_eq!(
        (code(&released), out(&released).as_str()),
        (0, "released 127.0.0.1 (messages_per_minute)\n")
    );
    relay.refused("a@example.org", "250");
    let log = relay.hears("client released by an operator");
    assert_eq!(
        (log.len(), &log[0]["client"]),
        (1, &"127.0.0.1".into()),
        "{log:?}"
    );
    assert_eq!(out(&relay.clients(&["list", "--json"])), "[]\n");
    assert_eq!(out(&relay.clients(&["list"])), "no client is held back\n");
    relay.refused("a@example.org", "250");
    relay.refused("a@example.org", "450");
    let all = json(&relay.clients(&["release", "--all", "--json"]));
    assert_eq!(
        (&all[0]["client"], &all[0]["times"]),
        (&"127.0.0.1".into(), &1.into()),
        "{all:#}"
    );
    relay.refused("a@example.org", "250");
}

#[test]
fn a_client_must_be_named_rightly() {
    let relay = Relay::start("");
    for (arguments, words) in [
        (&["release"][..], "required arguments were not provided"),
        (&["release", "--all", "192.0.2.1"], "cannot be used with"),
        (
            &["release", "--user", "scanner", "192.0.2.1"],
            "cannot be used with",
        ),
        (
            &["release", "--user", "scanner", "--all"],
            "cannot be used with",
        ),
        (
            &["release", "mail.example.org"],
            "write an address or a network",
        ),
    ] {
        let output = relay.clients(arguments);
        assert_eq!(
            (code(&output), out(&output).as_str()),
            (2, ""),
            "{arguments:?}"
        );
        assert!(err(&output).contains(words), "{}", err(&output));
    }
}
