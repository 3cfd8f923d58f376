//! A report as mail: signed, queued, and delivered by a real relay to a real server.
//!
//! With `TLSRPT_KEEP=FOLDER` what arrived stays there for `.ci/tlsrpt`, which reads it with
//! programs that are not ours.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gatepost::config::{DkimKey, Located, Location};
use gatepost::relay::tlsrpt::dkim::Signer;
use gatepost::relay::tlsrpt::{Bounds, SessionResult, is_report};
use gatepost::smtp::envelope::{Notify, TlsRequirement};
use gatepost::storage::spool::Entry;
use serde_json::Value;

use super::service::{AT_ONCE, ServiceFixture, domain, folder, json, no_starttls, seen};
use crate::support::in_process::{PATIENCE, configured, run, until};
use crate::support::sink::Sink;

const TO: [&str; 2] = ["tls@partner.example", "tls@third.example"];

enum Kind {
    Rsa,
    Ed25519,
}

fn signer(kind: &Kind) -> Signer {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::Ed25519KeyPair;
    let der = match kind {
        Kind::Rsa => {
            let key = KeyPair::generate(KeySize::Rsa2048).expect("a key");
            let der: Pkcs8V1Der<'_> = key.as_der().expect("encoded");
            der.as_ref().to_vec()
        }
        Kind::Ed25519 => Ed25519KeyPair::generate()
            .and_then(|key| key.to_pkcs8v1())
            .expect("a key")
            .as_ref()
            .to_vec(),
    };
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    write!(
        file,
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        BASE64.encode(der)
    )
    .expect("written");
    let location = Location {
        file: file.path().into(),
        line: 1,
        column: 1,
    };
    let key = DkimKey {
        domain: domain("example.com"),
        selector: domain("reports"),
        file: Located {
            value: file.path().to_owned(),
            location,
        },
    };
    Signer::load(&key).expect("a usable key").0
}

/// Makes a report, and has a relay deliver it from the spool. Gives the entry and what arrived.
async fn delivered(signer: Option<Signer>) -> (Entry, String) {
    let folder = folder();
    let mut fixture = ServiceFixture::open(folder.path(), Bounds::default(), AT_ONCE, signer);
    fixture.network.publishes(&format!(
        "v=TLSRPTv1; rua=mailto:{},mailto:{}",
        TO[0], TO[1]
    ));
    fixture
        .sees([
            seen("2026-03-01T10:00:00Z", SessionResult::Succeeded),
            seen("2026-03-01T11:00:00Z", no_starttls()),
        ])
        .await;
    fixture.reports("2026-03-02T00:00:00Z").await;
    let entry = fixture.accepted.try_recv().expect("the scheduler is told");
    assert!(fixture.accepted.try_recv().is_err(), "of one message");
    // The lock on the spool goes with the last that has it.
    let ServiceFixture {
        outbox, accepted, ..
    } = fixture;
    drop((outbox, accepted));
    let sink = Sink::start();
    let config = configured(folder.path(), sink.address, "", &[]);
    let (_, mut running) = run(config, std::sync::Arc::new(())).await;
    until("both have it", || {
        (sink.arrivals().len() == 2).then_some(())
    })
    .await;
    running.stop();
    tokio::time::timeout(PATIENCE, running.ended())
        .await
        .expect("in time")
        .expect("an orderly end");
    let arrivals = sink.arrivals();
    let mut recipients: Vec<_> = arrivals
        .iter()
        .map(|arrival| arrival.recipient.as_str())
        .collect();
    recipients.sort_unstable();
    assert_eq!(recipients, TO);
    assert_eq!(arrivals[0].sender, "tls@relay.example.com");
    (
        entry.message,
        String::from_utf8(arrivals[0].content.to_vec()).expect("ASCII"),
    )
}

/// The value of a header field, unfolded.
fn field(head: &str, name: &str) -> String {
    let head = head.replace("\r\n ", " ");
    let mut found = head
        .split("\r\n")
        .filter_map(|line| line.strip_prefix(&format!("{name}: ")));
    let value = found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {head}"));
    assert_eq!(found.next(), None, "{name} stands twice");
    value.to_owned()
}

