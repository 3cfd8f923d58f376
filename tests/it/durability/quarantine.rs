//! The power goes while a repair sets damage aside: at every moment a disk has it, in its place or in
//! the quarantine.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, Recipient};
use gatepost::storage::spool::{Spool as _, SqliteSpool};
use memchr::memmem;

use super::disk::{Disk, events};
use super::strace::{self, CHANGES, TALK};
use crate::support::place;
use crate::support::relay::program;

/// The contents of a message with a body file, whose row is damaged, and of one in the log, whose record
/// is.
const MARKS: [(&str, usize); 2] = [
    ("the body that is set aside\r\n", 300_000),
    ("the record that is set aside\r\n", 50_000),
];

async fn put(spool: &SqliteSpool, (line, size): (&str, usize)) {
    let mut draft = spool.draft();
    let content: Vec<u8> = line.bytes().cycle().take(size).collect();
    draft.write(&content).await.expect("room");
    let sender = ReversePath::parse("a@example.org").expect("valid");
    let recipient = Recipient::new(Mailbox::parse("b@example.net").expect("valid"));
    let stored = spool.commit(draft, Envelope::new(sender, vec![recipient]));
    stored.await.expect("durable");
}

/// Makes a spool as a kill leaves it, and damages both messages.
fn make_damaged(live: &Path, spool: &Path) {
    let [in_file, in_log] = MARKS;
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let spool = SqliteSpool::open(live).expect("a spool");
        put(&spool, in_file).await;
        spool.close().await.expect("closed");
        let other = rusqlite::Connection::open(live.join("queue.db")).expect("a database");
        let again = SqliteSpool::open(live).expect("a spool");
        // Nothing can move to the database.
        other.execute_batch("BEGIN IMMEDIATE").expect("locked");
        put(&again, in_log).await;
        // After it, for the torn end of a log is no damage.
        put(&again, ("another one\r\n", 100)).await;
        let copied = Command::new("cp")
            .arg("-a")
            .arg(live)
            .arg(spool_path(live))
            .status();
        assert!(copied.is_ok_and(|copied| copied.success()));
        drop(other);
    });
    fs::rename(spool_path(live), spool).expect("ours");
    let database = rusqlite::Connection::open(spool.join("queue.db")).expect("a database");
    let sql = "SELECT rootpage - 1 FROM sqlite_schema WHERE name = 'message'";
    let root: u64 = database
        .query_row(sql, [], |row| row.get(0))
        .expect("a table");
    drop(database);
    overwrite(&spool.join("queue.db"), 4096 * root, &[0xff; 4096]);
    let segments = files(&spool.join("log"));
    let has_record = |file: &&PathBuf| has(&fs::read(file).expect("ours"), in_log.0);
    let segment = segments.iter().find(has_record).expect("a segment has it");
    overwrite(segment, 4100, &[0; 60]);
}

fn spool_path(live: &Path) -> PathBuf {
    live.with_extension("killed")
}

fn overwrite(file: &Path, at: u64, octets: &[u8]) {
    let file = File::options().write(true).open(file);
    let written = file.and_then(|file| file.write_all_at(octets, at));
    written.expect("ours");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

fn has(octets: &[u8], mark: &str) -> bool {
    memmem::find(octets, mark.as_bytes()).is_some()
}

#[test]
#[ignore = "needs strace: .ci/durability"]
fn damage_that_is_set_aside_is_not_lost_with_the_power() {
    let folder = place();
    let (live, spool) = (folder.path().join("live"), folder.path().join("spool"));
    make_damaged(&live, &spool);
    let mut disk = Disk::holding(&spool);
    let trace = folder.path().join("trace");
    let calls = format!("trace={CHANGES},{TALK}");
    let under = strace::command(&trace, &["-s", "1000000", "-e", &calls]);
    let mut command = Command::new(&under[0]);
    command.args(&under[1..]).arg(program());
    command.args(["spool", "repair", "--folder"]).arg(&spool);
    let done = command.output().expect("strace runs");
    let done = String::from_utf8_lossy(&done.stdout).into_owned();
    let aside = files(&spool.join("aside"));
    for (mark, _) in MARKS {
        let is_there = aside
            .iter()
            .any(|file| has(&fs::read(file).expect("ours"), mark));
        assert!(is_there, "{mark}: {aside:?}: {done}");
    }
    let calls = strace::read(&trace);
    let mut moments = 0;
    for event in events(&calls, &spool) {
        disk.happen(&event);
        if !event.ends || !event.call.is_sync() {
            continue;
        }
        moments += 1;
        let image = disk.image(None);
        for (mark, _) in MARKS {
            let is_there = image.values().any(|octets| has(octets, mark));
            assert!(
                is_there,
                "{mark}: lost at line {} of the trace",
                event.line + 1
            );
        }
    }
    assert!(moments > 10, "{moments}");
}
