//! The statements on the chain of one node.

use std::time::Duration;

use tokio_postgres::Row;

use super::super::chain::{ChainHead, RecordHash};
use crate::storage::postgresql::{Database, DatabaseError, LentConnection};

/// Makes the chain if it is new.
const MAKE: &str =
    "INSERT INTO gatepost.evidence_chain (node) VALUES ($1) ON CONFLICT (node) DO NOTHING";
const FIND: &str = "SELECT id, last_seq, last_hash FROM gatepost.evidence_chain WHERE node = $1";
const STATE: &str = "SELECT last_seq, last_hash, removed_seq, removed_hash, removed_days, recorded_seq, \
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
    pub(super) head: ChainHead,
    /// The last record that was removed for its age, and the number of days, if no record names it yet.
    pub(super) removed: Option<(ChainHead, u64)>,
    /// True if the run of this node is alive.
    pub(super) is_alive: bool,
}

impl ChainTable {
    /// Finds the chain of a node, or makes it. Returns its head, too.
    pub(super) async fn open(
        database: Database,
        node: &str,
    ) -> Result<(Self, ChainHead), DatabaseError> {
        let connection = database.connection().await?;
        connection.execute(MAKE, &[&node]).await?;
        let row = connection.query_one(FIND, &[&node]).await?;
        connection.give_back();
        let (chain, head) = (row.get(0), head(&row, 1)?);
        Ok((Self { database, chain }, head))
    }

    /// Appends the lines that lead from one head to another. Returns false if nothing was written:
    /// the chain has another head, or the run of the node is over.
    pub(super) async fn append(
        &self,
        epoch: i64,
        (from, to): (ChainHead, ChainHead),
        lines: &[&str],
    ) -> Result<bool, DatabaseError> {
        let connection = self.database.connection().await?;
        let statement = connection.prepare_cached(APPEND).await?;
        let (from_hash, to_hash) = (from.hash.to_string(), to.hash.to_string());
        let (from_seq, to_seq) = (number(from.seq), number(to.seq));
        let written = connection
            .execute(
                &statement,
                &[
                    &self.chain,
                    &epoch,
                    &from_seq,
                    &from_hash,
                    &to_seq,
                    &to_hash,
                    &lines,
                ],
            )
            .await?;
        connection.give_back();
        Ok(written > 0)
    }

    /// Returns the state of the chain.
    pub(super) async fn state(&self, epoch: i64) -> Result<ChainState, DatabaseError> {
        let connection = self.database.connection().await?;
        let row = connection.query_one(STATE, &[&self.chain, &epoch]).await?;
        connection.give_back();
        let (removed, days): (_, i32) = (head(&row, 2)?, row.get(4));
        let is_recorded = number(removed.seq) <= row.get(5);
        let days = u64::try_from(days).unwrap_or_default();
        Ok(ChainState {
            head: head(&row, 0)?,
            removed: (!is_recorded).then_some((removed, days)),
            is_alive: row.get(6),
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

/// Returns the number of a record as the database has it.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Reads a head from two columns.
fn head(row: &Row, column: usize) -> Result<ChainHead, DatabaseError> {
    let (seq, hash): (i64, &str) = (row.get(column), row.get(column + 1));
    match (u64::try_from(seq), RecordHash::parse(hash)) {
        (Ok(seq), Some(hash)) => Ok(ChainHead { seq, hash }),
        _ => Err(DatabaseError::Refused(format!(
            "the head of a chain of evidence is damaged: {seq} {hash}"
        ))),
    }
}
