//! Opens the spool: in its folder, or in a database that several relays share, which is watched then.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{StartError, TestOverrides};
use crate::admin::DatabaseReading;
use crate::config::{Config, DatabaseConfig};
use crate::storage::evidence::EvidenceNode;
use crate::storage::postgresql::{
    Database, DatabaseAccess, DatabaseDurability, DatabaseError, read_durability,
};
use crate::storage::spool::{self, SharedOptions, SharedSpool, Spool, SqliteSpool};
use crate::telemetry::Monitor;

/// The interval at which the settings of the database are read.
const READING: Duration = Duration::from_mins(1);

/// The spool, and the database that it is in.
pub(super) struct OpenedSpool {
    pub(super) spool: Arc<dyn Spool>,
    pub(super) database: Option<WatchedDatabase>,
}

/// The database with the queue, and the durability that it had at the last reading.
#[derive(Clone)]
pub(super) struct WatchedDatabase {
    database: Database,
    reading: DatabaseReading,
    lease: Duration,
    /// The node, as its evidence names it.
    node: EvidenceNode,
}

/// Opens the spool.
///
/// # Errors
/// [`StartError::Spool`] or [`StartError::Database`]. Both may be different at the next start.
pub(super) async fn open(
    config: &Config,
    access: Option<DatabaseAccess>,
    monitor: &Monitor,
    test_overrides: TestOverrides,
) -> Result<OpenedSpool, StartError> {
    if let (Some(settings), Some(access)) = (&config.database, access) {
        return open_shared(config, settings, &access, monitor, test_overrides).await;
    }
    let options = spool::Options {
        monitor: monitor.clone(),
        ..spool::Options::default()
    };
    let spool = SqliteSpool::open_with(&config.spool.value, &options);
    let spool = spool.map_err(|error| StartError::Spool {
        location: config.spool.location.clone(),
        error: Box::new(error),
    })?;
    Ok(OpenedSpool {
        spool: Arc::new(spool),
        database: None,
    })
}

/// Opens the spool in a database, if 250 is no false promise with it.
async fn open_shared(
    config: &Config,
    settings: &DatabaseConfig,
    access: &DatabaseAccess,
    monitor: &Monitor,
    test_overrides: TestOverrides,
) -> Result<OpenedSpool, StartError> {
    let failed = |error: DatabaseError| StartError::Database {
        location: settings.url.location.clone(),
        error: Box::new(error),
    };
    let database = access.database().map_err(failed)?;
    let durability = read_durability(&database).await.map_err(failed)?;
    durability
        .check(test_overrides.database_without_fsync)
        .map_err(failed)?;
    log_warnings(&durability);
    let options = SharedOptions {
        folder: config.spool.value.clone(),
        node: settings.node.value.clone(),
        lease: settings.lease,
        monitor: monitor.clone(),
    };
    let opened = SharedSpool::open(database.clone(), options).await;
    let spool = opened.map_err(|error| StartError::Spool {
        location: settings.url.location.clone(),
        error: Box::new(error),
    })?;
    tracing::info!(
        node = settings.node.value,
        database = %settings.url.value,
        durability = durability.parts().join("; "),
        "the queue is in the database"
    );
    let reading = DatabaseReading {
        url: settings.url.value.to_string().into(),
        node: settings.node.value.as_str().into(),
        durability: Arc::new(ArcSwap::from_pointee(durability)),
    };
    let node = EvidenceNode {
        name: spool.node_name().to_owned(),
        epoch: spool.epoch_source(),
        chain: spool.evidence_chain(),
    };
    Ok(OpenedSpool {
        spool: Arc::new(spool),
        database: Some(WatchedDatabase {
            database,
            reading,
            lease: settings.lease,
            node,
        }),
    })
}

fn log_warnings(durability: &DatabaseDurability) {
    for (message, remedy) in durability.warnings() {
        tracing::warn!(remedy, "{message}");
    }
}

impl WatchedDatabase {
    /// The database, for the other stores in it.
    pub(super) fn database(&self) -> Database {
        self.database.clone()
    }

    /// The node, as its evidence names it.
    pub(super) fn node(&self) -> EvidenceNode {
        self.node.clone()
    }

    /// The time for which the lease holds after each renewal.
    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    /// The durability at the last reading, for the status.
    pub(super) fn reading(&self) -> DatabaseReading {
        self.reading.clone()
    }

    /// Reads the settings of the database again and again, and logs when they get worse: a standby may
    /// be promoted whose settings are different. A database that does not answer is the spool's affair.
    pub(super) async fn watch(self) {
        loop {
            tokio::time::sleep(READING).await;
            let Ok(fresh) = read_durability(&self.database).await else {
                continue;
            };
            let known = self.reading.durability.load_full();
            if fresh.warnings() != known.warnings() {
                log_warnings(&fresh);
            }
            if let (Err(error), Ok(())) = (fresh.check(true), known.check(true)) {
                tracing::error!(%error, "the database is no longer fit: a 250 may be a false promise");
            }
            self.reading.durability.store(Arc::new(fresh));
        }
    }
}
