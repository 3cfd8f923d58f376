//! The database: its tables, its settings, and the check that it is ours.
//!
//! The comments in the tables are stored in the database: `.schema` in `sqlite3` shows them to an
//! administrator, and `SELECT * FROM queue` lists the queue in readable form.

use std::fmt::Write as _;
use std::sync::LazyLock;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use super::super::SpoolError;
use super::super::file::sync_folder;
use super::super::quota;
use super::fatal::Fatal;
use super::paths::SpoolPaths;
use crate::storage::sqlite::{self, Durability, OpenError, Schema, SqliteDatabase};

/// The free space in a database, in octets, above which it is compacted when it is opened, if it
/// holds no more data than [`COPIED`].
const SLACK: i64 = 256 << 20;
/// The most data in octets that compacting may copy, so that it takes seconds at most.
const COPIED: i64 = 64 << 20;
/// The free space in a database, in octets, above which it gives some back to the system while it
/// is in use, if that is more than half of the file.
const SPARE: i64 = 32 << 20;
/// The number of pages that are given back at once, if the disk has space for that.
pub(super) const GIVEN_BACK: u32 = 1024;

/// The form of `queue.db`.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema {
    name: "queue.db",
    // "GPST".
    application_id: 0x4750_5354,
    // Version 1 had no log, so a program that knows it alone would not see the mail there. Version 2
    // had no table of recipients.
    version: 3,
    upgrades: &[1, 2],
    upgrade: format!("{PARTS} DROP VIEW IF EXISTS queue; {}", queue_view()).into(),
    gives_space_back: true,
    tables: format!("{TABLES} {PARTS} {}", queue_view()).into(),
    durability: Durability::PowerFailure,
    // A log that is overwritten needs no new blocks, so it needs no more space on a full disk.
    log_kept: 8 << 20,
    loss: "the mail in it",
});

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

/// The table of the parts of envelopes.
const PARTS: &str = "
CREATE TABLE recipient (
    -- Of messages to many recipients: the parts of the envelope that have changed.
    message INTEGER NOT NULL,       -- id of the message
    part INTEGER NOT NULL,          -- index of the recipient in the envelope; -1: all but the recipients
    status TEXT NOT NULL,           -- JSON: the recipient's state and the report that is owed
    crc INTEGER NOT NULL,           -- CRC-32 of id, part, length, status
    PRIMARY KEY (message, part)
) WITHOUT ROWID;
";

/// The SQL of the envelope of a row in table `message` as JSON, with its parts.
const ENVELOPE: &str =
    "CASE WHEN EXISTS (SELECT 1 FROM recipient WHERE message = message.id) THEN json_set(
        coalesce((SELECT status FROM recipient WHERE message = message.id AND part = -1), envelope),
        '$.recipients',
        json((SELECT json_group_array(json(CASE WHEN status IS NULL THEN value
            ELSE json_set(value, '$.state', status -> '$.state', '$.owed', status -> '$.owed') END))
        FROM json_each(envelope, '$.recipients')
        LEFT JOIN recipient ON recipient.message = message.id AND part = key))
    ) ELSE envelope END";

/// Opens or creates the database. Rejects one that is not ours.
pub(super) fn open(paths: &SpoolPaths) -> Result<SqliteDatabase, SpoolError> {
    let failed = |error| open_error(paths, error);
    let database = sqlite::open(&SCHEMA, &paths.folder).map_err(failed)?;
    let connection = &database.connection;
    settings(connection).map_err(|error| database_error(paths, "set up", &error))?;
    if !database.is_new {
        empty_log(connection, paths)?;
        shrink(connection, paths);
    }
    // Makes the names of the database and its log durable: SQLite ignores errors of its own folder
    // sync.
    sync_folder(&paths.folder)?;
    Ok(database)
}

/// Opens another connection to the database.
pub(super) fn connect(paths: &SpoolPaths) -> Result<Connection, SpoolError> {
    let connection =
        sqlite::connect(&SCHEMA, &paths.folder).map_err(|error| open_error(paths, error))?;
    settings(&connection).map_err(|error| database_error(paths, "set up", &error))?;
    Ok(connection)
}

/// Opens the database for reading, see [`sqlite::open_for_reading`].
pub(super) fn open_for_reading(
    paths: &SpoolPaths,
    immutable: bool,
) -> Result<Option<Connection>, OpenError> {
    sqlite::open_for_reading(&SCHEMA, &paths.folder, immutable)
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    // The mover does that.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(())
}

