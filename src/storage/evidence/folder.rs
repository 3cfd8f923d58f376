//! The folder of the evidence and its recovery when a process starts.
//!
//! ```text
//! 2026-11-26.jsonl          the records of a day in UTC
//! 2026-11-25.jsonl.gz       the records of a closed day, compressed (`compress`)
//! 2026-11-25.jsonl.gz.new   a closed day that is being compressed
//! archived-…, expired-…     the marker of days that are being removed (`marker`)
//! lock                      locked by the running instance; contains its process id
//! torn-…                    the incomplete record that a crash left
//! reserve                   a reserve of disk space, removed when the disk is full
//! ```
//!
//! A day is closed when a later day has a file. The days never go back, so nothing is appended to a
//! closed day. If a day has both a plain and a compressed file, as after a crash, the plain one is
//! read.
//!
//! Any other file is foreign and left alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::chain::{self, ChainHead};
use super::days::{DayFile, TORN, files};
use super::error::EvidenceError;
use super::lines::Lines;
use super::marker::RemovalMarker;
use crate::storage::files::{create_folder, is_full, sync_folder};
use crate::storage::folder_lock::{self, FolderLock, LockError};
use crate::storage::ownership;
use crate::storage::reserve::ReserveFile;

/// The size of the reserve file in octets, enough for some 16,000 records; at most a tenth of the
/// free space.
const RESERVE_SIZE: u64 = 16 << 20;
/// The smallest useful size of the reserve file in octets.
const RESERVE_MIN: u64 = 256 << 10;
/// The end of the name of a torn file that no record mentions yet.
const UNRECORDED: &str = ".untold";
/// The distance from the end of a file, in octets, within which a complete record is searched. A
/// torn part is at most one batch.
const SEARCH_MAX: u64 = 64 << 20;

/// Creates the reserve file if it is missing, and replaces it by a larger one if the disk now has
/// more free space.
pub(super) fn ensure_reserve(folder: &Path) -> io::Result<()> {
    let disk = rustix::fs::statvfs(folder)?;
    let size = RESERVE_SIZE.min(disk.f_bavail.saturating_mul(disk.f_frsize) / 10);
    if size < RESERVE_MIN {
        return Ok(());
    }
    ReserveFile::of(folder).create(size)
}

/// Removes the reserve file. Returns whether there was one.
pub(super) fn remove_reserve(folder: &Path) -> bool {
    ReserveFile::of(folder).release()
}

/// Opens a file for appending, and creates it if it is missing.
pub(super) fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Creates the folder if it is missing, and locks it for this process.
pub(super) fn lock(folder: &Path) -> Result<FolderLock, EvidenceError> {
    let failed = |what| {
        move |error| EvidenceError::Folder {
            what,
            folder: folder.to_owned(),
            error,
        }
    };
    create_folder(folder).map_err(failed("create the evidence folder"))?;
    ownership::check(folder)?;
    FolderLock::acquire(folder).map_err(|error| match error {
        LockError::Open(error) => failed("write to the evidence folder")(error),
        LockError::Lock(error) => {
            EvidenceError::new("lock", &folder.join(folder_lock::NAME), error)
        }
        LockError::InUse { process } => EvidenceError::InUse {
            folder: folder.to_owned(),
            process,
        },
    })
}

/// The torn end of a file, moved to a file of its own, that no record mentions yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TornFile {
    pub(super) path: PathBuf,
    pub(super) octets: u64,
}

impl TornFile {
    /// Returns the name that the file has once a record mentions it.
    pub(super) fn final_name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(UNRECORDED).unwrap_or(&name).to_owned()
    }

    /// Renames the file, now that a record mentions it.
    pub(super) fn mark_recorded(self, folder: &Path) -> Result<(), EvidenceError> {
        let to = folder.join(self.final_name());
        fs::rename(&self.path, &to).map_err(|error| EvidenceError::new("rename", &self.path, error))
    }
}

/// Finds the head of the chain. Moves whatever follows the last complete record to a file of its
/// own.
pub(super) fn recover(folder: &Path, now: Timestamp) -> Result<ChainHead, EvidenceError> {
    for file in files(folder)?.into_iter().rev() {
        let head = if file.is_compressed {
            last_compressed_record(&file)?
        } else {
            recover_day(folder, &file, now)?
        };
        if let Some(head) = head {
            return Ok(head);
        }
    }
    // All days may have been removed.
    Ok(RemovalMarker::find(folder)?.map_or(ChainHead::START, |removal| removal.head))
}

