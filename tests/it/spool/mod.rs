//! The spool's promises, with real files: what is committed survives, what is damaged harms no
//! other, what is dropped leaves nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, QueueId, Recipient, RecipientState};
use gatepost::storage::spool::{
    Body, Claimed, Entry, LARGE_CHUNK, Options, Spool as _, SpoolError, SqliteSpool, StoredMessage,
};
use rusqlite::Connection;

use crate::support::claims;

mod bad_pages;
mod crash;
mod damage;
mod exchange;
mod full;
mod kill;
mod log;
mod moves;
mod owner;
mod parts;
mod repair;
mod set_aside;
mod spare;

/// Larger than what stays in the row.
const LARGE: usize = 300_000;

fn envelope(sender: &str) -> Envelope {
    let sender = ReversePath::parse(sender).expect("valid");
    Envelope::new(
        sender,
        vec![Recipient::new(
            Mailbox::parse("b@example.net").expect("valid"),
        )],
    )
}

/// Replaces the envelope of a message to one recipient. It is replaced as a unit, whatever it was
/// before.
async fn change(spool: &SqliteSpool, id: QueueId, after: &Envelope) -> Result<(), SpoolError> {
    claims::settle(spool, id, &envelope(""), after).await
}

/// Content that differs from one seed to the next.
fn content(seed: u64, size: usize) -> Vec<u8> {
    let line = format!("Subject: {seed} and then some text\r\n");
    line.bytes().cycle().take(size).collect()
}

async fn put(spool: &SqliteSpool, sender: &str, content: &[u8]) -> Claimed<Entry> {
    let mut draft = spool.draft();
    for part in content.chunks(10_000) {
        draft.write(part).await.expect("written");
    }
    let id = draft.id();
    let (receipt, entry) = spool
        .commit(draft, envelope(sender))
        .await
        .expect("durable");
    assert_eq!((receipt.id(), entry.id), (id, id));
    entry
}

async fn read(body: &Body) -> Result<Vec<u8>, SpoolError> {
    let (mut reader, mut all) = (body.reader().await?, Vec::new());
    while let Some(chunk) = reader.next().await? {
        assert!(
            !chunk.is_empty() && chunk.len() <= 64 * 1024,
            "a chunk of {}",
            chunk.len()
        );
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn everything(spool: &SqliteSpool) -> Vec<StoredMessage> {
    let mut all = Vec::new();
    loop {
        let page = spool
            .scan(all.last().map(|stored: &StoredMessage| stored.id), 2)
            .await
            .expect("listed");
        assert!(page.len() <= 2);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn ids(spool: &SqliteSpool) -> Vec<QueueId> {
    everything(spool)
        .await
        .into_iter()
        .map(|stored| stored.id)
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("plain")
        })
        .collect();
    names.sort();
    names
}

fn open(folder: &Path) -> SqliteSpool {
    SqliteSpool::open(folder).expect("a spool")
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a/new/spool");
    let spool = open(&path);
    let small = put(&spool, "small@example.org", &content(1, 5_000)).await;
    let large = put(&spool, "large@example.org", &content(2, LARGE)).await;
    assert!(
        matches!(small.body, Body::Memory(_)),
        "a small one is delivered from memory"
    );
    assert!(matches!(large.body, Body::File(_)));
    assert_eq!(read(&large.body).await.expect("sound"), content(2, LARGE));
    drop(spool);

    let spool = open(&path);
    for (before, seed, size) in [(&small, 1, 5_000), (&large, 2, LARGE)] {
        let after = spool.load(before.id).await.expect("there");
        assert_eq!(
            (after.accepted, &after.envelope, after.size),
            (before.accepted, &before.envelope, size as u64)
        );
        assert_eq!(read(&after.body).await.expect("sound"), content(seed, size));
    }
    assert_eq!(ids(&spool).await, [small.id, large.id]);
    assert!(put(&spool, "later@example.org", b"x").await.id > large.id);
}

#[tokio::test]
async fn the_sizes_around_the_limit_come_back_complete() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    for size in [
        0,
        1,
        128 * 1024 - 1,
        128 * 1024,
        128 * 1024 + 1,
        256 * 1024,
        256 * 1024 + 1,
    ] {
        let mut draft = spool.draft();
        draft
            .write(&content(size as u64, size))
            .await
            .expect("written");
        assert_eq!(draft.size(), size as u64);
        let (_, entry) = spool.commit(draft, envelope("")).await.expect("durable");
        assert_eq!(
            matches!(entry.body, Body::File(_)),
            size > 128 * 1024,
            "{size}"
        );
        let entry = spool.load(entry.id).await.expect("there");
        assert_eq!(
            read(&entry.body).await.expect("sound"),
            content(size as u64, size)
        );
    }
}

#[tokio::test]
async fn a_state_is_recorded_and_the_content_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    let entry = put(&spool, "a@example.org", b"Subject: x\r\n\r\ny\r\n").await;
    let mut changed = entry.envelope.clone();
    changed.recipients[0].state = RecipientState::Delivered;
    change(&spool, entry.id, &changed).await.expect("recorded");
    drop(spool);
    let spool = open(folder.path());
    let loaded = spool.load(entry.id).await.expect("there");
    assert_eq!(loaded.envelope, changed);
    assert_eq!(
        read(&loaded.body).await.expect("sound"),
        b"Subject: x\r\n\r\ny\r\n"
    );
}

