//! The task that sends what waits to the database, one transaction after the other.
//!
//! A transaction whose answer does not come is sent again: its operations can be repeated. When the
//! lease is over, all that waits is answered with an error, and what may have been stored all the same
//! is looked for later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::SpoolError;
use super::batch::{self, OpResult};
use super::core::{SharedCore, spool_error};
use super::queue::SharedOp;
use crate::storage::postgresql::{DatabaseError, LentConnection};

/// The interval of looks at the lease while a transaction is under way.
const LEASE_CHECK: Duration = Duration::from_millis(200);
/// The time after which a transaction that is not answered counts as a database that is gone.
const SLOW: Duration = Duration::from_secs(5);
/// The pauses between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// The pause before a batch is sent again that has met another change of the chain.
const AGAIN_PAUSE: Duration = Duration::from_millis(10);

/// The operations of a transaction, and those of the next ones.
struct Batch {
    ops: Vec<SharedOp>,
    /// Operations that were refused together with others, each of which is tried alone.
    singles: Vec<SharedOp>,
    is_repeated: bool,
    pause: Duration,
}

/// Carries out operations until the queue is closed and empty.
pub(super) async fn run(core: Arc<SharedCore>) {
    let mut connection = None;
    while let Some(ops) = core.queue.next_batch().await {
        let started = Instant::now();
        let mut batch = Batch {
            ops,
            singles: Vec::new(),
            is_repeated: false,
            pause: FIRST_PAUSE,
        };
        while batch.fill() {
            batch.step(&core, &mut connection).await;
        }
        core.monitor.spool_sync(started.elapsed());
    }
    if let Some(connection) = connection {
        LentConnection::give_back(connection);
    }
}

impl Batch {
    /// Returns whether there is something to try.
    fn fill(&mut self) -> bool {
        if self.ops.is_empty() {
            self.ops.extend(self.singles.pop());
        }
        !self.ops.is_empty()
    }

    /// Tries once. The operations that need another try remain.
    async fn step(&mut self, core: &SharedCore, connection: &mut Option<LentConnection>) {
        if let Err(error) = core.lease.check() {
            self.give_up(core, &error);
            return;
        }
        let result = match connection.take() {
            Some(connection) => self.try_on(core, connection).await,
            None => match core.database.connection().await {
                Ok(connection) => self.try_on(core, connection).await,
                Err(error) => Err(Some(error)),
            },
        };
        match result {
            Ok((used, results)) => {
                *connection = Some(used);
                core.availability.answered();
                let count = self.ops.len();
                for (op, result) in std::mem::take(&mut self.ops).into_iter().zip(results) {
                    match result {
                        OpResult::Again => self.ops.push(op),
                        result => finish(core, op, result),
                    }
                }
                if self.ops.len() == count {
                    tokio::time::sleep(AGAIN_PAUSE).await;
                }
            }
            // The lease ended during the try.
            Err(None) => self.is_repeated = true,
            Err(Some(DatabaseError::Unreachable(reason))) => {
                core.availability.failed(&reason);
                self.is_repeated = true;
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(LAST_PAUSE);
            }
            Err(Some(error)) => self.reject(core, &error),
        }
    }

    /// Sends the transaction. The connection comes back if it can be used again; the error is `None` if
    /// the lease ended before the answer.
    async fn try_on(
        &self,
        core: &SharedCore,
        connection: LentConnection,
    ) -> Result<(LentConnection, Vec<OpResult>), Option<DatabaseError>> {
        let run = core.run();
        let results = {
            let work = batch::carry_out(&connection, &core.chain, run, &self.ops, self.is_repeated);
            let mut work = std::pin::pin!(work);
            let slow = Instant::now() + SLOW;
            loop {
                match tokio::time::timeout(LEASE_CHECK, &mut work).await {
                    Ok(Ok(results)) => break results,
                    Ok(Err(error)) => return Err(Some(error)),
                    Err(_) if !core.lease.holds() => return Err(None),
                    Err(_) if Instant::now() > slow => core.availability.failed(
                        "it does not answer a commit; a synchronous standby may be missing",
                    ),
                    Err(_) => {}
                }
            }
        };
        Ok((connection, results))
    }

    /// Answers operations that the database refuses. On a full disk, what makes the queue shorter is tried
    /// without what makes it longer; and of several operations that are refused for another reason, each
    /// is tried alone, so that one does not harm the others.
    fn reject(&mut self, core: &SharedCore, error: &DatabaseError) {
        let ops = std::mem::take(&mut self.ops);
        let has_others = ops.iter().any(|op| !op.is_addition());
        let (rejected, others): (Vec<_>, Vec<_>) = match error {
            DatabaseError::Full(_) if has_others => {
                ops.into_iter().partition(SharedOp::is_addition)
            }
            DatabaseError::Full(_) => (ops, Vec::new()),
            _ if ops.len() > 1 => {
                self.singles.extend(ops.into_iter().rev());
                return;
            }
            _ => (ops, Vec::new()),
        };
        // Without additions among them, the others were tried already.
        let (rejected, others) = if rejected.is_empty() {
            (others, Vec::new())
        } else {
            (rejected, others)
        };
        for op in rejected {
            withdraw(core, &op, self.is_repeated);
            op.answer(Err(spool_error(error)));
        }
        self.ops = others;
    }

    /// Answers all operations with the end of the lease.
    fn give_up(&mut self, core: &SharedCore, error: &SpoolError) {
        for op in std::mem::take(&mut self.ops) {
            withdraw(core, &op, self.is_repeated);
            op.answer(Err(copy(error)));
        }
    }
}

/// Remembers what an operation that is answered with an error may have stored all the same.
fn withdraw(core: &SharedCore, op: &SharedOp, is_repeated: bool) {
    if !is_repeated {
        return;
    }
    match op {
        SharedOp::Commit(row, _) => core.own.withdraw(row.id),
        SharedOp::Settle(settled, _) => {
            core.own
                .doubt(settled.reports.iter().map(|report| report.id));
        }
        SharedOp::Ping(_) => {}
    }
}

/// Answers an operation, and keeps the account of what is this node's.
fn finish(core: &SharedCore, op: SharedOp, result: OpResult) {
    let answer = match result {
        OpResult::Done(epoch) => {
            match &op {
                SharedOp::Commit(row, _) => core.own.add([row.id], epoch),
                SharedOp::Settle(settled, _) => {
                    let reports = settled.reports.iter().map(|report| report.id);
                    core.own.add(reports, epoch);
                    if settled.edit.is_none() {
                        core.own.forget_claims([settled.claim]);
                    }
                }
                SharedOp::Ping(_) => {}
            }
            Ok(epoch)
        }
        OpResult::Missing(id) => {
            core.own.forget_claims(op.claim());
            Err(SpoolError::Missing(id))
        }
        OpResult::OfAnother(id) => {
            core.own.forget_claims(op.claim());
            Err(SpoolError::OfAnother(format!(
                "message {id} was given to another node, or given back"
            )))
        }
        // The caller keeps an operation that is tried again.
        OpResult::Again | OpResult::EpochOver => {
            core.lease.lose("its lease is over by the clock of the database; it gets a new one when it can be sure of its messages");
            Err(core.lease.refusal())
        }
    };
    op.answer(answer);
}

/// Returns an error of the same text for another caller.
fn copy(error: &SpoolError) -> SpoolError {
    match error {
        SpoolError::NotOwner(reason) => SpoolError::NotOwner(reason.clone()),
        other => SpoolError::Io(other.to_string()),
    }
}
