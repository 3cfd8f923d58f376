//! The content of a stored message, and how it is read: in chunks, counted and checked on the way.
//!
//! Not a mail parser: nothing here looks at what the octets mean.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;

use super::file::{blocking, fault};
use super::{SpoolError, SpoolFuture};
use crate::envelope::QueueId;

/// Octets in a chunk, at most.
const CHUNK: usize = 64 * 1024;

/// The content of a message: our Received field and everything that came after DATA, with CRLF line
/// ends, dot-stuffing removed.
#[derive(Debug, Clone)]
pub enum Body {
    /// In memory: small, or just accepted.
    Memory(Bytes),
    /// In a file of its own.
    File(FileBody),
}

/// A body in a file of its own, with the length and checksum that it must have.
#[derive(Debug, Clone)]
pub struct FileBody(Arc<Expected>);

#[derive(Debug)]
struct Expected {
    id: QueueId,
    path: PathBuf,
    size: u64,
    crc: u32,
    aside: Weak<dyn Aside>,
}

/// Where a damaged entry goes.
pub(super) trait Aside: std::fmt::Debug + Send + Sync {
    /// Takes the entry out of the queue, logs it, and gives the error that tells it.
    fn set_aside(&self, id: QueueId, fault: String) -> SpoolFuture<'static, SpoolError>;
}

impl FileBody {
    pub(super) fn new(id: QueueId, path: PathBuf, size: u64, crc: u32, aside: Weak<dyn Aside>) -> Self {
        Self(Arc::new(Expected { id, path, size, crc, aside }))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// Reads a [`Body`] in chunks of at most 64 KiB.
#[derive(Debug)]
pub struct BodyReader(Source);

#[derive(Debug)]
enum Source {
    Memory(Bytes),
    File(Box<Reading>),
    /// It failed, or a read was dropped half way.
    Lost,
}

#[derive(Debug)]
struct Reading {
    file: File,
    body: FileBody,
    left: u64,
    crc: Hasher,
}

/// What can be wrong while reading.
enum ReadError {
    Damage(String),
    Spool(SpoolError),
}

impl BodyReader {
    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] where length or checksum are not those stored (told instead of the last
    /// chunk, at the latest), [`SpoolError::Io`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, SpoolError> {
        let mut reading = match &mut self.0 {
            Source::Memory(rest) if rest.is_empty() => return Ok(None),
            Source::Memory(rest) => return Ok(Some(rest.split_to(rest.len().min(CHUNK)))),
            Source::File(reading) if reading.left == 0 => return Ok(None),
            place @ Source::File(_) => match std::mem::replace(place, Source::Lost) {
                Source::File(reading) => reading,
                _ => return Err(lost()),
            },
            Source::Lost => return Err(lost()),
        };
        let body = reading.body.clone();
        let read = blocking(move || {
            let chunk = reading.chunk();
            Ok((reading, chunk))
        });
        let (reading, chunk) = read.await?;
        match chunk {
            Ok(chunk) => {
                self.0 = Source::File(reading);
                Ok(Some(chunk))
            }
            Err(error) => Err(body.tell(error).await),
        }
    }
}

impl Body {
    /// Starts reading.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] where the file is gone or has another length, [`SpoolError::Io`] where it
    /// cannot be opened.
    pub async fn reader(&self) -> Result<BodyReader, SpoolError> {
        let body = match self {
            Self::Memory(bytes) => return Ok(BodyReader(Source::Memory(bytes.clone()))),
            Self::File(body) => body.clone(),
        };
        let opened = body.clone();
        match blocking(move || Ok(opened.open())).await? {
            Ok(reading) => Ok(BodyReader(Source::File(Box::new(reading)))),
            Err(error) => Err(body.tell(error).await),
        }
    }
}

impl FileBody {
    fn open(self) -> Result<Reading, ReadError> {
        if let Some(damage) = file_damage(&self.0.path, self.0.size).map_err(ReadError::Spool)? {
            return Err(ReadError::Damage(damage));
        }
        let file = File::open(&self.0.path).map_err(|error| ReadError::Spool(fault("open", &self.0.path, &error)))?;
        Ok(Reading { file, left: self.0.size, crc: Hasher::new(), body: self })
    }

    async fn tell(&self, error: ReadError) -> SpoolError {
        match (error, self.0.aside.upgrade()) {
            (ReadError::Spool(error), _) => error,
            (ReadError::Damage(damage), Some(aside)) => {
                aside.set_aside(self.0.id, damage).await.unwrap_or_else(|error| error)
            }
            (ReadError::Damage(_), None) => SpoolError::Closed,
        }
    }
}

impl Reading {
    fn chunk(&mut self) -> Result<Bytes, ReadError> {
        let path = &self.body.0.path;
        let io = |error| ReadError::Spool(fault("read", path, &error));
        let length = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = BytesMut::zeroed(length);
        if let Err(error) = self.file.read_exact(&mut chunk) {
            let at = self.file.stream_position().unwrap_or_default();
            return Err(match error.kind() {
                std::io::ErrorKind::UnexpectedEof => ReadError::Damage(format!("its body file ends after {at} octets")),
                _ => io(error),
            });
        }
        self.crc.update(&chunk);
        self.left -= length as u64;
        if self.left == 0 {
            let crc = self.crc.clone().finalize();
            if crc != self.body.0.crc {
                let text =
                    format!("the checksum of its body file is {crc:08x} where {:08x} was stored", self.body.0.crc);
                return Err(ReadError::Damage(text));
            }
        }
        Ok(chunk.freeze())
    }
}

/// What is wrong with a body file, as far as its length tells.
pub(super) fn file_damage(path: &Path, size: u64) -> Result<Option<String>, SpoolError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Ok(Some("its body file is no file".into())),
        Ok(found) if found.len() == size => Ok(None),
        Ok(found) => Ok(Some(format!("its body file has {} octets where {size} were stored", found.len()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some("its body file is missing".into())),
        Err(error) => Err(fault("look at", path, &error)),
    }
}

fn lost() -> SpoolError {
    SpoolError::Io("reading a message was given up half way; it cannot be gone on with".into())
}
