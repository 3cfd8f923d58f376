//! The databases: one way to open them all, and the check that a file is ours.
//!
//! A file of a newer version or of another program is sound. It is refused and stays as it is,
//! octet for octet, with an error that names the remedy. A damaged file is quarantined and replaced
//! by [`open_or_replace`], for stores that mail can do without; [`open`] refuses it, too.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::files::with_suffix;
use super::quarantine;

/// The time to wait while another program, such as `sqlite3`, locks a database.
const BUSY: Duration = Duration::from_secs(5);
/// The size of a page in octets, for new databases.
const PAGE: u32 = 4096;

/// The form of a database.
#[derive(Debug)]
pub struct Schema {
    /// The name of the file in the folder of the spool.
    pub name: &'static str,
    /// The SQLite application id, by which the file is known as ours.
    pub application_id: i32,
    /// The version of the tables, stored as SQLite's user version.
    pub version: i32,
    /// The earlier versions that become this version when opened.
    pub upgrades: &'static [i32],
    /// The SQL that changes the tables of any of these into those of this version.
    pub upgrade: Cow<'static, str>,
    /// The SQL that creates the tables.
    pub tables: Cow<'static, str>,
    /// The durability of transactions.
    pub durability: Durability,
    /// The octets of the log that are kept for reuse.
    pub log_kept: u32,
    /// True if free pages can be given back to the system while the database is in use.
    pub gives_space_back: bool,
    /// The loss if the file is moved away, to follow "and lose" in an error text.
    pub loss: &'static str,
}

/// The durability of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A transaction survives a power failure: each one is synced.
    PowerFailure,
    /// A transaction survives a crash of the process. A power failure may lose the latest ones, but
    /// never the file.
    Crash,
}

/// An open database.
#[derive(Debug)]
pub struct SqliteDatabase {
    /// The connection. It is used by one thread at a time.
    pub connection: Connection,
    /// The path of the file.
    pub file: PathBuf,
    /// True if the file has just been created.
    pub is_new: bool,
}

/// The reason why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is sound but of another version. It was not changed.
    #[error(
        "{} has version {found}, and this gatepost supports version {supported}; it was left as it is: run the newer \
         gatepost that wrote it, restore the file from before the upgrade, or move it away with its -wal file and \
         lose {loss}",
        file.display()
    )]
    OtherVersion {
        /// The file.
        file: PathBuf,
        /// The version of the file.
        found: i32,
        /// The version that this program supports.
        supported: i32,
        /// The loss if the file is moved away.
        loss: &'static str,
    },
    /// The file is the database of another program. It was not changed.
    #[error(
        "{} is the database of another program; it was left as it is: move it away, or give gatepost a [spool] path \
         of its own",
        file.display()
    )]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The file is a database of ours, and damaged.
    #[error("{} is damaged: {fault}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The damage.
        fault: String,
    },
    /// An error of SQLite.
    #[error("cannot {what} {}: {error}", file.display())]
    Sqlite {
        /// The operation that failed.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// The error.
        error: rusqlite::Error,
    },
    /// A damaged file cannot be quarantined.
    #[error("{} is damaged and cannot be moved to {}/: {error}", file.display(), quarantine::NAME)]
    Quarantine {
        /// The file.
        file: PathBuf,
        /// The error.
        error: io::Error,
    },
}

impl OpenError {
    /// Returns whether the file is sound but not one that this program may use. It was not changed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::OtherVersion { .. } | Self::Foreign { .. })
    }

    /// Returns the damage, if the file is damaged.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        match self {
            Self::Damaged { fault, .. } => Some(fault.clone()),
            Self::Sqlite { error, .. } => is_damage(error).then(|| error.to_string()),
            Self::OtherVersion { .. } | Self::Foreign { .. } | Self::Quarantine { .. } => None,
        }
    }
}

/// Returns whether the error means that the file is damaged.
#[must_use]
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

