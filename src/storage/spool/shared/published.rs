//! The configuration that this node publishes, and those of the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_postgres::Client;

use super::SharedCore;
use crate::policy::adoption::{NodeConfig, PolicyDifference, may_adopt};
use crate::smtp::envelope::Envelope;
use crate::storage::postgresql::DatabaseError;

const PUBLISH: &str = "UPDATE gatepost.node SET config = $3 WHERE number = $1 AND epoch = $2";
/// The nodes, whether they are fenced, and what they have published. They stay fenced until the
/// transaction is over.
const NODES: &str = "SELECT number, fenced, config FROM gatepost.node FOR SHARE";

/// The configuration of this node.
#[derive(Debug, Default)]
pub(super) struct OwnConfig {
    state: Mutex<ConfigState>,
    /// True for a node that sends no mail, so that no policy of its own can be weaker.
    sends_nothing: AtomicBool,
}

#[derive(Debug, Default)]
struct ConfigState {
    current: Arc<NodeConfig>,
    /// True while the database has another one.
    is_due: bool,
}

/// The other nodes, as the claim of messages needs them.
pub(super) struct OtherNodes {
    /// The nodes whose messages may be adopted.
    pub(super) fenced: Vec<i16>,
    pub(super) configs: HashMap<i16, NodeConfig>,
}

impl OwnConfig {
    /// Replaces the configuration.
    pub(super) fn set(&self, config: NodeConfig) {
        *self.state() = ConfigState {
            current: Arc::new(config),
            is_due: true,
        };
    }

    fn due(&self) -> Option<Arc<NodeConfig>> {
        let state = self.state();
        state.is_due.then(|| Arc::clone(&state.current))
    }

    /// Records that this configuration is in the database.
    fn published(&self, config: &Arc<NodeConfig>) {
        let mut state = self.state();
        if Arc::ptr_eq(&state.current, config) {
            state.is_due = false;
        }
    }

    fn state(&self) -> MutexGuard<'_, ConfigState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that this node sends no mail.
    pub(super) fn send_nothing(&self) {
        self.sends_nothing.store(true, Ordering::Relaxed);
    }

    /// Returns whether this node may have a message of one with this configuration.
    pub(super) fn allows(
        &self,
        theirs: &NodeConfig,
        envelope: &Envelope,
    ) -> Result<(), PolicyDifference> {
        if self.sends_nothing.load(Ordering::Relaxed) {
            return Ok(());
        }
        may_adopt(theirs, &self.state().current, envelope)
    }
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
