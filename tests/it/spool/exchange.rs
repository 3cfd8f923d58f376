//! The exchange of a damaged database for the one that a repair made: it may be interrupted at any
//! moment, and replaces nothing that was set aside before.

use std::fs;
use std::path::Path;

use gatepost::storage::spool::{SpoolRemedy, check_spool};
use jiff::Timestamp;

use super::bad_pages::{destroy, fill, root_of};
use super::repair::{Stored, killed, numbered, repaired};
use super::{ids, names, open};

/// A database with a bad page and a write-ahead log, and the new one that a repair makes of it.
async fn to_be_exchanged() -> (tempfile::TempDir, Vec<u8>, Stored) {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = numbered(fill(folder.path(), 40, 1000).await);
    destroy(folder.path(), root_of(folder.path(), "message"));
    let other = killed(folder.path());
    repaired(other.path());
    let new = fs::read(other.path().join("queue.db")).expect("ours");
    // Nothing in it counts, since it is too short.
    fs::write(folder.path().join("queue.db-wal"), "short").expect("ours");
    (folder, new, stored)
}

/// A state that a kill leaves.
type Interruption = (&'static str, fn(&Path, &[u8]));

const NEW: &str = "repair/queue-1.db";

fn begin(folder: &Path, new: &[u8]) {
    fs::create_dir_all(folder.join("repair/new")).expect("ours");
    fs::write(folder.join("repair/damaged.db"), "half").expect("ours");
    fs::write(folder.join(NEW), new).expect("ours");
}

fn set_aside(folder: &Path, name: &str, to: &str) {
    let renamed = fs::rename(folder.join(name), folder.join("aside").join(to));
    renamed.expect("ours");
}

const INTERRUPTIONS: [Interruption; 6] = [
    ("while the new database is made", |folder, _| {
        begin(folder, b"");
        fs::rename(folder.join(NEW), folder.join("repair/new/queue.db")).expect("ours");
    }),
    ("before the exchange", begin),
    ("after the write-ahead log", |folder, new| {
        begin(folder, new);
        set_aside(folder, "queue.db-wal", "queue-1.db-wal");
    }),
    ("after the damaged database", |folder, new| {
        begin(folder, new);
        set_aside(folder, "queue.db-wal", "queue-1.db-wal");
        set_aside(folder, "queue.db", "queue-1.db");
    }),
    (
        "after the damaged database, in whose place somebody made another one",
        |folder, new| {
            begin(folder, new);
            set_aside(folder, "queue.db-wal", "queue-1.db-wal");
            set_aside(folder, "queue.db", "queue-1.db");
            fs::write(folder.join("queue.db"), "").expect("ours");
        },
    ),
    ("after the exchange", |folder, new| {
        begin(folder, new);
        set_aside(folder, "queue.db-wal", "queue-1.db-wal");
        set_aside(folder, "queue.db", "queue-1.db");
        fs::rename(folder.join(NEW), folder.join("queue.db")).expect("ours");
    }),
];

#[tokio::test]
async fn a_repair_that_was_interrupted_is_completed_by_the_next_one_or_by_a_start() {
    let (damaged, new, stored) = to_be_exchanged().await;
    let old = fs::read(damaged.path().join("queue.db")).expect("ours");
    let all: Vec<_> = stored.keys().copied().collect();
    for (name, interrupt) in INTERRUPTIONS {
        for is_start in [false, true] {
            let folder = killed(damaged.path());
            interrupt(folder.path(), &new);
            let is_new = name != "while the new database is made";
            if !is_start {
                repaired(folder.path());
            }
            let spool = open(folder.path());
            if is_new || !is_start {
                assert_eq!(ids(&spool).await, all, "{name}");
                let aside = folder.path().join("aside");
                let kept = names(&aside);
                let is_database =
                    |file: &&String| Path::new(file).extension() == Some("db".as_ref());
                let kept: Vec<_> = kept.iter().filter(is_database).collect();
                assert_eq!(kept.len(), 1, "{name}: {kept:?}");
                assert!(
                    fs::read(aside.join(kept[0])).expect("kept") == old,
                    "{name}"
                );
                assert!(aside.join(format!("{}-wal", kept[0])).exists(), "{name}");
            }
            assert!(!folder.path().join("repair").exists(), "{name}");
        }
    }
}

/// Nothing but the folder `repair` says that such a folder is a spool, since it has no log.
#[tokio::test]
async fn an_exchange_that_was_interrupted_without_a_log_is_completed() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/stores/spool");
    let folder = killed(&sample);
    begin(
        folder.path(),
        &fs::read(sample.join("queue.db")).expect("ours"),
    );
    fs::create_dir_all(folder.path().join("aside")).expect("ours");
    set_aside(folder.path(), "queue.db", "queue-1.db");
    let checked = check_spool(folder.path()).expect("a spool").findings;
    assert_eq!(checked.len(), 1, "{checked:?}");
    assert_eq!(checked[0].remedy, SpoolRemedy::Complete);
    let done = repaired(folder.path());
    assert!(done.kept.is_some());
    assert_eq!(done.remaining.messages, 3);
    assert_eq!(ids(&open(folder.path())).await.len(), 3);
}

