//! A message that is being received: in memory while it is small, in a file of its own when it is
//! large.
//!
//! Nothing here is durable or known to the engine. A [`Draft`] that is dropped leaves nothing
//! behind.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;

use super::error::SpoolError;
use super::file::{TemporaryFile, blocking, io_error};
use super::free_space::FreeSpace;
use super::ids::Ids;
use crate::smtp::envelope::QueueId;

/// The largest content, in octets, that stays in memory and is stored in the log and in the
/// database row.
pub(super) const SMALL: usize = 128 * 1024;
/// The number of octets that a draft with large blocks collects before it writes them to its file.
/// Other drafts collect 128 KiB.
pub const LARGE_BLOCK: usize = 512 * 1024;

/// The parts of a spool that drafts need: the folder for large bodies, the free space of the disk,
/// and the queue ids.
#[derive(Debug)]
pub(super) struct Drafts {
    pub(super) bodies: PathBuf,
    pub(super) free_space: FreeSpace,
    pub(super) ids: Ids,
    /// Set when a sync of the folder failed. The file names of other drafts may then be lost as
    /// well, although their own syncs succeeded, so the spool must end.
    pub(super) folder_failed: AtomicBool,
    /// True if the files are the store. Otherwise they only hold content until it is sent there, and
    /// are not made durable.
    pub(super) is_store: bool,
}

impl Drafts {
    pub(super) fn start(self: &Arc<Self>, kind: DraftKind) -> Draft {
        self.start_as(kind, self.ids.draw())
    }

    /// Starts a message that has an id already.
    pub(super) fn start_as(self: &Arc<Self>, kind: DraftKind, id: QueueId) -> Draft {
        Draft {
            kind,
            id,
            size: 0,
            crc: Hasher::new(),
            buffer: BytesMut::new(),
            block: SMALL,
            storage: DraftStorage::Memory,
            drafts: Arc::clone(self),
        }
    }
}

/// The kind of a draft. It decides how full the disk may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DraftKind {
    /// A message that a client sends.
    Mail,
    /// A report of our own about a message that is already in the spool.
    Report,
}

/// A message that is being received. Nothing of it is durable yet, and dropping it leaves nothing
/// behind.
// Rule: RFC 5321 §4.1.1.10.
#[derive(Debug)]
pub struct Draft {
    kind: DraftKind,
    id: QueueId,
    size: u64,
    crc: Hasher,
    /// The content that is not in the file yet; the whole content if there is no file.
    buffer: BytesMut,
    /// The largest content of the buffer that is not written to the file yet.
    block: usize,
    storage: DraftStorage,
    drafts: Arc<Drafts>,
}

#[derive(Debug)]
enum DraftStorage {
    Memory,
    File(PartFile),
    /// A write failed, or its future was dropped before it was complete.
    Failed,
}

/// A body file that is being written. It is removed when this value is dropped.
#[derive(Debug)]
struct PartFile {
    file: File,
    temporary: TemporaryFile,
}

/// A complete draft, ready to be written to the queue.
#[derive(Debug)]
pub(super) struct FinishedDraft {
    pub(super) kind: DraftKind,
    pub(super) id: QueueId,
    pub(super) size: u64,
    pub(super) crc: u32,
    pub(super) content: DraftContent,
}

/// The content of a complete draft.
#[derive(Debug)]
pub(super) enum DraftContent {
    /// Small content, which goes into the log and perhaps into the database row.
    Row(Bytes),
    /// Large content in its own file. File and name are durable; the file is removed unless it is
    /// kept.
    File(PathBuf, TemporaryFile),
}

impl Draft {
    /// Returns the queue id that the message will have.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Returns the number of octets written so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends content. Content of more than about 128 KiB goes to a file.
    ///
    /// # Errors
    /// [`SpoolError::Full`] or [`SpoolError::Io`]; the draft cannot be used any more.
    pub async fn write(&mut self, content: &[u8]) -> Result<(), SpoolError> {
        if self.add(content)? {
            self.write_out().await?;
        }
        Ok(())
    }

    /// Appends content to the buffer. Returns true if the buffer is full; [`Draft::write_out`] must
    /// follow then.
    ///
    /// # Errors
    /// As [`Draft::write`].
    pub fn add(&mut self, content: &[u8]) -> Result<bool, SpoolError> {
        if matches!(self.storage, DraftStorage::Failed) {
            return Err(self.write_failed());
        }
        if self.size == 0 {
            self.admit(0)?;
        }
        self.size += content.len() as u64;
        self.crc.update(content);
        if self.block == LARGE_BLOCK {
            // In one step, with space for the piece that completes the block.
            let most = LARGE_BLOCK + SMALL;
            self.buffer.reserve(most.saturating_sub(self.buffer.len()));
        }
        self.buffer.extend_from_slice(content);
        Ok(self.buffer.len() > self.block)
    }

