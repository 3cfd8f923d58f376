//! The writer thread: it commits all waiting operations in one transaction with one sync.
//!
//! A failed operation does not harm the others: the transaction is rolled back and each operation
//! is repeated alone. A failed disk ends the thread: after a failed sync the state of the disk is
//! unknown, and a second sync that succeeds proves nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::{Connection, params};

use super::super::SpoolError;
use super::super::database_space::DatabaseSizes;
use super::super::draft::DraftContent;
use super::super::file::{TemporaryFile, io_error};
use super::queue::{Committed, NewMessage, Op, WriteQueue};
use super::row::{EnvelopeText, IN_FILE, IN_ROW, row_id};
use super::schema::{self, Sizes, database_error, is_busy, is_fatal, is_full};
use super::shared::{Core, EndGuard};
use super::wal::Fatal;
use crate::smtp::envelope::QueueId;

/// Starts the writer thread.
pub(super) fn start(
    core: Arc<Core>,
    mut connection: Connection,
) -> Result<JoinHandle<()>, SpoolError> {
    let space = Arc::clone(&core.space);
    let hooked = connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, log: i32| {
        space.set_log(u32::try_from(log).unwrap_or(0));
        Ok(())
    }));
    hooked.map_err(|error| database_error(&core.paths, "watch the log of", &error))?;
    let folder = core.paths.folder.clone();
    let run = move || {
        let guard = EndGuard(core);
        let mut writer = SpoolWriter {
            connection,
            core: &guard.0,
        };
        // The last run may have left much to move, or to give back.
        if writer.tend(&guard.0.queue).is_err() {
            return;
        }
        while let Some(batch) = guard.0.queue.take() {
            if writer
                .execute(batch)
                .and_then(|()| writer.tend(&guard.0.queue))
                .is_err()
            {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("spool-writer".into())
        .spawn(run)
        .map_err(|error| io_error("start the writer of", &folder, &error))
}

struct SpoolWriter<'a> {
    connection: Connection,
    core: &'a Core,
}

/// The result of one operation.
enum OpResult {
    Committed,
    Changed,
    Removed { file: bool },
    Missing,
}

impl SpoolWriter<'_> {
    /// Executes a batch of operations and answers each.
    fn execute(&mut self, mut batch: Vec<Op>) -> Result<(), Fatal> {
        batch.retain(|op| !op.is_abandoned());
        let error = match self.execute_transaction(&batch) {
            Ok(done) => {
                self.core
                    .counters
                    .operations
                    .fetch_add(done.len() as u64, Ordering::Relaxed);
                for (op, done) in batch.into_iter().zip(done) {
                    self.answer(op, &done);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        if is_fatal(&self.core.paths, &error) || !self.connection.is_autocommit() {
            return self.fail(batch, &error);
        }
        if is_busy(&error) {
            // The transaction did not begin; repeating each operation alone would only wait again.
            let text = database_error(&self.core.paths, "write to", &error).to_string();
            for op in batch {
                op.answer_error(SpoolError::Io(text.clone()));
            }
            return Ok(());
        }
        if batch.len() > 1 {
            return batch.into_iter().try_for_each(|op| self.execute(vec![op]));
        }
        let Some(op) = batch.pop() else { return Ok(()) };
        // States and removals may use the reserve; new mail may not.
        if matches!(op, Op::Commit(..)) || !is_full(&self.core.paths, &error) {
            op.answer_error(database_error(&self.core.paths, "write to", &error));
            return Ok(());
        }
        self.execute_on_full_disk(op)
    }

    /// Executes a state or a removal for which the disk had no room. The log is moved into the
    /// database, so that the operation can be written where the log begins; if that is not enough,
    /// the reserve is given up.
    fn execute_on_full_disk(&mut self, op: Op) -> Result<(), Fatal> {
        self.move_log()?;
        self.measure();
        let mut result = self.execute_transaction(std::slice::from_ref(&op));
        if result
            .as_ref()
            .is_err_and(|error| is_full(&self.core.paths, error))
            && self.core.drafts.free_space.release_reserve()
        {
            result = self.execute_transaction(std::slice::from_ref(&op));
        }
        match result {
            Ok(mut done) => {
                self.core
                    .counters
                    .operations
                    .fetch_add(1, Ordering::Relaxed);
                if let Some(done) = done.pop() {
                    self.answer(op, &done);
                }
                self.move_log()
            }
            Err(error)
                if is_fatal(&self.core.paths, &error) || !self.connection.is_autocommit() =>
            {
                self.fail(vec![op], &error)
            }
            Err(error) => {
                op.answer_error(database_error(&self.core.paths, "write to", &error));
                Ok(())
            }
        }
    }

    fn fail(&self, batch: Vec<Op>, error: &rusqlite::Error) -> Result<(), Fatal> {
        let text = database_error(&self.core.paths, "write to", error).to_string();
        tracing::error!(
            error = text,
            "spool failed; waiting operations are not acknowledged and the process must restart"
        );
        for op in batch {
            op.answer_uncertain(SpoolError::Io(text.clone()));
        }
        Err(Fatal)
    }

    /// Executes all operations of a batch in one transaction. If one fails, none takes effect.
    fn execute_transaction(&mut self, batch: &[Op]) -> rusqlite::Result<Vec<OpResult>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.run("BEGIN IMMEDIATE")?;
        let done = batch
            .iter()
            .map(|op| self.execute_one(op))
            .collect::<rusqlite::Result<Vec<_>>>();
        let result = done.and_then(|done| {
            let began = Instant::now();
            self.run("COMMIT")?;
            self.core.monitor.spool_sync(began.elapsed());
            Ok(done)
        });
        if result.is_err() && !self.connection.is_autocommit() {
            // If the rollback fails as well, the transaction is still open, which the caller treats
            // as fatal.
            let _still_open = self.run("ROLLBACK");
        }
        self.core
            .counters
            .transactions
            .fetch_add(1, Ordering::Relaxed);
        result
    }

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    fn execute_one(&self, op: &Op) -> rusqlite::Result<OpResult> {
        match op {
            Op::Commit(message, _) => self.insert(message),
            Op::Record(id, envelope, _) => self.update(*id, envelope),
            Op::Remove(id, _) => self.delete(row_id(*id)),
            Op::Evict(row, _) => self.delete(*row),
            Op::Ping(_) => Ok(OpResult::Changed),
        }
    }

    fn insert(&self, message: &NewMessage) -> rusqlite::Result<OpResult> {
        let id = row_id(message.id);
        let content = match &message.content {
            DraftContent::Row(bytes) => {
                let mut body = self
                    .connection
                    .prepare_cached("INSERT INTO body (id, data) VALUES (?1, ?2)")?;
                body.execute(params![id, &bytes[..]])?;
                IN_ROW
            }
            DraftContent::File(..) => IN_FILE,
        };
        let mut row = self.connection.prepare_cached(
            "INSERT INTO message (id, accepted, size, content, content_crc, fixed_crc, envelope, envelope_crc) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        row.execute(params![
            id,
            message.accepted,
            message.size,
            content,
            message.content_crc,
            message.fixed_crc,
            message.envelope.json,
            message.envelope.crc,
        ])?;
        Ok(OpResult::Committed)
    }

    fn update(&self, id: QueueId, envelope: &EnvelopeText) -> rusqlite::Result<OpResult> {
        let mut update = self
            .connection
            .prepare_cached("UPDATE message SET envelope = ?2, envelope_crc = ?3 WHERE id = ?1")?;
        let changed = update.execute(params![row_id(id), envelope.json, envelope.crc])?;
        Ok(if changed == 0 {
            OpResult::Missing
        } else {
            OpResult::Changed
        })
    }

    fn delete(&self, row: i64) -> rusqlite::Result<OpResult> {
        let bodies = self
            .connection
            .prepare_cached("DELETE FROM body WHERE id = ?1")?
            .execute([row])?;
        let messages = self
            .connection
            .prepare_cached("DELETE FROM message WHERE id = ?1")?
            .execute([row])?;
        Ok(if messages == 0 {
            OpResult::Missing
        } else {
            OpResult::Removed { file: bodies == 0 }
        })
    }

    /// Sends the answer of an operation that is now durable. A failed send means that nobody waits.
    fn answer(&self, op: Op, done: &OpResult) {
        match op {
            Op::Commit(message, reply) => {
                let NewMessage { id, content, .. } = *message;
                if let DraftContent::File(_, temporary) = content {
                    temporary.keep();
                }
                drop(reply.send(Ok(Committed::new(id, Arc::clone(&self.core.queue)))));
            }
            Op::Record(id, _, reply) => drop(reply.send(match done {
                OpResult::Missing => Err(SpoolError::Missing(id)),
                _ => Ok(()),
            })),
            Op::Remove(id, reply) => {
                let result = match done {
                    OpResult::Missing => Err(SpoolError::Missing(id)),
                    OpResult::Removed { file: true } => {
                        Ok(Some(TemporaryFile::new(self.core.paths.body(id))))
                    }
                    _ => Ok(None),
                };
                // If nobody waits, the file is dropped, and so removed, here.
                drop(reply.map(|reply| reply.send(result)));
            }
            Op::Evict(_, reply) | Op::Ping(reply) => drop(reply.send(Ok(()))),
        }
    }

    /// Does what follows a transaction: checkpoints, and the account of the space.
    fn tend(&mut self, queue: &WriteQueue) -> Result<(), Fatal> {
        let core = self.core;
        core.wal.after_transaction(&self.connection, &core.paths)?;
        loop {
            let is_short = core.drafts.free_space.is_short();
            if is_short {
                self.move_log()?;
            }
            let Some(sizes) = self.measure() else {
                return Ok(());
            };
            if !is_short && !queue.is_idle() {
                return Ok(());
            }
            match schema::give_back(&self.connection, sizes, is_short) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if is_fatal(&core.paths, &error) => {
                    return self.fail(Vec::new(), &error);
                }
                // There is no room for it, or another program writes.
                Err(error) => {
                    tracing::debug!(%error, "cannot give free pages of the spool database back");
                    return Ok(());
                }
            }
            core.wal.after_transaction(&self.connection, &core.paths)?;
            if !queue.is_idle() {
                self.measure();
                return Ok(());
            }
        }
    }

    /// Moves the log into the database, as far as that is possible now.
    fn move_log(&self) -> Result<(), Fatal> {
        let core = self.core;
        core.wal.move_now(&self.connection, &core.paths)
    }

    /// Records the sizes of the database. Returns `None` if they cannot be read.
    fn measure(&self) -> Option<Sizes> {
        let core = self.core;
        let sizes = schema::sizes(&self.connection, &core.paths).ok()?;
        let log_file = std::fs::metadata(&core.paths.wal).map_or(0, |log| log.len());
        core.space.set_sizes(DatabaseSizes {
            log_file,
            free: sizes.free,
            growth: sizes.growth,
        });
        core.drafts.free_space.reserve_growth();
        Some(sizes)
    }
}
