//! The engine over PostgreSQL in the suite: each test has a database of its own.

use std::time::Duration;

use crate::policy::adoption::{NodeConfig, PublishedConnector};
use crate::storage::postgresql::scratch_database::ScratchDatabase;
use crate::storage::spool::{SharedOptions, SharedSpool, Spool as _, SpoolError};
use crate::telemetry::Monitor;

/// Opens the spool of a node in a database.
pub(in crate::storage::spool) async fn open_node(
    database: &ScratchDatabase,
    folder: &std::path::Path,
    node: &str,
    lease: Duration,
) -> SharedSpool {
    let opened = try_open_node(database, folder, node, lease);
    opened.await.expect("a node")
}

/// Tries to open the spool of a node.
pub(in crate::storage::spool) async fn try_open_node(
    database: &ScratchDatabase,
    folder: &std::path::Path,
    node: &str,
    lease: Duration,
) -> Result<SharedSpool, SpoolError> {
    let options = SharedOptions {
        folder: folder.to_owned(),
        node: node.to_owned(),
        lease,
        monitor: Monitor::default(),
    };
    let spool = SharedSpool::open(database.connect(), options).await?;
    spool.publish(test_config("same"));
    // Its statements are behind that of the publication by now.
    spool.renew().await.map(|_| spool)
}

/// Returns a configuration with one connector, whose rules are these.
pub(in crate::storage::spool) fn test_config(rules: &str) -> NodeConfig {
    NodeConfig {
        digest: rules.to_owned(),
        rules: rules.to_owned(),
        connectors: vec![PublishedConnector {
            name: "all".to_owned(),
            domains: vec!["*".to_owned()],
            rules: rules.to_owned(),
        }],
    }
}
