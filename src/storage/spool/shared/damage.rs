//! Sets aside what cannot be read, in tables that nothing else uses.

use tokio_postgres::types::ToSql;

use super::super::ids::{queue_id, row_id};
use super::super::{SetAside, SpoolError, StoredMessage};
use super::core::SharedCore;
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::DatabaseError;

/// Finds out whether a message is this process's, and keeps it so. Who only reads the queue of another
/// node changes nothing in it. Parameters: the message, this node, the first epoch of its process, and
/// its epoch.
const OWN: &str = "SELECT FROM gatepost.message m
WHERE m.id = $1 AND m.node = $2 AND m.epoch >= $3 AND EXISTS (
    SELECT FROM gatepost.node
    WHERE number = $2 AND epoch = $4 AND NOT fenced AND lease_end > clock_timestamp())
FOR UPDATE OF m";
/// Copies a message. Parameters: its id, the fault, and whether it leaves the queue.
const COPY: &str = "WITH copied AS (
    INSERT INTO gatepost.set_aside (id, fault, node, accepted, size, crc, envelope, body, is_lost)
    SELECT id, $2, node, accepted, size, crc, envelope, body, $3 FROM gatepost.message WHERE id = $1
    ON CONFLICT (id) DO UPDATE SET is_lost = excluded.is_lost OR gatepost.set_aside.is_lost
)
INSERT INTO gatepost.set_aside_body (message, piece, octets)
SELECT message, piece, octets FROM gatepost.body WHERE message = $1
ON CONFLICT (message, piece) DO NOTHING";
const REMOVE: &str = "WITH removed AS (DELETE FROM gatepost.message WHERE id = $1
), bodies AS (DELETE FROM gatepost.body WHERE message = $1)
DELETE FROM gatepost.recipient WHERE message = $1";
const UNREPORTED: &str = "SELECT id, fault FROM gatepost.set_aside
WHERE is_lost AND report IS NULL AND node = $1 ORDER BY id LIMIT 1000";
const REPORTED: &str = "UPDATE gatepost.set_aside SET report = $1 WHERE id = ANY($2::bigint[])";

/// The place where a damaged message is, for people.
fn place(row: i64) -> String {
    format!("gatepost.set_aside, id {row}")
}

impl SharedCore {
    /// Copies a message of this node whose envelope cannot be read, and removes it from the queue. One of
    /// another node stays where it is: its owner deals with it, and may be able to read it. Returns the
    /// error that describes the damage.
    pub(super) async fn set_aside_message(
        &self,
        row: i64,
        fault: String,
    ) -> Result<SpoolError, SpoolError> {
        let mut connection = self.connection().await?;
        let run = self.run();
        let first = i64::try_from(self.identity.first_epoch.number()).unwrap_or(i64::MAX);
        let moved = async {
            let transaction = connection.transaction().await?;
            let own = [
                &row as &(dyn ToSql + Sync),
                &run.number,
                &first,
                &run.epoch(),
            ];
            let is_own = transaction.query_opt(OWN, &own).await?.is_some();
            if is_own {
                transaction.execute(COPY, &[&row, &fault, &true]).await?;
                transaction.execute(REMOVE, &[&row]).await?;
            }
            transaction.commit().await?;
            Ok::<_, DatabaseError>(is_own)
        };
        let is_own = moved.await.map_err(|error| self.failed(&error))?;
        connection.give_back();
        let id = queue_id(row).unwrap_or_else(|| self.drafts.ids.draw());
        if !is_own {
            let files = format!("gatepost.message, id {row}");
            tracing::warn!(row, fault, "a message of another node cannot be read here");
            return Ok(SpoolError::Damaged {
                id,
                fault,
                files,
                remaining: None,
            });
        }
        let files = place(row);
        tracing::error!(
            row,
            fault,
            files,
            "damaged message set aside; its sender cannot be informed"
        );
        self.has_set_aside
            .store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(SpoolError::Damaged {
            id,
            fault,
            files,
            remaining: None,
        })
    }

    /// Copies a message whose content is damaged. It stays in the queue, so that its sender is informed.
    pub(super) async fn set_aside_content(
        &self,
        id: QueueId,
        fault: String,
    ) -> Result<SpoolError, SpoolError> {
        let row = row_id(id);
        let connection = self.connection().await?;
        let copied = async {
            connection.execute(COPY, &[&row, &fault, &false]).await?;
            Ok::<_, DatabaseError>(())
        };
        copied.await.map_err(|error| self.failed(&error))?;
        connection.give_back();
        let files = place(row);
        tracing::error!(queue_id = %id, fault, files, "damaged content copied; the message is bounced");
        Ok(SpoolError::Damaged {
            id,
            fault,
            files,
            remaining: self.remaining(id).await?.map(Box::new),
        })
    }

    async fn remaining(&self, id: QueueId) -> Result<Option<StoredMessage>, SpoolError> {
        let before = id.number().checked_sub(1).and_then(QueueId::from_number);
        let page = self.list(before, 1).await?;
        Ok(page.into_iter().find(|message| message.id == id))
    }

    /// Returns the messages of this node that were set aside and that the postmaster does not know of.
    pub(super) async fn unreported(&self) -> Result<Vec<SetAside>, SpoolError> {
        let connection = self.connection().await?;
        let rows = connection.query(UNREPORTED, &[&self.identity.number]).await;
        let rows = rows.map_err(|error| self.failed(&error.into()))?;
        connection.give_back();
        let entry = |row: &tokio_postgres::Row| {
            let number: i64 = row.get(0);
            SetAside {
                name: queue_id(number).map_or_else(|| number.to_string(), |id| id.to_string()),
                fault: row.get(1),
                files: place(number),
            }
        };
        Ok(rows.iter().map(entry).collect())
    }

    /// Records the report about messages that were set aside.
    pub(super) async fn reported(
        &self,
        report: QueueId,
        entries: Vec<SetAside>,
    ) -> Result<(), SpoolError> {
        let ids = entries.iter().filter_map(|entry| {
            let row = entry.files.rsplit(' ').next()?;
            row.parse::<i64>().ok()
        });
        let ids: Vec<i64> = ids.collect();
        let connection = self.connection().await?;
        let marked = connection.execute(REPORTED, &[&row_id(report), &ids]).await;
        marked.map_err(|error| self.failed(&error.into()))?;
        connection.give_back();
        let is_any = !self.unreported().await?.is_empty();
        self.has_set_aside
            .store(is_any, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}