#[tokio::test]
async fn what_was_removed_is_gone_with_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    let small = put(&spool, "a@example.org", b"x").await;
    let large = put(&spool, "a@example.org", &content(1, LARGE)).await;
    assert_eq!(names(&folder.path().join("bodies")), [large.id.to_string()]);
    for Claimed { claim, message } in [small, large] {
        let id = message.id;
        spool.remove(claim).await.expect("removed");
        assert!(matches!(spool.load(id).await, Err(SpoolError::Missing(missing)) if missing == id));
        assert!(matches!(
            spool.remove(claim).await,
            Err(SpoolError::Missing(_))
        ));
        assert!(matches!(
            change(&spool, id, &envelope("")).await,
            Err(SpoolError::Missing(_))
        ));
    }
    assert!(names(&folder.path().join("bodies")).is_empty());
    assert!(ids(&spool).await.is_empty());
}

/// The draft of a fast client collects more than what a row may hold.
#[tokio::test]
async fn a_large_block_that_is_still_in_memory_goes_to_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    let mut draft = spool.draft();
    draft.use_large_blocks(true);
    let sent = content(1, LARGE);
    assert!(!draft.add(&sent).expect("room"), "more can be collected");
    assert!(names(&folder.path().join("bodies")).is_empty());
    let (_, entry) = spool
        .commit(draft, envelope("a@example.org"))
        .await
        .expect("durable");
    assert!(matches!(entry.body, Body::File(_)), "{:?}", entry.body);
    assert_eq!(read(&entry.body).await.expect("sound"), sent);
}

#[tokio::test]
async fn a_large_body_is_read_in_large_chunks() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    let sent = content(1, 2 * LARGE_CHUNK + 7);
    let entry = put(&spool, "a@example.org", &sent).await;
    let mut reader = entry.body.reader().await.expect("sound");
    reader.use_large_chunks(true);
    let (mut read, mut sizes) = (Vec::new(), Vec::new());
    while let Some(chunk) = reader.next().await.expect("sound") {
        sizes.push(chunk.len());
        read.extend_from_slice(&chunk);
    }
    assert_eq!(sizes, [LARGE_CHUNK, LARGE_CHUNK, 7]);
    assert!(read == sent);
}

