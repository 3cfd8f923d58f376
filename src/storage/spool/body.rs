//! The content of a stored message: reads it in chunks and checks its length and checksum while
//! reading.
//!
//! This is not a mail parser: the octets are not interpreted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use crc32fast::Hasher;
use rustix::buffer::spare_capacity;
use rustix::io::{pread, retry_on_intr};
use tokio::task::{JoinHandle, spawn_blocking};

use super::error::SpoolError;
use super::file::{SpoolFuture, blocking, interrupted, io_error};
use crate::smtp::envelope::QueueId;
use crate::storage::bad_blocks::is_unreadable;

/// The largest chunk, in octets.
const CHUNK: usize = 64 * 1024;
/// The largest chunk of a reader with large chunks, in octets. It holds two of them.
pub const LARGE_CHUNK: usize = 512 * 1024;

/// The content of a message: our Received field and everything that came after DATA, with CRLF line
/// ends and with dot-stuffing removed.
#[derive(Debug, Clone)]
pub enum Body {
    /// Held in memory: a small message, or one that was just accepted.
    Memory(Bytes),
    /// Held in a file of its own.
    File(FileBody),
    /// Held in pieces by a store that is not a file.
    Pieces(PieceBody),
}

/// A body in pieces, with the length and checksum that it must have.
#[derive(Debug, Clone)]
pub struct PieceBody {
    id: QueueId,
    size: u64,
    crc: u32,
    source: Arc<dyn PieceSource>,
}

/// A store that has bodies in pieces.
pub(super) trait PieceSource: std::fmt::Debug + Send + Sync {
    /// Returns the piece of this number, counted from 0; `None` if there is none.
    fn piece(&self, id: QueueId, number: u32) -> SpoolFuture<'static, Option<Bytes>>;
    /// Keeps a copy of the damaged content, logs that, and returns the error that describes it.
    fn set_aside(&self, id: QueueId, fault: String) -> SpoolFuture<'static, SpoolError>;
}

impl PieceBody {
    pub(super) fn new(id: QueueId, size: u64, crc: u32, source: Arc<dyn PieceSource>) -> Self {
        Self {
            id,
            size,
            crc,
            source,
        }
    }
}

/// A body in a file of its own, with the length and checksum that the file must have.
// Rule: RFC 5321 §4.5.2.
#[derive(Debug, Clone)]
pub struct FileBody(Arc<StoredFile>);

#[derive(Debug)]
struct StoredFile {
    id: QueueId,
    path: PathBuf,
    size: u64,
    crc: u32,
    quarantine: Weak<dyn Quarantine>,
}

/// The quarantine of the spool, as a body reader that finds damage uses it.
pub(super) trait Quarantine: std::fmt::Debug + Send + Sync {
    /// Moves the entry from the queue to the quarantine, logs that, and returns the error that
    /// describes the damage.
    fn quarantine(&self, id: QueueId, fault: String) -> SpoolFuture<'static, SpoolError>;
}

