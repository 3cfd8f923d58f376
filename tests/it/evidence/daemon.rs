//! The real daemon: nothing is finished without its evidence, whatever happens, and the commands
//! show it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use gatepost::storage::evidence::{
    DeliveryRecord, DemandOutcome, Period, RecordedAssurance, RecordedOutcome, deliveries, verify,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::world::{files, folder};
use crate::support::client::{Client, Verdict, send_all};
use crate::support::config::ConfigBuilder;
use crate::support::message::Message;
use crate::support::peer::{Manner, Peer, Starttls};
use crate::support::relay::{Relay, program};
use crate::support::sink::Sink;
use crate::support::{Dice, within};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certs");

/// Writes a configuration with these connectors.
pub(crate) fn configure(folder: &Path, evidence: &str, connectors: &str) -> PathBuf {
    ConfigBuilder::running()
        .table("evidence", evidence)
        .table("relay", "networks = [\"127.0.0.0/8\"]")
        .table("queue", "retry = [\"1h\"]")
        .table("log", "format = \"text\"")
        .with(connectors)
        .write(folder)
}

pub(crate) fn to(sink: &Sink) -> String {
    let route = sink.address;
    format!(
        "[[connector]]\nname = \"all\"\ndomains = [\"*\"]\n[connector.outbound]\nroute = [\"{route}\"]\ntls = \"off\"\n"
    )
}

pub(crate) fn start(file: &Path) -> Relay {
    Relay::run(file, &[]).unwrap_or_else(|end| panic!("{}", end.log))
}

pub(crate) fn queued(folder: &Path) -> Option<i64> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database =
        rusqlite::Connection::open_with_flags(folder.join("spool/queue.db"), flags).ok()?;
    database.busy_timeout(Duration::from_secs(5)).ok()?;
    database
        .query_row("SELECT count(*) FROM queue", [], |row| row.get(0))
        .ok()
}

/// Every delivery on record.
pub(crate) fn told(folder: &Path) -> Vec<DeliveryRecord> {
    let mut all = Vec::new();
    let reading = deliveries(&folder.join("evidence"), Period::ALL, |_, _, delivery| {
        all.push(delivery);
    });
    assert_eq!(reading.expect("readable").bad, 0);
    all
}

pub(crate) fn is_whole(folder: &Path) {
    let verified = verify(&folder.join("evidence"), &[]).expect("readable");
    assert_eq!(verified.findings, []);
}

