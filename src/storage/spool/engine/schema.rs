//! The database: its tables, its settings, and the check that it is ours.
//!
//! The comments in the tables are stored in the database: `.schema` in `sqlite3` shows them to an
//! administrator, and `SELECT * FROM queue` lists the queue in readable form.

use std::fmt::Write as _;
use std::sync::LazyLock;

use rusqlite::{Connection, ErrorCode};

use super::super::SpoolError;
use super::super::file::sync_folder;
use super::super::quota;
use super::paths::SpoolPaths;
use crate::storage::sqlite::{self, Database, Durability, OpenError, PAGE, Schema};

/// The free space in a database, in octets, above which it is compacted when it is opened, if it
/// holds no more data than [`COPIED`].
const SLACK: u64 = 64 << 20;
/// The most data in octets that compacting may copy, so that it takes seconds at most.
const COPIED: u64 = 64 << 20;
/// The most data in octets that compacting may copy while mail waits.
const COPIED_AT_ONCE: u64 = 1 << 20;
/// The free space in a database, in octets, that is kept for the next mail.
const FREE_KEPT: u64 = 64 << 20;
/// As [`FREE_KEPT`], on a disk that has little space left.
const FREE_KEPT_SHORT: u64 = 1 << 20;
/// The number of pages that are given back in one transaction.
const PAGES_GIVEN_BACK: u32 = 1024;
/// The value of `PRAGMA auto_vacuum` of a database that can give pages back.
const INCREMENTAL: i64 = 2;

/// The form of `queue.db`.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema {
    name: "queue.db",
    // "GPST".
    application_id: 0x4750_5354,
    version: 1,
    tables: format!("{TABLES} {}", queue_view()).into(),
    durability: Durability::PowerFailure,
    // A log that is overwritten needs no new blocks, so its sync is cheaper and it needs no more
    // space on a full disk.
    log_kept: 64 << 20,
    gives_space_back: true,
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

/// Opens or creates the database. Rejects one that is not ours. `release_reserve` makes room on a
/// full disk, if it can.
pub(super) fn open(
    paths: &SpoolPaths,
    release_reserve: impl FnOnce() -> bool,
) -> Result<Database, SpoolError> {
    let failed = |error| open_error(paths, error);
    let database = sqlite::open(&SCHEMA, &paths.folder).map_err(failed)?;
    let connection = &database.connection;
    settings(connection).map_err(|error| database_error(paths, "set up", &error))?;
    if !database.is_new {
        if !empty_log(connection, paths)? && release_reserve() {
            empty_log(connection, paths)?;
        }
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

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    // The checkpointer moves the log.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.set_prepared_statement_cache_capacity(24);
    Ok(())
}

fn open_error(paths: &SpoolPaths, error: OpenError) -> SpoolError {
    match error {
        OpenError::Sqlite { what, error, .. } => database_error(paths, what, &error),
        error => SpoolError::Io(error.to_string()),
    }
}

/// Moves the log into the database, so that the log starts from its beginning. After a failed sync
/// and a kill, the kernel may show log entries that are not on the disk. Entries written after them
/// would be lost with them on a power failure. Returns `false` if the disk is full.
fn empty_log(connection: &Connection, paths: &SpoolPaths) -> Result<bool, SpoolError> {
    match connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())) {
        Ok(()) => Ok(true),
        Err(error) if is_full(paths, &error) => {
            let needed = sizes(connection, paths).map_or(0, |sizes| sizes.growth);
            tracing::error!(database = %paths.database.display(), needed, %error, "cannot move the log into the spool database, disk full; free as many octets as needed");
            Ok(false)
        }
        Err(error) => Err(database_error(paths, "move the log into", &error)),
    }
}

/// Gives the disk space of a queue that was once long back to the system, if that takes little
/// time.
fn shrink(connection: &Connection, paths: &SpoolPaths) {
    let Ok(sizes) = sizes(connection, paths) else {
        return;
    };
    if sizes.free < SLACK || sizes.data > COPIED {
        return;
    }
    match compact(connection) {
        Ok(()) => tracing::info!(freed = sizes.free, "spool database compacted"),
        Err(error) => {
            tracing::warn!(database = %paths.database.display(), %error, "cannot compact the spool database");
        }
    }
}

/// Writes the database anew, without free pages. From then on it can also give pages back one by
/// one, which databases of earlier versions cannot.
fn compact(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")
}

/// The sizes of the database, in octets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// The pages in use.
    data: u64,
    /// The free pages.
    pub(super) free: u64,
    /// The octets by which the file grows when the log is moved into it.
    pub(super) growth: u64,
}

/// Reads the sizes of the database.
pub(super) fn sizes(connection: &Connection, paths: &SpoolPaths) -> rusqlite::Result<Sizes> {
    let number = |pragma: &str| {
        let mut query = connection.prepare_cached(pragma)?;
        query.query_row([], |row| row.get::<_, u64>(0))
    };
    let free = number("PRAGMA freelist_count")?.saturating_mul(PAGE.into());
    let all = number("PRAGMA page_count")?.saturating_mul(PAGE.into());
    // A database that cannot be found is a new one.
    let file = std::fs::metadata(&paths.database).map_or(0, |file| file.len());
    Ok(Sizes {
        data: all.saturating_sub(free),
        free,
        growth: all.saturating_sub(file),
    })
}

/// Gives some of the free pages of an idle database back, if there are many, or any on a disk that
/// `is_short`. Returns whether it gave any.
pub(super) fn give_back(
    connection: &Connection,
    sizes: Sizes,
    is_short: bool,
) -> rusqlite::Result<bool> {
    let (kept, pages) = if is_short {
        (FREE_KEPT_SHORT, PAGES_GIVEN_BACK / 8)
    } else {
        (FREE_KEPT, PAGES_GIVEN_BACK)
    };
    if sizes.free <= kept {
        return Ok(false);
    }
    if sizes.data <= COPIED_AT_ONCE {
        compact(connection)?;
        return Ok(true);
    }
    let mut mode = connection.prepare_cached("PRAGMA auto_vacuum")?;
    if mode.query_row([], |row| row.get::<_, i64>(0))? != INCREMENTAL {
        return Ok(false);
    }
    let mut give = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = give.query([])?;
    while rows.next()?.is_some() {}
    Ok(true)
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
    envelope,
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

/// Returns whether the disk failed. The state of the data on it is then unknown, and this process
/// must not acknowledge anything more.
pub(super) fn is_fatal(paths: &SpoolPaths, error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) && !is_full(paths, error)
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
            "{text}; it was left as it is: restore it, or move it away to start with an empty queue"
        )),
        Some(ErrorCode::DatabaseCorrupt) => SpoolError::Io(format!(
            "{text}; it was left as it is: stop gatepost, save a copy, and run sqlite3 {file} .recover into a new file"
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
