//! The task that exchanges the changes of the memory with the other nodes, through the database.
//!
//! It reads what others have changed once a second. What this node has learnt is gathered for a
//! second, and written in one transaction, which first reads the changes that it has not seen: so a
//! domain that an operator had another node forget does not come back.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::error::WriteError;
use super::memory::{SharedChanges, WriteBatch};
use super::tables;
use super::writer::{GATHER_PERIOD, Shared, WriteWaiter};
use crate::storage::postgresql::{Database, DatabaseError, LentConnection, last_change};

/// The time between a failed exchange and the next try.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The time in which an exchange must end.
const EXCHANGE_TIME: Duration = Duration::from_secs(30);

/// Starts the task. It ends when the memory is closed. `seen` is the number of the last change in the
/// memory.
pub(super) fn start(shared: Arc<Shared>, database: Database, seen: i64) -> JoinHandle<()> {
    let mut writer = SharedWriter {
        shared,
        database,
        seen,
        is_failing: false,
    };
    tokio::spawn(async move {
        while writer.exchange_next().await {}
        // Waiting callers receive an error.
        writer.shared.state().waiters.clear();
    })
}

struct SharedWriter {
    shared: Arc<Shared>,
    database: Database,
    /// The number of the last change that the memory has.
    seen: i64,
    is_failing: bool,
}

impl SharedWriter {
    /// Exchanges changes once. Returns false once the memory is closed.
    async fn exchange_next(&mut self) -> bool {
        self.wait().await;
        let (waiters, closing) = {
            let mut state = self.shared.state();
            (std::mem::take(&mut state.waiters), state.closing)
        };
        if closing && !self.is_dirty() {
            answer(waiters, Ok(()));
            return false;
        }
        let result = self.exchange_in_time().await;
        self.log_result(&result, closing);
        answer(waiters, result.map_err(WriteError::Database));
        !closing
    }

    /// Waits for the next time to exchange, which is now if a caller waits or the memory is closing.
    async fn wait(&self) {
        let period = if self.is_failing {
            RETRY_AFTER
        } else {
            GATHER_PERIOD
        };
        let urgent = async {
            while !self.shared.state().is_urgent() {
                self.shared.announced().await;
            }
        };
        tokio::select! {
            () = urgent => {}
            () = sleep(period) => {}
        }
    }

    async fn exchange_in_time(&mut self) -> Result<(), DatabaseError> {
        timeout(EXCHANGE_TIME, self.exchange())
            .await
            .unwrap_or_else(|_| {
                let text = format!("no answer within {} s", EXCHANGE_TIME.as_secs());
                Err(DatabaseError::Unreachable(text))
            })
    }

    async fn exchange(&mut self) -> Result<(), DatabaseError> {
        let database = self.database.clone();
        let mut connection = database.connection().await?;
        let last = last_change(&connection, tables::STORE).await?;
        if last < self.seen {
            // The database was restored from a backup, or its standby had not all. It gets what is
            // known here.
            self.shared.state().memory.mark_all_dirty();
        }
        // After a failure all is read, since the numbers may have been given anew meanwhile.
        let is_doubtful = self.is_failing || last < self.seen;
        let from = if is_doubtful { 0 } else { self.seen };
        if self.is_dirty() {
            self.write(&mut connection, from).await?;
        } else {
            if last > from {
                let transaction = connection.transaction().await?;
                let changes = tables::read_after(&transaction, from).await?;
                transaction.commit().await?;
                self.merge(changes);
            }
            self.seen = last;
        }
        connection.give_back();
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.shared.state().memory.is_dirty()
    }

    /// Reads what others have changed, and writes what this node has learnt.
    async fn write(
        &mut self,
        connection: &mut LentConnection,
        from: i64,
    ) -> Result<(), DatabaseError> {
        let transaction = connection.transaction().await?;
        let change = tables::next(&transaction).await?;
        let changes = tables::read_after(&transaction, from).await?;
        self.merge(changes);
        let mut pending = PendingBatch::new(&self.shared);
        tables::write(&transaction, change, &pending.batch).await?;
        transaction.commit().await?;
        pending.is_written = true;
        self.seen = change;
        Ok(())
    }

    fn merge(&self, changes: SharedChanges) {
        let mut state = self.shared.state();
        for (_, row) in &changes.rows {
            if let Some((issuer, since)) = &row.issuer {
                state.watch.add_known_issuer(row.level, issuer, *since);
            }
        }
        state.memory.merge(changes);
    }

    /// Logs when the exchange starts to fail, when it works again, and what is lost.
    fn log_result(&mut self, result: &Result<(), DatabaseError>, closing: bool) {
        match result {
            Ok(()) if self.is_failing => {
                tracing::info!("the downgrade memory is exchanged with the other nodes again");
            }
            Err(error) if closing => {
                tracing::error!(%error, "recent changes of the downgrade memory are lost");
            }
            Err(error) if !self.is_failing => tracing::error!(
                %error,
                "cannot exchange the downgrade memory with the other nodes; retrying every 5 s, a restart loses recent changes"
            ),
            Ok(()) | Err(_) => {}
        }
        self.is_failing = result.is_err();
    }
}

/// A batch that is being written. Unless it is, its changes count as unwritten again, also if the
/// write is cancelled.
struct PendingBatch<'a> {
    shared: &'a Shared,
    batch: WriteBatch,
    is_written: bool,
}

impl<'a> PendingBatch<'a> {
    fn new(shared: &'a Shared) -> Self {
        let batch = shared.state().memory.take_batch();
        Self {
            shared,
            batch,
            is_written: false,
        }
    }
}

impl Drop for PendingBatch<'_> {
    fn drop(&mut self) {
        if !self.is_written {
            let batch = std::mem::take(&mut self.batch);
            self.shared.state().memory.mark_unwritten(batch);
        }
    }
}

/// Sends the result of a write to the callers that wait for it. One may have stopped waiting.
fn answer(waiters: Vec<WriteWaiter>, result: Result<(), WriteError>) {
    let result = result.map_err(Arc::new);
    for waiter in waiters {
        let _ = waiter.send(result.clone());
    }
}
