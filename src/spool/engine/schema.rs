//! The database: its tables, its settings, and the check that it is ours.
//!
//! The comments in the tables stay in the database: an administrator who opens it with `sqlite3` and
//! says `.schema` reads them, and `SELECT * FROM queue` shows the queue in plain words.

use std::fmt::Write as _;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::super::SpoolError;
use super::super::file::sync_folder;
use super::super::quota;
use super::home::Paths;

/// "GPST": tells our databases from others.
const APPLICATION_ID: i32 = 0x4750_5354;
/// The form of the tables below.
const VERSION: i32 = 1;
/// Octets in a page.
const PAGE: u32 = 4096;
/// How long to wait for somebody who works on the database with `sqlite3`.
const BUSY: Duration = Duration::from_secs(5);
/// Octets of the log that are kept for the next use: a log that is written over needs no new blocks,
/// which makes its sync cheaper, and takes no room from a full disk.
const WAL_KEPT: u32 = 64 << 20;
/// Octets of free pages above which a database is made small again when it is opened …
const SLACK: i64 = 256 << 20;
/// … provided that it holds no more than this, so that it takes seconds at most.
const COPIED: i64 = 64 << 20;

const TABLES: &str = "
CREATE TABLE message (
    -- Look, but do not edit: a row whose checksums do not fit is set aside. Use gatepost queue.
    id INTEGER PRIMARY KEY,         -- (milliseconds since 2020-01-01) * 4194304 + a counter
    accepted INTEGER NOT NULL,      -- milliseconds since 1970-01-01
    size INTEGER NOT NULL,          -- octets of the content
    content TEXT NOT NULL,          -- row: in table body; file: in bodies/<name>, name as in view queue
    content_crc INTEGER NOT NULL,   -- CRC-32 of the content
    fixed_crc INTEGER NOT NULL,     -- CRC-32 of id, accepted, size, content_crc, each little-endian
    envelope TEXT NOT NULL,         -- JSON, with each recipient's state
    envelope_crc INTEGER NOT NULL   -- CRC-32 of id, length, envelope
);
CREATE TABLE body (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);
";

/// A database that was opened, and whether it was made just now.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) connection: Connection,
    pub(super) is_new: bool,
}

/// Opens or makes the database, and refuses one that is not ours.
pub(super) fn open(paths: &Paths) -> Result<Database, SpoolError> {
    let failed = |what: &'static str| move |error: rusqlite::Error| database_error(paths, what, &error);
    let connection = Connection::open_with_flags(&paths.database, flags() | OpenFlags::SQLITE_OPEN_CREATE)
        .map_err(failed("open"))?;
    // Both only matter before the first table; the page size cannot be changed in WAL mode.
    connection.pragma_update(None, "page_size", PAGE).map_err(failed("set up"))?;
    let is_new = check_owner(&connection, paths)?;
    settings(&connection).map_err(failed("set up"))?;
    if is_new {
        let made = connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} {} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;",
            queue_view(),
        ));
        made.map_err(failed("make the tables of"))?;
    } else {
        empty_log(&connection, paths)?;
        shrink(&connection, paths);
    }
    // The names of the database and of its log; the engine does not look whether its own sync of them failed.
    sync_folder(&paths.folder)?;
    Ok(Database { connection, is_new })
}

/// One more connection.
pub(super) fn connect(paths: &Paths) -> Result<Connection, SpoolError> {
    let opened = Connection::open_with_flags(&paths.database, flags()).and_then(|connection| {
        settings(&connection)?;
        Ok(connection)
    });
    opened.map_err(|error| database_error(paths, "open", &error))
}

fn flags() -> OpenFlags {
    // Each connection stays on one thread at a time: SQLite's own locks are not needed.
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(())
}

/// Whether the database is empty; an error where it is not ours.
fn check_owner(connection: &Connection, paths: &Paths) -> Result<bool, SpoolError> {
    let number = |pragma: &str| {
        let read = connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0));
        read.map_err(|error| database_error(paths, "read", &error))
    };
    let (owner, version, changes) = (number("application_id")?, number("user_version")?, number("schema_version")?);
    let file = paths.database.display();
    match (owner, version) {
        (APPLICATION_ID, VERSION) => Ok(false),
        (APPLICATION_ID, newer) => Err(SpoolError::Io(format!(
            "{file} has the form {newer} of another gatepost and this one knows form {VERSION}; run the gatepost that made it"
        ))),
        (0, 0) if changes == 0 => Ok(true),
        _ => Err(SpoolError::Io(format!(
            "{file} is the database of another program; give gatepost a [spool] path of its own"
        ))),
    }
}

