//! Databases for tests, on the server that `GATEPOST_TEST_POSTGRESQL` names.

use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_postgres::{Config, NoTls};

use super::{Database, migrate};

/// Makes databases of different names in one process.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The time in which something must have come about. Nothing depends on its length.
const LIMIT: Duration = Duration::from_mins(1);

/// A database of one test, which has the schema of Gatepost. It is removed with this value.
pub(crate) struct ScratchDatabase {
    server: Config,
    name: String,
}

impl ScratchDatabase {
    /// Makes an empty database with the schema.
    pub(crate) async fn create() -> Self {
        let url = std::env::var("GATEPOST_TEST_POSTGRESQL").expect("the URL of a server for tests");
        let server: Config = url.parse().expect("a URL of PostgreSQL");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gatepost_test_{}_{number}", std::process::id());
        let made = Self { server, name };
        made.order(&format!("CREATE DATABASE {}", made.name)).await;
        migrate(&made.connect()).await.expect("the schema is made");
        made
    }

    /// Returns connections of their own to the database, as another node has.
    pub(crate) fn connect(&self) -> Database {
        let mut config = self.server.clone();
        config.dbname(&self.name);
        Database::new(config, None).expect("connections")
    }

    /// Returns a client of the database, for what a test changes by itself.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let mut config = self.server.clone();
        config.dbname(&self.name);
        let (client, connection) = config.connect(NoTls).await.expect("the server answers");
        tokio::spawn(connection);
        client
    }

    /// Lets nobody use the database, or lets everybody use it again.
    pub(crate) async fn set_reachable(&self, is_reachable: bool) {
        let name = &self.name;
        self.order(&format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS {is_reachable}"
        ))
        .await;
        if !is_reachable {
            let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname";
            self.order(&format!("{all} = '{name}'")).await;
        }
    }

    /// Runs statements in the database.
    pub(crate) async fn execute(&self, sql: &str) {
        let client = self.client().await;
        let run = client.batch_execute(sql).await;
        run.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Removes the database.
    pub(crate) async fn remove(mut self) {
        let name = take(&mut self.name);
        order(&self.server, &drop_statement(&name)).await;
    }

    async fn order(&self, sql: &str) {
        order(&self.server, sql).await;
    }
}

impl Drop for ScratchDatabase {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let (server, statement) = (self.server.clone(), drop_statement(&self.name));
        // The runtime of the test may be ending.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(order(&server, &statement));
        });
        drop(dropped.join());
    }
}

fn drop_statement(name: &str) -> String {
    format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")
}

async fn order(server: &Config, sql: &str) {
    let (client, connection) = server.connect(NoTls).await.expect("the server answers");
    let connection = tokio::spawn(connection);
    client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    drop(client);
    let _ended = connection.await;
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}
