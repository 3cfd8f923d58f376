//! Each write, sync, rename and unlink of the daemon on its spool fails, or is the last thing it
//! does.
//!
//! strace counts calls for each thread apart, so the files of the spool are taken one kind at a
//! time: a kind has mostly one thread that works on it. How many calls there are is counted first,
//! undisturbed. A fault with the number N then strikes the Nth call of each thread, on files of
//! that kind only.
//!
//! Body files are named after queue ids, and strace wants complete paths. Ids are never below the
//! time of the spool's last change, so a database that was changed in the future foretells them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gatepost::smtp::envelope::QueueId;

use super::home::{FIRST_SEGMENT, Home};
use super::servers::ClosedPort;
use super::strace::{self, CHANGES, Call};
use super::{ARRIVES, owed, reachable, script, side_by_side};
use crate::support::client::{Verdict, send_all};
use crate::support::message::Message;
use crate::support::relay::Relay;
use crate::support::sink::Sink;
use crate::support::{place, within};

/// The spool's last change, in seconds since 1970: in 2060, when no clock is yet.
const FUTURE: u64 = 2_840_140_800;
/// Queue ids count milliseconds since 2020, above 22 bits of counter.
const FIRST_ID: u64 = ((FUTURE - 1_577_836_800) * 1000 + 1) << 22;
/// The time that a relay has after a fault to deliver everything that it still can.
const STRUCK: Duration = Duration::from_secs(2);

/// Seconds that a start may take.
const STARTS: u64 = 15;

/// The name of the queue's log in this module.
const LOG: &str = "log";

/// Files that are struck together.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Below the relay's folder.
    pub(crate) files: Vec<String>,
    /// The calls that fail there.
    pub(crate) calls: String,
    pub(crate) before: Before,
}

/// The state that the relay finds when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing: the first start of all is struck.
    Nothing,
    /// A spool that is empty, and the beginning of a chain.
    Used,
    /// The same, but the chain ends with half a record.
    Torn,
}

impl Kind {
    /// Files of the spool.
    fn new(name: &'static str, files: &[&str], before: Before) -> Self {
        let files = files.iter().map(|file| {
            if *file == ".." {
                String::new()
            } else {
                format!("spool/{file}")
            }
        });
        Self {
            name,
            files: files.collect(),
            calls: CHANGES.to_owned(),
            before,
        }
    }

    /// The file of one body, under both of its names.
    fn body(name: &'static str, id: QueueId) -> Self {
        Self::new(
            name,
            &[&format!("bodies/{id}.part"), &format!("bodies/{id}")],
            Before::Used,
        )
    }
}

fn kinds(used: &Path) -> Result<Vec<Kind>, String> {
    let bodies = body_ids(used)?;
    let &[first, second] = &bodies[..] else {
        return Err(format!("two messages should have a body file: {bodies:?}"));
    };
    Ok(vec![
        Kind::new(LOG, &[FIRST_SEGMENT, "log/spare"], Before::Used),
        Kind::new("database's log", &["queue.db-wal"], Before::Used),
        Kind::new("database", &["queue.db", "queue.db-journal"], Before::Used),
        Kind::body("first body", first),
        Kind::body("second body", second),
        Kind::new("folders", &["", "bodies", "aside", "log"], Before::Used),
        Kind::new(
            "index, lock and reserve",
            &["queue.db-shm", "lock", "reserve"],
            Before::Used,
        ),
        Kind::new("new log", &[FIRST_SEGMENT, "log/spare"], Before::Nothing),
        Kind::new("new database's log", &["queue.db-wal"], Before::Nothing),
        Kind::new(
            "new database",
            &["queue.db", "queue.db-journal"],
            Before::Nothing,
        ),
        Kind::new(
            "new folders",
            &["", "bodies", "aside", "log", ".."],
            Before::Nothing,
        ),
        Kind::new(
            "new index, lock and reserve",
            &["queue.db-shm", "lock", "reserve"],
            Before::Nothing,
        ),
    ])
}

