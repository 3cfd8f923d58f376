//! A script of partners that behave well and badly: the records of their mail, and the commands
//! that show them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gatepost::storage::evidence::{
    DeliveryRecord, DemandOutcome, RecordedAssurance, RecordedOutcome,
};

use super::daemon::{CERTS, PATIENCE, configure, err, evidence, out, partner, start, told};
use super::world::{files, folder};
use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::peer::{Manner, Peer, Starttls};
use crate::support::within;

/// Each domain, what its connector says, and how its host behaves.
fn scripted() -> Vec<(&'static str, String, Manner)> {
    let trust = |verify: &str| format!("tls = \"forced\"\nverify = \"{verify}\"\n");
    let exception = "tls = \"forced\"\nexception = { tls = \"opportunistic\", until = \"2999-01-31\", reason = \"ticket 4711\" }\n";
    vec![
        (
            "old.example",
            "tls = \"opportunistic\"\n".to_owned(),
            Manner::new(Starttls::NotOffered),
        ),
        (
            "broken.example",
            "tls = \"opportunistic\"\n".to_owned(),
            Manner::new(Starttls::Answered("454 4.7.0 not now")),
        ),
        (
            "modern.example",
            "tls = \"opportunistic\"\n".to_owned(),
            Manner::new(partner()),
        ),
        ("named.example", trust("name"), Manner::new(partner())),
        (
            "plain.example",
            trust("none"),
            Manner::new(Starttls::NotOffered),
        ),
        (
            "except.example",
            exception.to_owned(),
            Manner::new(Starttls::NotOffered),
        ),
        (
            "full.example",
            "tls = \"opportunistic\"\n".to_owned(),
            Manner::new(partner()).answer("RCPT", "550 5.1.1 nobody, \"here\""),
        ),
    ]
}

/// Messages to a domain. One that is refused is left alone, with all that comes after.
fn count(domain: &str) -> usize {
    if domain == "plain.example" { 1 } else { 2 }
}

