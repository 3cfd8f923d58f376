//! Reads the contents of messages from a segment.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::super::SpoolError;
use super::super::file::io_error;
use crate::storage::bad_blocks;

/// A segment that is open for reading the contents of messages in it.
#[derive(Debug)]
pub struct SegmentReader {
    number: u64,
    path: PathBuf,
    file: File,
}

impl SegmentReader {
    /// Opens a segment; `None` if it is missing.
    pub(super) fn open(path: &Path, number: u64) -> Result<Option<Self>, SpoolError> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self {
                number,
                path: path.to_owned(),
                file,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", path, &error)),
        }
    }

    /// Returns the number of the segment.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads `length` octets at `offset`; `None` if the segment is too short. Octets that the disk
    /// cannot read are zero: the checksum of the content shows that.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if they cannot be read now. A later try may succeed.
    pub fn read(&self, offset: u64, length: u64) -> Result<Option<Vec<u8>>, SpoolError> {
        let place = offset..offset.saturating_add(length);
        let found = match bad_blocks::read_part(&self.file, place) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(io_error("read", &self.path, &error)),
        };
        for place in &found.unreadable {
            tracing::error!(
                file = %self.path.display(), from = place.start, to = place.end,
                "the disk cannot read a part of the spool's log"
            );
        }
        Ok(Some(found.octets))
    }
}
