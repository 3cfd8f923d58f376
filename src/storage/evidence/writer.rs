//! The writer thread: appends all waiting records at once and syncs once.
//!
//! A record is not given up while the process runs: a failed write is retried, and the caller
//! waits. Before a retry the file is truncated to its durable length and the same octets are
//! written again, so that a successful sync covers them.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::civil::Date;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::archive::{ArchiveError, ArchivedDays};
use super::chain::ChainHead;
use super::compress::Compressor;
use super::days::{self, DayFile};
use super::error::EvidenceError;
use super::folder;
use super::record::EvidenceRecord;
use super::usage::{EvidenceLevel, SizeAccount};
use crate::storage::clock_jumps::{ClockGuard, Moment};
use crate::storage::files::{is_full, sync_folder};
use crate::storage::folder_lock::FolderLock;

mod compression;
mod expiry;
mod removal;
mod size;
#[cfg(test)]
mod tests;

/// The most octets in one batch, except for the records of a single attempt.
pub(super) const BATCH_OCTETS: usize = 4 << 20;
/// The interval at which expired files are searched.
const EXPIRE_INTERVAL: Duration = Duration::from_hours(1);
/// The interval at which the reserve file is checked.
const RESERVE_INTERVAL: Duration = Duration::from_mins(1);
/// The interval at which a running compression is checked.
const COMPRESSION_INTERVAL: Duration = Duration::from_millis(100);
/// The time for which a record waits for others to share its sync with.
pub(super) const BATCH_DELAY: Duration = Duration::from_millis(5);
/// The most octets by which a record is longer than its fields: its place in the chain.
pub(super) const LINK_OCTETS: usize = 256;
/// The time between two attempts to write, and between two log lines about a failure.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// The interval at which a waiting writer checks if the process is ending.
const ENDING_INTERVAL: Duration = Duration::from_millis(50);
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// A command for the writer. Callers that hand in records wait for them, so there are never more
/// commands than attempts and sessions.
#[derive(Debug)]
pub(super) enum WriterCommand {
    Write {
        lines: Vec<String>,
        done: oneshot::Sender<()>,
    },
    SetKeep(Duration),
    /// The limit of the size has changed.
    CheckSize,
    /// The newest day is to be closed, although it may not be over.
    CloseDay {
        done: oneshot::Sender<Result<Option<Date>, ArchiveError>>,
    },
    /// These days were archived, and are to be removed.
    RemoveArchived {
        archived: ArchivedDays,
        done: oneshot::Sender<Result<(), ArchiveError>>,
    },
    Close,
}

/// The open file of a day.
#[derive(Debug)]
struct DayLog {
    file: File,
    day_file: DayFile,
    /// The number of durable octets.
    length: u64,
    /// Set after a failed write: the content after `length` is undefined.
    uncertain: bool,
}

/// The end of the chain, and the file that it is written to.
#[derive(Debug)]
pub(super) struct EvidenceWriter {
    folder: PathBuf,
    keep: Duration,
    head: ChainHead,
    log: Option<DayLog>,
    /// The newest day that was closed before it was over. Nothing is appended to it.
    closed: Option<Date>,
    clock: ClockGuard,
    /// The time of the last search for expired files.
    expired_at: Instant,
    /// The time of the last check of the reserve file.
    reserve_checked_at: Instant,
    /// Set when the log says that nothing is deleted because the clock is in doubt.
    doubt_logged: bool,
    /// The start of the present failure, and the time of the last log line about it.
    failing: Option<(Instant, Instant)>,
    /// Set while writing fails; read by those who start attempts and sessions.
    stuck: Arc<AtomicBool>,
    /// The size of the records, read by those who accept mail.
    size: Arc<SizeAccount>,
    /// The level of the size that was logged last.
    level: EvidenceLevel,
    /// The commands that came while writing failed.
    deferred: VecDeque<WriterCommand>,
    /// The thread that compresses closed days. Set when this thread has started.
    compressor: Option<Compressor>,
    /// Set if there may be closed days that are not compressed.
    compression_due: bool,
    /// The days that could not be compressed. They are tried again in the next round.
    uncompressed: BTreeSet<Date>,
    _lock: FolderLock,
}

/// Signals the end of the thread when it is dropped, even by a panic.
pub(super) struct EndSignal(pub(super) CancellationToken);