fn keep(name: &str, content: &str) {
    if let Some(folder) = std::env::var_os("TLSRPT_KEEP") {
        std::fs::write(std::path::Path::new(&folder).join(name), content)
            .expect("the folder is there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_goes_through_the_queue_in_the_form_of_the_standard() {
    let signer = signer(&Kind::Rsa);
    keep("rsa.txt", &signer.record());
    let (entry, message) = delivered(Some(signer)).await;
    keep("rsa.eml", &message);
    let envelope = &entry.envelope;
    assert!(is_report(envelope), "its own session must not be observed");
    assert_eq!(envelope.tls, TlsRequirement::Relaxed);
    assert!(
        envelope
            .recipients
            .iter()
            .all(|one| one.notify == Some(Notify::Never)),
        "nobody is told of its failure"
    );

    assert!(message.lines().all(|line| line.len() < 998) && message.is_ascii());
    let (head, body) = message.split_once("\r\n\r\n").expect("a header");
    has_the_fields_of_a_report(head);
    let [text, report] = parts(head, body);
    says_in_words_what_it_reports(text);
    let report = attached_report(report);
    let id = format!("<{}>", report["report-id"].as_str().expect("text"));
    assert_eq!(field(head, "Message-ID"), id);
    assert_eq!(report["contact-info"], "tls@relay.example.com");
    assert_eq!(
        report["policies"][0]["summary"]["total-failure-session-count"],
        1
    );
}

fn has_the_fields_of_a_report(head: &str) {
    let id = field(head, "Message-ID");
    assert!(
        id.starts_with("<2026-03-01.") && id.ends_with("@relay.example.com>"),
        "{id}"
    );
    let subject =
        format!("Report Domain: partner.example Submitter: relay.example.com Report-ID: {id}");
    assert_eq!(field(head, "Subject"), subject);
    assert_eq!(field(head, "From"), "<tls@relay.example.com>");
    assert_eq!(
        field(head, "To"),
        "<tls@partner.example>, <tls@third.example>"
    );
    assert_eq!(field(head, "TLS-Report-Domain"), "partner.example");
    assert_eq!(field(head, "TLS-Report-Submitter"), "relay.example.com");
    assert_eq!(field(head, "TLS-Required"), "No");
    let signature = field(head, "DKIM-Signature");
    for part in [
        "d=example.com;",
        "s=reports;",
        "a=rsa-sha256;",
        "TLS-Report-Domain:",
        "TLS-Report-Submitter:",
    ] {
        assert!(signature.contains(part), "{part} is not in {signature}");
    }
}

/// The two parts of the body.
fn parts<'a>(head: &str, body: &'a str) -> [&'a str; 2] {
    let kind = field(head, "Content-Type");
    let boundary = kind
        .strip_prefix("multipart/report; report-type=\"tlsrpt\"; boundary=\"")
        .expect(&kind);
    let parts: Vec<&str> = body
        .split(&format!("--{}", boundary.trim_end_matches('"')))
        .collect();
    let [before, text, report, end] = parts[..] else {
        panic!("{body}")
    };
    assert_eq!((before, end), ("", "--\r\n"));
    [text, report]
}

/// The header and the content of a part.
fn decoded(part: &str) -> (&str, Vec<u8>) {
    let (head, content) = part.split_once("\r\n\r\n").expect("a header");
    let content = BASE64.decode(content.replace("\r\n", ""));
    (head, content.expect("base64"))
}

fn says_in_words_what_it_reports(part: &str) {
    let (head, text) = decoded(part);
    assert!(head.contains("Content-Type: text/plain"), "{head}");
    let text = String::from_utf8(text).expect("text");
    for words in [
        "mail for partner.example",
        "Example Ltd (relay.example.com)",
        "2 sessions, 1 of which failed",
        "1 session  starttls-not-supported at mx.partner.example [192.0.2.25]",
        "_smtp._tls.partner.example",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}

fn attached_report(part: &str) -> Value {
    let (head, report) = decoded(part);
    assert!(
        head.contains("Content-Type: application/tlsrpt+gzip"),
        "{head}"
    );
    assert!(
        head.contains(
            "filename=\"relay.example.com!partner.example!1772323200!1772409599!20260301"
        ),
        "{head}"
    );
    json(&report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ed25519_key_signs_too() {
    let signer = signer(&Kind::Ed25519);
    keep("ed25519.txt", &signer.record());
    let (_, message) = delivered(Some(signer)).await;
    keep("ed25519.eml", &message);
    assert!(
        message.starts_with("DKIM-Signature: v=1; a=ed25519-sha256;"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_it_goes_unsigned() {
    let (_, message) = delivered(None).await;
    assert!(!message.contains("DKIM-Signature"), "{message}");
}