/// The ids that messages with a body file will have: which of the next few they are depends on who
/// else draws one.
fn body_ids(used: &Path) -> Result<Vec<QueueId>, String> {
    let next: Vec<_> = (0..32)
        .filter_map(|number| QueueId::from_number(FIRST_ID + number))
        .collect();
    let files = next
        .iter()
        .flat_map(|id| Kind::body("", *id).files)
        .collect();
    let calls = undisturbed(
        &Kind {
            files,
            ..Kind::new("any body", &[], Before::Used)
        },
        used,
    )?;
    let names: HashSet<_> = calls
        .iter()
        .filter_map(|call| call.target()?.rsplit('/').next().map(str::to_owned))
        .collect();
    Ok(next
        .into_iter()
        .filter(|id| names.contains(&format!("{id}.part")))
        .collect())
}

/// One run.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    /// In the syntax of strace.
    pub(crate) faults: Vec<String>,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) struck: bool,
    pub(crate) accepted: usize,
    pub(crate) copies: usize,
}

#[test]
#[ignore = "needs strace: .ci/durability"]
fn every_write_sync_rename_and_unlink_may_fail_or_be_the_last() {
    let shared = place();
    let used = shared.path().join("used");
    make_used(&used);
    let kinds = kinds(&used).unwrap_or_else(|fault| panic!("{fault}"));
    all(&kinds, &used, faults, |case| case.run(&used));
}

/// Too many open files are no fault of the folder: one message is put off, and the relay goes on.
#[test]
#[ignore = "needs strace: .ci/durability"]
fn a_folder_that_cannot_be_opened_for_a_moment_ends_nothing() {
    let shared = place();
    let used = shared.path().join("used");
    make_used(&used);
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let folder = shared.path().join("home");
    let kind = Kind {
        calls: "openat".to_owned(),
        ..Kind::new("bodies", &["bodies"], Before::Used)
    };
    let home = fs::create_dir(&folder)
        .and_then(|()| settle(&kind, &used, &folder, &sink, &closed))
        .expect("ours");
    // The start opens it twice, on a thread of its own: to list it, and to keep it.
    let struck = under(&home, &kind, &["openat:error=EMFILE:when=3".to_owned()]);
    let relay =
        Relay::start(&home, "struck.example", &struck).unwrap_or_else(|end| panic!("{}", end.log));
    // Each has a body file, and the folder is opened for each; who of the threads does that
    // differs.
    let messages: Vec<_> = (0..40)
        .map(|at| Message::new(&format!("m{at}"), &["a.example"], 200_000))
        .collect();
    let verdicts = send_all(relay.address, &messages);
    let refused = |verdict: &Verdict| matches!(verdict, Verdict::Refused(reply) if reply.starts_with("451 4.3.0 "));
    assert!(
        verdicts.iter().any(refused),
        "none was struck: {verdicts:?}"
    );
    assert!(
        verdicts
            .iter()
            .all(|verdict| refused(verdict) || matches!(verdict, Verdict::Accepted(_))),
        "{verdicts:?}"
    );
    let owed = owed(&messages, &verdicts);
    assert_eq!(sink.wait_for(&owed, ARRIVES), Vec::<&str>::new());
    home.expect_clean(relay)
        .unwrap_or_else(|fault| panic!("{fault}"));
}

