//! The writer thread: it appends all waiting operations to the log as one batch with one sync.
//!
//! A failed disk ends the thread: after a failed write or sync the state of the disk is unknown,
//! and a second sync that succeeds proves nothing. A full disk rejects new mail alone; states and
//! removals may use the reserve.

mod segments;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _};

use super::super::SpoolError;
use super::super::file::{TemporaryFile, io_error};
use super::super::log::{AppendError, BatchEncoder, LogRecord, SegmentFile};
use super::bound::LogShare;
use super::fatal::Fatal;
use super::index::{HeldContent, HeldMessage, Pending};
use super::op_records::{record_of, report_records, update_record};
use super::queue::{Committed, Op};
use super::row::{EnvelopeText, IN_FILE, row_id};
use super::schema::{database_error, is_unreadable};
use super::shared::{Core, EndGuard};
use crate::smtp::envelope::QueueId;

/// Starts the writer thread. `connection` is for reading only; `next` is the number of the first
/// segment that it begins, and `previous_end` the end of the segment before that.
pub(super) fn start(
    core: Arc<Core>,
    connection: Connection,
    next: u64,
    previous_end: u64,
) -> Result<JoinHandle<()>, SpoolError> {
    let folder = core.paths.folder.clone();
    let run = move || {
        let guard = EndGuard(core);
        let mut writer = SpoolWriter {
            connection,
            core: &guard.0,
            segment: None,
            shared_end: 0,
            next,
            previous_end,
            buffer: Vec::new(),
            withdrawn: Vec::new(),
        };
        while let Some(batch) = guard.0.queue.take() {
            if writer.execute(batch).is_err() {
                return;
            }
        }
        writer.end();
    };
    std::thread::Builder::new()
        .name("spool-writer".into())
        .spawn(run)
        .map_err(|error| io_error("start the writer of", &folder, &error))
}

struct SpoolWriter<'a> {
    /// Reads the database; the mover alone writes it.
    connection: Connection,
    core: &'a Core,
    segment: Option<SegmentFile>,
    /// The end of the part of the current segment that states and mail may use.
    shared_end: u64,
    /// The number of the next segment.
    next: u64,
    /// The end of the segment before the current one, while there is no current one.
    previous_end: u64,
    buffer: Vec<u8>,
    /// The messages whose withdrawal could not be written. Their clients send them again.
    withdrawn: Vec<QueueId>,
}

/// An operation with the record that it appends.
struct PlannedOp {
    op: Op,
    record: LogRecord,
    /// The records of the reports about the message, which become durable with it.
    reports: Vec<LogRecord>,
    /// True if the message has a body file, which its removal leaves to the caller.
    has_body_file: bool,
}

impl PlannedOp {
    /// Returns all records of the operation.
    fn records(&self) -> impl Iterator<Item = &LogRecord> {
        std::iter::once(&self.record).chain(&self.reports)
    }
}

/// An operation that appends no record, with its result.
type Unchanging = (Op, Result<(), SpoolError>);

/// The reason why a batch was not appended.
enum NotAppended {
    /// The log is at its bound, and the mover is making room. Only new mail waits for that.
    Held(SpoolError),
    /// The log is at its bound.
    LogFull(SpoolError),
    /// The batch is not in the log.
    Rejected(SpoolError),
    /// The disk failed.
    Uncertain(SpoolError),
}

impl From<AppendError> for NotAppended {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Rejected(error) => Self::Rejected(error),
            AppendError::Uncertain(error) => Self::Uncertain(error),
        }
    }
}

