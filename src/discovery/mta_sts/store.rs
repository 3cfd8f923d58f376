//! The policies on disk: `policies.db` in the spool folder, with a row for each domain.
//!
//! The loss of the file costs protection until the policies are fetched again, but no mail. A
//! damaged file is therefore moved to `aside/`, logged and replaced by a new one. A file of another
//! version of Gatepost is sound and stays as it is. Everything here blocks. Administrators may read
//! the file with `sqlite3`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use super::policy::MtaStsPolicy;
use crate::smtp::address::Domain;

/// The SQLite application id, "GPSP", which identifies this database.
const APPLICATION_ID: i32 = 0x4750_5350;
/// The version of the table.
const VERSION: i32 = 1;
/// The time to wait while another program, such as `sqlite3`, locks the database.
const BUSY: Duration = Duration::from_secs(5);
/// The size in octets to which SQLite truncates its log.
const WAL_KEPT: u32 = 1 << 20;

const TABLE: &str = "
CREATE TABLE policy (
    domain TEXT PRIMARY KEY,    -- A-labels
    id TEXT NOT NULL,           -- of the TXT record, when the policy was fetched
    terms TEXT NOT NULL,        -- the policy's lines that mean something
    fetched INTEGER NOT NULL,   -- seconds since 1970-01-01
    used INTEGER NOT NULL       -- likewise: when mail was last sent under it
) WITHOUT ROWID;
";

/// The reason why the file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PolicyStoreError {
    /// An error of the system or of SQLite.
    #[error("cannot {what} {}: {fault}", file.display())]
    Io {
        /// The operation that failed.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// The error.
        fault: String,
    },
    /// The file is damaged, or the database of another program.
    #[error("{} is damaged: {fault}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The fault.
        fault: String,
    },
    /// The file is sound but was written by another version of Gatepost.
    #[error(
        "{} has version {version} and this gatepost knows version {VERSION}; it was left as it is: run the gatepost that \
         wrote it, or move it away with its -wal file and have the policies fetched again",
        file.display()
    )]
    OtherVersion {
        /// The file.
        file: PathBuf,
        /// The version of the file.
        version: i32,
    },
}

/// A policy from disk with its last use.
pub(super) type StoredPolicy = (Arc<MtaStsPolicy>, Timestamp);

/// A change to the file.
#[derive(Debug)]
pub(super) enum PolicyChange {
    /// A policy was fetched; with its last use.
    Put(Arc<MtaStsPolicy>, Timestamp),
    /// A policy was removed from the cache.
    Remove(Domain),
    /// A policy was used, at this time.
    Used(Domain, Timestamp),
}

/// The file. Clones share the connection.
#[derive(Debug, Clone)]
pub(super) struct PolicyStore {
    file: PathBuf,
    /// The connection; `None` while the file cannot be opened. Each write tries again.
    connection: Arc<Mutex<Option<Connection>>>,
}

impl PolicyStore {
    /// Opens or creates the file in a folder and reads it. A damaged file is moved to `aside/` and
    /// replaced by a new one. If the file cannot be opened, the store is returned nevertheless, and
    /// each write tries again.
    pub(super) fn open(folder: &Path) -> (Self, Result<Vec<StoredPolicy>, PolicyStoreError>) {
        let file = folder.join("policies.db");
        let opened = open(&file).and_then(|connection| {
            let rows = load(&connection, &file)?;
            Ok((connection, rows))
        });
        let opened = match opened {
            Err(PolicyStoreError::Damaged { fault, .. }) => {
                quarantine_and_create(&file, &fault).map(|connection| (connection, Vec::new()))
            }
            opened => opened,
        };
        let (connection, rows) = match opened {
            Ok((connection, rows)) => (Some(connection), Ok(rows)),
            Err(error) => (None, Err(error)),
        };
        (
            Self {
                file,
                connection: Arc::new(Mutex::new(connection)),
            },
            rows,
        )
    }

    /// Writes changes in one transaction.
    pub(super) fn write(&self, changes: &[PolicyChange]) -> Result<(), PolicyStoreError> {
        let mut slot = self.slot();
        let connection = match slot.take() {
            Some(connection) => slot.insert(connection),
            None => slot.insert(open(&self.file)?),
        };
        write(connection, changes).map_err(|error| sqlite_error("write", &self.file, &error))
    }

