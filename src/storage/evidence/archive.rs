//! The way on when evidence fills its limit or its disk: closed days move to another folder.
//!
//! The command copies them there, verifies the copies and syncs them (`copy_closed_days`). If the
//! present day alone fills the disk, the writer closes that day first, and records that follow go to
//! the file of the day after it (`copy_days_until`). Then the
//! writer, or the command if no daemon runs, removes them here, in an order in which a crash at any
//! moment loses nothing and which needs no disk space:
//!
//! 1. the oldest of these days is renamed to the marker of the removal (`marker`). From then on each
//!    start goes on with the removal;
//! 2. that file is emptied, and the other days are removed;
//! 3. a `dropped` record in the chain says up to which record the days were archived, and the file
//!    is removed.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::chain::{self, ChainHead, Link, RecordHash};
use super::compress::{FileComparison, compare, write_compressed};
use super::days::{self, DayFile};
use super::error::EvidenceError;
use super::lines::{Lines, expanded, is_damage};
use super::marker::{RemovalMarker, RemovalReason};
use super::verify::{Finding, verify_days};
use crate::storage::files::{create_folder, sync_folder};
use crate::storage::folder_lock::{FolderLock, LockError};

/// Closed days that are in an archive, and the end of the chain in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedDays {
    /// The oldest day.
    pub first: Date,
    /// The newest day.
    pub until: Date,
    /// The number of days.
    pub days: u64,
    /// The size of their files in the archive, in octets.
    pub octets: u64,
    /// The number of their last record.
    pub last_seq: u64,
    /// The hash of their last record, which the next day continues.
    pub last_hash: RecordHash,
    /// The archive.
    pub archive: PathBuf,
}

/// The reason why days were not archived. Nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file or folder cannot be read or written.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The archive is the folder itself.
    #[error("{} is the evidence folder itself; name another folder", .0.display())]
    SameFolder(PathBuf),
    /// The archive has another file of a day.
    #[error(
        "{} is not a copy of {}; name another folder, or move that file away",
        copy.display(), file.display()
    )]
    Differs {
        /// The day.
        file: PathBuf,
        /// The file in the archive.
        copy: PathBuf,
    },
    /// The days have defects.
    #[error(
        "the chain of these days is not whole: {}; see gatepost evidence verify; --damaged archives them as they are",
        .0.first().map(ToString::to_string).unwrap_or_default()
    )]
    Damaged(Vec<Finding>),
    /// The days do not end where the next day begins.
    #[error("the days to be removed are not those that were archived; run the command again")]
    Changed,
    /// Another process has the folder.
    #[error("the folder is in use by another process ({0})")]
    InUse(String),
    /// The evidence is in the database that nodes share.
    #[error("the evidence is in the database, and has no files to archive; back up the database")]
    InDatabase,
    /// The daemon is stopping, or keeps no evidence.
    #[error("the daemon is stopping; run the command again")]
    Stopping,
}

/// Returns a function that makes an error of an operation on a path.
fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> EvidenceError + 'a {
    move |error| EvidenceError::new(what, path, error)
}

/// Copies all closed days to an archive, as compressed files, compares each copy with its day,
/// verifies the chain of the copies, and syncs them. Returns `None` if no day is closed. With
/// `accepts_damage`, days with defects are copied as they are.
///
/// # Errors
/// [`ArchiveError`]. What was copied stays in the archive, and the next call goes on from there.
pub fn copy_closed_days(
    folder: &Path,
    archive: &Path,
    accepts_damage: bool,
) -> Result<Option<ArchivedDays>, ArchiveError> {
    copy_days(folder, archive, None, accepts_damage)
}

/// Copies all days up to `until` as [`copy_closed_days`] does, although that day may not be over. No
/// writer may append to it any more.
///
/// # Errors
/// [`ArchiveError`], as [`copy_closed_days`].
pub fn copy_days_until(
    folder: &Path,
    archive: &Path,
    until: Date,
    accepts_damage: bool,
) -> Result<Option<ArchivedDays>, ArchiveError> {
    copy_days(folder, archive, Some(until), accepts_damage)
}

/// Returns the newest day that has a record; `None` if there is no record.
///
/// # Errors
/// [`EvidenceError`] if the folder cannot be read.
pub fn newest_day(folder: &Path) -> Result<Option<Date>, EvidenceError> {
    // A full disk leaves the file of a day empty.
    let has_record = |file: &DayFile| fs::metadata(&file.path).is_ok_and(|file| file.len() > 0);
    let files = days::files_for_reading(folder)?;
    Ok(files
        .iter()
        .rev()
        .find(|file| has_record(file))
        .map(|file| file.day))
}

