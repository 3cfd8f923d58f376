//! Strangers fill neither the log nor the places of the status page and the admin socket.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::operated::{Relay, code, out};

#[test]
fn a_network_has_so_many_lines_in_the_log() {
    let relay = Relay::start(
        "[relay]\nnetworks = []\ndomains = [\"example.com\"]\n[limits]\nerrors = 1000\n",
    );
    let strangers = (0..300).map(|n| format!("b@n{n}.example"));
    let mut replies = relay.asks_for("a@example.org", strangers).into_iter();
    assert!(
        replies.all(|reply| reply.starts_with("550 5.7.1")),
        "each is refused"
    );
    // An accepted message is always logged.
    relay.send_quickly("a@example.org", &["b@example.com"], "b");
    let accepted = relay.hears("message accepted");
    assert_eq!((accepted.len(), &accepted[0]["recipients"]), (1, &1.into()));
    let lines = relay.logged("recipient refused").len();
    // A minute may have passed in between.
    assert!(lines == 100 || lines == 200, "{lines} lines");
    let metrics = relay.http("GET /metrics HTTP/1.1");
    for line in [
        format!(
            "gatepost_log_lines_suppressed_total{{clients=\"strangers\"}} {}",
            300 - lines
        )
        .as_str(),
        "gatepost_log_lines_suppressed_total{clients=\"relay_networks\"} 0",
        "gatepost_inbound_transaction_memory_bytes 0",
    ] {
        assert!(
            metrics.lines().any(|written| written == line),
            "{line} is not in\n{metrics}"
        );
    }
}

#[test]
fn half_requests_keep_nobody_out() {
    let relay = Relay::start("");
    let mut open = Vec::new();
    for _ in 0..40 {
        let mut half = TcpStream::connect(relay.http).expect("a listener");
        half.write_all(b"GET /healthz HTTP/1.1\r\nhost: ")
            .expect("a connection");
        open.push(half);
    }
    let began = Instant::now();
    let answer = relay.http("GET /healthz HTTP/1.1");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("alive"),
        "{answer}"
    );
    let mut halves = Vec::new();
    for _ in 0..40 {
        let mut half = UnixStream::connect(relay.socket()).expect("a listener");
        half.write_all(b"GET /v1/queue HTTP/1.1\r\nhost: ")
            .expect("a connection");
        halves.push(half);
    }
    let listed = relay.clients(&["list"]);
    assert_eq!(
        (code(&listed), out(&listed).as_str()),
        (0, "no client is held back\n")
    );
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "it took {:?}",
        began.elapsed()
    );
    drop((open, halves));
}
