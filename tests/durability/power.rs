//! The power goes: what had not been synced by then is forgotten, or some of it, and a relay starts on
//! the rest.
//!
//! The disk is the meanest that POSIX allows: a write counts when its file was synced after it, a name
//! when its folder was. Half of the images keep nothing else; the others keep some of the later writes,
//! in any order and torn at sectors, and some of the later names. This shows what a sync that is missing
//! would do, which no kill can: after a kill the kernel still has everything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::order::{acceptance, traced};
use crate::strace::{self, Call};
use crate::support::client::Verdict;
use crate::support::relay::{Home, Relay};
use crate::support::sink::{Arrival, ClosedPort, Sink};
use crate::support::{Dice, place};
use crate::{ARRIVES, script, side_by_side};

/// Moments at which the power goes, at most.
const MOMENTS: usize = 120;
/// A disk writes at least so much or nothing.
const SECTOR: usize = 512;
/// Not restored: the log's index lives in memory, lock and reserve hold nothing.
const FLEETING: [&str; 3] = ["queue.db-shm", "lock", "reserve"];

type Image = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Debug)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Cut(usize),
}

/// A file: what was done to it, and how much of that a sync has made durable.
#[derive(Debug, Default)]
struct File {
    changes: Vec<Change>,
    durable: usize,
    end: usize,
}

type Names = BTreeMap<PathBuf, usize>;

/// A spool folder as the system has it, and as the disk has it.
#[derive(Debug, Default)]
struct Disk {
    files: Vec<File>,
    names: Names,
    durable_names: Names,
    /// Syncs under way cover what was done before they began.
    syncs: HashMap<usize, (usize, Names)>,
}

impl Disk {
    /// A call begins; `number` is its own.
    fn begin(&mut self, number: usize, call: &Call) {
        let Some(target) = call.target().filter(|_| call.is_sync()).map(PathBuf::from) else { return };
        let changes = self.names.get(&target).map_or(0, |file| self.files[*file].changes.len());
        let names = self.names.iter().filter(|(name, _)| name.parent() == Some(&target));
        self.syncs.insert(number, (changes, names.map(|(name, file)| (name.clone(), *file)).collect()));
    }

    /// A call ends.
    fn end(&mut self, number: usize, call: &Call) {
        let sync = self.syncs.remove(&number);
        let Some(result) = call.result else { return };
        let paths: Vec<PathBuf> =
            call.strings().iter().map(|path| PathBuf::from(String::from_utf8_lossy(path).as_ref())).collect();
        let target = call.target().map(PathBuf::from).unwrap_or_default();
        match call.name.as_str() {
            "openat" if call.args.contains("O_CREAT") => self.create(&paths[0], call.args.contains("O_TRUNC")),
            "rename" => {
                if let Some(file) = self.names.remove(&paths[0]) {
                    self.names.insert(paths[1].clone(), file);
                }
            }
            "unlink" => drop(self.names.remove(&paths[0])),
            "unlinkat" => drop(paths.first().and_then(|path| self.names.remove(path))),
            "fsync" | "fdatasync" => self.sync(&target, sync),
            _ => {
                let Some(file) = self.names.get(&target).map(|file| &mut self.files[*file]) else { return };
                let length = usize::try_from(result).expect("it fits the memory it came from");
                let number = call.last_number().and_then(|number| usize::try_from(number).ok());
                match call.name.as_str() {
                    "ftruncate" => file.changes.push(Change::Cut(number.expect("a length"))),
                    "pwrite64" => file.write(number.expect("an offset"), &call.data()[..length]),
                    "write" => file.write(file.end, &call.data()[..length]),
                    _ => {}
                }
            }
        }
    }

    fn create(&mut self, path: &Path, empty: bool) {
        let fresh = self.files.len();
        let file = *self.names.entry(path.to_owned()).or_insert(fresh);
        if file == fresh {
            self.files.push(File::default());
        } else if empty {
            self.files[file].changes.push(Change::Cut(0));
        }
    }

    fn sync(&mut self, target: &Path, begun: Option<(usize, Names)>) {
        let Some((changes, names)) = begun else { return };
        if let Some(file) = self.names.get(target) {
            self.files[*file].durable = self.files[*file].durable.max(changes);
        } else {
            self.durable_names.retain(|name, _| name.parent() != Some(target));
            self.durable_names.extend(names);
        }
    }

    /// What is found after the power came back. With dice, some of what was never synced is there too.
    fn image(&self, mut dice: Option<Dice>) -> Image {
        let mut coin = |sides| dice.as_mut().is_some_and(|dice| dice.below(sides) == 0);
        let mut names = self.durable_names.clone();
        let folders: BTreeSet<_> = self.names.keys().chain(names.keys()).filter_map(|name| name.parent()).collect();
        for folder in folders.into_iter().map(Path::to_owned).collect::<Vec<_>>() {
            if coin(2) {
                names.retain(|name, _| name.parent() != Some(&folder));
                let now = self.names.iter().filter(|(name, _)| name.parent() == Some(&folder));
                names.extend(now.map(|(name, file)| (name.clone(), *file)));
            }
        }
        let content = |(name, file): (PathBuf, usize)| {
            let mut octets = Vec::new();
            for (number, change) in self.files[file].changes.iter().enumerate() {
                match change {
                    _ if number >= self.files[file].durable && !coin(2) => {}
                    Change::Cut(length) => octets.resize(*length, 0),
                    Change::Write { at, data } => {
                        let torn = number >= self.files[file].durable && coin(3);
                        let kept = if torn { data.len() / SECTOR / 2 * SECTOR } else { data.len() };
                        octets.resize(octets.len().max(at + kept), 0);
                        octets[*at..at + kept].copy_from_slice(&data[..kept]);
                    }
                }
            }
            (name, octets)
        };
        let lasting = |name: &Path| !name.file_name().is_some_and(|name| FLEETING.iter().any(|one| name == *one));
        names.into_iter().filter(|(name, _)| lasting(name)).map(content).collect()
    }
}

