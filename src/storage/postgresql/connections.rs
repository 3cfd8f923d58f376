//! The connections to the database: made when they are needed, kept, and replaced when they break.

use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType, Timeouts,
};
use tokio_postgres::Config;

use super::connect::{DatabaseConnector, HostFailures, HostSettings};
use super::error::DatabaseError;
use super::lent::LentConnection;
use super::session::SessionTimes;
use super::tls::DatabaseTlsClient;

/// The most connections of one relay. Each is a process of the server.
const CONNECTIONS: usize = 8;
/// The lease from which the times of a database follow that has none.
const DEFAULT_LEASE: Duration = Duration::from_secs(30);

/// A database, with the connections of this relay. Clones share them.
#[derive(Debug, Clone)]
pub struct Database {
    pool: Pool,
    failures: HostFailures,
}

impl Database {
    /// Creates the connections by settings of the library, none of which is made yet. With `tls`, the
    /// server is verified if the configuration demands TLS.
    ///
    /// # Errors
    /// [`DatabaseError::Setup`] if no runtime for timers is there.
    pub fn new(config: Config, tls: Option<DatabaseTlsClient>) -> Result<Self, DatabaseError> {
        let times = SessionTimes::of(DEFAULT_LEASE);
        let host = HostSettings {
            name: "the database".to_owned(),
            config,
            tls: tls.unwrap_or_else(DatabaseTlsClient::none),
        };
        Self::connected_by(
            DatabaseConnector::new(vec![host], None, times.connect),
            times,
        )
    }

    /// Creates the connections that this connector makes.
    pub(super) fn connected_by(
        connector: DatabaseConnector,
        times: SessionTimes,
    ) -> Result<Self, DatabaseError> {
        let (failures, total_time) = (connector.failures(), connector.total_time());
        let kept = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        // The connector has the settings of each host.
        let manager = Manager::from_connect(Config::new(), connector, kept);
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(times.wait),
                create: Some(total_time),
                recycle: Some(times.connect),
            })
            .build()
            .map_err(|error| DatabaseError::Setup(error.to_string()))?;
        Ok(Self { pool, failures })
    }

    /// Lends a connection.
    ///
    /// # Errors
    /// [`DatabaseError::Unreachable`] if none can be made in time, for whatever reason.
    pub async fn connection(&self) -> Result<LentConnection, DatabaseError> {
        match self.pool.get().await {
            Ok(connection) => Ok(LentConnection::new(connection)),
            // The reasons of all hosts say more than the last error.
            Err(error @ (PoolError::Backend(_) | PoolError::Timeout(TimeoutType::Create))) => {
                let reasons = self.failures.text();
                Err(reasons.map_or_else(|| error.into(), DatabaseError::Unreachable))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Closes all connections. Those that are lent end when they come back.
    pub fn close(&self) {
        self.pool.close();
    }
}