impl Drop for EndSignal {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl EvidenceWriter {
    /// Locks the folder, repairs the leftovers of a crash, and records that in the chain.
    pub(super) fn open(
        folder: &Path,
        keep: Duration,
        now: Moment,
        (stuck, size): (Arc<AtomicBool>, Arc<SizeAccount>),
    ) -> Result<Self, EvidenceError> {
        let lock = folder::lock(folder)?;
        days::remove_unfinished(folder)?;
        let head = folder::recover(folder, now.wall)?;
        // Read before a record with the present time is written, which would be the newest.
        let days: Vec<_> = days::files(folder)?
            .into_iter()
            .map(|file| file.day)
            .collect();
        let mut writer = Self {
            folder: folder.to_owned(),
            keep,
            head,
            log: None,
            closed: None,
            clock: ClockGuard::new(&days, keep, now),
            expired_at: now.monotonic,
            reserve_checked_at: now.monotonic,
            doubt_logged: false,
            failing: None,
            stuck,
            size,
            level: EvidenceLevel::Normal,
            deferred: VecDeque::new(),
            compressor: None,
            compression_due: true,
            uncompressed: BTreeSet::new(),
            _lock: lock,
        };
        let failed =
            |error: io::Error| EvidenceError::new("write to the evidence in", folder, error);
        if let Some(newest) = days.last().filter(|newest| **newest > days::day(now.wall)) {
            tracing::warn!(file = %DayFile::of(folder, *newest).path.display(), "the evidence has a file of a future day, as after gatepost evidence archive --today; if that was not run, check the clock; new records go to that file");
        }
        if head == ChainHead::START {
            let begun = EvidenceRecord::Begun {
                gatepost: env!("CARGO_PKG_VERSION").to_owned(),
            };
            writer
                .append(&[begun.to_text(now.wall).fields], now)
                .map_err(failed)?;
        }
        writer.record_torn(now)?;
        writer.record_removal(now);
        writer.measure();
        writer.expire(now);
        Ok(writer)
    }

    /// Records torn files in the chain. On a full disk a later start does that; mail must not wait
    /// for it.
    fn record_torn(&mut self, now: Moment) -> Result<(), EvidenceError> {
        for torn in folder::unrecorded_torn_files(&self.folder)? {
            let record = [EvidenceRecord::Torn {
                aside: torn.final_name(),
                octets: torn.octets,
            }
            .to_text(now.wall)
            .fields];
            match self.append_on_reserve(&record, now) {
                Ok(()) => torn.mark_recorded(&self.folder)?,
                Err(error) if is_full(&error) => {
                    tracing::warn!(aside = %torn.path.display(), %error, "cannot record a torn file, disk full; the next start with free space does");
                    return Ok(());
                }
                Err(error) => {
                    return Err(EvidenceError::new(
                        "write to the evidence in",
                        &self.folder,
                        error,
                    ));
                }
            }
        }
        Ok(())
    }

    /// Starts the writer thread.
    pub(super) fn start(
        self,
        commands: Receiver<WriterCommand>,
        ending: Arc<AtomicBool>,
        ended: CancellationToken,
    ) -> Result<(), EvidenceError> {
        let folder = self.folder.clone();
        let compressor = Compressor::start(&folder)?;
        let run = move || {
            let _ending = EndSignal(ended);
            // Dropped, and so the lock released, before the end of the thread is signalled.
            let mut writer = self;
            writer.compressor = Some(compressor);
            writer.run(&commands, &ending);
        };
        let started = std::thread::Builder::new()
            .name("evidence-writer".into())
            .spawn(run);
        started
            .map(drop)
            .map_err(|error| EvidenceError::new("start the writer of", &folder, error))
    }

