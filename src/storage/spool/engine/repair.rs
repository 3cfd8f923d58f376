//! The repair of a spool that no relay uses: all that can be read goes on, and the rest is set aside
//! and named.
//!
//! A damaged database is read page by page into a new one, beside it; the exchange is the last step
//! ([`swap`]). Then the spool is opened as at a start, which takes over the log and sets aside the
//! damaged parts of it. An interruption leaves the old database or the new one, and whoever opens the
//! spool next completes the exchange.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::super::SpoolError;
use super::super::file::{io_error, sync_folder};
use super::super::log::LogFolder;
use super::check::{SpoolCheck, check, described, segment};
use super::image::ImageAccess;
use super::index::{LogIndex, Pending};
use super::offline::{OfflineError, OfflineSpool};
use super::paths::SpoolPaths;
use super::quarantine::{name, set_aside};
use super::replay::read_log;
use super::restore::{RestoredMessage, restore};
use super::row::{self, RowError};
use super::salvage::{Salvage, salvage};
use super::swap::CompletedExchange;
use super::unreported::{mark_message, unmark};
use super::unwritten::UnwrittenFile;
use super::{Options, SqliteSpool, readers, schema, swap, table, view};
use crate::smtp::envelope::QueueId;
use crate::storage::{files, quarantine};

/// The number of messages that are read at once.
const PAGE: usize = 500;
/// The octets that must stay free on the disk.
const KEPT_FREE: u64 = 16 << 20;

/// The result of a repair.
#[derive(Debug, Default)]
pub struct SpoolRepair {
    /// The damage that was found.
    pub found: SpoolCheck,
    /// The damaged database, if a new one was made.
    pub kept: Option<PathBuf>,
    /// The messages that had been set aside and are in the queue again.
    pub restored: Vec<QueueId>,
    /// The losses, as lines of text: each begins with a queue id or the name of a file.
    pub lost: Vec<String>,
    /// The spool after the repair.
    pub remaining: SpoolCheck,
}

/// Finds the damage that [`repair_spool`] would repair, and changes nothing. Blocks.
///
/// # Errors
/// [`OfflineError`] if a relay runs on the spool, or if it cannot be read.
pub fn plan_repair(folder: &Path) -> Result<SpoolCheck, OfflineError> {
    let spool = OfflineSpool::lock(folder)?;
    check(&spool.paths, ImageAccess::Locked)
}

/// Repairs the spool in `folder`. Blocks.
///
/// # Errors
/// [`OfflineError`] if a relay runs on the spool, or if the disk has no space for the new database; the
/// spool is as before then, or can be repaired again.
pub fn repair_spool(folder: &Path) -> Result<SpoolRepair, OfflineError> {
    let spool = OfflineSpool::lock(folder)?;
    let mut done = SpoolRepair::default();
    done.add(swap::complete(&spool.paths)?);
    done.found = check(&spool.paths, ImageAccess::Locked)?;
    if done.found.findings.is_empty() && done.kept.is_none() {
        done.remaining = check(&spool.paths, ImageAccess::Locked)?;
        return Ok(done);
    }
    if done.found.needs_repair() {
        if let Err(error) = rebuild(&spool.paths, &mut done.lost) {
            swap::abandon(&spool.paths)?;
            return Err(error);
        }
        done.add(swap::complete(&spool.paths)?);
    }
    for damage in read_log(&LogFolder::existing(&spool.paths.log), &spool.paths)?.damage {
        let (number, cause) = described(&damage);
        done.lost.push(format!("{}: {cause}", segment(number)));
    }
    let paths = spool.paths.clone();
    let (engine, aside) = SqliteSpool::open_offline(spool, &Options::default())?;
    done.lost.extend(aside);
    quarantine_damaged(&engine, &mut done.lost)?;
    drop(engine);
    // The database has taken what is in it.
    UnwrittenFile::open(&paths)?;
    done.remaining = check(&paths, ImageAccess::Locked)?;
    Ok(done)
}

impl SpoolRepair {
    fn add(&mut self, completed: CompletedExchange) {
        let CompletedExchange { kept, restored } = completed;
        self.kept = kept.or(self.kept.take());
        self.restored.extend(restored);
    }
}

/// Makes a new database of all that can be read, ready for the exchange.
fn rebuild(paths: &SpoolPaths, lost: &mut Vec<String>) -> Result<(), OfflineError> {
    check_space(paths)?;
    let work = swap::work_folder(paths);
    for folder in [&work, &paths.bodies, &paths.quarantine] {
        files::create_folder(folder).map_err(|error| io_error("create", folder, &error))?;
    }
    let (
        new,
        Salvage {
            rows: _,
            lost: found,
        },
    ) = salvage(paths, &work)?;
    lost.extend(found);
    let replayed = read_log(&LogFolder::existing(&paths.log), paths)?;
    let index = &replayed.index;
    let connection = schema::connect(&SpoolPaths::new(new.parent().unwrap_or(&work)))?;
    row::purge_removed(&connection, paths)?;
    let messages = sort_messages(paths, &connection, index, lost)?;
    sort_contents(paths, &connection, (index, &messages), lost)?;
    sort_bodies(paths, (index, &messages), lost)?;
    let restored = restore_messages(paths, &connection, (index, &messages))?;
    sync_folder(&paths.quarantine)?;
    let closed = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .and_then(|()| connection.close().map_err(|(_, error)| error));
    closed.map_err(|error| schema::database_error(paths, "write the database beside", &error))?;
    swap::prepare(paths, &new, &restored, paths.last_change())?;
    Ok(())
}

