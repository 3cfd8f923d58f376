//! A message that is coming in: in memory while it is small, in a file of its own when it is not.
//!
//! Nothing here is durable and nothing here is known to the engine: a [`Draft`] that is dropped
//! leaves no trace.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;

use super::SpoolError;
use super::file::{Discard, blocking, fault};
use super::ids::Ids;
use super::room::Room;
use crate::envelope::QueueId;

/// Octets of content that stay in memory, and are stored in the row, at most.
pub(super) const SMALL: usize = 128 * 1024;
/// Octets that are written to a file at once.
const BLOCK: usize = 128 * 1024;

/// What drafts need of a spool: a folder for large bodies, room on the disk, and names.
#[derive(Debug)]
pub(super) struct Drafts {
    pub(super) bodies: PathBuf,
    pub(super) room: Room,
    pub(super) ids: Ids,
    /// The folder could not be synced. What other drafts' names are worth is then unknown, whatever their
    /// own sync said: the spool must end.
    pub(super) folder_failed: AtomicBool,
}

impl Drafts {
    pub(super) fn start(self: &Arc<Self>, purpose: Purpose) -> Draft {
        Draft {
            purpose,
            id: self.ids.draw(),
            size: 0,
            crc: Hasher::new(),
            buffer: BytesMut::new(),
            place: Place::Memory,
            drafts: Arc::clone(self),
        }
    }
}

/// Why a message comes into the spool; it decides how full the disk may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// From outside.
    Mail,
    /// A report of our own about mail that is here already.
    Report,
}

/// A message that is coming in: nothing of it is durable yet, and dropping it leaves no trace.
#[derive(Debug)]
pub struct Draft {
    purpose: Purpose,
    id: QueueId,
    size: u64,
    crc: Hasher,
    /// What is not in the file yet; everything where there is no file.
    buffer: BytesMut,
    place: Place,
    drafts: Arc<Drafts>,
}

#[derive(Debug)]
enum Place {
    Memory,
    File(Part),
    /// A write failed, or its future was dropped half way.
    Lost,
}

/// A body file that is being written. The file goes when this does.
#[derive(Debug)]
struct Part {
    file: File,
    discard: Discard,
}

/// A draft as it goes into the queue.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) id: QueueId,
    pub(super) size: u64,
    pub(super) crc: u32,
    pub(super) content: Content,
}

/// The content of a message that goes into the queue.
#[derive(Debug)]
pub(super) enum Content {
    /// It goes into the row.
    Row(Bytes),
    /// It is in its file, which is durable, name and all, and goes away unless it is kept.
    File(PathBuf, Discard),
}

impl Draft {
    /// The name the message will have.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Octets written so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends content. Beyond about 128 KiB it goes to a file.
    ///
    /// # Errors
    /// [`SpoolError::Full`] or [`SpoolError::Io`]; the draft is of no further use.
    pub async fn write(&mut self, content: &[u8]) -> Result<(), SpoolError> {
        if self.size == 0 {
            self.admit(0)?;
        }
        self.size += content.len() as u64;
        self.crc.update(content);
        let mut rest = content;
        while self.buffer.len() + rest.len() > SMALL {
            let (now, later) = rest.split_at(BLOCK.saturating_sub(self.buffer.len()).min(rest.len()));
            self.buffer.extend_from_slice(now);
            self.spill().await?;
            rest = later;
        }
        if matches!(self.place, Place::Lost) {
            return Err(self.lost());
        }
        self.buffer.extend_from_slice(rest);
        Ok(())
    }

    fn admit(&self, octets: usize) -> Result<(), SpoolError> {
        match self.purpose {
            Purpose::Mail => self.drafts.room.admit(octets as u64),
            Purpose::Report => self.drafts.room.admit_report(octets as u64),
        }
    }

    /// Makes the content as durable as it can be before the row: nothing for a small one; file and
    /// folder for a large one.
    pub(super) async fn finish(mut self) -> Result<Finished, SpoolError> {
        let (id, size, crc) = (self.id, self.size, self.crc.clone().finalize());
        self.admit(self.buffer.len())?;
        self.drafts.room.took(self.buffer.len() as u64);
        let content = match self.place {
            Place::Memory => Content::Row(self.buffer.freeze()),
            Place::Lost => return Err(self.lost()),
            Place::File(_) => {
                self.spill().await?;
                let Place::File(part) = self.place else { return Err(self.lost()) };
                let path = self.drafts.bodies.join(id.to_string());
                let drafts = Arc::clone(&self.drafts);
                blocking(move || part.settle(path, &drafts)).await?
            }
        };
        Ok(Finished { id, size, crc, content })
    }

    /// Moves the buffer to the file, which is made at the first time. Where the future is dropped in
    /// between, the file goes with it.
    async fn spill(&mut self) -> Result<(), SpoolError> {
        let block = self.buffer.split();
        self.admit(block.len())?;
        self.drafts.room.took(block.len() as u64);
        let place = std::mem::replace(&mut self.place, Place::Lost);
        let path = self.part_path();
        let (part, mut block) = blocking(move || {
            let mut part = match place {
                Place::Memory => Part::create(&path)?,
                Place::File(part) => part,
                Place::Lost => return Err(SpoolError::Io(format!("{} was given up", path.display()))),
            };
            part.file.write_all(&block).map_err(|error| fault("write", &path, &error))?;
            Ok((part, block))
        })
        .await?;
        block.clear();
        self.buffer = block;
        self.place = Place::File(part);
        Ok(())
    }

    fn part_path(&self) -> PathBuf {
        self.drafts.bodies.join(format!("{}.part", self.id))
    }

    fn lost(&self) -> SpoolError {
        SpoolError::Io(format!("{} was given up after a failed write", self.part_path().display()))
    }
}

impl Part {
    fn create(path: &Path) -> Result<Self, SpoolError> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| fault("create", path, &error))?;
        Ok(Self { file, discard: Discard::new(path.to_owned()) })
    }

    /// Data first, then the name, then the folder that holds the name. A sync that fails is not
    /// repeated: the kernel may have dropped the pages, and the second one would lie.
    fn settle(mut self, path: PathBuf, drafts: &Drafts) -> Result<Content, SpoolError> {
        // Before anything has a name: too many open files are no fault of the folder.
        let folder = File::open(&drafts.bodies).map_err(|error| fault("open", &drafts.bodies, &error))?;
        self.file.sync_all().map_err(|error| fault("sync", &path, &error))?;
        self.discard.rename(path.clone())?;
        folder.sync_all().map_err(|error| {
            drafts.folder_failed.store(true, Ordering::Relaxed);
            fault("sync", &drafts.bodies, &error)
        })?;
        Ok(Content::File(path, self.discard))
    }
}
