//! Reading what is kept, line by line and never more than one in memory.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan as _};

use super::chain::{self, Link};
use super::record::{Acceptance, Delivery, Statement};
use super::{EvidenceError, folder};

/// Octets of a line, at most. No record comes near.
const LINE_MAX: u64 = 256 << 10;

/// The lines of a file.
pub(super) struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    number: u64,
    line: Vec<u8>,
}

/// One of them.
pub(super) struct Line<'a> {
    pub(super) number: u64,
    /// Without its end; of one that is too long, the beginning.
    pub(super) text: &'a [u8],
    /// Whether it has an end.
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

    pub(super) fn next(&mut self) -> Result<Option<Line<'_>>, EvidenceError> {
        let path = &self.path;
        let failed = |error: std::io::Error| EvidenceError::new("read", path, &error);
        self.line.clear();
        (&mut self.reader).take(LINE_MAX).read_until(b'\n', &mut self.line).map_err(failed)?;
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
        Ok(Some(Line { number: self.number, text: &self.line, is_whole }))
    }
}

/// Passes over the rest of a line; says whether it has an end.
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

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Lines that were left out, for they are no records as they were written: [`super::verify`] names them.
    pub bad: u64,
}

/// A record of mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A message came in.
    In(Box<Acceptance>),
    /// The result of one attempt for one recipient.
    Out(Box<Delivery>),
}

/// Reads every delivery since a time; see [`records`].
///
/// # Errors
/// [`EvidenceError`] where the folder or a file of it cannot be read.
pub fn deliveries(
    folder: &Path,
    since: Option<Timestamp>,
    mut each: impl FnMut(&str, &Link, Delivery) -> bool,
) -> Result<Reading, EvidenceError> {
    records(folder, since, |line, link, record| match record {
        Record::In(_) => true,
        Record::Out(delivery) => each(line, link, *delivery),
    })
}

/// Reads every record of mail since a time, in the order in which they were written. `each` is given the line as it
/// stands as well, and says whether to go on.
///
/// # Errors
/// [`EvidenceError`] where the folder or a file of it cannot be read.
pub fn records(
    folder: &Path,
    since: Option<Timestamp>,
    mut each: impl FnMut(&str, &Link, Record) -> bool,
) -> Result<Reading, EvidenceError> {
    // A clock that was set back leaves records in a later file than theirs, never in an earlier one.
    let from = since.and_then(|since| folder::day(since).checked_sub(1.day()).ok());
    let mut bad = 0;
    for file in folder::files(folder)?.into_iter().filter(|file| from.is_none_or(|from| file.day >= from)) {
        let mut lines = Lines::open(&file.path)?;
        while let Some(line) = lines.next()? {
            // What has no end is being written, or no record. What is read behind it would be the rest of it.
            if !line.is_whole {
                break;
            }
            let (Ok(link), Ok(text)) = (chain::read(line.text), std::str::from_utf8(line.text)) else {
                bad += 1;
                continue;
            };
            if since.is_some_and(|since| link.time < since) {
                continue;
            }
            let record = match serde_json::from_str(text) {
                Ok(Statement::Delivery(delivery)) => Record::Out(delivery),
                Ok(Statement::Accepted(acceptance)) => Record::In(acceptance),
                Ok(
                    Statement::Begun { .. } | Statement::Torn { .. } | Statement::Dropped { .. } | Statement::Unknown,
                ) => continue,
                Err(_) => {
                    bad += 1;
                    continue;
                }
            };
            if !each(text, &link, record) {
                return Ok(Reading { bad });
            }
        }
    }
    Ok(Reading { bad })
}
