//! Each write, sync, rename and unlink of the daemon on its spool fails, or is the last thing it does.
//!
//! strace counts calls for each thread apart, so the files of the spool are taken one kind at a time: a
//! kind has mostly one thread that works on it. How many calls there are is counted first, undisturbed.
//! A fault with the number N then strikes the Nth call of each thread, on files of that kind only.
//!
//! Body files are named after queue ids, and strace wants whole paths. Ids are never below the time of
//! the spool's last change, so a database that was changed in the future foretells them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gatepost::envelope::QueueId;

use crate::strace::{self, CHANGES};
use crate::support::client::send_all;
use crate::support::relay::{Home, Relay};
use crate::support::sink::{ClosedPort, Sink};
use crate::support::within;
use crate::{ARRIVES, owed, script, side_by_side};

/// The spool's last change, in seconds since 1970: in 2060, when no clock is yet.
const FUTURE: u64 = 2_840_140_800;
/// Queue ids count milliseconds since 2020, above 22 bits of counter.
const FIRST_ID: u64 = ((FUTURE - 1_577_836_800) * 1000 + 1) << 22;
/// How long a relay that was struck may take to deliver what it still can.
const STRUCK: Duration = Duration::from_secs(2);

/// Files of the spool that are struck together.
#[derive(Debug, Clone)]
struct Kind {
    name: &'static str,
    files: Vec<String>,
    /// From an empty folder: the first start is struck, too.
    cold: bool,
}

fn kinds() -> Vec<Kind> {
    let kind = |name, files: &[&str], cold| Kind { name, files: files.iter().map(ToString::to_string).collect(), cold };
    let body = |number: u64| {
        let id = QueueId::from_number(FIRST_ID + number).expect("an id");
        vec![format!("bodies/{id}.part"), format!("bodies/{id}")]
    };
    vec![
        kind("log", &["queue.db-wal"], false),
        kind("database", &["queue.db", "queue.db-journal"], false),
        // The second and the fourth message of the script have one.
        Kind { name: "first body", files: body(2), cold: false },
        Kind { name: "second body", files: body(4), cold: false },
        kind("folders", &["", "bodies", "aside"], false),
        kind("index, lock and reserve", &["queue.db-shm", "lock", "reserve"], false),
        kind("new log", &["queue.db-wal"], true),
        kind("new database", &["queue.db", "queue.db-journal"], true),
        kind("new folders", &["", "bodies", "aside", ".."], true),
        kind("new index, lock and reserve", &["queue.db-shm", "lock", "reserve"], true),
    ]
}

/// One run.
#[derive(Debug)]
struct Case {
    kind: Kind,
    call: String,
    fault: &'static str,
    number: usize,
}

/// What a run came to.
#[derive(Debug)]
struct Ran {
    struck: bool,
    accepted: usize,
    copies: usize,
}

#[test]
#[ignore = "needs strace: .ci/durability"]
fn every_write_sync_rename_and_unlink_may_fail_or_be_the_last() {
    let shared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let used = shared.path().join("used");
    make_used(&used);
    let mut cases = Vec::new();
    for (kind, counted) in kinds().into_iter().zip(side_by_side(kinds(), |kind| count(&kind, &used))) {
        let counted = counted.unwrap_or_else(|fault| panic!("{}, undisturbed: {fault}", kind.name));
        println!("{:28} {counted:?}", kind.name);
        assert!(!counted.is_empty(), "nothing was ever done to {:?}: this proves nothing", kind.files);
        for (call, most) in counted {
            let strikes = faults(&call).iter().flat_map(|fault| (1..=most).map(move |number| (*fault, number)));
            cases.extend(strikes.map(|(fault, number)| Case { kind: kind.clone(), call: call.clone(), fault, number }));
        }
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    cases.retain(|case| case.title().contains(&only));
    let all = cases.len();
    let ran = side_by_side(cases, |case| case.run(&used).map_err(|fault| format!("{}: {fault}", case.title())));
    let faults: Vec<_> = ran.iter().filter_map(|ran| ran.as_ref().err()).collect();
    let ran: Vec<_> = ran.iter().flatten().collect();
    let struck = ran.iter().filter(|ran| ran.struck).count();
    println!(
        "{all} runs, {struck} were struck; {} of {} messages accepted in them, all of them delivered; {} copies too many, \
         of what was delivered when it could not be recorded any more",
        ran.iter().map(|ran| ran.accepted).sum::<usize>(),
        all * script().len(),
        ran.iter().map(|ran| ran.copies).sum::<usize>(),
    );
    for fault in &faults {
        println!("FAULT {}", fault.lines().next().unwrap_or_default());
    }
    assert!(faults.is_empty(), "{} faults, the first:\n{}", faults.len(), faults[0]);
    // How the threads share the work differs a little from run to run.
    assert!(struck * 10 >= all * 8, "only {struck} of {all} runs were struck: this proves little");
}

/// What may happen to a call, in strace's words.
fn faults(call: &str) -> &'static [&'static str] {
    match call {
        // Removing needs no room.
        "unlink" | "unlinkat" => &["error=EIO", "signal=SIGKILL"],
        _ => &["error=EIO", "error=ENOSPC", "signal=SIGKILL"],
    }
}

