//! The real daemon: nothing is finished without its evidence, whatever happens, and the commands
//! show it.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use gatepost::storage::evidence::{DeliveryRecord, Period, RecordedOutcome, deliveries, verify};
use gatepost::storage::spool::{StoredMessage, read_queue};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::world::{files, folder};
use crate::support::client::{Client, Verdict, send_all};
use crate::support::config::ConfigBuilder;
use crate::support::message::Message;
use crate::support::peer::Starttls;
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

pub(crate) fn queued(folder: &Path) -> Option<usize> {
    read_queue(&folder.join("spool"))
        .ok()
        .map(|queue| queue.len())
}

/// The envelope of a message that waits, as it is stored.
pub(crate) fn stored_envelope(folder: &Path, id: &str) -> String {
    let queue = read_queue(&folder.join("spool")).expect("the queue can be read");
    let stored = queue.iter().find(|stored| stored.id.to_string() == id);
    serde_json::to_string(&stored.expect("it waits").envelope).expect("JSON")
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

/// Sends sixty messages to two domains; returns the recipients of those that are accepted.
fn send_sixty(address: SocketAddr, name: &str) -> Vec<String> {
    let to = ["a.example", "b.example"];
    let message = |at| Message::new(&format!("{name}-{at}"), &to, 600);
    let messages: Vec<_> = (0..60).map(message).collect();
    let verdicts = send_all(address, &messages);
    messages
        .into_iter()
        .zip(verdicts)
        .filter(|(_, verdict)| matches!(verdict, Verdict::Accepted(_)))
        .flat_map(|(message, _)| message.recipients)
        .collect()
}

/// The envelopes in the queue of a daemon that was killed, as they are stored, one after another.
fn waiting_envelopes(folder: &Path) -> String {
    let queue = read_queue(&folder.join("spool")).expect("the queue can be read");
    let envelope = |stored: &StoredMessage| serde_json::to_string(&stored.envelope).expect("JSON");
    queue.iter().map(envelope).collect()
}

#[test]
fn kill_9_at_any_moment_leaves_no_delivery_without_evidence() {
    let folder = folder();
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"evidence\"", &to(&sink));
    let mut dice = Dice::new(7);
    let mut owed = Vec::new();
    // On a busy machine a life may end before much is accepted: more and longer ones are needed.
    for life in 0..40 {
        if life >= 6 && owed.len() > 50 {
            break;
        }
        let relay = start(&file);
        let address = relay.address;
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                std::thread::spawn(move || send_sixty(address, &format!("l{life}-s{sender}")))
            })
            .collect();
        // On a busy machine nothing is accepted for a while.
        let _ = within(Duration::from_secs(2), || {
            queued(folder.path()).is_some_and(|queued| queued > 0)
        });
        std::thread::sleep(Duration::from_millis(30 + dice.below(300) * (1 + life / 6)));
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
        let waiting = waiting_envelopes(folder.path());
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

/// A chain of two messages that were delivered: its configuration, and its head as the command
/// prints it while the daemon runs.
fn chain_of_two(folder: &Path) -> (PathBuf, String) {
    let sink = Sink::start();
    let file = configure(folder, "path = \"evidence\"", &to(&sink));
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
        assert!(within(PATIENCE, || queued(folder) == Some(0)));
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
    (file, head)
}

#[test]
fn verify_answers_with_its_exit_status() {
    let folder = folder();
    let (file, head) = chain_of_two(folder.path());
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
    assert_eq!(
        evidence(&file, &["verify", "--expect-head", "12"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn a_cut_end_is_found_by_the_expected_head() {
    let folder = folder();
    let (file, head) = chain_of_two(folder.path());
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
}

#[test]
fn an_edited_record_is_named_by_verify_and_left_out_of_the_list() {
    let folder = folder();
    let (file, _) = chain_of_two(folder.path());
    let page = files(&folder.path().join("evidence")).remove(0);
    let text = fs::read_to_string(&page).expect("text");
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
