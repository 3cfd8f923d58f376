//! Claims messages that nobody alive owns: what an earlier process of this node has left, what was given
//! back, and what belonged to a node that is fenced.

use std::sync::atomic::Ordering;

use tokio_postgres::types::ToSql;

use super::super::ids::{queue_id, row_id};
use super::super::{Claim, Claimed, SpoolError, StoredMessage};
use super::core::SharedCore;
use super::identity::NodeRun;
use super::published::OtherNodes;
use super::view::{FoundRow, PARTS};
use crate::policy::adoption::PolicyDifference;
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::DatabaseError;

/// Locks a page. Parameters: after which id, this node, the first epoch of its process, the fenced nodes,
/// and how many. What another statement has locked is left out, and found by the next pass.
fn lock_statement(is_first_search: bool) -> String {
    // What an earlier process has left is looked for once: among many of this process it would be
    // looked for in vain, row by row.
    let left = if is_first_search {
        "(SELECT id FROM gatepost.message WHERE node = $2 AND epoch < $3 AND id > $1 ORDER BY id LIMIT $5)
                UNION"
    } else {
        ""
    };
    format!(
        "WITH found AS (
            SELECT id FROM (
                {left}
                (SELECT id FROM gatepost.message WHERE epoch = 0 AND id > $1 ORDER BY id LIMIT $5)
                UNION
                (SELECT f.id FROM unnest($4::smallint[]) AS n(number) CROSS JOIN LATERAL (
                    SELECT id FROM gatepost.message WHERE node = n.number AND epoch >= 0 AND id > $1 ORDER BY id LIMIT $5) AS f)
            ) AS free ORDER BY id LIMIT $5
        ), locked AS MATERIALIZED (
            SELECT m.id, m.accepted, m.size, m.crc, m.envelope, m.node, m.epoch FROM gatepost.message m
            WHERE m.id IN (SELECT id FROM found)
              AND (m.epoch = 0 OR (m.node = ANY($4::smallint[]) AND m.epoch >= 0) OR (m.node = $2 AND m.epoch < $3))
            FOR UPDATE SKIP LOCKED
        )
        SELECT m.id, m.accepted, m.size, m.crc, m.envelope, {PARTS}, m.node, m.epoch FROM locked AS m ORDER BY m.id"
    )
}

/// Makes messages this node's that are locked.
const CLAIM: &str = "UPDATE gatepost.message SET node = $1, epoch = $2
WHERE id = ANY($3::bigint[]) AND EXISTS (
    SELECT FROM gatepost.node
    WHERE number = $1 AND epoch = $2 AND NOT fenced AND lease_end > clock_timestamp())";

/// Gives messages back.
const RELEASE: &str = "UPDATE gatepost.message m SET epoch = 0
FROM unnest($3::bigint[], $4::bigint[]) AS r(id, epoch)
WHERE m.id = r.id AND m.node = $1 AND m.epoch = r.epoch AND EXISTS (
    SELECT FROM gatepost.node
    WHERE number = $1 AND epoch = $2 AND NOT fenced AND lease_end > clock_timestamp())
RETURNING m.id";

/// A page of messages that could be claimed.
struct ClaimedPage {
    /// The last message that was looked at; `None` at the end.
    last: Option<QueueId>,
    claimed: Vec<FoundRow>,
}

/// The messages of a page that stay where they are.
#[derive(Default)]
struct RefusedAdoptions {
    count: usize,
    first: Option<(QueueId, PolicyDifference)>,
}

/// Messages that are being claimed. If it is dropped before its end, they may be this node's although
/// the relay was not given them, since the answer was lost or came too late: they are looked for then.
struct ClaimAttempt<'a> {
    core: &'a SharedCore,
    ids: Vec<QueueId>,
}

impl<'a> ClaimAttempt<'a> {
    fn of(core: &'a SharedCore) -> Self {
        Self {
            core,
            ids: Vec::new(),
        }
    }

    /// Ends the attempt: the relay is given the messages.
    fn end(mut self) {
        self.ids.clear();
    }
}

impl Drop for ClaimAttempt<'_> {
    fn drop(&mut self) {
        self.core.own.doubt(self.ids.drain(..));
    }
}

impl RefusedAdoptions {
    fn add(&mut self, id: QueueId, difference: PolicyDifference) {
        self.count += 1;
        self.first.get_or_insert((id, difference));
    }

    fn log(&self) {
        if let Some((id, difference)) = &self.first {
            tracing::warn!(
                queue_id = %id,
                messages = self.count,
                reason = %difference,
                "messages of another node are not adopted: this node might send them by a weaker policy; they wait for their node, or for one with the same connectors"
            );
        }
    }
}

