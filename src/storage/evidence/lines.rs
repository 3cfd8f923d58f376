//! Reads a file line by line, with one line in memory at a time.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::error::EvidenceError;

/// The longest line that is read, in octets. Records are far shorter.
pub(super) const LINE_MAX: u64 = 256 << 10;

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
        let file = File::open(path).map_err(|error| EvidenceError::new("open", path, error))?;
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, file),
            path: path.to_owned(),
            number: 0,
            line: Vec::new(),
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<FileLine<'_>>, EvidenceError> {
        let path = &self.path;
        let failed = |error: std::io::Error| EvidenceError::new("read", path, error);
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
