//! `gatepost spool export` writes what waits in the form of version 1, which the version before reads.
//! Here the present version reads it, as it reads any spool of version 1.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use gatepost::smtp::envelope::{Envelope, QueueId, RecipientState};
use gatepost::storage::spool::{Claimed, Entry, Options, Spool as _, SqliteSpool};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::{copy, messages};
use crate::support::claims;
use crate::support::operated::{err, out};
use crate::support::relay::program;

/// A folder with the spool of a relay that was killed, and the place of its export.
struct KilledSpool {
    folder: tempfile::TempDir,
}

type Expected = BTreeMap<QueueId, (Timestamp, Envelope, Vec<u8>)>;

impl KilledSpool {
    /// Copies a spool while it is in use.
    fn of(live: &Path) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        copy(live, &folder.path().join("spool"));
        Self { folder }
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("before")
    }

    fn export(&self, more: &[&str]) -> Output {
        export(&self.spool(), &self.target(), more)
    }

    /// The files of the spool with their contents, without the lock and the index that SQLite makes
    /// anew at each start.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut files, mut folders) = (BTreeMap::new(), vec![self.spool()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("ours") {
                let path = entry.expect("ours").path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with("lock") && !path.ends_with("queue.db-shm") {
                    files.insert(path.clone(), fs::read(path).expect("ours"));
                }
            }
        }
        files
    }
}

fn export(spool: &Path, target: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args(["spool", "export"]).arg(target);
    command.arg("--folder").arg(spool).args(more);
    command.output().expect("gatepost runs")
}

/// The version before would send it another way.
#[tokio::test]
async fn a_message_by_the_connector_of_a_user_is_named_and_not_exported() {
    let live = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let recipients = ["a@one.example", "b@two.example"].map(str::to_owned);
    crate::support::counting_sink::fill(live.path(), recipients, |envelope| {
        if envelope.recipients[0].mailbox.local_part() == "b" {
            envelope.connector = Some("smart".into());
        }
    })
    .await;
    let killed = KilledSpool::of(live.path());
    let exported = killed.export(&[]);
    assert_eq!(exported.status.code(), Some(1), "{}", err(&exported));
    let said = err(&exported);
    assert!(
        said.starts_with("not exported: ")
            && said.ends_with(
                " goes by the connector smart of the user who sent it; the earlier version would send it another way\n"
            ),
        "{said}"
    );
    assert!(
        out(&exported).contains("\nNOT COMPLETE: 1 message by connectors of users; "),
        "{}",
        out(&exported)
    );
    assert!(
        out(&exported).contains("exported 1 message"),
        "{}",
        out(&exported)
    );
    let spool = SqliteSpool::open(&killed.target()).expect("a spool");
    let waiting = spool.scan(None, 10).await.expect("readable");
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].envelope.connector, None);
}

/// A spool that leaves all in the log until it is flushed.
fn open(folder: &Path) -> SqliteSpool {
    let options = Options {
        move_after: Some(Duration::from_hours(1)),
        ..Options::default()
    };
    SqliteSpool::open_with(folder, &options).expect("a spool")
}

async fn put(spool: &SqliteSpool, envelope: Envelope, content: &[u8]) -> Claimed<Entry> {
    let mut draft = spool.draft();
    draft.write(content).await.expect("room");
    spool.commit(draft, envelope).await.expect("durable").1
}

async fn settle(spool: &SqliteSpool, id: QueueId, before: &Envelope, after: &Envelope) {
    let settled = claims::settle(spool, id, before, after);
    settled.await.expect("settled");
}

/// Puts three messages into the database, of which one has a newer state in the log and one was
/// removed, and three into the log alone. One more is to many recipients, and has states of them in
/// both.
async fn fill(spool: &SqliteSpool) -> Expected {
    let mut expected = Expected::new();
    let mut entries = Vec::new();
    let (mut many, content) = messages().swap_remove(0);
    many.recipients = vec![many.recipients.swap_remove(0); 20];
    let (mut in_database, mut in_log) = (many.clone(), many.clone());
    in_database.recipients[1].state = RecipientState::Delivered;
    in_log.recipients[1].state = RecipientState::Failed;
    in_log.recipients[2].state = RecipientState::Delivered;
    let to_many = put(spool, many.clone(), &content).await;
    settle(spool, to_many.id, &many, &in_database).await;
    expected.insert(to_many.id, (to_many.accepted, in_log.clone(), content));
    for round in 0..2 {
        for (envelope, content) in messages() {
            let entry = put(spool, envelope.clone(), &content).await;
            expected.insert(entry.id, (entry.accepted, envelope, content));
            entries.push(entry);
        }
        if round == 0 {
            spool.flush().await.expect("moved");
        }
    }
    settle(spool, to_many.id, &in_database, &in_log).await;
    // The states of the last message, for the first one.
    let (first, last) = (entries[0].id, entries[2].envelope.clone());
    settle(spool, first, &entries[0].envelope, &last).await;
    if let Some((_, envelope, _)) = expected.get_mut(&first) {
        *envelope = last;
    }
    for removed in [&entries[2], &entries[3]] {
        spool.remove(removed.claim).await.expect("removed");
        expected.remove(&removed.id);
    }
    expected
}

