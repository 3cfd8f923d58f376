//! Claims messages that nobody alive owns: what an earlier process of this node has left, what was given
//! back, and what belonged to a node that is fenced.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::ids::row_id;
use super::super::{Claim, Claimed, SpoolError, StoredMessage};
use super::SharedCore;
use super::view::{FoundRow, PARTS};
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::DatabaseError;

/// The nodes whose messages may be adopted. They stay fenced until the transaction is over.
const FENCED: &str = "SELECT number FROM gatepost.node WHERE fenced ORDER BY number FOR SHARE";

/// Claims a page. Parameters: after which id, this node, the first epoch of its process, the fenced
/// nodes, how many, and the epoch now. What another statement has locked is left out, and found by the
/// next pass.
fn claim_statement() -> String {
    format!(
        "WITH found AS (
            SELECT id FROM (
                (SELECT id FROM gatepost.message WHERE node = $2 AND epoch < $3 AND id > $1 ORDER BY id LIMIT $5)
                UNION
                (SELECT id FROM gatepost.message WHERE epoch = 0 AND id > $1 ORDER BY id LIMIT $5)
                UNION
                (SELECT f.id FROM unnest($4::smallint[]) AS n(number) CROSS JOIN LATERAL (
                    SELECT id FROM gatepost.message WHERE node = n.number AND id > $1 ORDER BY id LIMIT $5) AS f)
            ) AS free ORDER BY id LIMIT $5
        ), locked AS MATERIALIZED (
            SELECT m.id FROM gatepost.message m
            WHERE m.id IN (SELECT id FROM found)
              AND (m.epoch = 0 OR m.node = ANY($4::smallint[]) OR (m.node = $2 AND m.epoch < $3))
            FOR UPDATE SKIP LOCKED
        ), claimed AS (
            UPDATE gatepost.message m SET node = $2, epoch = $6
            WHERE m.id IN (SELECT id FROM locked) AND EXISTS (
                SELECT FROM gatepost.node
                WHERE number = $2 AND epoch = $6 AND NOT fenced AND lease_end > clock_timestamp())
            RETURNING m.id, m.accepted, m.size, m.crc, m.envelope
        )
        SELECT m.id, m.accepted, m.size, m.crc, m.envelope, {PARTS} FROM claimed AS m ORDER BY m.id"
    )
}

/// Gives messages back.
const RELEASE: &str = "UPDATE gatepost.message m SET epoch = 0
FROM unnest($3::bigint[], $4::bigint[]) AS r(id, epoch)
WHERE m.id = r.id AND m.node = $1 AND m.epoch = r.epoch AND EXISTS (
    SELECT FROM gatepost.node
    WHERE number = $1 AND epoch = $2 AND NOT fenced AND lease_end > clock_timestamp())
RETURNING m.id";

impl SharedCore {
    /// Claims the next messages after `after`.
    pub(super) async fn claim_page(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<Claimed<StoredMessage>>, SpoolError> {
        self.lease.check()?;
        let mut after = after;
        loop {
            let run = self.run();
            let rows = self.claim_rows(after, limit).await;
            let rows = rows.map_err(|error| self.failed(&error))?;
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            self.lease.check()?;
            let mut claimed = Vec::with_capacity(rows.len());
            for row in &rows {
                let found = FoundRow::of(row);
                after = found.id().or(after);
                if let Some(message) = self.readable(found).await? {
                    claimed.push(Claimed {
                        claim: Claim::of_owner(message.id, run.epoch),
                        message,
                    });
                }
            }
            self.own
                .add(claimed.iter().map(|claimed| claimed.claim.id()));
            // A page of nothing but damaged messages is not the end.
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
    }

    async fn claim_rows(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<Row>, DatabaseError> {
        let run = self.run();
        let mut connection = self.database.connection().await?;
        let transaction = connection.transaction().await?;
        let fenced = transaction.query(FENCED, &[]).await?;
        let fenced: Vec<i16> = fenced
            .iter()
            .map(|row| row.get(0))
            .filter(|number| *number != run.number)
            .collect();
        let statement = transaction.prepare_cached(&claim_statement()).await?;
        let first = i64::try_from(self.identity.first_epoch.number()).unwrap_or(i64::MAX);
        let after = after.map_or(-1, row_id);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&after, &run.number, &first, &fenced, &limit, &run.epoch()];
        let rows = transaction.query(&statement, &parameters).await?;
        transaction.commit().await?;
        connection.give_back();
        Ok(rows)
    }

    /// Gives messages back.
    pub(super) async fn give_back(&self, claims: Vec<Claim>) -> Result<(), SpoolError> {
        self.lease.check()?;
        self.check_claims(&claims)?;
        let ids: Vec<i64> = claims.iter().map(|claim| row_id(claim.id())).collect();
        let epoch = |claim: &Claim| i64::try_from(claim.epoch().number()).unwrap_or(i64::MAX);
        let epochs: Vec<i64> = claims.iter().map(epoch).collect();
        let run = self.run();
        let connection = self.connection().await?;
        let parameters: [&(dyn ToSql + Sync); 4] = [&run.number, &run.epoch(), &ids, &epochs];
        let released = connection.query(RELEASE, &parameters).await;
        let released = released.map_err(|error| self.failed(&error.into()))?;
        connection.give_back();
        self.own.forget(claims.iter().map(Claim::id));
        if released.len() == claims.len() {
            return Ok(());
        }
        Err(SpoolError::NotOwner(format!(
            "{} of {} messages were not this node's any more",
            claims.len() - released.len(),
            claims.len()
        )))
    }
}
