//! `gatepost status`, the status page and the metrics, of a daemon with and without trouble.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::operated::{Relay, code, err, json, out};
use crate::support::sink::Sink;

/// A daemon with mail that cannot be delivered: nobody listens where it goes.
fn troubled() -> Relay {
    let relay = Relay::start("");
    relay.send("a@example.com", &["b@b.example", "c@c.example"], "hello");
    relay.wait_for("both attempts", |queue| {
        let recipients = queue
            .iter()
            .flat_map(|message| message["recipients"].as_array().expect("a list"));
        recipients.clone().count() == 2
            && recipients
                .into_iter()
                .all(|recipient| !recipient["reason"].is_null())
    });
    // A count is good for a second.
    std::thread::sleep(Duration::from_millis(1100));
    relay
}

fn metric(metrics: &str, line: &str) -> f64 {
    let found = metrics
        .lines()
        .find_map(|one| one.strip_prefix(line)?.strip_prefix(' '));
    found
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{line} is not in\n{metrics}"))
}

#[test]
fn status_shows_what_waits_and_why() {
    let relay = troubled();
    let status = json(&relay.status(&["--json"]));
    assert_eq!(status["hostname"], "relay.example.com");
    assert_eq!(
        (&status["queue"]["messages"], &status["queue"]["waiting"]),
        (&1.into(), &2.into()),
        "{status:#}"
    );
    let troubles = status["troubles"].as_array().expect("a list");
    assert_eq!(
        troubles
            .iter()
            .map(|one| one["domain"].as_str())
            .collect::<Vec<_>>(),
        [Some("b.example"), Some("c.example")]
    );
    assert_eq!(troubles[0]["connector"], "internet");
    assert!(
        troubles[0]["reason"]["text"]
            .as_str()
            .is_some_and(|text| text.contains("cannot connect")),
        "{status:#}"
    );
    assert_eq!(
        (
            &status["attempts"][1]["share"],
            &status["attempts"][1]["most"]
        ),
        (&"mx".into(), &1200.into())
    );
    let output = relay.status(&[]);
    assert_eq!(code(&output), 0);
    let said = out(&output);
    assert!(
        said.contains("delivery attempts for named connectors and smart hosts: 0 of 800\n"),
        "{said}"
    );
    assert!(said.contains("queue: 1 message ("), "{said}");
    assert!(
        said.contains("  domain     connector  waiting  oldest  next attempt\n"),
        "nothing is held: {said}"
    );
    assert!(said.contains("  b.example  internet   1  "), "{said}");
    assert!(said.contains("cannot connect"), "{said}");
    assert!(
        said.contains("certificates: none") && said.contains("exceptions in force: none"),
        "{said}"
    );
}

#[test]
fn without_a_daemon_the_answer_is_no() {
    let mut relay = Relay::start("");
    relay.stop();
    let output = relay.status(&["--json"]);
    assert_eq!((code(&output), out(&output).as_str()), (1, ""));
    assert!(
        err(&output).contains("no running Gatepost answers on"),
        "{}",
        err(&output)
    );
}

#[test]
fn exceptions_and_refusals_are_shown() {
    let relay = Relay::start(
        "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n[connector.outbound]\ntls = \"forced\"\n\
         exception = { tls = \"opportunistic\", until = \"2099-01-31\", reason = \"their new gateway\" }\n\
         [connector.inbound]\nnetworks = [\"192.0.2.0/24\"]\n[limits]\nerrors = 50\n",
    );
    for _ in 0..3 {
        relay.refused("x@partner.example", "550");
    }
    let status = json(&relay.status(&["--json"]));
    assert_eq!(
        status["exceptions"][0]["reason"], "their new gateway",
        "{status:#}"
    );
    assert_eq!(status["connectors"][1]["outbound"], "TLS opportunistic");
    let refusals = status["refusals"].as_array().expect("a list");
    assert_eq!(refusals.len(), 1, "the same again is counted: {status:#}");
    assert_eq!(
        (&refusals[0]["times"], &refusals[0]["peer"]),
        (&3.into(), &"127.0.0.1".into())
    );
    assert!(
        refusals[0]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("is not taken from 127.0.0.1"))
    );
    assert_eq!(
        relay.logged("client refused").len(),
        1,
        "the log says it once within a minute"
    );
    let metrics = relay.http("GET /metrics HTTP/1.1");
    let refused =
        "gatepost_inbound_refused_total{listener=\"mx\",connector=\"partner\",reason=\"policy\"}";
    assert!((metric(&metrics, refused) - 3.0).abs() < 0.5);
}