/// An exchange that was interrupted: the list of messages that are restored, whether the new database
/// is still in its folder, and whether the messages leave the quarantine.
#[tokio::test]
async fn what_is_restored_leaves_the_quarantine_with_the_exchange() {
    let sound = tempfile::tempdir().expect("a folder");
    let stored = fill(sound.path(), 1, 1000).await;
    let database = fs::read(sound.path().join("queue.db")).expect("ours");
    for (list, is_new, is_restored) in [
        ("restored.new", false, false),
        ("restored.new", true, true),
        ("restored", true, true),
        ("restored", false, true),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        for path in ["repair", "aside"] {
            fs::create_dir(folder.path().join(path)).expect("ours");
        }
        let write = |path: &str, octets: &[u8]| {
            fs::write(folder.path().join(path), octets).expect("ours");
        };
        write("queue.db", &database);
        write(
            &format!("repair/{list}"),
            format!("{}\n", stored[0]).as_bytes(),
        );
        if is_new {
            write("repair/queue-1.db", &database);
        }
        for kind in ["txt", "json", "eml", "unreported", "reported"] {
            write(&format!("aside/{}.{kind}", stored[0]), b"x");
        }
        write("aside/other.txt", b"x");
        assert_eq!(ids(&open(folder.path())).await, stored);
        let kept = names(&folder.path().join("aside"));
        let of_message = kept
            .iter()
            .filter(|name| name.starts_with(&stored[0].to_string()));
        let expected = if is_restored { 0 } else { 5 };
        assert_eq!(of_message.count(), expected, "{list} {is_new}: {kept:?}");
        assert!(kept.contains(&"other.txt".to_owned()), "{kept:?}");
        assert!(!folder.path().join("repair").exists());
    }
}

/// The databases of other repairs, and their logs, are kept; also those of repairs in the same second.
#[tokio::test]
async fn a_kept_database_replaces_no_other() {
    let (damaged, _, stored) = to_be_exchanged().await;
    let old = fs::read(damaged.path().join("queue.db")).expect("ours");
    let all: Vec<_> = stored.keys().copied().collect();
    for log in ["", "-wal"] {
        let folder = killed(damaged.path());
        let aside = folder.path().join("aside");
        // More seconds than the repair takes.
        let now = Timestamp::now().as_second();
        let name = |seconds: i64| aside.join(format!("queue-{seconds}.db{log}"));
        let earlier: Vec<_> = (now..now + 600).map(name).collect();
        for file in &earlier {
            fs::write(file, "earlier").expect("ours");
        }
        let kept = repaired(folder.path()).kept.expect("a new database");
        assert!(fs::read(&kept).expect("kept") == old, "{log}");
        let kept_log = fs::read_to_string(kept.with_extension("db-wal"));
        assert_eq!(kept_log.expect("kept"), "short", "{log}");
        for file in &earlier {
            let content = fs::read_to_string(file).expect("it is there");
            assert_eq!(content, "earlier", "{}", file.display());
        }
        assert_eq!(ids(&open(folder.path())).await, all, "{log}");
    }
}
