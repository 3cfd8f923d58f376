//! Messages whose pages cannot be read for a while: what became of them meanwhile is kept, and a
//! repair brings the others back complete.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use gatepost::smtp::envelope::{Envelope, QueueId};
use gatepost::storage::spool::{Claim, Spool as _, SpoolError, SqliteSpool, check_spool};
use rusqlite::Connection;

use super::bad_pages::{destroy, fill, root_of, sender};
use super::parts::{deferred, put_many, settle};
use super::repair::{delivered, numbered, repaired};
use super::{LARGE, change, envelope, everything, ids, names, open};
use crate::support::claims::remove;

/// Forty messages with an inner page that cannot be read: so none of them can.
async fn unreadable(size: usize) -> (tempfile::TempDir, Vec<QueueId>) {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 40, size).await;
    destroy(folder.path(), root_of(folder.path(), "message"));
    (folder, stored)
}

/// Opens a spool and claims its messages, and then destroys a page, of which nothing remains in memory.
async fn claimed(folder: &Path, page: usize) -> (SqliteSpool, Vec<Claim>) {
    let spool = open(folder);
    let claimed = spool.claim(None, 100).await.expect("readable");
    let claims: Vec<_> = claimed.iter().map(|one| one.claim).collect();
    // Another program's writes empty the caches of all connections.
    let last = claims.last().expect("a message").id().number();
    let other = Connection::open(folder.join("queue.db")).expect("beside us");
    for size in ["size + 1", "size - 1"] {
        let sql = format!("UPDATE message SET size = {size} WHERE id = ?1");
        assert_eq!(other.execute(&sql, [last.cast_signed()]), Ok(1));
    }
    destroy(folder, page);
    (spool, claims)
}

/// Stores a state.
async fn store(
    spool: &SqliteSpool,
    claim: Claim,
    (before, after): (&Envelope, &Envelope),
) -> Result<(), SpoolError> {
    let settled = spool.settle(claim, before, Some(after), Vec::new());
    settled.await.map(drop)
}

fn aside(folder: &Path) -> Vec<String> {
    names(&folder.join("aside"))
}

fn changed(seed: u64) -> Envelope {
    let mut changed = envelope(&sender(seed));
    changed.recipients[0].state = deferred("later");
    changed
}

/// The relay has loaded both messages before the page is bad.
#[tokio::test]
async fn what_became_of_messages_that_cannot_be_read_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut stored = fill(folder.path(), 40, 1000).await;
    let (spool, claims) = claimed(folder.path(), root_of(folder.path(), "message")).await;
    let (delivered, deferred) = (stored.remove(3), stored[20]);
    spool.remove(claims[3]).await.expect("stored");
    let states = (&envelope(&sender(21)), &changed(21));
    store(&spool, claims[21], states).await.expect("stored");
    spool.flush().await.expect("moved");
    assert!(matches!(
        spool.remove(claims[3]).await,
        Err(SpoolError::Missing(_))
    ));
    drop(spool);
    assert_eq!(aside(folder.path()), ["unwritten"]);
    assert_eq!(names(&folder.path().join("log")), ["spare"], "{folder:?}");
    let checked = check_spool(folder.path()).expect("readable");
    let is_named = |id: QueueId| {
        let mut findings = checked.findings.iter();
        findings.any(|finding| finding.place == id.to_string())
    };
    assert!(!is_named(delivered) && is_named(deferred), "{checked:?}");

    // A start sets aside all but the one that was delivered.
    let spool = open(folder.path());
    assert_eq!(ids(&spool).await, []);
    let kept = aside(folder.path());
    for id in &stored {
        assert!(kept.contains(&format!("{id}.eml")), "{id}: {kept:?}");
    }
    let is_delivered = |name: &String| name.starts_with(&delivered.to_string());
    assert!(!kept.iter().any(is_delivered), "{kept:?}");
    drop(spool);

    let done = repaired(folder.path());
    assert_eq!(done.restored, stored);
    assert_eq!(done.remaining.findings, []);
    let spool = open(folder.path());
    assert_eq!(ids(&spool).await, stored);
    for (seed, id) in (0..).filter(|seed| *seed != 3).zip(&stored) {
        let loaded = spool.load(*id).await.expect("sound");
        let expected = match seed {
            21 => changed(21),
            seed => envelope(&sender(seed)),
        };
        assert_eq!(loaded.envelope, expected, "{seed}");
    }
    let kept = aside(folder.path());
    assert_eq!(kept.len(), 1, "the damaged database alone: {kept:?}");
}