/// A quota is no disk that fails: mail is refused, what is in the queue stays there, and nothing
/// ends.
#[test]
#[ignore = "needs strace: .ci/durability"]
fn a_quota_that_is_used_up_refuses_mail_and_ends_nothing() {
    let shared = place();
    let used = shared.path().join("used");
    make_used(&used);
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let folder = shared.path().join("home");
    let files = [
        FIRST_SEGMENT,
        "log/spare",
        "queue.db-wal",
        "queue.db",
        "quota-probe",
    ];
    let kind = Kind {
        calls: "write,pwrite64,fallocate".to_owned(),
        ..Kind::new("quota", &files, Before::Used)
    };
    let home = fs::create_dir(&folder)
        .and_then(|()| settle(&kind, &used, &folder, &sink, &closed))
        .expect("ours");
    // From the tenth write of each thread on; there is no space for another segment either.
    let faults = [
        "pwrite64:error=EDQUOT:when=10+".to_owned(),
        "fallocate:error=EDQUOT:when=2+".to_owned(),
        "write:error=EDQUOT".to_owned(),
    ];
    let struck = under(&home, &kind, &faults);
    let mut relay =
        Relay::start(&home, "struck.example", &struck).unwrap_or_else(|end| panic!("{}", end.log));
    let messages: Vec<_> = (0..40)
        .map(|at| Message::new(&format!("m{at}"), &["down.example"], 3000))
        .collect();
    let verdicts = send_all(relay.address, &messages);
    let refused = |verdict: &Verdict| matches!(verdict, Verdict::Refused(reply) if reply.starts_with("452 4.3.1 "));
    assert!(
        verdicts.iter().any(refused),
        "none was struck: {verdicts:?}"
    );
    assert!(
        verdicts
            .iter()
            .all(|verdict| refused(verdict) || matches!(verdict, Verdict::Accepted(_))),
        "{verdicts:?}"
    );
    assert!(!relay.has_ended(), "a full disk is no reason to end");
    relay.kill();
    sink.serve(closed.open());
    let relay =
        Relay::start(&home, "afterwards.example", &[]).unwrap_or_else(|end| panic!("{}", end.log));
    let owed = owed(&messages, &verdicts);
    assert!(!owed.is_empty(), "none was accepted before");
    assert_eq!(sink.wait_for(&owed, ARRIVES), Vec::<&str>::new());
    home.expect_clean(relay)
        .unwrap_or_else(|fault| panic!("{fault}"));
}

