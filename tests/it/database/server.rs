//! The real server of tests.

use std::str::FromStr as _;

use tokio_postgres::config::Host;
use tokio_postgres::{Config, NoTls};

/// The environment variable with the URL of a server on which tests may make databases and roles.
const SERVER: &str = "GATEPOST_TEST_POSTGRESQL";

/// A database and a role without rights, which are removed with this value.
pub(super) struct TestServer {
    config: Config,
    name: String,
}

fn settings() -> Config {
    let url = std::env::var(SERVER).expect("GATEPOST_TEST_POSTGRESQL is the URL of a server");
    Config::from_str(&url).expect("a URL")
}

async fn execute(config: &Config, statements: &[String]) {
    let (client, connection) = config.connect(NoTls).await.expect("a server");
    let connection = tokio::spawn(connection);
    for statement in statements {
        client.batch_execute(statement).await.expect("it may");
    }
    drop(client);
    drop(connection.await);
}

impl TestServer {
    /// Makes an empty database, and a role of its name that may log in.
    pub(super) async fn new() -> Self {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).expect("random numbers");
        let name = format!("gatepost_it_{}", data_encoding::HEXLOWER.encode(&random));
        let create = [
            format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0"),
            format!("CREATE ROLE {name} LOGIN"),
        ];
        let mut config = settings();
        execute(&config, &create).await;
        config.dbname(&name);
        Self { config, name }
    }

    /// The host and port of the server.
    pub(super) fn address(&self) -> String {
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => format!("{name}:{port}"),
            other => panic!("a network host: {other:?}"),
        }
    }

    /// The superuser.
    pub(super) fn user(&self) -> &str {
        self.config.get_user().expect("a user in the URL")
    }

    /// The database, and the role without rights.
    pub(super) fn database(&self) -> &str {
        &self.name
    }

    /// The URL of the database for a role.
    pub(super) fn url(&self, role: &str) -> String {
        format!("postgresql://{role}@{}/{}", self.address(), self.name)
    }

    /// Runs statements in the database as the superuser.
    pub(super) async fn execute(&self, statement: &str) {
        execute(&self.config, &[statement.to_owned()]).await;
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let (config, name) = (settings(), self.name.clone());
        // The runtime of the test may be ending.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let statements = [
                format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
                format!("DROP ROLE IF EXISTS {name}"),
            ];
            runtime.block_on(execute(&config, &statements));
        });
        drop(dropped.join());
    }
}
