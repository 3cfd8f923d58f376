//! `gatepost test-mail`: a message is followed until it is delivered, rejected or given up.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::operated::{Relay, err, out};
use crate::support::relay::program;
use crate::support::sink::Sink;

/// Runs the command with a configuration that has the port that the relay has; its exit status,
/// standard output and standard error.
fn test_mail(relay: &Relay, arguments: &[&str]) -> (Option<i32>, String, String) {
    test_mail_with(relay, arguments, str::to_owned)
}

/// As [`test_mail`], with a configuration that is changed so.
fn test_mail_with(
    relay: &Relay,
    arguments: &[&str],
    change: impl Fn(&str) -> String,
) -> (Option<i32>, String, String) {
    let text = fs::read_to_string(relay.config()).expect("our own file");
    let text = change(&text);
    let file = relay.folder.path().join("with_port.toml");
    let text = text.replacen("127.0.0.1:0", &relay.smtp().to_string(), 1);
    fs::write(&file, text).expect("our own folder");
    let output = Command::new(program())
        .env("COLUMNS", "400")
        .arg("test-mail")
        .args(arguments)
        .arg("--config")
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .expect("gatepost runs");
    (output.status.code(), out(&output), err(&output))
}

#[test]
fn a_delivered_message_is_shown_with_its_host_and_tls() {
    let relay = Relay::start("");
    let sink = Sink::at(relay.smart_host);
    let (code, out, err) = test_mail(&relay, &["bob@example.net"]);
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    let lines: Vec<_> = out.lines().collect();
    let [accepted, delivered] = lines[..] else {
        panic!("{out}")
    };
    assert!(accepted.starts_with("accepted as "), "{accepted}");
    let host = format!("delivered by [127.0.0.1] ({})", relay.smart_host);
    assert!(delivered.starts_with(&host), "{delivered}");
    assert!(
        delivered.contains(", in the clear, connector internet"),
        "{delivered}"
    );
    let bodies = sink.bodies();
    assert!(
        matches!(&bodies[..], [body] if body.contains("gatepost test-mail")),
        "{bodies:?}"
    );
}

#[test]
fn a_message_that_is_not_delivered_is_shown_with_its_reason() {
    let strict = "[[connector]]\nname = \"strict\"\ndomains = [\"strict.example\"]\noutbound = { tls = \"forced\", \
                  route = [\"127.0.0.1:9\"], on_failure = \"bounce\" }\n";
    let plain = Sink::start();
    let strict = strict.replace("127.0.0.1:9", &plain.address.to_string());
    let relay = Relay::start(&strict);
    // The host offers no TLS.
    let (code, out, err) = test_mail(&relay, &["--from", "<>", "eve@strict.example"]);
    assert_eq!((code, &*err), (Some(1), ""), "{out}");
    assert!(out.contains("\nbounced by [127.0.0.1] ("), "{out}");
    assert!(!out.contains("still in the queue"), "{out}");
    assert!(out.contains("5.7.4"), "{out}");
    assert_eq!(plain.bodies(), Vec::<String>::new());

    // Nobody listens at the other host.
    let (code, out, err) = test_mail(&relay, &["--from", "<>", "--wait", "2s", "bob@example.net"]);
    assert_eq!((code, &*err), (Some(1), ""), "{out}");
    assert!(
        out.contains("\nstill in the queue; see `gatepost queue show "),
        "{out}"
    );

    // A client of ours may send anywhere, but an address must be one.
    let (code, _, err) = test_mail(&relay, &["nobody"]);
    assert_eq!(code, Some(2), "{err}");
}

/// Without evidence the queue has the result, but only while it has the message.
#[test]
fn without_evidence_a_message_that_bounced_is_not_shown_as_delivered() {
    let plain = Sink::start();
    let strict = "[[connector]]\nname = \"strict\"\ndomains = [\"strict.example\"]\noutbound = { tls = \"forced\", \
                  route = [\"127.0.0.1:9\"], on_failure = \"bounce\" }\n";
    let strict = strict.replace("127.0.0.1:9", &plain.address.to_string());
    let relay = Relay::start(&strict);
    let without_evidence = |text: &str| {
        let changed = text.replacen("path = \"evidence\"", "path = \"\"", 1);
        assert_ne!(changed, text);
        changed
    };
    // It has left the queue, or it was seen as bounced.
    for from in ["postmaster@example.com", "<>"] {
        let arguments = ["--from", from, "eve@strict.example"];
        let (code, out, err) = test_mail_with(&relay, &arguments, without_evidence);
        assert_eq!((code, &*err), (Some(1), ""), "{out}");
        assert!(out.contains("there is no evidence"), "{out}");
        assert!(!out.contains("\ndelivered"), "{out}");
    }
}
