//! `gatepost queue` as an operator runs it: the real program against a real daemon, whose smart
//! host is dead, so that mail waits.

use crate::support::operated::{Relay, code, err, json, out};
use crate::support::sink::Sink;
use serde_json::Value;

/// Alice's message to Bob and to Jürgen's domain, and Carol's to Bob.
pub(crate) fn filled() -> (Relay, [String; 2]) {
    let relay = Relay::start("");
    let first = relay.send(
        "alice@example.org",
        &["bob@example.net", "dave@b\u{fc}cher.example"],
        "first",
    );
    let second = relay.send("carol@example.com", &["bob@example.net"], "second");
    relay.wait_for("an attempt that failed, and no other", |queue| {
        queue.iter().any(|message| attempts(message) > 0)
            && queue.iter().all(|message| message["busy"] == false)
    });
    (relay, [first, second])
}

fn attempts(message: &Value) -> u64 {
    let recipients = message["recipients"].as_array().expect("recipients");
    recipients
        .iter()
        .map(|recipient| recipient["attempts"].as_u64().expect("a number"))
        .max()
        .unwrap_or(0)
}

pub(crate) fn state(message: &Value, at: usize) -> &str {
    message["recipients"][at]["state"]
        .as_str()
        .expect("a state")
}

#[test]
fn the_list_shows_what_waits_and_why() {
    let (relay, [first, second]) = filled();
    let output = relay.queue(&["list"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    for said in [
        &first,
        &second,
        "alice@example.org",
        "dave@xn--bcher-kva.example",
        "next attempt in",
        "Connection refused",
        "2 messages, ",
    ] {
        assert!(
            out(&output).contains(said),
            "{said:?} is not in\n{}",
            out(&output)
        );
    }

    let listed = json(&relay.queue(&["list", "--json"]));
    let listed = listed.as_array().expect("an array");
    assert_eq!(listed.len(), 2);
    let message = &listed[0];
    assert_eq!(message["id"], *first);
    assert_eq!(message["sender"], "alice@example.org");
    assert_eq!(
        message["recipients"][1]["address"],
        "dave@xn--bcher-kva.example"
    );
    assert_eq!(
        message["recipients"][1]["recipient"], message["recipients"][1]["address"],
        "by either name"
    );
    assert!(message["size"].as_u64().expect("octets") > 100);
    for recipient in message["recipients"].as_array().expect("recipients") {
        // One attempt was enough to know that the destination is down: the other message shows
        // it, too.
        assert_eq!(recipient["state"], "waiting");
        assert_eq!(recipient["connector"], "internet");
        let down = &recipient["destination_down"];
        assert!(
            down["reason"]["text"]
                .as_str()
                .expect("a reason")
                .contains("Connection refused"),
            "{down}"
        );
        assert!(
            recipient["next"].as_str() >= down["until"].as_str(),
            "{recipient}"
        );
        assert!(recipient.get("history").is_none(), "lists are brief");
    }
}

#[test]
fn filters_choose_and_finding_nothing_is_a_no() {
    let (relay, [first, second]) = filled();
    let both = [first.as_str(), second.as_str()];
    for (arguments, chosen) in [
        (&["--domain", "example.net"][..], &both[..]),
        (&["--domain", "b\u{fc}cher.example"], &both[..1]),
        (&["--domain", "XN--BCHER-KVA.example"], &both[..1]),
        (&["--sender", "carol@EXAMPLE.com"], &both[1..]),
        (
            &["--sender", "<alice@example.org>", "--domain", "example.net"],
            &both[..1],
        ),
        (&["--older-than", "1h"], &[]),
        (&["--state", "waiting", "--connector", "internet"], &both),
        (&["--state", "held"], &[]),
        (&["--connector", "default"], &[]),
        (&["--domain", "example.org"], &[]),
        (&["--sender", ""], &[]),
        (
            &[
                "--sender",
                "carol@example.com",
                "--domain",
                "b\u{fc}cher.example",
            ],
            &[],
        ),
        (&[&second], &both[1..]),
        (&[&second, &first, &second], &both),
        (&["--all"], &both),
    ] {
        let arguments: Vec<&str> = ["list", "--json"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let output = relay.queue(&arguments);
        let listed = json(&output);
        let ids: Vec<_> = listed
            .as_array()
            .expect("an array")
            .iter()
            .map(|message| message["id"].clone())
            .collect();
        assert_eq!(ids, chosen, "{arguments:?}");
        assert_eq!(code(&output), i32::from(chosen.is_empty()), "{arguments:?}");
    }
    let output = relay.queue(&["list", "0000000000005", &first]);
    assert_eq!(code(&output), 1);
    assert!(out(&output).contains(&first), "{}", out(&output));
    assert_eq!(
        err(&output),
        "0000000000005: no such message in the queue\n"
    );
    let output = relay.queue(&["list", "--domain", "nobody.example"]);
    assert_eq!(
        (code(&output), out(&output)),
        (1, "no message matches\n".to_owned())
    );
}

#[test]
fn an_empty_queue_is_no_fault() {
    let relay = Relay::start("");
    let output = relay.queue(&["list"]);
    assert_eq!(
        (code(&output), out(&output)),
        (0, "the queue is empty\n".to_owned())
    );
    assert_eq!(
        json(&relay.queue(&["list", "--json"])),
        Value::Array(Vec::new())
    );
}

#[test]
fn show_prints_the_envelope_every_attempt_and_the_next() {
    let (relay, [first, _]) = filled();
    let output = relay.queue(&["show", &first]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    for said in [
        "alice@example.org",
        "bob@example.net (connector internet)",
        "dave@xn--bcher-kva.example",
        "waiting",
        "attempts   1",
        "Connection refused",
        "next       20",
        "expires    20",
    ] {
        assert!(
            out(&output).contains(said),
            "{said:?} is not in\n{}",
            out(&output)
        );
    }
    let told = json(&relay.queue(&["show", &first, "--json"]));
    assert_eq!(told["id"], *first);
    // The evidence has recorded the session in full; the message keeps it in short.
    let received = &told["received"];
    let client = received["client"].as_str().expect("a client");
    assert!(client.starts_with("127.0.0.1:"), "{received}");
    let hello = received["hello"].as_str().expect("a name");
    let line = format!("\nreceived   with UTF8SMTP from {client}, EHLO {hello}, listener ");
    assert!(out(&output).contains(&line), "{}", out(&output));
    assert_eq!(
        (&received["protocol"], &received["user"]),
        (&"UTF8SMTP".into(), &Value::Null)
    );
    assert_eq!(told["parameters"]["body"], "7BIT");
    assert_eq!(told["parameters"]["tls"], "ordinary");
    assert!(!out(&output).contains("TLS"), "{}", out(&output));
    let history = told["recipients"][0]["history"]
        .as_array()
        .expect("what failed");
    assert_eq!(history.len(), 1);
    assert_eq!(history[0]["status"], "4.4.1");
    let several = json(&relay.queue(&["show", "--all", "--json"]));
    assert_eq!(
        several.as_array().map(Vec::len),
        Some(2),
        "an array where it is not one that was named"
    );

    let output = relay.queue(&["show", "0000000000005"]);
    assert_eq!(
        (code(&output), err(&output)),
        (
            1,
            "0000000000005: no such message in the queue\n".to_owned()
        )
    );
    assert_eq!(code(&relay.queue(&["show"])), 2);
}

#[test]
fn show_names_the_tls_that_a_message_requires() {
    let relay = Relay::start("");
    let id = relay.send_whole(
        "alice@example.org",
        &["bob@example.net"],
        "TLS-Required: No\r\n\r\nbody",
    );
    let output = relay.queue(&["show", &id]);
    let line =
        "header     TLS-Required: No (DANE and MTA-STS of the recipients' domains do not apply)\n";
    assert!(out(&output).contains(line), "{}", out(&output));
    assert_eq!(
        json(&relay.queue(&["show", &id, "--json"]))["parameters"]["tls"],
        "relaxed"
    );
}

#[test]
fn the_content_comes_as_it_is_stored() {
    let relay = Relay::start("");
    // Larger than a row of the spool and than any chunk.
    let line = "0123456789 a line of some length, and the next\r\n";
    let large = relay.send(
        "alice@example.org",
        &["bob@example.net"],
        &line.repeat(20_000),
    );
    let headers = out(&relay.queue(&["show", &large, "--headers"]));
    assert!(
        headers.starts_with("Received: ") && headers.contains("\r\nSubject: test\r\n"),
        "{headers}"
    );
    let body = out(&relay.queue(&["show", &large, "--body"]));
    assert_eq!(body, format!("{}\r\n", line.repeat(20_000)));
    let whole = out(&relay.queue(&["show", &large, "--headers", "--body"]));
    assert_eq!(whole, format!("{headers}\r\n{body}"));
    let told = json(&relay.queue(&["show", &large, "--headers", "--json"]));
    assert_eq!(told["headers"], *headers);
    assert!(told.get("body").is_none());
}

#[test]
fn what_is_held_waits_until_it_is_released() {
    let (relay, [first, second]) = filled();
    let output = relay.queue(&["hold", &first]);
    assert_eq!(
        (code(&output), out(&output)),
        (0, "1 message held\n".to_owned()),
        "{}",
        err(&output)
    );
    let queue = relay.list();
    assert_eq!(
        (
            state(&queue[0], 0),
            state(&queue[0], 1),
            state(&queue[1], 0)
        ),
        ("held", "held", "waiting")
    );
    for (wanted, id) in [("held", &first), ("waiting", &second)] {
        let listed = json(&relay.queue(&["list", "--json", "--state", wanted]));
        assert_eq!(
            (listed.as_array().map(Vec::len), &listed[0]["id"]),
            (Some(1), &Value::from(id.as_str()))
        );
    }
    assert_eq!(queue[0]["recipients"][0]["next"], Value::Null);

    // One that was named gets the reason; of many, those that it does not concern are left out.
    let output = relay.queue(&["retry", &first]);
    assert_eq!(
        (code(&output), out(&output)),
        (1, "0 messages retried, 1 not\n".to_owned())
    );
    assert!(
        err(&output).starts_with(&format!("{first}: ")) && err(&output).contains("is it held?"),
        "{}",
        err(&output)
    );
    let output = relay.queue(&["hold", &first]);
    assert_eq!(
        (code(&output), out(&output)),
        (1, "0 messages held, 1 not\n".to_owned())
    );
    let output = relay.queue(&["release", &second, "--json"]);
    assert_eq!(code(&output), 1);
    assert_eq!(
        json(&output),
        serde_json::json!([{"id": second, "done": false, "error": "it is not held"}])
    );

    let output = relay.queue(&["release", "--all", "--json"]);
    assert_eq!(
        (code(&output), json(&output)),
        (0, serde_json::json!([{"id": first, "done": true}]))
    );
    assert_eq!(state(&relay.list()[0], 0), "waiting");
    let output = relay.queue(&["release", "--all"]);
    assert_eq!(
        (code(&output), out(&output)),
        (1, "no message matches\n".to_owned())
    );
}

#[test]
fn retry_forgets_all_waiting_and_delivers() {
    let (relay, [first, second]) = filled();
    let sink = Sink::at(relay.smart_host);
    let output = relay.queue(&["retry", "--domain", "example.net"]);
    assert_eq!(
        (code(&output), out(&output)),
        (0, "2 messages retried\n".to_owned()),
        "{}",
        err(&output)
    );
    relay.wait_for("an empty queue", <[Value]>::is_empty);
    let mut taken = sink.bodies();
    taken.sort();
    assert_eq!(
        taken,
        ["first", "first", "second"],
        "one for each recipient domain"
    );
    let output = relay.queue(&["retry", &first, &second]);
    assert_eq!(
        (code(&output), out(&output)),
        (1, "0 messages retried, 2 not\n".to_owned())
    );
}

#[test]
fn a_part_that_is_released_leaves_the_other_part_alone() {
    let plain = Sink::start();
    let connector = format!(
        "[[connector]]\nname = \"strict\"\ndomains = [\"strict.example\"]\n[connector.outbound]\nroute = \
         [\"{}\"]\ntls = \"forced\"\non_failure = \"hold\"\n",
        plain.address
    );
    let relay = Relay::start(&connector);
    // Nobody gets a report that one part is held: the report would be among the mail that is
    // counted.
    let id = relay.send("", &["bob@example.net", "eve@strict.example"], "parted");
    relay.wait_for("one held, one waiting", |queue| {
        state(&queue[0], 1) == "held" && attempts(&queue[0]) > 0
    });
    for _ in 0..3 {
        assert_eq!(code(&relay.queue(&["release", &id])), 0);
        relay.wait_for("held again", |queue| {
            state(&queue[0], 1) == "held" && queue[0]["busy"] == false
        });
    }
    let reason = relay.list()[0]["recipients"][1]["reason"]["text"].clone();
    assert!(
        reason.as_str().expect("a reason").contains("STARTTLS"),
        "{reason}"
    );
    let sink = Sink::at(relay.smart_host);
    assert_eq!(code(&relay.queue(&["retry", &id])), 0);
    relay.wait_for("the rest delivered", |queue| {
        state(&queue[0], 0) == "delivered" && queue[0]["busy"] == false
    });
    assert_eq!(sink.bodies(), ["parted"], "delivered once");
    assert_eq!(
        plain.bodies(),
        [""; 0],
        "nothing was said where the policy was not met"
    );
}

#[test]
fn a_bounce_is_reported_to_the_sender() {
    let (relay, [first, second]) = filled();
    let output = relay.queue(&["bounce", &first]);
    assert_eq!(code(&output), 2, "nobody can be asked");
    assert!(err(&output).contains("--yes"), "{}", err(&output));
    assert_eq!(relay.list().len(), 2);

    let output = relay.queue(&["bounce", &first, "--yes"]);
    assert_eq!(
        (code(&output), out(&output)),
        (0, "1 message bounced\n".to_owned()),
        "{}",
        err(&output)
    );
    relay.wait_for("a report instead", |queue| {
        queue.len() >= 2 && queue.iter().all(|message| message["id"] != *first)
    });
    let reports = json(&relay.queue(&["list", "--sender", "", "--json"]));
    let reports = reports.as_array().expect("an array");
    assert!(!reports.is_empty());
    for report in reports {
        assert_eq!(report["recipients"][0]["address"], "alice@example.org");
        let body = out(&relay.queue(&["show", report["id"].as_str().expect("an id"), "--body"]));
        assert!(body.contains("given up by the administrator"), "{body}");
    }
    assert!(relay.list().iter().any(|message| message["id"] == *second));
}

#[test]
fn removing_asks_on_a_terminal_and_wants_yes_elsewhere() {
    let (relay, [first, second]) = filled();
    let output = relay.queue(&["remove", &first]);
    assert_eq!((code(&output), out(&output)), (2, String::new()));
    assert!(
        err(&output).contains("add --yes to remove them"),
        "{}",
        err(&output)
    );

    let (status, said) = relay.queue_on_terminal(&["remove", "--all"], "n\n");
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("Remove 2 messages? [y/N] ") && said.contains("nothing was done"),
        "{said}"
    );
    assert_eq!(relay.list().len(), 2);
    let (status, said) = relay.queue_on_terminal(&["remove", &first], "y\n");
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("Remove 1 message? [y/N] ") && said.contains("1 message removed"),
        "{said}"
    );
    assert_eq!(relay.list().len(), 1);

    let output = relay.queue(&["remove", "--all", "--yes", "--json"]);
    assert_eq!(
        (code(&output), json(&output)),
        (0, serde_json::json!([{"id": second, "done": true}]))
    );
    assert!(relay.list().is_empty());
    let output = relay.queue(&["remove", &second, "--yes"]);
    assert_eq!(
        (code(&output), out(&output)),
        (1, "0 messages removed, 1 not\n".to_owned())
    );
    assert_eq!(
        err(&output),
        format!("{second}: no such message in the queue\n")
    );
}

#[test]
fn what_is_being_tried_needs_no_push() {
    // Connections are made, and nobody says anything.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let slow = format!(
        "[[connector]]\nname = \"slow\"\ndomains = [\"slow.example\"]\n[connector.outbound]\nroute = [\"{}\"]\ntls = \
         \"off\"\n",
        silent.local_addr().expect("bound")
    );
    let relay = Relay::start(&slow);
    let id = relay.send("alice@example.org", &["bob@slow.example"], "x");
    relay.wait_for("an attempt", |queue| queue[0]["busy"] == true);
    let output = relay.queue(&["retry", "--all"]);
    let said = "1 message being delivered already, nothing to do\n";
    assert_eq!(
        (code(&output), out(&output).as_str()),
        (1, said),
        "{}",
        err(&output)
    );
    let output = relay.queue(&["hold", &id]);
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("message is busy (being delivered, or another command is running)"),
        "{}",
        err(&output)
    );
}