/// The messages of a spool as this version takes it over.
async fn contents(folder: &Path) -> Expected {
    let spool = SqliteSpool::open(folder).expect("the spool opens");
    let mut found = Expected::new();
    for stored in spool.scan(None, 100).await.expect("listed") {
        let entry = spool.load(stored.id).await.expect("sound");
        let (mut reader, mut read) = (entry.body.reader().await.expect("readable"), Vec::new());
        while let Some(chunk) = reader.next().await.expect("sound") {
            read.extend_from_slice(&chunk);
        }
        found.insert(stored.id, (entry.accepted, entry.envelope, read));
    }
    assert_eq!(spool.stats().quarantined, 0);
    spool.close().await.expect("closed");
    found
}

/// The tables and the view of a database, with its version.
fn form(database: &Path) -> (i32, i32, Vec<String>) {
    let opened = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let opened = opened.expect("a database");
    let number = |name: &str| {
        let pragma = format!("PRAGMA {name}");
        let value = opened.query_row(&pragma, [], |row| row.get(0));
        value.expect("a number")
    };
    let mut schema = opened
        .prepare("SELECT sql FROM sqlite_schema ORDER BY rowid")
        .expect("a schema");
    let tables = schema.query_map([], |row| row.get(0)).expect("tables");
    let tables = tables.collect::<Result<_, _>>().expect("tables");
    (number("application_id"), number("user_version"), tables)
}

#[tokio::test]
async fn all_that_waits_is_exported_in_the_form_of_version_1() {
    let live = tempfile::tempdir().expect("a folder");
    let spool = open(live.path());
    let expected = fill(&spool).await;
    let killed = KilledSpool::of(live.path());
    let before = killed.files();
    let exported = killed.export(&[]);
    assert!(exported.status.success(), "{}", err(&exported));
    assert_eq!(killed.files(), before, "nothing changes in the spool");
    let shown = out(&exported);
    assert!(shown.starts_with("exported 5 messages ("), "{shown}");
    // Looked at in a copy, since SQLite leaves files beside a database that it reads.
    let sample = super::stores();
    assert_eq!(
        form(&killed.target().join("queue.db")),
        form(&super::spool(&sample).join("queue.db")),
    );
    assert!(!killed.target().join("log").exists());
    assert_eq!(contents(&killed.target()).await, expected);
    // The relay that was killed has the same.
    assert_eq!(contents(&killed.spool()).await, expected);
}

/// A spool of version 1 that was never opened by this version can be exported as well, with all that
/// is beside the queue and with the time of its last change, from which clock jumps are found.
#[tokio::test]
async fn stores_beside_the_queue_and_the_last_change_are_kept() {
    let killed = KilledSpool::of(&super::spool(&super::stores()));
    let changed = SystemTime::now() - Duration::from_hours(24 * 40);
    let queue = fs::File::options()
        .write(true)
        .open(killed.spool().join("queue.db"));
    queue
        .and_then(|queue| queue.set_modified(changed))
        .expect("ours");
    let exported = killed.export(&["--json"]);
    assert!(exported.status.success(), "{}", err(&exported));
    let document: serde_json::Value =
        serde_json::from_str(&out(&exported)).expect("one JSON document");
    assert_eq!(
        (&document["messages"], &document["version"]),
        (&3.into(), &1.into())
    );
    assert_eq!(document["unreadable"], serde_json::json!([]));
    let stores = [
        "leaps.json",
        "monitor.json",
        "history.db",
        "policies.db",
        "tlsrpt.db",
    ];
    assert_eq!(document["stores"], serde_json::json!(stores));
    for name in stores {
        let read = |folder: PathBuf| fs::read(folder.join(name)).expect(name);
        assert!(read(killed.spool()) == read(killed.target()), "{name}");
    }
    let queue = fs::metadata(killed.target().join("queue.db")).expect("exported");
    let kept = queue.modified().expect("a time");
    assert!(changed.duration_since(kept).unwrap_or_default() < Duration::from_secs(1));
    assert!(kept.duration_since(changed).unwrap_or_default() < Duration::from_secs(1));
    assert_eq!(contents(&killed.target()).await.len(), 3);
}

