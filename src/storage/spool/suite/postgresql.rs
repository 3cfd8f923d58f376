//! The engine over PostgreSQL in the suite: each test has a database of its own.

use std::str::FromStr as _;
use std::time::Duration;

use tokio_postgres::{Config, NoTls};

use super::SpoolFixture;
use crate::policy::adoption::{NodeConfig, PublishedConnector};
use crate::storage::postgresql::Database;
use crate::storage::spool::{SharedOptions, SharedSpool, Spool as _, SpoolError};
use crate::telemetry::Monitor;

/// The environment variable with the URL of a server on which tests may make databases.
const SERVER: &str = "GATEPOST_TEST_POSTGRESQL";

/// A database that is removed with this value.
pub(in crate::storage::spool) struct TestDatabase {
    config: Config,
    name: String,
}

/// A database, and the folder of its only node.
pub(super) struct DatabaseFixture {
    database: TestDatabase,
    folder: tempfile::TempDir,
}

fn server() -> Config {
    let url = std::env::var(SERVER).expect("GATEPOST_TEST_POSTGRESQL is the URL of a server");
    Config::from_str(&url).expect("a URL")
}

async fn execute(config: &Config, statement: &str) {
    let (client, connection) = config.connect(NoTls).await.expect("a server");
    let connection = tokio::spawn(connection);
    client.batch_execute(statement).await.expect("it may");
    drop(client);
    drop(connection.await);
}

impl TestDatabase {
    /// Makes an empty database.
    pub(in crate::storage::spool) async fn new() -> Self {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).expect("random numbers");
        let name = format!("gatepost_test_{}", data_encoding::HEXLOWER.encode(&random));
        let mut config = server();
        execute(&config, &format!("CREATE DATABASE {name}")).await;
        config.dbname(&name);
        Self { config, name }
    }

    /// Returns connections to it.
    pub(in crate::storage::spool) fn connect(&self) -> Database {
        Database::new(self.config.clone(), None).expect("a runtime")
    }

    /// Runs statements.
    pub(in crate::storage::spool) async fn execute(&self, statement: &str) {
        execute(&self.config, statement).await;
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (server(), self.name.clone());
        // The runtime of the test may be ending.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(execute(
                &server,
                &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            ));
        });
        drop(dropped.join());
    }
}

/// Opens the spool of a node in a database.
pub(in crate::storage::spool) async fn open_node(
    database: &TestDatabase,
    folder: &std::path::Path,
    node: &str,
    lease: Duration,
) -> SharedSpool {
    let opened = try_open_node(database, folder, node, lease);
    opened.await.expect("a node")
}

/// Tries to open the spool of a node.
pub(in crate::storage::spool) async fn try_open_node(
    database: &TestDatabase,
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

impl SpoolFixture for DatabaseFixture {
    type Engine = SharedSpool;

    async fn new() -> Self {
        Self {
            database: TestDatabase::new().await,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    async fn open(&self) -> SharedSpool {
        let lease = Duration::from_secs(30);
        open_node(&self.database, self.folder.path(), "relay-1", lease).await
    }
}
