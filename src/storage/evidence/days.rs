//! The files of the evidence: one for each day in UTC.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::error::EvidenceError;
use crate::storage::files::with_suffix;

/// The beginning of the name of a file with an incomplete record.
pub(super) const TORN: &str = "torn-";
/// The end of the name of a day.
const SUFFIX: &str = ".jsonl";
/// The end of the name of a compressed day after [`SUFFIX`].
const COMPRESSED: &str = ".gz";
/// The end of the name of a day that is being compressed, after [`COMPRESSED`].
const UNFINISHED: &str = ".new";

/// The file of one day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DayFile {
    pub(super) day: Date,
    pub(super) path: PathBuf,
    pub(super) is_compressed: bool,
}

impl DayFile {
    pub(super) fn of(folder: &Path, day: Date) -> Self {
        Self {
            day,
            path: folder.join(format!("{day}{SUFFIX}")),
            is_compressed: false,
        }
    }

    /// Returns the compressed file of a day.
    pub(super) fn compressed(folder: &Path, day: Date) -> Self {
        Self {
            day,
            path: folder.join(format!("{day}{SUFFIX}{COMPRESSED}")),
            is_compressed: true,
        }
    }

    /// Returns the path at which a file is compressed before it gets the name of this one.
    pub(super) fn unfinished(&self) -> PathBuf {
        with_suffix(&self.path, UNFINISHED)
    }

    /// Returns the day whose file is written to after this one. Nothing is appended to a compressed
    /// day.
    pub(super) fn next_day(&self) -> Date {
        if self.is_compressed {
            // Fails only at the end of the calendar.
            self.day.tomorrow().unwrap_or(self.day)
        } else {
            self.day
        }
    }

    /// Reads a name in a folder; `None` if it is not one that we write ourselves.
    fn named(folder: &Path, name: &str) -> Option<Self> {
        let (plain, is_compressed) = match name.strip_suffix(COMPRESSED) {
            Some(plain) => (plain, true),
            None => (name, false),
        };
        let day = plain.strip_suffix(SUFFIX)?.parse().ok()?;
        let file = if is_compressed {
            Self::compressed(folder, day)
        } else {
            Self::of(folder, day)
        };
        (file.path.file_name()? == name).then_some(file)
    }
}

/// Returns the day of a time in UTC.
pub(super) fn day(at: Timestamp) -> Date {
    at.to_zoned_datetime(TimeZone::UTC).date()
}

/// Returns the day files of a folder, the oldest first, with one file for each day.
pub(super) fn files(folder: &Path) -> Result<Vec<DayFile>, EvidenceError> {
    let failed = |error| EvidenceError::new("list", folder, error);
    let mut found: BTreeMap<Date, DayFile> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(&failed)? {
        let name = entry.map_err(&failed)?.file_name();
        let Some(file) = name.to_str().and_then(|name| DayFile::named(folder, name)) else {
            continue;
        };
        if !file.is_compressed || !found.contains_key(&file.day) {
            found.insert(file.day, file);
        }
    }
    Ok(found.into_values().collect())
}

/// Returns the day files of a folder in which a daemon may be compressing a day. A listing during
/// the change from the plain to the compressed file may have neither of them.
pub(super) fn files_for_reading(folder: &Path) -> Result<Vec<DayFile>, EvidenceError> {
    let days = |files: &[DayFile]| files.iter().map(|file| file.day).collect::<Vec<_>>();
    let mut listed = files(folder)?;
    loop {
        let again = files(folder)?;
        if days(&listed) == days(&again) {
            return Ok(again);
        }
        listed = again;
    }
}

/// Returns the size in octets of all records in a folder, and of torn ones.
pub(super) fn size_of_records(folder: &Path) -> Result<u64, EvidenceError> {
    let failed = |error| EvidenceError::new("list", folder, error);
    let mut octets: u64 = 0;
    for entry in fs::read_dir(folder).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let name = entry.file_name();
        let is_counted = name
            .to_str()
            .is_some_and(|name| name.starts_with(TORN) || DayFile::named(folder, name).is_some());
        // A day that disappears meanwhile has been compressed or has expired.
        if let Some(file) = entry.metadata().ok().filter(|_| is_counted) {
            octets = octets.saturating_add(file.len());
        }
    }
    Ok(octets)
}

/// Removes files that were being compressed when the process ended. The plain files still exist.
pub(super) fn remove_unfinished(folder: &Path) -> Result<(), EvidenceError> {
    let failed = |error| EvidenceError::new("list", folder, error);
    for entry in fs::read_dir(folder).map_err(&failed)? {
        let name = entry.map_err(&failed)?.file_name();
        let finished = name.to_str().and_then(|name| name.strip_suffix(UNFINISHED));
        if finished.is_some_and(|name| DayFile::named(folder, name).is_some()) {
            let path = folder.join(&name);
            fs::remove_file(&path).map_err(|error| EvidenceError::new("remove", &path, error))?;
        }
    }
    Ok(())
}
