//! Takes in the messages of another spool, for `gatepost spool move`.

use std::collections::BTreeSet;

use super::super::body::Body;
use super::super::ids::{queue_id, row_id};
use super::super::{Entry, SpoolError};
use super::SharedSpool;
use super::content::{PIECE, put_pieces};
use super::core::spool_error;
use super::queue::envelope_text;
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::{Database, DatabaseError, migrate};

/// Stores a message that nobody can claim yet, or that an interrupted move has stored.
const PUT: &str = "INSERT INTO gatepost.message AS m
    (id, node, epoch, accepted, size, crc, envelope, body)
VALUES ($1, 0, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO UPDATE SET envelope = excluded.envelope WHERE m.epoch = $2";
const UNFINISHED: &str = "SELECT id FROM gatepost.message WHERE node = 0 AND epoch = $1";
const FINISH: &str =
    "UPDATE gatepost.message SET epoch = 0 WHERE id = ANY($1::bigint[]) AND epoch = $2";
/// The messages of other nodes, by whether these are alive.
const OTHERS: &str = "SELECT
    count(*) FILTER (WHERE n.lease_end > clock_timestamp() AND NOT n.fenced),
    count(*) FILTER (WHERE n.lease_end <= clock_timestamp() OR n.fenced)
FROM gatepost.message m JOIN gatepost.node n ON n.number = m.node
WHERE m.node <> $1 AND m.epoch > 0";
const FORGET: &str = "DELETE FROM gatepost.node n WHERE n.number = $1
    AND NOT EXISTS (SELECT FROM gatepost.message WHERE node = n.number)";

/// The import of a queue into a database.
pub(in crate::storage::spool) struct QueueImport {
    database: Database,
    /// The epoch of messages that the other spool may still have. It is below zero, so nobody claims
    /// them.
    mark: i64,
}

/// The messages of other nodes.
pub(in crate::storage::spool) struct OthersMessages {
    pub(in crate::storage::spool) of_living: u64,
    pub(in crate::storage::spool) of_dead: u64,
}

impl QueueImport {
    /// Prepares the database.
    pub(in crate::storage::spool) async fn open(
        database: &Database,
        mark: i64,
    ) -> Result<Self, SpoolError> {
        let prepared = async {
            migrate(database).await?;
            let connection = database.connection().await?;
            connection
                .batch_execute("SELECT gatepost.keep_partitions()")
                .await?;
            connection.give_back();
            Ok::<_, DatabaseError>(())
        };
        prepared.await.map_err(|error| spool_error(&error))?;
        Ok(Self {
            database: database.clone(),
            mark,
        })
    }

    /// Returns the messages of an interrupted move.
    pub(in crate::storage::spool) async fn unfinished(
        &self,
    ) -> Result<BTreeSet<QueueId>, SpoolError> {
        let read = async {
            let connection = self.database.connection().await?;
            let rows = connection.query(UNFINISHED, &[&self.mark]).await?;
            connection.give_back();
            Ok::<_, DatabaseError>(rows)
        };
        let rows = read.await.map_err(|error| spool_error(&error))?;
        Ok(rows.iter().filter_map(|row| queue_id(row.get(0))).collect())
    }

    /// Stores a message durably. Nobody can claim it yet.
    pub(in crate::storage::spool) async fn put(&self, entry: &Entry) -> Result<(), SpoolError> {
        let (row, envelope) = (row_id(entry.id), envelope_text(entry.id, &entry.envelope)?);
        let failed = |error: DatabaseError| spool_error(&error);
        let connection = self.database.connection().await.map_err(failed)?;
        let (content, crc) = match &entry.body {
            Body::Memory(octets) => (Some(octets.as_ref()), crc32fast::hash(octets)),
            body => {
                let (mut reader, mut hasher) = (body.reader().await?, crc32fast::Hasher::new());
                let (mut waiting, mut number) = (Vec::with_capacity(PIECE), 0);
                loop {
                    let chunk = reader.next().await?;
                    if let Some(chunk) = &chunk {
                        hasher.update(chunk);
                        waiting.extend_from_slice(chunk);
                    }
                    let is_end = chunk.is_none();
                    while waiting.len() >= PIECE || (is_end && !waiting.is_empty()) {
                        let rest = waiting.split_off(waiting.len().min(PIECE));
                        let piece = [std::mem::replace(&mut waiting, rest)];
                        let put = put_pieces(&connection, entry.id, &[number], &piece).await;
                        put.map_err(failed)?;
                        number += 1;
                    }
                    if is_end {
                        break;
                    }
                }
                (None, hasher.finalize())
            }
        };
        let size = i64::try_from(entry.size).unwrap_or(i64::MAX);
        let put = connection
            .execute(
                PUT,
                &[
                    &row,
                    &self.mark,
                    &entry.accepted.as_millisecond(),
                    &size,
                    &i64::from(crc),
                    &envelope,
                    &content,
                ],
            )
            .await;
        let is_put = put.map_err(|error| failed(error.into()))? == 1;
        connection.give_back();
        if is_put {
            return Ok(());
        }
        Err(SpoolError::Io(format!(
            "the database has a message {} already, which did not come from this folder",
            entry.id
        )))
    }

    /// Lets nodes claim messages: the other spool does not have them any more.
    pub(in crate::storage::spool) async fn finish(
        &self,
        ids: Vec<QueueId>,
    ) -> Result<(), SpoolError> {
        let rows: Vec<i64> = ids.into_iter().map(row_id).collect();
        let finished = async {
            let connection = self.database.connection().await?;
            connection.execute(FINISH, &[&rows, &self.mark]).await?;
            connection.give_back();
            Ok::<_, DatabaseError>(())
        };
        finished.await.map_err(|error| spool_error(&error))
    }
}

impl SharedSpool {
    /// Records that this node sends no mail, so that it may have messages of any other.
    pub(in crate::storage::spool) fn send_nothing(&self) {
        self.core.config.send_nothing();
    }

    /// Returns how many messages other nodes own.
    pub(in crate::storage::spool) async fn owners_of_others(
        &self,
    ) -> Result<OthersMessages, SpoolError> {
        let core = &self.core;
        let connection = core.connection().await?;
        let row = connection.query_one(OTHERS, &[&core.identity.number]).await;
        let row = row.map_err(|error| core.failed(&error.into()))?;
        connection.give_back();
        let number = |at| u64::try_from(row.get::<_, i64>(at)).unwrap_or_default();
        Ok(OthersMessages {
            of_living: number(0),
            of_dead: number(1),
        })
    }

    /// Leaves, gives back what this node has, and removes the node.
    pub(in crate::storage::spool) async fn leave_for_good(&self) -> Result<(), SpoolError> {
        let core = &self.core;
        let left = self.end().await;
        let connection = core.connection().await?;
        let number = core.identity.number;
        let given = "UPDATE gatepost.message SET epoch = 0, node = 0 WHERE node = $1";
        let removed = async {
            connection.execute(given, &[&number]).await?;
            connection.execute(FORGET, &[&number]).await
        };
        removed.await.map_err(|error| core.failed(&error.into()))?;
        connection.give_back();
        left
    }
}
