//! The policies on disk: `policies.db` in the spool folder, with a row for each domain.
//!
//! The loss of the file costs protection until the policies are fetched again, but no mail. A
//! damaged file is therefore quarantined, logged and replaced by a new one. A file of another
//! version of Gatepost is sound and stays as it is. Everything here blocks. Administrators may read
//! the file with `sqlite3`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, params};

use super::policy::MtaStsPolicy;
use crate::smtp::address::Domain;
use crate::storage::sqlite::{self, Durability, OpenError, Schema, SqliteDatabase};

/// The form of the database.
static SCHEMA: Schema = Schema {
    name: "policies.db",
    // "GPSP".
    application_id: 0x4750_5350,
    version: 1,
    upgrades: &[],
    upgrade: Cow::Borrowed(""),
    tables: Cow::Borrowed(TABLE),
    durability: Durability::PowerFailure,
    log_kept: 1 << 20,
    gives_space_back: false,
    loss: "the cached policies, which are fetched again",
};

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
    /// The file cannot be opened or read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Changes cannot be written.
    #[error("cannot write {}: {error}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The error.
        error: rusqlite::Error,
    },
}

impl PolicyStoreError {
    /// Returns whether the file is sound but of another version or program. It was not changed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Open(error) if error.is_refusal())
    }

    /// Returns the damage, if the file is damaged or does not have our form.
    pub(super) fn damage(&self) -> Option<String> {
        match self {
            Self::Open(error) => error.damage(),
            Self::Write { error, .. } => is_damage(error).then(|| error.to_string()),
        }
    }
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
    folder: PathBuf,
    state: Arc<Mutex<PolicyStoreState>>,
}

#[derive(Debug, Default)]
struct PolicyStoreState {
    /// The database; `None` while the file cannot be opened. Each write tries again.
    database: Option<SqliteDatabase>,
    /// True once a file that was damaged in use was replaced. It happens once in a run, since a
    /// failing disk would fill the quarantine.
    has_recreated: bool,
}

impl PolicyStore {
    /// Opens or creates the file in a folder and reads it. A damaged file is quarantined and
    /// replaced by a new one. If the file cannot be opened, the store is returned nevertheless, and
    /// each write tries again.
    pub(super) fn open(folder: &Path) -> (Self, Result<Vec<StoredPolicy>, PolicyStoreError>) {
        let opened = sqlite::open_or_replace(&SCHEMA, folder, read, log_replaced);
        let (database, rows) = match opened {
            Ok((database, rows)) => (Some(database), Ok(rows)),
            Err(error) => (None, Err(error.into())),
        };
        let state = PolicyStoreState {
            database,
            has_recreated: false,
        };
        (
            Self {
                folder: folder.to_owned(),
                state: Arc::new(Mutex::new(state)),
            },
            rows,
        )
    }

    /// Writes changes in one transaction.
    pub(super) fn write(&self, changes: &[PolicyChange]) -> Result<(), PolicyStoreError> {
        let mut state = self.state();
        let database = if let Some(database) = state.database.take() {
            state.database.insert(database)
        } else {
            let opened = sqlite::open(&SCHEMA, &self.folder)?;
            opened.check()?;
            state.database.insert(opened)
        };
        write_to(database, changes)
    }

    /// Replaces a file that turned out to be damaged in use by a new one with these rows.
    pub(super) fn recreate(
        &self,
        error: PolicyStoreError,
        fault: &str,
        rows: Vec<StoredPolicy>,
    ) -> Result<(), PolicyStoreError> {
        let mut state = self.state();
        if std::mem::replace(&mut state.has_recreated, true) {
            return Err(error);
        }
        // The database must be closed before its file is moved.
        state.database = None;
        let replaced = sqlite::replace(&SCHEMA, &self.folder, fault, log_replaced)?;
        let database = state.database.insert(replaced);
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(policy, used)| PolicyChange::Put(policy, used))
            .collect();
        write_to(database, &rows)
    }

    /// Locks the state. A poisoned lock is ignored: a panic leaves only a transaction that SQLite
    /// rolls back.
    fn state(&self) -> MutexGuard<'_, PolicyStoreState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_to(
    database: &mut SqliteDatabase,
    changes: &[PolicyChange],
) -> Result<(), PolicyStoreError> {
    let written = write(&mut database.connection, changes);
    written.map_err(|error| PolicyStoreError::Write {
        file: database.file.clone(),
        error,
    })
}

fn read(database: &SqliteDatabase) -> Result<Vec<StoredPolicy>, OpenError> {
    if database.is_new {
        return Ok(Vec::new());
    }
    database.check()?;
    load(&database.connection, &database.file).map_err(|error| {
        if is_damage(&error) {
            database.damaged(error.to_string())
        } else {
            database.error("read", error)
        }
    })
}

/// Reads every row. Invalid rows are skipped; the domain's next policy overwrites them.
fn load(connection: &Connection, file: &Path) -> rusqlite::Result<Vec<StoredPolicy>> {
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
    let (rows, bad) = read()?;
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

/// Logs the loss of a damaged file, which is now at `aside`.
fn log_replaced(aside: &Path, fault: &str) {
    let file = aside
        .parent()
        .and_then(Path::parent)
        .unwrap_or(aside)
        .join(SCHEMA.name);
    tracing::error!(
        file = %file.display(),
        aside = %aside.display(),
        fault,
        "policies.db is damaged; moved to aside/ and replaced: until policies are fetched again, mail may go without them"
    );
}

fn is_damage(error: &rusqlite::Error) -> bool {
    // Unknown: a missing table or column. None: a value of the wrong type. The file does not have
    // our form.
    sqlite::is_damage(error) || matches!(error.sqlite_error_code(), Some(ErrorCode::Unknown) | None)
}
