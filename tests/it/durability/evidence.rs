//! Delivered is recorded: what became of a recipient is on record, durably, before the queue
//! forgets it.
//!
//! First in the trace of an undisturbed exchange: the record written, the record synced, and only
//! then the spool's log, in which the recipient is not waiting any more. When that is so is read
//! from the files as they were after each write. Then with each call on the files of the
//! evidence failed, or made the relay's last: what the queue has forgotten in that moment is on
//! record, and in the end everything that has arrived. A message may arrive twice, where the relay
//! could not record any more that it had arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use gatepost::storage::spool::read_queue;

use super::disk::{Disk, Image, events};
use super::faults::{
    self, Before, Case, Kind, Ran, Struck, afterwards, all, make_used, settle, under,
};
use super::home::{FIRST_SEGMENT, Home};
use super::order::traced;
use super::servers::ClosedPort;
use super::strace::{self, CHANGES, Call};
use super::{ARRIVES, owed, script};
use crate::support::client::{Verdict, send_all};
use crate::support::message::Message;
use crate::support::relay::Relay;
use crate::support::sink::Sink;
use crate::support::{place, within};

/// The relay says so where it ends without a record, or before the queue knows.
const REPEATED: &str = "may be repeated after the restart";

#[test]
#[ignore = "needs strace: .ci/durability"]
fn each_delivery_is_on_record_before_the_queue_forgets_it() {
    let folder = place();
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let spool = folder.path().join("spool");
    let home = Home {
        folder: folder.path().to_owned(),
        spool,
        sink: sink.address,
        down: closed.address,
    };
    let trace = folder.path().join("trace");
    // A disk that is slow for the evidence alone: whoever does not wait for it is far ahead.
    let slow = ["-e", "inject=fdatasync:delay_enter=20000"];
    let (messages, verdicts) = (script(), traced(&home, &sink, closed, &trace, &slow));
    let calls = strace::read(&trace);
    let forgotten = forgotten(&calls, &home).unwrap_or_else(|fault| panic!("{fault}"));
    for (message, verdict) in messages.iter().zip(&verdicts) {
        let Verdict::Accepted(id) = verdict else {
            panic!("{}: {verdict:?}", message.name)
        };
        for to in &message.recipients {
            let forgot = forgotten
                .get(to)
                .unwrap_or_else(|| panic!("{to} is in the queue for ever"));
            println!("{id} {to}: {}", proof(&calls, &home, (id, to), forgot));
        }
    }
}

/// Shows that a delivery was on record before the queue forgot it, by the lines of the trace.
fn proof(calls: &[Call], home: &Home, (id, to): (&str, &str), forgot: &Call) -> String {
    let evidence = home.evidence();
    let is_page = |file: &Path| {
        file.parent() == Some(&evidence) && file.extension().is_some_and(|end| end == "jsonl")
    };
    let on_page = |call: &Call| call.target().is_some_and(|file| is_page(Path::new(&file)));
    let mut pages = calls
        .iter()
        .filter(|call| on_page(call) && call.result.is_some());
    let record = pages
        .clone()
        .find(|call| call.is_write() && tells(call, id, to));
    let record = record.unwrap_or_else(|| panic!("{to}: its delivery is not on record"));
    let synced = pages.find(|call| call.is_sync() && call.began > record.ended);
    let synced = synced.unwrap_or_else(|| {
        panic!(
            "{to}: its record in line {} is never synced",
            record.ended + 1
        )
    });
    assert!(
        synced.ended < forgot.began,
        "{to}: its record is written in line {} and synced in {}, and the queue has forgotten it in {} already",
        record.ended + 1,
        synced.ended + 1,
        forgot.began + 1,
    );
    let log = home.spool.join(FIRST_SEGMENT).display().to_string();
    let mut later = calls
        .iter()
        .filter(|call| call.is_sync() && call.began > forgot.ended && call.result.is_some());
    let last = later
        .find(|call| call.target().as_ref() == Some(&log))
        .map_or(0, |call| call.ended + 1);
    let lines = [record.ended, synced.ended, forgot.ended].map(|line| line + 1);
    let [written, synced, forgot] = lines;
    format!(
        "record written in line {written} of the trace, synced in {synced}, the queue's log written in {forgot}, synced in {last}"
    )
}

