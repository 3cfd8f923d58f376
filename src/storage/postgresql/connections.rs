//! The connections to the database: made when they are needed, kept, and replaced when they break.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use rustls::ClientConfig;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::DatabaseError;
use super::lent::LentConnection;

/// The most connections of one relay. Each is a process of the server.
const CONNECTIONS: usize = 8;
/// The time in which a connection must be made, or lent.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// A database, with the connections of this relay. Clones share them.
#[derive(Debug, Clone)]
pub struct Database {
    pool: Pool,
}

impl Database {
    /// Creates the connections, none of which is made yet. With `tls`, the server must speak TLS if
    /// the configuration demands it.
    ///
    /// # Errors
    /// [`DatabaseError::Setup`] if no runtime for timers is there.
    pub fn new(config: Config, tls: Option<Arc<ClientConfig>>) -> Result<Self, DatabaseError> {
        let kept = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = match tls {
            Some(tls) => Manager::from_config(config, MakeRustlsConnect::new((*tls).clone()), kept),
            None => Manager::from_config(config, NoTls, kept),
        };
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(CONNECT_TIME),
                create: Some(CONNECT_TIME),
                recycle: Some(CONNECT_TIME),
            })
            .build()
            .map_err(|error| DatabaseError::Setup(error.to_string()))?;
        Ok(Self { pool })
    }

    /// Lends a connection.
    ///
    /// # Errors
    /// [`DatabaseError::Unreachable`] if none can be made in time.
    pub async fn connection(&self) -> Result<LentConnection, DatabaseError> {
        Ok(LentConnection::new(self.pool.get().await?))
    }

    /// Closes all connections. Those that are lent end when they come back.
    pub fn close(&self) {
        self.pool.close();
    }
}
