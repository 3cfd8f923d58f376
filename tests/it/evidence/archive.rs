//! `gatepost evidence archive`: closed days move to another folder, and nothing is lost at any
//! moment of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gatepost::storage::evidence::{
    ArchiveError, ArchivedDays, ChainStart, Evidence, EvidenceSource, Period, RecordHash,
    copy_closed_days, deliveries, remove_archived_days, verify,
};

use super::compressed::three_days;
use super::daemon::{PATIENCE, err, out, queued, to};
use super::folder::until;
use super::world::{
    KEEP, compress, evidence_folder, files, folder, lines, name, put, write, write_large_day,
};
use crate::support::client::{Client, Verdict};
use crate::support::config::ConfigBuilder;
use crate::support::message::Message;
use crate::support::relay::{Relay, program};
use crate::support::sink::Sink;
use crate::support::within;

pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name != "lock" && name != "reserve")
        .collect();
    names.sort();
    names
}

/// Copies the closed days of a folder to `archive` in it.
fn copied(folder: &Path) -> ArchivedDays {
    copy_closed_days(folder, &folder.join("archive"), false)
        .expect("copied")
        .expect("two days are over")
}

/// Asserts that the archive and the folder together have all that was written, and that the folder
/// alone proves what it has.
fn is_complete(folder: &Path) {
    let archives = [folder.join("archive")];
    let source = EvidenceSource {
        folder,
        archives: &archives,
        chain: None,
    };
    let mut count = 0;
    let read = deliveries(source, Period::ALL, |_, _, _| count += 1).expect("readable");
    assert_eq!((read.bad, count, read.chain.findings), (0, 6, vec![]));
    assert_eq!(read.chain.beginning, ChainStart::First);
    assert_eq!(verify(folder, &[]).expect("readable").findings, []);
}

/// Asserts that archive and folder are one chain of so many records, and that the folder alone proves
/// what it has.
pub(super) fn is_whole(folder: &Path, records: u64, before: u64) {
    let archives = [folder.join("archive")];
    let source = EvidenceSource {
        folder,
        archives: &archives,
        chain: None,
    };
    let all = verify(source, &[]).expect("readable");
    assert_eq!(
        (all.findings, all.records, all.beginning),
        (vec![], records, ChainStart::First)
    );
    let rest = verify(folder, &[]).expect("readable");
    assert_eq!(
        (rest.findings, rest.beginning),
        (vec![], ChainStart::Archived { archived: before })
    );
}

async fn restart(folder: &Path) {
    Evidence::open(folder, KEEP).expect("ours").close().await;
}

#[tokio::test]
async fn archived_days_are_removed_and_the_rest_says_what_it_continues() {
    let folder = three_days().await;
    let path = folder.path();
    compress(&path.join(name(9)));
    let archived = copied(path);
    assert_eq!((archived.days, archived.last_seq), (2, 5));
    remove_archived_days(path, &archived).expect("removed");
    let archive = path.join("archive");
    let compressed = [9, 5].map(|days_ago| format!("{}.gz", name(days_ago)));
    assert_eq!(names(&archive), compressed);
    let marker = marker(path, &archived);
    let marker = marker.file_name().expect("a name").to_string_lossy();
    assert_eq!(
        names(path),
        [name(0), "archive".to_owned(), marker.into_owned()]
    );
    is_complete(path);
    restart(path).await;
    assert_eq!(names(path), [name(0), "archive".to_owned()]);
    is_complete(path);
    let records = lines(&path.join(name(0)));
    let last = records.last().expect("a record");
    let canonical = fs::canonicalize(&archive).expect("it exists");
    for words in [
        "\"kind\":\"dropped\",\"files\":1,\"last_seq\":5",
        &format!("\"archived_to\":\"{}\"", canonical.display()),
    ] {
        assert!(last.contains(words), "{words} is missing from {last}");
    }
    // The head of the archive is still proven, and that of any earlier record is not.
    let verified = verify(path, &[archived.last_hash]).expect("readable");
    assert_eq!(
        (verified.findings, verified.beginning),
        (vec![], ChainStart::Archived { archived: 5 })
    );
    assert_eq!(verified.dropped_head, Some(archived.last_hash));
    let other = RecordHash::parse(&"1".repeat(64)).expect("a hash");
    assert_eq!(verify(path, &[other]).expect("readable").findings.len(), 1);
}

