//! The task that extends the chain of this node: all waiting records in one transaction.
//!
//! The spool extends the chain, too, and one of them has the turn at a time. The database extends the
//! chain from its head alone. If the outcome of a write is unknown, the records are looked for before
//! they are sent again. A record is not given up while the process runs, as with files.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::archive::ArchiveError;
use super::super::chain::ChainHead;
use super::super::error::EvidenceError;
use super::super::record::EvidenceRecord;
use super::super::size_level::log_level;
use super::super::usage::{EvidenceLevel, SizeAccount};
use super::super::writer::{BATCH_DELAY, BATCH_OCTETS, EndSignal, LINK_OCTETS, WriterCommand};
use super::EvidenceNode;
use super::chain_table::ChainTable;
use crate::storage::postgresql::{Database, DatabaseError};
use crate::storage::shared_chain::TriedHeads;

/// The interval at which expired days are searched and the next days get their partitions.
const EXPIRE_INTERVAL: Duration = Duration::from_hours(1);
/// The interval of a look at what is due.
const PERIODIC_INTERVAL: Duration = Duration::from_mins(1);
/// The time in which the database must answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// The time between two attempts to write, and between two log lines about a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const LOG_INTERVAL: Duration = Duration::from_mins(1);
/// The interval at which a waiting writer checks if the process is ending.
const ENDING_INTERVAL: Duration = Duration::from_millis(50);

/// The place of the evidence and the remedy if it fills its limit, for the log.
const SIZE_LOG: (&str, &str) = (
    "the database",
    "lower [evidence] keep, or raise max_size, and reload",
);

/// The reason why records are not written now.
#[derive(Debug, thiserror::Error)]
enum ChainWriteError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the lease of this node is over")]
    LeaseOver,
    #[error("the head of the chain has changed")]
    HeadChanged,
    #[error("{0}")]
    Size(String),
}

/// The writer of the chain of one node.
#[derive(Debug)]
pub(in super::super) struct SharedEvidenceWriter {
    table: ChainTable,
    node: EvidenceNode,
    keep: Duration,
    expired_at: Instant,
    /// The start of the present failure, and the time of the last log line about it.
    failing: Option<(Instant, Instant)>,
    stuck: Arc<AtomicBool>,
    size: Arc<SizeAccount>,
    level: EvidenceLevel,
    deferred: VecDeque<WriterCommand>,
    ending: Arc<AtomicBool>,
}

impl SharedEvidenceWriter {
    /// Finds the chain of the node, or begins it, and makes the partitions.
    pub(in super::super) async fn open(
        database: Database,
        node: EvidenceNode,
        keep: Duration,
        (stuck, size, ending): (Arc<AtomicBool>, Arc<SizeAccount>, Arc<AtomicBool>),
    ) -> Result<Self, EvidenceError> {
        let (chain, head) = node.chain.open(&database, &node.name).await?;
        let mut writer = Self {
            table: ChainTable::new(database, chain),
            node,
            keep,
            expired_at: Instant::now(),
            failing: None,
            stuck,
            size,
            level: EvidenceLevel::Normal,
            deferred: VecDeque::new(),
            ending,
        };
        writer.expire().await;
        if head == ChainHead::START {
            let begun = EvidenceRecord::Begun {
                gatepost: env!("CARGO_PKG_VERSION").to_owned(),
            };
            let begun = [begun.to_text(Timestamp::now()).fields];
            if let Err(error) = writer.append(&begun, &mut TriedHeads::default()).await {
                let text = format!("cannot begin the chain of evidence: {error}");
                return Err(DatabaseError::Refused(text).into());
            }
        }
        Ok(writer)
    }