/// Its own page can be written, so the database says that it was removed: the log need not grow with
/// what it cannot delete, and new mail moves as before.
#[tokio::test]
async fn a_removed_message_is_marked_if_its_content_cannot_be_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 40, 1000).await;
    destroy(folder.path(), root_of(folder.path(), "body"));
    let spool = open(folder.path());
    for id in &stored[..30] {
        remove(&spool, *id).await.expect("stored");
    }
    change(&spool, stored[35], &changed(35))
        .await
        .expect("stored");
    spool.flush().await.expect("moved");
    spool.close().await.expect("closed");
    assert_eq!(aside(folder.path()), [""; 0]);
    let database = Connection::open(folder.path().join("queue.db")).expect("ours");
    let marked = "SELECT count(*) FROM message WHERE content = 'del'";
    let marked = database.query_row(marked, [], |row| row.get(0));
    assert_eq!(marked, Ok(30));
    drop(database);
    let done = repaired(folder.path());
    assert_eq!(done.remaining.findings, []);
    let spool = open(folder.path());
    assert_eq!(ids(&spool).await, stored[30..]);
    let loaded = spool.load(stored[35]).await.expect("sound");
    assert_eq!(loaded.envelope, changed(35));
}

/// The states stand on pages of their own.
#[tokio::test]
async fn states_of_recipients_that_cannot_be_written_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    let stored = put_many(&spool).await;
    let mut before = stored.envelope.clone();
    for recipient in &mut before.recipients {
        recipient.state = deferred("once");
    }
    settle(&spool, stored.id, &stored.envelope, &before)
        .await
        .expect("stored");
    spool.close().await.expect("closed");
    let (spool, claims) = claimed(folder.path(), root_of(folder.path(), "recipient")).await;
    let mut after = before.clone();
    after.recipients[7].state = deferred("twice");
    store(&spool, claims[0], (&before, &after))
        .await
        .expect("stored");
    spool.close().await.expect("closed");
    assert_eq!(aside(folder.path()), ["unwritten"]);

    // A start sets it aside, and it is in the queue again after the repair.
    assert_eq!(ids(&open(folder.path())).await, []);
    let done = repaired(folder.path());
    assert_eq!(done.restored, [stored.id]);
    let listed = everything(&open(folder.path())).await;
    assert_eq!(listed.len(), 1);
    let found = &listed[0].envelope.recipients;
    assert_eq!(found[7], after.recipients[7]);
    let pairs = found.iter().zip(&after.recipients);
    let kept = pairs.filter(|(found, expected)| found == expected).count();
    assert!(kept > after.recipients.len() * 9 / 10, "{kept}");
}

/// A fault of the disk that passes: what the file has must not replace what came later.
#[tokio::test]
async fn a_kept_state_is_written_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 40, 1000).await[5];
    let database = folder.path().join("queue.db");
    let root = root_of(folder.path(), "message");
    let sound = fs::read(&database).expect("ours")[root * 4096..][..4096].to_vec();
    let (spool, claims) = claimed(folder.path(), root).await;
    let states = (&envelope(&sender(5)), &changed(5));
    store(&spool, claims[5], states).await.expect("stored");
    spool.close().await.expect("closed");
    let kept = fs::read_to_string(folder.path().join("aside/unwritten")).expect("kept");
    assert_eq!(kept.lines().count(), 1, "{kept}");

    let file = File::options().write(true).open(&database);
    file.and_then(|file| file.write_all_at(&sound, (root * 4096) as u64))
        .expect("ours");
    let spool = open(folder.path());
    assert_eq!(
        spool.load(stored).await.expect("sound").envelope,
        changed(5)
    );
    spool.flush().await.expect("moved");
    change(&spool, stored, &changed(6)).await.expect("stored");
    spool.close().await.expect("closed");
    let spool = open(folder.path());
    assert_eq!(
        spool.load(stored).await.expect("sound").envelope,
        changed(6)
    );
    assert_eq!(ids(&spool).await.len(), 40);
    assert_eq!(aside(folder.path()), [""; 0]);
}