impl SqliteDatabase {
    /// Checks the structure of the database.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] if it is damaged, [`OpenError::Sqlite`] if it cannot be read.
    pub fn check(&self) -> Result<(), OpenError> {
        let found = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        match found.map_err(|error| self.error("check", error))? {
            fault if fault == "ok" => Ok(()),
            fault => Err(self.damaged(fault)),
        }
    }

    /// Returns the error of an operation on this database.
    #[must_use]
    pub fn error(&self, what: &'static str, error: rusqlite::Error) -> OpenError {
        OpenError::Sqlite {
            what,
            file: self.file.clone(),
            error,
        }
    }

    /// Returns the error for damaged content.
    #[must_use]
    pub fn damaged(&self, fault: String) -> OpenError {
        OpenError::Damaged {
            file: self.file.clone(),
            fault,
        }
    }
}

/// Opens or creates a database in `folder`. Refuses a file that is damaged, of another version or
/// of another program, and leaves it as it is.
///
/// # Errors
/// [`OpenError`].
pub fn open(schema: &Schema, folder: &Path) -> Result<SqliteDatabase, OpenError> {
    let file = folder.join(schema.name);
    let has_log = with_suffix(&file, "-wal").exists();
    let failed = |what: &'static str| {
        let file = file.clone();
        move |error| OpenError::Sqlite { what, file, error }
    };
    let flags = flags() | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags(&file, flags).map_err(failed("open"))?;
    let keep_log =
        |keep| connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep);
    // The last connection that closes moves the log into the file, which would change a file that
    // is refused. Without a log there is nothing to move.
    keep_log(has_log).map_err(failed("set up"))?;
    connection.busy_timeout(BUSY).map_err(failed("set up"))?;
    let is_new = check_owner(&connection, schema, &file)?;
    keep_log(false).map_err(failed("set up"))?;
    if is_new {
        // Effective only before the first table; it cannot be changed in WAL mode.
        connection
            .pragma_update(None, "page_size", PAGE)
            .map_err(failed("set up"))?;
        if schema.gives_space_back {
            connection
                .pragma_update(None, "auto_vacuum", "INCREMENTAL")
                .map_err(failed("set up"))?;
        }
    }
    set_up(&connection, schema).map_err(failed("set up"))?;
    if is_new {
        let Schema {
            tables,
            application_id,
            version,
            ..
        } = schema;
        let made = connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {tables} PRAGMA application_id = {application_id}; PRAGMA user_version = {version}; COMMIT;"
        ));
        made.map_err(failed("create the tables of"))?;
    } else {
        upgrade(&connection, schema).map_err(failed("upgrade"))?;
    }
    Ok(SqliteDatabase {
        connection,
        file,
        is_new,
    })
}

/// Opens another connection to a database that is open already.
///
/// # Errors
/// [`OpenError::Sqlite`].
pub fn connect(schema: &Schema, folder: &Path) -> Result<Connection, OpenError> {
    let file = folder.join(schema.name);
    let opened = Connection::open_with_flags(&file, flags()).and_then(|connection| {
        connection.busy_timeout(BUSY)?;
        set_up(&connection, schema)?;
        Ok(connection)
    });
    opened.map_err(|error| OpenError::Sqlite {
        what: "open",
        file,
        error,
    })
}

/// Opens an existing database for reading. Nothing is written, except that SQLite may need its
/// index of a write-ahead log (`-shm`). `None` if the file is missing or has no tables yet. With
/// `immutable`, nobody else may use the file meanwhile, and it must have no write-ahead log.
///
/// # Errors
/// [`OpenError`].
pub fn open_for_reading(
    schema: &Schema,
    folder: &Path,
    immutable: bool,
) -> Result<Option<Connection>, OpenError> {
    let file = folder.join(schema.name);
    if !file.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = if immutable {
        Connection::open_with_flags(immutable_uri(&file), flags | OpenFlags::SQLITE_OPEN_URI)
    } else {
        Connection::open_with_flags(&file, flags)
    };
    let opened = opened.and_then(|connection| {
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    });
    let connection = opened.map_err(|error| OpenError::Sqlite {
        what: "open",
        file: file.clone(),
        error,
    })?;
    let is_new = check_owner(&connection, schema, &file)?;
    Ok((!is_new).then_some(connection))
}

