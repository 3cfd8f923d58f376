//! The queue as it lies on disk, for tools that look at it from outside. A relay may be running on
//! it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::super::log::LogFolder;
use super::super::{SpoolError, StoredMessage};
use super::index::Pending;
use super::paths::SpoolPaths;
use super::replay::read_log;
use super::row::{self, RowError};
use super::schema::database_error;
use super::view::stored;
use crate::smtp::envelope::QueueId;

/// The time to wait while another program locks the database.
const BUSY: Duration = Duration::from_secs(5);
/// The number of times that the log is read while its segments come and go.
const TRIES: usize = 20;

/// Reads the messages of the spool in `folder` without their content, in the order of their ids.
/// Changes nothing, and leaves out what is damaged. Blocks.
///
/// # Errors
/// [`SpoolError::Io`] if a file cannot be read.
pub fn read_queue(folder: &Path) -> Result<Vec<StoredMessage>, SpoolError> {
    let paths = SpoolPaths::new(folder);
    // What moves to the database after this is found there.
    let log = LogFolder::existing(&paths.log);
    let mut read = read_log(&log);
    for _ in 0..TRIES {
        if read.is_ok() {
            break;
        }
        read = read_log(&log);
    }
    let index = read?.index;
    let mut queue = read_database(&paths)?;
    for (id, pending) in index.after(None) {
        match pending {
            Pending::Message(message) => {
                if let Some(message) = stored(id, message) {
                    queue.insert(id, message);
                }
            }
            Pending::Envelope(envelope) => {
                if let (Some(row), Ok(envelope)) = (queue.get_mut(&id), envelope.read()) {
                    row.envelope = envelope;
                }
            }
            Pending::Removed => {
                queue.remove(&id);
            }
        }
    }
    Ok(queue.into_values().collect())
}

fn read_database(paths: &SpoolPaths) -> Result<BTreeMap<QueueId, StoredMessage>, SpoolError> {
    let failed = |error| database_error(paths, "read", &error);
    if !paths.database.exists() {
        return Ok(BTreeMap::new());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = Connection::open_with_flags(&paths.database, flags).map_err(failed)?;
    database.busy_timeout(BUSY).map_err(failed)?;
    // A start that was interrupted leaves a database without tables.
    if !database.table_exists(None, "message").map_err(failed)? {
        return Ok(BTreeMap::new());
    }
    let page = match row::page(&database, paths, i64::MIN, usize::MAX) {
        Ok(page) => page,
        Err(RowError::Damage(_)) => {
            row::page_around_damage(&database, paths, i64::MIN, usize::MAX)?
        }
        Err(RowError::Spool(error)) => return Err(error),
    };
    let sound = page.into_iter().filter_map(|(_, stored)| stored.ok());
    Ok(sound.map(|stored| (stored.id, stored)).collect())
}