/// Checks that the disk has space for a copy of the database, and for a new one with its log.
fn check_space(paths: &SpoolPaths) -> Result<(), SpoolError> {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let needed = 3 * (size(&paths.database) + size(&paths.wal)) + KEPT_FREE;
    let disk = rustix::fs::statvfs(&paths.folder)
        .map_err(|error| io_error("read the free space of", &paths.folder, &error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let folder = paths.folder.display();
    Err(SpoolError::Full(format!(
        "a repair needs {needed} octets on the disk of {folder}, which has {free}; free some space, or copy the spool to \
         another disk and repair it there with --folder"
    )))
}

/// Sets aside the messages of the new database whose envelopes are damaged. Returns the rows of the
/// others.
fn sort_messages(
    paths: &SpoolPaths,
    connection: &Connection,
    index: &LogIndex,
    lost: &mut Vec<String>,
) -> Result<BTreeSet<i64>, SpoolError> {
    let (mut messages, mut after) = (BTreeSet::new(), i64::MIN);
    loop {
        let page = match row::page(connection, paths, after, PAGE) {
            Ok(page) => page,
            // The new database is sound.
            Err(RowError::Damage(fault)) => return Err(SpoolError::Io(fault)),
            Err(RowError::Spool(error)) => return Err(error),
        };
        let Some(end) = page.last().map(|(raw, _)| *raw) else {
            return Ok(messages);
        };
        after = end;
        for (raw, head) in page {
            match head {
                Ok(_) => {
                    messages.insert(raw);
                }
                Err(RowError::Damage(fault)) => {
                    if is_wanted(index, raw) && set_aside(paths, connection, raw, &fault)? {
                        lost.push(format!("{}: {fault}", name(raw)));
                    }
                    delete(paths, connection, raw)?;
                }
                Err(RowError::Spool(error)) => return Err(error),
            }
        }
    }
}

/// Sets aside the contents of the new database that have no message.
fn sort_contents(
    paths: &SpoolPaths,
    connection: &Connection,
    (index, messages): (&LogIndex, &BTreeSet<i64>),
    lost: &mut Vec<String>,
) -> Result<(), SpoolError> {
    for raw in row::ids_around_damage(connection, i64::MIN) {
        if messages.contains(&raw) {
            continue;
        }
        let fault = "its envelope cannot be read";
        if is_wanted(index, raw) && set_aside(paths, connection, raw, fault)? {
            lost.push(format!("{}: {fault}", name(raw)));
        }
        delete(paths, connection, raw)?;
    }
    Ok(())
}

/// Sets aside the body files that have no message, before a start would remove them as left over.
fn sort_bodies(
    paths: &SpoolPaths,
    (index, messages): (&LogIndex, &BTreeSet<i64>),
    lost: &mut Vec<String>,
) -> Result<(), SpoolError> {
    let failed = |error| io_error("list", &paths.bodies, &error);
    for entry in std::fs::read_dir(&paths.bodies).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let id = QueueId::parse(&file).filter(|id| id.to_string() == file);
        let Some(id) = id else { continue };
        let raw = row::row_id(id);
        if messages.contains(&raw) || !is_wanted(index, raw) {
            continue;
        }
        let fault = "its envelope cannot be read";
        mark_message(&paths.quarantine, &id.to_string(), fault)?;
        let to = paths.quarantine.join(format!("{id}.eml"));
        let moved = quarantine::move_file(&path, &to);
        moved.map_err(|error| io_error("quarantine", &path, &error))?;
        lost.push(format!("{id}: {fault}"));
    }
    Ok(())
}

/// Completes the messages that a start had set aside and whose envelopes can be read again. Returns
/// those that are complete.
fn restore_messages(
    paths: &SpoolPaths,
    connection: &Connection,
    (index, messages): (&LogIndex, &BTreeSet<i64>),
) -> Result<Vec<QueueId>, SpoolError> {
    let mut restored = Vec::new();
    for raw in messages {
        let Some(id) = row::queue_id(*raw).filter(|_| is_wanted(index, *raw)) else {
            continue;
        };
        match restore(paths, connection, id)? {
            RestoredMessage::Untouched => {}
            RestoredMessage::Complete => restored.push(id),
            RestoredMessage::WithoutContent => unmark(&paths.quarantine, &id.to_string())?,
        }
    }
    Ok(restored)
}

/// Returns false if the log says that the message was removed, or has all of it.
fn is_wanted(index: &LogIndex, raw: i64) -> bool {
    let pending = row::queue_id(raw).and_then(|id| index.get(id));
    !matches!(pending, Some(Pending::Removed | Pending::Message(..)))
}

fn delete(paths: &SpoolPaths, connection: &Connection, raw: i64) -> Result<(), SpoolError> {
    table::delete(connection, raw)
        .map_err(|error| schema::database_error(paths, "write the database beside", &error))
}

/// Lists all messages, as a start does: entries with damaged envelopes are quarantined.
fn quarantine_damaged(engine: &SqliteSpool, lost: &mut Vec<String>) -> Result<(), SpoolError> {
    let connection = readers::open(&engine.core.paths)?;
    let mut after = None;
    loop {
        let page = view::scan(&engine.core, &connection, after, PAGE)?;
        let Some(end) = page.last() else { break };
        after = Some(end.id);
    }
    let quarantined = engine.stats().quarantined;
    if quarantined > 0 {
        lost.push(format!(
            "{quarantined} entries with damaged envelopes were set aside"
        ));
    }
    Ok(())
}
