//! The tables, and the check that a file has them.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::StoreError;

/// The name of the file.
pub(super) const FILE: &str = "tlsrpt.db";
/// "GPTR": tells our databases from others.
const APPLICATION_ID: i32 = 0x4750_5452;
/// The form of the tables below.
pub(super) const VERSION: i32 = 1;
/// How long to wait for somebody who looks into the database with `sqlite3`.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE domain (
    id INTEGER PRIMARY KEY,
    day TEXT NOT NULL,                  -- UTC
    name TEXT NOT NULL,
    report TEXT,                        -- the id of its report, once it is planned
    due INTEGER,                        -- when it is tried next; seconds since 1970-01-01
    first INTEGER,                      -- when it was tried first
    attempts INTEGER NOT NULL DEFAULT 0,
    done TEXT NOT NULL DEFAULT '[]',    -- destinations that have it
    closed TEXT,                        -- why nothing more is done; its counts are gone then
    UNIQUE (day, name)
);
CREATE INDEX domain_due ON domain (due) WHERE due IS NOT NULL;
CREATE TABLE policy (
    id INTEGER PRIMARY KEY,
    domain INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
    policy_domain TEXT NOT NULL,
    type TEXT NOT NULL,
    strings TEXT NOT NULL,              -- JSON list
    mx TEXT NOT NULL,                   -- JSON list
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    UNIQUE (domain, policy_domain, type, strings, mx)
);
CREATE TABLE failure (
    policy INTEGER NOT NULL REFERENCES policy (id) ON DELETE CASCADE,
    result TEXT NOT NULL,
    sending_ip TEXT NOT NULL,
    mx TEXT NOT NULL,
    helo TEXT NOT NULL,
    receiving_ip TEXT NOT NULL,
    reason TEXT NOT NULL,
    information TEXT NOT NULL,
    sessions INTEGER NOT NULL,
    UNIQUE (policy, result, sending_ip, mx, helo, receiving_ip, reason, information)
);
";

enum Refused {
    /// It cannot be read as a database at all.
    Damaged(String),
    /// It is sound, and of this other version.
    OtherVersion(i32),
    /// Anything else.
    Other(String),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        let damaged = matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        if damaged { Self::Damaged(error.to_string()) } else { Self::Other(error.to_string()) }
    }
}

/// Opens the database. Counts are not worth a start that fails: a damaged one is set aside, and a new
/// one made.
pub(super) fn open(file: &Path) -> Result<Connection, StoreError> {
    let error = |what: &str| StoreError::Failed(format!("could not open {}: {what}", file.display()));
    let refused = |refused: Refused| match refused {
        Refused::Damaged(what) | Refused::Other(what) => error(&what),
        Refused::OtherVersion(version) => StoreError::OtherVersion { file: file.to_owned(), version },
    };
    let damage = match try_open(file) {
        Ok(connection) => return Ok(connection),
        Err(Refused::Damaged(what)) => what,
        Err(other) => return Err(refused(other)),
    };
    let aside = file.with_extension("db.damaged");
    std::fs::rename(file, &aside).map_err(|fault| error(&format!("{damage}; it could not be set aside: {fault}")))?;
    for log in ["db-wal", "db-shm"] {
        // It belongs to the file that is aside, and may not be there.
        let _missing = std::fs::remove_file(file.with_extension(log));
    }
    tracing::error!(file = %aside.display(), damage, "TLS report counts are damaged and were set aside; counting begins anew");
    try_open(file).map_err(refused)
}

fn try_open(file: &Path) -> Result<Connection, Refused> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY)?;
    let owner: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match (owner, version) {
        (APPLICATION_ID, VERSION) | (0, 0) => {}
        (APPLICATION_ID, other) => return Err(Refused::OtherVersion(other)),
        _ => return Err(Refused::Other("it is a database of another program; move it elsewhere".to_owned())),
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A crash of ours loses nothing and a power failure the latest counts, but never the file.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    if owner == 0 {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
    }
    Ok(connection)
}
