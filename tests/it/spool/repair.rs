//! `gatepost spool check` names each damage of a spool, and `gatepost spool repair` makes the spool
//! usable again with all that can be read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use gatepost::smtp::envelope::{Envelope, QueueId};
use gatepost::storage::spool::{
    Options, Spool as _, SpoolError, SpoolFinding, SpoolRemedy, SpoolRepair, SqliteSpool,
    check_spool, repair_spool,
};

use super::bad_pages::{destroy, fill, pages_with, root_of, sender};
use super::parts::{deferred, put_many, settle};
use super::{LARGE, content, ids, names, open, put, read};
use crate::support::claims::remove;
use crate::support::operated::{err, out};
use crate::support::relay::program;

/// The messages of a spool, each with the number from which its content follows.
pub(super) type Stored = BTreeMap<QueueId, u64>;

/// Repairs a spool as the command does, outside of any asynchronous runtime.
pub(super) fn repaired(folder: &Path) -> SpoolRepair {
    let repair = || repair_spool(folder).expect("repaired");
    std::thread::scope(|scope| scope.spawn(repair).join().expect("no panic"))
}

pub(super) fn numbered(stored: Vec<QueueId>) -> Stored {
    stored.into_iter().zip(0..).collect()
}

fn gatepost(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(program());
    command
        .arg("spool")
        .args(arguments)
        .arg("--folder")
        .arg(folder);
    command.output().expect("gatepost runs")
}

/// Copies a spool that is in use, as a kill leaves it.
pub(super) fn killed(live: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    copy(live, folder.path());
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("ours");
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("ours");
    for entry in fs::read_dir(from).expect("ours") {
        let (from, to) = entry
            .map(|entry| (entry.path(), to.join(entry.file_name())))
            .expect("ours");
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("ours");
        }
    }
}

/// All files below a folder, without the lock and the reserve.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("ours") {
            let path = entry.expect("ours").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") && !path.ends_with("reserve") {
                files.insert(path.clone(), fs::read(path).expect("ours"));
            }
        }
    }
    files
}

/// Delivers all that is in a spool. Returns the messages whose contents are sound; those that bounce
/// count as damaged.
pub(super) async fn delivered(
    folder: &Path,
    stored: &Stored,
    size: usize,
) -> (Vec<QueueId>, Vec<QueueId>) {
    let spool = open(folder);
    let (mut sound, mut bounced) = (Vec::new(), Vec::new());
    for id in ids(&spool).await {
        match spool.load(id).await {
            Ok(entry) => {
                let read = read(&entry.body).await.expect("sound");
                assert!(read == content(stored[&id], size), "{id}");
                sound.push(id);
            }
            Err(SpoolError::Damaged { .. }) => bounced.push(id),
            Err(error) => panic!("{error}"),
        }
        remove(&spool, id).await.expect("removed");
    }
    // The database takes new mail again.
    let new = put(&spool, "new@example.org", &content(1, size)).await;
    spool.flush().await.expect("moved");
    spool.remove(new.claim).await.expect("removed");
    spool.flush().await.expect("moved");
    assert!(ids(&spool).await.is_empty());
    spool.close().await.expect("closed");
    (sound, bounced)
}

/// Overwrites the leaves of the envelopes that have this message.
fn destroy_envelope(folder: &Path, seed: u64) {
    let root = root_of(folder, "message");
    for page in pages_with(folder, &sender(seed)) {
        if page != root {
            destroy(folder, page);
        }
    }
}

