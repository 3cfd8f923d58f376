//! Each write, sync, rename and unlink of the daemon on its spool fails, or is the last thing it does.
//!
//! strace counts calls for each thread apart, so the files of the spool are taken one kind at a time: a
//! kind has mostly one thread that works on it. How many calls there are is counted first, undisturbed.
//! A fault with the number N then strikes the Nth call of each thread, on files of that kind only.
//!
//! Body files are named after queue ids, and strace wants whole paths. Ids are never below the time of
//! the spool's last change, so a database that was changed in the future foretells them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gatepost::envelope::QueueId;

use crate::strace::{self, CHANGES, Call};
use crate::support::client::send_all;
use crate::support::relay::{End, Home, Relay};
use crate::support::sink::{ClosedPort, Sink};
use crate::support::{place, within};
use crate::{ARRIVES, owed, script, side_by_side};

/// The spool's last change, in seconds since 1970: in 2060, when no clock is yet.
const FUTURE: u64 = 2_840_140_800;
/// Queue ids count milliseconds since 2020, above 22 bits of counter.
const FIRST_ID: u64 = ((FUTURE - 1_577_836_800) * 1000 + 1) << 22;
/// How long a relay that was struck may take to deliver what it still can.
const STRUCK: Duration = Duration::from_secs(2);

/// What the queue's log is called here.
const LOG: &str = "log";

/// Files of the spool that are struck together.
#[derive(Debug, Clone)]
struct Kind {
    name: &'static str,
    files: Vec<String>,
    /// From an empty folder: the first start is struck, too.
    cold: bool,
}

impl Kind {
    fn new(name: &'static str, files: &[&str], cold: bool) -> Self {
        Self { name, files: files.iter().map(ToString::to_string).collect(), cold }
    }

    /// The file of one body, under both of its names.
    fn body(name: &'static str, id: QueueId) -> Self {
        Self::new(name, &[&format!("bodies/{id}.part"), &format!("bodies/{id}")], false)
    }
}

fn kinds(used: &Path) -> Result<Vec<Kind>, String> {
    let bodies = body_ids(used)?;
    let &[first, second] = &bodies[..] else { return Err(format!("two messages should have a body file: {bodies:?}")) };
    Ok(vec![
        Kind::new(LOG, &["queue.db-wal"], false),
        Kind::new("database", &["queue.db", "queue.db-journal"], false),
        Kind::body("first body", first),
        Kind::body("second body", second),
        Kind::new("folders", &["", "bodies", "aside"], false),
        Kind::new("index, lock and reserve", &["queue.db-shm", "lock", "reserve"], false),
        Kind::new("new log", &["queue.db-wal"], true),
        Kind::new("new database", &["queue.db", "queue.db-journal"], true),
        Kind::new("new folders", &["", "bodies", "aside", ".."], true),
        Kind::new("new index, lock and reserve", &["queue.db-shm", "lock", "reserve"], true),
    ])
}

/// The ids that messages with a body file will have: which of the next few they are depends on who else
/// draws one.
fn body_ids(used: &Path) -> Result<Vec<QueueId>, String> {
    let next: Vec<_> = (0..32).filter_map(|number| QueueId::from_number(FIRST_ID + number)).collect();
    let files = next.iter().flat_map(|id| Kind::body("", *id).files).collect();
    let calls = undisturbed(&Kind { name: "any body", files, cold: false }, used)?;
    let names: HashSet<_> =
        calls.iter().filter_map(|call| call.target()?.rsplit('/').next().map(str::to_owned)).collect();
    Ok(next.into_iter().filter(|id| names.contains(&format!("{id}.part"))).collect())
}

