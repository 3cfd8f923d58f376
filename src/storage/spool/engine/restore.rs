//! The messages of a new database that were set aside before, because their pages could not be read
//! then: their content comes back from the quarantine.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use crc32fast::Hasher;
use rusqlite::{Connection, params};

use super::super::SpoolError;
use super::super::file::{io_error, sync_folder};
use super::paths::SpoolPaths;
use super::row::{self, ContentColumns, IN_FILE, RowError};
use super::schema::database_error;
use super::unreported::remove;
use crate::smtp::envelope::QueueId;

/// The octets of a file that are read at once.
const BLOCK: usize = 512 * 1024;

/// The state of a message that was set aside before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RestoredMessage {
    /// Nothing of it was set aside.
    Untouched,
    /// The new database has all of it, and the quarantine nothing more.
    Complete,
    /// Its content is lost, so its sender gets a report.
    WithoutContent,
}

/// Completes a message of the new database, whose envelope is sound.
pub(super) fn restore(
    paths: &SpoolPaths,
    new: &Connection,
    id: QueueId,
) -> Result<RestoredMessage, SpoolError> {
    let file = |kind: &str| paths.quarantine.join(format!("{id}.{kind}"));
    let kept = file("eml");
    if !kept.exists() && !file("txt").exists() {
        return Ok(RestoredMessage::Untouched);
    }
    match row::load(new, paths, id) {
        Ok(_) => return Ok(RestoredMessage::Complete),
        Err(RowError::Damage(_)) => {}
        Err(RowError::Spool(error)) => return Err(error),
    }
    let written = |error| database_error(paths, "write the database beside", &error);
    let columns = row::content_columns(new, id).map_err(written)?;
    if !fits(&kept, &columns).map_err(|error| io_error("read", &kept, &error))? {
        return Ok(RestoredMessage::WithoutContent);
    }
    if columns.place == IN_FILE {
        let body = paths.body(id);
        remove(&body)?;
        // The name in the quarantine goes when the new database is in its place.
        fs::hard_link(&kept, &body).map_err(|error| io_error("restore", &kept, &error))?;
        sync_folder(&paths.bodies)?;
    } else {
        let content = fs::read(&kept).map_err(|error| io_error("read", &kept, &error))?;
        let sql = "INSERT OR REPLACE INTO body (id, data) VALUES (?1, ?2)";
        new.execute(sql, params![row::row_id(id), content])
            .map_err(written)?;
    }
    Ok(RestoredMessage::Complete)
}

/// Returns whether a file has the content of a message.
fn fits(kept: &Path, columns: &ContentColumns) -> io::Result<bool> {
    let mut file = match File::open(kept) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != columns.size {
        return Ok(false);
    }
    let (mut block, mut crc) = (vec![0; BLOCK], Hasher::new());
    loop {
        match file.read(&mut block)? {
            0 => return Ok(crc.finalize() == columns.crc),
            read => crc.update(&block[..read]),
        }
    }
}