impl SpoolWriter<'_> {
    /// Executes a batch of operations and answers each.
    fn execute(&mut self, mut batch: Vec<Op>) -> Result<(), Fatal> {
        batch.retain(|op| !op.is_abandoned());
        if !self.withdrawn.is_empty() && self.core.held_folder.lease().holds() {
            let withdrawn = std::mem::take(&mut self.withdrawn);
            batch.extend(withdrawn.into_iter().map(|id| Op::Remove(id, None)));
        }
        let (planned, unchanging) = self.plan(batch);
        let result = self.execute_planned(planned);
        // An answer comes after all operations that were handed in before.
        for (op, result) in unchanging {
            match result {
                Ok(()) => op.answer_done(),
                Err(error) => op.answer_error(error),
            }
        }
        result
    }

    fn execute_planned(&mut self, planned: Vec<PlannedOp>) -> Result<(), Fatal> {
        let error = match self.append(&planned) {
            Ok(places) => {
                self.apply(planned, &places);
                return Ok(());
            }
            Err(error) => error,
        };
        let (mail, changes): (Vec<_>, Vec<_>) = planned
            .into_iter()
            .partition(|planned| matches!(planned.op, Op::Commit(..)));
        match error {
            NotAppended::Uncertain(error) => fail(mail.into_iter().chain(changes), &error),
            NotAppended::Held(_) => {
                let (mail, reports): (Vec<_>, Vec<_>) =
                    mail.into_iter().partition(|planned| planned.op.is_mail());
                self.hold(mail);
                self.execute_changes(changes)?;
                self.execute_mail(reports)
            }
            NotAppended::Rejected(error) | NotAppended::LogFull(error) => {
                self.execute_changes(changes)?;
                if mail.len() > 1 {
                    return self.execute_mail(mail);
                }
                reject(mail, &error);
                Ok(())
            }
        }
    }

    /// Writes the withdrawals that could not be written before.
    fn end(&mut self) {
        // A failure of the disk was logged, and nothing comes after it.
        let _failed = self.execute(Vec::new());
        for id in &self.withdrawn {
            tracing::warn!(queue_id = %id, "cannot remove a withdrawn message; it is delivered after the next start, although its client may send it again");
        }
    }

    /// Rejects removals. A withdrawal is tried again with the next batch.
    fn reject_removals(&mut self, removals: Vec<PlannedOp>, error: &SpoolError) {
        let mut waiting = Vec::new();
        for planned in removals {
            if let Op::Remove(id, None) = planned.op {
                self.withdrawn.push(id);
            } else {
                waiting.push(planned);
            }
        }
        reject(waiting, error);
    }

    /// Executes states and removals. They may use the reserve.
    fn execute_changes(&mut self, changes: Vec<PlannedOp>) -> Result<(), Fatal> {
        let mut result = self.append(&changes);
        if matches!(result, Err(NotAppended::Rejected(SpoolError::Full(_))))
            && self.core.release_reserve()
        {
            result = self.append(&changes);
        }
        match result {
            Ok(places) => {
                self.apply(changes, &places);
                Ok(())
            }
            Err(NotAppended::Uncertain(error)) => fail(changes, &error),
            Err(
                NotAppended::Rejected(error)
                | NotAppended::LogFull(error)
                | NotAppended::Held(error),
            ) => {
                if changes.is_empty() {
                    return Ok(());
                }
                let is_full = matches!(error, SpoolError::Full(_));
                self.core
                    .state_room
                    .set_rejecting(is_full, &self.core.monitor);
                self.core.mover.hurry();
                let (removals, states): (Vec<_>, Vec<_>) = changes
                    .into_iter()
                    .partition(|planned| planned.op.log_share() == LogShare::Removals);
                reject(states, &error);
                self.execute_removals(removals)
            }
        }
    }

    /// Executes removals in parts: as many of them as the log has space for. Rejects the others.
    fn execute_removals(&mut self, mut removals: Vec<PlannedOp>) -> Result<(), Fatal> {
        let mut count = removals.len();
        while !removals.is_empty() {
            let others = removals.split_off(count.min(removals.len()));
            let error = match self.append(&removals) {
                Ok(places) => {
                    self.apply(removals, &places);
                    removals = others;
                    continue;
                }
                Err(NotAppended::Uncertain(error)) => {
                    return fail(removals.into_iter().chain(others), &error);
                }
                Err(
                    NotAppended::Rejected(error)
                    | NotAppended::LogFull(error)
                    | NotAppended::Held(error),
                ) => error,
            };
            if removals.len() > 1 {
                count = removals.len() / 2;
                removals.extend(others);
                continue;
            }
            // None of the same size finds space.
            let octets = octets_of(&removals);
            let (larger, smaller): (Vec<_>, Vec<_>) = others
                .into_iter()
                .partition(|one| octets_of(std::slice::from_ref(one)) >= octets);
            removals.extend(larger);
            self.reject_removals(removals, &error);
            (count, removals) = (smaller.len(), smaller);
        }
        Ok(())
    }

    /// Executes each message of a batch alone, for a small one may fit where a large one did not.
    fn execute_mail(&mut self, mail: Vec<PlannedOp>) -> Result<(), Fatal> {
        let mut mail = mail.into_iter();
        while let Some(message) = mail.next() {
            let message = vec![message];
            match self.append(&message) {
                Ok(places) => self.apply(message, &places),
                Err(NotAppended::Uncertain(error)) => {
                    return fail(message.into_iter().chain(mail), &error);
                }
                Err(NotAppended::Rejected(error) | NotAppended::LogFull(error)) => {
                    reject(message, &error);
                }
                Err(NotAppended::Held(_)) => {
                    self.hold(message.into_iter().chain(mail.by_ref()).collect());
                }
            }
        }
        Ok(())
    }

    /// Puts mail back until the mover has made room in the log.
    fn hold(&self, mail: Vec<PlannedOp>) {
        let mail = mail.into_iter().map(|planned| planned.op).collect();
        self.core.queue.hold(mail);
        self.core.mover.hurry();
    }

    /// Finds the record of each operation, in their order, and the operations that have none, with
    /// their results.
    fn plan(&self, batch: Vec<Op>) -> (Vec<PlannedOp>, Vec<Unchanging>) {
        let mut planned = Vec::with_capacity(batch.len());
        let mut unchanging = Vec::new();
        // The state of the messages that the batch itself changes.
        let mut known: HashMap<QueueId, Option<bool>> = HashMap::new();
        let lease = self.core.held_folder.lease();
        for op in batch {
            let Some(id) = op.subject() else {
                unchanging.push((op, Ok(())));
                continue;
            };
            if let (Op::Commit(..), Err(error)) = (&op, lease.check()) {
                unchanging.push((op, Err(error)));
                continue;
            }
            let found = match known.get(&id) {
                Some(found) => Ok(*found),
                None => self.find(id, matches!(op, Op::Commit(..))),
            };
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    unchanging.push((op, Err(error)));
                    continue;
                }
            };
            let (record, after) = match (&op, found) {
                (Op::Commit(message, _), None) => {
                    let (record, has_body_file) = record_of(message);
                    (record, Some(has_body_file))
                }
                (Op::Commit(..), Some(_)) => {
                    let text = format!("there is a queue entry {id} already");
                    unchanging.push((op, Err(SpoolError::Io(text))));
                    continue;
                }
                (Op::Settle(settlement, _), Some(_)) => match &settlement.change {
                    Some(change) => (update_record(id, &change.update), found),
                    None => (LogRecord::Removed { id }, None),
                },
                (Op::Remove(..), Some(_)) => (LogRecord::Removed { id }, None),
                _ => {
                    unchanging.push((op, Err(SpoolError::Missing(id))));
                    continue;
                }
            };
            known.insert(id, after);
            planned.push(PlannedOp {
                reports: report_records(&op),
                op,
                record,
                has_body_file: found.or(after).unwrap_or(false),
            });
        }
        (planned, unchanging)
    }

    /// Returns whether a message has a body file; `None` if there is no such message. A new message
    /// has an id of its own, so the database is not asked about that.
    fn find(&self, id: QueueId, is_new: bool) -> Result<Option<bool>, SpoolError> {
        match self.core.index().get(id) {
            Some(Pending::Message(message, _)) => {
                return Ok(Some(message.content == HeldContent::BodyFile));
            }
            Some(Pending::Removed) => return Ok(None),
            Some(Pending::Envelope(_)) => {}
            None if is_new => return Ok(None),
            None => {}
        }
        let found = self
            .connection
            .prepare_cached(
                "SELECT content FROM message WHERE id = ?1 AND content NOT IN ('del', 'gone')",
            )
            .and_then(|mut statement| {
                let place = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
                statement.query_row([row_id(id)], place).optional()
            });
        // It was loaded while its row could be read, so its result must not be lost.
        if found.as_ref().is_err_and(is_unreadable) {
            return Ok(Some(self.core.paths.body(id).exists()));
        }
        let found = found.map_err(|error| database_error(&self.core.paths, "read from", &error))?;
        Ok(found.map(|place| place == IN_FILE))
    }

    /// Appends the records as one batch. Returns the place of each record's content.
    fn append(&mut self, planned: &[PlannedOp]) -> Result<Vec<(u64, u64)>, NotAppended> {
        if planned.is_empty() {
            return Ok(Vec::new());
        }
        let needed = octets_of(planned) + BatchEncoder::overhead();
        let shares = planned.iter().map(|planned| planned.op.log_share());
        let share = shares.max().unwrap_or(LogShare::Removals);
        let mut segment = self.segment_with(needed, share)?;
        let number = segment.number();
        let mut batch = segment.batch(std::mem::take(&mut self.buffer));
        let mut places = Vec::with_capacity(planned.len());
        for record in planned.iter().flat_map(PlannedOp::records) {
            let Some(place) = batch.push(record) else {
                self.segment = Some(segment);
                let text = format!("message {} is too large to store", record.id());
                return Err(NotAppended::Rejected(SpoolError::Io(text)));
            };
            places.push((number, place));
        }
        let began = Instant::now();
        let appended = segment.append(batch);
        self.segment = Some(segment);
        self.core.monitor.spool_sync(began.elapsed());
        let counters = &self.core.counters;
        counters.transactions.fetch_add(1, Ordering::Relaxed);
        self.buffer = appended?;
        counters.written.fetch_add(needed, Ordering::Relaxed);
        counters
            .operations
            .fetch_add(planned.len() as u64, Ordering::Relaxed);
        Ok(places)
    }

    /// Applies records that are durable now to the index, and answers their operations.
    fn apply(&self, planned: Vec<PlannedOp>, places: &[(u64, u64)]) {
        let is_state = |planned: &PlannedOp| planned.op.log_share() == LogShare::States;
        if self.core.state_room.is_scarce() && planned.iter().any(is_state) {
            self.core
                .state_room
                .set_rejecting(false, &self.core.monitor);
        }
        let mut index = self.core.index();
        let mut places = places.iter();
        for planned in &planned {
            for (record, (segment, offset)) in planned.records().zip(&mut places) {
                match record {
                    LogRecord::Message(logged) => {
                        let json = Arc::clone(&logged.envelope);
                        let envelope = EnvelopeText::from_json(logged.id, json);
                        let held = HeldMessage::new(logged, envelope, (*segment, *offset));
                        index.add(logged.id, held, *segment);
                    }
                    LogRecord::Envelope { id, envelope } => {
                        let envelope = EnvelopeText::from_json(*id, Arc::clone(envelope));
                        index.replace(*id, envelope, *segment);
                    }
                    LogRecord::Parts { id, parts } => index.replace_parts(*id, parts, *segment),
                    LogRecord::Removed { id } => index.remove(*id, *segment),
                }
            }
        }
        let octets = index.octets();
        drop(index);
        self.core.drafts.free_space.set_owed(octets);
        for planned in planned {
            self.answer(planned.op, planned.has_body_file);
        }
        self.core.mover.notice();
    }

    /// Sends the answer of an operation that is now durable. A failed send means that nobody waits.
    fn answer(&self, op: Op, has_body_file: bool) {
        let body_file = |id| TemporaryFile::new(self.core.paths.body(id));
        match op {
            Op::Commit(message, reply) => {
                let id = message.id;
                message.keep_file();
                drop(reply.send(Ok(Committed::new(id, Arc::clone(&self.core.queue)))));
            }
            Op::Settle(settlement, reply) => {
                let is_removed = settlement.change.is_none();
                let file = (is_removed && has_body_file).then(|| body_file(settlement.id));
                settlement.keep_files();
                drop(reply.send(Ok(file)));
            }
            Op::Ping(reply) => drop(reply.send(Ok(()))),
            Op::Remove(id, reply) => {
                let file = has_body_file.then(|| body_file(id));
                match (reply, file) {
                    (Some(reply), file) => drop(reply.send(Ok(file))),
                    // Nobody waits, so the file is removed here, unless its path may lead to a file
                    // of somebody else.
                    (None, Some(file)) if !self.core.held_folder.is_ours() => file.keep(),
                    (None, file) => drop(file),
                }
            }
        }
    }
}

/// Returns the octets that the records of these operations need in a batch.
fn octets_of(planned: &[PlannedOp]) -> u64 {
    let records = planned.iter().flat_map(PlannedOp::records);
    records.map(BatchEncoder::octets_of).sum()
}

fn reject(ops: Vec<PlannedOp>, error: &SpoolError) {
    for planned in ops {
        let error = match error {
            SpoolError::Full(text) => SpoolError::Full(text.clone()),
            SpoolError::NotOwner(reason) => SpoolError::NotOwner(reason.clone()),
            other => SpoolError::Io(other.to_string()),
        };
        planned.op.answer_error(error);
    }
}

/// Answers operations that may be in the log or not, and ends the thread.
fn fail(ops: impl IntoIterator<Item = PlannedOp>, error: &SpoolError) -> Result<(), Fatal> {
    let text = error.to_string();
    tracing::error!(
        error = text,
        "spool failed; waiting operations are not acknowledged and the process must restart"
    );
    for planned in ops {
        planned.op.answer_uncertain(SpoolError::Io(text.clone()));
    }
    Err(Fatal)
}
