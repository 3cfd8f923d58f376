//! A replay of a trace: the files of a relay as the system has them after each call, and as a disk
//! would.
//!
//! The disk is the meanest that POSIX allows: a write counts when its file was synced after it, a
//! name when its folder was. Folders themselves are always there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::strace::Call;
use crate::support::Dice;

/// A disk writes at least so much or nothing.
const SECTOR: usize = 512;
/// Not restored: the log's index lives in memory, lock and reserve hold nothing.
const FLEETING: [&str; 3] = ["queue.db-shm", "lock", "reserve"];

/// Files by their paths.
pub(crate) type Image = BTreeMap<PathBuf, Vec<u8>>;

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

/// The folders of a relay as the system has them, and as the disk has them.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    names: Names,
    durable_names: Names,
    /// Syncs under way cover what was done before they began.
    syncs: HashMap<usize, (usize, Names)>,
}

/// A call begins or ends.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    /// Of the trace.
    pub(crate) line: usize,
    pub(crate) ends: bool,
    /// The call's own.
    number: usize,
    pub(crate) call: &'a Call,
}

/// Returns the changes to the files below a folder, and the talk on sockets, in order.
pub(crate) fn events<'a>(calls: &'a [Call], folder: &Path) -> Vec<Event<'a>> {
    let below = hex(folder);
    let ours = |call: &&Call| call.args.contains(&below) || call.name == "sendto";
    let mut events: Vec<_> = calls
        .iter()
        .filter(ours)
        .enumerate()
        .flat_map(|(number, call)| {
            [(call.began, false), (call.ended, true)].map(|(line, ends)| Event {
                line,
                ends,
                number,
                call,
            })
        })
        .collect();
    events.sort_by_key(|event| (event.line, event.ends));
    events
}

/// A path as traces write it.
fn hex(path: &Path) -> String {
    use std::fmt::Write as _;
    path.display()
        .to_string()
        .bytes()
        .fold(String::new(), |mut text, octet| {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{octet:02x}");
            text
        })
}

impl Disk {
    /// Returns a disk that has the files below a folder, all of them durable.
    pub(crate) fn holding(folder: &Path) -> Self {
        let (mut disk, mut folders) = (Self::default(), vec![folder.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let mut file = File::default();
                file.write(0, &std::fs::read(&path).expect("readable"));
                file.durable = 1;
                disk.names.insert(path, disk.files.len());
                disk.files.push(file);
            }
        }
        disk.durable_names = disk.names.clone();
        disk
    }

    pub(crate) fn happen(&mut self, event: &Event<'_>) {
        if event.ends {
            self.end(event.number, event.call);
        } else {
            self.begin(event.number, event.call);
        }
    }

    fn begin(&mut self, number: usize, call: &Call) {
        let Some(target) = call.target().filter(|_| call.is_sync()).map(PathBuf::from) else {
            return;
        };
        let changes = self
            .names
            .get(&target)
            .map_or(0, |file| self.files[*file].changes.len());
        let names = self
            .names
            .iter()
            .filter(|(name, _)| name.parent() == Some(&target));
        self.syncs.insert(
            number,
            (
                changes,
                names.map(|(name, file)| (name.clone(), *file)).collect(),
            ),
        );
    }

