//! The compression of closed days with gzip (RFC 1952), on a thread of its own.
//!
//! The thread writes the compressed form beside the plain file under an unfinished name, syncs it,
//! and compares it with the plain file. The writer then renames it and removes the plain file
//! (`Replacement::finish`), so that this never coincides with the deletion of expired days. At each
//! moment of a crash at least one complete file of the day exists.

use std::fs::{self, File};
use std::io::{self, BufRead, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::days::DayFile;
use super::error::EvidenceError;
use super::lines::{expanded, is_damage, open};
use crate::storage::files::sync_folder;

/// The file that replaces a plain day.
#[derive(Debug)]
pub(super) enum Replacement {
    /// This unfinished compressed file. The plain file had `octets` when it was compressed.
    Unfinished { path: PathBuf, octets: u64 },
    /// The compressed file that exists already and has all that the plain file has.
    Present,
}

/// The result of comparing the content of two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileComparison {
    Equal,
    /// The first file ends before the second one.
    FirstEnds,
    /// The second file ends, or is damaged, before the first one.
    SecondEnds,
    /// There is a difference at the octet with this number, from 0.
    Differ(u64),
}

/// The compressed form of a closed day, or the reason why there is none.
#[derive(Debug)]
pub(super) struct CompressedDay {
    pub(super) plain: DayFile,
    pub(super) result: Result<Replacement, EvidenceError>,
}

/// The thread that compresses closed days, one at a time. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Compressor {
    stop: Arc<AtomicBool>,
    jobs: Option<Sender<DayFile>>,
    results: Receiver<CompressedDay>,
    is_busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Compressor {
    /// Starts the thread for the days of a folder.
    pub(super) fn start(folder: &Path) -> Result<Self, EvidenceError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (jobs, received) = mpsc::channel::<DayFile>();
        let (done, results) = mpsc::channel();
        let stopping = Arc::clone(&stop);
        let run = move || {
            for plain in received {
                let result = compress(&plain, &stopping);
                if done.send(CompressedDay { plain, result }).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("evidence-compressor".into())
            .spawn(run)
            .map_err(|error| EvidenceError::new("start the compressor of", folder, error))?;
        Ok(Self {
            stop,
            jobs: Some(jobs),
            results,
            is_busy: false,
            thread: Some(thread),
        })
    }

    /// Returns whether a day is being compressed.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Compresses a day, when none is being compressed.
    pub(super) fn begin(&mut self, plain: DayFile) {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(plain));
        self.is_busy = matches!(sent, Some(Ok(())));
    }

    /// Returns the day that has been compressed, once.
    pub(super) fn take_result(&mut self) -> Option<CompressedDay> {
        let result = self.results.try_recv().ok()?;
        self.is_busy = false;
        Some(result)
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is in the log already.
            let _panicked = thread.join();
        }
        for CompressedDay { result, .. } in self.results.try_iter() {
            if let Ok(Replacement::Unfinished { path, .. }) = result {
                // The next start removes it otherwise.
                let _left = fs::remove_file(path);
            }
        }
    }
}

/// Compresses a closed day to its unfinished name, durably, and compares the result with the plain
/// file. `stop` ends it early with an error.
fn compress(plain: &DayFile, stop: &AtomicBool) -> Result<Replacement, EvidenceError> {
    let folder = plain.path.parent().unwrap_or(Path::new("."));
    let target = DayFile::compressed(folder, plain.day);
    if target.path.exists() {
        // A crash came before the plain file was removed, or another program made one of the two.
        match compare(plain, &target.path, stop)? {
            FileComparison::Equal | FileComparison::FirstEnds => return Ok(Replacement::Present),
            FileComparison::SecondEnds => {}
            FileComparison::Differ(octet) => {
                let text = format!("it differs from {} at octet {octet}", target.path.display());
                return Err(EvidenceError::new(
                    "compress",
                    &plain.path,
                    io::Error::other(text),
                ));
            }
        }
    }
    check_space(plain)?;
    let unfinished = target.unfinished();
    let made = write_compressed(plain, &unfinished, stop).and_then(|octets| {
        match compare(plain, &unfinished, stop)? {
            FileComparison::Equal => Ok(octets),
            other => {
                let text = format!("the compressed copy is not the same: {other:?}");
                Err(EvidenceError::new(
                    "compress",
                    &plain.path,
                    io::Error::other(text),
                ))
            }
        }
    });
    match made {
        Ok(octets) => Ok(Replacement::Unfinished {
            path: unfinished,
            octets,
        }),
        Err(error) => {
            // The space is needed, above all on a full disk.
            let _never_made = fs::remove_file(&unfinished);
            Err(error)
        }
    }
}