/// Returns true if a write has the record of this delivery in it.
fn tells(call: &Call, id: &str, to: &str) -> bool {
    let data = call.data();
    let records = data
        .split(|octet| *octet == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok());
    let mut records = records.map(|record: serde_json::Value| {
        ["queue_id", "to", "outcome"].map(|name| {
            record
                .get(name)
                .and_then(|value| value.as_str())
                .map(str::to_owned)
        })
    });
    let wanted = [id, to, "delivered"];
    records.any(|record| record.iter().map(Option::as_deref).eq(wanted.map(Some)))
}

/// For each recipient the write after which the queue does not have him waiting any more.
fn forgotten<'a>(calls: &'a [Call], home: &Home) -> Result<BTreeMap<String, &'a Call>, String> {
    let log = home.spool.join(FIRST_SEGMENT).display().to_string();
    let (mut disk, mut before, mut forgotten) = (Disk::default(), BTreeSet::new(), BTreeMap::new());
    for event in events(calls, &home.folder) {
        disk.happen(&event);
        if !event.ends || !event.call.is_write() || event.call.target().as_ref() != Some(&log) {
            continue;
        }
        let now = waiting(&home.spool, &disk.now())?;
        for to in before.difference(&now) {
            forgotten.entry(String::clone(to)).or_insert(event.call);
        }
        before = now;
    }
    Ok(forgotten)
}

/// The recipients that wait in a queue, by the files of its folder. They are copied: who opens a
/// database that was left in a hurry clears up, and that is the relay's to do.
fn waiting(spool: &Path, files: &Image) -> Result<BTreeSet<String>, String> {
    let folder = place();
    fs::create_dir(folder.path().join("log")).map_err(|error| error.to_string())?;
    for (file, octets) in files {
        let Ok(name) = file.strip_prefix(spool) else {
            continue;
        };
        let parts = name.components().count();
        if parts == 1 || name.starts_with("log") {
            fs::write(folder.path().join(name), octets).map_err(|error| error.to_string())?;
        }
    }
    let queue = read_queue(folder.path()).map_err(|error| error.to_string())?;
    let recipients = queue.iter().flat_map(|stored| &stored.envelope.recipients);
    let open = recipients.filter(|recipient| recipient.state.is_open());
    Ok(open
        .map(|recipient| recipient.mailbox.to_string())
        .collect())
}

/// The process before may have been killed between write and sync, and that of the next record is
/// on another file where the day has turned.
#[test]
#[ignore = "needs strace: .ci/durability"]
fn a_start_syncs_the_record_that_it_goes_on_from() {
    let shared = place();
    let used = shared.path().join("used");
    make_used(&used);
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let kind = &kinds()[0];
    let folder = shared.path().join("home");
    let home = fs::create_dir(&folder)
        .and_then(|()| settle(kind, &used, &folder, &sink, &closed))
        .expect("ours");
    let written = fs::read_dir(home.evidence())
        .expect("a folder")
        .flatten()
        .next()
        .expect("a page")
        .path();
    let before = written.with_file_name("2026-01-01.jsonl");
    fs::rename(&written, &before).expect("it is ours");
    let case = Case {
        kind: Kind {
            files: vec!["evidence/2026-01-01.jsonl".to_owned()],
            ..kind.clone()
        },
        faults: vec![],
    };
    let struck = case
        .strike(&home, &sink)
        .unwrap_or_else(|fault| panic!("{fault}"));
    home.expect_chain()
        .unwrap_or_else(|fault| panic!("{fault}"));
    assert!(
        written.exists(),
        "the chain goes on in another file: {}",
        struck.log
    );
    let calls = strace::read(&home.folder.join("trace"));
    let synced = calls
        .iter()
        .any(|call| call.is_sync() && call.result.is_some());
    assert!(synced, "{} is never synced", before.display());
}