    fn end(&mut self, number: usize, call: &Call) {
        let sync = self.syncs.remove(&number);
        let Some(result) = call.result else { return };
        let paths: Vec<PathBuf> = call
            .strings()
            .iter()
            .map(|path| PathBuf::from(String::from_utf8_lossy(path).as_ref()))
            .collect();
        let target = call.target().map(PathBuf::from).unwrap_or_default();
        match call.name.as_str() {
            "openat" if call.args.contains("O_CREAT") => {
                self.create(&paths[0], call.args.contains("O_TRUNC"));
            }
            "rename" => {
                if let Some(file) = self.names.remove(&paths[0]) {
                    self.names.insert(paths[1].clone(), file);
                }
            }
            "unlink" => drop(self.names.remove(&paths[0])),
            "unlinkat" => drop(paths.first().and_then(|path| self.names.remove(path))),
            "fsync" | "fdatasync" => self.sync(&target, sync),
            _ => {
                let Some(file) = self.names.get(&target).map(|file| &mut self.files[*file]) else {
                    return;
                };
                let length = usize::try_from(result).expect("it fits the memory it came from");
                let number = call
                    .last_number()
                    .and_then(|number| usize::try_from(number).ok());
                match call.name.as_str() {
                    "ftruncate" => file.cut(number.expect("a length")),
                    // Space alone changes nothing that can be read.
                    "fallocate" if call.args.contains("KEEP_SIZE") => {}
                    "fallocate" => file.grow(number.expect("a length")),
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
            self.files[file].cut(0);
        }
    }

    fn sync(&mut self, target: &Path, begun: Option<(usize, Names)>) {
        let Some((changes, names)) = begun else {
            return;
        };
        if let Some(file) = self.names.get(target) {
            self.files[*file].durable = self.files[*file].durable.max(changes);
        } else {
            self.durable_names
                .retain(|name, _| name.parent() != Some(target));
            self.durable_names.extend(names);
        }
    }

    /// Returns the files as the running system has them, synced or not.
    pub(crate) fn now(&self) -> Image {
        let name = |(name, file): (&PathBuf, &usize)| (name.clone(), self.files[*file].written());
        self.names
            .iter()
            .filter(|(name, _)| lasts(name))
            .map(name)
            .collect()
    }

    /// Returns the files after a power failure. With dice, some data that was never synced is there
    /// too.
    pub(crate) fn image(&self, mut dice: Option<Dice>) -> Image {
        let mut coin = |sides| dice.as_mut().is_some_and(|dice| dice.below(sides) == 0);
        let mut names = self.durable_names.clone();
        let folders: BTreeSet<_> = self
            .names
            .keys()
            .chain(names.keys())
            .filter_map(|name| name.parent())
            .collect();
        for folder in folders.into_iter().map(Path::to_owned).collect::<Vec<_>>() {
            if coin(2) {
                names.retain(|name, _| name.parent() != Some(&folder));
                let now = self
                    .names
                    .iter()
                    .filter(|(name, _)| name.parent() == Some(&folder));
                names.extend(now.map(|(name, file)| (name.clone(), *file)));
            }
        }
        let content = |(name, file): (PathBuf, usize)| {
            let mut octets = Vec::new();
            for (number, change) in self.files[file].changes.iter().enumerate() {
                match change {
                    _ if number >= self.files[file].durable && !coin(2) => {}
                    Change::Write { at, data } if number >= self.files[file].durable && coin(3) => {
                        // Up to a sector in its middle; the length may have come before the rest.
                        let kept = ((at + data.len() / 2) / SECTOR * SECTOR).saturating_sub(*at);
                        put(&mut octets, *at, &data[..kept]);
                        if coin(2) {
                            octets.resize(octets.len().max(at + data.len()), 0);
                        }
                    }
                    change => change.make(&mut octets),
                }
            }
            (name, octets)
        };
        names
            .into_iter()
            .filter(|(name, _)| lasts(name))
            .map(content)
            .collect()
    }
}

fn lasts(name: &Path) -> bool {
    !name
        .file_name()
        .is_some_and(|name| FLEETING.iter().any(|one| name == *one))
}

fn put(octets: &mut Vec<u8>, at: usize, data: &[u8]) {
    octets.resize(octets.len().max(at + data.len()), 0);
    octets[at..at + data.len()].copy_from_slice(data);
}

impl Change {
    fn make(&self, octets: &mut Vec<u8>) {
        match self {
            Self::Cut(length) => octets.resize(*length, 0),
            Self::Write { at, data } => put(octets, *at, data),
        }
    }
}

impl File {
    fn written(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        self.changes
            .iter()
            .for_each(|change| change.make(&mut octets));
        octets
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        self.changes.push(Change::Write {
            at,
            data: data.to_vec(),
        });
        self.end = at + data.len();
    }

    /// A file that is long enough stays as it is.
    fn grow(&mut self, length: usize) {
        if self.written().len() < length {
            self.changes.push(Change::Cut(length));
        }
    }

    fn cut(&mut self, length: usize) {
        self.changes.push(Change::Cut(length));
        self.end = length;
    }
}