/// A state that a kill leaves.
type Interruption = (&'static str, fn(&Path, &ArchivedDays));

const INTERRUPTIONS: [Interruption; 6] = [
    ("while a day is copied", |folder, _| {
        let archive = folder.join("archive");
        fs::remove_file(archive.join(format!("{}.gz", name(5)))).expect("ours");
        fs::write(archive.join(format!("{}.gz.new", name(5))), "half").expect("ours");
    }),
    ("after the copies", |_, _| {}),
    ("after the oldest day was renamed", |folder, archived| {
        fs::rename(folder.join(name(9)), marker(folder, archived)).expect("ours");
    }),
    ("after that file was emptied", |folder, archived| {
        fs::remove_file(folder.join(name(9))).expect("ours");
        fs::write(marker(folder, archived), "").expect("ours");
    }),
    ("after all days were removed", |folder, archived| {
        remove_archived_days(folder, archived).expect("removed");
    }),
    ("before the record was all of it", |folder, archived| {
        remove_archived_days(folder, archived).expect("removed");
        let page = folder.join(name(0));
        let mut content = fs::read(&page).expect("ours");
        content.extend(b"{\"seq\":8,");
        fs::write(page, content).expect("ours");
    }),
];

fn marker(folder: &Path, archived: &ArchivedDays) -> PathBuf {
    let ArchivedDays {
        until,
        last_seq,
        last_hash,
        ..
    } = archived;
    folder.join(format!("archived-{until}-{last_seq}-{last_hash}"))
}

#[tokio::test]
async fn a_kill_at_any_moment_loses_nothing_and_the_next_run_completes_it() {
    for (when, kill) in INTERRUPTIONS {
        let folder = three_days().await;
        let path = folder.path();
        let archived = copied(path);
        kill(path, &archived);
        restart(path).await;
        is_complete(path);
        if names(path).len() > 2 && files(path).len() > 1 {
            let again = copied(path);
            assert_eq!(again.last_seq, 5, "{when}");
            remove_archived_days(path, &again).expect("removed");
            restart(path).await;
        }
        let left: Vec<_> = names(path)
            .into_iter()
            .filter(|name| !name.starts_with("torn-"))
            .collect();
        assert_eq!(left, [name(0), "archive".to_owned()], "{when}");
        is_complete(path);
    }
}

type Refusal = (&'static str, fn(&Path) -> Result<(), ArchiveError>);

const REFUSALS: [Refusal; 4] = [
    ("is the evidence folder itself", |folder| {
        copy_closed_days(folder, folder, false).map(drop)
    }),
    ("is not a copy of", |folder| {
        let archive = folder.join("archive");
        fs::create_dir(&archive).expect("ours");
        let foreign = archive.join(name(5));
        fs::write(&foreign, "something else\n").expect("ours");
        compress(&foreign);
        copy_closed_days(folder, &archive, false).map(drop)
    }),
    ("--damaged archives them as they are", |folder| {
        let page = folder.join(name(5));
        let mut records = lines(&page);
        records[1] = records[1].replace("sender@", "render@");
        put(&page, &records);
        copy_closed_days(folder, &folder.join("archive"), false).map(drop)
    }),
    ("are not those that were archived", |folder| {
        let archived = ArchivedDays {
            last_seq: 4,
            ..copied(folder)
        };
        remove_archived_days(folder, &archived)
    }),
];

#[tokio::test]
async fn a_refused_archive_removes_nothing() {
    for (words, refused) in REFUSALS {
        let folder = three_days().await;
        let error = refused(folder.path()).expect_err(words).to_string();
        assert!(error.contains(words), "{words} is missing from {error}");
        let days = [9, 5, 0].map(name);
        assert_eq!(names(folder.path())[..3], days, "{words}");
    }
}

#[tokio::test]
async fn days_with_defects_are_archived_as_they_are_on_demand() {
    let folder = three_days().await;
    let path = folder.path();
    let day = compress(&path.join(name(5)));
    let octets = fs::read(&day).expect("ours");
    let cut = &octets[..octets.len() - 9];
    fs::write(&day, cut).expect("ours");
    let archive = path.join("archive");
    let damaged = copy_closed_days(path, &archive, false);
    assert!(
        matches!(damaged, Err(ArchiveError::Damaged(_))),
        "{damaged:?}"
    );
    let archived = copy_closed_days(path, &archive, true).expect("copied");
    remove_archived_days(path, &archived.expect("two days")).expect("removed");
    let copy = fs::read(archive.join(format!("{}.gz", name(5)))).expect("it is there");
    assert_eq!(copy, cut, "octet for octet");
    restart(path).await;
    assert_eq!(verify(path, &[]).expect("readable").findings, []);
}

/// After a day on which nothing could be written, no file is younger than those that are archived.
#[tokio::test]
async fn a_chain_continues_although_all_of_its_days_were_archived() {
    for (is_interrupted, has_empty_file) in [(false, false), (true, false), (true, true)] {
        let folder = three_days().await;
        let path = folder.path();
        fs::remove_file(path.join(name(0))).expect("ours");
        if has_empty_file {
            // As a full disk leaves it.
            fs::write(path.join(name(0)), "").expect("ours");
        }
        let archived = copied(path);
        assert_eq!((archived.days, archived.last_seq), (2, 5));
        if is_interrupted {
            remove_archived_days(path, &archived).expect("removed");
            assert_eq!(files(path).len(), usize::from(has_empty_file));
        } else {
            let evidence = Evidence::open(path, KEEP).expect("ours");
            evidence.remove_archived(archived).await.expect("removed");
            evidence.close().await;
        }
        write(path, 1).await;
        is_whole(path, 7, 5);
    }
}

#[tokio::test]
async fn only_the_daemon_removes_days_of_a_folder_that_it_uses() {
    let folder = three_days().await;
    let evidence = Evidence::open(folder.path(), KEEP).expect("ours");
    let archived = copied(folder.path());
    let refused = remove_archived_days(folder.path(), &archived);
    assert!(
        matches!(refused, Err(ArchiveError::InUse(_))),
        "{refused:?}"
    );
    evidence.remove_archived(archived).await.expect("removed");
    until(|| names(folder.path()) == [name(0), "archive".to_owned()]).await;
    evidence.close().await;
    is_complete(folder.path());
}

fn archive(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command
        .arg("evidence")
        .args(arguments)
        .arg("--config")
        .arg(file);
    command.output().expect("gatepost runs")
}

/// Writes a configuration with an admin socket and this limit of the evidence.
fn with_socket(folder: &Path, sink: &Sink, max_size: &str) -> PathBuf {
    let evidence = format!("path = \"evidence\"\nmax_size = \"{max_size}\"");
    ConfigBuilder::new()
        .listener("127.0.0.1:0")
        .table("spool", "path = \"spool\"")
        .table("admin", "socket = \"run/admin.sock\"\nhttp = \"\"")
        .table("evidence", &evidence)
        .table("relay", "networks = [\"127.0.0.0/8\"]")
        .table("queue", "retry = [\"1h\"]")
        .table("log", "format = \"text\"")
        .with(&to(sink))
        .write(folder)
}

/// A relay that has reached the limit of its evidence, with a message whose delivery waits for that.
pub(super) struct FullRelay {
    folder: PathBuf,
    config: PathBuf,
    relay: Relay,
    client: Client,
    // Delivered mail goes there.
    _sink: Sink,
}

impl FullRelay {
    /// Starts it in a folder. The evidence is of one day, so many days ago.
    pub(super) fn start(folder: &Path, days_ago: i64) -> Self {
        let evidence = evidence_folder(folder);
        let sink = Sink::start();
        let file = |max_size: &str| with_socket(folder, &sink, max_size);
        write_large_day(&evidence, 35, days_ago);
        let config = file("1GiB");
        let mut relay = Relay::run(&config, &[]).unwrap_or_else(|end| panic!("{}", end.log));
        let mut client = Client::connect(relay.address).expect("it listens");
        let late = Message::new("late", &["a.example"], 300);
        assert_eq!(client.begin(&late).expect("replies"), None);
        file("1MiB");
        relay.signal("HUP");
        relay.hears("evidence has reached [evidence] max_size; new mail is rejected");
        let verdict = client.complete(&late).expect("a reply");
        assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
        relay.hears("cannot write evidence, deliveries wait");
        let rejected = client.send(&Message::new("no", &["a.example"], 300));
        assert!(
            matches!(&rejected, Verdict::Refused(reply) if reply.starts_with("452 4.3.1 ")),
            "{rejected:?}"
        );
        Self {
            folder: folder.to_owned(),
            config,
            relay,
            client,
            _sink: sink,
        }
    }

    fn target(&self) -> String {
        self.folder.join("archive").display().to_string()
    }

    /// Asserts that no day is archived, and that the command gives this reason.
    pub(super) fn archives_nothing(&self, reason: &str) {
        let nothing = archive(&self.config, &["archive", &self.target()]);
        assert_eq!(nothing.status.code(), Some(1), "{}", out(&nothing));
        assert!(err(&nothing).contains(reason), "{}", err(&nothing));
    }

    /// Archives one day, after which everything goes on without a restart. Returns what the command
    /// printed.
    pub(super) fn goes_on_after(&mut self, options: &[&str]) -> String {
        let target = self.target();
        let arguments = [&["archive"], options, &[&*target]].concat();
        let archived = archive(&self.config, &arguments);
        assert_eq!(archived.status.code(), Some(0), "{}", err(&archived));
        let text = out(&archived);
        assert!(text.starts_with("archived 1 day ("), "{text}");
        let after = self
            .client
            .send(&Message::new("after", &["a.example"], 300));
        assert!(matches!(after, Verdict::Accepted(_)), "{after:?}");
        assert!(within(PATIENCE, || queued(&self.folder) == Some(0)));
        text
    }

    /// Stops the relay, and asserts that each command beside its archive prints these words.
    pub(super) fn ends_with(self, commands: &[(&[&str], &str)]) {
        let target = self.target();
        let end = self.relay.terminate();
        assert!(
            end.status.is_some_and(|status| status.success()),
            "{}",
            end.log
        );
        for (arguments, words) in commands {
            let output = archive(
                &self.config,
                &[*arguments, &["--archive", &target]].concat(),
            );
            let text = out(&output);
            assert!(
                output.status.success() && text.contains(words),
                "{arguments:?}: {text}{}",
                err(&output)
            );
        }
    }
}

/// The relay is at its limit, so it rejects mail and its deliveries wait. The command frees space,
/// and everything goes on without a restart.
#[test]
fn a_relay_that_is_full_of_evidence_goes_on_after_the_archive() {
    let folder = folder();
    let mut full = FullRelay::start(folder.path(), 1);
    let text = full.goes_on_after(&[]);
    assert!(text.contains(" of 1.0 MiB ("), "{text}");
    full.archives_nothing("no day that is over");
    let config = full.config.clone();
    full.ends_with(&[
        (&["verify"], "number 1 of"),
        (&["list"], "37 recipients"),
        (&["summary"], "37 recipients"),
    ]);
    let alone = archive(&config, &["verify"]);
    let text = out(&alone);
    assert!(
        alone.status.success() && text.contains("35 older records were archived"),
        "{text}{}",
        err(&alone)
    );
}