/// Returns the last record of a compressed day. A damaged day stays as it is; verification reports
/// it.
fn last_compressed_record(file: &DayFile) -> Result<Option<ChainHead>, EvidenceError> {
    let mut lines = Lines::open(file)?;
    let mut last = None;
    while let Some(line) = lines.next()? {
        if let Ok(link) = chain::read(line.text) {
            last = Some(link.head());
        }
    }
    if let Some(damage) = lines.damage() {
        tracing::error!(file = %file.path.display(), line = lines.number(), %damage, "the last day of the evidence is damaged; the chain continues after its last readable record; run gatepost evidence verify");
    }
    Ok(last)
}

/// Finds the last record of a day that is not compressed, and moves whatever follows it to a file
/// of its own. Removes the file if it has no record.
fn recover_day(
    folder: &Path,
    file: &DayFile,
    now: Timestamp,
) -> Result<Option<ChainHead>, EvidenceError> {
    let path = &file.path;
    let failed = |what: &'static str| move |error: io::Error| EvidenceError::new(what, path, error);
    let mut opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed("open"))?;
    let length = opened
        .metadata()
        .map_err(failed("read the metadata of"))?
        .len();
    let (head, end) = last_record(&mut opened, length)
        .map_err(failed("read"))?
        .unwrap_or((ChainHead::START, 0));
    if end < length {
        let torn = folder.join(format!(
            "{TORN}{}-{}{UNRECORDED}",
            file.day,
            now.as_second()
        ));
        let mut copied = copy_from(&mut opened, end, &torn);
        if copied.as_ref().is_err_and(is_full) && remove_reserve(folder) {
            copied = copy_from(&mut opened, end, &torn);
        }
        copied
            .and_then(|()| sync_folder(folder))
            .map_err(|error| EvidenceError::Torn {
                octets: length - end,
                path: path.clone(),
                torn: torn.clone(),
                error,
            })?;
        opened
            .set_len(end)
            .and_then(|()| opened.sync_all())
            .map_err(failed("cut"))?;
        tracing::error!(
            file = %file.path.display(), octets = length - end, aside = %torn.display(),
            "the evidence ended with an incomplete record, as after a crash; moved it to a file of its own"
        );
    }
    if end > 0 {
        // The last process may have been killed before its sync. The sync of the next record would
        // cover this file only if that record belongs to the same day.
        opened.sync_all().map_err(failed("sync"))?;
        return Ok(Some(head));
    }
    fs::remove_file(&file.path)
        .and_then(|()| sync_folder(folder))
        .map_err(failed("remove the empty"))?;
    Ok(None)
}

/// Copies the end of a file durably, or leaves no copy.
fn copy_from(file: &mut File, start: u64, to: &Path) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let copy = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to);
    let copied = copy.and_then(|mut copy| io::copy(file, &mut copy).and_then(|_| copy.sync_all()));
    if copied.is_err() {
        // An incomplete copy would be recorded as complete.
        let _never_made = fs::remove_file(to);
    }
    copied
}

/// Returns the torn files that no record mentions, of this start or of earlier ones that failed.
pub(super) fn unrecorded_torn_files(folder: &Path) -> Result<Vec<TornFile>, EvidenceError> {
    let failed = |error| EvidenceError::new("list", folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(TORN) && name.ends_with(UNRECORDED))
        {
            let octets = entry.metadata().map_err(&failed)?.len();
            found.push(TornFile {
                path: entry.path(),
                octets,
            });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Returns the last complete record of a file and the offset of its end.
fn last_record(file: &mut File, length: u64) -> io::Result<Option<(ChainHead, u64)>> {
    let mut window = 64 << 10;
    loop {
        let from = length.saturating_sub(window);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.take(length - from).read_to_end(&mut tail)?;
        // Complete lines begin after the first line end, or at the beginning of the file.
        let mut start = if from == 0 {
            Some(0)
        } else {
            memchr::memchr(b'\n', &tail).map(|at| at + 1)
        };
        let mut last = None;
        while let Some(at) = start {
            let Some(end) = memchr::memchr(b'\n', &tail[at..]).map(|end| at + end) else {
                break;
            };
            if let Ok(link) = chain::read(&tail[at..end]) {
                last = Some((link.head(), from + end as u64 + 1));
            }
            start = Some(end + 1);
        }
        if last.is_some() || from == 0 || window >= SEARCH_MAX {
            return Ok(last);
        }
        window *= 4;
    }
}