impl File {
    fn write(&mut self, at: usize, data: &[u8]) {
        self.changes.push(Change::Write { at, data: data.to_vec() });
        self.end = at + data.len();
    }
}

/// A moment at which the power went.
#[derive(Debug)]
struct Moment {
    /// For people.
    when: String,
    image: Image,
    /// The recipients of what had been accepted and was not delivered yet.
    owed: Vec<String>,
}

#[test]
#[ignore = "needs strace: .ci/durability"]
fn nothing_acknowledged_is_lost_with_the_power() {
    let folder = place();
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let spool = folder.path().join("spool");
    let home = Home { folder: folder.path().to_owned(), spool, sink: sink.address, down: closed.address };
    let trace = folder.path().join("trace");
    let verdicts = traced(&home, &sink, closed, &trace);
    let moments = moments(&strace::read(&trace), &home.spool, &verdicts, &sink.arrivals());
    let owing = moments.iter().filter(|moment| !moment.owed.is_empty()).count();
    println!("{} moments, at {owing} of them accepted messages were waiting", moments.len());
    assert!(owing > MOMENTS / 5, "too few of them: this proves nothing");
    let ran = side_by_side(moments, |moment| {
        restart(&moment, &home.spool).map_err(|fault| format!("{}: {fault}", moment.when))
    });
    let faults: Vec<_> = ran.into_iter().filter_map(Result::err).collect();
    assert!(faults.is_empty(), "{} faults, the first:\n{}", faults.len(), faults[0]);
}

/// Replays a trace, and stops the clock after calls of which there are not too many.
fn moments(calls: &[Call], spool: &Path, verdicts: &[Verdict], arrivals: &[Arrival]) -> Vec<Moment> {
    let script = script();
    let accepted: Vec<_> = script
        .iter()
        .zip(verdicts)
        .filter_map(|(message, verdict)| match verdict {
            Verdict::Accepted(id) => Some((acceptance(calls, id).began, message)),
            Verdict::Refused(_) | Verdict::Lost => None,
        })
        .collect();
    let ours = |call: &&Call| call.args.contains(&hex(spool)) || call.name == "sendto";
    let mut events: Vec<_> = calls
        .iter()
        .filter(ours)
        .enumerate()
        .flat_map(|(number, call)| [(call.began, false, number, call), (call.ended, true, number, call)])
        .collect();
    events.sort_by_key(|(line, ends, ..)| (*line, *ends));
    let step = (events.len() / MOMENTS).max(1);
    let (mut disk, mut dice, mut moments) = (Disk::default(), Dice::new(1), Vec::new());
    for (count, (line, ends, number, call)) in events.into_iter().enumerate() {
        if ends {
            disk.end(number, call);
        } else {
            disk.begin(number, call);
        }
        let told = accepted.iter().any(|(at, _)| *at == line);
        if !told && count % step != 0 {
            continue;
        }
        let has = |to: &String| arrivals.iter().any(|arrival| arrival.recipient == *to && arrival.at <= call.at);
        let known = accepted.iter().filter(|(at, _)| *at <= line).flat_map(|(_, message)| &message.recipients);
        let owed: Vec<String> = known.filter(|to| !has(to)).cloned().collect();
        let strict = told || moments.len() % 2 == 0;
        let image = disk.image((!strict).then(|| Dice::new(dice.below(u64::MAX))));
        let kept = if strict { "only what was synced" } else { "some of what was not synced" };
        moments.push(Moment {
            when: format!("power lost at line {} of the trace, {kept} kept", line + 1),
            image,
            owed,
        });
    }
    moments
}

fn hex(path: &Path) -> String {
    use std::fmt::Write as _;
    path.display().to_string().bytes().fold(String::new(), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\x{octet:02x}");
        text
    })
}

/// A relay starts on what the disk had: all that is owed arrives, nothing is half there.
fn restart(moment: &Moment, traced: &Path) -> Result<(), String> {
    let folder = place();
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let spool = folder.path().join("spool");
    for folder in ["", "bodies", "aside"] {
        std::fs::create_dir(spool.join(folder)).map_err(|error| error.to_string())?;
    }
    for (name, content) in &moment.image {
        let name = name.strip_prefix(traced).map_err(|error| error.to_string())?;
        std::fs::write(spool.join(name), content).map_err(|error| error.to_string())?;
    }
    let home = Home { folder: folder.path().to_owned(), spool, sink: sink.address, down: closed.address };
    sink.serve(closed.open());
    let relay = Relay::start(&home, "restarted.example", &[]).map_err(|end| format!("no start: {}", end.log))?;
    let missing = sink.wait_for(&moment.owed, ARRIVES);
    let missing: Vec<_> = missing.into_iter().map(str::to_owned).collect();
    let clean = home.expect_clean(relay);
    if !missing.is_empty() {
        return Err(format!("accepted, but never arrived: {missing:?}; {clean:?}"));
    }
    clean.and_then(|()| sink.tally().map(|_| ()))
}