/// Plays the script.
async fn play(folder: &Path) -> PathBuf {
    let mut connectors = format!("[tls]\ntrust = \"{CERTS}/ca.pem\"\n");
    let mut peers = Vec::new();
    for (domain, outbound, manner) in scripted() {
        let peer = Peer::start(manner).await;
        write!(
            connectors,
            "[[connector]]\nname = \"{}\"\ndomains = [\"{domain}\"]\n{}\
             [connector.outbound]\nroute = [\"{}\"]\ndiscover = []\n{outbound}",
            domain.trim_end_matches(".example"),
            if outbound.contains("\"name\"") {
                "names = [\"mail.domain-c.com\"]\n"
            } else {
                ""
            },
            peer.address
        )
        .expect("a string takes all");
        peers.push(peer);
    }
    connectors.push_str("[[connector]]\nname = \"reports\"\ndomains = [\"sender.example\"]\n[connector.outbound]\ntls = \"off\"\nroute = [\"127.0.0.1:9\"]\n");
    let file = configure(folder, "path = \"evidence\"", &connectors);
    let relay = start(&file);
    let address = relay.address;
    let sent = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(address).expect("it listens");
        for (domain, ..) in scripted() {
            for at in 0..count(domain) {
                let mut message = Message::new(&format!("m{at}"), &[domain], 400);
                let mut content = format!("Message-ID: <{at}@{domain}>\r\n").into_bytes();
                content.append(&mut message.content);
                message.content = content;
                assert!(matches!(client.send(&message), Verdict::Accepted(_)));
            }
        }
    });
    sent.await.expect("no panic");
    let folder = folder.to_owned();
    let seen = tokio::task::spawn_blocking(move || {
        within(PATIENCE, || {
            let all = told(&folder);
            let of = |domain: &str| {
                all.iter()
                    .filter(|delivery| delivery.domain == domain)
                    .count()
            };
            scripted()
                .iter()
                .all(|(domain, ..)| of(domain) == count(domain))
        })
    });
    assert!(seen.await.expect("no panic"), "{}", relay.kill().log);
    drop(relay);
    drop(peers);
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_show_what_happened() {
    let folder = folder();
    let file = play(folder.path()).await;
    let summary = evidence(&file, &["summary", "--csv"]);
    assert_eq!(summary.status.code(), Some(0), "{}", err(&summary));
    let text = out(&summary);
    let lines: Vec<_> = text
        .split("\r\n")
        .filter(|line| !line.starts_with("reports,"))
        .collect();
    assert_eq!(
        lines,
        [
            "connector,domain,delivered,clear,tls,trusted,verified,pinned,dane,exceeded,fallback,refused,deferred,held,bounced,removed",
            "broken,broken.example,2,2,0,0,0,0,0,0,2,0,0,0,0,0",
            "except,except.example,2,2,0,0,0,0,0,0,0,0,0,0,0,0",
            "full,full.example,0,0,0,0,0,0,0,0,0,0,0,0,2,0",
            "modern,modern.example,2,0,0,2,0,0,0,2,0,0,0,0,0,0",
            "named,named.example,2,0,0,0,2,0,0,0,0,0,0,0,0,0",
            "old,old.example,2,2,0,0,0,0,0,0,0,0,0,0,0,0",
            "plain,plain.example,0,0,0,0,0,0,0,0,0,1,1,0,0,0",
            "",
        ]
    );
    let table = out(&evidence(&file, &["summary"]));
    let clear = table
        .split("still served in the clear:\n")
        .nth(1)
        .expect("a list");
    let clear = clear.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "old.example (old): 2, last ",
        "the peer does not offer STARTTLS",
        "broken.example (broken): 2",
        "except.example",
    ] {
        assert!(clear.contains(words), "{words:?} is missing from {table}");
    }
    assert!(
        !clear.contains("modern") && !clear.contains("named"),
        "{table}"
    );
    let json: serde_json::Value = serde_json::from_str(&out(&evidence(
        &file,
        &["summary", "--json", "--domain", "old.example"],
    )))
    .expect("JSON");
    assert_eq!(
        (
            json["rows"].as_array().map(Vec::len),
            &json["rows"][0]["levels"]["clear"]
        ),
        (Some(1), &2.into())
    );
    let none = evidence(&file, &["summary", "--domain", "nowhere.example"]);
    assert_eq!(
        none.status.code(),
        Some(1),
        "as list has it: {}",
        out(&none)
    );
    let none = evidence(&file, &["list", "--domain", "nowhere.example"]);
    assert_eq!(
        (
            none.status.code(),
            out(&none).starts_with("no records match: domain nowhere.example\n")
        ),
        (Some(1), true)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_says_who_demanded_what_and_what_was_had() {
    let folder = folder();
    let file = play(folder.path()).await;
    let all = told(folder.path());
    let named = of(&all, "named.example");
    names_the_session(named);
    names_the_message(named, &file);
    names_the_demand_that_was_not_met(of(&all, "plain.example"));
    let except = of(&all, "except.example");
    assert_eq!(
        except.exception.as_ref().map(|held| held.reason.as_str()),
        Some("ticket 4711")
    );
    let fallback = of(&all, "broken.example");
    assert_eq!(fallback.standing, DemandOutcome::Fallback);
    let no_tls = fallback
        .session
        .as_ref()
        .and_then(|session| session.no_tls.clone())
        .expect("a reason");
    assert!(no_tls.contains("454 4.7.0 not now"), "{no_tls}");
    holds_no_content(folder.path());
}

/// The peer's answer is on record, and quoted as each form of the list has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_of_the_peer_is_on_record() {
    let folder = folder();
    let file = play(folder.path()).await;
    let all = told(folder.path());
    let full = of(&all, "full.example");
    assert_eq!(
        (full.outcome, full.reply.as_deref()),
        (RecordedOutcome::Bounced, Some("550 5.1.1 nobody, \"here\""))
    );
    let csv = out(&evidence(
        &file,
        &["list", "--csv", "--domain", "full.example"],
    ));
    assert!(csv.contains("\"550 5.1.1 nobody, \"\"here\"\"\""), "{csv}");
    let listed: serde_json::Value = serde_json::from_str(&out(&evidence(
        &file,
        &[
            "list",
            "--json",
            "--direction",
            "out",
            "--queue-id",
            &full.queue_id,
        ],
    )))
    .expect("JSON");
    assert_eq!(
        (listed.as_array().map(Vec::len), &listed[0]["outcome"]),
        (Some(1), &"bounced".into())
    );
}

