//! `gatepost check --against`, with a running daemon and with another file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

use super::world::{connector, in_order};
use crate::support::config::ConfigBuilder;
use crate::support::operated::{Relay, code, err, json, out, raw};

fn check(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .env("COLUMNS", "500")
        .arg("check")
        .arg("--config")
        .arg(file)
        .args(arguments)
        .output()
        .expect("gatepost runs")
}

/// Writes the relay's configuration with another retry interval and a connector for
/// partner.example beside it.
fn changed(relay: &Relay) -> PathBuf {
    let new = relay.folder.path().join("new.toml");
    let text = fs::read_to_string(relay.config()).expect("a file");
    let text = text.replace("retry = [\"1h\"]", "retry = [\"2h\"]");
    let partner = connector("partner", &["partner.example"], "tls = \"forced\"");
    fs::write(&new, format!("{text}{partner}")).expect("a file");
    new
}

#[test]
fn the_running_configuration_and_its_queue_are_compared_with() {
    let relay = Relay::start("");
    let to = ["b@partner.example", "c@other.example"];
    let [first, second] = [(); 2].map(|()| relay.send("a@example.com", &to, "x"));
    let other = relay.send("a@example.com", &["b@other.example"], "x");
    let same = check(&relay.config(), &["--against"]);
    assert_eq!(code(&same), 0, "{}{}", out(&same), err(&same));
    assert!(
        out(&same).contains("no difference: both mean the same\n"),
        "{}",
        out(&same)
    );
    let new = changed(&relay);
    let output = check(&new, &["--against"]);
    assert_eq!(code(&output), 1, "{}", err(&output));
    let said = out(&output);
    in_order(
        &said,
        &[
            "/new.toml against the running configuration, read from ",
            "[queue]: changed\n  retry: [\"1h\"] -> [\"2h\"]\n",
            "[[connector]] partner: added\n",
            "Domains with another connector\n  partner.example: internet -> partner\n",
            &format!("  partner.example: 2 messages (internet -> partner): {first} {second}\n"),
            "    outbound.tls: \"off\" -> \"forced\"\n",
        ],
    );
    assert!(
        !said.contains("other.example") && !said.contains(&other),
        "{said}"
    );
    let told = json(&check(&new, &["--against", "--json"]));
    assert_eq!(
        (
            &told["same"],
            &told["queue_asked"],
            &told["queued"][0]["messages"]
        ),
        (&json!(false), &json!(true), &json!(2))
    );
    assert_eq!(
        told["winners"],
        json!([{"pattern": "partner.example", "old": "internet", "new": "partner"}])
    );
    assert_eq!(told["running_sha256"].as_str().map(str::len), Some(64));
}

/// Changes to the file since the start are not in force.
#[test]
fn the_running_configuration_is_the_one_that_was_read() {
    let relay = Relay::start("");
    let text = fs::read_to_string(relay.config()).expect("a file");
    fs::copy(changed(&relay), relay.config()).expect("a file");
    assert_eq!(code(&check(&relay.config(), &["--against"])), 1);
    let (_, in_force) = raw(
        &relay.socket(),
        "GET /v1/config HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(
        (in_force["text"].as_str(), in_force["file"].as_str()),
        (Some(text.as_str()), relay.config().to_str())
    );
}