#[test]
fn the_page_shows_the_same_and_allows_nothing_from_elsewhere() {
    let relay = troubled();
    let page = relay.http_at("localhost", "GET / HTTP/1.1");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let policy = page
        .lines()
        .find(|line| line.starts_with("content-security-policy:"))
        .expect("a policy");
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(
        page.contains("<h3>b.example</h3>") && page.contains("2 destinations in trouble"),
        "{page}"
    );
    assert!(!page.contains("hello"), "no content of mail");
    assert!(!page.contains("@b.example"), "no addresses of people");
}

/// The counters of one message that was delivered.
const COUNTED_ONCE: [&str; 6] = [
    "gatepost_inbound_messages_total{listener=\"mx\",connector=\"internet\",tls=\"none\",verification=\"none\"}",
    "gatepost_outbound_recipients_total{connector=\"internet\",outcome=\"delivered\",tls=\"none\",verification=\"none\"}",
    "gatepost_outbound_messages_total{connector=\"internet\",tls=\"none\",verification=\"none\"}",
    "gatepost_delivery_delay_seconds_count{connector=\"internet\"}",
    "gatepost_tls_judged_sessions_total{direction=\"outbound\",connector=\"internet\",policy=\"off\",outcome=\"cleared\"}",
    "gatepost_inbound_sessions_total{listener=\"mx\",end=\"closed\"}",
];

/// The counters of what did not happen.
const NOT_COUNTED: [&str; 10] = [
    "gatepost_delivery_destinations_waiting{share=\"mx\"}",
    "gatepost_delivery_attempts_ended_total{reason=\"gave_way\"}",
    "gatepost_dsn_waiting",
    "gatepost_dsn_digest_waiting",
    "gatepost_dsn_total",
    "gatepost_dsn_delayed_total",
    "gatepost_dsn_merged_total",
    "gatepost_dsn_digests_total",
    "gatepost_dsn_diverted_total",
    "gatepost_inbound_open_sessions{listener=\"mx\"}",
];

/// Waits until the sink has a message and the queue is empty.
fn wait_until_delivered(relay: &Relay, sink: &Sink) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while sink.bodies().is_empty() || !relay.list().is_empty() {
        assert!(Instant::now() < deadline, "it is not delivered");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn metrics_count_what_came_and_went() {
    let relay = Relay::start("");
    let sink = Sink::at(relay.smart_host);
    relay.send_quickly("a@example.com", &["b@b.example"], "hello");
    wait_until_delivered(&relay, &sink);
    let metrics = relay.http("GET /metrics HTTP/1.1");
    assert!(
        metrics.contains("content-type: text/plain; version=0.0.4"),
        "{metrics}"
    );
    for line in COUNTED_ONCE {
        assert!(
            (metric(&metrics, line) - 1.0).abs() < 0.5,
            "{line} in\n{metrics}"
        );
    }
    assert!(
        metric(&metrics, "gatepost_delivery_attempts_max{share=\"named\"}") > 799.0,
        "{metrics}"
    );
    for line in NOT_COUNTED {
        assert!(metric(&metrics, line) < 0.5, "{line} in\n{metrics}");
    }
    assert!(
        metric(&metrics, "gatepost_spool_sync_seconds_count") >= 2.0,
        "{metrics}"
    );
    assert!(
        metric(&metrics, "process_resident_memory_bytes") > 1e6,
        "{metrics}"
    );
    for named in ["b.example", "127.0.0.1", "a@"] {
        assert!(!metrics.contains(named), "no label is a peer's: {named}");
    }
    let open =
        relay.http("GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text; version=1.0.0");
    assert!(
        open.contains("content-type: application/openmetrics-text") && open.ends_with("# EOF\n"),
        "{open}"
    );
}

#[test]
fn what_is_covered_outlives_the_daemon() {
    let mut relay = Relay::start("");
    let sink = Sink::at(relay.smart_host);
    relay.send_quickly("a@example.com", &["b@b.example"], "hello");
    wait_until_delivered(&relay, &sink);
    relay.stop();
    relay.start_again();
    let status = json(&relay.status(&["--json"]));
    let connector = &status["connectors"][0];
    assert_eq!(
        (
            &connector["sent"][0]["clear"],
            &connector["received"][0]["clear"]
        ),
        (&1.into(), &1.into()),
        "{status:#}"
    );
}

/// A container has no other way to ask: its image has neither a shell nor curl.
#[test]
fn readiness_is_an_exit_status() {
    let mut relay = Relay::start("");
    assert_eq!(out(&relay.status(&["--ready"])), "ready\n");
    let ready = json(&relay.status(&["--ready", "--json"]));
    assert_eq!(ready, serde_json::json!({"ready": true, "reasons": []}));
    relay.stop();
    let stopped = relay.status(&["--ready"]);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(
        err(&stopped).contains("no running Gatepost answers"),
        "{stopped:?}"
    );
}

#[test]
fn health_and_strangers() {
    let relay = Relay::start("");
    for (head, status, words) in [
        ("GET /healthz HTTP/1.1", "200", "alive"),
        ("GET /readyz HTTP/1.1", "200", "ready"),
        ("GET /v1/queue HTTP/1.1", "404", "no such path"),
        ("POST / HTTP/1.1", "405", "only GET and HEAD"),
        ("DELETE /metrics HTTP/1.1", "405", "only GET and HEAD"),
    ] {
        let answer = relay.http(head);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(words),
            "{head}: {answer}"
        );
    }
}