/// The end has one try, and the next process reads from the system's memory what is not on the
/// disk.
#[test]
#[ignore = "needs strace: .ci/durability"]
fn what_could_not_be_synced_at_the_end_is_not_left_for_the_next_start() {
    let shared = place();
    let used = shared.path().join("used");
    make_used(&used);
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let folder = shared.path().join("home");
    let kind = &kinds()[0];
    let home = fs::create_dir(&folder)
        .and_then(|()| settle(kind, &used, &folder, &sink, &closed))
        .expect("ours");
    // It connects, and nobody greets.
    let silent = closed.open();
    let struck = under(&home, kind, &["fdatasync:error=EIO:when=1+".to_owned()]);
    let mut relay =
        Relay::start(&home, "struck.example", &struck).unwrap_or_else(|end| panic!("{}", end.log));
    let message = Message::new("late", &["down.example"], 500);
    let verdicts = send_all(relay.address, std::slice::from_ref(&message));
    assert!(
        matches!(verdicts[..], [Verdict::Accepted(_)]),
        "{verdicts:?}"
    );
    let port = silent.local_addr().expect("it is bound").port();
    assert!(within(ARRIVES, || is_called(port)), "nothing was begun");
    relay.signal("TERM");
    relay.hears("waiting for running deliveries");
    sink.serve(silent);
    relay.hears(REPEATED);
    relay
        .ends_by_itself()
        .check()
        .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(home.recorded(), Ok(BTreeMap::new()));
    let relay =
        Relay::start(&home, "afterwards.example", &[]).unwrap_or_else(|end| panic!("{}", end.log));
    home.expect_clean(relay)
        .unwrap_or_else(|fault| panic!("{fault}"));
    home.expect_recorded(&message.recipients, &sink.times())
        .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(
        sink.times().into_values().collect::<Vec<_>>(),
        [2],
        "once more, for the first is not on record"
    );
}

/// Returns true if somebody on this machine is connected to this port.
fn is_called(port: u16) -> bool {
    let sockets = fs::read_to_string("/proc/net/tcp").expect("Linux tells its sockets");
    sockets.lines().any(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        // The other end's address, and 01 for a connection that stands.
        columns
            .get(2)
            .is_some_and(|far| far.ends_with(&format!(":{port:04X}")))
            && columns.get(3) == Some(&"01")
    })
}

#[test]
#[ignore = "needs strace: .ci/durability"]
fn every_call_on_the_evidence_may_fail_or_be_the_last() {
    let shared = place();
    let used = shared.path().join("used");
    make_used(&used);
    all(&kinds(), &used, faults, |case| run(&case, &used));
}

fn kinds() -> Vec<Kind> {
    let today = jiff::Timestamp::now()
        .to_zoned_datetime(jiff::tz::TimeZone::UTC)
        .date();
    let days = [
        today,
        today.tomorrow().expect("no test runs in the year 9999"),
    ];
    let pages: Vec<_> = days
        .iter()
        .map(|day| format!("evidence/{day}.jsonl"))
        .collect();
    let others: Vec<_> = ["", "evidence", "evidence/lock", "evidence/reserve"]
        .map(str::to_owned)
        .into();
    let kind = |name, files: &[&[String]], before| {
        let calls = format!("{CHANGES},openat,mkdir,copy_file_range,sendfile");
        Kind {
            name,
            files: files.concat(),
            calls,
            before,
        }
    };
    vec![
        kind(EVIDENCE, &[&pages, &others[3..]], Before::Used),
        kind("new evidence", &[&pages], Before::Nothing),
        kind("torn evidence", &[&pages], Before::Torn),
        kind("folder of the evidence", &[&others[1..]], Before::Used),
        kind("new folder of the evidence", &[&others], Before::Nothing),
    ]
}

