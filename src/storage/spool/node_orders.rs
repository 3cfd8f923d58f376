//! The orders of operators for messages of another node, which go through the database.

use std::time::Duration;

use tokio::time::Instant;

use crate::storage::postgresql::{Database, DatabaseError};

/// The pause between two looks for the result of an order.
const PAUSE: Duration = Duration::from_millis(250);

/// The orders between the nodes of a database, as one of them gives and gets them.
#[derive(Debug, Clone)]
pub struct NodeOrders {
    database: Database,
    own: i16,
}

/// An order of another node that this one has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOrder {
    id: i64,
    /// The content, as the other node has written it.
    pub content: String,
}

/// The end of an order to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAnswer {
    /// The result, as the other node has written it.
    Result(String),
    /// No node with this name is alive.
    NotAlive,
    /// The node has not begun it in time, and does not any more.
    NotBegun,
    /// The node has begun it and given no result in time.
    Unknown,
}

const EXPIRE: &str =
    "DELETE FROM gatepost.node_order WHERE requested_at < clock_timestamp() - interval '1 hour'";
const REQUEST: &str = "INSERT INTO gatepost.node_order (node, epoch, content)
SELECT number, epoch, $2 FROM gatepost.node
WHERE name = $1 AND NOT fenced AND lease_end > clock_timestamp() RETURNING id";
const BEGIN: &str = "UPDATE gatepost.node_order o SET begun = true FROM gatepost.node n
WHERE n.number = $1 AND o.node = n.number AND o.epoch = n.epoch AND NOT o.begun
  AND o.requested_at > clock_timestamp() - interval '30 seconds'
RETURNING o.id, o.content";
const ANSWER: &str = "UPDATE gatepost.node_order SET result = $2 WHERE id = $1";
const RESULT: &str = "SELECT result FROM gatepost.node_order WHERE id = $1";
const WITHDRAW: &str = "DELETE FROM gatepost.node_order WHERE id = $1 RETURNING begun, result";

impl NodeOrders {
    /// Creates the orders of the node with this number.
    pub(super) fn new(database: Database, own: i16) -> Self {
        Self { database, own }
    }

    /// Gives an order to another node, and waits no longer than `patience` for its result.
    ///
    /// # Errors
    /// [`DatabaseError`]; the order may be carried out all the same then.
    pub async fn give(
        &self,
        node: &str,
        content: &str,
        patience: Duration,
    ) -> Result<NodeAnswer, DatabaseError> {
        let connection = self.database.connection().await?;
        connection.execute(EXPIRE, &[]).await?;
        let given = connection.query_opt(REQUEST, &[&node, &content]).await?;
        connection.give_back();
        let Some(given) = given else {
            return Ok(NodeAnswer::NotAlive);
        };
        let id: i64 = given.get(0);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            tokio::time::sleep(PAUSE.min(patience)).await;
            let connection = self.database.connection().await?;
            let row = connection.query_opt(RESULT, &[&id]).await?;
            connection.give_back();
            if row.is_none_or(|row| row.get::<_, Option<&str>>(0).is_some()) {
                break;
            }
        }
        let connection = self.database.connection().await?;
        let ended = connection.query_opt(WITHDRAW, &[&id]).await?;
        connection.give_back();
        Ok(match ended {
            None => NodeAnswer::Unknown,
            Some(row) => match (row.get(0), row.get(1)) {
                (_, Some(result)) => NodeAnswer::Result(result),
                (false, None) => NodeAnswer::NotBegun,
                (true, None) => NodeAnswer::Unknown,
            },
        })
    }

    /// Begins the orders that other nodes have given to this run of the node.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn begin(&self) -> Result<Vec<NodeOrder>, DatabaseError> {
        let connection = self.database.connection().await?;
        let statement = connection.prepare_cached(BEGIN).await?;
        let rows = connection.query(&statement, &[&self.own]).await?;
        connection.give_back();
        let order = |row: &tokio_postgres::Row| NodeOrder {
            id: row.get(0),
            content: row.get(1),
        };
        Ok(rows.iter().map(order).collect())
    }

    /// Gives the result of an order.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn answer(&self, order: &NodeOrder, result: &str) -> Result<(), DatabaseError> {
        let connection = self.database.connection().await?;
        connection.execute(ANSWER, &[&order.id, &result]).await?;
        connection.give_back();
        Ok(())
    }
}