fn copy_days(
    folder: &Path,
    archive: &Path,
    until: Option<Date>,
    accepts_damage: bool,
) -> Result<Option<ArchivedDays>, ArchiveError> {
    let (closed, open) = closed_days(folder, until)?;
    let (Some(first), Some(last)) = (closed.first(), closed.last()) else {
        return Ok(None);
    };
    let (first, until) = (first.day, last.day);
    create_folder(archive).map_err(failed("create", archive))?;
    let canonical = |path: &Path| fs::canonicalize(path).map_err(failed("open", path));
    let archive = canonical(archive)?;
    if archive == canonical(folder)? {
        return Err(ArchiveError::SameFolder(archive));
    }
    let mut copies = Vec::new();
    let mut octets = 0;
    for day in &closed {
        let copy = copy_day(day, &archive)?;
        octets += fs::metadata(&copy.path).map_or(0, |file| file.len());
        copies.push(copy);
    }
    sync_folder(&archive).map_err(failed("sync", &archive))?;
    let verified = verify_days(&copies)?;
    let last = verified.last.as_ref().map(Link::head);
    if !accepts_damage && !verified.findings.is_empty() {
        return Err(ArchiveError::Damaged(verified.findings));
    }
    let head = match (head_before(&open)?, last) {
        (Some(head), Some(last)) if head == last || accepts_damage => head,
        // Nothing was written since.
        (None, Some(last)) => last,
        _ => return Err(ArchiveError::Changed),
    };
    Ok(Some(ArchivedDays {
        first,
        until,
        days: copies.len() as u64,
        octets,
        last_seq: head.seq,
        last_hash: head.hash,
        archive,
    }))
}

/// Returns the days that are over, or not after `until`, and the others. The newest day is written to
/// until its date is over; it may be the only one, if nothing could be written since.
fn closed_days(
    folder: &Path,
    until: Option<Date>,
) -> Result<(Vec<DayFile>, Vec<DayFile>), EvidenceError> {
    let files = days::files_for_reading(folder)?;
    let newest = files.last().map(|newest| newest.day);
    let today = days::day(Timestamp::now());
    let is_closed =
        |day| day < today || Some(day) < newest || until.is_some_and(|until| day <= until);
    Ok(files.into_iter().partition(|file| is_closed(file.day)))
}

/// Copies one day to the archive, durably, unless it is there already. A copy that was made before
/// the day went on is replaced.
fn copy_day(day: &DayFile, archive: &Path) -> Result<DayFile, ArchiveError> {
    let copy = DayFile::compressed(archive, day.day);
    if copy.path.exists() {
        if is_same(day, &copy.path)? {
            return Ok(copy);
        }
        if !is_beginning(day, &copy.path)? {
            return Err(ArchiveError::Differs {
                file: day.path.clone(),
                copy: copy.path,
            });
        }
    }
    let unfinished = copy.unfinished();
    let copied = write_copy(day, &unfinished).and_then(|()| {
        if is_same(day, &unfinished)? {
            return Ok(());
        }
        let error = io::Error::other("the copy is not the same as the original");
        Err(EvidenceError::new("copy", &day.path, error))
    });
    if let Err(error) = copied {
        let _never_made = fs::remove_file(&unfinished);
        return Err(error.into());
    }
    fs::rename(&unfinished, &copy.path)
        .map_err(|error| EvidenceError::new("rename", &unfinished, error))?;
    Ok(copy)
}

/// Writes the compressed copy of a day, and syncs it.
fn write_copy(day: &DayFile, to: &Path) -> Result<(), EvidenceError> {
    if !day.is_compressed {
        return write_compressed(day, to, &AtomicBool::new(false)).map(drop);
    }
    let mut original =
        File::open(&day.path).map_err(|error| EvidenceError::new("open", &day.path, error))?;
    let mut options = File::options();
    let copy = options.write(true).create(true).truncate(true).mode(0o600);
    copy.open(to)
        .and_then(|mut copy| io::copy(&mut original, &mut copy).and_then(|_| copy.sync_all()))
        .map_err(|error| EvidenceError::new("write", to, error))
}

/// Returns whether a file has the same octets as a day, or the same content.
fn is_same(day: &DayFile, copy: &Path) -> Result<bool, EvidenceError> {
    let failed = |error| EvidenceError::new("read", copy, error);
    if day.is_compressed && has_same_octets(&day.path, copy).map_err(failed)? {
        return Ok(true);
    }
    let comparison = compare(day, copy, &AtomicBool::new(false))?;
    Ok(comparison == FileComparison::Equal)
}

