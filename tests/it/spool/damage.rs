//! Rows and files that a crash, a disk or a person has damaged are set aside, and everything else
//! is delivered.

use std::path::Path;

use gatepost::smtp::envelope::QueueId;
use gatepost::storage::spool::{Spool as _, SpoolError};
use rusqlite::Connection;

use super::{LARGE, content, envelope, ids, names, open, put, read};
use crate::support::claims::remove;

fn tamper(folder: &Path, sql: &str) {
    let changed =
        Connection::open(folder.join("queue.db")).and_then(|database| database.execute(sql, []));
    assert_eq!(changed.expect(sql), 1, "{sql}");
}

/// Three messages, one of them damaged by `damage`; the others must go out as if nothing had been.
async fn damaged(size: usize, fault: &str, damage: impl FnOnce(&Path, QueueId)) {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    let mut put_ids = Vec::new();
    for seed in 0..3 {
        put_ids.push(put(&spool, "a@example.org", &content(seed, size)).await.id);
    }
    drop(spool);
    damage(folder.path(), put_ids[1]);
    let spool = open(folder.path());
    let listed = ids(&spool).await;
    let told = match spool.load(put_ids[1]).await {
        // Damage to the content of a file shows when it is read.
        Ok(entry) => read(&entry.body).await.expect_err("damaged"),
        Err(error) => error,
    };
    match &told {
        // Already found by the scan.
        SpoolError::Missing(_) => assert_eq!(listed, [put_ids[0], put_ids[2]]),
        SpoolError::Damaged {
            id,
            fault: found,
            files,
            remaining: left,
        } => {
            assert_eq!(*id, put_ids[1]);
            assert!(found.contains(fault), "{found}");
            assert!(files.contains("/aside/"), "{files}");
            // Its content alone is damaged: it stays until all is done that its envelope asks for.
            let left = left.as_ref().expect("a sound envelope");
            assert_eq!(
                (left.id, left.size, &left.envelope),
                (*id, size as u64, &envelope("a@example.org"))
            );
            assert_eq!(ids(&spool).await, put_ids);
            let again = spool.load(*id).await.expect_err("damaged");
            assert!(
                matches!(
                    again,
                    SpoolError::Damaged {
                        remaining: Some(_),
                        ..
                    }
                ),
                "{again}"
            );
            remove(&spool, *id).await.expect("there");
        }
        other => panic!("{other}"),
    }
    let report = std::fs::read_to_string(folder.path().join(format!("aside/{}.txt", put_ids[1])))
        .expect("a report");
    assert!(report.contains(fault), "{report}");
    assert_eq!(spool.stats().quarantined, 1);
    for (seed, id) in [(0, put_ids[0]), (2, put_ids[2])] {
        let sound = spool.load(id).await.expect("untouched");
        assert_eq!(read(&sound.body).await.expect("sound"), content(seed, size));
    }
    assert_eq!(ids(&spool).await, [put_ids[0], put_ids[2]]);
    assert!(
        !folder
            .path()
            .join(format!("bodies/{}", put_ids[1]))
            .exists()
    );
}

#[tokio::test]
async fn damaged_rows_are_set_aside_and_harm_no_other() {
    for (fault, sql) in [
        (
            "envelope",
            "UPDATE message SET envelope = replace(envelope, 'a@', 'x@') WHERE id =",
        ),
        (
            "envelope",
            "UPDATE message SET envelope = substr(envelope, 1, 20) WHERE id =",
        ),
        (
            "fixed part",
            "UPDATE message SET accepted = accepted - 1 WHERE id =",
        ),
        ("fixed part", "UPDATE message SET size = 12 WHERE id ="),
        (
            "row cannot be read",
            "UPDATE message SET fixed_crc = 'x' WHERE id =",
        ),
        (
            "unknown location",
            "UPDATE message SET content = 'elsewhere' WHERE id =",
        ),
        (
            "body file is missing",
            "UPDATE message SET content = 'file' WHERE id =",
        ),
        (
            "checksum of its content",
            "UPDATE body SET data = CAST(replace(data, 'Subject', 'Sxbject') AS BLOB) WHERE id =",
        ),
        (
            "2000 octets",
            "UPDATE body SET data = substr(data, 1, 2000) WHERE id =",
        ),
        ("content is missing", "DELETE FROM body WHERE id ="),
    ] {
        damaged(5_000, fault, |folder, id| {
            tamper(folder, &format!("{sql} {}", id.number()));
        })
        .await;
    }
}

