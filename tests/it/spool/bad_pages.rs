//! Pages of the database that cannot be read any more: what can be read goes on, and the rest is
//! set aside, once.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use gatepost::smtp::envelope::QueueId;
use gatepost::storage::spool::{Spool as _, SpoolError, SqliteSpool};
use rusqlite::Connection;

use super::{content, envelope, ids, names, open, put, read};
use crate::support::claims::remove;

const PAGE: usize = 4096;

/// Overwrites one page of the database, which nobody has open.
pub(super) fn destroy(folder: &Path, page: usize) {
    let file = File::options().write(true).open(folder.join("queue.db"));
    let at = (page * PAGE) as u64;
    file.and_then(|file| file.write_all_at(&[0xff; PAGE], at))
        .expect("overwritten");
}

/// Returns the pages that contain a text.
pub(super) fn pages_with(folder: &Path, text: &str) -> Vec<usize> {
    let database = std::fs::read(folder.join("queue.db")).expect("a database");
    let contains = |page: &[u8]| {
        page.windows(text.len())
            .any(|found| found == text.as_bytes())
    };
    let pages = database.chunks(PAGE).enumerate();
    pages
        .filter(|(_, page)| contains(page))
        .map(|(number, _)| number)
        .collect()
}

pub(super) fn root_of(folder: &Path, table: &str) -> usize {
    let database = Connection::open(folder.join("queue.db")).expect("a database");
    let sql = "SELECT rootpage - 1 FROM sqlite_schema WHERE name = ?1";
    let page = database.query_row(sql, [table], |row| row.get(0));
    page.expect("a table")
}

pub(super) fn sender(seed: u64) -> String {
    format!("sender-{seed}-@example.org")
}

pub(super) async fn fill(folder: &Path, count: u64, size: usize) -> Vec<QueueId> {
    let spool = open(folder);
    let mut stored = Vec::new();
    for seed in 0..count {
        stored.push(put(&spool, &sender(seed), &content(seed, size)).await.id);
    }
    stored
}

/// The message is set aside with its envelope still at hand, for the report to its sender, and can
/// then be removed.
async fn is_bounced(spool: &SqliteSpool, id: QueueId, seed: u64) {
    let error = spool.load(id).await.expect_err("unreadable");
    let SpoolError::Damaged {
        remaining: Some(remaining),
        fault,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert!(fault.contains("page"), "{fault}");
    assert_eq!(remaining.envelope, envelope(&sender(seed)));
    remove(spool, id).await.expect("removed");
}

#[tokio::test]
async fn a_bad_page_of_a_content_bounces_that_message_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 5, 60_000).await;
    let pages = pages_with(folder.path(), "Subject: 2 and");
    destroy(folder.path(), pages[pages.len() / 2]);
    let spool = open(folder.path());
    assert_eq!(ids(&spool).await, stored);
    is_bounced(&spool, stored[2], 2).await;
    drop(spool);
    let spool = open(folder.path());
    for seed in [0, 1, 3, 4] {
        let id = stored[usize::try_from(seed).expect("small")];
        let entry = spool.load(id).await.expect("sound");
        assert_eq!(
            read(&entry.body).await.expect("sound"),
            content(seed, 60_000)
        );
        remove(&spool, id).await.expect("removed");
    }
    assert!(ids(&spool).await.is_empty());
    put(&spool, "new@example.org", &content(9, 60_000)).await;
}

#[tokio::test]
async fn a_bad_inner_page_of_the_contents_bounces_what_it_led_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 40, 1000).await;
    destroy(folder.path(), root_of(folder.path(), "body"));
    let spool = open(folder.path());
    assert_eq!(ids(&spool).await, stored);
    for (seed, id) in (0..).zip(&stored) {
        is_bounced(&spool, *id, seed).await;
    }
    drop(spool);
    assert!(ids(&open(folder.path())).await.is_empty());
}

/// Three quarters of them at least are on other pages.
async fn rest_goes_on(folder: &Path, stored: &[QueueId]) {
    let spool = open(folder);
    let listed = ids(&spool).await;
    assert!(listed.len() < stored.len(), "{}", listed.len());
    assert!(listed.len() > stored.len() * 3 / 4, "{}", listed.len());
    let aside = names(&folder.join("aside"));
    let set_aside = stored.iter().filter(|id| !listed.contains(id));
    for id in set_aside.clone() {
        // The envelope is lost, and the content is not.
        assert!(aside.contains(&format!("{id}.txt")), "{id}: {aside:?}");
        assert!(aside.contains(&format!("{id}.eml")), "{id}: {aside:?}");
    }
    assert_eq!(spool.stats().quarantined, set_aside.count() as u64);
    drop(spool);
    let spool = open(folder);
    assert_eq!(ids(&spool).await, listed);
    assert_eq!(spool.stats().quarantined, 0, "it is set aside once");
    for id in &listed {
        spool.load(*id).await.expect("sound");
        remove(&spool, *id).await.expect("removed");
    }
    assert!(ids(&spool).await.is_empty());
}

#[tokio::test]
async fn a_bad_page_of_envelopes_sets_aside_what_was_on_it() {
    for seed in [0, 77] {
        let folder = tempfile::tempdir().expect("a folder");
        let stored = fill(folder.path(), 240, 100).await;
        // A neighbour may still have it from before it was split; the table's root as well.
        let root = root_of(folder.path(), "message");
        for page in pages_with(folder.path(), &sender(seed)) {
            if page != root {
                destroy(folder.path(), page);
            }
        }
        rest_goes_on(folder.path(), &stored).await;
    }
}

#[tokio::test]
async fn a_relay_starts_although_no_envelope_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 40, 100).await;
    destroy(folder.path(), root_of(folder.path(), "message"));
    let spool = open(folder.path());
    assert!(ids(&spool).await.is_empty());
    assert_eq!(spool.stats().quarantined, stored.len() as u64);
    let aside = names(&folder.path().join("aside"));
    for id in stored {
        assert!(aside.contains(&format!("{id}.eml")), "{id}: {aside:?}");
    }
}