/// Checks that the disk keeps some free space for the queue and for new records while a day is
/// compressed.
fn check_space(plain: &DayFile) -> Result<(), EvidenceError> {
    let failed = |error| EvidenceError::new("compress", &plain.path, error);
    let day = fs::metadata(&plain.path).map_err(failed)?.len();
    let disk = rustix::fs::statvfs(&plain.path).map_err(|error| failed(error.into()))?;
    let size = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    if leaves_space(size(disk.f_bavail), size(disk.f_blocks), day) {
        return Ok(());
    }
    let text = "the disk has too little free space for it";
    Err(failed(io::Error::new(io::ErrorKind::StorageFull, text)))
}

/// Returns whether a disk with so many free octets of all keeps a twentieth of them, or a gibibyte,
/// beside the compressed form of a day, which has about an eighth of its size.
fn leaves_space(free: u64, all: u64, day: u64) -> bool {
    free >= (all / 20).min(1 << 30).saturating_add(day / 4)
}

/// Writes the compressed form of a day to `to`, durably. Returns the size of the day.
pub(super) fn write_compressed(
    day: &DayFile,
    to: &Path,
    stop: &AtomicBool,
) -> Result<u64, EvidenceError> {
    let failed = |error| EvidenceError::new("write", to, error);
    let (mut content, _) = open(day)?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)
        .map_err(failed)?;
    let mut encoder = GzEncoder::new(BufWriter::new(file), Compression::default());
    let mut octets = 0;
    loop {
        stop_early(stop, &day.path)?;
        let block = content
            .fill_buf()
            .map_err(|error| EvidenceError::new("read", &day.path, error))?;
        if block.is_empty() {
            break;
        }
        encoder.write_all(block).map_err(failed)?;
        let length = block.len();
        octets += length as u64;
        content.consume(length);
    }
    let file = encoder.finish().map_err(failed)?;
    let file = file.into_inner().map_err(|error| failed(error.into()))?;
    file.sync_all().map_err(failed)?;
    Ok(octets)
}

fn stop_early(stop: &AtomicBool, path: &Path) -> Result<(), EvidenceError> {
    if !stop.load(Ordering::Relaxed) {
        return Ok(());
    }
    let error = io::Error::new(io::ErrorKind::Interrupted, "the daemon is stopping");
    Err(EvidenceError::new("compress", path, error))
}

/// Compares a day with a compressed file.
pub(super) fn compare(
    day: &DayFile,
    compressed: &Path,
    stop: &AtomicBool,
) -> Result<FileComparison, EvidenceError> {
    let unreadable = |error| EvidenceError::new("read", compressed, error);
    let (mut first, _) = open(day)?;
    let second = File::open(compressed).and_then(expanded);
    let mut second = second.map_err(unreadable)?;
    let mut at = 0;
    loop {
        stop_early(stop, &day.path)?;
        let one = first
            .fill_buf()
            .map_err(|error| EvidenceError::new("read", &day.path, error))?;
        let other = match second.fill_buf() {
            Ok(block) => block,
            Err(error) if is_damage(&error) => return Ok(FileComparison::SecondEnds),
            Err(error) => return Err(unreadable(error)),
        };
        match (one.is_empty(), other.is_empty()) {
            (true, true) => return Ok(FileComparison::Equal),
            (true, false) => return Ok(FileComparison::FirstEnds),
            (false, true) => return Ok(FileComparison::SecondEnds),
            (false, false) => {}
        }
        if let Some(octet) = one.iter().zip(other).position(|(one, other)| one != other) {
            return Ok(FileComparison::Differ(at + octet as u64));
        }
        let same = one.len().min(other.len());
        at += same as u64;
        first.consume(same);
        second.consume(same);
    }
}

impl Replacement {
    /// Puts the compressed file in the place of the plain one. A plain file that has changed since
    /// stays as it is.
    pub(super) fn finish(self, plain: &DayFile) -> Result<(), EvidenceError> {
        let folder = plain.path.parent().unwrap_or(Path::new("."));
        let sync =
            || sync_folder(folder).map_err(|error| EvidenceError::new("sync", folder, error));
        if let Self::Unfinished { path, octets } = self {
            if fs::metadata(&plain.path).map_or(0, |file| file.len()) != octets {
                return fs::remove_file(&path)
                    .map_err(|error| EvidenceError::new("remove", &path, error));
            }
            let target = DayFile::compressed(folder, plain.day);
            fs::rename(&path, &target.path)
                .map_err(|error| EvidenceError::new("rename", &path, error))?;
            sync()?;
        }
        fs::remove_file(&plain.path)
            .map_err(|error| EvidenceError::new("remove", &plain.path, error))?;
        sync()
    }
}

#[cfg(test)]
mod tests;