#[tokio::test]
async fn what_cannot_be_set_aside_stays_and_everything_else_goes_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    let mut put_ids = Vec::new();
    for seed in 0..3 {
        put_ids.push(put(&spool, "a@example.org", &content(seed, 5_000)).await.id);
    }
    drop(spool);
    tamper(
        folder.path(),
        &format!(
            "UPDATE message SET size = 12 WHERE id = {}",
            put_ids[1].number()
        ),
    );
    // Root may write anywhere, so a folder stands where the report would.
    let report = folder.path().join(format!("aside/{}.txt", put_ids[1]));
    std::fs::create_dir(&report).expect("ours");
    let spool = open(folder.path());
    assert_eq!(ids(&spool).await, [put_ids[0], put_ids[2]]);
    assert_eq!(spool.stats().quarantined, 0);
    drop(spool);
    std::fs::remove_dir(&report).expect("ours");
    let spool = open(folder.path());
    assert_eq!(ids(&spool).await, [put_ids[0], put_ids[2]]);
    assert_eq!(spool.stats().quarantined, 1, "the next start tries again");
    assert!(report.is_file());
}

#[tokio::test]
async fn damaged_files_are_set_aside_and_harm_no_other() {
    damaged(LARGE, "1000 octets", |folder, id| {
        let file = std::fs::File::options()
            .write(true)
            .open(folder.join(format!("bodies/{id}")))
            .expect("there");
        file.set_len(1000).expect("cut");
    })
    .await;
    damaged(LARGE, "checksum", |folder, id| {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::File::options()
            .write(true)
            .open(folder.join(format!("bodies/{id}")))
            .expect("there");
        file.write_all_at(b"?", LARGE as u64 - 1).expect("changed");
    })
    .await;
    damaged(LARGE, "missing", |folder, id| {
        std::fs::remove_file(folder.join(format!("bodies/{id}"))).expect("gone");
    })
    .await;
}

#[tokio::test]
async fn a_foreign_row_is_set_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let id = put(&open(folder.path()), "a@example.org", b"x").await.id;
    tamper(
        folder.path(),
        "INSERT INTO message VALUES (-5, 1, 1, 'row', 1, 1, '{}', 1)",
    );
    let spool = open(folder.path());
    assert_eq!(ids(&spool).await, [id]);
    assert_eq!(
        names(&folder.path().join("aside")),
        ["row-5.json", "row-5.txt", "row-5.unreported"]
    );
}

#[tokio::test]
async fn leftovers_are_cleared_and_foreign_files_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let bodies = folder.path().join("bodies");
    let large = put(&open(folder.path()), "a@example.org", &content(1, LARGE)).await;
    for name in [
        "0000000000005",
        "0000000000006.part",
        "notes.txt",
        "0000000000007.bak",
        "ZZZZ000000007",
    ] {
        std::fs::write(bodies.join(name), "x").expect("written");
    }
    std::fs::write(folder.path().join("README"), "x").expect("written");
    let spool = open(folder.path());
    assert_eq!(
        names(&bodies),
        [
            "0000000000007.bak",
            &large.id.to_string(),
            "ZZZZ000000007",
            "notes.txt"
        ]
    );
    assert!(folder.path().join("README").exists());
    assert_eq!(ids(&spool).await, [large.id]);
}

#[tokio::test]
async fn bodies_beside_a_lost_database_are_kept_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let large = put(&open(folder.path()), "a@example.org", &content(1, LARGE)).await;
    std::fs::remove_file(folder.path().join("queue.db")).expect("removed");
    drop(open(folder.path()));
    assert!(names(&folder.path().join("bodies")).is_empty());
    let kept = std::fs::read(folder.path().join(format!("aside/{}.eml", large.id))).expect("kept");
    assert_eq!(kept, content(1, LARGE));
}