/// A damage, and whether all messages are readable afterwards.
type Case = (&'static str, fn(&Path), bool);

const CASES: [Case; 7] = [
    (
        "a leaf of the envelopes",
        |folder| destroy_envelope(folder, 77),
        false,
    ),
    (
        "the last page of the envelopes",
        |folder| destroy_envelope(folder, 239),
        false,
    ),
    (
        "the inner page of the envelopes",
        |folder| destroy(folder, root_of(folder, "message")),
        true,
    ),
    (
        "the inner page of the contents",
        |folder| destroy(folder, root_of(folder, "body")),
        true,
    ),
    (
        "a leaf of the contents",
        |folder| destroy(folder, pages_with(folder, "Subject: 9 and")[0]),
        false,
    ),
    ("the first page", |folder| destroy(folder, 0), true),
    (
        "the list of free pages",
        |folder| {
            let head = fs::read(folder.join("queue.db")).expect("ours");
            let trunk = u32::from_be_bytes(head[32..36].try_into().expect("four"));
            assert!(trunk > 0, "there are free pages");
            destroy(folder, trunk as usize - 1);
        },
        true,
    ),
];

#[tokio::test]
async fn each_bad_page_is_named_and_all_that_can_be_read_goes_on() {
    let sound = tempfile::tempdir().expect("a folder");
    let mut stored = numbered(fill(sound.path(), 240, 1000).await);
    // Pages that are free have rows that must not come back.
    let spool = open(sound.path());
    let removed: Vec<_> = stored
        .iter()
        .filter(|(_, seed)| (100..180).contains(*seed))
        .collect();
    let removed: Vec<_> = removed.into_iter().map(|(id, _)| *id).collect();
    for id in removed {
        remove(&spool, id).await.expect("removed");
        stored.remove(&id);
    }
    spool.close().await.expect("closed");
    assert!(
        check_spool(sound.path())
            .expect("readable")
            .findings
            .is_empty()
    );
    for (name, damage, is_complete) in CASES {
        let folder = killed(sound.path());
        damage(folder.path());
        let checked = check_spool(folder.path()).expect(name);
        assert!(checked.needs_repair(), "{name}: {checked:?}");
        let damaged = fs::read(folder.path().join("queue.db")).expect("ours");
        let done = repaired(folder.path());
        let kept = done.kept.expect("a new database");
        assert!(
            fs::read(kept).expect("kept") == damaged,
            "{name}: the old one is kept"
        );
        assert!(!folder.path().join("repair").exists(), "{name}");
        let remaining = check_spool(folder.path()).expect(name).findings;
        assert_eq!(remaining, done.remaining.findings, "{name}");
        let is_bounce = |finding: &SpoolFinding| finding.remedy == SpoolRemedy::Bounce;
        assert!(remaining.iter().all(is_bounce), "{name}");
        let (sound, bounced) = delivered(folder.path(), &stored, 1000).await;
        assert_eq!(bounced.len(), remaining.len(), "{name}");
        if is_complete {
            assert_eq!((sound.len(), bounced.len()), (stored.len(), 0), "{name}");
            continue;
        }
        assert!(
            sound.len() > stored.len() * 3 / 4,
            "{name}: {}",
            sound.len()
        );
        assert!(sound.len() < stored.len(), "{name}: {}", sound.len());
        // What is neither delivered nor bounced is set aside and named.
        let aside = names(&folder.path().join("aside"));
        for id in stored
            .keys()
            .filter(|id| !sound.contains(id) && !bounced.contains(id))
        {
            assert!(aside.contains(&format!("{id}.eml")), "{name}: {id}");
            let is_named = done
                .lost
                .iter()
                .any(|line| line.starts_with(&id.to_string()));
            assert!(is_named, "{name}: {id}: {:?}", done.lost);
        }
    }
}

/// Their envelopes were on the page that is lost, and nothing else names them.
#[tokio::test]
async fn body_files_without_a_message_are_set_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 3, LARGE).await;
    destroy(folder.path(), root_of(folder.path(), "message"));
    let done = repaired(folder.path());
    let aside = names(&folder.path().join("aside"));
    for (seed, id) in (0..).zip(&stored) {
        let eml = format!("{id}.eml");
        assert!(aside.contains(&eml), "{aside:?}");
        let kept = fs::read(folder.path().join("aside").join(eml)).expect("kept");
        assert!(kept == content(seed, LARGE));
        let lost = format!("{id}: its envelope cannot be read");
        assert!(done.lost.contains(&lost), "{:?}", done.lost);
    }
    assert!(ids(&open(folder.path())).await.is_empty());
}

