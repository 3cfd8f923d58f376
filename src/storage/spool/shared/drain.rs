//! Hands the messages of a draining node over to the others.
//!
//! An operator drains a node with the column `draining` of its row, which the node reads with each renewal
//! of its lease. It gives back the messages that another node may adopt, and keeps the rest.

use std::collections::HashSet;

use super::super::ids::{queue_id, row_id};
use super::super::{Claim, OwnershipChange, SpoolError};
use super::core::SharedCore;
use super::node_share::NEWCOMER;
use super::published::OtherNodes;
use super::view::{FoundRow, PARTS};
use crate::policy::adoption::PolicyDifference;
use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::postgresql::DatabaseError;

/// Locks messages of this node. Who waits for the lock sees what an earlier transaction has made of them.
fn lock_statement() -> String {
    format!(
        "WITH locked AS MATERIALIZED (
            SELECT m.id, m.accepted, m.size, m.crc, m.envelope FROM gatepost.message m
            WHERE m.id = ANY($1::bigint[]) AND m.node = $2 AND m.epoch > 0 ORDER BY m.id FOR UPDATE
        )
        SELECT m.id, m.accepted, m.size, m.crc, m.envelope, {PARTS} FROM locked AS m"
    )
}

/// Gives messages back that are locked.
const HAND_OVER: &str = "UPDATE gatepost.message SET epoch = 0
WHERE id = ANY($3::bigint[]) AND node = $1 AND EXISTS (
    SELECT FROM gatepost.node
    WHERE number = $1 AND epoch = $2 AND NOT fenced AND draining AND lease_end > clock_timestamp())";

/// The messages of a page that no other node may adopt.
#[derive(Default)]
struct KeptMessages {
    ids: Vec<QueueId>,
    first: Option<PolicyDifference>,
}

impl KeptMessages {
    fn log(&self) {
        let Some(id) = self.ids.first() else {
            return;
        };
        let (messages, reason) = (self.ids.len(), self.first.as_ref());
        let reason = reason.map_or_else(
            || "no other node is alive and takes messages".to_owned(),
            ToString::to_string,
        );
        tracing::warn!(
            queue_id = %id,
            messages,
            reason,
            "messages stay with this node while it drains, which goes on delivering them: no other node has the same policy"
        );
    }
}

impl SharedCore {
    /// Follows what the database says about a drain of this node.
    pub(super) fn follow_drain(&self, is_draining: bool) {
        if !self.drain.set(is_draining) {
            return;
        }
        if is_draining {
            tracing::warn!(
                node = self.identity.name,
                "this node drains: new mail is rejected with 451, and what waits is handed to other nodes"
            );
        } else {
            tracing::info!(
                node = self.identity.name,
                "the drain of this node has ended: mail is accepted as before"
            );
        }
    }

    /// Returns whether this node drains and has no messages any more, so that it needs no share of the
    /// limits.
    pub(super) fn is_drained(&self) -> bool {
        self.drain.is_on() && self.own.is_empty()
    }

    /// Has the relay hand over what waits, if this node drains. Gives up the share of a node that has
    /// nothing to deliver.
    pub(super) fn go_on_draining(&self) {
        if self.is_drained() {
            self.set_share(NEWCOMER);
        }
        if self.drain.is_on() {
            // Nobody listens any more at the end alone.
            drop(self.changes.send(OwnershipChange::HandOver));
        }
    }

    /// Gives back the messages that another node may adopt, if this node drains, and returns those that
    /// stay this node's. The rest is not this node's any more.
    pub(super) async fn hand_over(&self, claims: Vec<Claim>) -> Result<Vec<QueueId>, SpoolError> {
        self.lease.check()?;
        self.check_claims(&claims)?;
        let limit = self.lease_time / 3;
        let handing = tokio::time::timeout(limit, self.hand_over_rows(&claims)).await;
        let handed = handing.unwrap_or_else(|_| {
            Err(DatabaseError::Unreachable(
                "no answer while messages were handed over".to_owned(),
            ))
        });
        let kept = handed.map_err(|error| self.failed(&error))?;
        let Some(kept) = kept else {
            return Err(SpoolError::NotOwner(
                "the lease, or the drain, of this node is over".to_owned(),
            ));
        };
        if self.drain.is_on() {
            kept.log();
        }
        let stay: HashSet<_> = kept.ids.iter().copied().collect();
        let gone = claims.iter().filter(|claim| !stay.contains(&claim.id()));
        self.own.forget_claims(gone.copied());
        Ok(kept.ids)
    }

    /// Checks that a node that lives and does not drain may adopt a message of this one.
    ///
    /// # Errors
    /// The first difference of policy; `None` if there is no such node.
    pub(super) fn has_successor(
        &self,
        others: &OtherNodes,
        envelope: &Envelope,
    ) -> Result<(), Option<PolicyDifference>> {
        let mut first = None;
        for number in &others.successors {
            if let Some(theirs) = others.configs.get(number) {
                match self.config.allows(theirs, envelope) {
                    Ok(()) => return Ok(()),
                    Err(difference) => first = first.or(Some(difference)),
                }
            }
        }
        Err(first)
    }

    /// Returns what stays, or `None` if nothing was handed over since this node may not.
    async fn hand_over_rows(
        &self,
        claims: &[Claim],
    ) -> Result<Option<KeptMessages>, DatabaseError> {
        let run = self.run();
        let mut connection = self.database.connection().await?;
        let transaction = connection.transaction().await?;
        let others = self.other_nodes(transaction.client()).await?;
        let statement = transaction.prepare_cached(&lock_statement()).await?;
        let ids: Vec<i64> = claims.iter().map(|claim| row_id(claim.id())).collect();
        let rows = transaction.query(&statement, &[&ids, &run.number]).await?;
        let mut kept = KeptMessages::default();
        let mut given: Vec<i64> = Vec::with_capacity(rows.len());
        for row in &rows {
            let found = FoundRow::of(row);
            let Some(id) = queue_id(found.row_id()) else {
                continue;
            };
            match found.read() {
                Ok(_) if !self.drain.is_on() => kept.ids.push(id),
                Ok(message) => match self.has_successor(&others, &message.envelope) {
                    Ok(()) => given.push(found.row_id()),
                    Err(difference) => {
                        kept.ids.push(id);
                        kept.first = kept.first.or(difference);
                    }
                },
                // A damaged one is set aside when it is loaded.
                Err(_) => kept.ids.push(id),
            }
        }
        let handed = transaction
            .execute(HAND_OVER, &[&run.number, &run.epoch(), &given])
            .await?;
        if handed != given.len() as u64 {
            return Ok(None);
        }
        transaction.commit().await?;
        connection.give_back();
        Ok(Some(kept))
    }
}