#[test]
fn the_page_is_shown_under_our_own_names_alone() {
    let relay = Relay::start("");
    for host in [
        "127.0.0.1",
        "127.0.0.1:9025",
        "192.0.2.7:80",
        "[::1]:9025",
        "LocalHost:9025",
        "relay.example.com",
        "Relay.Example.Com.:80",
    ] {
        let answer = relay.http_at(host, "GET / HTTP/1.1");
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("<title>relay.example.com"),
            "{host}: {answer}"
        );
    }
    let strangers = [
        "evil.example",
        "127.0.0.1.evil.example:9025",
        "localhost.evil.example",
        "relay.example.com.evil.example",
    ];
    for host in strangers {
        let answer = relay.http_at(host, "GET / HTTP/1.1");
        assert!(
            answer.starts_with("HTTP/1.1 421") && !answer.contains("<title>"),
            "{host}: {answer}"
        );
        assert!(
            answer.contains("under an IP address, localhost or relay.example.com only"),
            "{host}: {answer}"
        );
        for path in ["/metrics", "/healthz", "/readyz"] {
            let answer = relay.http_at(host, &format!("GET {path} HTTP/1.1"));
            assert!(
                answer.starts_with("HTTP/1.1 200"),
                "{path} is read under any name: {answer}"
            );
        }
    }
    for (head, status) in [
        ("HEAD / HTTP/1.1\r\nhost: evil.example", "400"),
        ("GET / HTTP/1.1\r\nhost: 127.0.0.1", "400"),
        ("GET http://evil.example/ HTTP/1.1", "421"),
    ] {
        let answer = relay.http_at("127.0.0.1", head);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && !answer.contains("<title>"),
            "{head}: {answer}"
        );
    }
}

#[test]
fn an_address_in_use_is_a_fault_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let mut relay = Relay::start("");
    relay.stop();
    let text = std::fs::read_to_string(relay.config()).expect("a configuration");
    let text = text.replace("http = \"127.0.0.1:0\"", &format!("http = \"{address}\""));
    std::fs::write(relay.config(), text).expect("a configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    let output = command
        .arg("run")
        .arg("--config")
        .arg(relay.config())
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert_eq!(code(&output), 1);
    let said = err(&output);
    assert!(
        said.contains(&format!("status and metrics cannot be shown on {address}")),
        "{said}"
    );
    assert!(said.contains("Set [admin] http to an address"), "{said}");
}