#[test]
fn what_needs_a_restart_is_shown_before_a_reload() {
    let mut relay = Relay::start("");
    let text = fs::read_to_string(relay.config()).expect("a file");
    let other = text.replace("retry = [\"1h\"]", "retry = [\"2h\"]");
    let restart = "Restart the daemon for this";
    for (new, status, said) in [
        (text.clone(), 0, &[][..]),
        (other.clone(), 0, &[]),
        (
            other.replace("127.0.0.1:0\"]\ntls", "127.0.0.1:2525\"]\ntls"),
            1,
            &["listeners cannot change", restart],
        ),
        (
            other
                .replace("\"spool\"", "\"spool2\"")
                .replace("\"evidence\"", "\"\""),
            1,
            &[
                "[spool] path cannot change",
                "[evidence] path cannot change",
                "gatepost.toml: 2 errors",
            ],
        ),
        (
            text.replace(
                "path = \"spool\"",
                "path = \"spool\"\nurl = \"postgresql://gatepost@localhost/mail\"",
            ),
            1,
            &["[spool] url cannot change", "gatepost.toml: 1 error"],
        ),
        (
            text.replace("run/admin.sock", "run/other.sock"),
            1,
            &["no running Gatepost answers on ", "restart it"],
        ),
        // Nobody can be asked.
        (text.replace("run/admin.sock", ""), 0, &[]),
    ] {
        fs::write(relay.config(), &new).expect("a file");
        let output = check(&relay.config(), &["--reload"]);
        assert_eq!(code(&output), status, "{}\n{new}", err(&output));
        for words in said {
            assert!(
                err(&output).contains(words),
                "{words:?} is missing from\n{}",
                err(&output)
            );
        }
        assert_eq!(
            code(&check(&relay.config(), &[])),
            0,
            "it can be taken all the same\n{new}"
        );
    }
    fs::write(relay.config(), "hostname = 7").expect("a file");
    assert_eq!(code(&check(&relay.config(), &["--reload"])), 1);
    relay.stop();
}

#[test]
fn another_file_can_be_compared_with_and_what_cannot_ends_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, more: &str| {
        let path = folder.path().join(name);
        let config = ConfigBuilder::new()
            .table("admin", "socket = \"s\"")
            .with(more);
        fs::write(&path, config.text()).expect("our own folder");
        path
    };
    let (old, same) = (
        file("old.toml", ""),
        file("same.toml", "# a word\n[queue]\nexpire = \"5d\"\n"),
    );
    let other = file("other.toml", "[limits]\nrecipients = 500\n");
    let old = old.to_str().expect("text");
    assert_eq!(code(&check(&same, &["--against", old])), 0);
    let output = check(&other, &["--against", old]);
    assert_eq!(code(&output), 1);
    in_order(
        &out(&output),
        &[
            "[limits]: changed\n  recipients: 1000 -> 500\n",
            "The queue is not compared: files have none.\n",
        ],
    );
    let bad = file("bad.toml", "[limits]\nrecipients = 0\n");
    for (file, arguments, said) in [
        (&bad, &["--against", old][..], "bad.toml: 1 error"),
        (
            &other,
            &["--against", bad.to_str().expect("text")],
            "the other file cannot be read",
        ),
        (&other, &["--against"], "no running Gatepost answers on "),
        (
            &other,
            &["--against", "--socket", "/nonexistent/sock"],
            "no running Gatepost answers on /nonexistent/sock",
        ),
        (&other, &["--socket", "s"], "--against"),
        (
            &other,
            &["--against", old, "--socket", "s"],
            "give one of them",
        ),
    ] {
        let output = check(file, arguments);
        assert_eq!(
            (code(&output), out(&output).as_str()),
            (2, ""),
            "{arguments:?}"
        );
        assert!(
            err(&output).contains(said),
            "{arguments:?}: {}",
            err(&output)
        );
    }
}

#[test]
fn an_exception_that_has_ended_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let exception = "tls = \"forced\"\nexception = { tls = \"off\", until = \"2001-01-31\", reason = \"ticket 4711\" }";
    let config = ConfigBuilder::new().with(&connector("partner", &["partner.example"], exception));
    let path = config.write(folder.path());
    let output = check(&path, &[]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let said = err(&output);
    assert!(
        said.starts_with("warning: ") && said.contains("gatepost.toml:12:"),
        "{said}"
    );
    assert!(
        said.contains(
            "the exception of the connector \"partner\" ended on 2001-01-31 (ticket 4711)"
        ),
        "{said}"
    );
    fs::write(&path, config.text().replace("2001", "2999")).expect("our own folder");
    assert_eq!(err(&check(&path, &[])), "");
}