    /// Replaces a file that turned out to be damaged in use by a new one with these rows.
    pub(super) fn recreate(
        &self,
        fault: &str,
        rows: Vec<StoredPolicy>,
    ) -> Result<(), PolicyStoreError> {
        let mut slot = self.slot();
        // The database must be closed before its file is moved.
        *slot = None;
        let connection = slot.insert(quarantine_and_create(&self.file, fault)?);
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(policy, used)| PolicyChange::Put(policy, used))
            .collect();
        write(connection, &rows).map_err(|error| sqlite_error("write", &self.file, &error))
    }

    /// A panic while the lock is held leaves only a transaction that SQLite rolls back.
    fn slot(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(file: &Path) -> Result<Connection, PolicyStoreError> {
    let failed =
        |what: &'static str| move |error: rusqlite::Error| sqlite_error(what, file, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(failed("open"))?;
    connection.busy_timeout(BUSY).map_err(failed("set up"))?;
    let number = |pragma: &str| {
        let read =
            connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0));
        read.map_err(failed("read"))
    };
    let is_new = match (
        number("application_id")?,
        number("user_version")?,
        number("schema_version")?,
    ) {
        (APPLICATION_ID, VERSION, _) => false,
        (0, 0, 0) => true,
        (APPLICATION_ID, version, _) => {
            return Err(PolicyStoreError::OtherVersion {
                file: file.to_owned(),
                version,
            });
        }
        _ => {
            return Err(damaged(
                file,
                "it is the database of another program".to_owned(),
            ));
        }
    };
    let settings = |name, value: &dyn rusqlite::ToSql| connection.pragma_update(None, name, value);
    settings("journal_mode", &"WAL")
        .and_then(|()| settings("synchronous", &"FULL"))
        .and_then(|()| settings("journal_size_limit", &WAL_KEPT))
        .map_err(failed("set up"))?;
    if is_new {
        let made = connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLE} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        ));
        made.map_err(failed("create the table of"))?;
        return Ok(connection);
    }
    let check = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match check.map_err(failed("check"))?.as_str() {
        "ok" => Ok(connection),
        fault => Err(damaged(file, fault.to_owned())),
    }
}

/// Reads every row. Invalid rows are skipped; the domain's next policy overwrites them.
fn load(connection: &Connection, file: &Path) -> Result<Vec<StoredPolicy>, PolicyStoreError> {
    let read = || -> rusqlite::Result<(Vec<StoredPolicy>, usize)> {
        let mut statement =
            connection.prepare("SELECT domain, id, terms, fetched, used FROM policy")?;
        let mut rows = statement.query([])?;
        let (mut sound, mut bad) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let texts = (row.get(0), row.get(1), row.get(2));
            let read = match texts {
                (Ok(domain), Ok(id), Ok(terms)) => {
                    parse(&[domain, id, terms], row.get(3)?, row.get(4)?)
                }
                _ => None,
            };
            match read {
                Some(row) => sound.push(row),
                None => bad += 1,
            }
        }
        Ok((sound, bad))
    };
    let (rows, bad) = read().map_err(|error| sqlite_error("read", file, &error))?;
    if bad > 0 {
        tracing::warn!(file = %file.display(), rows = bad, "skipping invalid rows of the MTA-STS policy cache");
    }
    Ok(rows)
}

fn parse([domain, id, terms]: &[String; 3], fetched: i64, used: i64) -> Option<StoredPolicy> {
    let (domain, fetched) = (
        Domain::parse(domain).ok()?,
        Timestamp::from_second(fetched).ok()?,
    );
    let policy = MtaStsPolicy::from_parts(domain, id, terms, fetched)?;
    Some((Arc::new(policy), Timestamp::from_second(used).ok()?))
}

fn write(connection: &mut Connection, changes: &[PolicyChange]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for change in changes {
        match change {
            PolicyChange::Put(policy, used) => transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO policy (domain, id, terms, fetched, used) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    policy.domain.as_str(),
                    policy.id.as_str(),
                    policy.lines().join("\n"),
                    policy.fetched.as_second(),
                    used.as_second()
                ])?,
            PolicyChange::Remove(domain) => {
                transaction.prepare_cached("DELETE FROM policy WHERE domain = ?1")?.execute([domain.as_str()])?
            }
            PolicyChange::Used(domain, at) => transaction
                .prepare_cached("UPDATE policy SET used = ?2 WHERE domain = ?1")?
                .execute(params![domain.as_str(), at.as_second()])?,
        };
    }
    transaction.commit()
}

/// Moves the file to `aside/`, where it replaces an earlier one, and creates a new file.
fn quarantine_and_create(file: &Path, fault: &str) -> Result<Connection, PolicyStoreError> {
    let failed = |what: &'static str| {
        move |error: io::Error| PolicyStoreError::Io {
            what,
            file: file.to_owned(),
            fault: error.to_string(),
        }
    };
    let aside = file.with_file_name("aside");
    std::fs::create_dir_all(&aside).map_err(failed("create the folder aside/ for"))?;
    for end in ["db", "db-wal", "db-shm"] {
        let (from, to) = (
            file.with_extension(end),
            aside.join("policies").with_extension(end),
        );
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            // A log of an earlier file in `aside/` would be applied to this one, so it is deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match std::fs::remove_file(&to) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(failed("move to aside/")(error)),
                }
            }
            Err(error) => return Err(failed("move to aside/")(error)),
        }
    }
    tracing::error!(
        file = %file.display(),
        aside = %aside.join("policies.db").display(),
        fault,
        "policies.db is damaged; moved to aside/ and replaced: until policies are fetched again, mail may go without them"
    );
    open(file)
}

fn damaged(file: &Path, fault: String) -> PolicyStoreError {
    PolicyStoreError::Damaged {
        file: file.to_owned(),
        fault,
    }
}

fn sqlite_error(what: &'static str, file: &Path, error: &rusqlite::Error) -> PolicyStoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            damaged(file, error.to_string())
        }
        // A missing table or column, or a value of the wrong type: the file does not have our form.
        Some(ErrorCode::Unknown) | None => damaged(file, error.to_string()),
        Some(_) => PolicyStoreError::Io {
            what,
            file: file.to_owned(),
            fault: error.to_string(),
        },
    }
}
