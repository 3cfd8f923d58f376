//! The segment that is being written.
//!
//! After a failed write or sync nothing more is appended: the kernel may have dropped pages, and a
//! second sync that succeeds proves nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::super::SpoolError;
use super::super::file::io_error;
use super::batch::BatchEncoder;
use super::frame::{DATA_START, SegmentHeader};
use crate::storage::files;

/// The segment that is being written.
#[derive(Debug)]
pub struct SegmentFile {
    file: File,
    path: PathBuf,
    header: SegmentHeader,
    size: u64,
    end: u64,
    is_sealed: bool,
}

/// The reason why a batch was not appended.
#[derive(Debug)]
pub enum AppendError {
    /// The batch is not in the log and will not be. The disk is full, or a quota is exhausted.
    Rejected(SpoolError),
    /// The batch may be in the log after the next start. The disk failed.
    Uncertain(SpoolError),
}

impl AppendError {
    /// Sorts an error of the system: a full disk or quota rejects, any other means that the disk
    /// failed.
    pub(super) fn of(what: &str, path: &Path, error: &io::Error) -> Self {
        let described = io_error(what, path, error);
        if files::is_full(error) {
            Self::Rejected(described)
        } else {
            Self::Uncertain(described)
        }
    }

    /// Returns the description of the error.
    #[must_use]
    pub fn into_inner(self) -> SpoolError {
        let (Self::Rejected(error) | Self::Uncertain(error)) = self;
        error
    }
}

impl SegmentFile {
    /// Takes over a file of `size` octets whose header is durable.
    pub(super) fn new(file: File, path: &Path, header: SegmentHeader, size: u64) -> Self {
        Self {
            file,
            path: path.to_owned(),
            header,
            size,
            end: DATA_START,
            is_sealed: false,
        }
    }

    /// Returns the number of the segment.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// Returns the size of the file in octets.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the offset after the last batch.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Returns the octets that can still be appended; 0 after a failure.
    #[must_use]
    pub fn room(&self) -> u64 {
        if self.is_sealed {
            0
        } else {
            self.size.saturating_sub(self.end)
        }
    }

    /// Starts a batch at the end of the segment. `buffer` is used for its octets.
    #[must_use]
    pub fn batch(&self, buffer: Vec<u8>) -> BatchEncoder {
        BatchEncoder::new(self.header, self.end, buffer)
    }

    /// Appends a batch and syncs it. When this returns `Ok`, the batch survives kill -9 and power
    /// loss. Returns the buffer.
    ///
    /// # Errors
    /// [`AppendError`]; the segment has no room any more then.
    pub fn append(&mut self, batch: BatchEncoder) -> Result<Vec<u8>, AppendError> {
        let start = batch.start();
        let octets = batch.finish();
        if start != self.end || octets.len() as u64 > self.room() {
            let path = self.path.display();
            let text = format!("cannot write {path}: the batch does not fit the segment");
            return Err(AppendError::Rejected(SpoolError::Io(text)));
        }
        if let Err(error) = self.file.write_all_at(&octets, start) {
            self.is_sealed = true;
            // The end of the batch is its last part, so an incomplete write is no batch.
            return Err(AppendError::of("write", &self.path, &error));
        }
        if let Err(error) = self.file.sync_data() {
            self.is_sealed = true;
            // Not the error of a full disk: the octets may be on it all the same.
            let text = format!("cannot sync {}: {error}", self.path.display());
            return Err(AppendError::Uncertain(SpoolError::Io(text)));
        }
        self.end += octets.len() as u64;
        Ok(octets)
    }
}
