//! The folder: a file for each day, and what is made of it when a process starts.
//!
//! ```text
//! 2026-11-26.jsonl   the records of a day, in UTC
//! lock               held by the running instance, with its process id
//! torn-…             what a crash left of a record
//! reserve            room that is given up when the disk is full
//! ```
//!
//! Everything else is foreign and left alone.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::EvidenceError;
use super::chain::{self, Head};
use crate::ownership;

const LOCK: &str = "lock";
const RESERVE: &str = "reserve";
/// Octets in reserve: some 16,000 records; a tenth of what is free where that is less.
const RESERVE_SIZE: u64 = 16 << 20;
/// Octets below which a reserve is not worth its while.
const RESERVE_LEAST: u64 = 256 << 10;
const SUFFIX: &str = ".jsonl";
const TORN: &str = "torn-";
/// Set aside, and not told of in the chain yet.
const UNTOLD: &str = ".untold";
/// How far back from the end of a file a whole record is looked for. What is torn is at most a batch.
const LOOK_BACK: u64 = 64 << 20;

/// The file of one day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DayFile {
    pub(super) day: Date,
    pub(super) path: PathBuf,
}

impl DayFile {
    pub(super) fn of(folder: &Path, day: Date) -> Self {
        Self { day, path: folder.join(format!("{day}{SUFFIX}")) }
    }
}

/// The day of a time, in UTC.
pub(super) fn day(at: Timestamp) -> Date {
    at.to_zoned_datetime(TimeZone::UTC).date()
}

/// The files of a folder, the oldest first.
pub(super) fn files(folder: &Path) -> Result<Vec<DayFile>, EvidenceError> {
    let failed = |error: &io::Error| EvidenceError::new("list", folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(&error))? {
        let name = entry.map_err(|error| failed(&error))?.file_name();
        let day = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse::<Date>().ok());
        // Only as we would write it.
        found.extend(day.map(|day| DayFile::of(folder, day)).filter(|file| file.path.file_name() == Some(&name)));
    }
    found.sort();
    Ok(found)
}

/// Whether a write failed for want of room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Gives the reserve up; whether there was one.
pub(super) fn give_up_reserve(folder: &Path) -> bool {
    fs::remove_file(folder.join(RESERVE)).is_ok()
}

/// Takes up the reserve where it is missing, and a larger one where the disk has more to give by now.
pub(super) fn keep_reserve(folder: &Path) -> io::Result<()> {
    let disk = rustix::fs::statvfs(folder)?;
    let size = RESERVE_SIZE.min(disk.f_bavail.saturating_mul(disk.f_frsize) / 10);
    let path = folder.join(RESERVE);
    let there = fs::metadata(&path).ok().map(|file| file.len());
    if size < RESERVE_LEAST || there.is_some_and(|octets| octets >= size) {
        return Ok(());
    }
    if there.is_some() {
        // Or a crash came between its making and its growth.
        fs::remove_file(&path)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let taken = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size);
    if taken.is_err() {
        fs::remove_file(&path)?;
    }
    Ok(taken?)
}