/// Describes the error of opening the database.
pub(super) fn open_error(paths: &SpoolPaths, error: OpenError) -> SpoolError {
    match error {
        OpenError::Sqlite { what, error, .. } => database_error(paths, what, &error),
        error => SpoolError::Io(error.to_string()),
    }
}

/// Moves the log into the database, so that the log starts from its beginning. After a failed sync
/// and a kill, the kernel may show log entries that are not on the disk. Entries written after them
/// would be lost with them on a power failure.
fn empty_log(connection: &Connection, paths: &SpoolPaths) -> Result<(), SpoolError> {
    match connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())) {
        Ok(()) => Ok(()),
        Err(error) if is_full(paths, &error) => {
            tracing::warn!(database = %paths.database.display(), %error, "cannot move the log into the spool database, disk full; trying again later");
            Ok(())
        }
        Err(error) => Err(database_error(paths, "move the log into", &error)),
    }
}

/// The free pages of a database.
struct FreePages {
    free: i64,
    all: i64,
    /// The size of a page in octets.
    page: i64,
    gives_back: bool,
}

fn free_pages(connection: &Connection) -> rusqlite::Result<FreePages> {
    let number = |pragma: &str| {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0))
    };
    Ok(FreePages {
        free: number("freelist_count")?,
        all: number("page_count")?,
        page: number("page_size")?,
        // 2 means incremental.
        gives_back: number("auto_vacuum")? == 2,
    })
}

/// The most pages that a database can have, which is SQLite's own limit.
const PAGES_MAX: u32 = 4_294_967_294;

/// Returns the space inside the database, in octets, that is free for new rows.
pub(super) fn free_octets(connection: &Connection) -> u64 {
    free_pages(connection).map_or(0, |pages| {
        u64::try_from(pages.free * pages.page).unwrap_or_default()
    })
}

/// Keeps the database from growing by a page, or lets it grow again. Its limit is never less than what
/// it has.
pub(super) fn bound_pages(connection: &Connection, is_bound: bool) {
    let most = if is_bound { 1 } else { PAGES_MAX };
    let set = connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(()));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot bound the pages of the database");
    }
}

/// Returns the length in octets that the database has when its write-ahead log is moved into it.
pub(super) fn length(connection: &Connection) -> u64 {
    free_pages(connection).map_or(0, |pages| {
        u64::try_from(pages.all * pages.page).unwrap_or_default()
    })
}

/// Returns whether much of the database is free, so that [`give_back`] should be called. If the disk
/// is nearly full, that is all but `scarce_spare` octets.
pub(super) fn has_slack(connection: &Connection, scarce_spare: Option<u64>) -> bool {
    free_pages(connection).is_ok_and(|pages| {
        let octets = pages.free * pages.page;
        let is_much = match scarce_spare {
            Some(spare) => u64::try_from(octets).is_ok_and(|octets| octets > spare),
            None => octets > SPARE && pages.free > pages.all / 2,
        };
        pages.gives_back && is_much
    })
}

/// Gives so many of the free pages in the database back to the system, in one transaction, which needs
/// some space itself.
pub(super) fn give_back(connection: &Connection, pages: u32) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    // Each row is a page.
    while rows.next()?.is_some() {}
    Ok(())
}

/// The write-ahead log after it was moved into the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct WalState {
    /// The octets that were written to it since it last started from its beginning.
    pub(super) written: u64,
    /// The octets that could not be moved.
    pub(super) left: u64,
}

/// Moves the write-ahead log into the database, except for the part that a reader still needs.
pub(super) fn empty_wal(
    connection: &Connection,
    paths: &SpoolPaths,
    mode: CheckpointMode,
) -> Result<WalState, Fatal> {
    let error = match connection.wal_checkpoint_v2(rusqlite::MAIN_DB.into(), mode) {
        // Both are -1 if there is no log.
        Ok((log, done)) => {
            let octets = |frames| u64::try_from(frames).unwrap_or(0) * 4096;
            return Ok(WalState {
                written: octets(log),
                left: octets(log - done),
            });
        }
        Err(error) => error,
    };
    let text = database_error(paths, "move the log into", &error).to_string();
    if is_fatal(paths, &error) {
        tracing::error!(error = text, "spool failed; the process must restart");
        return Err(Fatal);
    }
    // The disk is full or a reader is active: nothing is lost, and the next checkpoint, which comes
    // soon, may succeed.
    tracing::debug!(error = text, "spool log not moved into the database");
    let octets = std::fs::metadata(&paths.wal).map_or(0, |file| file.len());
    Ok(WalState {
        written: octets,
        left: octets,
    })
}