pub(crate) fn evidence(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command
        .env_remove("COLUMNS")
        .arg("evidence")
        .args(arguments)
        .arg("--config")
        .arg(file);
    command.output().expect("gatepost runs")
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn kill_9_at_any_moment_leaves_no_delivery_without_evidence() {
    let folder = folder();
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"evidence\"", &to(&sink));
    let mut dice = Dice::new(7);
    let mut owed = Vec::new();
    for life in 0..6_u64 {
        let relay = start(&file);
        let address = relay.address;
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                std::thread::spawn(move || {
                    let name = |at| format!("l{life}-s{sender}-{at}");
                    let messages: Vec<_> = (0..60)
                        .map(|at| Message::new(&name(at), &["a.example", "b.example"], 600))
                        .collect();
                    let verdicts = send_all(address, &messages);
                    let accepted = messages.into_iter().zip(verdicts);
                    let accepted =
                        accepted.filter(|(_, verdict)| matches!(verdict, Verdict::Accepted(_)));
                    accepted
                        .flat_map(|(message, _)| message.recipients)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        // On a busy machine nothing is accepted for a while.
        let _ = within(Duration::from_secs(2), || {
            queued(folder.path()).is_some_and(|queued| queued > 0)
        });
        std::thread::sleep(Duration::from_millis(30 + dice.below(300)));
        relay
            .kill()
            .check()
            .unwrap_or_else(|fault| panic!("{fault}"));
        owed.extend(
            senders
                .into_iter()
                .flat_map(|sender| sender.join().expect("no panic")),
        );
        // A message that has left the queue is on record already, at this very moment.
        let on_record: HashSet<String> = told(folder.path())
            .into_iter()
            .map(|delivery| delivery.to)
            .collect();
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let database =
            rusqlite::Connection::open_with_flags(folder.path().join("spool/queue.db"), flags);
        let database = database.expect("a database");
        let mut waiting = database
            .prepare("SELECT envelope FROM queue")
            .expect("a view");
        let waiting = waiting
            .query_map([], |row| row.get::<_, String>(0))
            .expect("rows");
        let waiting: String = waiting.map(|row| row.expect("a row")).collect();
        let gone: Vec<_> = owed
            .iter()
            .filter(|to| !on_record.contains(*to) && !waiting.contains(&format!("\"{to}\"")))
            .collect();
        assert!(
            gone.is_empty(),
            "neither in the queue nor on record: {gone:?}"
        );
    }
    assert!(
        owed.len() > 50,
        "only {} recipients were accepted: this proves nothing",
        owed.len()
    );
    let relay = start(&file);
    assert!(
        within(PATIENCE, || queued(folder.path()) == Some(0)),
        "{:?}",
        queued(folder.path())
    );
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
    is_whole(folder.path());
    let delivered = told(folder.path())
        .into_iter()
        .filter(|delivery| delivery.outcome == RecordedOutcome::Delivered);
    let delivered: HashSet<String> = delivered.map(|delivery| delivery.to).collect();
    let missing: Vec<_> = owed.iter().filter(|to| !delivered.contains(*to)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(sink.wait_for(&owed, PATIENCE), Vec::<&str>::new());
}

#[test]
fn a_message_whose_evidence_cannot_be_written_stays_in_the_queue() {
    let folder = folder();
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"evidence\"", &to(&sink));
    let mut relay = start(&file);
    let page = files(&folder.path().join("evidence")).remove(0);
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&page, &elsewhere)
        .and_then(|()| fs::create_dir(&page))
        .expect("ours");
    let message = Message::new("m", &["a.example"], 500);
    assert!(matches!(
        Client::connect(relay.address)
            .expect("it listens")
            .send(&message),
        Verdict::Accepted(_)
    ));
    assert_eq!(
        sink.wait_for(&message.recipients, PATIENCE),
        Vec::<&str>::new()
    );
    let line = relay.hears("cannot write evidence, deliveries wait");
    assert!(line.contains("deliveries wait; free some space"), "{line}");
    assert_eq!(
        queued(folder.path()),
        Some(1),
        "the peer has it, and the queue must not forget it"
    );
    fs::remove_dir(&page)
        .and_then(|()| fs::rename(&elsewhere, &page))
        .expect("ours");
    relay.hears("evidence can be written again");
    assert!(within(PATIENCE, || queued(folder.path()) == Some(0)));
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
    is_whole(folder.path());
    let [one] = &told(folder.path())[..] else {
        panic!("one delivery")
    };
    assert_eq!(
        (one.outcome, one.to.as_str()),
        (RecordedOutcome::Delivered, "m@a.example")
    );
}

#[test]
fn an_end_in_trouble_comes_all_the_same_and_the_message_is_not_forgotten() {
    let folder = folder();
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"evidence\"", &to(&sink));
    let mut relay = start(&file);
    let page = files(&folder.path().join("evidence")).remove(0);
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&page, &elsewhere)
        .and_then(|()| fs::create_dir(&page))
        .expect("ours");
    let message = Message::new("m", &["a.example"], 500);
    assert!(matches!(
        Client::connect(relay.address)
            .expect("it listens")
            .send(&message),
        Verdict::Accepted(_)
    ));
    relay.hears("cannot write evidence, deliveries wait");
    fs::write(folder.path().join("gatepost.toml"), "").expect("ours");
    let end = relay.terminate();
    assert!(
        end.status.is_some_and(|status| status.success()),
        "{}",
        end.log
    );
    assert!(
        end.log.contains("may be repeated after the restart"),
        "{}",
        end.log
    );
    fs::remove_dir(&page)
        .and_then(|()| fs::rename(&elsewhere, &page))
        .expect("ours");
    let relay = start(&configure(folder.path(), "path = \"evidence\"", &to(&sink)));
    assert!(within(PATIENCE, || queued(folder.path()) == Some(0)));
    drop(relay);
    assert_eq!(
        told(folder.path()).len(),
        1,
        "the second delivery is the one on record"
    );
    is_whole(folder.path());
}