/// Makes the names in a folder durable.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A new file, or one that is there, to append to.
pub(super) fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Makes the folder where it is missing, and takes it for this process.
pub(super) fn take(folder: &Path) -> Result<File, EvidenceError> {
    let remedy = |what: &str, error: &io::Error| {
        let user = "the user that gatepost runs as";
        EvidenceError(format!(
            "cannot {what} {folder}: {error}; give that folder to {user} (install -d -m 0700 -o USER {folder}), name \
             another with [evidence] path, or write path = \"\" to keep no evidence",
            folder = folder.display()
        ))
    };
    if !folder.is_dir() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| remedy("make the folder for the evidence,", &error))?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync(parent).map_err(|error| EvidenceError::new("sync", parent, &error))?;
    }
    ownership::check(folder).map_err(|fault| EvidenceError(format!("the folder for the evidence, {fault}")))?;
    let path = folder.join(LOCK);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut lock = opened.map_err(|error| remedy("write to the folder for the evidence,", &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            // Only for the message: it may be half written.
            let _unreadable = (&mut lock).take(20).read_to_string(&mut process);
            return Err(EvidenceError(format!(
                "the folder for the evidence, {}, is in use by another gatepost (process {}): a chain has one writer; \
                 stop it, or give this one an [evidence] path of its own",
                folder.display(),
                process.trim()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(EvidenceError::new("lock", &path, &error)),
    }
    // For people only: a full disk must not keep us from the start.
    let _unwritten = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    Ok(lock)
}

/// Whether a running process has the folder.
pub(super) fn is_in_use(folder: &Path) -> bool {
    let lock = File::open(folder.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// What was set aside, and is not told of in the chain yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Untold {
    pub(super) path: PathBuf,
    pub(super) octets: u64,
}

impl Untold {
    /// The name that it has once it is told of.
    pub(super) fn final_name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(UNTOLD).unwrap_or(&name).to_owned()
    }

    /// It is told of.
    pub(super) fn told(self, folder: &Path) -> Result<(), EvidenceError> {
        let to = folder.join(self.final_name());
        fs::rename(&self.path, &to).map_err(|error| EvidenceError::new("rename", &self.path, &error))
    }
}

/// Finds the head of the chain. Whatever stands behind the last whole record is set aside.
pub(super) fn recover(folder: &Path, now: Timestamp) -> Result<Head, EvidenceError> {
    for file in files(folder)?.into_iter().rev() {
        let path = &file.path;
        let failed = |what: &'static str| move |error: io::Error| EvidenceError::new(what, path, &error);
        let mut opened = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open"))?;
        let length = opened.metadata().map_err(failed("look at"))?.len();
        let (head, end) = last_record(&mut opened, length).map_err(failed("read"))?.unwrap_or((Head::START, 0));
        if end < length {
            let aside = folder.join(format!("{TORN}{}-{}{UNTOLD}", file.day, now.as_second()));
            let mut copied = copy_from(&mut opened, end, &aside);
            if copied.as_ref().is_err_and(is_full) && give_up_reserve(folder) {
                copied = copy_from(&mut opened, end, &aside);
            }
            copied.and_then(|()| sync(folder)).map_err(|error| {
                EvidenceError(format!(
                    "cannot set aside the {} octets that a crash left behind the last whole record of {}, in {}: {error}; \
                     see that this disk has room and works, and start again: all of it is where it was",
                    length - end,
                    path.display(),
                    aside.display()
                ))
            })?;
            opened.set_len(end).and_then(|()| opened.sync_all()).map_err(failed("cut"))?;
            tracing::error!(
                file = %file.path.display(), octets = length - end, aside = %aside.display(),
                "the evidence ends with something that is no whole record, as a crash leaves it; it was set aside"
            );
        }
        if end > 0 {
            // The last process may have been killed before its sync. The one of the next record would cover
            // that as well, but only in this file, and the next record may belong to another day.
            opened.sync_all().map_err(failed("sync"))?;
            return Ok(head);
        }
        fs::remove_file(&file.path).and_then(|()| sync(folder)).map_err(failed("remove the empty"))?;
    }
    Ok(Head::START)
}

/// Copies the end of a file, durably or not at all.
fn copy_from(file: &mut File, start: u64, to: &Path) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let copy = File::options().write(true).create(true).truncate(true).mode(0o600).open(to);
    let copied = copy.and_then(|mut copy| io::copy(file, &mut copy).and_then(|_| copy.sync_all()));
    if copied.is_err() {
        // Half a copy would be told of as if it were whole.
        let _never_made = fs::remove_file(to);
    }
    copied
}

/// What was set aside now, or by an earlier start that came to no end.
pub(super) fn untold(folder: &Path) -> Result<Vec<Untold>, EvidenceError> {
    let failed = |error: &io::Error| EvidenceError::new("list", folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(&error))? {
        let entry = entry.map_err(|error| failed(&error))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(TORN) && name.ends_with(UNTOLD)) {
            let octets = entry.metadata().map_err(|error| failed(&error))?.len();
            found.push(Untold { path: entry.path(), octets });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// The last whole record of a file, and where it ends.
fn last_record(file: &mut File, length: u64) -> io::Result<Option<(Head, u64)>> {
    let mut window = 64 << 10;
    loop {
        let from = length.saturating_sub(window);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.take(length - from).read_to_end(&mut tail)?;
        // Lines that are whole: behind the first line end, unless the file begins here.
        let mut start = if from == 0 { Some(0) } else { memchr::memchr(b'\n', &tail).map(|at| at + 1) };
        let mut last = None;
        while let Some(at) = start {
            let Some(end) = memchr::memchr(b'\n', &tail[at..]).map(|end| at + end) else { break };
            if let Ok(link) = chain::read(&tail[at..end]) {
                last = Some((link.head(), from + end as u64 + 1));
            }
            start = Some(end + 1);
        }
        if last.is_some() || from == 0 || window >= LOOK_BACK {
            return Ok(last);
        }
        window *= 4;
    }
}