/// The file that is appended to, and the reserve that is given up for it.
const EVIDENCE: &str = "evidence";

/// The failures of the `number`th call, and further ones while the relay deals with the first
/// failure.
fn faults(kind: &Kind, call: &str, number: usize) -> Vec<Vec<String>> {
    let mut faults = faults::faults(kind, call, number);
    let mut both = |first: &str, then: &str| {
        faults.push(vec![
            format!("{call}:error={first}:when={number}"),
            then.to_owned(),
        ]);
    };
    if matches!(call, "write" | "fdatasync") {
        both("EIO", "ftruncate:signal=SIGKILL");
        both("EIO", "ftruncate:error=EIO:when=1");
    }
    if call == "write" && kind.name == EVIDENCE {
        both("ENOSPC", "unlink:signal=SIGKILL");
        both("ENOSPC", "unlink:error=EIO");
    }
    faults
}

/// Returns true if no record could be written, from the first one on.
fn is_stuck(case: &Case) -> bool {
    let none = |call: &str| {
        case.faults
            .iter()
            .any(|fault| fault.starts_with(call) && fault.ends_with(":when=1+"))
    };
    case.kind.name == EVIDENCE && (none("write:error") || none("fdatasync:error"))
}

fn run(case: &Case, used: &Path) -> Result<Ran, String> {
    let folder = place();
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let home = settle(&case.kind, used, folder.path(), &sink, &closed)
        .map_err(|error| error.to_string())?;
    let struck = case.strike(&home, &sink)?;
    look(case, &home, &sink, &struck)?;
    let ran = afterwards(&home, &sink, closed, &struck)?;
    for (to, relays) in sink.tally()? {
        let lives: BTreeSet<_> = relays.iter().collect();
        if lives.len() < relays.len() {
            return Err(format!(
                "{to} had one message twice from one start: {relays:?}"
            ));
        }
    }
    if ran.copies > 0 && !struck.killed && !struck.log.contains(REPEATED) {
        return Err(format!(
            "{} copies too many, and nobody said why; the relay said:\n{}",
            ran.copies, struck.log
        ));
    }
    Ok(ran)
}

/// The moment after: what the queue has forgotten is on record.
fn look(case: &Case, home: &Home, sink: &Sink, struck: &Struck) -> Result<(), String> {
    if !home.spool.join("queue.db").exists() {
        return Ok(());
    }
    let mut files = Image::new();
    for folder in [home.spool.clone(), home.spool.join("log")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_file() && !path.ends_with("queue.db-shm") && !path.ends_with("reserve") {
                let octets = fs::read(&path).map_err(|error| error.to_string())?;
                files.insert(path, octets);
            }
        }
    }
    let waiting = waiting(&home.spool, &files)?;
    let recorded = if home.evidence().exists() {
        home.recorded()?
    } else {
        BTreeMap::new()
    };
    let messages = script();
    let mut known: BTreeSet<_> = owed(&messages, &struck.verdicts)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let gone: Vec<_> = known.iter().filter(|to| !waiting.contains(*to)).collect();
    if is_stuck(case) && known.is_empty() {
        return Err(format!(
            "nothing was accepted, so this proves nothing; the relay said:\n{}",
            struck.log
        ));
    }
    if is_stuck(case) && !gone.is_empty() {
        return Err(format!(
            "nothing could be put on record, and the queue has forgotten {gone:?}"
        ));
    }
    if is_stuck(case) && !recorded.is_empty() {
        return Err(format!(
            "left for the next start, though never synced: {recorded:?}"
        ));
    }
    known.extend(sink.times().into_keys());
    let lost: Vec<_> = known
        .iter()
        .filter(|to| !waiting.contains(*to) && !recorded.contains_key(*to))
        .collect();
    if !lost.is_empty() {
        return Err(format!(
            "neither in the queue nor on record: {lost:?}; the relay said:\n{}",
            struck.log
        ));
    }
    Ok(())
}
