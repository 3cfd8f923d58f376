//! The admin socket itself: who may use it, what becomes of one that stands in its place, and how
//! it answers what cannot be answered.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};

use crate::support::operated::{Relay, code, err, raw};

#[test]
fn owner_and_group_may_use_it_and_it_is_gone_afterwards() {
    let mut relay = Relay::start("");
    let found = fs::symlink_metadata(relay.socket()).expect("the socket");
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o660);
    let folder = fs::metadata(relay.socket().parent().expect("a folder")).expect("the folder");
    assert_eq!(folder.permissions().mode() & 0o7777, 0o750);
    relay.stop();
    assert!(!relay.socket().exists());
}

#[test]
fn what_an_earlier_run_left_behind_is_replaced() {
    let mut relay = Relay::start("");
    relay.kill();
    assert!(relay.socket().exists(), "nobody cleared it away");
    relay.start_again();
    assert!(relay.list().is_empty());
}

/// Starts a daemon that must not start; 2 says that only another configuration would help.
fn refused(config: &std::path::Path, status: i32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    let output = command
        .arg("run")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .expect("gatepost runs");
    assert_eq!(code(&output), status, "{}", err(&output));
    err(&output)
}

#[test]
fn one_that_answers_is_left_alone() {
    let relay = Relay::start("");
    let text = fs::read_to_string(relay.config()).expect("a configuration");
    let second = relay.folder.path().join("second.toml");
    fs::write(
        &second,
        text.replace("path = \"spool\"", "path = \"second\"")
            .replace("\"evidence\"", "\"other\""),
    )
    .expect("a configuration");
    let said = refused(&second, 1);
    assert!(said.contains("second.toml:"), "{said}");
    for part in [
        ":10: the admin socket",
        "another program listens on it",
        "give each its own [admin] socket",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert!(relay.list().is_empty(), "the first still answers");
}

#[test]
fn a_file_in_its_place_is_not_removed() {
    let mut relay = Relay::start("");
    relay.stop();
    fs::write(relay.socket(), "somebody's").expect("a file");
    assert!(refused(&relay.config(), 1).contains("the path exists and is not a socket"));
    assert_eq!(
        fs::read_to_string(relay.socket()).expect("still there"),
        "somebody's"
    );
    let text = fs::read_to_string(relay.config()).expect("a configuration");
    fs::write(
        relay.config(),
        text.replace("run/admin.sock", &format!("{}/a.sock", "x".repeat(120))),
    )
    .expect("a file");
    assert!(refused(&relay.config(), 2).contains("107 octets at most"));
}

#[test]
fn switched_off_there_is_none_and_the_commands_say_so() {
    let mut relay = Relay::start("");
    relay.stop();
    let text = fs::read_to_string(relay.config()).expect("a configuration");
    fs::write(relay.config(), text.replace("run/admin.sock", "")).expect("a configuration");
    relay.start_again();
    let output = relay.queue(&["list"]);
    assert_eq!(code(&output), 2);
    assert!(
        err(&output).contains("[admin] socket is switched off in "),
        "{}",
        err(&output)
    );
    relay.stop();
}

/// A request, and the status and sentence that it is rejected with.
type Rejected = (String, &'static str, &'static str);

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/queue/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn unanswerable_questions() -> [Rejected; 9] {
    [
        (get("/v1/nothing"), "404", "no such path"),
        (get("/v1/queue/orders/x"), "404", "no such path"),
        (
            get("/v1/queue/0000000000005"),
            "404",
            "there is no queue entry 0000000000005",
        ),
        (
            get("/v1/queue/0000000000005/content"),
            "404",
            "there is no queue entry 0000000000005",
        ),
        (
            get("/v1/queue/nonsense"),
            "400",
            "\"nonsense\" is not a queue id",
        ),
        (
            get("/v1/queue?limit=5000"),
            "400",
            "limit must be from 1 to 1000",
        ),
        (get("/v1/queue?colour=red"), "400", "unknown field `colour`"),
        (
            get("/v1/queue/0000000000005/content?part=middle"),
            "400",
            "unknown variant `middle`",
        ),
        (
            "PUT /v1/queue HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "405",
            "method not allowed on this path",
        ),
    ]
}

fn unanswerable_orders() -> [Rejected; 5] {
    let many = format!(
        "{{\"order\":\"hold\",\"ids\":[{}]}}",
        vec!["\"0000000000005\""; 1001].join(",")
    );
    let huge = format!(
        "{{\"order\":\"hold\",\"ids\":[\"{}\"]}}",
        "x".repeat(100_000)
    );
    [
        (post("{"), "400", "EOF"),
        (
            post("{\"order\":\"burn\",\"ids\":[]}"),
            "422",
            "unknown variant `burn`",
        ),
        (
            post("{\"order\":\"hold\",\"ids\":[]}"),
            "422",
            "an order names 1 to 1000 ids",
        ),
        (post(&many), "422", "an order names 1 to 1000 ids"),
        (post(&huge), "413", "length limit"),
    ]
}

#[test]
fn an_unanswerable_request_is_rejected_with_a_sentence() {
    let relay = Relay::start("");
    let requests = unanswerable_questions();
    for (request, status, sentence) in requests.into_iter().chain(unanswerable_orders()) {
        let (line, body) = raw(&relay.socket(), &request);
        let head = &request[..request.len().min(60)];
        assert!(
            line.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head:?}: {line} {body}"
        );
        assert!(
            body["error"]
                .as_str()
                .expect("a sentence")
                .contains(sentence),
            "{head:?}: {body}"
        );
    }
}

/// An order for a message that is gone is answered, for that message.
#[test]
fn an_order_for_a_message_that_is_gone_is_answered_so() {
    let relay = Relay::start("");
    let (line, body) = raw(
        &relay.socket(),
        &post("{\"order\":\"hold\",\"ids\":[\"0000000000005\"]}"),
    );
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    let sentence = "there is no queue entry 0000000000005";
    let answer = serde_json::json!({"id": "0000000000005", "done": false, "error": sentence, "meanwhile": "gone"});
    assert_eq!(body, serde_json::json!({"answers": [answer]}));
}

#[test]
fn pages_follow_one_another() {
    let relay = Relay::start("");
    let sent: Vec<String> = (0..5)
        .map(|_| relay.send("a@example.org", &["b@example.net"], "x"))
        .collect();
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let request = format!("GET /v1/queue?limit=2{after} HTTP/1.1\r\nHost: x\r\n\r\n");
        let (_, page) = raw(&relay.socket(), &request);
        let messages = page["messages"].as_array().expect("an array");
        assert!(messages.len() <= 2);
        seen.extend(
            messages
                .iter()
                .map(|message| message["id"].as_str().expect("an id").to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, sent);
}