/// A peer with the certificate of mail.domain-c.com.
pub(crate) fn partner() -> Starttls {
    let certificates =
        CertificateDer::pem_file_iter(format!("{CERTS}/partner.pem")).expect("a file");
    let key = PrivateKeyDer::from_pem_file(format!("{CERTS}/partner.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth();
    let chain = certificates
        .map(|certificate| certificate.expect("a certificate"))
        .collect();
    Starttls::Tls(Arc::new(
        config.with_single_cert(chain, key).expect("they fit"),
    ))
}

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
    let of = |domain: &str| {
        all.iter()
            .find(|delivery| delivery.domain == domain)
            .expect(domain)
    };
    let named = of("named.example");
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
        .arg(&file)
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

    let refused = of("plain.example");
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

    let except = of("except.example");
    assert_eq!(
        except.exception.as_ref().map(|held| held.reason.as_str()),
        Some("ticket 4711")
    );
    let fallback = of("broken.example");
    assert_eq!(fallback.standing, DemandOutcome::Fallback);
    let no_tls = fallback
        .session
        .as_ref()
        .and_then(|session| session.no_tls.clone())
        .expect("a reason");
    assert!(no_tls.contains("454 4.7.0 not now"), "{no_tls}");
    let full = of("full.example");
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
    for file in files(&folder.path().join("evidence")) {
        let text = fs::read_to_string(file).expect("text");
        assert!(
            !text.contains("X-Size") && !text.contains("-- the end of"),
            "content is on record: {text}"
        );
    }
}

#[test]
fn verify_answers_with_its_exit_status() {
    let folder = folder();
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"evidence\"", &to(&sink));
    let mut relay = start(&file);
    for name in ["one", "two"] {
        let message = Message::new(name, &["a.example"], 500);
        assert!(matches!(
            Client::connect(relay.address)
                .expect("it listens")
                .send(&message),
            Verdict::Accepted(_)
        ));
        relay.hears("message delivered");
        assert!(within(PATIENCE, || queued(folder.path()) == Some(0)));
    }
    let head = evidence(&file, &["verify", "--head"]);
    assert_eq!(
        head.status.code(),
        Some(0),
        "the daemon may run: {}",
        err(&head)
    );
    let head = out(&head).trim().to_owned();
    relay
        .terminate()
        .check()
        .unwrap_or_else(|fault| panic!("{fault}"));
    let good = evidence(&file, &["verify", "--expect-head", &head]);
    assert_eq!(good.status.code(), Some(0), "{}", err(&good));
    assert!(
        out(&good).starts_with("the chain is whole: 5 records in 1 file"),
        "{}",
        out(&good)
    );
    assert!(
        out(&good).contains(&format!("head: {head}\n")),
        "{}",
        out(&good)
    );
    assert!(
        out(&good).contains("the expected heads are in the chain"),
        "{}",
        out(&good)
    );
    let nothing = evidence(&file, &["verify", "--expect-head", &"0".repeat(64)]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(
        !out(&nothing).contains("are in the chain")
            && err(&nothing).contains("no record has the hash 0000"),
        "{nothing:?}"
    );
    let page = files(&folder.path().join("evidence")).remove(0);
    let text = fs::read_to_string(&page).expect("text");
    let cut: Vec<_> = text
        .lines()
        .take(2)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&page, cut.concat()).expect("ours");
    assert_eq!(
        evidence(&file, &["verify"]).status.code(),
        Some(0),
        "a cut end has nothing behind it"
    );
    let bad = evidence(&file, &["verify", "--expect-head", &head]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        err(&bad).contains(&format!("no record has the hash {head}")),
        "{}",
        err(&bad)
    );
    fs::write(&page, text.replacen("one@a.example", "two@a.example", 1)).expect("ours");
    let bad = evidence(&file, &["verify"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        err(&bad).contains(&format!("{}:2: record 2 was edited", page.display())),
        "{}",
        err(&bad)
    );
    let list = evidence(&file, &["list"]);
    assert_eq!(
        list.status.code(),
        Some(1),
        "what is not as written is no evidence"
    );
    assert!(
        out(&list)
            .contains("\n1 message accepted, 1 in the clear\n2 attempts: 2 delivered\n2 recipients, 2 in the clear; ")
            && out(&list).contains("; chain NOT WHOLE, 1 defect, last record\n    sha256:")
            && err(&list).contains("1 damaged line left out"),
        "{list:?}"
    );
    assert_eq!(evidence(&file, &["verify", "--head"]).stdout, b"");
    assert_eq!(
        evidence(&file, &["verify", "--expect-head", "12"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn a_folder_that_cannot_be_had_stops_the_start_and_says_what_to_do() {
    let folder = folder();
    let sink = Sink::start();
    fs::write(folder.path().join("file"), "").expect("ours");
    let file = configure(folder.path(), "path = \"file/evidence\"", &to(&sink));
    let Err(end) = Relay::run(&file, &[]) else {
        panic!("it started")
    };
    assert_eq!(end.status.and_then(|status| status.code()), Some(1));
    for words in [
        &format!("{}:13:8: cannot create the evidence folder", file.display()),
        "install -d -m 0700",
        "write path = \"\"",
    ] {
        assert!(
            end.log.contains(words),
            "{words:?} is missing from {}",
            end.log
        );
    }
}

#[test]
fn a_reload_takes_keep_and_refuses_another_path() {
    let folder = folder();
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"evidence\"", &to(&sink));
    let mut relay = start(&file);
    let old = folder.path().join("evidence/2020-01-01.jsonl");
    fs::write(&old, "").expect("ours");
    configure(folder.path(), "path = \"other\"", &to(&sink));
    relay.signal("HUP");
    let fault = relay.hears("[evidence] path cannot change while the daemon runs");
    assert!(
        fault.contains(":13:8") && !folder.path().join("other").exists(),
        "{fault}"
    );
    configure(
        folder.path(),
        "path = \"evidence\"\nkeep = \"30d\"",
        &to(&sink),
    );
    relay.signal("HUP");
    relay.hears("deleted evidence older than [evidence] keep");
    assert!(within(PATIENCE, || !old.exists()));
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
    is_whole(folder.path());
}

#[test]
fn without_a_path_none_is_kept_and_the_command_says_so() {
    let folder = folder();
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"\"", &to(&sink));
    let relay = start(&file);
    let message = Message::new("m", &["a.example"], 500);
    assert!(matches!(
        Client::connect(relay.address)
            .expect("it listens")
            .send(&message),
        Verdict::Accepted(_)
    ));
    assert!(within(PATIENCE, || queued(folder.path()) == Some(0)));
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
    assert!(!folder.path().join("evidence").exists());
    let list = evidence(&file, &["list"]);
    assert_eq!(list.status.code(), Some(2));
    assert!(
        err(&list).contains("no evidence is written"),
        "{}",
        err(&list)
    );
}