/// Overwrites the only place of a text in a file.
fn overwrite(file: &Path, text: &str, by: &str) {
    let mut octets = fs::read(file).expect("ours");
    let places: Vec<_> = octets
        .windows(text.len())
        .enumerate()
        .filter(|(_, found)| *found == text.as_bytes())
        .map(|(at, _)| at)
        .collect();
    let [at] = places[..] else {
        panic!("{text} stands {} times in {}", places.len(), file.display())
    };
    octets[at..at + by.len()].copy_from_slice(by.as_bytes());
    fs::write(file, octets).expect("ours");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_rest_is_exported() {
    let live = tempfile::tempdir().expect("a folder");
    let spool = open(live.path());
    let (envelope, large) = messages().swap_remove(1);
    let mut put_ids = Vec::new();
    for content in ["in a row", "in another row"] {
        let content = content.as_bytes();
        put_ids.push(put(&spool, envelope.clone(), content).await.id);
    }
    for _ in 0..2 {
        put_ids.push(put(&spool, envelope.clone(), &large).await.id);
    }
    spool.flush().await.expect("moved");
    for content in ["in the log", "also in the log"] {
        let content = content.as_bytes();
        put_ids.push(put(&spool, envelope.clone(), content).await.id);
    }
    settle(&spool, put_ids[1], &envelope, &envelope).await;
    drop(spool);

    let killed = KilledSpool::of(live.path());
    let changed = Connection::open(killed.spool().join("queue.db")).and_then(|database| {
        let sql = "UPDATE body SET data = CAST('on a row' AS BLOB) WHERE id = ?1";
        database.execute(sql, [put_ids[0].number().cast_signed()])
    });
    assert_eq!(changed, Ok(1));
    let body = killed.spool().join(format!("bodies/{}", put_ids[2]));
    fs::write(body, &large[1..]).expect("ours");
    let sql = "UPDATE message SET size = size + 1 WHERE id = ?1";
    let changed = Connection::open(killed.spool().join("queue.db"))
        .and_then(|database| database.execute(sql, [put_ids[4].number().cast_signed()]));
    assert_eq!(changed, Ok(1));

    let exported = killed.export(&[]);
    assert_eq!(exported.status.code(), Some(1), "{}", out(&exported));
    let named = err(&exported);
    for (id, fault) in [
        (put_ids[0], "the checksum of its content"),
        (put_ids[2], "its body file has"),
        (put_ids[4], "its fixed part"),
    ] {
        let start = format!("cannot read {id}: ");
        let mut of_it = named.lines().filter(|text| text.starts_with(&start));
        assert!(of_it.any(|text| text.contains(fault)), "{named}");
    }
    assert_eq!(named.lines().count(), 3, "{named}");
    assert!(out(&exported).contains("NOT COMPLETE: 3 faults"));
    let rest: Vec<_> = contents(&killed.target()).await.into_keys().collect();
    assert_eq!(rest, [put_ids[1], put_ids[3], put_ids[5]]);
}

/// Damage to the log, which the next start would set aside.
#[tokio::test]
async fn damage_to_the_log_is_named() {
    let live = tempfile::tempdir().expect("a folder");
    let spool = open(live.path());
    let (envelope, _) = messages().swap_remove(1);
    let mut put_ids = Vec::new();
    for content in ["first content", "second content", "third content"] {
        let content = content.as_bytes();
        put_ids.push(put(&spool, envelope.clone(), content).await.id);
    }
    let killed = KilledSpool::of(live.path());
    let segment = killed.spool().join("log/0000000000000001.seg");
    overwrite(&segment, "second content", "Second content");
    let exported = killed.export(&[]);
    assert_eq!(exported.status.code(), Some(1), "{}", out(&exported));
    let expected = format!(
        "cannot read {}: its content in the log of the spool is damaged\n",
        put_ids[1]
    );
    assert_eq!(err(&exported), expected);
    let rest: Vec<_> = contents(&killed.target()).await.into_keys().collect();
    assert_eq!(rest, [put_ids[0], put_ids[2]]);

    let killed = KilledSpool::of(live.path());
    let segment = killed.spool().join("log/0000000000000001.seg");
    overwrite(&segment, "GPSTLOG", "gpstlog");
    let exported = killed.export(&[]);
    assert_eq!(exported.status.code(), Some(1), "{}", out(&exported));
    let expected = "cannot read log/0000000000000001.seg: its header is damaged\n";
    assert_eq!(err(&exported), expected);
}

#[tokio::test]
async fn an_export_that_cannot_be_made_changes_nothing_and_says_why() {
    let live = tempfile::tempdir().expect("a folder");
    let spool = open(live.path());
    fill(&spool).await;
    let killed = KilledSpool::of(live.path());
    let full = killed.folder.path().join("full");
    fs::create_dir(&full).expect("ours");
    fs::write(full.join("letter"), "x").expect("ours");
    let no_spool = killed.folder.path().join("none");
    fs::create_dir(&no_spool).expect("ours");
    let target = killed.target();
    let inside = killed.spool().join("new");
    let missing = killed.folder.path().join("missing");
    for (from, to, fault) in [
        (
            &live.path().to_owned(),
            &target,
            "systemctl stop gatepost.socket gatepost",
        ),
        (&killed.spool(), &full, "it is not empty"),
        (&killed.spool(), &inside, "it is in the spool itself"),
        (&no_spool, &target, "is no spool"),
        (&missing, &target, "cannot list"),
        (
            &killed.spool(),
            &target.join("a/b"),
            "the folder cannot be made",
        ),
    ] {
        let refused = export(from, to, &[]);
        assert_eq!(refused.status.code(), Some(2), "{fault}: {}", out(&refused));
        assert!(err(&refused).contains(fault), "{fault}: {}", err(&refused));
        assert!(!target.exists(), "{fault}");
    }
    assert!(!inside.exists());
    assert_eq!(fs::read_dir(&full).expect("ours").count(), 1);
}