    /// Carries out commands until the end.
    pub(in super::super) async fn run(
        mut self,
        mut commands: UnboundedReceiver<WriterCommand>,
        ended: EndSignal,
    ) {
        let _ended = ended;
        loop {
            let command = match self.deferred.pop_front() {
                Some(command) => Ok(Some(command)),
                None => timeout(PERIODIC_INTERVAL, commands.recv()).await,
            };
            self.run_periodic().await;
            let mut next = match command {
                Ok(None) => return,
                Err(_) => continue,
                Ok(command) => {
                    tokio::time::sleep(BATCH_DELAY).await;
                    command
                }
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
                    order => self.carry_out(order).await,
                }
                next = if closes || octets >= BATCH_OCTETS {
                    None
                } else {
                    let deferred = self.deferred.pop_front();
                    deferred.or_else(|| commands.try_recv().ok())
                };
            }
            self.write_batch(&lines, waiting, &mut commands).await;
            if closes {
                return;
            }
        }
    }

    async fn carry_out(&mut self, order: WriterCommand) {
        match order {
            WriterCommand::SetKeep(keep) => {
                self.keep = keep;
                self.expire().await;
            }
            WriterCommand::CheckSize => self.measure().await,
            // A failed send means that the caller was aborted.
            WriterCommand::CloseDay { done } => drop(done.send(Err(ArchiveError::InDatabase))),
            WriterCommand::RemoveArchived { done, .. } => {
                drop(done.send(Err(ArchiveError::InDatabase)));
            }
            WriterCommand::Write { .. } | WriterCommand::Close => self.deferred.push_back(order),
        }
    }

    async fn run_periodic(&mut self) {
        if self.expired_at.elapsed() >= EXPIRE_INTERVAL {
            self.expire().await;
        } else if self.level >= EvidenceLevel::RejectsMail {
            self.measure().await;
        }
    }

    /// Drops expired days, and records in the chain which records are gone. A failure is retried
    /// within the hour.
    async fn expire(&mut self) {
        self.expired_at = Instant::now();
        let expired = async {
            self.table.keep(self.keep).await?;
            let epoch = (self.node.epoch)();
            let Some((last, files)) = self.table.state(epoch).await?.removed else {
                return Ok(());
            };
            let dropped = EvidenceRecord::Dropped {
                files,
                last_seq: last.seq,
                last_hash: last.hash,
                archived_to: None,
            };
            let dropped = [dropped.to_text(Timestamp::now()).fields];
            self.append(&dropped, &mut TriedHeads::default()).await?;
            self.table.removal_recorded(last).await?;
            tracing::info!(
                last_seq = last.seq,
                "deleted evidence older than [evidence] keep"
            );
            Ok::<_, ChainWriteError>(())
        };
        match timeout(ANSWER_TIME, expired).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot delete expired evidence; trying again later");
            }
            Err(_) => tracing::error!("cannot delete expired evidence, no answer of the database"),
        }
        self.measure().await;
    }

    /// Measures the size of the evidence of all nodes.
    async fn measure(&mut self) {
        match timeout(ANSWER_TIME, self.table.size()).await {
            Ok(Ok(octets)) => self.size.set_octets(octets),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("cannot measure the evidence; its last known size counts");
            }
        }
        self.level = log_level(&self.size, self.level, SIZE_LOG);
    }

    /// Writes a batch and answers its callers. If the process is ending and the write fails, the
    /// batch is given up unanswered.
    async fn write_batch(
        &mut self,
        lines: &[String],
        waiting: Vec<oneshot::Sender<()>>,
        commands: &mut UnboundedReceiver<WriterCommand>,
    ) {
        if lines.is_empty() {
            return;
        }
        let mut tried = TriedHeads::default();
        loop {
            // Read before the write, so that there is always one attempt after the end has begun.
            let is_last = self.ending.load(Ordering::Relaxed);
            let error = match self.append_within_limit(lines, &mut tried).await {
                Ok(()) => break,
                Err(ChainWriteError::HeadChanged) => continue,
                Err(error) => error,
            };
            self.stuck.store(true, Ordering::Relaxed);
            self.log_failure(&error, lines.len());
            if is_last {
                tracing::error!(
                    records = lines.len(),
                    "evidence not written before shutdown; its deliveries are repeated after the restart"
                );
                return;
            }
            self.wait_for_retry(commands).await;
        }
        self.stuck.store(false, Ordering::Relaxed);
        if let Some((since, _)) = self.failing.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, "evidence can be written to the database again");
        }
        self.level = log_level(&self.size, self.level, SIZE_LOG);
        for done in waiting {
            // A failed send means that the caller was aborted; the record is durable all the same.
            let _ = done.send(());
        }
    }

    async fn append_within_limit(
        &mut self,
        lines: &[String],
        tried: &mut TriedHeads,
    ) -> Result<(), ChainWriteError> {
        let octets: usize = lines.iter().map(|line| line.len() + LINK_OCTETS).sum();
        let fits = self.size.check(octets as u64);
        fits.map_err(|error| ChainWriteError::Size(error.to_string()))?;
        timeout(ANSWER_TIME, self.append(lines, tried))
            .await
            .unwrap_or_else(|_| {
                let text = "no answer to a write of evidence".to_owned();
                Err(DatabaseError::Unreachable(text).into())
            })
    }

    /// Appends records durably, unless an earlier try was carried out. If it fails, none of them counts.
    async fn append(
        &mut self,
        lines: &[String],
        tried: &mut TriedHeads,
    ) -> Result<(), ChainWriteError> {
        let epoch = (self.node.epoch)();
        let mut turn = self.node.chain.turn().await?;
        let connection = self.table.connection().await?;
        if turn.is_stored(&connection, tried).await? {
            // The head may be behind the records; the next extension finds that out.
            connection.give_back();
            return Ok(());
        }
        let mut extension = turn.extension();
        for line in lines {
            extension.add(line);
        }
        let is_new = tried.add(extension.to);
        let written = self.table.append(&connection, epoch, &extension).await;
        // An answer says nothing about an earlier try of the same extension.
        if is_new && !matches!(written, Ok(true) | Err(DatabaseError::Unreachable(_))) {
            tried.remove(extension.to);
        }
        if written? {
            turn.extended(&extension);
            connection.give_back();
            self.size.add(extension.octets() as u64);
            return Ok(());
        }
        turn.read_head(&connection).await?;
        connection.give_back();
        // Another process of this node, or an earlier try, has extended the chain.
        Err(if self.table.state(epoch).await?.is_alive {
            ChainWriteError::HeadChanged
        } else {
            ChainWriteError::LeaseOver
        })
    }

    /// Waits for the next attempt to write. Orders are carried out, and after one the next attempt
    /// comes at once: they may free space.
    async fn wait_for_retry(&mut self, commands: &mut UnboundedReceiver<WriterCommand>) {
        self.run_periodic().await;
        let until = Instant::now() + RETRY_DELAY;
        while Instant::now() < until && !self.ending.load(Ordering::Relaxed) {
            match timeout(ENDING_INTERVAL, commands.recv()).await {
                Ok(Some(command @ (WriterCommand::Write { .. } | WriterCommand::Close))) => {
                    self.deferred.push_back(command);
                }
                Ok(Some(order)) => return self.carry_out(order).await,
                Ok(None) => tokio::time::sleep(ENDING_INTERVAL).await,
                Err(_) => {}
            }
        }
    }

    /// Logs that nothing can be written: at once, then once a minute.
    fn log_failure(&mut self, error: &ChainWriteError, records: usize) {
        let now = Instant::now();
        let since = self.failing.map_or(now, |(since, _)| since);
        let logged = self.failing.map(|(_, logged)| logged);
        if logged.is_some_and(|logged| now.duration_since(logged) < LOG_INTERVAL) {
            return;
        }
        tracing::error!(
            %error, records, seconds = since.elapsed().as_secs(),
            "cannot write evidence to the database, deliveries wait; make the database reachable, or give it disk space"
        );
        self.failing = Some((since, now));
    }
}