/// A database of version 1 has neither a table of states nor maps of its pages.
#[tokio::test]
async fn a_database_of_version_1_is_repaired() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/stores/spool");
    let folder = killed(&sample);
    destroy(folder.path(), 0);
    let done = repaired(folder.path());
    assert!(done.kept.is_some());
    assert_eq!(
        (done.remaining.findings, done.remaining.messages),
        (vec![], 3)
    );
    assert_eq!(ids(&open(folder.path())).await.len(), 3);
}

/// A spool with a message to many recipients, each of which has a state, and its envelope.
async fn with_states() -> (tempfile::TempDir, Envelope) {
    let sound = tempfile::tempdir().expect("a folder");
    let spool = open(sound.path());
    let stored = put_many(&spool).await;
    let mut expected = stored.envelope.clone();
    for (number, recipient) in expected.recipients.iter_mut().enumerate() {
        recipient.state = deferred(&format!("state {number} of a recipient"));
    }
    settle(&spool, stored.id, &stored.envelope, &expected)
        .await
        .expect("settled");
    spool.close().await.expect("closed");
    (sound, expected)
}

/// One row of a leaf is damaged. Those on either side of it are read from either end.
#[tokio::test]
async fn states_of_recipients_around_a_damaged_one_are_kept() {
    let (folder, expected) = with_states().await;
    let leaf = pages_with(folder.path(), "state 500 of a recipient")[0];
    let file = folder.path().join("queue.db");
    let mut octets = std::fs::read(&file).expect("ours");
    let page = &mut octets[leaf * 4096..][..4096];
    let short = |page: &[u8], at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    let rows = short(page, 3);
    assert!(
        page[0] == 10 && rows > 4,
        "a leaf of a table without row numbers"
    );
    let row = short(page, 8 + 2 * (rows / 2));
    // A length that no page has.
    page[row..row + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
    std::fs::write(&file, octets).expect("ours");
    let done = repaired(folder.path());
    assert_eq!(done.remaining.findings, []);
    let listed = super::everything(&open(folder.path())).await;
    let pairs = listed[0]
        .envelope
        .recipients
        .iter()
        .zip(&expected.recipients);
    let lost = pairs.filter(|(found, expected)| found != expected).count();
    assert_eq!(lost, 1);
}

/// The states of a message to many recipients are rows of a table without row numbers, whose inner
/// pages have rows, too.
#[tokio::test]
async fn states_of_recipients_on_other_pages_than_the_bad_one_are_kept() {
    let (sound, expected) = with_states().await;
    let root = root_of(sound.path(), "recipient");
    let leaf = pages_with(sound.path(), "state 500 of a recipient")[0];
    assert_ne!(root, leaf);
    for page in [root, leaf] {
        let folder = killed(sound.path());
        destroy(folder.path(), page);
        let checked = check_spool(folder.path()).expect("readable");
        assert!(checked.needs_repair(), "{page}: {checked:?}");
        let done = repaired(folder.path());
        assert_eq!(done.remaining.findings, [], "{page}");
        let listed = super::everything(&open(folder.path())).await;
        assert_eq!(listed.len(), 1, "{page}");
        let found = &listed[0].envelope;
        let pairs = found.recipients.iter().zip(&expected.recipients);
        let kept = pairs.filter(|(found, expected)| found == expected).count();
        let all = expected.recipients.len();
        assert!(kept < all && kept > all * 9 / 10, "{page}: {kept}");
    }
}

/// Six messages in a log with small segments, two in each.
async fn in_the_log() -> (tempfile::TempDir, Stored) {
    let live = tempfile::tempdir().expect("a folder");
    let options = Options {
        segment_size: Some(256 << 10),
        move_after: Some(Duration::from_hours(1)),
        ..Options::default()
    };
    let spool = SqliteSpool::open_with(live.path(), &options).expect("a spool");
    // Nothing can move to the database.
    let other = rusqlite::Connection::open(live.path().join("queue.db")).expect("ours");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let mut stored = Stored::new();
    for seed in 0..6 {
        let id = put(&spool, &sender(seed), &content(seed, 120_000)).await.id;
        stored.insert(id, seed);
    }
    let folder = killed(live.path());
    drop(other);
    assert_eq!(check_spool(folder.path()).expect("readable").segments, 3);
    (folder, stored)
}

#[tokio::test]
async fn a_damaged_log_is_named_and_the_rest_of_it_goes_on() {
    // A name, the damage, what the check says of it, and the number of sound messages.
    type DamageCase = (&'static str, fn(&File), &'static str, usize);
    let cases: [DamageCase; 3] = [
        (
            "a damaged header",
            |file| file.write_all_at(b"x", 2).expect("ours"),
            "its header is damaged",
            4,
        ),
        (
            "a truncated segment",
            |file| file.set_len(150_000).expect("ours"),
            "are damaged",
            5,
        ),
        (
            "a damaged record",
            |file| file.write_all_at(&[0; 60], 4100).expect("ours"),
            "are damaged",
            5,
        ),
    ];
    for (name, damage, cause, sound) in cases {
        let (folder, stored) = in_the_log().await;
        let segment = folder.path().join("log/0000000000000002.seg");
        damage(&File::options().write(true).open(segment).expect(name));
        let checked = check_spool(folder.path()).expect(name);
        assert!(!checked.needs_repair(), "{name}: {checked:?}");
        let finding = checked.findings.first().expect(name);
        assert_eq!(finding.place, "log/0000000000000002.seg", "{name}");
        assert!(finding.cause.contains(cause), "{name}: {finding:?}");
        assert_eq!(checked.messages, sound as u64, "{name}");
        let done = repaired(folder.path());
        assert_eq!(done.kept, None, "{name}");
        assert!(
            done.lost[0].starts_with("log/0000000000000002.seg: "),
            "{name}"
        );
        assert_eq!(done.remaining.findings, [], "{name}");
        assert_eq!(done.remaining.messages, sound as u64, "{name}");
        let (delivered, bounced) = delivered(folder.path(), &stored, 120_000).await;
        assert_eq!((delivered.len(), bounced.len()), (sound, 0), "{name}");
    }
}

/// A batch that a kill cut short is no damage: nobody got a receipt for it.
#[tokio::test]
async fn the_torn_end_of_the_log_is_no_damage() {
    let (folder, _) = in_the_log().await;
    let segment = folder.path().join("log/0000000000000003.seg");
    let file = File::options().write(true).open(segment);
    file.and_then(|file| file.write_all_at(&[0; 8], 130_000))
        .expect("ours");
    let checked = check_spool(folder.path()).expect("readable");
    assert_eq!((checked.findings, checked.messages), (vec![], 5));
    assert!(checked.torn > 0);
}

#[tokio::test]
async fn the_commands_say_what_they_found_and_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 3, 60_000).await;
    let sound = gatepost(&["check"], folder.path());
    assert!(sound.status.success(), "{}", err(&sound));
    assert!(
        out(&sound).starts_with("the spool is sound; 3 messages ("),
        "{}",
        out(&sound)
    );
    let nothing = gatepost(&["repair"], folder.path());
    assert!(nothing.status.success(), "{}", err(&nothing));
    assert!(
        out(&nothing).starts_with("nothing to repair\n"),
        "{}",
        out(&nothing)
    );

    let pages = pages_with(folder.path(), "Subject: 1 and");
    destroy(folder.path(), pages[pages.len() / 2]);
    let before = files(folder.path());
    let checked = gatepost(&["check"], folder.path());
    assert_eq!(checked.status.code(), Some(1));
    let shown = out(&checked);
    let lines = |place: &str| shown.lines().filter(|line| line.starts_with(place)).count();
    assert!(lines("queue.db: ") > 0, "{shown}");
    assert_eq!(lines(&format!("{}: ", stored[1])), 1, "{shown}");
    // A start would set the message aside, and a repair may read it.
    let remedy = "; stop gatepost and run gatepost spool repair before it starts again";
    let mut damage = shown.lines().filter(|line| line.contains(": "));
    assert!(
        damage.all(|line| line.ends_with(remedy) || line.contains("NOT SOUND")),
        "{shown}"
    );
    assert!(shown.contains("the spool is NOT SOUND: "), "{shown}");
    let planned = gatepost(&["repair", "--dry-run"], folder.path());
    assert_eq!(planned.status.code(), Some(1));
    assert!(
        out(&planned).contains("would read all pages"),
        "{}",
        out(&planned)
    );
    assert!(files(folder.path()) == before, "nothing changes");

    let repaired = gatepost(&["repair", "--json"], folder.path());
    assert_eq!(repaired.status.code(), Some(1), "{}", err(&repaired));
    let document: serde_json::Value = serde_json::from_str(&out(&repaired)).expect("JSON");
    let remaining = &document["remaining"];
    assert_eq!(
        remaining["findings"][0]["place"],
        stored[1].to_string(),
        "{document}"
    );
    assert_eq!(remaining["messages"], 2, "{document}");
    assert!(
        document["kept"]
            .as_str()
            .is_some_and(|kept| kept.contains("/aside/queue-"))
    );
    let checked = gatepost(&["check", "--json"], folder.path());
    let document: serde_json::Value = serde_json::from_str(&out(&checked)).expect("JSON");
    assert_eq!(
        (&document["sound"], &document["messages"]),
        (&false.into(), &2.into())
    );
}

