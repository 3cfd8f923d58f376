//! The handle through which records are written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use jiff::civil::Date;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::archive::{ArchiveError, ArchivedDays};
use super::error::{EvidenceError, NotWritten};
use super::record::{self, RecordText};
use super::shared::{EvidenceNode, SharedEvidenceWriter};
use super::usage::{EvidenceLevel, EvidenceUsage, SizeAccount};
use super::writer::{EndSignal, EvidenceWriter, WriterCommand};
use crate::config::EvidenceLimit;
use crate::storage::JoinedRecords;
use crate::storage::clock_jumps::Moment;
use crate::storage::postgresql::Database;

/// The handle through which records are written. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Evidence(Option<Arc<WriterHandle>>);

#[derive(Debug)]
struct WriterHandle {
    commands: CommandSender,
    /// Set when the process is ending: a failed write is not repeated any more.
    ending: Arc<AtomicBool>,
    /// Set while nothing can be written.
    stuck: Arc<AtomicBool>,
    /// The number of changes of the queue that wait, with their records.
    waiting: AtomicUsize,
    size: Arc<SizeAccount>,
    /// The size of the records when the folder was opened, in octets.
    octets_at_start: u64,
    /// Cancelled when the writer has ended.
    ended: CancellationToken,
}

/// The way to the writer.
#[derive(Debug)]
enum CommandSender {
    /// The thread that writes files.
    Thread(mpsc::Sender<WriterCommand>),
    /// The task that writes to the database.
    Task(tokio::sync::mpsc::UnboundedSender<WriterCommand>),
}

impl CommandSender {
    /// Hands in a command. It fails only after the writer has ended.
    fn send(&self, command: WriterCommand) -> Result<(), NotWritten> {
        match self {
            Self::Thread(thread) => thread.send(command).map_err(|_| NotWritten),
            Self::Task(task) => task.send(command).map_err(|_| NotWritten),
        }
    }
}

impl Evidence {
    /// Returns a handle that discards all records, for a relay that keeps no evidence.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Locks the folder for this process and creates it if it is missing, repairs the leftovers of
    /// a crash, and continues the chain. Blocks. Files older than `keep` are deleted, now and
    /// later. After a forward jump of the clock that happens only when the clock has run on for a
    /// day.
    ///
    /// # Errors
    /// [`EvidenceError`] with the cause and the remedy.
    pub fn open(folder: &Path, keep: Duration) -> Result<Self, EvidenceError> {
        let (commands, received) = mpsc::channel();
        let ending = Arc::new(AtomicBool::new(false));
        let ended = CancellationToken::new();
        let stuck = Arc::new(AtomicBool::new(false));
        let size: Arc<SizeAccount> = Arc::default();
        let shared = (Arc::clone(&stuck), Arc::clone(&size));
        let writer = EvidenceWriter::open(folder, keep, Moment::now(), shared)?;
        let octets_at_start = size.usage().octets;
        writer.start(received, Arc::clone(&ending), ended.clone())?;
        Ok(Self(Some(Arc::new(WriterHandle {
            commands: CommandSender::Thread(commands),
            ending,
            stuck,
            waiting: AtomicUsize::new(0),
            size,
            octets_at_start,
            ended,
        }))))
    }

    /// Finds or begins the chain of this node in a database that several nodes share, and whose schema
    /// is made. Days older than `keep` are removed, now and later. Requires a tokio runtime.
    ///
    /// # Errors
    /// [`EvidenceError::Database`]; also if the node's epoch is not alive, so it must have joined.
    pub async fn open_shared(
        database: Database,
        node: EvidenceNode,
        keep: Duration,
    ) -> Result<Self, EvidenceError> {
        let (commands, received) = tokio::sync::mpsc::unbounded_channel();
        let (ending, stuck): (Arc<AtomicBool>, Arc<AtomicBool>) = (Arc::default(), Arc::default());
        let (ended, size) = (CancellationToken::new(), Arc::<SizeAccount>::default());
        let state = (Arc::clone(&stuck), Arc::clone(&size), Arc::clone(&ending));
        let writer = SharedEvidenceWriter::open(database, node, keep, state).await?;
        let octets_at_start = size.usage().octets;
        tokio::spawn(writer.run(received, EndSignal(ended.clone())));
        Ok(Self(Some(Arc::new(WriterHandle {
            commands: CommandSender::Task(commands),
            ending,
            stuck,
            waiting: AtomicUsize::new(0),
            size,
            octets_at_start,
            ended,
        }))))
    }

