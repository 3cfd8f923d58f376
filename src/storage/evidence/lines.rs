//! Reads a day line by line, with one line in memory at a time, compressed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::PathBuf;

use flate2::bufread::MultiGzDecoder;

use super::days::DayFile;
use super::error::EvidenceError;
use crate::storage::files::parent;

/// The longest line that is read, in octets. Records are far shorter.
pub(super) const LINE_MAX: u64 = 256 << 10;
/// The most octets that one octet of a compressed day may stand for. A record contains a hash, which
/// does not compress, so records stay far below that.
const EXPANSION_MAX: u64 = 256;
/// The octets that a compressed day may have in any case.
const EXPANSION_FREE: u64 = 1 << 20;
const BUFFER: usize = 64 << 10;

/// A reader of the lines of a day.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    path: PathBuf,
    is_compressed: bool,
    number: u64,
    line: Vec<u8>,
    damage: Option<String>,
}

/// One line of a file.
pub(super) struct FileLine<'a> {
    pub(super) number: u64,
    /// The text without its line end; only the beginning of a line that is too long.
    pub(super) text: &'a [u8],
    /// True if the line has a line end.
    pub(super) is_whole: bool,
}

/// The octets of a compressed day, with a limit on their number.
struct Expanded<R> {
    decoder: R,
    left: u64,
}

impl<R: Read> Read for Expanded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            let text = format!("it expands to more than {EXPANSION_MAX} times its size");
            io::Error::new(ErrorKind::InvalidData, text)
        })?;
        Ok(read)
    }
}

/// Opens the octets of a day. A plain file that has been compressed since it was listed is opened as
/// a compressed one. Returns whether it is compressed.
pub(super) fn open(file: &DayFile) -> Result<(Box<dyn BufRead>, bool), EvidenceError> {
    let failed = |error| EvidenceError::new("open", &file.path, error);
    let opened = match File::open(&file.path) {
        Err(error) if error.kind() == ErrorKind::NotFound && !file.is_compressed => {
            let compressed = DayFile::compressed(parent(&file.path), file.day);
            match File::open(compressed.path) {
                Ok(opened) => return expanded(opened).map(|it| (it, true)).map_err(failed),
                Err(_) => Err(error),
            }
        }
        opened => opened,
    };
    let opened = opened.map_err(failed)?;
    if file.is_compressed {
        return expanded(opened).map(|it| (it, true)).map_err(failed);
    }
    Ok((Box::new(BufReader::with_capacity(BUFFER, opened)), false))
}

/// Returns the octets of an open compressed file.
pub(super) fn expanded(file: File) -> io::Result<Box<dyn BufRead>> {
    let left = file.metadata()?.len().saturating_mul(EXPANSION_MAX) + EXPANSION_FREE;
    let decoder = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file));
    let expanded = Expanded { decoder, left };
    Ok(Box::new(BufReader::with_capacity(BUFFER, expanded)))
}

/// Returns whether an error of a compressed file means that its content is damaged, not that it
/// cannot be read.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof
    )
}

impl Lines {
    pub(super) fn open(file: &DayFile) -> Result<Self, EvidenceError> {
        let (reader, is_compressed) = open(file)?;
        Ok(Self {
            reader,
            path: file.path.clone(),
            is_compressed,
            number: 0,
            line: Vec::new(),
            damage: None,
        })
    }

    /// Returns the lines of a reader, whose place is called `path`.
    pub(super) fn of_reader(reader: Box<dyn BufRead>, path: PathBuf) -> Self {
        Self {
            reader,
            path,
            is_compressed: false,
            number: 0,
            line: Vec::new(),
            damage: None,
        }
    }

    /// Returns the next line; `None` at the end, and where a compressed file is damaged.
    pub(super) fn next(&mut self) -> Result<Option<FileLine<'_>>, EvidenceError> {
        if self.damage.is_some() {
            return Ok(None);
        }
        match self.read_line() {
            Ok(None) => Ok(None),
            Ok(Some(is_whole)) => Ok(Some(FileLine {
                number: self.number,
                text: &self.line,
                is_whole,
            })),
            Err(error) if self.is_compressed && is_damage(&error) => {
                self.damage = Some(error.to_string());
                Ok(None)
            }
            Err(error) => Err(EvidenceError::new("read", &self.path, error)),
        }
    }

    /// Returns the damage at which a compressed file ended, and with [`Lines::number`] its line.
    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Returns the number of the line that was read last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Reads a line into `line`. Returns whether it has a line end; `None` at the end of the file.
    fn read_line(&mut self) -> io::Result<Option<bool>> {
        self.line.clear();
        self.number += 1;
        (&mut self.reader)
            .take(LINE_MAX)
            .read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            self.number -= 1;
            return Ok(None);
        }
        let mut is_whole = self.line.last() == Some(&b'\n');
        if is_whole {
            self.line.pop();
        } else if self.line.len() as u64 == LINE_MAX {
            is_whole = skip_line(&mut *self.reader)?;
        }
        Ok(Some(is_whole))
    }
}

/// Skips the remainder of a line. Returns whether it has a line end.
fn skip_line(reader: &mut dyn BufRead) -> io::Result<bool> {
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
