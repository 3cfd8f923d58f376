//! The evidence of a batch: the records of its changes, linked to the chain of the node.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::Client;

use super::queue::SharedOp;
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::DatabaseError;
use crate::storage::record_chain::ChainHead;
use crate::storage::shared_chain::{ChainExtension, ChainTurn};
use crate::storage::{JoinedRecords, SharedChain};

/// The evidence of a batch, with the turn to extend the chain.
pub(super) struct BatchEvidence<'a> {
    turn: ChainTurn<'a>,
    extension: ChainExtension,
    /// The messages that the records are about.
    messages: HashSet<QueueId>,
    /// The records of each message, and the tries that an answer of the database rules out.
    records: Vec<(Arc<JoinedRecords>, Option<ChainHead>)>,
}

impl<'a> BatchEvidence<'a> {
    /// Links the records of these operations, without those that an earlier try has stored. `None` if
    /// there are none.
    pub(super) async fn of(
        ops: &[SharedOp],
        chain: &'a SharedChain,
        client: &Client,
    ) -> Result<Option<Self>, DatabaseError> {
        let recorded: Vec<_> = ops.iter().filter_map(records_of).collect();
        if recorded.is_empty() {
            return Ok(None);
        }
        let turn = chain.turn().await?;
        let (mut messages, mut records) = (HashSet::new(), Vec::new());
        let mut extension = turn.extension();
        for (id, joined) in recorded {
            if turn.is_stored(client, &joined.tries()).await? {
                joined.set_stored();
                continue;
            }
            for fields in joined.fields() {
                extension.add(fields);
            }
            // An answer says nothing about an earlier try of the same extension.
            let is_new = joined.tried().add(extension.to);
            records.push((Arc::clone(joined), is_new.then_some(extension.to)));
            messages.insert(id);
        }
        Ok((!records.is_empty()).then_some(Self {
            turn,
            extension,
            messages,
            records,
        }))
    }

    /// Returns the records with their links.
    pub(super) fn extension(&self) -> &ChainExtension {
        &self.extension
    }

    /// Returns the messages that the records are about.
    pub(super) fn messages(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.messages.iter().copied()
    }

    /// Concludes a transaction that was carried out.
    pub(super) fn stored(mut self) {
        self.turn.extended(&self.extension);
        for (records, _) in &self.records {
            records.set_stored();
        }
    }

    /// Concludes a transaction of which nothing was carried out.
    pub(super) fn not_stored(&self) {
        for (records, tried) in &self.records {
            if let Some(head) = tried {
                records.tried().remove(*head);
            }
        }
    }

    /// Reads the head of the chain again.
    pub(super) async fn read_head(&mut self, client: &Client) -> Result<(), DatabaseError> {
        self.turn.read_head(client).await
    }
}

/// Returns the message of an operation with evidence, and its records.
fn records_of(op: &SharedOp) -> Option<(QueueId, &Arc<JoinedRecords>)> {
    match op {
        SharedOp::Settle(settled, _) => Some((settled.claim.id(), settled.records.as_ref()?)),
        SharedOp::Commit(..) | SharedOp::Ping(_) => None,
    }
}