/// Gives the disk space of a queue that was once long back to the system, if that takes little
/// time.
fn shrink(connection: &Connection, paths: &SpoolPaths) {
    let Ok(FreePages {
        free, all, page, ..
    }) = free_pages(connection)
    else {
        return;
    };
    if free * page < SLACK || (all - free) * page > COPIED {
        return;
    }
    // A database of an earlier version can give space back by itself from then on.
    let compacted = connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM");
    match compacted {
        Ok(()) => tracing::info!(freed = free * page, "spool database compacted"),
        Err(error) => {
            tracing::warn!(database = %paths.database.display(), %error, "cannot compact the spool database");
        }
    }
}

/// Returns the SQL of a view that shows the queue in readable form. The column `name` is the queue
/// id as Gatepost writes it.
fn queue_view() -> String {
    let mut name = String::new();
    for digit in (0..13).rev() {
        let glue = if digit == 12 { "" } else { " || " };
        let shift = digit * 5;
        let digits = "'0123456789abcdefghjkmnpqrstvwxyz'";
        // Writing to a String cannot fail.
        let _ = write!(
            name,
            "{glue}substr({digits}, ((id >> {shift}) & 31) + 1, 1)"
        );
    }
    format!(
        "CREATE VIEW queue AS SELECT
    {name} AS name,
    strftime('%Y-%m-%dT%H:%M:%fZ', accepted / 1000.0, 'unixepoch') AS accepted,
    size,
    content,
    json_extract(envelope, '$.reverse_path') AS sender,
    (SELECT group_concat(json_extract(value, '$.mailbox'), ' ') FROM json_each(envelope, '$.recipients')) AS recipients,
    {ENVELOPE} AS envelope,
    id
FROM message ORDER BY id;"
    )
}

/// Returns whether the disk is full or our quota is exhausted, whichever error code SQLite uses for
/// it.
pub(super) fn is_full(paths: &SpoolPaths, error: &rusqlite::Error) -> bool {
    let Some(inner) = error.sqlite_error() else {
        return false;
    };
    match inner.extended_code {
        // The index of the log is a file that must be able to grow, too.
        rusqlite::ffi::SQLITE_IOERR_SHMSIZE => true,
        // A quota error (EDQUOT) is reported like any failed write. The write is rolled back.
        rusqlite::ffi::SQLITE_IOERR_WRITE => quota::is_exhausted(&paths.folder),
        _ => inner.code == ErrorCode::DiskFull,
    }
}

/// Returns whether another program has locked the database.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Returns whether a part of the database cannot be read: its structure is damaged, or the disk
/// returns an error for it. No later try reads it, and nothing else depends on it.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    let is_bad_block = error.sqlite_error().is_some_and(|inner| {
        matches!(
            inner.extended_code,
            rusqlite::ffi::SQLITE_IOERR_READ | rusqlite::ffi::SQLITE_IOERR_CORRUPTFS
        )
    });
    is_bad_block || sqlite::is_damage(error)
}

/// Returns whether the disk failed. The state of the data on it is then unknown, and this process
/// must not acknowledge anything more.
pub(super) fn is_fatal(paths: &SpoolPaths, error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
        && !is_unreadable(error)
        && !is_full(paths, error)
}

/// Describes a database error: what failed, on which file, and the remedy.
pub(super) fn database_error(
    paths: &SpoolPaths,
    what: &str,
    error: &rusqlite::Error,
) -> SpoolError {
    let file = paths.database.display();
    let text = format!("cannot {what} {file}: {error}");
    if is_full(paths, error) {
        return SpoolError::Full(format!(
            "{text}; free some space on the disk of {}, or raise its quota",
            paths.folder.display()
        ));
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => SpoolError::Io(format!(
            "{text}; it was left as it is: run gatepost spool repair, restore it, or move it away to start with an empty queue"
        )),
        Some(ErrorCode::DatabaseCorrupt) => SpoolError::Io(format!(
            "{text}; it was left as it is: stop gatepost and run gatepost spool repair"
        )),
        Some(ErrorCode::DatabaseBusy) => {
            SpoolError::Io(format!("{text}; another program keeps it locked: close it"))
        }
        Some(ErrorCode::CannotOpen) => SpoolError::Io(format!(
            "{text}; check owner and permissions of {}",
            paths.folder.display()
        )),
        _ => SpoolError::Io(text),
    }
}