    /// Returns whether records wait because they cannot be written. An attempt that starts now
    /// could not be completed.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.0.as_ref().is_some_and(|open| {
            open.stuck.load(Ordering::Relaxed) || open.waiting.load(Ordering::Relaxed) > 0
        })
    }

    /// Returns whether evidence is kept at all.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Appends records in their written form. When this returns `Ok`, they are durable. While the
    /// disk cannot be written to, this waits: the writer logs the error and retries until it
    /// succeeds or until [`Evidence::stop_retrying`].
    ///
    /// # Errors
    /// [`NotWritten`] if the process is about to end.
    pub async fn write_texts(&self, records: Vec<RecordText>) -> Result<(), NotWritten> {
        let Some(open) = self.0.as_ref().filter(|_| !records.is_empty()) else {
            return Ok(());
        };
        let lines = record::to_fields(records);
        let (done, written) = oneshot::channel();
        open.commands
            .send(WriterCommand::Write { lines, done })
            .map_err(|_| NotWritten)?;
        written.await.map_err(|_| NotWritten)
    }

    /// Returns records in the form in which the spool stores them with a change of the queue, in one
    /// transaction; `None` if they must be written first: they go to files, or cannot be written now.
    #[must_use]
    pub fn join(&self, records: &[RecordText]) -> Option<Arc<JoinedRecords>> {
        let open = self.0.as_ref().filter(|_| !records.is_empty())?;
        let CommandSender::Task(_) = &open.commands else {
            return None;
        };
        let fields = record::to_fields(records.to_vec());
        let octets = JoinedRecords::octets(&fields) as u64;
        if self.is_stuck() || open.size.check(octets).is_err() {
            return None;
        }
        // The next measurement corrects this, also if they are not stored.
        open.size.add(octets);
        Some(Arc::new(JoinedRecords::new(fields)))
    }

    /// Notes that joined records wait, as long as the returned value lives: no attempt may start that
    /// could not be completed.
    #[must_use]
    pub fn wait_joined(&self) -> WaitingRecords {
        if let Some(open) = &self.0 {
            open.waiting.fetch_add(1, Ordering::Relaxed);
        }
        WaitingRecords(self.clone())
    }

    /// Sets the time for which files are kept from now on.
    pub fn set_keep(&self, keep: Duration) {
        if let Some(open) = &self.0 {
            // Fails only after the writer has ended, which its callers learn elsewhere.
            let _ = open.commands.send(WriterCommand::SetKeep(keep));
        }
    }

    /// Limits the size of the records from now on. Without a call there is no limit.
    ///
    /// The default grows with evidence that was larger when the folder was opened, as after the
    /// update of a version that had no limit: an update must not stop mail.
    pub fn set_limit(&self, limit: EvidenceLimit) {
        let Some(open) = &self.0 else {
            return;
        };
        let default = limit.octets();
        let max = match limit {
            EvidenceLimit::Set(octets) => octets,
            EvidenceLimit::Default => default.max(default_for(open.octets_at_start)),
        };
        if max > default && open.size.usage().max != max {
            tracing::warn!(
                octets = open.octets_at_start,
                default,
                max,
                "evidence is larger than the default of [evidence] max_size allows, and the key is not set; a higher limit applies until the next start; run gatepost evidence archive FOLDER, or set the key"
            );
        }
        open.size.set_max(max);
        let _ = open.commands.send(WriterCommand::CheckSize);
    }

    /// Returns the size of the records and their limit; `None` if no evidence is kept.
    #[must_use]
    pub fn usage(&self) -> Option<EvidenceUsage> {
        self.0.as_ref().map(|open| open.size.usage())
    }

    /// Returns whether the records of another message have space within the limit, beside those of
    /// the messages that were accepted before.
    #[must_use]
    pub fn has_space(&self) -> bool {
        self.usage()
            .is_none_or(|usage| usage.level() < EvidenceLevel::RejectsMail)
    }

    /// Closes the newest day that has a record, so that it can be archived although it is not over.
    /// Records that follow go to the file of the day after it. Returns that day, or `None` if there
    /// is no record.
    ///
    /// # Errors
    /// [`ArchiveError`] if the file cannot be closed, or the process is about to end.
    pub async fn close_day(&self) -> Result<Option<Date>, ArchiveError> {
        let Some(open) = &self.0 else {
            return Ok(None);
        };
        let (done, closed) = oneshot::channel();
        open.commands
            .send(WriterCommand::CloseDay { done })
            .map_err(|_| ArchiveError::Stopping)?;
        closed.await.map_err(|_| ArchiveError::Stopping)?
    }

    /// Removes days that were archived, and records it.
    ///
    /// # Errors
    /// [`ArchiveError`] if they are not those that were archived; nothing was removed then.
    pub async fn remove_archived(&self, archived: ArchivedDays) -> Result<(), ArchiveError> {
        let Some(open) = &self.0 else {
            return Err(ArchiveError::Stopping);
        };
        let (done, removed) = oneshot::channel();
        open.commands
            .send(WriterCommand::RemoveArchived { archived, done })
            .map_err(|_| ArchiveError::Stopping)?;
        removed.await.map_err(|_| ArchiveError::Stopping)?
    }

    /// Prepares for the end of the process: from now on a failed write is not repeated.
    pub fn stop_retrying(&self) {
        if let Some(open) = &self.0 {
            open.ending.store(true, Ordering::Relaxed);
        }
    }

    /// Writes the records that were handed in, without retries, and ends the writer.
    pub async fn close(&self) {
        self.stop_retrying();
        if let Some(open) = &self.0 {
            let _ = open.commands.send(WriterCommand::Close);
            open.ended.cancelled().await;
        }
    }

    /// Waits until the writer has ended; for ever if no evidence is kept.
    pub async fn closed(&self) {
        match &self.0 {
            Some(open) => open.ended.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

/// Joined records that wait to be stored.
#[derive(Debug)]
pub struct WaitingRecords(Evidence);

impl Drop for WaitingRecords {
    fn drop(&mut self) {
        if let Some(open) = &self.0.0 {
            open.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Returns the limit of which these octets are the share at which warnings begin.
fn default_for(octets: u64) -> u64 {
    octets.saturating_add(octets / 4)
}