#[tokio::test]
async fn a_dropped_draft_leaves_no_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    let mut draft = spool.draft();
    draft.write(&content(1, LARGE)).await.expect("written");
    assert_eq!(
        names(&folder.path().join("bodies")),
        [format!("{}.part", draft.id())]
    );
    drop(draft);
    assert!(names(&folder.path().join("bodies")).is_empty());
    assert!(ids(&spool).await.is_empty());
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_withdrawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    for size in [10, LARGE] {
        let mut draft = spool.draft();
        draft.write(&content(1, size)).await.expect("written");
        let mut commit = spool.commit(draft, envelope("a@example.org"));
        // Long enough to have handed it in at least; whether it was acknowledged as well depends on
        // the disk.
        let told = matches!(
            tokio::time::timeout(Duration::from_micros(300), &mut commit).await,
            Ok(Ok(_))
        );
        drop(commit);
        drop(put(&spool, "next@example.org", b"x").await);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let senders = everything(&spool).await;
            let left = senders
                .iter()
                .filter(|stored| stored.size == size as u64)
                .count();
            if left == usize::from(told) {
                break;
            }
            assert!(Instant::now() < deadline, "{left} left, told: {told}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_second_instance_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = open(folder.path());
    let refused = SqliteSpool::open(folder.path())
        .expect_err("in use")
        .to_string();
    for part in [
        &folder.path().display().to_string(),
        &std::process::id().to_string(),
        "stop it",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    drop(first);
    open(folder.path());
}

#[tokio::test]
async fn a_database_that_is_not_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("queue.db");
    std::fs::write(&file, "This is a letter and no database. ".repeat(400)).expect("written");
    let refused = SqliteSpool::open(folder.path())
        .expect_err("no database")
        .to_string();
    assert!(
        refused.contains("queue.db") && refused.contains("left as it is"),
        "{refused}"
    );
    assert!(
        std::fs::read_to_string(&file)
            .expect("there")
            .starts_with("This is a letter")
    );

    std::fs::remove_file(&file).expect("removed");
    Connection::open(&file)
        .and_then(|other| other.execute_batch("CREATE TABLE theirs (x)"))
        .expect("made");
    let refused = SqliteSpool::open(folder.path())
        .expect_err("theirs")
        .to_string();
    assert!(refused.contains("another program"), "{refused}");

    std::fs::remove_file(&file).expect("removed");
    drop(open(folder.path()));
    Connection::open(&file)
        .and_then(|ours| ours.pragma_update(None, "user_version", 7))
        .expect("changed");
    let refused = SqliteSpool::open(folder.path())
        .expect_err("newer")
        .to_string();
    assert!(refused.contains("version 7"), "{refused}");
}

#[tokio::test]
async fn full_disk_refuses_new_mail_and_lets_the_queue_be_worked_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let entry = put(&open(folder.path()), "a@example.org", &content(1, LARGE)).await;
    let spool = SqliteSpool::open_with(
        folder.path(),
        &Options {
            keep_free: Some(u64::MAX / 2),
            ..Options::default()
        },
    )
    .expect("opens");
    assert!(matches!(spool.admit(0), Err(SpoolError::Full(_))));
    let mut draft = spool.draft();
    let refused = draft.write(b"x").await.expect_err("full").to_string();
    assert!(refused.contains("free some space"), "{refused}");
    assert!(matches!(
        spool.commit(draft, envelope("")).await,
        Err(SpoolError::Full(_))
    ));
    change(&spool, entry.id, &envelope("changed@example.org"))
        .await
        .expect("recorded");
    let removed = claims::remove(&spool, entry.id).await;
    removed.expect("removed");
    assert!(ids(&spool).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_commits_share_transactions() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = std::sync::Arc::new(open(folder.path()));
    let tasks: Vec<_> = (0..200)
        .map(|seed| {
            let spool = std::sync::Arc::clone(&spool);
            tokio::spawn(async move { put(&spool, "a@example.org", &content(seed, 1000)).await.id })
        })
        .collect();
    let mut told = Vec::new();
    for task in tasks {
        told.push(task.await.expect("no panic"));
    }
    told.sort_unstable();
    assert_eq!(ids(&spool).await, told);
    let stats = spool.stats();
    assert_eq!(stats.operations, 200);
    assert!(stats.transactions < 100, "{stats:?}");
}

#[tokio::test]
async fn after_closing_everything_is_answered_with_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    let entry = put(&spool, "a@example.org", b"x").await;
    let draft = spool.draft();
    spool.close().await.expect("closed");
    spool.closed().await;
    assert!(matches!(
        spool.commit(draft, envelope("")).await,
        Err(SpoolError::Closed)
    ));
    assert!(matches!(
        spool.remove(entry.claim).await,
        Err(SpoolError::Closed)
    ));
    assert!(matches!(
        spool.load(entry.id).await,
        Err(SpoolError::Closed)
    ));
    assert!(matches!(spool.scan(None, 1).await, Err(SpoolError::Closed)));
    assert_eq!(
        std::fs::metadata(folder.path().join("queue.db-wal")).map_or(0, |wal| wal.len()),
        0
    );
    // The folder is free again, though the handle still lives.
    assert_eq!(ids(&open(folder.path())).await, [entry.id]);
}

#[tokio::test]
async fn an_administrator_sees_the_queue() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    let entry = put(&spool, "a@example.org", b"x").await;
    spool.flush().await.expect("moved");
    let database = Connection::open(folder.path().join("queue.db")).expect("opens beside us");
    let row: (String, String, String, String) = database
        .query_row(
            "SELECT name, accepted, sender, recipients FROM queue",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .expect("one row");
    assert_eq!(
        (row.0.as_str(), row.2.as_str(), row.3.as_str()),
        (&*entry.id.to_string(), "a@example.org", "b@example.net")
    );
    let accepted: jiff::Timestamp = row.1.parse().expect("a time");
    assert_eq!(accepted, entry.accepted);
}
