//! Messages whose content was damaged on the disk: no report is lost with it, and every sender gets
//! a report.

use std::path::Path;
use std::sync::Arc;

use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{AttemptFailure, Envelope, QueueId, Recipient, RecipientState};
use gatepost::smtp::reply::EnhancedStatusCode;
use gatepost::storage::spool::{Spool as _, SqliteSpool};
use jiff::Timestamp;

use super::orders::eventually;
use super::owed::Queue;
use crate::support::in_process::{SENDER, configured, connector, peer, willing};
use crate::support::peer::Peer;

/// Octets of content that are in the database, and that are in a file.
const SIZES: [usize; 2] = [1_000, 300_000];

/// Stores a message for this recipient, and spoils its content.
async fn spoiled(folder: &Path, sender: &str, recipient: Recipient, size: usize) -> QueueId {
    let spool = SqliteSpool::open(&folder.join("spool")).expect("a spool");
    let mut draft = spool.draft();
    let content: Vec<u8> = b"Subject: The very words.\r\n"
        .iter()
        .copied()
        .cycle()
        .take(size)
        .collect();
    draft.write(&content).await.expect("room");
    let sender = ReversePath::parse(sender).expect("an address");
    let (receipt, _) = spool
        .commit(draft, Envelope::new(sender, vec![recipient]))
        .await
        .expect("stored");
    spool.close().await.expect("closed");
    let (id, body) = (
        receipt.id(),
        folder.join(format!("spool/bodies/{}", receipt.id())),
    );
    if body.is_file() {
        std::fs::remove_file(body).expect("ours");
    } else {
        let database =
            rusqlite::Connection::open(folder.join("spool/queue.db")).expect("a database");
        let spoiled = database.execute("UPDATE body SET data = x'00' WHERE id = ?1", [id.number()]);
        assert_eq!(spoiled.expect("a row"), 1);
    }
    id
}

fn failed(to: &str) -> Recipient {
    let owed = AttemptFailure {
        at: Timestamp::now(),
        status: EnhancedStatusCode::parse("5.1.1").expect("valid"),
        text: "mx said 550 nobody".to_owned(),
        explanation: None,
        host: None,
        reply: None,
    };
    let mailbox = Mailbox::parse(to).expect("an address");
    Recipient {
        state: RecipientState::Failed,
        owed: Some(Box::new(owed)),
        ..Recipient::new(mailbox)
    }
}

/// The one message that came home, once nothing is left in the queue.
async fn the_word(home: &Peer, queue: &Queue, id: QueueId) -> String {
    eventually("nothing is left", async || {
        queue.recipient(id).await.is_none()
    })
    .await;
    eventually("a word has come", async || !home.messages().is_empty()).await;
    let messages = home.messages();
    assert_eq!(messages.len(), 1, "{messages:?}");
    String::from_utf8(messages[0].clone()).expect("ASCII")
}

#[tokio::test]
async fn a_report_that_waits_goes_without_the_content_that_was_damaged() {
    for (sender, size) in [
        (SENDER, SIZES[0]),
        (SENDER, SIZES[1]),
        ("", SIZES[0]),
        ("", SIZES[1]),
    ] {
        let (home, folder) = (
            willing().await,
            tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder"),
        );
        let config = Arc::new(configured(folder.path(), home.address, "", &[]));
        let id = spoiled(folder.path(), sender, failed("b@bad.example"), size).await;
        let queue = Queue::start(folder.path(), &config, &config);
        let word = the_word(&home, &queue, id).await;
        queue.ends().await;
        let expected: &[&str] = match sender {
            "" => &[
                "To: <postmaster@example.com>\r\n",
                "<b@bad.example>:\r\n",
                "550 nobody (5.1.1)\r\n",
            ],
            _ => &[
                "To: <alice@sender.example>\r\n",
                "Final-Recipient: rfc822; b@bad.example\r\nAction: failed\r\nStatus: 5.1.1\r\n",
                "its content was damaged on the disk of the relay.\r\n",
            ],
        };
        for words in expected {
            assert!(word.contains(words), "{words:?} is missing from\n{word}");
        }
        assert!(
            !word.contains("very words") && !word.contains("message/rfc822"),
            "{word}"
        );
        let aside = folder.path().join(format!("spool/aside/{id}.txt"));
        assert!(aside.is_file(), "{} is kept for people", aside.display());
    }
}