impl SharedCore {
    /// Claims the next messages after `after`.
    pub(super) async fn claim_page(
        &self,
        mut after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<Claimed<StoredMessage>>, SpoolError> {
        let _turn = self.claiming.lock().await;
        loop {
            self.lease.check()?;
            let run = self.run();
            let mut attempt = ClaimAttempt::of(self);
            let page = self.claim_rows(run, after, limit, &mut attempt).await;
            let page = page.map_err(|error| self.failed(&error))?;
            self.lease.check()?;
            let mut claimed = Vec::with_capacity(page.claimed.len());
            for found in page.claimed {
                if let Some(message) = self.readable(found).await? {
                    claimed.push(Claimed {
                        claim: Claim::of_owner(message.id, run.epoch),
                        message,
                    });
                }
            }
            attempt.end();
            let ids = claimed.iter().map(|claimed| claimed.claim.id());
            self.own.add(ids, run.epoch);
            // A page of nothing but damaged messages, or such as may not be claimed, is not the end.
            if !claimed.is_empty() || page.last.is_none() {
                if page.last.is_none() {
                    self.has_searched.store(true, Ordering::SeqCst);
                }
                return Ok(claimed);
            }
            after = page.last;
        }
    }

    async fn claim_rows(
        &self,
        run: NodeRun,
        after: Option<QueueId>,
        limit: usize,
        attempt: &mut ClaimAttempt<'_>,
    ) -> Result<ClaimedPage, DatabaseError> {
        let mut connection = self.database.connection().await?;
        let transaction = connection.transaction().await?;
        let others = self.other_nodes(transaction.client()).await?;
        let statement = transaction
            .prepare_cached(&lock_statement(!self.has_searched.load(Ordering::SeqCst)))
            .await?;
        let first = i64::try_from(self.identity.first_epoch.number()).unwrap_or(i64::MAX);
        let after = after.map_or(-1, row_id);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&after, &run.number, &first, &others.fenced, &limit];
        let rows = transaction.query(&statement, &parameters).await?;
        let last = rows.last().and_then(|row| queue_id(row.get(0)));
        let mut refused = RefusedAdoptions::default();
        let mut allowed: Vec<FoundRow> = Vec::with_capacity(rows.len());
        for row in &rows {
            let (found, owner): (_, i16) = (FoundRow::of(row), row.get(7));
            let is_given_back = row.get::<_, i64>(8) == 0;
            if self.drain.is_on() && !self.may_claim_draining(&others, &found, owner, is_given_back)
            {
                continue;
            }
            // What has no owner among the nodes was moved here, or its node was removed, by an
            // administrator.
            match (others.configs.get(&owner), found.read()) {
                (Some(theirs), Ok(message)) => {
                    match self.config.allows(theirs, &message.envelope) {
                        Ok(()) => allowed.push(found),
                        Err(difference) => refused.add(message.id, difference),
                    }
                }
                // A later version may have written it.
                (Some(_), Err(_)) => {
                    if let Some(id) = found.id() {
                        refused.add(id, PolicyDifference::Unreadable);
                    }
                }
                // A damaged one is set aside by its claim.
                (None, _) => allowed.push(found),
            }
        }
        let ids: Vec<i64> = allowed.iter().map(FoundRow::row_id).collect();
        attempt
            .ids
            .extend(ids.iter().filter_map(|id| queue_id(*id)));
        let claimed = transaction
            .execute(CLAIM, &[&run.number, &run.epoch(), &ids])
            .await?;
        transaction.commit().await?;
        connection.give_back();
        refused.log();
        if claimed != ids.len() as u64 {
            // The epoch is over, which the next look at the lease shows.
            self.lease
                .lose("its lease is over by the clock of the database; it gets a new one");
            allowed.clear();
        }
        Ok(ClaimedPage {
            last,
            claimed: allowed,
        })
    }

    /// Returns whether this node claims a message while it drains: what an earlier process of it has left,
    /// which it hands over then, and what it gave back itself and no other node may adopt.
    fn may_claim_draining(
        &self,
        others: &OtherNodes,
        found: &FoundRow,
        owner: i16,
        is_given_back: bool,
    ) -> bool {
        let has_successor = || match found.read() {
            Ok(message) => self.has_successor(others, &message.envelope).is_ok(),
            Err(_) => !others.successors.is_empty(),
        };
        owner == self.identity.number && !(is_given_back && has_successor())
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
        self.own.forget_claims(claims.iter().copied());
        if released.len() == claims.len() {
            return Ok(());
        }
        Err(SpoolError::OfAnother(format!(
            "{} of {} messages were not this node's any more",
            claims.len() - released.len(),
            claims.len()
        )))
    }
}
