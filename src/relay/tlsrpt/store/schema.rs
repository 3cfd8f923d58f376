//! The tables of the database, and the check that a file has them.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::CountStoreError;

/// The name of the file.
pub(super) const FILE: &str = "tlsrpt.db";
/// "GPTR": marks the databases of this module.
const APPLICATION_ID: i32 = 0x4750_5452;
/// The version of the tables below.
pub(super) const VERSION: i32 = 1;
/// The time to wait for somebody else who uses the database with `sqlite3`.
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

enum OpenError {
    /// The file cannot be read as a database.
    Damaged(String),
    /// The file is sound but of another version.
    OtherVersion(i32),
    /// Any other error.
    Other(String),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        let damaged = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        );
        if damaged {
            Self::Damaged(error.to_string())
        } else {
            Self::Other(error.to_string())
        }
    }
}

/// Opens the database. A damaged one is quarantined and replaced, for counts are not important
/// enough to prevent the start.
pub(super) fn open(file: &Path) -> Result<Connection, CountStoreError> {
    let error =
        |what: &str| CountStoreError::Failed(format!("cannot open {}: {what}", file.display()));
    let store_error = |fault: OpenError| match fault {
        OpenError::Damaged(what) | OpenError::Other(what) => error(&what),
        OpenError::OtherVersion(version) => CountStoreError::OtherVersion {
            file: file.to_owned(),
            version,
        },
    };
    let damage = match try_open(file) {
        Ok(connection) => return Ok(connection),
        Err(OpenError::Damaged(what)) => what,
        Err(other) => return Err(store_error(other)),
    };
    let quarantined = file.with_extension("db.damaged");
    std::fs::rename(file, &quarantined)
        .map_err(|fault| error(&format!("{damage}; cannot quarantine it: {fault}")))?;
    for log in ["db-wal", "db-shm"] {
        // A leftover of the quarantined file, which may not exist.
        let _missing = std::fs::remove_file(file.with_extension(log));
    }
    tracing::error!(file = %quarantined.display(), damage, "TLS report counts are damaged, file quarantined; counting starts from 0");
    try_open(file).map_err(store_error)
}

fn try_open(file: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY)?;
    let owner: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match (owner, version) {
        (APPLICATION_ID, VERSION) | (0, 0) => {}
        (APPLICATION_ID, other) => return Err(OpenError::OtherVersion(other)),
        _ => {
            return Err(OpenError::Other(
                "it is the database of another program; move it elsewhere".to_owned(),
            ));
        }
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A crash of this process loses nothing. A power failure may lose the latest counts, but never
    // the file.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    if owner == 0 {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
    }
    Ok(connection)
}
