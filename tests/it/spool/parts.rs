//! Results of a message to many recipients: as much is written as has changed, and nothing of it is
//! lost or mixed up.

use std::path::Path;
use std::time::Duration;

use gatepost::smtp::address::Mailbox;
use gatepost::smtp::envelope::{
    AttemptFailure, Envelope, FailureHistory, QueueId, Recipient, RecipientState,
};
use gatepost::smtp::reply::EnhancedStatusCode;
use gatepost::storage::spool::{
    Claimed, Entry, Options, Spool as _, SpoolError, SqliteSpool, read_queue,
};
use jiff::Timestamp;
use rusqlite::Connection;

use super::{LARGE, content, envelope, everything, ids, open, put};
use crate::support::claims;

const RECIPIENTS: usize = 1000;

/// A spool from which the mover takes nothing by itself before an hour.
fn patient(folder: &Path) -> SqliteSpool {
    let options = Options {
        move_after: Some(Duration::from_hours(1)),
        ..Options::default()
    };
    SqliteSpool::open_with(folder, &options).expect("a spool")
}

fn many() -> Envelope {
    let recipient = |number: usize| Recipient {
        orcpt: Some(format!("rfc822;{}@example.org", "x".repeat(400))),
        ..Recipient::new(Mailbox::parse(&format!("b@d{number}.example")).expect("valid"))
    };
    let mut envelope = envelope("a@example.org");
    envelope.recipients = (0..RECIPIENTS).map(recipient).collect();
    envelope
}

pub(super) async fn put_many(spool: &SqliteSpool) -> Claimed<Entry> {
    let mut draft = spool.draft();
    draft
        .write(b"Subject: m\r\n\r\nm\r\n")
        .await
        .expect("written");
    spool.commit(draft, many()).await.expect("durable").1
}

fn failure(text: &str) -> AttemptFailure {
    AttemptFailure {
        at: Timestamp::UNIX_EPOCH,
        status: EnhancedStatusCode::parse("4.2.1").expect("valid"),
        text: text.into(),
        explanation: None,
        host: Some("mx.example".into()),
        reply: None,
    }
}

pub(super) fn deferred(text: &str) -> RecipientState {
    let mut history = FailureHistory::default();
    history.push(failure(text), RECIPIENTS);
    RecipientState::Pending {
        attempts: 1,
        next: Some(Timestamp::UNIX_EPOCH),
        history,
        warned: false,
        apart: false,
    }
}

pub(super) async fn settle(
    spool: &SqliteSpool,
    id: QueueId,
    before: &Envelope,
    after: &Envelope,
) -> Result<(), SpoolError> {
    claims::settle(spool, id, before, after).await
}

/// Asserts that the message has this envelope, read in each way.
async fn assert_stored(spool: &SqliteSpool, expected: &Envelope, place: &str) {
    let listed = everything(spool).await;
    assert_eq!(listed.len(), 1, "{place}");
    assert!(listed[0].envelope == *expected, "as it is listed, {place}");
    let loaded = spool.load(listed[0].id).await.expect(place);
    assert!(loaded.envelope == *expected, "as it is loaded, {place}");
    let outside = read_queue(spool.folder()).expect(place);
    assert!(
        outside[0].envelope == *expected,
        "as it is read from outside, {place}"
    );
}

/// Changes every tenth recipient from `from` on in a write of its own, and leaves different states.
async fn settle_each(spool: &SqliteSpool, id: QueueId, before: Envelope, from: usize) -> Envelope {
    let mut before = before;
    for at in (from..RECIPIENTS).step_by(10) {
        let mut after = before.clone();
        let recipient = &mut after.recipients[at];
        match at % 3 {
            0 => recipient.state = RecipientState::Delivered,
            1 => recipient.state = deferred(&format!("later {at}")),
            _ => {
                recipient.state = RecipientState::Failed;
                recipient.owed = Some(Box::new(failure(&format!("never {at}"))));
            }
        }
        settle(spool, id, &before, &after).await.expect("settled");
        before = after;
    }
    before
}

/// A result of one of a thousand recipients costs a few hundred octets in the log.
#[tokio::test]
async fn a_result_writes_as_much_as_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let entry = put_many(&spool).await;
    let before = spool.stats().written;
    settle_each(&spool, entry.id, entry.message.envelope, 0).await;
    let each = (spool.stats().written - before) / 100;
    assert!(each < 500, "{each} octets for each of the results");
}

/// The results are the same in the log, in the database, in both, and after a start.
#[tokio::test]
async fn results_are_the_same_in_the_log_and_in_the_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let entry = put_many(&spool).await;
    let id = entry.id;
    let mut state = settle_each(&spool, id, entry.message.envelope, 0).await;
    assert_stored(&spool, &state, "in the log").await;
    spool.flush().await.expect("moved");
    assert_stored(&spool, &state, "in the database").await;
    state = settle_each(&spool, id, state, 5).await;
    // One that the database has already.
    let mut after = state.clone();
    after.recipients[20].owed = None;
    after.confidential = true;
    settle(&spool, id, &state, &after).await.expect("settled");
    assert_stored(&spool, &after, "in both").await;
    drop(spool);
    let spool = open(folder.path());
    assert_stored(&spool, &after, "after a start").await;
    spool.close().await.expect("closed");
    assert_eq!(spool.stats().quarantined, 0);
}