/// One run.
#[derive(Debug)]
struct Case {
    kind: Kind,
    /// In strace's words.
    faults: Vec<String>,
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
    let shared = place();
    let used = shared.path().join("used");
    make_used(&used);
    let mut cases = Vec::new();
    let kinds = kinds(&used).unwrap_or_else(|fault| panic!("{fault}"));
    for (kind, calls) in kinds.iter().zip(side_by_side(kinds.clone(), |kind| undisturbed(&kind, &used))) {
        let counted = most(calls.unwrap_or_else(|fault| panic!("{}, undisturbed: {fault}", kind.name)));
        println!("{:28} {counted:?}", kind.name);
        assert!(!counted.is_empty(), "nothing was ever done to {:?}: this proves nothing", kind.files);
        for (call, most) in counted {
            for number in 1..=most {
                let faults = faults(kind, &call, number).into_iter();
                cases.extend(faults.map(|faults| Case { kind: kind.clone(), faults }));
            }
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

/// What may happen to the `number`th call, in strace's words. With `+` it happens to all later ones of
/// that thread as well: a disk that dies, or is full for good.
fn faults(kind: &Kind, call: &str, number: usize) -> Vec<Vec<String>> {
    let fault = |what: &str, on: &str| format!("{call}:{what}:when={number}{on}");
    let mut faults =
        vec![vec![fault("signal=SIGKILL", "")], vec![fault("error=EIO", "")], vec![fault("error=EIO", "+")]];
    // Removing needs no room.
    if !call.starts_with("unlink") {
        faults.extend([vec![fault("error=ENOSPC", "")], vec![fault("error=ENOSPC", "+")]]);
    }
    // What failed is still in the system's memory. Where the end is not orderly either, the next start reads it.
    if kind.name == LOG && matches!(call, "fsync" | "pwrite64") {
        faults.push(vec![fault("error=EIO", "+"), "ftruncate,unlink:signal=SIGKILL".to_owned()]);
    }
    faults
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
fn under(home: &Home, kind: &Kind, faults: &[String]) -> Vec<String> {
    let mut options: Vec<String> = vec!["-e".into(), format!("trace={CHANGES}")];
    for file in &kind.files {
        let path = if file == ".." { home.folder.clone() } else { home.spool.join(file) };
        // The path with a stroke at its end is none that a descriptor ever has.
        let path: PathBuf = path.components().collect();
        options.extend(["-P".into(), path.display().to_string()]);
    }
    options.extend(faults.iter().flat_map(|fault| ["-e".into(), format!("inject={fault}")]));
    strace::command(&home.folder.join("trace"), &options.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The calls of an undisturbed run on files of one kind.
fn undisturbed(kind: &Kind, used: &Path) -> Result<Vec<Call>, String> {
    let folder = place();
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let home = settle(kind, used, folder.path(), &sink, &closed).map_err(|error| error.to_string())?;
    let under = under(&home, kind, &[]);
    let relay = Relay::start(&home, "struck.example", &under).map_err(|end| end.log)?;
    let verdicts = send_all(relay.address, &script());
    sink.wait_for(&reachable(&owed(&script(), &verdicts)), ARRIVES);
    relay.terminate().check()?;
    Ok(strace::read(&home.folder.join("trace")))
}

/// How often each call is made by the thread that makes it most often.
fn most(calls: Vec<Call>) -> BTreeMap<String, usize> {
    let mut threads: HashMap<(u32, String), usize> = HashMap::new();
    for call in calls {
        *threads.entry((call.thread, call.name)).or_default() += 1;
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in threads {
        let so_far = most.entry(call).or_insert(0);
        *so_far = count.max(*so_far);
    }
    most
}

/// Those whose destination is not down.
fn reachable<'a>(recipients: &[&'a str]) -> Vec<&'a str> {
    recipients.iter().copied().filter(|to| !to.ends_with("@down.example")).collect()
}

impl Case {
    fn title(&self) -> String {
        format!("{}: {}", self.kind.name, self.faults.join(" and "))
    }

    fn run(&self, used: &Path) -> Result<Ran, String> {
        let folder = place();
        let (sink, closed) = (Sink::start(), ClosedPort::take());
        let home = settle(&self.kind, used, folder.path(), &sink, &closed).map_err(|error| error.to_string())?;
        let messages = script();
        let mut killed = false;
        let mut look = |end: End| {
            killed = end.status.and_then(|status| status.signal()) == Some(9);
            end.check()
        };
        let verdicts = match Relay::start(&home, "struck.example", &under(&home, &self.kind, &self.faults)) {
            Ok(mut relay) => {
                let verdicts = send_all(relay.address, &messages);
                let awaited = reachable(&owed(&messages, &verdicts));
                within(STRUCK, || relay.has_ended() || sink.wait_for(&awaited, Duration::ZERO).is_empty());
                look(relay.terminate())?;
                verdicts
            }
            Err(end) => {
                look(end)?;
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
            struck: killed || trace.contains("(INJECTED)"),
            accepted: verdicts.iter().filter(|verdict| matches!(verdict, crate::Verdict::Accepted(_))).count(),
            copies: tally.values().map(|relays| relays.len() - 1).sum(),
        })
    }
}