/// Beside a running relay, a check is possible and a repair is not.
#[tokio::test]
async fn the_commands_say_that_a_relay_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path());
    put(&spool, "a@example.org", b"x").await;
    let checked = gatepost(&["check"], folder.path());
    assert!(
        out(&checked).contains("gatepost runs on it"),
        "{}",
        out(&checked)
    );
    let refused = gatepost(&["repair"], folder.path());
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        err(&refused).contains("systemctl stop gatepost.socket gatepost"),
        "{}",
        err(&refused)
    );
    let none = tempfile::tempdir().expect("a folder");
    assert_eq!(gatepost(&["check"], none.path()).status.code(), Some(2));
}

/// A message with an envelope that does not fit its checksum leaves the queue, and the others stay.
#[tokio::test]
async fn a_damaged_envelope_is_set_aside_without_a_new_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = fill(folder.path(), 3, 100).await;
    let database = rusqlite::Connection::open(folder.path().join("queue.db")).expect("ours");
    let sql = "UPDATE message SET size = 7 WHERE id = ?1";
    let changed = database.execute(sql, [stored[1].number().cast_signed()]);
    assert_eq!(changed, Ok(1));
    drop(database);
    let checked = check_spool(folder.path()).expect("readable");
    let found: Vec<_> = checked
        .findings
        .iter()
        .map(|one| (&*one.place, one.remedy))
        .collect();
    assert_eq!(found, [(&*stored[1].to_string(), SpoolRemedy::SetAside)]);
    let done = repaired(folder.path());
    assert_eq!((done.kept, done.remaining.findings), (None, vec![]));
    assert_eq!(ids(&open(folder.path())).await, [stored[0], stored[2]]);
    let aside = names(&folder.path().join("aside"));
    assert!(aside.contains(&format!("{}.eml", stored[1])), "{aside:?}");
}