/// Moves what the log holds into the database, so that the log begins anew. A process that was killed after a
/// failed sync leaves entries that the kernel remembers and the disk may not have: what came behind them would
/// be lost with them when power fails.
fn empty_log(connection: &Connection, paths: &Paths) -> Result<(), SpoolError> {
    match connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())) {
        Ok(()) => Ok(()),
        Err(error) if is_full(paths, &error) => {
            tracing::warn!(database = %paths.database.display(), %error, "log not moved into the spool database for want of room; it is tried again");
            Ok(())
        }
        Err(error) => Err(database_error(paths, "move the log into", &error)),
    }
}

/// Gives the disk back what a long queue took, where that is quickly done.
fn shrink(connection: &Connection, paths: &Paths) {
    let number = |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    let sizes = number("freelist_count").and_then(|free| Ok((free, number("page_count")?, number("page_size")?)));
    let Ok((free, pages, page)) = sizes else { return };
    if free * page < SLACK || (pages - free) * page > COPIED {
        return;
    }
    match connection.execute_batch("VACUUM") {
        Ok(()) => tracing::info!(freed = free * page, "spool database made small again"),
        Err(error) => {
            tracing::warn!(database = %paths.database.display(), %error, "spool database not made small again");
        }
    }
}

/// The queue in plain words; the name is the id as Gatepost writes it.
fn queue_view() -> String {
    let mut name = String::new();
    for digit in (0..13).rev() {
        let glue = if digit == 12 { "" } else { " || " };
        let shift = digit * 5;
        let digits = "'0123456789abcdefghjkmnpqrstvwxyz'";
        // Writing to a String cannot fail.
        let _ = write!(name, "{glue}substr({digits}, ((id >> {shift}) & 31) + 1, 1)");
    }
    format!(
        "CREATE VIEW queue AS SELECT
    {name} AS name,
    strftime('%Y-%m-%dT%H:%M:%fZ', accepted / 1000.0, 'unixepoch') AS accepted,
    size,
    content,
    json_extract(envelope, '$.reverse_path') AS sender,
    (SELECT group_concat(json_extract(value, '$.mailbox'), ' ') FROM json_each(envelope, '$.recipients')) AS recipients,
    envelope,
    id
FROM message ORDER BY id;"
    )
}

/// Whether the disk is full, or our quota of it, also where the engine says so in other words.
pub(super) fn is_full(paths: &Paths, error: &rusqlite::Error) -> bool {
    let Some(inner) = error.sqlite_error() else { return false };
    match inner.extended_code {
        // The log's index lives in a file that must grow too.
        rusqlite::ffi::SQLITE_IOERR_SHMSIZE => true,
        // A write that fails for a quota (EDQUOT) is told as any other. What it was to write is rolled back.
        rusqlite::ffi::SQLITE_IOERR_WRITE => quota::is_used_up(&paths.folder),
        _ => inner.code == ErrorCode::DiskFull,
    }
}

/// Whether another program holds the database.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Whether the disk failed under us: what the kernel still holds is then unknown, and nothing more may
/// be claimed by this process.
pub(super) fn is_fatal(paths: &Paths, error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) && !is_full(paths, error)
}

/// What the database said, as people need it.
pub(super) fn database_error(paths: &Paths, what: &str, error: &rusqlite::Error) -> SpoolError {
    let file = paths.database.display();
    let text = format!("cannot {what} {file}: {error}");
    if is_full(paths, error) {
        return SpoolError::Full(format!(
            "{text}; make room on the disk of {}, or raise its quota",
            paths.folder.display()
        ));
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => SpoolError::Io(format!(
            "{text}; it was left as it is: restore it, or move it away to start with an empty queue"
        )),
        Some(ErrorCode::DatabaseCorrupt) => SpoolError::Io(format!(
            "{text}; it was left as it is: stop gatepost, save a copy, and run sqlite3 {file} .recover into a new file"
        )),
        Some(ErrorCode::DatabaseBusy) => SpoolError::Io(format!("{text}; another program keeps it locked: close it")),
        Some(ErrorCode::CannotOpen) => {
            SpoolError::Io(format!("{text}; check owner and rights of {}", paths.folder.display()))
        }
        _ => SpoolError::Io(text),
    }
}
