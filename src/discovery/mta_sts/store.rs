//! The policies on disk: `policies.db` in the spool's folder, a row for each domain.
//!
//! It is a cache whose loss costs protection until the policies are fetched again, not mail: so a file
//! that is damaged is set aside, told, and begun quarantine_and_create. One that another version of Gatepost wrote is sound, and
//! is left alone. Everything here blocks. An administrator may look inside with `sqlite3`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use super::policy::StsPolicy;
use crate::address::Domain;

/// "GPSP": tells our databases from others.
const APPLICATION_ID: i32 = 0x4750_5350;
/// The form of the table below.
const VERSION: i32 = 1;
/// How long to wait for somebody who works on the database with `sqlite3`.
const BUSY: Duration = Duration::from_secs(5);
/// Octets of the log that are kept for the next use.
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

/// Why the policies on disk cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PolicyStoreError {
    /// The disk or the system refuses.
    #[error("cannot {what} {}: {fault}", file.display())]
    Io {
        /// What was wanted.
        what: &'static str,
        /// Of which file.
        file: PathBuf,
        /// What the system or the database said.
        fault: String,
    },
    /// The file is no database of ours, or a damaged one.
    #[error("{} is not a sound cache of policies: {fault}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The file is sound, and of another version than ours.
    #[error(
        "{} has version {version} and this gatepost knows version {VERSION}; it was left as it is: run the gatepost that \
         wrote it, or move it away with its -wal file and have the policies fetched again",
        file.display()
    )]
    OtherVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: i32,
    },
}

/// A policy from disk, and when it was last used.
pub(super) type StoredPolicy = (Arc<StsPolicy>, Timestamp);

/// A change to the file.
#[derive(Debug)]
pub(super) enum PolicyChange {
    /// A policy that was fetched.
    Put(Arc<StsPolicy>, Timestamp),
    /// A policy that no longer counts.
    Remove(Domain),
    /// A policy was used.
    Used(Domain, Timestamp),
}

/// The file. A clone is the same file.
#[derive(Debug, Clone)]
pub(super) struct PolicyStore {
    file: PathBuf,
    /// `None` while the file cannot be opened; each write tries again.
    connection: Arc<Mutex<Option<Connection>>>,
}

impl PolicyStore {
    /// Opens the file in a folder, or makes it. Where it is damaged it is set aside, and begun quarantine_and_create. Where it
    /// cannot be opened, the store is there all the same: mail does not wait for a cache.
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
        (Self { file, connection: Arc::new(Mutex::new(connection)) }, rows)
    }

    /// Writes changes, all or none.
    pub(super) fn write(&self, changes: &[PolicyChange]) -> Result<(), PolicyStoreError> {
        let mut slot = self.slot();
        let connection = match slot.take() {
            Some(connection) => slot.insert(connection),
            None => slot.insert(open(&self.file)?),
        };
        write(connection, changes).map_err(|error| sqlite_error("write", &self.file, &error))
    }

    /// Begins quarantine_and_create with these rows, for the file turned out to be damaged while it was in use.
    pub(super) fn recreate(&self, fault: &str, rows: Vec<StoredPolicy>) -> Result<(), PolicyStoreError> {
        let mut slot = self.slot();
        // Closed before its file is moved.
        *slot = None;
        let connection = slot.insert(quarantine_and_create(&self.file, fault)?);
        let rows: Vec<_> = rows.into_iter().map(|(policy, used)| PolicyChange::Put(policy, used)).collect();
        write(connection, &rows).map_err(|error| sqlite_error("write", &self.file, &error))
    }

    /// A panic under this lock leaves a transaction that is rolled back.
    fn slot(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(file: &Path) -> Result<Connection, PolicyStoreError> {
    let failed = |what: &'static str| move |error: rusqlite::Error| sqlite_error(what, file, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(failed("open"))?;
    connection.busy_timeout(BUSY).map_err(failed("set up"))?;
    let number = |pragma: &str| {
        let read = connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0));
        read.map_err(failed("read"))
    };
    let is_new = match (number("application_id")?, number("user_version")?, number("schema_version")?) {
        (APPLICATION_ID, VERSION, _) => false,
        (0, 0, 0) => true,
        (APPLICATION_ID, version, _) => {
            return Err(PolicyStoreError::OtherVersion { file: file.to_owned(), version });
        }
        _ => return Err(damaged(file, "it is the database of another program".to_owned())),
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
        made.map_err(failed("make the table of"))?;
        return Ok(connection);
    }
    let check = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match check.map_err(failed("check"))?.as_str() {
        "ok" => Ok(connection),
        fault => Err(damaged(file, fault.to_owned())),
    }
}

/// Every row. One that makes no sense is left out, and goes when the domain's next policy comes.
fn load(connection: &Connection, file: &Path) -> Result<Vec<StoredPolicy>, PolicyStoreError> {
    let read = || -> rusqlite::Result<(Vec<StoredPolicy>, usize)> {
        let mut statement = connection.prepare("SELECT domain, id, terms, fetched, used FROM policy")?;
        let mut rows = statement.query([])?;
        let (mut sound, mut bad) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let texts = (row.get(0), row.get(1), row.get(2));
            let read = match texts {
                (Ok(domain), Ok(id), Ok(terms)) => parse(&[domain, id, terms], row.get(3)?, row.get(4)?),
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
        tracing::warn!(file = %file.display(), rows = bad, "rows of the policy cache make no sense and were left out");
    }
    Ok(rows)
}

fn parse([domain, id, terms]: &[String; 3], fetched: i64, used: i64) -> Option<StoredPolicy> {
    let (domain, fetched) = (Domain::parse(domain).ok()?, Timestamp::from_second(fetched).ok()?);
    let policy = StsPolicy::from_parts(domain, id, terms, fetched)?;
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

/// Puts the file into the folder `aside`, where the last one that was damaged stays, and makes a new one.
fn quarantine_and_create(file: &Path, fault: &str) -> Result<Connection, PolicyStoreError> {
    let failed = |what: &'static str| {
        move |error: io::Error| PolicyStoreError::Io { what, file: file.to_owned(), fault: error.to_string() }
    };
    let aside = file.with_file_name("aside");
    std::fs::create_dir_all(&aside).map_err(failed("make a folder to set aside"))?;
    for end in ["db", "db-wal", "db-shm"] {
        let (from, to) = (file.with_extension(end), aside.join("policies").with_extension(end));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            // A log that belongs to an older one that was set aside would be taken for this one's.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match std::fs::remove_file(&to) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("set aside")(error)),
            },
            Err(error) => return Err(failed("set aside")(error)),
        }
    }
    tracing::error!(
        file = %file.display(),
        aside = %aside.join("policies.db").display(),
        fault,
        "damaged cache of MTA-STS policies set aside and begun quarantine_and_create; until the policies are fetched again, mail may go without them"
    );
    open(file)
}

fn damaged(file: &Path, fault: String) -> PolicyStoreError {
    PolicyStoreError::Damaged { file: file.to_owned(), fault }
}

fn sqlite_error(what: &'static str, file: &Path, error: &rusqlite::Error) -> PolicyStoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(file, error.to_string()),
        // A table or column that is not there, or a number that is none: the form is not ours.
        Some(ErrorCode::Unknown) | None => damaged(file, error.to_string()),
        Some(_) => PolicyStoreError::Io { what, file: file.to_owned(), fault: error.to_string() },
    }
}