impl FileBody {
    pub(super) fn new(
        id: QueueId,
        path: PathBuf,
        size: u64,
        crc: u32,
        quarantine: Weak<dyn Quarantine>,
    ) -> Self {
        Self(Arc::new(StoredFile {
            id,
            path,
            size,
            crc,
            quarantine,
        }))
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// A reader that yields a [`Body`] in chunks of at most 64 KiB. With large chunks, of at most
/// [`LARGE_CHUNK`], it reads the next one while the caller works with the last one.
#[derive(Debug)]
pub struct BodyReader {
    source: BodySource,
    large: bool,
}

#[derive(Debug)]
enum BodySource {
    Memory(Bytes),
    File(Box<FileReader>),
    Pieces(Box<PieceReader>),
    /// The next chunk is being read.
    Reading(JoinHandle<FileRead>),
    /// A read failed, or its future was dropped before it was complete.
    Failed,
}

#[derive(Debug)]
struct FileReader {
    file: File,
    body: FileBody,
    remaining: u64,
    crc: Hasher,
}

#[derive(Debug)]
struct PieceReader {
    body: PieceBody,
    next: u32,
    /// The octets of the latest piece that were not returned yet.
    piece: Bytes,
    remaining: u64,
    crc: Hasher,
}

/// A file reader after a step of reading, with the chunk that was read.
type FileRead = (Box<FileReader>, Result<Bytes, ReadError>);

/// The error of one step of reading.
#[derive(Debug)]
enum ReadError {
    Damage(String),
    Spool(SpoolError),
}

impl BodyReader {
    /// Returns the next chunk, or `None` at the end.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] if length or checksum differ from the stored ones (returned in place
    /// of the last chunk at the latest); [`SpoolError::Io`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, SpoolError> {
        let read = match &mut self.source {
            BodySource::Memory(bytes) if bytes.is_empty() => return Ok(None),
            BodySource::Memory(bytes) => return Ok(Some(bytes.split_to(bytes.len().min(CHUNK)))),
            BodySource::File(reading) if reading.remaining == 0 => return Ok(None),
            BodySource::Pieces(reading) if reading.remaining == 0 => return Ok(None),
            source => match std::mem::replace(source, BodySource::Failed) {
                BodySource::File(reading) => self.start_reading(reading),
                BodySource::Reading(read) => read,
                BodySource::Pieces(mut reading) => {
                    let chunk = reading.chunk().await?;
                    self.source = BodySource::Pieces(reading);
                    return Ok(Some(chunk));
                }
                BodySource::Memory(_) | BodySource::Failed => return Err(reading_failed()),
            },
        };
        let (reading, chunk) = read.await.map_err(|error| interrupted(&error))?;
        match chunk {
            Ok(chunk) => {
                self.source = if self.large && reading.remaining > 0 {
                    BodySource::Reading(self.start_reading(reading))
                } else {
                    BodySource::File(reading)
                };
                Ok(Some(chunk))
            }
            Err(error) => Err(reading.body.spool_error(error).await),
        }
    }

    fn start_reading(&self, mut reading: Box<FileReader>) -> JoinHandle<FileRead> {
        let most = if self.large { LARGE_CHUNK } else { CHUNK };
        spawn_blocking(move || {
            let chunk = reading.chunk(most);
            (reading, chunk)
        })
    }

    /// Selects whether chunks may have [`LARGE_CHUNK`] octets. They need fewer reads, and more
    /// memory.
    pub fn use_large_chunks(&mut self, large: bool) {
        self.large = large;
    }
}

impl Body {
    /// Starts to read the content.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] if the file is missing or has another length; [`SpoolError::Io`] if
    /// it cannot be opened.
    pub async fn reader(&self) -> Result<BodyReader, SpoolError> {
        let reader = |source| BodyReader {
            source,
            large: false,
        };
        let body = match self {
            Self::Memory(bytes) => return Ok(reader(BodySource::Memory(bytes.clone()))),
            Self::Pieces(body) => {
                let reading = PieceReader {
                    body: body.clone(),
                    next: 0,
                    piece: Bytes::new(),
                    remaining: body.size,
                    crc: Hasher::new(),
                };
                return Ok(reader(BodySource::Pieces(Box::new(reading))));
            }
            Self::File(body) => body.clone(),
        };
        let opened = body.clone();
        match blocking(move || Ok(opened.open())).await? {
            Ok(reading) => Ok(reader(BodySource::File(Box::new(reading)))),
            Err(error) => Err(body.spool_error(error).await),
        }
    }
}

impl PieceReader {
    async fn chunk(&mut self) -> Result<Bytes, SpoolError> {
        if self.piece.is_empty() {
            let (id, number) = (self.body.id, self.next);
            let piece = self.body.source.piece(id, number).await?;
            let piece =
                piece.filter(|piece| !piece.is_empty() && piece.len() as u64 <= self.remaining);
            let Some(piece) = piece else {
                let fault =
                    format!("piece {number} of its content is missing, or has another size");
                return Err(self.damage(fault).await);
            };
            self.crc.update(&piece);
            self.next += 1;
            self.piece = piece;
        }
        let chunk = self.piece.split_to(self.piece.len().min(CHUNK));
        self.remaining -= chunk.len() as u64;
        if self.remaining == 0 {
            let crc = self.crc.clone().finalize();
            if crc != self.body.crc {
                let stored = self.body.crc;
                let fault = format!(
                    "the checksum of its content is {crc:08x} where {stored:08x} was stored"
                );
                return Err(self.damage(fault).await);
            }
        }
        Ok(chunk)
    }

