//! Publishes the configuration of this node, and reads those of the others.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use super::core::SharedCore;
use crate::policy::adoption::NodeConfig;
use crate::storage::postgresql::DatabaseError;

const PUBLISH: &str = "UPDATE gatepost.node SET config = $3 WHERE number = $1 AND epoch = $2";
/// The published configurations of the other nodes, each with true if the node lives and does not drain.
const CONFIGS: &str =
    "SELECT number, config, NOT fenced AND NOT draining AND lease_end > clock_timestamp()
FROM gatepost.node WHERE number <> $1";
/// The other nodes that are fenced. They stay so until the transaction is over. The rows of living nodes
/// are not locked: they could not renew their leases.
const FENCED: &str =
    "SELECT number FROM gatepost.node WHERE fenced AND number <> $1 ORDER BY number FOR SHARE";

/// The other nodes, as the claim of messages needs them.
pub(super) struct OtherNodes {
    /// The nodes whose messages may be adopted.
    pub(super) fenced: Vec<i16>,
    pub(super) configs: HashMap<i16, NodeConfig>,
    /// The nodes that live and do not drain: these take over what a draining node hands over.
    pub(super) successors: Vec<i16>,
}

impl SharedCore {
    /// Publishes the configuration if it has changed.
    pub(super) async fn publish_config(&self, client: &Client) -> Result<(), DatabaseError> {
        let Some(config) = self.config.due() else {
            return Ok(());
        };
        let run = self.run();
        let published = client
            .execute(PUBLISH, &[&run.number, &run.epoch(), &config.to_json()])
            .await?;
        if published > 0 {
            self.config.published(&config);
        }
        Ok(())
    }

    /// Publishes the configuration now, or with the next renewal of the lease.
    pub(super) fn publish_soon(&self) {
        let (Ok(core), Ok(runtime)) = (self.upgrade(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            // An error is met, and logged, by the next renewal, which tries again.
            if let Ok(connection) = core.database.connection().await
                && core.publish_config(&connection).await.is_ok()
            {
                connection.give_back();
            }
        });
    }

    /// Reads what other nodes have published, within a transaction.
    pub(super) async fn other_nodes(&self, client: &Client) -> Result<OtherNodes, DatabaseError> {
        let own = self.identity.number;
        // In this order: what a fenced node has published does not change any more.
        let fenced = client.query(FENCED, &[&own]).await?;
        let rows = client.query(CONFIGS, &[&own]).await?;
        let config = |row: &Row| (row.get(0), NodeConfig::read(row.get(1)));
        let successors = rows.iter().filter(|row| row.get(2));
        Ok(OtherNodes {
            fenced: fenced.iter().map(|row| row.get(0)).collect(),
            configs: rows.iter().map(config).collect(),
            successors: successors.map(|row| row.get(0)).collect(),
        })
    }
}
