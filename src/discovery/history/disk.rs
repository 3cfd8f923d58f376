//! `history.db` in the spool folder. Administrators may read it with `sqlite3`.
//!
//! The memory is an aid: a damaged database is quarantined and replaced by an empty one. A database
//! of a newer version of Gatepost is sound; it stays as it is and the daemon does not start.
//! Everything here blocks, on a thread of its own or before the daemon starts.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Row as Columns, params};

use super::error::HistoryError;
use super::level::TlsLevel;
use super::memory::{HostRecord, LevelPeriod, WriteBatch, timestamp};
use super::remembered::ForgetEntry;
use crate::smtp::address::Host;
use crate::storage::sqlite::{self, Durability, OpenError, Schema, SqliteDatabase};

/// The form of the database.
static SCHEMA: Schema = Schema {
    name: "history.db",
    // "GPSH".
    application_id: 0x4750_5348,
    version: 1,
    upgrades: &[],
    upgrade: Cow::Borrowed(""),
    tables: Cow::Borrowed(TABLES),
    durability: Durability::PowerFailure,
    log_kept: 4 << 20,
    gives_space_back: false,
    loss: "what it remembers of each domain",
};

const TABLES: &str = "
CREATE TABLE host (
    -- Times are seconds since 1970-01-01. To remove something use gatepost history forget.
    domain TEXT NOT NULL,           -- the recipient domain
    host TEXT NOT NULL,             -- one of the hosts that take its mail
    seen INTEGER NOT NULL,          -- when it was last reached
    level TEXT NOT NULL,            -- plain, tls, trusted, verified or dane: what it showed then
    issuer TEXT,                    -- of its last certificate
    issuer_since INTEGER,
    plain_first INTEGER, plain_last INTEGER,        -- from when to when it showed each level
    tls_first INTEGER, tls_last INTEGER,
    trusted_first INTEGER, trusted_last INTEGER,
    verified_first INTEGER, verified_last INTEGER,
    dane_first INTEGER, dane_last INTEGER,
    PRIMARY KEY (domain, host)
) WITHOUT ROWID;
CREATE TABLE forgotten (
    at INTEGER NOT NULL,
    domain TEXT NOT NULL,
    hosts INTEGER NOT NULL,
    reason TEXT NOT NULL,
    who TEXT NOT NULL
);
";

/// The content of the database.
#[derive(Debug, Default)]
pub(super) struct StoredHistory {
    pub(super) rows: Vec<(Host, HostRecord)>,
    pub(super) forgotten: Vec<ForgetEntry>,
}

/// The database.
#[derive(Debug)]
pub(super) struct Disk {
    database: SqliteDatabase,
}

impl Disk {
    /// Opens or creates the database in `folder` and reads it. A damaged database is quarantined
    /// and replaced. A database of another version or program is an error and stays as it is.
    pub(super) fn open(folder: &Path) -> Result<(Self, StoredHistory), HistoryError> {
        let (database, stored) = sqlite::open_or_replace(&SCHEMA, folder, read, log_replaced)
            .map_err(|error| HistoryError::of(folder, error))?;
        Ok((Self { database }, stored))
    }

    /// Quarantines the database and creates an empty one.
    pub(super) fn recreate(self, fault: &str) -> Result<Self, HistoryError> {
        let file = self.database.file.clone();
        drop(self);
        let folder = file.parent().unwrap_or(Path::new("."));
        let database = sqlite::replace(&SCHEMA, folder, fault, log_replaced)
            .map_err(|error| HistoryError::of(folder, error))?;
        Ok(Self { database })
    }

    /// Writes a batch durably in one transaction.
    pub(super) fn write(&mut self, batch: &WriteBatch) -> rusqlite::Result<()> {
        let transaction = self.database.connection.transaction()?;
        if batch.all {
            transaction.execute("DELETE FROM host", [])?;
        }
        for (domain, host, row) in &batch.rows {
            if let Some(row) = row {
                put(&transaction, domain, row)?;
            } else {
                let mut delete = transaction
                    .prepare_cached("DELETE FROM host WHERE domain = ?1 AND host = ?2")?;
                delete.execute([domain.to_string(), host.to_string()])?;
            }
        }
        if let Some(forgotten) = &batch.forgotten {
            transaction.execute("DELETE FROM forgotten", [])?;
            for one in forgotten {
                let sql = "INSERT INTO forgotten (at, domain, hosts, reason, who) VALUES (?1, ?2, ?3, ?4, ?5)";
                let hosts = i64::try_from(one.hosts).unwrap_or(i64::MAX);
                let domain = one.domain.to_string();
                transaction.execute(
                    sql,
                    params![one.at.as_second(), domain, hosts, one.reason, one.who],
                )?;
            }
        }
        transaction.commit()
    }

