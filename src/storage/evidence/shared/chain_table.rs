//! The statements of the evidence on the chain of one node.

use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::super::chain::ChainHead;
use crate::storage::postgresql::{Database, DatabaseError, LentConnection};
use crate::storage::shared_chain::{ChainExtension, head_of, number};

const STATE: &str = "SELECT removed_seq, removed_hash, removed_days, recorded_seq, \
     EXISTS (SELECT FROM gatepost.node WHERE epoch = $2 AND NOT fenced AND lease_end > clock_timestamp()) \
     FROM gatepost.evidence_chain WHERE id = $1";
/// Appends lines from one head to another, if the chain ends with the first, and if the run of the node
/// is alive. An epoch is that of one run of one node.
const APPEND: &str = "
WITH own AS MATERIALIZED (
    SELECT FROM gatepost.node WHERE epoch = $2 AND NOT fenced AND lease_end > clock_timestamp()
), head AS (
    UPDATE gatepost.evidence_chain
    SET last_seq = $5, last_hash = $6,
        day = greatest(day, (clock_timestamp() AT TIME ZONE 'UTC')::date)
    WHERE id = $1 AND last_seq = $3 AND last_hash = $4 AND EXISTS (SELECT FROM own)
    RETURNING id, day
)
INSERT INTO gatepost.evidence (chain, day, seq, line)
SELECT head.id, head.day, $3 + number, line
FROM head, unnest($7::text[]) WITH ORDINALITY AS lines (line, number)";
const KEEP: &str = "SELECT gatepost.keep_evidence($1::float8 * interval '1 second')";
const REMOVAL_RECORDED: &str = "UPDATE gatepost.evidence_chain \
     SET recorded_seq = $2, removed_days = CASE WHEN removed_seq = $2 THEN 0 ELSE removed_days END WHERE id = $1";
const SIZE: &str = "SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint \
     FROM pg_inherits WHERE inhparent = 'gatepost.evidence'::regclass";

/// The chain of one node.
#[derive(Debug)]
pub(super) struct ChainTable {
    database: Database,
    chain: i32,
}

/// The state of a chain in the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChainState {
    /// The last record that was removed for its age, and the number of days, if no record names it yet.
    pub(super) removed: Option<(ChainHead, u64)>,
    /// True if the run of this node is alive.
    pub(super) is_alive: bool,
}

impl ChainTable {
    /// Returns the table with this chain.
    pub(super) fn new(database: Database, chain: i32) -> Self {
        Self { database, chain }
    }

    /// Lends a connection.
    pub(super) async fn connection(&self) -> Result<LentConnection, DatabaseError> {
        self.database.connection().await
    }

    /// Appends records. Returns false if nothing was written: the chain has another head, or the run
    /// of the node is over.
    pub(super) async fn append(
        &self,
        connection: &LentConnection,
        epoch: i64,
        extension: &ChainExtension,
    ) -> Result<bool, DatabaseError> {
        let statement = connection.prepare_cached(APPEND).await?;
        let ChainExtension { from, to, .. } = extension;
        let parameters: [&(dyn ToSql + Sync); 7] = [
            &self.chain,
            &epoch,
            &number(from.seq),
            &from.hash.to_string(),
            &number(to.seq),
            &to.hash.to_string(),
            &extension.lines(),
        ];
        let written = connection.execute(&statement, &parameters).await?;
        Ok(written > 0)
    }

    /// Returns the state of the chain.
    pub(super) async fn state(&self, epoch: i64) -> Result<ChainState, DatabaseError> {
        let connection = self.database.connection().await?;
        let row = connection.query_one(STATE, &[&self.chain, &epoch]).await?;
        connection.give_back();
        let (removed, days): (_, i32) = (head_of(&row, 0)?, row.get(2));
        let is_recorded = number(removed.seq) <= row.get(3);
        let days = u64::try_from(days).unwrap_or_default();
        Ok(ChainState {
            removed: (!is_recorded).then_some((removed, days)),
            is_alive: row.get(4),
        })
    }

    /// Makes the partitions of the next days, and drops those that are older than `keep`.
    pub(super) async fn keep(&self, keep: Duration) -> Result<(), DatabaseError> {
        let connection = self.database.connection().await?;
        connection.execute(KEEP, &[&keep.as_secs_f64()]).await?;
        connection.give_back();
        Ok(())
    }

    /// Records that a record of the chain names the removal of those up to this one.
    pub(super) async fn removal_recorded(&self, removed: ChainHead) -> Result<(), DatabaseError> {
        let connection = self.database.connection().await?;
        let seq = number(removed.seq);
        connection
            .execute(REMOVAL_RECORDED, &[&self.chain, &seq])
            .await?;
        connection.give_back();
        Ok(())
    }

    /// Returns the size of the evidence of all nodes on the disk, in octets.
    pub(super) async fn size(&self) -> Result<u64, DatabaseError> {
        let connection: LentConnection = self.database.connection().await?;
        let octets: i64 = connection.query_one(SIZE, &[]).await?.get(0);
        connection.give_back();
        Ok(u64::try_from(octets).unwrap_or_default())
    }
}
