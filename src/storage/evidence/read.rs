//! Reads the records line by line, with one line in memory at a time.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan as _};

use super::chain::{self, Link};
use super::error::EvidenceError;
use super::folder;
use super::record::{AcceptanceRecord, DeliveryRecord, EvidenceRecord};

/// The longest line that is read, in octets. Records are far shorter.
const LINE_MAX: u64 = 256 << 10;

/// A reader of the lines of a file.
pub(super) struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    number: u64,
    line: Vec<u8>,
}

/// One line of a file.
pub(super) struct FileLine<'a> {
    pub(super) number: u64,
    /// The text without its line end; only the beginning of a line that is too long.
    pub(super) text: &'a [u8],
    /// True if the line has a line end.
    pub(super) is_whole: bool,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, EvidenceError> {
        let file = File::open(path).map_err(|error| EvidenceError::new("open", path, &error))?;
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, file),
            path: path.to_owned(),
            number: 0,
            line: Vec::new(),
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<FileLine<'_>>, EvidenceError> {
        let path = &self.path;
        let failed = |error: std::io::Error| EvidenceError::new("read", path, &error);
        self.line.clear();
        (&mut self.reader)
            .take(LINE_MAX)
            .read_until(b'\n', &mut self.line)
            .map_err(failed)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let mut is_whole = self.line.last() == Some(&b'\n');
        if is_whole {
            self.line.pop();
        } else if self.line.len() as u64 == LINE_MAX {
            is_whole = skip_line(&mut self.reader).map_err(failed)?;
        }
        Ok(Some(FileLine {
            number: self.number,
            text: &self.line,
            is_whole,
        }))
    }
}

/// Skips the remainder of a line. Returns whether it has a line end.
fn skip_line(reader: &mut BufReader<File>) -> std::io::Result<bool> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        if let Some(at) = memchr::memchr(b'\n', buffer) {
            reader.consume(at + 1);
            return Ok(true);
        }
        let all = buffer.len();
        reader.consume(all);
    }
}

/// The result of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadResult {
    /// The number of lines that were left out because they are not valid records; [`super::verify`]
    /// names them.
    pub bad: u64,
}

/// A record that concerns mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailRecord {
    /// A message was accepted.
    Accepted(Box<AcceptanceRecord>),
    /// The result of one attempt for one recipient.
    Delivery(Box<DeliveryRecord>),
}

/// Reads every delivery since a time; see [`records`].
///
/// # Errors
/// [`EvidenceError`] if the folder or a file in it cannot be read.
pub fn deliveries(
    folder: &Path,
    since: Option<Timestamp>,
    mut each: impl FnMut(&str, &Link, DeliveryRecord) -> bool,
) -> Result<ReadResult, EvidenceError> {
    records(folder, since, |line, link, record| match record {
        MailRecord::Accepted(_) => true,
        MailRecord::Delivery(delivery) => each(line, link, *delivery),
    })
}

/// Reads every mail record since a time, in the order in which they were written. `each` receives
/// the line, its link and the record, and returns whether to continue.
///
/// # Errors
/// [`EvidenceError`] if the folder or a file in it cannot be read.
pub fn records(
    folder: &Path,
    since: Option<Timestamp>,
    mut each: impl FnMut(&str, &Link, MailRecord) -> bool,
) -> Result<ReadResult, EvidenceError> {
    // After the clock was set back, records are in a later file than their day, never in an earlier
    // one.
    let from = since.and_then(|since| folder::day(since).checked_sub(1.day()).ok());
    let mut bad = 0;
    for file in folder::files(folder)?
        .into_iter()
        .filter(|file| from.is_none_or(|from| file.day >= from))
    {
        let mut lines = Lines::open(&file.path)?;
        while let Some(line) = lines.next()? {
            // A line without an end is still being written, or torn. The next read would return its
            // remainder.
            if !line.is_whole {
                break;
            }
            let (Ok(link), Ok(text)) = (chain::read(line.text), std::str::from_utf8(line.text))
            else {
                bad += 1;
                continue;
            };
            if since.is_some_and(|since| link.time < since) {
                continue;
            }
            let record = match serde_json::from_str(text) {
                Ok(EvidenceRecord::Delivery(delivery)) => MailRecord::Delivery(delivery),
                Ok(EvidenceRecord::Accepted(acceptance)) => MailRecord::Accepted(acceptance),
                Ok(
                    EvidenceRecord::Begun { .. }
                    | EvidenceRecord::Torn { .. }
                    | EvidenceRecord::Dropped { .. }
                    | EvidenceRecord::Unknown,
                ) => continue,
                Err(_) => {
                    bad += 1;
                    continue;
                }
            };
            if !each(text, &link, record) {
                return Ok(ReadResult { bad });
            }
        }
    }
    Ok(ReadResult { bad })
}