    async fn damage(&self, fault: String) -> SpoolError {
        let aside = self.body.source.set_aside(self.body.id, fault).await;
        aside.unwrap_or_else(|error| error)
    }
}

impl FileBody {
    fn open(self) -> Result<FileReader, ReadError> {
        if let Some(damage) = file_damage(&self.0.path, self.0.size).map_err(ReadError::Spool)? {
            return Err(ReadError::Damage(damage));
        }
        let file =
            File::open(&self.0.path).map_err(|error| read_error("open", &self.0.path, &error))?;
        Ok(FileReader {
            file,
            remaining: self.0.size,
            crc: Hasher::new(),
            body: self,
        })
    }

    async fn spool_error(&self, error: ReadError) -> SpoolError {
        match (error, self.0.quarantine.upgrade()) {
            (ReadError::Spool(error), _) => error,
            (ReadError::Damage(damage), Some(quarantine)) => quarantine
                .quarantine(self.0.id, damage)
                .await
                .unwrap_or_else(|error| error),
            (ReadError::Damage(_), None) => SpoolError::Closed,
        }
    }
}

impl FileReader {
    fn chunk(&mut self, most: usize) -> Result<Bytes, ReadError> {
        let length = usize::try_from(self.remaining).unwrap_or(most).min(most);
        let from = self.body.0.size - self.remaining;
        let mut chunk = Vec::with_capacity(length);
        while chunk.len() < length {
            let at = from + chunk.len() as u64;
            match retry_on_intr(|| pread(&self.file, spare_capacity(&mut chunk), at)) {
                Ok(0) => {
                    let damage = format!("its body file ends after {at} octets");
                    return Err(ReadError::Damage(damage));
                }
                Ok(_) => {}
                Err(error) => {
                    return Err(read_error("read", &self.body.0.path, &error.into()));
                }
            }
        }
        chunk.truncate(length);
        self.crc.update(&chunk);
        self.remaining -= length as u64;
        if self.remaining == 0 {
            let crc = self.crc.clone().finalize();
            if crc != self.body.0.crc {
                let text = format!(
                    "the checksum of its body file is {crc:08x} where {:08x} was stored",
                    self.body.0.crc
                );
                return Err(ReadError::Damage(text));
            }
        }
        Ok(chunk.into())
    }
}

/// Compares a body file with its stored size and describes the damage, if there is any. Does not
/// read the content.
pub(super) fn file_damage(path: &Path, size: u64) -> Result<Option<String>, SpoolError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Ok(Some("its body file is not a regular file".into())),
        Ok(found) if found.len() == size => Ok(None),
        Ok(found) => Ok(Some(format!(
            "its body file has {} octets where {size} were stored",
            found.len()
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Some("its body file is missing".into()))
        }
        Err(error) => Err(io_error("read the metadata of", path, &error)),
    }
}

/// Describes an error of reading. A bad block is damage: no later try reads it.
fn read_error(what: &str, path: &Path, error: &std::io::Error) -> ReadError {
    if is_unreadable(error) {
        return ReadError::Damage(format!("its body file cannot be read: {error}"));
    }
    ReadError::Spool(io_error(what, path, error))
}

fn reading_failed() -> SpoolError {
    SpoolError::Io("an earlier read of this message failed; open it again".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_block_is_damage_and_other_errors_pass() {
        let path = Path::new("bodies/x");
        for (code, is_damage) in [(5, true), (117, true), (2, false), (13, false), (24, false)] {
            let error = std::io::Error::from_raw_os_error(code);
            let found = matches!(read_error("read", path, &error), ReadError::Damage(_));
            assert_eq!(found, is_damage, "{error}");
        }
    }
}