    /// Selects whether the draft collects blocks of [`LARGE_BLOCK`] octets. They need fewer writes,
    /// and more memory.
    pub fn use_large_blocks(&mut self, large: bool) {
        self.block = if large { LARGE_BLOCK } else { SMALL };
    }

    fn admit(&self, octets: usize) -> Result<(), SpoolError> {
        match self.kind {
            DraftKind::Mail => self.drafts.free_space.admit(octets as u64),
            DraftKind::Report => self.drafts.free_space.admit_report(octets as u64),
        }
    }

    /// Prepares the content for the commit: syncs the file and its folder if there is a file. Small
    /// content becomes durable only with its record.
    pub(super) async fn finish(mut self) -> Result<FinishedDraft, SpoolError> {
        let kind = self.kind;
        let (id, size, crc) = (self.id, self.size, self.crc.clone().finalize());
        if matches!(self.storage, DraftStorage::Memory) && self.buffer.len() > SMALL {
            self.write_out().await?;
        }
        let content = match self.storage {
            DraftStorage::Memory => {
                let octets = self.buffer.len();
                self.admit(octets)?;
                self.drafts.free_space.record_written(octets as u64);
                DraftContent::Row(self.buffer.freeze())
            }
            DraftStorage::Failed => return Err(self.write_failed()),
            DraftStorage::File(_) => {
                self.write_out().await?;
                let DraftStorage::File(part) = self.storage else {
                    return Err(self.write_failed());
                };
                let path = self.drafts.bodies.join(id.to_string());
                let drafts = Arc::clone(&self.drafts);
                blocking(move || part.make_durable(path, &drafts)).await?
            }
        };
        Ok(FinishedDraft {
            kind,
            id,
            size,
            crc,
            content,
        })
    }

    /// Moves the buffer to the file, which is created first if necessary. If the future is dropped
    /// meanwhile, the file is removed.
    ///
    /// # Errors
    /// As [`Draft::write`].
    pub async fn write_out(&mut self) -> Result<(), SpoolError> {
        let block = std::mem::take(&mut self.buffer);
        self.admit(block.len())?;
        self.drafts.free_space.record_written(block.len() as u64);
        let storage = std::mem::replace(&mut self.storage, DraftStorage::Failed);
        let path = self.part_path();
        let (part, mut block) = blocking(move || {
            let mut part = match storage {
                DraftStorage::Memory => PartFile::create(&path)?,
                DraftStorage::File(part) => part,
                DraftStorage::Failed => {
                    return Err(SpoolError::Io(format!(
                        "cannot write {}: an earlier write failed",
                        path.display()
                    )));
                }
            };
            part.file
                .write_all(&block)
                .map_err(|error| io_error("write", &path, &error))?;
            Ok((part, block))
        })
        .await?;
        if block.capacity() <= 2 * self.block {
            block.clear();
            self.buffer = block;
        }
        self.storage = DraftStorage::File(part);
        Ok(())
    }

    fn part_path(&self) -> PathBuf {
        self.drafts.bodies.join(format!("{}.part", self.id))
    }

    fn write_failed(&self) -> SpoolError {
        SpoolError::Io(format!(
            "cannot write {}: an earlier write failed",
            self.part_path().display()
        ))
    }
}

impl PartFile {
    fn create(path: &Path) -> Result<Self, SpoolError> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| io_error("create", path, &error))?;
        Ok(Self {
            file,
            temporary: TemporaryFile::new(path.to_owned()),
        })
    }

    /// Syncs the data, then gives the file its final name, then syncs the folder that holds the
    /// name. A failed sync is not repeated: the kernel may have dropped the pages, and a second
    /// sync would wrongly report success.
    fn make_durable(mut self, path: PathBuf, drafts: &Drafts) -> Result<DraftContent, SpoolError> {
        if !drafts.is_store {
            self.temporary.rename(path.clone())?;
            return Ok(DraftContent::File(path, self.temporary));
        }
        // Opened before the rename: running out of file descriptors must not count as a failure of
        // the folder.
        let folder =
            File::open(&drafts.bodies).map_err(|error| io_error("open", &drafts.bodies, &error))?;
        self.file
            .sync_all()
            .map_err(|error| io_error("sync", &path, &error))?;
        self.temporary.rename(path.clone())?;
        folder.sync_all().map_err(|error| {
            drafts.folder_failed.store(true, Ordering::Relaxed);
            io_error("sync", &drafts.bodies, &error)
        })?;
        Ok(DraftContent::File(path, self.temporary))
    }
}
