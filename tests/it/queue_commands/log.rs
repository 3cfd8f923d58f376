//! The log: each line says what held, and for whom.

use std::time::Duration;

use serde_json::Value;

use crate::support::operated::{Relay, Session};
use crate::support::sink::Sink;

/// Connectors with TLS forced to a host that has none; one of them under an exception.
fn without_tls(sink: &Sink) -> String {
    let connector = |name: &str, more: &str| {
        format!(
            "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\n[connector.outbound]\nroute = [\"{}\"]\n\
             tls = \"forced\"\n{more}\n",
            sink.address
        )
    };
    let exception =
        "exception = { tls = \"opportunistic\", until = \"2099-01-31\", reason = \"ticket 7\" }";
    connector("lax", exception) + &connector("strict", "")
}

#[test]
fn deliveries_log_the_demand_that_held() {
    let sink = Sink::start();
    let relay = Relay::start(&without_tls(&sink));
    relay.send_quickly(
        "a@example.com",
        &["b@lax.example", "b@strict.example"],
        "hello",
    );
    let delivered = &relay.hears("message delivered")[0];
    assert_eq!(
        delivered["tls.wanted"], "opportunistic (exception until 2099-01-31)",
        "{delivered:#}"
    );
    assert_eq!(
        (&delivered["connector"], &delivered["to"]),
        (&"lax".into(), &"b@lax.example".into())
    );
    let deferred = &relay.hears("delivery deferred")[0];
    assert_eq!(
        (&deferred["tls.wanted"], &deferred["status"]),
        (&"forced (connector: TLS)".into(), &"4.7.4".into())
    );
    let refused = &relay.hears("the hop does not meet the TLS policy; message not sent to it")[0];
    assert_eq!(
        (&refused["tls.wanted"], &refused["tls.unmet"]),
        (&deferred["tls.wanted"], &"connector".into())
    );
    assert_eq!(relay.logged("message delivered").len(), 1);
}

/// Sender and connector of a line.
fn named(line: &Value) -> (&Value, &Value) {
    (&line["from"], &line["from_connector"])
}

#[test]
fn a_refusal_names_sender_and_connector() {
    let relay = Relay::start(
        "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n[connector.inbound]\nnetworks = \
         [\"192.0.2.0/24\"]\n[relay]\nnetworks = []\ndomains = [\"ours.example\"]\n",
    );
    relay.refused("x@partner.example", "550");
    let (partner, sender) = (
        ("x@partner.example".into(), "partner".into()),
        ("a@b.example".into(), "internet".into()),
    );
    assert_eq!(
        named(&relay.hears("client refused")[0]),
        (&partner.0, &partner.1)
    );
    let mut session = relay.session();
    session.say("MAIL FROM:<a@b.example>", "250");
    session.say("RCPT TO:<x@elsewhere.example>", "550");
    assert_eq!(
        named(&relay.hears("recipient refused")[0]),
        (&sender.0, &sender.1)
    );
    session.say("RCPT TO:<x@ours.example>", "250");
    session.say("DATA", "354");
    session.say("Subject: a\n\r\nb\r\n.", "550");
    session.say("WHO ARE YOU", "500");
    session.say("QUIT", "221");
    let refused = relay.hears_all("client refused", 3);
    assert_eq!(refused.len(), 3, "{refused:#?}");
    assert_eq!(named(&refused[1]), (&sender.0, &sender.1));
    assert_eq!(
        named(&refused[2]),
        (&Value::Null, &Value::Null),
        "there is no transaction any more"
    );
    let mut session = relay.session();
    for line in ["MAIL FROM:<a@b.example>", "RCPT TO:<x@ours.example>"] {
        session.say(line, "250");
    }
    session.say("DATA", "354");
    session.say("Subject: a\r\n\r\nb\r\n.", "250");
    let accepted = &relay.hears("message accepted")[0];
    assert_eq!(
        (named(accepted), &accepted["connector"]),
        ((&sender.0, &sender.1), &sender.1)
    );
}

/// A session inside the content of a message.
fn inside(relay: &Relay) -> Session {
    let mut session = relay.session();
    session.say("MAIL FROM:<a@b.example>", "250");
    session.say("RCPT TO:<x@c.example>", "250");
    session.say("DATA", "354");
    session.send(b"Subject: a\r\n");
    session
}

#[test]
fn a_client_that_is_too_slow_or_is_lost_inside_a_message_is_one_line() {
    let relay =
        Relay::start("[timeouts]\ncommand = \"2s\"\ndata_block = \"2s\"\ndata_rate = 1000\n");
    let timed_out = |reason: &str| {
        let lines = relay.logged("client timed out");
        let found: Vec<_> = lines
            .into_iter()
            .filter(|line| line["reason"] == reason)
            .collect();
        assert_eq!(found.len(), 1, "{reason}: {found:#?}");
        named(&found[0]).0.clone()
    };
    // All at once: each is a client of its own.
    let mut idle = relay.session();
    let (mut silent, mut slow, lost) = (inside(&relay), inside(&relay), inside(&relay));
    drop(lost);
    let lines = relay.hears("client lost inside a message");
    assert_eq!(
        (lines.len(), named(&lines[0])),
        (1, (&"a@b.example".into(), &"internet".into()))
    );
    for _ in 0..7 {
        std::thread::sleep(Duration::from_millis(250));
        slow.send(b"x");
    }
    for session in [&mut idle, &mut silent, &mut slow] {
        session.say("", "421");
    }
    drop((idle, silent, slow));
    relay.hears_all("client timed out", 3);
    assert_eq!(timed_out("no command within 2s"), Value::Null);
    assert_eq!(
        timed_out("no more content of the message within 2s"),
        "a@b.example"
    );
    assert_eq!(
        timed_out("the message came slower than [timeouts] data_rate"),
        "a@b.example"
    );
    // Whoever goes away between messages is no news.
    let mut asking = relay.session();
    asking.say("MAIL FROM:<a@b.example>", "250");
    asking.say("RCPT TO:<x@c.example>", "250");
    drop(asking);
    relay.session().say("QUIT", "221");
    assert_eq!(relay.logged("client lost inside a message").len(), 1);
}
