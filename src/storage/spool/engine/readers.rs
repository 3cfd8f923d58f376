//! A small pool of read connections. They are opened when first needed and used on blocking
//! threads.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::super::SpoolError;
use super::super::file::blocking;
use super::held_folder::HeldFolder;
use super::paths::SpoolPaths;
use super::schema;

/// The number of connections, and so of simultaneous reads.
pub(super) const READERS: usize = 4;

#[derive(Debug)]
pub(super) struct Readers {
    paths: SpoolPaths,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    held_folder: Arc<HeldFolder>,
}

impl Readers {
    pub(super) fn new(paths: SpoolPaths, held_folder: Arc<HeldFolder>) -> Self {
        Self {
            paths,
            held_folder,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Runs `work` with a connection of its own.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| SpoolError::Closed)?;
        let (idle, paths) = (Arc::clone(&self.idle), self.paths.clone());
        let held_folder = Arc::clone(&self.held_folder);
        blocking(move || {
            let free = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match free {
                Some(connection) => connection,
                None if held_folder.is_ours() => open(&paths)?,
                // The path may lead to the database of somebody else.
                None => return Err(held_folder.lease().refusal()),
            };
            let result = work(&connection);
            // The permit is still held here, so that `close` cannot miss the connection.
            if !permit.semaphore().is_closed() {
                idle.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(connection);
            }
            drop(permit);
            result
        })
        .await
    }

    /// Closes all connections and lends no more.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Opens a connection that only reads.
pub(super) fn open(paths: &SpoolPaths) -> Result<Connection, SpoolError> {
    let connection = schema::connect(paths)?;
    let only = connection.pragma_update(None, "query_only", true);
    only.map_err(|error| schema::database_error(paths, "set up", &error))?;
    Ok(connection)
}
