//! The folder of the log: its segments, and a spare file for the next one.
//!
//! ```text
//! <number>.seg   a segment; its number has sixteen hexadecimal digits
//! spare          a file with allocated space that will become the next segment
//! ```
//!
//! A segment that is not needed any more becomes the spare, so a log that is worked off needs no
//! more space once its segments have their size. On a full disk a segment is as large as the spare file,
//! or as what it is needed for, and no failure makes the spare file smaller. A file gets the name of a
//! segment only when its header is durable.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::SpoolError;
use super::super::file::{io_error, sync_folder};
use super::contents::SegmentReader;
use super::frame::{DATA_START, HeaderFault, SegmentHeader};
use super::recover::{RecoveredSegment, recover};
use super::segment::{AppendError, SegmentFile};
use crate::storage::bad_blocks::{self, is_unreadable};
use crate::storage::files;

/// The name of the spare file.
const SPARE: &str = "spare";
const EXTENSION: &str = "seg";
/// The last number of a segment. No log gets there, and those that follow can be counted.
const LAST: u64 = u64::MAX / 2;
/// The size of the first segment in octets. Each that is filled is followed by one of twice its
/// size.
const FIRST: u64 = 1 << 20;
/// The size of a segment in octets, in a log that is in use.
const SEGMENT: u64 = 16 << 20;
/// The smallest size of a segment in octets, on a small disk.
const SMALLEST: u64 = 256 << 10;
/// The part of the disk that a segment may have, as a divisor.
const DISK_SHARE: u64 = 64;
/// The smallest size of the spare file in octets: room for a thousand removals.
const SMALLEST_SPARE: u64 = 64 << 10;

/// The folder of the log. One thread may begin segments while another retires them.
#[derive(Debug)]
pub struct LogFolder {
    folder: PathBuf,
    /// The size of segments in a log that is in use.
    segment_size: u64,
    /// The size of the next segment.
    next_size: AtomicU64,
    /// Held while the spare file is made, renamed or replaced.
    spare: Mutex<()>,
}

