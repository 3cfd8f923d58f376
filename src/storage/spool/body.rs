//! The content of a stored message: reads it in chunks and checks its length and checksum while
//! reading.
//!
//! This is not a mail parser: the octets are not interpreted.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;

use super::error::SpoolError;
use super::file::{SpoolFuture, blocking, io_error};
use crate::smtp::envelope::QueueId;

/// The largest chunk, in octets.
const CHUNK: usize = 64 * 1024;

/// The content of a message: our Received field and everything that came after DATA, with CRLF line
/// ends and with dot-stuffing removed.
#[derive(Debug, Clone)]
pub enum Body {
    /// Held in memory: a small message, or one that was just accepted.
    Memory(Bytes),
    /// Held in a file of its own.
    File(FileBody),
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

/// A reader that yields a [`Body`] in chunks of at most 64 KiB.
#[derive(Debug)]
pub struct BodyReader(BodySource);

#[derive(Debug)]
enum BodySource {
    Memory(Bytes),
    File(Box<FileReader>),
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

/// The error of one step of reading.
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
        let mut reading = match &mut self.0 {
            BodySource::Memory(bytes) if bytes.is_empty() => return Ok(None),
            BodySource::Memory(bytes) => return Ok(Some(bytes.split_to(bytes.len().min(CHUNK)))),
            BodySource::File(reading) if reading.remaining == 0 => return Ok(None),
            source @ BodySource::File(_) => match std::mem::replace(source, BodySource::Failed) {
                BodySource::File(reading) => reading,
                _ => return Err(reading_failed()),
            },
            BodySource::Failed => return Err(reading_failed()),
        };
        let body = reading.body.clone();
        let read = blocking(move || {
            let chunk = reading.chunk();
            Ok((reading, chunk))
        });
        let (reading, chunk) = read.await?;
        match chunk {
            Ok(chunk) => {
                self.0 = BodySource::File(reading);
                Ok(Some(chunk))
            }
            Err(error) => Err(body.spool_error(error).await),
        }
    }
}

impl Body {
    /// Starts to read the content.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] if the file is missing or has another length; [`SpoolError::Io`] if
    /// it cannot be opened.
    pub async fn reader(&self) -> Result<BodyReader, SpoolError> {
        let body = match self {
            Self::Memory(bytes) => return Ok(BodyReader(BodySource::Memory(bytes.clone()))),
            Self::File(body) => body.clone(),
        };
        let opened = body.clone();
        match blocking(move || Ok(opened.open())).await? {
            Ok(reading) => Ok(BodyReader(BodySource::File(Box::new(reading)))),
            Err(error) => Err(body.spool_error(error).await),
        }
    }
}

impl FileBody {
    fn open(self) -> Result<FileReader, ReadError> {
        if let Some(damage) = file_damage(&self.0.path, self.0.size).map_err(ReadError::Spool)? {
            return Err(ReadError::Damage(damage));
        }
        let file = File::open(&self.0.path)
            .map_err(|error| ReadError::Spool(io_error("open", &self.0.path, &error)))?;
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
    fn chunk(&mut self) -> Result<Bytes, ReadError> {
        let path = &self.body.0.path;
        let io = |error| ReadError::Spool(io_error("read", path, &error));
        let length = usize::try_from(self.remaining).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = BytesMut::zeroed(length);
        if let Err(error) = self.file.read_exact(&mut chunk) {
            let at = self.file.stream_position().unwrap_or_default();
            return Err(match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    ReadError::Damage(format!("its body file ends after {at} octets"))
                }
                _ => io(error),
            });
        }
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
        Ok(chunk.freeze())
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

fn reading_failed() -> SpoolError {
    SpoolError::Io("an earlier read of this message failed; open it again".into())
}
