//! The owner of a folder loses it when somebody moves or replaces what it has open.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gatepost::smtp::envelope::RecipientState;
use gatepost::storage::spool::{Claimed, Entry, Options, Spool as _, SpoolError, SqliteSpool};
use tempfile::TempDir;

use super::{LARGE, content, envelope, ids, names, open, put, read};
use crate::support::claims::{claim, remove, settle};

/// A spool with four messages, one of them large, whose folder can be moved.
struct Held {
    spool: SqliteSpool,
    entries: Vec<Claimed<Entry>>,
    path: PathBuf,
    away: PathBuf,
    _folder: TempDir,
}

impl Held {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, away) = (folder.path().join("spool"), folder.path().join("away"));
        // The mover works only when it is asked to.
        let options = Options {
            move_after: Some(Duration::from_hours(1)),
            ..Options::default()
        };
        let spool = SqliteSpool::open_with(&path, &options).expect("a spool");
        let mut entries = Vec::new();
        for (seed, size) in [(0, 3_000), (1, LARGE), (2, 3_000), (3, 3_000)] {
            entries.push(put(&spool, "a@example.org", &content(seed, size)).await);
            if seed == 1 {
                spool.flush().await.expect("moved to the database");
            }
        }
        // So that there is a connection for reading.
        spool.load(entries[0].id).await.expect("there");
        Self {
            spool,
            entries,
            path,
            away,
            _folder: folder,
        }
    }

    fn move_away(&self) {
        fs::rename(&self.path, &self.away).expect("moved");
    }

    /// Finds out that the folder is not ours any more. Returns the reason.
    async fn is_lost(&self) -> String {
        let error = self.spool.renew().await.expect_err("it is lost");
        assert!(matches!(error, SpoolError::NotOwner(_)), "{error}");
        assert!(!self.spool.lease().holds());
        error.to_string()
    }

    /// Asserts that nothing new gets into the spool, and nothing that waits is given out.
    async fn takes_nothing(&self) {
        let lost = |result: Result<(), SpoolError>| {
            assert!(matches!(result, Err(SpoolError::NotOwner(_))), "{result:?}");
        };
        lost(self.spool.admit(0));
        lost(self.spool.claim(None, 10).await.map(drop));
        lost(self.spool.flush().await);
        for size in [10, LARGE] {
            let mut draft = self.spool.draft();
            // A large one needs a file, and its folder may be gone.
            if draft.write(&content(9, size)).await.is_ok() {
                lost(self.spool.commit(draft, envelope("")).await.map(drop));
            }
            let report = self.spool.draft_report();
            let entry = &self.entries[0];
            let reports = vec![(report, envelope(""))];
            let settled = self
                .spool
                .settle(entry.claim, &entry.envelope, None, reports);
            lost(settled.await.map(drop));
        }
    }

    /// Stores the results of attempts that were under way: a state of the last message, and the end of
    /// the two before it.
    async fn results(&self) -> Result<(), SpoolError> {
        let [_, second, third, last] = &self.entries[..] else {
            panic!("four messages")
        };
        let mut after = last.envelope.clone();
        after.recipients[0].state = RecipientState::Delivered;
        let settled = self
            .spool
            .settle(last.claim, &last.envelope, Some(&after), Vec::new());
        settled.await?;
        self.spool.remove(third.claim).await?;
        self.spool.remove(second.claim).await
    }
}

/// Asserts that a folder has exactly what is left after [`Held::results`].
async fn has_the_results(folder: &Path, entries: &[Claimed<Entry>]) {
    let spool = open(folder);
    assert_eq!(ids(&spool).await, [entries[0].id, entries[3].id]);
    let last = spool.load(entries[3].id).await.expect("there");
    assert_eq!(last.envelope.recipients[0].state, RecipientState::Delivered);
    assert!(
        names(&folder.join("bodies")).is_empty(),
        "leftovers are removed"
    );
}

/// All files under a folder, with their content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let content = fs::read(&path).expect("readable");
            all.insert(path, content);
        }
    }
    all
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let (path, to) = entry
            .map(|one| (one.path(), to.join(one.file_name())))
            .expect("an entry");
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("copied");
        }
    }
    let mode = fs::metadata(from).expect("a folder").permissions();
    fs::set_permissions(to, mode).expect("ours");
}

#[tokio::test]
async fn a_folder_that_was_moved_takes_nothing_but_the_results_of_what_was_under_way() {
    let held = Held::new().await;
    held.spool.renew().await.expect("it is where it was");
    held.move_away();
    let reason = held.is_lost().await;
    let place = held.path.display().to_string();
    assert!(
        reason.contains(&place) && reason.contains("put it back"),
        "{reason}"
    );
    held.takes_nothing().await;
    // No file is there now, which is no damage.
    let loaded = held.spool.load(held.entries[1].id).await;
    assert!(matches!(loaded, Err(SpoolError::NotOwner(_))), "{loaded:?}");
    assert!(names(&held.away.join("aside")).is_empty());
    held.results()
        .await
        .expect("nobody else can have the files");
    let Held {
        spool,
        entries,
        path,
        away,
        _folder: folder,
    } = held;
    spool.close().await.expect("closed");
    assert!(!path.exists(), "no folder is made in its place");
    has_the_results(&away, &entries).await;
    drop(folder);
}