impl LogFolder {
    /// Opens the folder, which is created if it is missing. The size of new segments follows from
    /// the size of the disk.
    ///
    /// # Errors
    /// [`SpoolError::Io`] or [`SpoolError::Full`].
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        files::create_folder(folder).map_err(|error| io_error("create", folder, &error))?;
        let disk = rustix::fs::statvfs(folder)
            .map_err(|error| io_error("read the free space of", folder, &error.into()))?;
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let segment_size = (total / DISK_SHARE).clamp(SMALLEST, SEGMENT) / SMALLEST * SMALLEST;
        Ok(Self {
            segment_size,
            next_size: AtomicU64::new(segment_size.min(FIRST)),
            ..Self::existing(folder)
        })
    }

    /// Sets the size of all new segments in octets.
    #[must_use]
    pub fn with_segments_of(mut self, size: u64) -> Self {
        self.segment_size = size;
        self.next_size = AtomicU64::new(size);
        self
    }

    /// Returns the folder for reading only. It may be missing.
    #[must_use]
    pub fn existing(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            segment_size: SMALLEST,
            next_size: AtomicU64::new(SMALLEST),
            spare: Mutex::new(()),
        }
    }

    /// Returns the size in octets to which new segments grow. The first ones are smaller, and one
    /// is larger if a batch needs it.
    #[must_use]
    pub fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Returns the size of the next segment in octets.
    #[must_use]
    pub fn next_size(&self) -> u64 {
        self.next_size.load(Ordering::Relaxed)
    }

    /// Returns the name of a segment's file.
    #[must_use]
    pub fn segment_name(number: u64) -> String {
        format!("{number:016x}.{EXTENSION}")
    }

    /// Returns the path of a segment.
    #[must_use]
    pub fn path(&self, number: u64) -> PathBuf {
        self.folder.join(Self::segment_name(number))
    }

    fn lock_spare(&self) -> MutexGuard<'_, ()> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the path of the spare file.
    fn spare(&self) -> PathBuf {
        self.folder.join(SPARE)
    }

    /// Returns the numbers of the segments in ascending order, and the names of foreign files.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn list(&self) -> Result<(Vec<u64>, Vec<PathBuf>), SpoolError> {
        let failed = |error| io_error("list", &self.folder, &error);
        let (mut numbers, mut foreign) = (Vec::new(), Vec::new());
        if !self.folder.exists() {
            return Ok((numbers, foreign));
        }
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let number = stem.and_then(|stem| u64::from_str_radix(stem, 16).ok());
            match number.filter(|number| *number <= LAST && self.path(*number) == path) {
                Some(number) => numbers.push(number),
                None if path == self.spare() => {}
                None => foreign.push(path),
            }
        }
        numbers.sort_unstable();
        Ok((numbers, foreign))
    }

    /// Reads the header of a segment. One that the disk cannot read is damaged.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if it cannot be read; the inner error is the fault of the header.
    pub fn header(&self, number: u64) -> Result<Result<SegmentHeader, HeaderFault>, SpoolError> {
        let path = self.path(number);
        let mut octets = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(DATA_START).read_to_end(&mut octets));
        match read {
            Ok(_) => {}
            Err(error) if is_unreadable(&error) => return Ok(Err(HeaderFault::Damaged)),
            Err(error) => return Err(io_error("read", &path, &error)),
        }
        let header = SegmentHeader::decode(&octets);
        Ok(header.and_then(|header| {
            // A file under the name of another segment.
            (header.number == number)
                .then_some(header)
                .ok_or(HeaderFault::Damaged)
        }))
    }

    /// Reads a segment. `reached` is its end as the next segment has it in its header.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn read(
        &self,
        header: &SegmentHeader,
        reached: Option<u64>,
    ) -> Result<RecoveredSegment, SpoolError> {
        let path = self.path(header.number);
        let found =
            bad_blocks::read_file(&path).map_err(|error| io_error("read", &path, &error))?;
        Ok(recover(&found.octets, header, reached, &found.unreadable))
    }

    /// Reads all octets of a segment. Those that the disk cannot read are zero.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn octets(&self, number: u64) -> Result<Vec<u8>, SpoolError> {
        let path = self.path(number);
        let found = bad_blocks::read_file(&path);
        let found = found.map_err(|error| io_error("read", &path, &error))?;
        Ok(found.octets)
    }

    /// Opens a segment for reading the contents of messages; `None` if it is missing.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if it cannot be opened now.
    pub fn reader(&self, number: u64) -> Result<Option<SegmentReader>, SpoolError> {
        SegmentReader::open(&self.path(number), number)
    }

    /// Reads `length` octets of a segment at `offset`: the content of a message. Returns `None` if the
    /// segment is missing or too short.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if they cannot be read now.
    pub fn read_at(
        &self,
        number: u64,
        offset: u64,
        length: u64,
    ) -> Result<Option<Vec<u8>>, SpoolError> {
        let segment = self.reader(number)?;
        segment.map_or(Ok(None), |segment| segment.read(offset, length))
    }

    /// Makes a spare file if there is none, so that the next segment needs no more space. It is a small one
    /// if the disk has no space for more.
    ///
    /// # Errors
    /// [`SpoolError::Full`], [`SpoolError::Io`].
    pub fn prepare(&self) -> Result<(), SpoolError> {
        self.make_spare(self.next_size())
    }

    /// Makes a small spare file if there is none.
    ///
    /// # Errors
    /// As [`LogFolder::prepare`].
    pub fn keep_spare(&self) -> Result<(), SpoolError> {
        self.make_spare(SMALLEST.min(self.next_size()))
    }

    fn make_spare(&self, wanted: u64) -> Result<(), SpoolError> {
        let _guard = self.lock_spare();
        if self.has_spare() {
            return Ok(());
        }
        let made = self.spare_of(self.least_spare(), wanted);
        made.map(drop).map_err(AppendError::into_inner)
    }

    /// Returns whether there is a spare file of use: one that a crash has left may be empty, and that of a
    /// segment on a full disk has hardly any room.
    #[must_use]
    pub fn has_spare(&self) -> bool {
        let file = std::fs::metadata(self.spare());
        file.is_ok_and(|file| file.is_file() && file.len() >= self.least_spare())
    }

    fn least_spare(&self) -> u64 {
        SMALLEST_SPARE.min(self.next_size())
    }

    /// Starts the segment `number`, with room for a batch of `needed` octets. `previous_end` is the
    /// end of the segment before. If the disk is full, it may have no room for more than that batch.
    ///
    /// # Errors
    /// [`AppendError::Rejected`] if there is no space for it, or no file can be opened;
    /// [`AppendError::Uncertain`] if the disk failed.
    pub fn begin(
        &self,
        number: u64,
        previous_end: u64,
        needed: u64,
    ) -> Result<SegmentFile, AppendError> {
        let _guard = self.lock_spare();
        let needed = DATA_START
            .saturating_add(needed)
            .next_multiple_of(DATA_START);
        let wanted = self.next_size();
        let (file, size) = self.spare_of(needed, needed.max(wanted))?;
        let (spare, path) = (self.spare(), self.path(number));
        let header = SegmentHeader {
            number,
            salt: RandomState::new().build_hasher().finish(),
            previous_end,
        };
        file.write_all_at(&header.encode(), 0)
            .and_then(|()| file.sync_all())
            .map_err(|error| AppendError::of("write", &spare, &error))?;
        std::fs::rename(&spare, &path)
            .map_err(|error| AppendError::of("rename", &spare, &error))?;
        sync_folder(&self.folder).map_err(AppendError::Uncertain)?;
        if size >= wanted {
            self.next_size
                .store((2 * wanted).min(self.segment_size), Ordering::Relaxed);
        }
        Ok(SegmentFile::new(file, &path, header, size))
    }

    /// Removes a segment that is not needed any more. Its file becomes the spare if there is none, or a
    /// smaller one.
    /// Its name is durably gone when this returns, because segments leave the log in their order.
    ///
    /// # Errors
    /// [`AppendError::Rejected`] if the file cannot be removed, which can be tried again;
    /// [`AppendError::Uncertain`] if the disk failed.
    pub fn retire(&self, number: u64) -> Result<(), AppendError> {
        let _guard = self.lock_spare();
        let path = self.path(number);
        let octets = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let size = octets(&path);
        let done = if size <= octets(&self.spare()) || size > self.segment_size {
            std::fs::remove_file(&path)
        } else {
            std::fs::rename(&path, self.spare())
        };
        match done {
            // An administrator has removed it, or a failure came after the removal.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(AppendError::Rejected(io_error("remove", &path, &error)))
            }
            _ => sync_folder(&self.folder).map_err(AppendError::Uncertain),
        }
    }

    fn remove_spare(&self) {
        if let Err(error) = std::fs::remove_file(self.spare())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %self.spare().display(), %error, "cannot remove the spare file");
        }
    }

    /// Opens the spare file with `wanted` octets allocated, or with fewer if the disk is full, but at
    /// least `needed`. Returns its size. If there is no space for that, the spare file stays as it was.
    fn spare_of(&self, needed: u64, wanted: u64) -> Result<(File, u64), AppendError> {
        let path = self.spare();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let opened = options.mode(0o600).open(&path).and_then(|file| {
            let present = file.metadata()?.len();
            Ok((file, present))
        });
        // Too many open files are no failure of the disk.
        let (file, present) =
            opened.map_err(|error| AppendError::Rejected(io_error("open", &path, &error)))?;
        match grow(&file, present, needed, wanted, allocate) {
            Ok(size) => Ok((file, size)),
            Err(error) => {
                // Half of a new one would only use up space.
                if present == 0 || file.set_len(present).is_err() {
                    self.remove_spare();
                }
                Err(AppendError::of("allocate", &path, &error))
            }
        }
    }
}

/// Makes a file of `present` octets have `wanted`. On a full disk, it keeps those that it has if they
/// are all that is `needed`, and gets that many otherwise. Returns its size.
pub(super) fn grow(
    file: &File,
    present: u64,
    needed: u64,
    wanted: u64,
    allocate: impl Fn(&File, u64) -> io::Result<()>,
) -> io::Result<u64> {
    if present >= wanted {
        return Ok(present);
    }
    let error = match allocate(file, wanted) {
        Ok(()) => return Ok(wanted),
        Err(error) => error,
    };
    if !files::is_full(&error) || needed == wanted {
        return Err(error);
    }
    // Some of the space may be allocated.
    file.set_len(present)?;
    if present >= needed {
        return Ok(present);
    }
    allocate(file, needed).map(|()| needed)
}

/// Makes a file have `size` octets, with their space where the file system can do that.
fn allocate(file: &File, size: u64) -> io::Result<()> {
    match files::allocate(file, size) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(size),
        other => Ok(other?),
    }
}
