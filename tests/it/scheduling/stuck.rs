//! A spool with hardly any room for results: attempts start one at a time, and all go on when there is
//! room again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, Recipient, RecipientState};
use gatepost::storage::evidence::Evidence;
use gatepost::storage::spool::Spool as _;
use jiff::Timestamp;

use super::orders::{Brittle, eventually};
use super::owed::Queue;
use crate::stores::inbound;
use crate::support::dsn::Report;
use crate::support::in_process::{SENDER, configured, connector, peer, willing};
use crate::support::peer::Peer;

/// No event tells the scheduler that there is room.
#[tokio::test]
async fn attempts_that_wait_for_room_start_when_there_is_some() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let silent = silent.expect("loopback");
    let home = willing().await;
    let address = silent.local_addr().expect("bound");
    let connectors = [connector("silent.example", address, "")];
    let config = Arc::new(configured(folder.path(), home.address, "", &connectors));
    let queue = Queue::start(folder.path(), &config, &config);
    queue.set_stuck(true);
    queue.takes("a@silent.example", None).await;
    // It waits for a greeting, for minutes.
    let _session = silent.accept().await.expect("it is tried");
    for to in ["b@other.example", "c@other.example", "d@other.example"] {
        queue.takes(to, None).await;
    }
    queue.is_settled().await;
    assert!(home.messages().is_empty(), "{:?}", home.messages());
    queue.set_stuck(false);
    eventually("the others are delivered", async || {
        home.messages().len() == 3
    })
    .await;
}

const QUEUE: &str = "[queue]\nretry = [\"100ms\"]\n";

/// The number of times that a peer heard this command.
fn heard(peer: &Peer, command: &str) -> usize {
    let heard = peer.heard();
    let commands = heard.iter().flat_map(|session| &session.commands);
    commands.filter(|line| line.starts_with(command)).count()
}

/// A result that cannot be stored does not have the only place: a delivery needs room for its end alone.
#[tokio::test]
async fn a_bounce_without_room_for_its_report_holds_up_nothing_and_is_tried_again() {
    for (is_stuck, is_full) in [(true, false), (false, true), (true, true)] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let (home, bad) = (
            willing().await,
            peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await,
        );
        let connectors = [connector("bad.example", bad.address, "")];
        let config = Arc::new(configured(folder.path(), home.address, QUEUE, &connectors));
        let queue = Queue::start(folder.path(), &config, &config);
        queue.set_stuck(is_stuck);
        queue.spool.is_full.store(is_full, Ordering::SeqCst);
        let id = queue.takes("a@bad.example", None).await;
        eventually("it is tried", async || heard(&bad, "RCPT") > 0).await;
        for to in ["b@other.example", "c@other.example"] {
            queue.takes(to, None).await;
        }
        eventually("the others are delivered", async || {
            home.messages().len() == 2
        })
        .await;
        let before = heard(&bad, "RCPT");
        eventually("it is tried again", async || heard(&bad, "RCPT") > before).await;
        let recipient = queue.recipient(id).await.expect("it waits");
        let fresh = Recipient::new(recipient.mailbox.clone());
        assert_eq!(recipient, fresh, "{is_stuck} {is_full}");

        queue.spool.is_full.store(false, Ordering::SeqCst);
        queue.set_stuck(false);
        eventually("the report has come", async || home.messages().len() > 2).await;
        eventually("nothing is left", async || queue.is_done().await).await;
        queue.ends().await;
        let messages = home.messages();
        assert_eq!(messages.len(), 3, "one report: {is_stuck} {is_full}");
        Report::read(&messages[2]).only("a@bad.example", "failed", "5.1.1");
    }
}

#[tokio::test]
async fn a_recipient_that_has_the_message_is_stored_although_others_find_no_room() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let home = peer(&[], &[("RCPT TO:<b@", "451 4.2.1 later")]).await;
    let config = Arc::new(configured(folder.path(), home.address, QUEUE, &[]));
    let queue = Queue::start(folder.path(), &config, &config);
    queue.spool.is_full.store(true, Ordering::SeqCst);
    let id = queue.takes_envelope(to_two(), Timestamp::now()).await;
    let states = async || {
        let entry = queue.spool.load(id).await.expect("it waits");
        let recipients = entry.envelope.recipients.into_iter();
        recipients.map(|one| one.state).collect::<Vec<_>>()
    };
    eventually("one is done", async || {
        states().await[0] == RecipientState::Delivered
    })
    .await;
    let before = heard(&home, "RCPT TO:<b@");
    eventually("the other is tried again", async || {
        heard(&home, "RCPT TO:<b@") > before
    })
    .await;
    assert_eq!(states().await[1], RecipientState::default());
    queue.spool.is_full.store(false, Ordering::SeqCst);
    eventually("the deferral is stored", async || {
        matches!(states().await[1], RecipientState::Pending { attempts, .. } if attempts > 0)
    })
    .await;
    assert_eq!(heard(&home, "RCPT TO:<a@"), 1, "it has it");
    queue.ends().await;
}

fn to_two() -> Envelope {
    let sender = ReversePath::parse(SENDER).expect("an address");
    let to = ["a@one.example", "b@one.example"];
    let to = to.map(|to| Recipient::new(Mailbox::parse(to).expect("an address")));
    Envelope::new(sender, to.into())
}

/// The facts of the session stay with the message while its state is not stored.
#[tokio::test]
async fn an_acceptance_is_recorded_once_although_the_state_finds_no_room() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let home = peer(&[], &[("RCPT", "451 4.2.1 later")]).await;
    let config = Arc::new(configured(folder.path(), home.address, QUEUE, &[]));
    let records = folder.path().join("evidence");
    let evidence = Evidence::open(&records, Duration::from_hours(1)).expect("a folder");
    let spool = Arc::new(Brittle::open(folder.path()));
    let configurations = (&config, &config);
    let queue = Queue::recording(evidence.clone(), spool, folder.path(), configurations);
    queue.spool.is_full.store(true, Ordering::SeqCst);
    let envelope = Envelope {
        arrival: Some(inbound().arrival()),
        ..to_two()
    };
    let id = queue.takes_envelope(envelope, Timestamp::now()).await;
    let arrival = async || {
        let entry = queue.spool.load(id).await.expect("it waits");
        entry.envelope.arrival
    };
    let tried = async |times: usize| {
        eventually("it is tried", async || heard(&home, "MAIL") >= times).await;
    };
    tried(3).await;
    assert!(arrival().await.is_some(), "no state is stored");
    queue.spool.is_full.store(false, Ordering::SeqCst);
    eventually("a state is stored", async || arrival().await.is_none()).await;
    tried(heard(&home, "MAIL") + 2).await;
    queue.ends().await;
    evidence.close().await;
    let mut text = String::new();
    for file in std::fs::read_dir(&records).expect("a folder").flatten() {
        let path = file.path();
        if path.extension().is_some_and(|end| end == "jsonl") {
            text += &std::fs::read_to_string(path).expect("text");
        }
    }
    let count = |kind: &str| text.matches(&format!("\"kind\":\"{kind}\"")).count();
    assert_eq!(count("accepted"), 1, "{text}");
    assert!(count("delivery") >= 5, "{text}");
}