    pub(super) fn file(&self) -> &Path {
        &self.database.file
    }
}

fn put(connection: &Connection, domain: &Host, row: &HostRecord) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO host VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?;
    let (issuer, since) = row
        .issuer
        .as_ref()
        .map(|(issuer, since)| (&**issuer, *since))
        .unzip();
    let [plain, tls, trusted, verified, dane] = row
        .periods
        .map(|period| (period.map(|one| one.first), period.map(|one| one.last)));
    statement.execute(params![
        domain.to_string(),
        row.host.to_string(),
        row.seen,
        row.level.as_str(),
        issuer,
        since,
        plain.0,
        plain.1,
        tls.0,
        tls.1,
        trusted.0,
        trusted.1,
        verified.0,
        verified.1,
        dane.0,
        dane.1,
    ])?;
    Ok(())
}

fn read(database: &SqliteDatabase) -> Result<StoredHistory, OpenError> {
    if database.is_new {
        return Ok(StoredHistory::default());
    }
    database.check()?;
    Ok(StoredHistory {
        rows: rows(database)?,
        forgotten: forgotten(database)?,
    })
}

fn rows(database: &SqliteDatabase) -> Result<Vec<(Host, HostRecord)>, OpenError> {
    let failed = |error| database.error("read", error);
    let mut statement = database.connection.prepare(
        "SELECT domain, host, seen, level, issuer, issuer_since, plain_first, plain_last, tls_first, tls_last, \
         trusted_first, trusted_last, verified_first, verified_last, dane_first, dane_last FROM host",
    ).map_err(failed)?;
    let mut found = Vec::new();
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(columns) = rows.next().map_err(failed)? {
        let row = row(columns)
            .map_err(|error| database.damaged(format!("a row cannot be read: {error}")))?;
        found.push(row);
    }
    Ok(found)
}

fn row(columns: &Columns<'_>) -> Result<(Host, HostRecord), Box<dyn std::error::Error>> {
    let domain = Host::parse(&columns.get::<_, String>("domain")?)?;
    let host = Host::parse(&columns.get::<_, String>("host")?)?;
    let name: String = columns.get("level")?;
    let level = TlsLevel::parse(&name).ok_or_else(|| format!("\"{name}\" is not a level"))?;
    let mut periods = [None; 5];
    for (place, level) in periods.iter_mut().zip(TlsLevel::ALL) {
        let first: Option<i64> = columns.get(&*format!("{}_first", level.as_str()))?;
        let last: Option<i64> = columns.get(&*format!("{}_last", level.as_str()))?;
        *place = first
            .zip(last)
            .map(|(first, last)| LevelPeriod { first, last });
    }
    let (issuer, since): (Option<String>, Option<i64>) =
        (columns.get("issuer")?, columns.get("issuer_since")?);
    let issuer = issuer
        .zip(since)
        .map(|(issuer, since)| (Arc::from(issuer), since));
    let seen = columns.get("seen")?;
    Ok((
        domain,
        HostRecord {
            host,
            periods,
            seen,
            level,
            issuer,
            written: seen,
            expired_rounds: 0,
        },
    ))
}

fn forgotten(database: &SqliteDatabase) -> Result<Vec<ForgetEntry>, OpenError> {
    let failed = |error| database.error("read", error);
    let mut statement = database
        .connection
        .prepare("SELECT at, domain, hosts, reason, who FROM forgotten ORDER BY at, rowid")
        .map_err(failed)?;
    let mut found = Vec::new();
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(columns) = rows.next().map_err(failed)? {
        let entry = forget_entry(columns)
            .map_err(|error| database.damaged(format!("a row cannot be read: {error}")))?;
        found.push(entry);
    }
    Ok(found)
}

fn forget_entry(columns: &Columns<'_>) -> Result<ForgetEntry, Box<dyn std::error::Error>> {
    Ok(ForgetEntry {
        at: timestamp(columns.get(0)?),
        domain: Host::parse(&columns.get::<_, String>(1)?)?,
        hosts: usize::try_from(columns.get::<_, i64>(2)?).unwrap_or(0),
        reason: columns.get(3)?,
        who: columns.get(4)?,
    })
}

/// Logs the loss of a damaged database, which is now at `aside`.
fn log_replaced(aside: &Path, fault: &str) {
    tracing::error!(
        file = %aside.display(), fault,
        "history.db is damaged; moved to aside/ and replaced: until domains are reached again, a loss of TLS goes \
         unnoticed. sqlite3 FILE .recover may restore it; otherwise delete it"
    );
}