#[test]
fn who_gave_an_order_is_on_record_before_it_is_carried_out() {
    let (relay, [first, _]) = filled();
    assert_eq!(code(&relay.queue(&["hold", &first])), 0);
    // The order was answered; what the daemon says of it comes by another way.
    let [given, done] =
        ["an operator gave an order", "message held by an operator"].map(|line| relay.hears(line));
    assert_eq!((given.len(), done.len()), (1, 1));
    assert!(
        given[0]["uid"].is_u64() && given[0]["timestamp"].as_str() < done[0]["timestamp"].as_str(),
        "{given:?} {done:?}"
    );
}

#[test]
fn changing_commands_want_a_choice() {
    let relay = Relay::start("");
    for command in ["retry", "hold", "release", "remove", "bounce"] {
        let output = relay.queue(&[command, "--yes"]);
        assert_eq!(code(&output), 2, "{command}");
        assert!(
            err(&output).contains("--all"),
            "{command}: {}",
            err(&output)
        );
    }
    for bad in [
        &["hold", "nonsense"][..],
        &["list", "--all", "--domain", "a.example"],
        &["list", "--older-than", "5 parsecs"],
        &["flush"],
        &[],
    ] {
        assert_eq!(code(&relay.queue(bad)), 2, "{bad:?}");
    }
}

#[test]
fn without_a_daemon_the_commands_say_what_to_do() {
    let mut relay = Relay::start("");
    relay.stop();
    for (command, yes) in [("list", None), ("retry", None), ("remove", Some("--yes"))] {
        let arguments: Vec<&str> = [command, "--all"].into_iter().chain(yes).collect();
        let output = relay.queue(&arguments);
        assert_eq!((code(&output), out(&output)), (1, String::new()));
        for said in [
            "no running Gatepost answers on ",
            "admin.sock",
            "systemctl status gatepost",
            "gatepost run",
        ] {
            assert!(
                err(&output).contains(said),
                "{said:?} is not in\n{}",
                err(&output)
            );
        }
    }
    let output = relay.queue(&["list", "--json"]);
    assert_eq!(
        (code(&output), out(&output)),
        (1, String::new()),
        "no document rather than a wrong one"
    );
}
