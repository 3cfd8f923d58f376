//! Publishes the configuration of this node, and reads those of the others.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::core::SharedCore;
use crate::policy::adoption::NodeConfig;
use crate::storage::postgresql::DatabaseError;

const PUBLISH: &str = "UPDATE gatepost.node SET config = $3 WHERE number = $1 AND epoch = $2";
/// The nodes, whether they are fenced, and what they have published. They stay fenced until the
/// transaction is over.
const NODES: &str = "SELECT number, fenced, config FROM gatepost.node FOR SHARE";

/// The other nodes, as the claim of messages needs them.
pub(super) struct OtherNodes {
    /// The nodes whose messages may be adopted.
    pub(super) fenced: Vec<i16>,
    pub(super) configs: HashMap<i16, NodeConfig>,
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
        let mut others = OtherNodes {
            fenced: Vec::new(),
            configs: HashMap::new(),
        };
        for row in client.query(NODES, &[]).await? {
            let (number, fenced): (i16, bool) = (row.get(0), row.get(1));
            if number == self.identity.number {
                continue;
            }
            if fenced {
                others.fenced.push(number);
            }
            others.configs.insert(number, NodeConfig::read(row.get(2)));
        }
        Ok(others)
    }
}