#[tokio::test]
async fn a_removed_message_leaves_no_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let entry = put_many(&spool).await;
    let after = settle_each(&spool, entry.id, entry.envelope.clone(), 0).await;
    let database = Connection::open(folder.path().join("queue.db")).expect("opens beside us");
    let rows = || {
        let sql = "SELECT count(*) FROM recipient";
        database.query_row(sql, [], |row| row.get::<_, i64>(0))
    };
    spool.flush().await.expect("moved");
    assert_eq!(rows().expect("a table"), 100);
    spool.remove(entry.claim).await.expect("removed");
    let missing = settle(&spool, entry.id, &entry.envelope, &after).await;
    assert!(matches!(missing, Err(SpoolError::Missing(_))));
    spool.flush().await.expect("moved");
    assert_eq!(rows().expect("a table"), 0);
}

#[tokio::test]
async fn an_administrator_sees_the_parts_in_the_envelope() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let entry = put_many(&spool).await;
    let mut state = settle_each(&spool, entry.id, entry.envelope.clone(), 0).await;
    let database = Connection::open(folder.path().join("queue.db")).expect("opens beside us");
    for confidential in [false, true] {
        let before = state.clone();
        state.confidential = confidential;
        settle(&spool, entry.id, &before, &state)
            .await
            .expect("settled");
        spool.flush().await.expect("moved");
        let seen: String = database
            .query_row("SELECT envelope FROM queue", [], |row| row.get(0))
            .expect("one row");
        let seen = serde_json::from_str::<Envelope>(&seen);
        assert!(seen.is_ok_and(|seen| seen == state), "{confidential}");
    }
}

/// A damaged part is damage of the envelope: the message is set aside, and others go out.
#[tokio::test]
async fn a_damaged_part_sets_its_message_aside_and_harms_no_other() {
    for (fault, sql) in [
        (
            "part 1 of its envelope does not have the checksum",
            "UPDATE recipient SET status = replace(status, 'later', 'never') WHERE part = 1",
        ),
        (
            "part 5000 of its envelope does not have the checksum",
            "UPDATE recipient SET part = 5000 WHERE part = 1",
        ),
        (
            "a part of its envelope cannot be read",
            "UPDATE recipient SET status = x'00ff' WHERE part = 1",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = open(folder.path());
        let other = put(&spool, "c@example.org", b"Subject: m\r\n\r\nm\r\n").await;
        let entry = put_many(&spool).await;
        let mut after = entry.envelope.clone();
        after.recipients[1].state = deferred("later");
        let settled = settle(&spool, entry.id, &entry.envelope, &after);
        settled.await.expect("settled");
        drop(spool);
        let changed = Connection::open(folder.path().join("queue.db"))
            .and_then(|database| database.execute(sql, []));
        assert_eq!(changed.expect(sql), 1, "{sql}");
        let spool = open(folder.path());
        assert_eq!(ids(&spool).await, [other.id], "{sql}");
        let report = folder.path().join(format!("aside/{}.txt", entry.id));
        let report = std::fs::read_to_string(report).expect("a report");
        assert!(report.contains(fault), "{report}");
        assert!(report.contains("\npart "), "{report}");
        assert_eq!(spool.stats().quarantined, 1);
    }
}

/// A state and the reports about it are one batch of the log: after a crash there are both, or
/// neither.
#[tokio::test]
async fn a_state_and_its_reports_are_one_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let entry = put_many(&spool).await;
    let mut after = entry.envelope.clone();
    after.recipients[1].state = RecipientState::Failed;
    let mut reports = Vec::new();
    for size in [10, LARGE] {
        let mut draft = spool.draft_report();
        draft.write(&content(1, size)).await.expect("room");
        reports.push((draft, envelope("")));
    }
    let before = spool.stats();
    let settled = spool.settle(entry.claim, &entry.envelope, Some(&after), reports);
    assert_eq!(settled.await.expect("settled").len(), 2);
    assert_eq!(spool.stats().transactions, before.transactions + 1);
}

/// A queue of version 2 has no table of parts. It is read from outside as it is, and gets the table
/// when it is opened.
#[tokio::test]
async fn a_queue_without_the_table_of_parts_is_read_and_upgraded() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = patient(folder.path());
    let entry = put_many(&spool).await;
    drop(spool);
    let database = Connection::open(folder.path().join("queue.db")).expect("a database");
    database
        .execute_batch(
            "DROP VIEW queue; DROP TABLE recipient;
             CREATE VIEW queue AS SELECT id, envelope FROM message; PRAGMA user_version = 2",
        )
        .expect("changed");
    drop(database);
    let outside = read_queue(folder.path()).expect("readable");
    assert!(outside[0].envelope == entry.envelope);
    let spool = open(folder.path());
    assert_stored(&spool, &entry.envelope, "after the start").await;
    let after = settle_each(&spool, entry.id, entry.message.envelope.clone(), 0).await;
    spool.flush().await.expect("moved");
    assert_stored(&spool, &after, "in the database").await;
    // The view for administrators shows the parts as well.
    let database = Connection::open(folder.path().join("queue.db")).expect("beside us");
    let sql = "SELECT name, envelope FROM queue";
    let row = database.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (name, shown): (String, String) = row.expect("a message");
    assert_eq!(name, entry.id.to_string());
    let shown: Envelope = serde_json::from_str(&shown).expect("an envelope");
    assert!(shown == after, "as an administrator sees it");
}