/// A spool that has been used before, and is empty.
fn make_used(folder: &Path) {
    fs::create_dir(folder).expect("a folder");
    let nobody = ClosedPort::take();
    let spool = folder.join("spool");
    let home = Home { folder: folder.to_owned(), spool: spool.clone(), sink: nobody.address, down: nobody.address };
    let relay = Relay::start(&home, "first.example", &[]).unwrap_or_else(|end| panic!("{}", end.log));
    home.expect_clean(relay).unwrap_or_else(|fault| panic!("{fault}"));
    fs::remove_file(spool.join("reserve")).expect("the reserve, which each start makes anew");
}

/// A place for one run.
fn settle(kind: &Kind, used: &Path, folder: &Path, sink: &Sink, closed: &ClosedPort) -> std::io::Result<Home> {
    let spool = folder.join("spool");
    if !kind.cold {
        for folder in ["", "bodies", "aside"] {
            fs::create_dir(spool.join(folder))?;
        }
        let database = spool.join("queue.db");
        fs::copy(used.join("spool/queue.db"), &database)?;
        let future = SystemTime::UNIX_EPOCH + Duration::from_secs(FUTURE);
        fs::File::options().write(true).open(database)?.set_modified(future)?;
    }
    Ok(Home { folder: folder.to_owned(), spool, sink: sink.address, down: closed.address })
}

/// The words that start a relay under strace, which looks at files of one kind.
fn under(home: &Home, kind: &Kind, calls: &str, inject: Option<&str>) -> Vec<String> {
    let mut options: Vec<String> = vec!["-e".into(), format!("trace={calls}")];
    for file in &kind.files {
        let path = if file == ".." { home.folder.clone() } else { home.spool.join(file) };
        // The path with a stroke at its end is none that a descriptor ever has.
        let path: PathBuf = path.components().collect();
        options.extend(["-P".into(), path.display().to_string()]);
    }
    if let Some(inject) = inject {
        options.extend(["-e".into(), format!("inject={inject}")]);
    }
    strace::command(&home.folder.join("trace"), &options.iter().map(String::as_str).collect::<Vec<_>>())
}

/// How often each call is made by the thread that makes it most often.
fn count(kind: &Kind, used: &Path) -> Result<BTreeMap<String, usize>, String> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let home = settle(kind, used, folder.path(), &sink, &closed).map_err(|error| error.to_string())?;
    let under = under(&home, kind, CHANGES, None);
    let relay = Relay::start(&home, "struck.example", &under).map_err(|end| end.log)?;
    let verdicts = send_all(relay.address, &script());
    sink.wait_for(&reachable(&owed(&script(), &verdicts)), ARRIVES);
    relay.terminate().check()?;
    let mut threads: HashMap<(u32, String), usize> = HashMap::new();
    for call in strace::read(&home.folder.join("trace")) {
        *threads.entry((call.thread, call.name)).or_default() += 1;
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in threads {
        let so_far = most.entry(call).or_insert(0);
        *so_far = count.max(*so_far);
    }
    Ok(most)
}

/// Those whose destination is not down.
fn reachable<'a>(recipients: &[&'a str]) -> Vec<&'a str> {
    recipients.iter().copied().filter(|to| !to.ends_with("@down.example")).collect()
}

impl Case {
    fn title(&self) -> String {
        let Self { kind, call, fault, number } = self;
        format!("{}: {call}:{fault}:when={number}", kind.name)
    }

    fn run(&self, used: &Path) -> Result<Ran, String> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
        let (sink, closed) = (Sink::start(), ClosedPort::take());
        let home = settle(&self.kind, used, folder.path(), &sink, &closed).map_err(|error| error.to_string())?;
        let messages = script();
        let inject = format!("{}:{}:when={}", self.call, self.fault, self.number);
        let verdicts = match Relay::start(&home, "struck.example", &under(&home, &self.kind, &self.call, Some(&inject)))
        {
            Ok(mut relay) => {
                let verdicts = send_all(relay.address, &messages);
                let awaited = reachable(&owed(&messages, &verdicts));
                within(STRUCK, || relay.has_ended() || sink.wait_for(&awaited, Duration::ZERO).is_empty());
                relay.terminate().check()?;
                verdicts
            }
            Err(end) => {
                end.check()?;
                Vec::new()
            }
        };
        let owed = owed(&messages, &verdicts);
        sink.serve(closed.open());
        let relay =
            Relay::start(&home, "afterwards.example", &[]).map_err(|end| format!("no second start: {}", end.log))?;
        let missing = sink.wait_for(&owed, ARRIVES);
        let clean = home.expect_clean(relay);
        if !missing.is_empty() {
            return Err(format!("accepted, but never arrived: {missing:?}; {clean:?}"));
        }
        clean?;
        let tally = sink.tally()?;
        let trace = fs::read_to_string(home.folder.join("trace")).map_err(|error| error.to_string())?;
        Ok(Ran {
            struck: trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL"),
            accepted: verdicts.iter().filter(|verdict| matches!(verdict, crate::Verdict::Accepted(_))).count(),
            copies: tally.values().map(|relays| relays.len() - 1).sum(),
        })
    }
}