#[tokio::test]
async fn a_message_that_is_damaged_before_its_delivery_bounces() {
    for (sender, size) in [(SENDER, SIZES[0]), (SENDER, SIZES[1]), ("", SIZES[0])] {
        let (home, folder) = (
            willing().await,
            tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder"),
        );
        let partner = peer(&[], &[]).await;
        let connectors = [connector("partner.example", partner.address, "")];
        let config = Arc::new(configured(folder.path(), home.address, "", &connectors));
        let recipient = Recipient::new(Mailbox::parse("b@partner.example").expect("an address"));
        let id = spoiled(folder.path(), sender, recipient, size).await;
        let queue = Queue::start(folder.path(), &config, &config);
        let word = the_word(&home, &queue, id).await;
        queue.ends().await;
        for words in [
            "b@partner.example",
            "5.3.0",
            "its content was damaged on the disk of the relay",
        ] {
            assert!(word.contains(words), "{words:?} is missing from\n{word}");
        }
        assert!(
            partner.heard().iter().all(|heard| !heard.has("MAIL")),
            "{:?}",
            partner.heard()
        );
    }
}

/// Stores messages, and spoils the envelopes of all that wait then.
async fn unreadable(folder: &Path, count: usize) -> Vec<QueueId> {
    let spool = SqliteSpool::open(&folder.join("spool")).expect("a spool");
    for number in 0..count {
        let mut draft = spool.draft();
        draft
            .write(b"Subject: The very words.\r\n")
            .await
            .expect("room");
        let to = Mailbox::parse(&format!("b{number}@bad.example")).expect("an address");
        let sender = ReversePath::parse(SENDER).expect("an address");
        let envelope = Envelope::new(sender, vec![Recipient::new(to)]);
        spool.commit(draft, envelope).await.expect("stored");
    }
    let waiting = spool.scan(None, 100).await.expect("readable");
    spool.close().await.expect("closed");
    let database = rusqlite::Connection::open(folder.join("spool/queue.db")).expect("a database");
    let spoiled = database.execute("UPDATE message SET envelope = 'nonsense'", []);
    assert_eq!(spoiled.expect("rows"), waiting.len());
    waiting.iter().map(|stored| stored.id).collect()
}

/// Nobody knows the senders: the postmaster gets one report about all of them, once.
#[tokio::test]
async fn messages_that_nobody_can_be_named_for_are_reported_to_the_postmaster() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let home = willing().await;
    let config = Arc::new(configured(folder.path(), home.address, "", &[]));
    let ids = unreadable(folder.path(), 3).await;
    for start in ["first", "second"] {
        let queue = Queue::start(folder.path(), &config, &config);
        eventually("the report is out", async || queue.is_done().await).await;
        queue.ends().await;
        assert_eq!(home.messages().len(), 1, "at the {start} start");
    }
    let report = String::from_utf8(home.messages()[0].clone()).expect("ASCII");
    for words in [
        "To: <postmaster@example.com>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Subject: Damaged mail quarantined: 3 messages\r\n",
        "cause: ",
        "files: ",
        "send each message again by hand, or inform its sender",
    ] {
        assert!(
            report.contains(words),
            "{words:?} is missing from\n{report}"
        );
    }
    for id in ids {
        assert!(report.contains(&format!("aside/{id}*")), "{report}");
    }
}

/// A report about damaged messages that is damaged itself makes no other report.
#[tokio::test]
async fn a_damaged_report_to_the_postmaster_makes_no_other_one() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let busy = peer(&[], &[("MAIL", "451 4.3.0 later")]).await;
    let config = Arc::new(configured(folder.path(), busy.address, "", &[]));
    unreadable(folder.path(), 2).await;
    let queue = Queue::start(folder.path(), &config, &config);
    eventually("the report waits", async || queue.tried_again().await).await;
    queue.ends().await;

    // The report is the only one that waits.
    let reports = unreadable(folder.path(), 0).await;
    assert_eq!(reports.len(), 1);
    let home = willing().await;
    let config = Arc::new(configured(folder.path(), home.address, "", &[]));
    let queue = Queue::start(folder.path(), &config, &config);
    eventually("it is set aside", async || queue.is_done().await).await;
    queue.ends().await;
    assert!(home.messages().is_empty(), "{:?}", home.messages());
    let aside = folder.path().join("spool/aside");
    assert!(aside.join(format!("{}.txt", reports[0])).is_file());
}