fn of<'a>(all: &'a [DeliveryRecord], domain: &str) -> &'a DeliveryRecord {
    all.iter()
        .find(|delivery| delivery.domain == domain)
        .expect(domain)
}

fn names_the_session(named: &DeliveryRecord) {
    let session = named.session.as_ref().expect("a session");
    let tls = session.tls.as_ref().expect("TLS");
    assert_eq!(
        (session.level, named.standing, session.no_tls.as_ref()),
        (RecordedAssurance::Verified, DemandOutcome::Met, None)
    );
    assert_eq!(
        (tls.version.as_str(), tls.matched_name.as_deref()),
        ("TLSv1.3", Some("mail.domain-c.com"))
    );
    assert_eq!(tls.authentication, "verified as mail.domain-c.com");
    assert!(
        tls.certificate
            .as_ref()
            .is_some_and(|shown| shown.spki.starts_with("sha256:")),
        "{tls:?}"
    );
    assert!(
        tls.cipher.starts_with("TLS") && tls.key_exchange.is_some(),
        "{tls:?}"
    );
    let demands = &named.policy.as_ref().expect("a policy").demands;
    assert_eq!(
        (demands.len(), demands[0].layer.as_str(), demands[0].level),
        (1, "connector", RecordedAssurance::Verified)
    );
}

fn names_the_message(named: &DeliveryRecord, file: &Path) {
    assert!(
        named
            .message_id
            .as_deref()
            .is_some_and(|id| id.ends_with("@named.example>")),
        "{named:?}"
    );
    assert_eq!(
        (named.from.as_str(), named.attempt, named.status.as_str()),
        ("alice@sender.example", 1, "2.0.0")
    );
    let sum = Command::new("sha256sum")
        .arg(file)
        .output()
        .expect("sha256sum");
    assert_eq!(
        Some(named.configuration.as_str()),
        out(&sum).split(' ').next()
    );
    assert!(
        named
            .address
            .as_deref()
            .is_some_and(|address| address.starts_with("127.0.0.1:")),
        "{named:?}"
    );
    names_the_connection(named);
    assert_eq!(named.recipient_connector, None);
}

fn names_the_connection(delivery: &DeliveryRecord) {
    assert_eq!(
        (delivery.protocol.as_deref(), delivery.source.as_deref()),
        (Some("smtp"), Some("127.0.0.1"))
    );
}

fn names_the_demand_that_was_not_met(refused: &DeliveryRecord) {
    assert_eq!(
        (refused.standing, refused.outcome, &refused.session),
        (DemandOutcome::Refused, RecordedOutcome::Deferred, &None)
    );
    let unmet = refused.unmet.as_ref().expect("a demand");
    assert_eq!(
        (unmet.layer.as_str(), unmet.got.as_str()),
        ("connector", "the peer does not offer STARTTLS")
    );
    assert_eq!(refused.status, "4.7.4");
    assert!(
        refused.policy.is_some() && refused.address.is_some(),
        "{refused:?}"
    );
    names_the_connection(refused);
}

fn holds_no_content(folder: &Path) {
    for file in files(&folder.join("evidence")) {
        let text = fs::read_to_string(file).expect("text");
        assert!(
            !text.contains("X-Size") && !text.contains("-- the end of"),
            "content is on record: {text}"
        );
    }
}