/// Returns whether a copy is sound and has the beginning of a day.
fn is_beginning(day: &DayFile, copy: &Path) -> Result<bool, EvidenceError> {
    if compare(day, copy, &AtomicBool::new(false))? != FileComparison::SecondEnds {
        return Ok(false);
    }
    let read = File::open(copy)
        .and_then(expanded)
        .and_then(|mut content| io::copy(&mut content, &mut io::sink()));
    match read {
        Ok(_) => Ok(true),
        Err(error) if is_damage(&error) => Ok(false),
        Err(error) => Err(EvidenceError::new("read", copy, error)),
    }
}

fn has_same_octets(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (
        BufReader::new(File::open(one)?),
        BufReader::new(File::open(other)?),
    );
    loop {
        let (block, same) = (one.fill_buf()?, other.fill_buf()?);
        let length = block.len().min(same.len());
        if block[..length] != same[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(block.is_empty() && same.is_empty());
        }
        one.consume(length);
        other.consume(length);
    }
}

/// Returns the head before the first record of these files, or `None` if they have no record.
pub(super) fn head_before(files: &[DayFile]) -> Result<Option<ChainHead>, EvidenceError> {
    for file in files {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next()? {
            if let Ok(link) = chain::read(line.text) {
                return Ok(Some(ChainHead {
                    seq: link.seq.saturating_sub(1),
                    hash: link.prev,
                }));
            }
        }
    }
    Ok(None)
}

/// Returns the last record of these files, or `None` if they have none.
fn last_record(files: &[DayFile]) -> Result<Option<ChainHead>, EvidenceError> {
    for file in files.iter().rev() {
        if let Some(last) = verify_days(std::slice::from_ref(file))?.last {
            return Ok(Some(last.head()));
        }
    }
    Ok(None)
}

/// Returns whether a running daemon, or another command, has the folder.
#[must_use]
pub fn is_in_use(folder: &Path) -> bool {
    FolderLock::is_held(folder)
}

/// Removes days that are in an archive, for a folder that no daemon uses. The next start of the
/// daemon records it.
///
/// # Errors
/// [`ArchiveError`] if the folder is in use, or the days are not those that were archived.
pub fn remove_archived_days(folder: &Path, archived: &ArchivedDays) -> Result<(), ArchiveError> {
    let _lock = FolderLock::acquire(folder).map_err(|error| match error {
        LockError::InUse { process } => ArchiveError::InUse(process),
        LockError::Open(error) | LockError::Lock(error) => {
            EvidenceError::new("lock", folder, error).into()
        }
    })?;
    begin_removal(folder, archived)
}

/// Removes archived days, up to the record that says so.
pub(super) fn begin_removal(folder: &Path, archived: &ArchivedDays) -> Result<(), ArchiveError> {
    let (old, kept): (Vec<_>, Vec<_>) = days::files(folder)?
        .into_iter()
        .partition(|file| file.day <= archived.until);
    let archived_head = ChainHead {
        seq: archived.last_seq,
        hash: archived.last_hash,
    };
    let Some(oldest) = old.first() else {
        return Ok(());
    };
    // The next record proves which record the archived days end with; if nothing was written since,
    // their last record does.
    let head = match head_before(&kept)? {
        Some(head) => Some(head),
        None => last_record(&old)?,
    };
    if head != Some(archived_head) {
        return Err(ArchiveError::Changed);
    }
    let reason = RemovalReason::Archived;
    let marker = RemovalMarker::new(folder, reason, archived.until, archived_head);
    fs::rename(&oldest.path, &marker.path)
        .and_then(|()| sync_folder(folder))
        .map_err(|error| EvidenceError::new("rename", &oldest.path, error))?;
    empty_marker(&marker.path, &archived.archive);
    remove_days(folder, archived.until)?;
    Ok(())
}

/// Empties the marker, and writes the path of the archive into it if there is space for it.
fn empty_marker(marker: &Path, archive: &Path) {
    let written = File::options()
        .write(true)
        .truncate(true)
        .open(marker)
        .and_then(|mut file| {
            file.write_all(archive.as_os_str().as_encoded_bytes())?;
            file.sync_all()
        });
    if let Err(error) = written {
        tracing::debug!(file = %marker.display(), %error, "the path of the archive is not recorded");
    }
}

/// Removes all days up to this one, the oldest first, in both forms.
pub(super) fn remove_days(folder: &Path, until: Date) -> Result<(), EvidenceError> {
    for file in days::files(folder)? {
        if file.day > until {
            break;
        }
        for form in [
            DayFile::of(folder, file.day),
            DayFile::compressed(folder, file.day),
        ] {
            match fs::remove_file(&form.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(EvidenceError::new("remove", &form.path, error));
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
    sync_folder(folder).map_err(|error| EvidenceError::new("sync", folder, error))
}
