//! The one thread that writes: everything that waits becomes one transaction and one sync.
//!
//! An operation that fails harms no other: the transaction is rolled back and each is done alone. A
//! disk that fails ends the thread: after a failed sync nobody knows what is on the disk, and a second
//! one that succeeds proves nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::{Connection, params};

use super::super::SpoolError;
use super::super::draft::Content;
use super::super::file::{Discard, fault};
use super::Core;
use super::queue::{Committed, NewMessage, Op};
use super::row::{EnvelopeText, IN_FILE, IN_ROW, row_id};
use super::schema::{database_error, is_busy, is_fatal, is_full};
use crate::envelope::QueueId;

/// Starts the thread.
pub(super) fn start(core: Arc<Core>, mut connection: Connection) -> Result<JoinHandle<()>, SpoolError> {
    let frames = core.wal.frames();
    let hooked = connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, log: i32| {
        frames.store(u32::try_from(log).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }));
    hooked.map_err(|error| database_error(&core.paths, "watch the log of", &error))?;
    let folder = core.paths.folder.clone();
    let run = move || {
        let ending = Ending(core);
        let mut writer = Writer { connection, core: &ending.0 };
        while let Some(batch) = ending.0.queue.take() {
            if writer.settle(batch).and_then(|()| writer.tend_log()).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("spool-writer".into())
        .spawn(run)
        .map_err(|error| fault("start the writer of", &folder, &error))
}

/// Ends the engine with its thread, however that ends: nobody waits for an answer that cannot come.
pub(super) struct Ending(pub(super) Arc<Core>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.queue.fail();
        self.0.ended.cancel();
    }
}

/// The disk failed; the writer must end. It has been logged.
pub(super) struct Fatal;

struct Writer<'a> {
    connection: Connection,
    core: &'a Core,
}

/// What an operation did.
enum Done {
    Committed,
    Changed,
    Removed { file: bool },
    NotThere,
}

impl Writer<'_> {
    /// Does a batch, and answers everyone in it.
    fn settle(&mut self, mut batch: Vec<Op>) -> Result<(), Fatal> {
        batch.retain(|op| !op.is_given_up());
        let error = match self.together(&batch) {
            Ok(done) => {
                self.core.counters.operations.fetch_add(done.len() as u64, Ordering::Relaxed);
                for (op, done) in batch.into_iter().zip(done) {
                    self.answer(op, &done);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        if is_fatal(&self.core.paths, &error) || !self.connection.is_autocommit() {
            let text = database_error(&self.core.paths, "write to", &error).to_string();
            tracing::error!(
                error = text,
                "spool failed, nothing in flight is acknowledged and the process must restart"
            );
            for op in batch {
                op.answer_unsure(SpoolError::Io(text.clone()));
            }
            return Err(Fatal);
        }
        if is_busy(&error) {
            // Nothing was begun, and each alone would wait as long again.
            let text = database_error(&self.core.paths, "write to", &error).to_string();
            for op in batch {
                op.answer_error(SpoolError::Io(text.clone()));
            }
            return Ok(());
        }
        if batch.len() > 1 {
            return batch.into_iter().try_for_each(|op| self.settle(vec![op]));
        }
        let Some(op) = batch.pop() else { return Ok(()) };
        // States and removals may have what was kept for them; new mail may not.
        let may_have_reserve = !matches!(op, Op::Commit(..));
        if may_have_reserve && is_full(&self.core.paths, &error) && self.core.drafts.room.release() {
            return self.settle(vec![op]);
        }
        op.answer_error(database_error(&self.core.paths, "write to", &error));
        Ok(())
    }

    /// All of a batch in one transaction, or nothing of it.
    fn together(&mut self, batch: &[Op]) -> rusqlite::Result<Vec<Done>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.run("BEGIN IMMEDIATE")?;
        let done = batch.iter().map(|op| self.one(op)).collect::<rusqlite::Result<Vec<_>>>();
        let result = done.and_then(|done| {
            let began = Instant::now();
            self.run("COMMIT")?;
            self.core.monitor.spool_sync(began.elapsed());
            Ok(done)
        });
        if result.is_err() && !self.connection.is_autocommit() {
            // Where this fails as well the transaction is still open, and that is fatal.
            let _still_open = self.run("ROLLBACK");
        }
        self.core.counters.transactions.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    fn one(&self, op: &Op) -> rusqlite::Result<Done> {
        match op {
            Op::Commit(message, _) => self.insert(message),
            Op::Record(id, envelope, _) => self.update(*id, envelope),
            Op::Remove(id, _) => self.delete(row_id(*id)),
            Op::Evict(row, _) => self.delete(*row),
            Op::Nothing(_) => Ok(Done::Changed),
        }
    }

    fn insert(&self, message: &NewMessage) -> rusqlite::Result<Done> {
        let id = row_id(message.id);
        let content = match &message.content {
            Content::Row(bytes) => {
                let mut body = self.connection.prepare_cached("INSERT INTO body (id, data) VALUES (?1, ?2)")?;
                body.execute(params![id, &bytes[..]])?;
                IN_ROW
            }
            Content::File(..) => IN_FILE,
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
        Ok(Done::Committed)
    }

    fn update(&self, id: QueueId, envelope: &EnvelopeText) -> rusqlite::Result<Done> {
        let mut update =
            self.connection.prepare_cached("UPDATE message SET envelope = ?2, envelope_crc = ?3 WHERE id = ?1")?;
        let changed = update.execute(params![row_id(id), envelope.json, envelope.crc])?;
        Ok(if changed == 0 { Done::NotThere } else { Done::Changed })
    }

    fn delete(&self, row: i64) -> rusqlite::Result<Done> {
        let bodies = self.connection.prepare_cached("DELETE FROM body WHERE id = ?1")?.execute([row])?;
        let messages = self.connection.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([row])?;
        Ok(if messages == 0 { Done::NotThere } else { Done::Removed { file: bodies == 0 } })
    }

    /// Tells what is now durable. Who does not wait any more need not hear it.
    fn answer(&self, op: Op, done: &Done) {
        match op {
            Op::Commit(message, reply) => {
                let NewMessage { id, content, .. } = *message;
                if let Content::File(_, discard) = content {
                    discard.keep();
                }
                drop(reply.send(Ok(Committed::new(id, Arc::clone(&self.core.queue)))));
            }
            Op::Record(id, _, reply) => drop(reply.send(match done {
                Done::NotThere => Err(SpoolError::Missing(id)),
                _ => Ok(()),
            })),
            Op::Remove(id, reply) => {
                let result = match done {
                    Done::NotThere => Err(SpoolError::Missing(id)),
                    Done::Removed { file: true } => Ok(Some(Discard::new(self.core.paths.body(id)))),
                    _ => Ok(None),
                };
                // Where nobody waits the file is dropped, and so removed, here.
                drop(reply.map(|reply| reply.send(result)));
            }
            Op::Evict(_, reply) | Op::Nothing(reply) => drop(reply.send(Ok(()))),
        }
    }

    fn tend_log(&mut self) -> Result<(), Fatal> {
        self.core.wal.tend(&self.connection, &self.core.paths)
    }
}
