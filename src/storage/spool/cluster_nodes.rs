//! The nodes of the database, for operators: their list, and the removal of one that is gone.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::ids::{queue_id, row_id};
use super::node_orders::NodeOrders;
use crate::policy::adoption::NodeConfig;
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::{Database, DatabaseError};

/// The nodes that share a database, as one of them sees them.
#[derive(Debug, Clone)]
pub struct ClusterNodes {
    database: Database,
    /// The number of the node that asks.
    own: i16,
}

/// A node that shares the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// The number, which is part of the queue ids that it draws.
    pub number: i16,
    /// The name.
    pub name: String,
    /// True for the node that asks.
    pub is_own: bool,
    /// True while its lease holds, by the clock of the database.
    pub is_alive: bool,
    /// The end of its lease, by the clock of the database.
    pub lease_end: Timestamp,
    /// True while it hands what waits to the others.
    pub is_draining: bool,
    /// The number of messages that are its own, or were its own last.
    pub messages: u64,
    /// The configuration that it has published.
    pub config: NodeConfig,
}

/// The owner of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageOwner {
    /// The name of the node.
    pub node: String,
    /// True for the node that asks.
    pub is_own: bool,
    /// True while the lease of the node holds, by the clock of the database.
    pub is_alive: bool,
}

/// The end of an order to remove a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeRemoval {
    /// The node is gone, and so many messages were handed to the other nodes.
    Removed(u64),
    /// No node has this name.
    Missing,
    /// The lease of the node holds until this time. It must be stopped first.
    Alive(Timestamp),
    /// The node has so many messages, and the order does not say that they are handed over.
    HasMessages(u64),
}

/// The end of an order to drain a node, or to end that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeDrain {
    /// The node does as it is ordered, or will when it lives again.
    Ordered {
        /// The name of the node.
        name: String,
        /// True for the node that was asked.
        is_own: bool,
        /// The number of messages that are its own, or were its own last.
        messages: u64,
    },
    /// No node has this name.
    Missing,
    /// No other node lives and takes mail.
    OnlyNode(String),
}

const LIST: &str = "SELECT n.number, n.name, NOT n.fenced AND n.lease_end > clock_timestamp(),
    floor(extract(epoch FROM n.lease_end) * 1000)::bigint, n.draining, n.config,
    (SELECT count(*) FROM gatepost.message m WHERE m.node = n.number)
FROM gatepost.node n ORDER BY n.name";
const FIND: &str = "SELECT number, NOT fenced AND lease_end > clock_timestamp(),
    floor(extract(epoch FROM lease_end) * 1000)::bigint
FROM gatepost.node WHERE name = $1 FOR UPDATE";
/// Locks all nodes, so that of two orders at once the second sees the first. The last column says
/// whether the node lives and takes mail.
const LOCK_ALL: &str =
    "SELECT number, name, NOT fenced AND NOT draining AND lease_end > clock_timestamp()
FROM gatepost.node ORDER BY number FOR UPDATE";
const DRAIN: &str = "UPDATE gatepost.node SET draining = $2 WHERE number = $1";
const COUNT: &str = "SELECT count(*) FROM gatepost.message WHERE node = $1";
const OWNERS: &str =
    "SELECT m.id, n.name, n.number, NOT n.fenced AND n.lease_end > clock_timestamp()
FROM gatepost.message m JOIN gatepost.node n ON n.number = m.node
WHERE m.id = ANY($1::bigint[]) AND m.epoch > 0";
/// Makes messages nobody's, as if the node with the other number had given them back.
const HAND_OVER: &str = "UPDATE gatepost.message SET node = $2, epoch = 0 WHERE node = $1";
const REMOVE: &str = "DELETE FROM gatepost.node WHERE number = $1";

impl ClusterNodes {
    /// Creates the list for the node with this number.
    pub(super) fn new(database: Database, own: i16) -> Self {
        Self { database, own }
    }

    /// Returns the orders that go between the nodes.
    #[must_use]
    pub fn orders(&self) -> NodeOrders {
        NodeOrders::new(self.database.clone(), self.own)
    }

