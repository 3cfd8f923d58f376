//! Looks at the other nodes with each renewal of the lease: fences those that are dead, and finds out
//! whether there are messages to adopt.
//!
//! A node is dead when the database says that its lease has ended, *and* this node has seen no renewal
//! of it for a whole lease, by its own clock, while its own lease held. So nothing is adopted after an
//! outage of the database before it has been there for one lease, nor because the clock of a promoted
//! standby is ahead.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::ids::{queue_id, row_id};
use super::super::{BootTime, OwnershipChange};
use super::core::SharedCore;
use super::observations::{OtherNode, Watch};
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::{DatabaseError, LentConnection};

/// The interval at which partitions are made and dropped.
const PARTITIONS: Duration = Duration::from_hours(1);
/// Both take as long as they need, so they are two transactions.
const KEEP: [&str; 2] = [
    "SELECT gatepost.keep_partitions()",
    "SELECT gatepost.remove_orphans()",
];
/// The interval of comparisons with what the database calls this node's. A commit is known long before.
const COMPARISON: Duration = Duration::from_mins(1);
const OWN_SINCE: &str = "SELECT id FROM gatepost.message WHERE node = $1 AND epoch >= $2";

const NODES: &str = "SELECT number, name, epoch, (extract(epoch FROM lease_end) * 1000)::bigint,
    lease_end > clock_timestamp(), fenced, (extract(epoch FROM lease) * 1000)::bigint, divisor,
    draining
FROM gatepost.node WHERE number <> $1 ORDER BY number";
const FENCE: &str = "UPDATE gatepost.node SET fenced = true
WHERE number = $1 AND epoch = $2 AND NOT fenced AND lease_end < clock_timestamp()
    AND EXISTS (SELECT FROM gatepost.node WHERE number = $3 AND epoch = $4 AND lease_end > clock_timestamp())";
/// The first and the last message that this node could adopt.
const CLAIMABLE: &str = "SELECT min(ends.first), max(ends.last) FROM (
    SELECT min(id) AS first, max(id) AS last FROM gatepost.message WHERE epoch = 0
    UNION ALL
    SELECT m.first, m.last FROM unnest($1::smallint[]) AS n(number) CROSS JOIN LATERAL (
        SELECT min(id) AS first, max(id) AS last FROM gatepost.message WHERE node = n.number) AS m
) AS ends";
/// Parameters of both: the messages, this node, and its epoch.
const REMOVE_WITHDRAWN: &str = "WITH own AS MATERIALIZED (
    SELECT FROM gatepost.node
    WHERE number = $2 AND epoch = $3 AND NOT fenced AND lease_end > clock_timestamp()
), removed AS (
    DELETE FROM gatepost.message WHERE id = ANY($1::bigint[]) AND node = $2 AND EXISTS (SELECT FROM own) RETURNING id
), bodies AS (DELETE FROM gatepost.body WHERE message IN (SELECT id FROM removed)
), parts AS (DELETE FROM gatepost.recipient WHERE message IN (SELECT id FROM removed))
SELECT id FROM removed";
const GIVE_BACK: &str = "UPDATE gatepost.message SET epoch = 0
WHERE id = ANY($1::bigint[]) AND node = $2 AND EXISTS (
    SELECT FROM gatepost.node
    WHERE number = $2 AND epoch = $3 AND NOT fenced AND lease_end > clock_timestamp())
RETURNING id";

impl SharedCore {
    /// Looks at the other nodes, and at what is in doubt.
    pub(super) async fn look_around(
        &self,
        connection: &LentConnection,
        watch: &mut Watch,
    ) -> Result<(), DatabaseError> {
        let run = self.run();
        let rows = connection.query(NODES, &[&run.number]).await?;
        let mut nodes: Vec<_> = rows.iter().map(other_node).collect();
        for node in watch.dead(&nodes, self.lease_time, BootTime::now()) {
            let fence: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&node.number, &node.epoch, &run.number, &run.epoch()];
            if connection.execute(FENCE, &fence).await? > 0 {
                tracing::warn!(
                    node = node.name,
                    "node is dead: its lease is over; its messages are adopted by nodes with the same policy"
                );
                for same in nodes.iter_mut().filter(|same| same.number == node.number) {
                    same.fenced = true;
                }
            }
        }
        let living = || nodes.iter().filter(|node| node.is_alive && !node.fenced);
        let is_handing_over = living().any(|node| node.is_draining) && !self.drain.is_on();
        // A node that has drained divides by nothing, and has no share.
        let sharing = living().filter(|node| node.divisor > 0);
        let sharing: Vec<_> = sharing.map(|node| (node.number, node.divisor)).collect();
        self.adapt_share(&sharing);
        self.go_on_draining();
        self.publish_config(connection).await?;
        self.resolve_doubts(connection).await?;
        let fenced: Vec<i16> = nodes
            .iter()
            .filter(|node| node.fenced)
            .map(|node| node.number)
            .collect();
        let row = connection.query_one(CLAIMABLE, &[&fenced]).await?;
        let ends: (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
        if watch.is_news(ends.0.zip(ends.1), is_handing_over) {
            // Nobody listens any more at the end alone.
            drop(self.changes.send(OwnershipChange::Claimable));
        }
        if watch
            .partitions_at
            .is_none_or(|at| at.elapsed() > PARTITIONS)
        {
            watch.partitions_at = Some(Instant::now());
            self.keep_partitions();
        }
        self.find_unknown(connection, watch).await
    }