/// Another segment would be made at a path that is not ours.
#[tokio::test]
async fn a_result_that_needs_another_segment_is_not_stored() {
    let held = Held::new().await;
    held.move_away();
    fs::create_dir_all(held.path.join("log")).expect("another folder");
    held.is_lost().await;
    let entry = &held.entries[0];
    let mut after = entry.envelope.clone();
    after.envid = Some("x".repeat(2_000_000));
    let mut refused = 0;
    for _ in 0..20 {
        let settled = settle(&held.spool, entry.id, &entry.envelope, &after).await;
        match settled {
            Ok(()) => {}
            Err(SpoolError::NotOwner(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0, "a segment has 40 MB");
    assert!(files(&held.path).is_empty(), "a segment was made");
    held.results().await.expect("what has room is stored");
    held.spool.close().await.expect("closed");
    assert!(files(&held.path).is_empty(), "something was written");
    has_the_results(&held.away, &held.entries).await;
}

/// The disk has no space for another segment, which would be made at a path that is not ours.
#[tokio::test]
async fn a_result_that_the_open_segment_has_room_for_needs_no_other_one() {
    let Held {
        spool,
        entries,
        path,
        away,
        _folder: folder,
    } = Held::new().await;
    drop(spool);
    let options = Options {
        keep_free: Some(u64::MAX / 4),
        ..Options::default()
    };
    let spool = SqliteSpool::open_with(&path, &options).expect("a spool");
    let last = claim(&spool, entries[3].id).await.expect("there");
    remove(&spool, entries[2].id).await.expect("removed");
    fs::rename(&path, &away).expect("moved");
    fs::create_dir_all(path.join("log")).expect("another folder");
    let mut after = entries[3].envelope.clone();
    after.envid = Some("deferred".to_owned());
    let settled = spool.settle(last, &entries[3].envelope, Some(&after), Vec::new());
    settled.await.expect("the segment has room");
    assert!(files(&path).is_empty(), "a spare file was made");
    spool.close().await.expect("closed");
    let loaded = open(&away).load(entries[3].id).await.expect("there");
    assert_eq!(loaded.envelope, after);
    drop(folder);
}

#[tokio::test]
async fn a_folder_that_is_put_back_is_used_as_before() {
    let held = Held::new().await;
    held.move_away();
    held.is_lost().await;
    held.results().await.expect("stored where it is open");
    fs::rename(&held.away, &held.path).expect("moved back");
    held.spool.renew().await.expect("ours again");
    held.spool.admit(0).expect("room");
    let new = put(&held.spool, "new@example.org", &content(5, LARGE)).await;
    held.spool.flush().await.expect("moved to the database");
    let expected = [held.entries[0].id, held.entries[3].id, new.id];
    assert_eq!(ids(&held.spool).await, expected);
    held.spool.close().await.expect("closed");
    assert_eq!(ids(&open(&held.path)).await, expected);
}

/// The backup has the same ids, and segments and bodies of the same names.
#[tokio::test]
async fn a_backup_that_was_restored_in_its_place_is_not_touched() {
    let held = Held::new().await;
    let backup = held.path.with_extension("backup");
    copy(&held.path, &backup);
    held.move_away();
    fs::rename(&backup, &held.path).expect("restored");
    let before = files(&held.path);
    held.is_lost().await;
    held.takes_nothing().await;
    // What is loaded does not count as damaged, whichever folder its path leads to.
    for entry in &held.entries {
        drop(held.spool.load(entry.id).await);
    }
    held.results().await.expect("stored where it is open");
    held.spool.close().await.expect("closed");
    let after = files(&held.path);
    assert!(after.keys().eq(before.keys()), "{:?}", after.keys());
    for (path, content) in &before {
        assert!(after[path] == *content, "{} has changed", path.display());
    }
    has_the_results(&held.away, &held.entries).await;
    let restored = open(&held.path);
    let all: Vec<_> = held.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids(&restored).await, all);
    let large = restored.load(all[1]).await.expect("there");
    assert_eq!(read(&large.body).await.expect("sound"), content(1, LARGE));
}

/// The loss is found before a path is used, although nobody has renewed the lease.
#[tokio::test]
async fn the_mover_examines_the_folder_before_it_uses_a_path() {
    let held = Held::new().await;
    let backup = held.path.with_extension("backup");
    copy(&held.path, &backup);
    held.move_away();
    fs::rename(&backup, &held.path).expect("restored");
    let before = files(&held.path);
    let flushed = held.spool.flush().await;
    assert!(
        matches!(flushed, Err(SpoolError::NotOwner(_))),
        "{flushed:?}"
    );
    assert!(!held.spool.lease().holds());
    assert!(files(&held.path) == before, "the backup has changed");
}

/// The log at the path is still ours, so a start finds there what the older database has not.
#[tokio::test]
async fn a_database_that_was_replaced_gets_what_the_log_has_at_the_next_start() {
    let held = Held::new().await;
    for (name, kept) in [("queue.db", "old.db"), ("queue.db-wal", "old.db-wal")] {
        let from = held.path.join(name);
        fs::copy(&from, held.away.with_extension(kept)).expect("saved");
    }
    fs::remove_file(held.path.join("queue.db")).expect("removed");
    fs::rename(
        held.away.with_extension("old.db"),
        held.path.join("queue.db"),
    )
    .expect("restored");
    let reason = held.is_lost().await;
    assert!(
        reason.contains("queue.db was moved, replaced or deleted"),
        "{reason}"
    );
    held.takes_nothing().await;
    held.results().await.expect("the log is still ours");
    held.spool.close().await.expect("closed");
    has_the_results(&held.path, &held.entries).await;
}

#[tokio::test]
async fn a_log_or_bodies_that_were_replaced_end_the_lease() {
    for name in ["log", "bodies"] {
        let held = Held::new().await;
        let folder = held.path.join(name);
        let before = held.path.join("before");
        fs::rename(&folder, &before).expect("moved");
        let reason = held.is_lost().await;
        let expected = format!("/{name} was moved, replaced or deleted");
        assert!(reason.contains(&expected), "{reason}");
        fs::create_dir(&folder).expect("another");
        held.is_lost().await;
        held.takes_nothing().await;
        fs::remove_dir_all(&folder).expect("ours");
        fs::rename(&before, &folder).expect("moved back");
        held.spool.renew().await.expect("ours again");
        put(&held.spool, "new@example.org", b"x").await;
    }
}

/// No restart would find what is written to a segment without a name.
#[tokio::test]
async fn a_segment_that_is_not_where_it_was_ends_the_lease() {
    let held = Held::new().await;
    let mut segments = Vec::new();
    let entry = &held.entries[0];
    let mut big = entry.envelope.clone();
    big.envid = Some("x".repeat(1_000_000));
    while segments.len() < 2 {
        settle(&held.spool, entry.id, &entry.envelope, &big)
            .await
            .expect("stored");
        segments = names(&held.path.join("log"));
        segments.retain(|name| name != "spare");
    }
    assert_eq!(segments.len(), 2, "{segments:?}");
    for name in &segments {
        let segment = held.path.join("log").join(name);
        let kept = held.path.join("kept");
        fs::rename(&segment, &kept).expect("moved");
        let reason = held.is_lost().await;
        let expected = format!("/log/{name} was moved, replaced or deleted");
        assert!(reason.contains(&expected), "{reason}");
        fs::copy(&kept, &segment).expect("another");
        held.is_lost().await;
        held.takes_nothing().await;
        fs::rename(&kept, &segment).expect("moved back");
        held.spool.renew().await.expect("ours again");
    }
    // Segments that nothing needs leave the log.
    held.spool.flush().await.expect("moved");
    for _ in 0..2 {
        held.spool.ping().await.expect("it works");
    }
    held.spool.renew().await.expect("ours");
    assert!(held.spool.lease().holds());
    held.spool.close().await.expect("closed");
}

/// A file system gives the number of a deleted folder to the next one.
#[tokio::test]
async fn a_folder_of_the_same_name_is_not_the_deleted_one() {
    for name in ["log", "bodies"] {
        let held = Held::new().await;
        let folder = held.path.join(name);
        fs::remove_dir_all(&folder).expect("deleted");
        fs::create_dir(&folder).expect("another");
        held.is_lost().await;
    }
}

/// Without the lock another relay may have used the files in the meantime.
#[tokio::test]
async fn without_its_lock_nothing_is_written_any_more() {
    let held = Held::new().await;
    let (lock, kept) = (held.path.join("lock"), held.path.join("lock.before"));
    fs::rename(&lock, &kept).expect("moved");
    let reason = held.is_lost().await;
    assert!(reason.contains("/lock was deleted or replaced"), "{reason}");
    let before = files(&held.path);
    for _ in 0..2 {
        held.takes_nothing().await;
        let refused = held.results().await;
        assert!(
            matches!(refused, Err(SpoolError::NotOwner(_))),
            "{refused:?}"
        );
        let entry = &held.entries[0];
        let refused = settle(&held.spool, entry.id, &entry.envelope, &entry.envelope).await;
        assert!(
            matches!(refused, Err(SpoolError::NotOwner(_))),
            "{refused:?}"
        );
        if !lock.exists() {
            assert!(files(&held.path) == before, "something was written");
            // It does not help to put it back.
            fs::rename(&kept, &lock).expect("moved back");
            held.is_lost().await;
        }
    }
    let all: Vec<_> = held.entries.iter().map(|entry| entry.id).collect();
    held.spool.close().await.expect("closed");
    assert_eq!(ids(&open(&held.path)).await, all);
}

#[tokio::test]
async fn a_folder_that_was_deleted_is_lost() {
    let held = Held::new().await;
    fs::remove_dir_all(&held.path).expect("deleted");
    let reason = held.is_lost().await;
    assert!(reason.contains("deleted"), "{reason}");
    held.takes_nothing().await;
    held.spool.close().await.expect("closed");
    assert!(!held.path.exists());
}
