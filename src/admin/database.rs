//! The database with the queue, as the daemon read it last.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::api::status::DatabaseStatus;
use crate::storage::postgresql::DatabaseDurability;
use crate::storage::spool::{Spool, SpoolError};

/// The database with the queue. Clones share the durability, which changes with each reading.
#[derive(Debug, Clone)]
pub struct DatabaseReading {
    /// The URL, which has no password.
    pub url: Arc<str>,
    /// The name of this node.
    pub node: Arc<str>,
    /// The durability of commits.
    pub durability: Arc<ArcSwap<DatabaseDurability>>,
}

impl DatabaseReading {
    /// Returns the status of the database.
    pub(super) fn status(&self, spool: &dyn Spool) -> DatabaseStatus {
        let durability = self.durability.load();
        DatabaseStatus {
            url: self.url.to_string(),
            node: self.node.to_string(),
            two_disks: durability.is_on_two_disks(),
            durability: durability.parts(),
            trouble: trouble(spool),
        }
    }
}

/// Returns the reason why the spool stores nothing now, if that is neither its lease nor a full disk:
/// the database does not answer, or this node drains.
pub(super) fn trouble(spool: &dyn Spool) -> Option<String> {
    match spool.admit(0) {
        Err(error @ (SpoolError::Io(_) | SpoolError::Draining)) => Some(error.to_string()),
        _ => None,
    }
}