    /// Has partitions made and dropped, beside the renewals.
    fn keep_partitions(&self) {
        let Ok(core) = self.upgrade() else {
            return;
        };
        tokio::spawn(async move {
            let kept = async {
                let connection = core.database.connection().await?;
                for statement in KEEP {
                    connection.batch_execute(statement).await?;
                }
                connection.give_back();
                Ok::<_, DatabaseError>(())
            };
            if let Err(error) = kept.await {
                tracing::warn!(%error, "cannot make or drop the partitions of the queue; trying again in an hour");
            }
        });
    }

    /// Now and then compares the messages that the database calls this node's with those that the relay
    /// knows. One that it does not know, twice in a row, is given back, and so claimed: a restored
    /// database or a promoted standby may have such, and one that was locked when it should have been
    /// claimed.
    async fn find_unknown(
        &self,
        connection: &LentConnection,
        watch: &mut Watch,
    ) -> Result<(), DatabaseError> {
        let (before, at) = &mut watch.unknown;
        if at.is_some_and(|at| at.elapsed() < COMPARISON) {
            return Ok(());
        }
        *at = Some(Instant::now());
        // Until the first search is over, nothing of an earlier process was claimed.
        let has_searched = self.has_searched.load(Ordering::SeqCst);
        let first = i64::try_from(self.identity.first_epoch.number()).unwrap_or(i64::MAX);
        let since = if has_searched { 1 } else { first };
        let rows = connection
            .query(OWN_SINCE, &[&self.identity.number, &since])
            .await?;
        let ids = rows.iter().filter_map(|row| queue_id(row.get(0)));
        let unknown: HashSet<_> = ids.filter(|id| !self.own.is_known(*id)).collect();
        self.own.doubt(unknown.intersection(before).copied());
        *before = unknown;
        Ok(())
    }

    /// Looks for messages that may have been stored although nobody has the answer.
    async fn resolve_doubts(&self, connection: &LentConnection) -> Result<(), DatabaseError> {
        // While a claim is under way, its messages are not known yet: the next look finds the others.
        let Ok(_turn) = self.claiming.try_lock() else {
            return Ok(());
        };
        let Some(doubts) = self.own.doubts() else {
            return Ok(());
        };
        let run = self.run();
        for (statement, ids, what) in [
            (
                REMOVE_WITHDRAWN,
                &doubts.withdrawn,
                "removed: its client was not given a 250",
            ),
            (
                GIVE_BACK,
                &doubts.unheard,
                "queued: the answer to its transaction was lost",
            ),
        ] {
            if ids.is_empty() {
                continue;
            }
            let rows: Vec<i64> = ids.iter().copied().map(row_id).collect();
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                [&rows, &run.number, &run.epoch()];
            let found = connection.query(statement, &parameters).await?;
            let found: Vec<QueueId> = found
                .iter()
                .filter_map(|row| queue_id(row.get(0)))
                .collect();
            for id in &found {
                tracing::info!(queue_id = %id, "message in doubt found in the database and {what}");
            }
            self.own.resolve(&found);
        }
        Ok(())
    }
}

fn other_node(row: &tokio_postgres::Row) -> OtherNode {
    OtherNode {
        number: row.get(0),
        name: row.get(1),
        epoch: row.get(2),
        lease_end: row.get(3),
        is_alive: row.get(4),
        fenced: row.get(5),
        lease: Duration::from_millis(u64::try_from(row.get::<_, i64>(6)).unwrap_or_default()),
        divisor: row.get(7),
        is_draining: row.get(8),
    }
}