    fn run(&mut self, commands: &Receiver<WriterCommand>, ending: &AtomicBool) {
        loop {
            self.compress_closed();
            let is_busy = self.compressor.as_ref().is_some_and(Compressor::is_busy);
            let interval = if is_busy {
                COMPRESSION_INTERVAL
            } else {
                RESERVE_INTERVAL
            };
            let command = match self.deferred.pop_front() {
                Some(command) => Ok(command),
                None => commands.recv_timeout(interval),
            };
            self.run_periodic(Moment::now());
            let mut next = match command {
                Ok(command) => {
                    // The delay costs little: no caller holds a connection or a client meanwhile.
                    std::thread::sleep(BATCH_DELAY);
                    Some(command)
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (mut lines, mut waiting, mut octets) = (Vec::new(), Vec::new(), 0);
            let mut closes = false;
            while let Some(command) = next {
                match command {
                    WriterCommand::Write { lines: more, done } => {
                        octets += more.iter().map(String::len).sum::<usize>();
                        lines.extend(more);
                        waiting.push(done);
                    }
                    WriterCommand::Close => closes = true,
                    order @ (WriterCommand::SetKeep(_)
                    | WriterCommand::CheckSize
                    | WriterCommand::CloseDay { .. }
                    | WriterCommand::RemoveArchived { .. }) => self.carry_out(order),
                }
                next = if closes || octets >= BATCH_OCTETS {
                    None
                } else {
                    let deferred = self.deferred.pop_front();
                    deferred.or_else(|| commands.try_recv().ok())
                };
            }
            self.write_batch(&lines, waiting, (commands, ending));
            if closes {
                return;
            }
        }
    }

    /// Carries out an order that concerns the folder.
    fn carry_out(&mut self, order: WriterCommand) {
        match order {
            WriterCommand::SetKeep(keep) => {
                self.keep = keep;
                self.expire(Moment::now());
            }
            WriterCommand::CheckSize => self.measure(),
            WriterCommand::CloseDay { done } => {
                // A failed send means that the caller was aborted.
                let _ = done.send(self.close_day());
            }
            WriterCommand::RemoveArchived { archived, done } => {
                // A failed send means that the caller was aborted.
                let _ = done.send(self.remove_archived(&archived));
            }
            WriterCommand::Write { .. } | WriterCommand::Close => self.deferred.push_back(order),
        }
    }

    /// Does the periodic work, however many records wait.
    fn run_periodic(&mut self, now: Moment) {
        let since = |earlier| now.monotonic.saturating_duration_since(earlier);
        if since(self.expired_at) >= EXPIRE_INTERVAL {
            self.expired_at = now.monotonic;
            self.compression_due = true;
            self.uncompressed.clear();
            self.expire(now);
        } else if since(self.reserve_checked_at) >= RESERVE_INTERVAL {
            self.reserve_checked_at = now.monotonic;
            self.reserve();
            self.record_removal(now);
            // An administrator may have removed files by hand.
            if self.level >= EvidenceLevel::RejectsMail {
                self.measure();
            }
        }
    }

    /// Writes a batch and answers its callers. If the process is ending and the write fails, the
    /// batch is given up unanswered.
    fn write_batch(
        &mut self,
        lines: &[String],
        waiting: Vec<oneshot::Sender<()>>,
        (commands, ending): (&Receiver<WriterCommand>, &AtomicBool),
    ) {
        if lines.is_empty() {
            return;
        }
        let day = self.log.as_ref().map(|log| log.day_file.day);
        while let Err(error) = self.append_within_limit(lines) {
            if is_full(&error) && folder::remove_reserve(&self.folder) {
                tracing::warn!(folder = %self.folder.display(), "disk full, reserve file for evidence removed");
                continue;
            }
            self.stuck.store(true, Ordering::Relaxed);
            // Read before the log line and after the write, so that there is always one attempt
            // after the end has begun.
            let is_last = ending.load(Ordering::Relaxed);
            self.log_failure(&error, lines.len());
            if is_last {
                self.cut_uncertain();
                tracing::error!(folder = %self.folder.display(), records = lines.len(), "evidence not written before shutdown; its deliveries are repeated after the restart");
                return;
            }
            self.wait_for_retry(commands, ending);
        }
        self.stuck.store(false, Ordering::Relaxed);
        if let Some((since, _)) = self.failing.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(folder = %self.folder.display(), seconds, "evidence can be written again");
        }
        self.log_level();
        for done in waiting {
            // A failed send means that the caller was aborted; the record is durable all the same.
            let _ = done.send(());
        }
        if self.log.as_ref().map(|log| log.day_file.day) > day {
            self.compression_due = true;
            self.expire(Moment::now());
        }
    }

    /// Appends records, unless they would exceed `[evidence] max_size`.
    fn append_within_limit(&mut self, lines: &[String]) -> io::Result<()> {
        let octets: usize = lines.iter().map(|line| line.len() + LINK_OCTETS).sum();
        self.size.check(octets as u64).map_err(io::Error::other)?;
        self.append(lines, Moment::now())
    }

    /// Waits for the next attempt to write. Orders that concern the folder are carried out, and
    /// after one the next attempt comes at once: they may free space.
    fn wait_for_retry(&mut self, commands: &Receiver<WriterCommand>, ending: &AtomicBool) {
        self.compress_closed();
        self.run_periodic(Moment::now());
        if self.level >= EvidenceLevel::RejectsMail {
            self.measure();
        }
        let until = Instant::now() + RETRY_DELAY;
        while Instant::now() < until && !ending.load(Ordering::Relaxed) {
            match commands.recv_timeout(ENDING_INTERVAL) {
                Ok(command @ (WriterCommand::Write { .. } | WriterCommand::Close)) => {
                    self.deferred.push_back(command);
                }
                Ok(order) => return self.carry_out(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(ENDING_INTERVAL),
            }
        }
    }

    /// Truncates records that may not be durable. The next process would take them for durable
    /// ones, and link new records to them.
    fn cut_uncertain(&mut self) {
        if let Some(log) = self
            .log
            .as_ref()
            .filter(|log| log.uncertain && log.is_in_place())
        {
            // If this fails as well, the next process finds an incomplete record.
            let _ = log.file.set_len(log.length);
        }
    }

    /// Logs that nothing can be written: at once, then once a minute.
    fn log_failure(&mut self, error: &io::Error, records: usize) {
        let now = Instant::now();
        let since = self.failing.map_or(now, |(since, _)| since);
        if self
            .failing
            .is_some_and(|(_, logged)| now.duration_since(logged) < LOG_INTERVAL)
        {
            return;
        }
        tracing::error!(
            folder = %self.folder.display(), %error, records, seconds = since.elapsed().as_secs(),
            "cannot write evidence, deliveries wait; free some space, or repair the disk"
        );
        self.failing = Some((since, now));
    }

    /// Appends records durably. If it fails, none of them counts.
    fn append(&mut self, lines: &[String], now: Moment) -> io::Result<()> {
        self.rotate(now)?;
        let Some(log) = &mut self.log else {
            return Err(io::Error::other("there is no file"));
        };
        let (mut head, mut text) = (self.head, String::new());
        for line in lines {
            head.seal(line, &mut text);
        }
        if log.uncertain {
            log.file.set_len(log.length)?;
        }
        log.uncertain = true;
        if let Err(error) = log
            .file
            .write_all(text.as_bytes())
            .and_then(|()| log.file.sync_data())
        {
            // Truncated at once: a process that is killed before the retry must not leave records
            // that may not be durable.
            let _next_try_cuts = log.file.set_len(log.length);
            return Err(error);
        }
        log.uncertain = false;
        log.length += text.len() as u64;
        self.size.add(text.len() as u64);
        self.head = head;
        Ok(())
    }

    /// Cuts off the leftovers of a failed write, before the file is closed. In the file of a past day
    /// they would count as repeated records.
    fn cut_leftovers(&mut self) -> io::Result<()> {
        if let Some(log) = self
            .log
            .as_mut()
            .filter(|log| log.uncertain && log.is_in_place())
        {
            log.file.set_len(log.length)?;
            log.file.sync_data()?;
            log.uncertain = false;
        }
        Ok(())
    }

    /// Opens the file of the day. The days never go back, even if the clock does, since the files
    /// in order are the chain.
    fn rotate(&mut self, now: Moment) -> io::Result<()> {
        let today = days::day(now.wall);
        self.cut_leftovers()?;
        if let Some(log) = &self.log {
            if log.day_file.day >= today && log.is_in_place() {
                return Ok(());
            }
            if log.day_file.day >= today {
                tracing::error!(
                    file = %log.day_file.path.display(),
                    "the evidence file was changed, moved or removed by another program; the chain continues; run gatepost evidence verify to see what is missing"
                );
            }
        }
        let day = self.day_to_write(today).map_err(io::Error::other)?;
        self.log = Some(DayLog::open(&self.folder, day)?);
        Ok(())
    }
}

impl DayLog {
    fn open(folder: &Path, day: jiff::civil::Date) -> io::Result<Self> {
        let day_file = DayFile::of(folder, day);
        let file = folder::open_for_append(&day_file.path)?;
        sync_folder(folder)?;
        let mut length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            // An incomplete line that another program has left must not become part of a record.
            File::open(&day_file.path)?.read_exact_at(&mut last, length - 1)?;
        }
        if last != *b"\n" {
            (&file).write_all(b"\n")?;
            length += 1;
        }
        Ok(Self {
            file,
            day_file,
            length,
            uncertain: false,
        })
    }

    /// Returns whether the name still leads to this file, with the length that we wrote.
    fn is_in_place(&self) -> bool {
        let (Ok(named), Ok(ours)) = (fs::metadata(&self.day_file.path), self.file.metadata())
        else {
            return false;
        };
        (named.dev(), named.ino()) == (ours.dev(), ours.ino())
            && (self.uncertain || ours.len() == self.length)
    }
}