/// The eviction of what cannot be read deletes nothing of it.
#[tokio::test]
async fn a_repair_finds_all_of_a_message_that_a_start_could_not_read() {
    for (size, is_lost) in [(1000, false), (1000, true), (LARGE, false)] {
        let (folder, stored) = unreadable(size).await;
        let spool = open(folder.path());
        assert_eq!(ids(&spool).await, []);
        let entries = spool.set_aside().await.expect("listed");
        assert_eq!(entries.len(), stored.len());
        let rounds = spool.stats().rounds;
        assert_eq!(ids(&spool).await, []);
        assert_eq!(spool.stats().rounds, rounds, "none is set aside again");
        drop(spool);
        if is_lost {
            // As versions before left it.
            let database = Connection::open(folder.path().join("queue.db")).expect("ours");
            let deleted = database.execute("DELETE FROM body WHERE id % 2 = 0", []);
            assert!(deleted.is_ok_and(|rows| rows > 10));
        } else if size < LARGE {
            for id in &stored {
                fs::remove_file(folder.path().join(format!("aside/{id}.eml"))).expect("there");
            }
        }
        let done = repaired(folder.path());
        assert_eq!(done.restored, stored, "{size} {is_lost}");
        let kept = aside(folder.path());
        assert_eq!(kept.len(), 1, "the damaged database alone: {kept:?}");
        assert!(!open(folder.path()).has_set_aside());
        let (sound, bounced) = delivered(folder.path(), &numbered(stored.clone()), size).await;
        assert_eq!((sound, bounced), (stored, vec![]), "{size} {is_lost}");
    }
}

/// Without its content it bounces, and nobody but its sender is informed.
#[tokio::test]
async fn a_message_whose_envelope_alone_comes_back_is_not_reported_to_the_postmaster() {
    let (folder, stored) = unreadable(LARGE).await;
    assert_eq!(ids(&open(folder.path())).await, []);
    let eml = folder.path().join(format!("aside/{}.eml", stored[0]));
    let mut octets = fs::read(&eml).expect("kept");
    octets[9] ^= 1;
    fs::write(&eml, octets).expect("ours");
    let done = repaired(folder.path());
    assert_eq!(done.restored, stored[1..]);
    assert_eq!(done.remaining.findings.len(), 1);
    let spool = open(folder.path());
    assert_eq!(ids(&spool).await, stored);
    assert!(!spool.has_set_aside());
    let error = spool.load(stored[0]).await.expect_err("damaged");
    assert!(matches!(
        error,
        SpoolError::Damaged {
            remaining: Some(_),
            ..
        }
    ));
    assert!(eml.exists(), "what is left of it stays");
}

/// The postmaster hears of a message once, though each start finds it again, and so does a repair.
#[tokio::test]
async fn a_message_that_stays_unreadable_is_reported_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 3, 1000).await;
    destroy(folder.path(), root_of(folder.path(), "message"));
    let spool = open(folder.path());
    assert_eq!(ids(&spool).await, []);
    let entries = spool.set_aside().await.expect("listed");
    assert_eq!(entries.len(), 3);
    let report = spool.draft().id();
    let recorded = spool.set_aside_reported(report, entries);
    recorded.await.expect("recorded");
    assert!(!spool.has_set_aside());
    let mark = format!("{}.reported", stored[0]);
    assert!(aside(folder.path()).contains(&mark));
    drop(spool);
    for is_repaired in [false, true] {
        if is_repaired {
            repaired(folder.path());
        }
        let spool = open(folder.path());
        assert_eq!(ids(&spool).await, []);
        assert!(!spool.has_set_aside(), "{is_repaired}");
        assert_eq!(spool.stats().quarantined, 0, "{is_repaired}");
    }
}

/// It waits for its bounce when its envelope is damaged as well.
#[tokio::test]
async fn a_message_whose_envelope_is_damaged_after_its_content_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 3, 1000).await;
    let number = stored[1].number();
    let tamper = |sql: &str| {
        let database = Connection::open(folder.path().join("queue.db")).expect("ours");
        let changed = database.execute(&format!("{sql} WHERE id = {number}"), []);
        assert_eq!(changed, Ok(1));
    };
    tamper("UPDATE body SET data = substr(data, 2)");
    let spool = open(folder.path());
    let damaged = spool.load(stored[1]).await.expect_err("damaged");
    assert!(matches!(
        damaged,
        SpoolError::Damaged {
            remaining: Some(_),
            ..
        }
    ));
    assert!(!spool.has_set_aside());
    tamper("UPDATE message SET size = 7");
    let damaged = spool.load(stored[1]).await.expect_err("damaged");
    assert!(matches!(
        damaged,
        SpoolError::Damaged {
            remaining: None,
            ..
        }
    ));
    assert!(spool.has_set_aside());
    let entries = spool.set_aside().await.expect("listed");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].name, stored[1].to_string());
    assert!(entries[0].fault.contains("fixed part"), "{entries:?}");
    assert_eq!(ids(&spool).await, [stored[0], stored[2]]);
}