    /// Returns all nodes, by name.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn list(&self) -> Result<Vec<ClusterNode>, DatabaseError> {
        let connection = self.database.connection().await?;
        let rows = connection.query(LIST, &[]).await?;
        connection.give_back();
        let node = |row: &Row| {
            let number = row.get(0);
            ClusterNode {
                number,
                name: row.get(1),
                is_own: number == self.own,
                is_alive: row.get(2),
                lease_end: time(row.get(3)),
                is_draining: row.get(4),
                messages: count(row.get(6)),
                config: NodeConfig::read(row.get(5)),
            }
        };
        Ok(rows.iter().map(node).collect())
    }

    /// Returns the owners of messages. Those that are nobody's are left out.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn owners(
        &self,
        ids: impl IntoIterator<Item = QueueId>,
    ) -> Result<HashMap<QueueId, MessageOwner>, DatabaseError> {
        let ids: Vec<i64> = ids.into_iter().map(row_id).collect();
        let connection = self.database.connection().await?;
        let rows = connection.query(OWNERS, &[&ids]).await?;
        connection.give_back();
        let owner = |row: &Row| {
            let owner = MessageOwner {
                node: row.get(1),
                is_own: row.get::<_, i16>(2) == self.own,
                is_alive: row.get(3),
            };
            Some((queue_id(row.get(0))?, owner))
        };
        Ok(rows.iter().filter_map(owner).collect())
    }

    /// Removes a node that is dead. What it has left is refused unless it is to be handed over: other
    /// nodes then send it by their own rules, as far as they agree with those of the node that asks.
    ///
    /// # Errors
    /// [`DatabaseError`]; nothing has changed then, unless the connection broke at the end.
    pub async fn remove(&self, name: &str, hand_over: bool) -> Result<NodeRemoval, DatabaseError> {
        let mut connection = self.database.connection().await?;
        let transaction = connection.transaction().await?;
        let Some(found) = transaction.query_opt(FIND, &[&name]).await? else {
            return Ok(NodeRemoval::Missing);
        };
        let (number, is_alive): (i16, bool) = (found.get(0), found.get(1));
        if is_alive {
            return Ok(NodeRemoval::Alive(time(found.get(2))));
        }
        let left = transaction.query_one(COUNT, &[&number]).await?;
        let left = count(left.get(0));
        if left > 0 && !hand_over {
            return Ok(NodeRemoval::HasMessages(left));
        }
        let handed = transaction
            .execute(HAND_OVER, &[&number, &self.own])
            .await?;
        transaction.execute(REMOVE, &[&number]).await?;
        transaction.commit().await?;
        connection.give_back();
        Ok(NodeRemoval::Removed(handed))
    }
}

impl ClusterNodes {
    /// Drains a node, or ends that: the node that asks if there is no name. The last one that lives and
    /// takes mail is not drained.
    ///
    /// # Errors
    /// [`DatabaseError`]; nothing has changed then, unless the connection broke at the end.
    pub async fn drain(
        &self,
        name: Option<&str>,
        is_draining: bool,
    ) -> Result<NodeDrain, DatabaseError> {
        let mut connection = self.database.connection().await?;
        let transaction = connection.transaction().await?;
        let nodes = transaction.query(LOCK_ALL, &[]).await?;
        let is_meant = |row: &&Row| match name {
            Some(name) => row.get::<_, &str>(1) == name,
            None => row.get::<_, i16>(0) == self.own,
        };
        let Some(meant) = nodes.iter().find(is_meant) else {
            return Ok(NodeDrain::Missing);
        };
        let (number, name): (i16, String) = (meant.get(0), meant.get(1));
        let is_successor = |row: &Row| row.get::<_, i16>(0) != number && row.get(2);
        if is_draining && !nodes.iter().any(is_successor) {
            return Ok(NodeDrain::OnlyNode(name));
        }
        transaction.execute(DRAIN, &[&number, &is_draining]).await?;
        let left = transaction.query_one(COUNT, &[&number]).await?;
        transaction.commit().await?;
        connection.give_back();
        Ok(NodeDrain::Ordered {
            name,
            is_own: number == self.own,
            messages: count(left.get(0)),
        })
    }
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or_default()
}

fn count(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or_default()
}
