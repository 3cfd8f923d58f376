//! Takes in the messages of another spool, for `gatepost spool move`.

use std::collections::BTreeSet;

use tokio_postgres::types::ToSql;

use super::super::body::Body;
use super::super::ids::{queue_id, row_id};
use super::super::{Entry, SpoolError};
use super::SharedSpool;
use super::content::{PIECE, put_pieces};
use super::core::spool_error;
use super::queue::envelope_text;
use crate::policy::adoption::NodeConfig;
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::{Database, DatabaseError, LentConnection};

/// Stores a message that nobody can claim yet, or that an interrupted move has stored. It changes nothing
/// where the database has another message with this id: two relays that were alone may both have given
/// it.
const PUT: &str = "INSERT INTO gatepost.message AS m
    (id, node, epoch, accepted, size, crc, envelope, body)
VALUES ($1, $8, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO UPDATE SET node = excluded.node, crc = excluded.crc, envelope = excluded.envelope
WHERE m.epoch = $2";
const UNFINISHED: &str = "SELECT id FROM gatepost.message WHERE epoch = $1";
const FINISH: &str =
    "UPDATE gatepost.message SET epoch = 0 WHERE id = ANY($1::bigint[]) AND epoch = $2";
/// The messages of other nodes: of those that are alive, of those that are dead and not fenced yet, and
/// of those that are fenced.
const OTHERS: &str = "SELECT
    count(*) FILTER (WHERE n.lease_end > clock_timestamp() AND NOT n.fenced AND m.epoch > 0),
    count(*) FILTER (WHERE n.lease_end <= clock_timestamp() AND NOT n.fenced AND m.epoch > 0),
    count(*) FILTER (WHERE n.fenced OR m.epoch = 0)
FROM gatepost.message m JOIN gatepost.node n ON n.number = m.node
WHERE m.node <> $1 AND m.epoch >= 0";
const FORGET: &str = "DELETE FROM gatepost.node n WHERE n.number = $1
    AND NOT EXISTS (SELECT FROM gatepost.message WHERE node = n.number)";

/// The import of a queue into a database.
pub(in crate::storage::spool) struct QueueImport {
    database: Database,
    /// The epoch of messages that the other spool may still have. It is below zero, so nobody claims
    /// them.
    mark: i64,
    /// The node whose configuration decides who may claim them afterwards.
    node: i16,
}

/// The messages of other nodes.
pub(in crate::storage::spool) struct OthersMessages {
    pub(in crate::storage::spool) of_living: u64,
    /// Of nodes that are dead and may come back.
    pub(in crate::storage::spool) of_silent: u64,
    /// Of nodes whose messages may be claimed by those with the same policy.
    pub(in crate::storage::spool) claimable: u64,
}

impl QueueImport {
    /// Returns the import of a node, which has published the configuration of the relay that had the
    /// messages.
    pub(in crate::storage::spool) fn of_node(node: &SharedSpool, mark: i64) -> Self {
        Self {
            database: node.core.database.clone(),
            mark,
            node: node.core.identity.number,
        }
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

    /// Stores a message durably. Nobody can claim it yet. Returns false if the database has another
    /// message with this id.
    pub(in crate::storage::spool) async fn put(&self, entry: &Entry) -> Result<bool, SpoolError> {
        let (row, envelope) = (row_id(entry.id), envelope_text(entry.id, &entry.envelope)?);
        let failed = |error: DatabaseError| spool_error(&error);
        let connection = self.database.connection().await.map_err(failed)?;
        let size = i64::try_from(entry.size).unwrap_or(i64::MAX);
        let accepted = entry.accepted.as_millisecond();
        let store = async |content: Option<&[u8]>, crc: u32| {
            let parameters: [&(dyn ToSql + Sync); 8] = [
                &row,
                &self.mark,
                &accepted,
                &size,
                &i64::from(crc),
                &envelope,
                &content,
                &self.node,
            ];
            let put = connection.execute(PUT, &parameters).await;
            put.map(|rows| rows == 1)
                .map_err(|error| failed(error.into()))
        };
        let is_put = match &entry.body {
            Body::Memory(octets) => store(Some(octets), crc32fast::hash(octets)).await?,
            body => {
                // Before its pieces, which belong to a message, and would replace those of another one.
                let is_free = store(None, 0).await?;
                if is_free {
                    let crc = put_content(&connection, entry.id, body).await?;
                    store(None, crc).await?;
                }
                is_free
            }
        };
        connection.give_back();
        Ok(is_put)
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

/// Stores the content of a message in pieces. Returns its CRC-32.
async fn put_content(
    connection: &LentConnection,
    id: QueueId,
    body: &Body,
) -> Result<u32, SpoolError> {
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
            let put = put_pieces(connection, id, &[number], &piece).await;
            put.map_err(|error| spool_error(&error))?;
            number += 1;
        }
        if is_end {
            return Ok(hasher.finalize());
        }
    }
}

impl SharedSpool {
    /// Publishes the configuration by which others decide what they may adopt from this node, and this
    /// one what it may adopt from them.
    pub(in crate::storage::spool) async fn publish_now(
        &self,
        config: NodeConfig,
    ) -> Result<(), SpoolError> {
        let core = &self.core;
        core.config.set(config);
        let connection = core.connection().await?;
        let published = core.publish_config(&connection).await;
        published.map_err(|error| core.failed(&error))?;
        connection.give_back();
        Ok(())
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
            of_silent: number(1),
            claimable: number(2),
        })
    }

    /// Leaves, and removes the node unless it has messages. Nodes with its configuration claim these.
    pub(in crate::storage::spool) async fn leave_for_good(&self) -> Result<(), SpoolError> {
        let core = &self.core;
        let left = self.end().await;
        let connection = core.connection().await?;
        let number = core.identity.number;
        let removed = connection.execute(FORGET, &[&number]).await;
        removed.map_err(|error| core.failed(&error.into()))?;
        connection.give_back();
        left
    }
}