/// Counts the calls on files of each kind, and runs what `faults` makes of each of them.
pub(crate) fn all(
    kinds: &[Kind],
    used: &Path,
    faults: impl Fn(&Kind, &str, usize) -> Vec<Vec<String>>,
    run: impl Fn(Case) -> Result<Ran, String> + Sync,
) {
    let mut cases = Vec::new();
    for (kind, calls) in kinds.iter().zip(side_by_side(kinds.to_vec(), |kind| {
        undisturbed(&kind, used)
    })) {
        let counted =
            most(calls.unwrap_or_else(|fault| panic!("{}, undisturbed: {fault}", kind.name)));
        println!("{:28} {counted:?}", kind.name);
        assert!(
            !counted.is_empty(),
            "nothing was ever done to {:?}: this proves nothing",
            kind.files
        );
        for (call, most) in counted {
            for number in 1..=most {
                let faults = faults(kind, &call, number).into_iter();
                cases.extend(faults.map(|faults| Case {
                    kind: kind.clone(),
                    faults,
                }));
            }
        }
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    cases.retain(|case| case.title().contains(&only));
    assert!(!cases.is_empty(), "no fault has {only:?} in its name");
    let all = cases.len();
    let ran = side_by_side(cases, |case| {
        let title = case.title();
        run(case).map_err(|fault| format!("{title}: {fault}"))
    });
    let faults: Vec<_> = ran.iter().filter_map(|ran| ran.as_ref().err()).collect();
    let ran: Vec<_> = ran.iter().flatten().collect();
    let struck = ran.iter().filter(|ran| ran.struck).count();
    println!(
        "{all} runs, {struck} were struck; {} of {} messages accepted in them, all of them delivered and on record; {} \
         copies too many, of what was delivered when it could not be recorded any more",
        ran.iter().map(|ran| ran.accepted).sum::<usize>(),
        all * script().len(),
        ran.iter().map(|ran| ran.copies).sum::<usize>(),
    );
    for fault in &faults {
        println!("FAULT {}", fault.lines().next().unwrap_or_default());
    }
    assert!(
        faults.is_empty(),
        "{} faults, the first:\n{}",
        faults.len(),
        faults[0]
    );
    // The threads share the work a little differently from run to run.
    assert!(
        struck * 10 >= all * 8,
        "only {struck} of {all} runs were struck: this proves little"
    );
}

/// The failures of the `number`th call, in the syntax of strace. With `+` all later calls of
/// that thread fail as well: a disk that dies, or is full for good.
pub(crate) fn faults(kind: &Kind, call: &str, number: usize) -> Vec<Vec<String>> {
    let fault = |what: &str, on: &str| format!("{call}:{what}:when={number}{on}");
    let mut faults = vec![
        vec![fault("signal=SIGKILL", "")],
        vec![fault("error=EIO", "")],
        vec![fault("error=EIO", "+")],
    ];
    // Removing needs no room.
    if !call.starts_with("unlink") {
        faults.extend([
            vec![fault("error=ENOSPC", "")],
            vec![fault("error=ENOSPC", "+")],
        ]);
    }
    // Data whose sync failed is still in the system's memory. If the end is not orderly either, the
    // next start reads it.
    if kind.name == LOG && matches!(call, "fdatasync" | "pwrite64") {
        faults.push(vec![
            fault("error=EIO", "+"),
            "rename,unlink:signal=SIGKILL".to_owned(),
        ]);
    }
    faults
}

/// A relay's folder that has been used before, with nothing in its queue.
pub(crate) fn make_used(folder: &Path) {
    fs::create_dir(folder).expect("a folder");
    let nobody = ClosedPort::take();
    let spool = folder.join("spool");
    let home = Home {
        folder: folder.to_owned(),
        spool,
        sink: nobody.address,
        down: nobody.address,
    };
    let relay =
        Relay::start(&home, "first.example", &[]).unwrap_or_else(|end| panic!("{}", end.log));
    home.expect_clean(relay)
        .unwrap_or_else(|fault| panic!("{fault}"));
}

/// A place for one run. Reserves are not there: each start makes them anew.
pub(crate) fn settle(
    kind: &Kind,
    used: &Path,
    folder: &Path,
    sink: &Sink,
    closed: &ClosedPort,
) -> std::io::Result<Home> {
    let spool = folder.join("spool");
    let home = Home {
        folder: folder.to_owned(),
        spool,
        sink: sink.address,
        down: closed.address,
    };
    if kind.before == Before::Nothing {
        return Ok(home);
    }
    for folder in ["", "bodies", "aside"] {
        fs::create_dir(home.spool.join(folder))?;
    }
    let database = home.spool.join("queue.db");
    fs::copy(used.join("spool/queue.db"), &database)?;
    let future = SystemTime::UNIX_EPOCH + Duration::from_secs(FUTURE);
    fs::File::options()
        .write(true)
        .open(database)?
        .set_modified(future)?;
    fs::create_dir(home.evidence())?;
    for entry in fs::read_dir(used.join("evidence"))? {
        let page = entry?.path();
        let Some(name) = page
            .file_name()
            .filter(|_| page.extension().is_some_and(|ending| ending == "jsonl"))
        else {
            continue;
        };
        let mut records = fs::read(&page)?;
        if kind.before == Before::Torn {
            records.extend_from_within(..records.len() / 2);
        }
        fs::write(home.evidence().join(name), records)?;
    }
    Ok(home)
}

/// The command that starts a relay under strace, which traces files of one kind.
pub(crate) fn under(home: &Home, kind: &Kind, faults: &[String]) -> Vec<String> {
    let mut options: Vec<String> = vec!["-e".into(), format!("trace={}", kind.calls)];
    for file in kind.files.iter().cloned().chain(torn(home, kind)) {
        // The path with a stroke at its end is none that a descriptor ever has.
        let path: PathBuf = home.folder.join(file).components().collect();
        options.extend(["-P".into(), path.display().to_string()]);
    }
    options.extend(
        faults
            .iter()
            .flat_map(|fault| ["-e".into(), format!("inject={fault}")]),
    );
    strace::command(
        &home.folder.join("trace"),
        &options.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

/// The names under which half a record is set aside, by the second in which that is done.
fn torn(home: &Home, kind: &Kind) -> Vec<String> {
    let mut names = Vec::new();
    if kind.before == Before::Torn {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        for page in fs::read_dir(home.evidence())
            .into_iter()
            .flatten()
            .flatten()
        {
            let page = page.path();
            let day = page.file_stem().unwrap_or_default().display();
            let name = |second| format!("evidence/torn-{day}-{second}");
            names.extend(
                (now..now + STARTS).flat_map(|second| [name(second), name(second) + ".untold"]),
            );
        }
    }
    names
}

/// The calls of an undisturbed run on files of one kind.
fn undisturbed(kind: &Kind, used: &Path) -> Result<Vec<Call>, String> {
    let folder = place();
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let home =
        settle(kind, used, folder.path(), &sink, &closed).map_err(|error| error.to_string())?;
    let under = under(&home, kind, &[]);
    let relay = Relay::start(&home, "struck.example", &under).map_err(|end| end.log)?;
    let verdicts = send_all(relay.address, &script());
    sink.wait_for(&reachable(&owed(&script(), &verdicts)), ARRIVES);
    relay.terminate().check()?;
    Ok(strace::read(&home.folder.join("trace")))
}

/// The number of times that each call is made by the thread that makes it most often.
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

/// The result of a run with a fault.
#[derive(Debug)]
pub(crate) struct Struck {
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) killed: bool,
    /// True if the fault happened at all.
    pub(crate) noticed: bool,
    /// The log of the relay.
    pub(crate) log: String,
}

impl Case {
    fn title(&self) -> String {
        format!("{}: {}", self.kind.name, self.faults.join(" and "))
    }

    /// Sends the script to a relay that is struck, and ends it.
    pub(crate) fn strike(&self, home: &Home, sink: &Sink) -> Result<Struck, String> {
        let messages = script();
        let (verdicts, end) = match Relay::start(
            home,
            "struck.example",
            &under(home, &self.kind, &self.faults),
        ) {
            Ok(mut relay) => {
                let verdicts = send_all(relay.address, &messages);
                let awaited = reachable(&owed(&messages, &verdicts));
                within(STRUCK, || {
                    relay.has_ended() || sink.wait_for(&awaited, Duration::ZERO).is_empty()
                });
                (verdicts, relay.terminate())
            }
            Err(end) => (Vec::new(), end),
        };
        end.check()?;
        for verdict in &verdicts {
            // Our own trouble is always transient towards others.
            if let Verdict::Refused(reply) = verdict
                && !reply.starts_with("452 4.3.1 ")
                && !reply.starts_with("451 4.3.0 ")
                && !reply.starts_with("421 ")
            {
                return Err(format!("the answer was {reply:?}"));
            }
        }
        let killed = end.status.and_then(|status| status.signal()) == Some(9);
        let trace =
            fs::read_to_string(home.folder.join("trace")).map_err(|error| error.to_string())?;
        Ok(Struck {
            verdicts,
            killed,
            noticed: killed || trace.contains("(INJECTED)"),
            log: end.log,
        })
    }

    fn run(&self, used: &Path) -> Result<Ran, String> {
        let folder = place();
        let (sink, closed) = (Sink::start(), ClosedPort::take());
        let home = settle(&self.kind, used, folder.path(), &sink, &closed)
            .map_err(|error| error.to_string())?;
        let struck = self.strike(&home, &sink)?;
        afterwards(&home, &sink, closed, &struck)
    }
}

/// Starts a relay where another was struck: everything that was accepted arrives, and all that has
/// arrived is on record.
pub(crate) fn afterwards(
    home: &Home,
    sink: &Sink,
    closed: ClosedPort,
    struck: &Struck,
) -> Result<Ran, String> {
    let messages = script();
    let owed = owed(&messages, &struck.verdicts);
    sink.serve(closed.open());
    let relay = Relay::start(home, "afterwards.example", &[])
        .map_err(|end| format!("no second start: {}", end.log))?;
    let missing = sink.wait_for(&owed, ARRIVES);
    let clean = home.expect_clean(relay);
    if !missing.is_empty() {
        return Err(format!(
            "accepted, but never arrived: {missing:?}; {clean:?}"
        ));
    }
    clean?;
    let tally = sink.tally()?;
    home.expect_recorded(tally.keys(), &sink.times())?;
    Ok(Ran {
        struck: struck.noticed,
        accepted: struck
            .verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Accepted(_)))
            .count(),
        copies: tally.values().map(|relays| relays.len() - 1).sum(),
    })
}