/// Returns the name by which SQLite opens a file that nobody changes, without any lock.
fn immutable_uri(file: &Path) -> String {
    let mut uri = String::from("file:");
    for octet in file.as_os_str().as_bytes() {
        match octet {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*octet)),
            octet if octet.is_ascii_alphanumeric() => uri.push(char::from(*octet)),
            // Writing to a String cannot fail.
            octet => drop(write!(uri, "%{octet:02x}")),
        }
    }
    uri + "?immutable=1"
}

/// Opens or creates a database and reads it. A damaged one, also one in which `read` finds damage,
/// is quarantined and replaced by an empty one; `log` reports that, with the path of the
/// quarantined file and the damage. A file of another version or program is refused and left as it
/// is.
///
/// # Errors
/// [`OpenError`].
pub fn open_or_replace<T>(
    schema: &Schema,
    folder: &Path,
    read: impl Fn(&SqliteDatabase) -> Result<T, OpenError>,
    log: impl Fn(&Path, &str),
) -> Result<(SqliteDatabase, T), OpenError> {
    let opened = open(schema, folder).and_then(|database| {
        let content = read(&database)?;
        Ok((database, content))
    });
    let Some(fault) = opened.as_ref().err().and_then(OpenError::damage) else {
        return opened;
    };
    let database = replace(schema, folder, &fault, log)?;
    let content = read(&database)?;
    Ok((database, content))
}

/// Quarantines a damaged database, to which no connection may be open, and creates an empty one.
///
/// # Errors
/// [`OpenError`].
pub fn replace(
    schema: &Schema,
    folder: &Path,
    fault: &str,
    log: impl Fn(&Path, &str),
) -> Result<SqliteDatabase, OpenError> {
    let file = folder.join(schema.name);
    let aside =
        quarantine::move_database(&file).map_err(|error| OpenError::Quarantine { file, error })?;
    log(&aside, fault);
    open(schema, folder)
}

fn flags() -> OpenFlags {
    // Each connection is used by one thread at a time, so SQLite's own locks are not needed.
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn set_up(connection: &Connection, schema: &Schema) -> rusqlite::Result<()> {
    let synchronous = match schema.durability {
        Durability::PowerFailure => "FULL",
        Durability::Crash => "NORMAL",
    };
    // Otherwise a statement is compiled anew with each value that is bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "journal_size_limit", schema.log_kept)?;
    connection.pragma_update(None, "foreign_keys", true)
}

/// Makes a database of an earlier version into one of this version.
fn upgrade(connection: &Connection, schema: &Schema) -> rusqlite::Result<()> {
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0))?;
    if version == schema.version {
        return Ok(());
    }
    let Schema {
        name,
        version: supported,
        upgrade,
        ..
    } = schema;
    // A transaction that fails is rolled back when the connection is closed.
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {upgrade} PRAGMA user_version = {supported}; COMMIT;"
    ))?;
    tracing::info!(
        database = name,
        from = version,
        to = supported,
        "database upgraded"
    );
    Ok(())
}

/// Returns whether the database is empty. Refuses one of another program or version.
fn check_owner(connection: &Connection, schema: &Schema, file: &Path) -> Result<bool, OpenError> {
    let number = |pragma: &str| {
        let read =
            connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0));
        read.map_err(|error| OpenError::Sqlite {
            what: "read",
            file: file.to_owned(),
            error,
        })
    };
    let (owner, version) = (number("application_id")?, number("user_version")?);
    if (owner, version, number("schema_version")?) == (0, 0, 0) {
        return Ok(true);
    }
    let file = file.to_owned();
    if owner != schema.application_id {
        return Err(OpenError::Foreign { file });
    }
    if version != schema.version && !schema.upgrades.contains(&version) {
        let (supported, loss) = (schema.version, schema.loss);
        return Err(OpenError::OtherVersion {
            file,
            found: version,
            supported,
            loss,
        });
    }
    Ok(false)
}
