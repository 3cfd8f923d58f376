//! `history.db` in the spool folder. Administrators may read it with `sqlite3`.
//!
//! The memory is an aid: a damaged database is moved to `aside/` and replaced by an empty one. A
//! database of a newer version of Gatepost is sound; it stays as it is and the daemon does not
//! start. Everything here blocks, on a thread of its own or before the daemon starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row as Columns, params};

use super::memory::{HostRecord, Period, WriteBatch, timestamp};
use super::{ForgetEntry, HistoryError, TlsLevel};
use crate::smtp::address::Host;

/// The SQLite application id, "GPSH", which identifies this database.
const APPLICATION_ID: i32 = 0x4750_5348;
/// The version of the tables.
const VERSION: i32 = 1;
/// The time to wait while another program, such as `sqlite3`, locks the database.
const BUSY: Duration = Duration::from_secs(5);
/// The size in octets to which SQLite truncates its log.
const WAL_KEPT: u32 = 4 << 20;

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
    connection: Connection,
    file: PathBuf,
}

impl Disk {
    /// Opens or creates the database in `folder` and reads it. A damaged database is moved to
    /// `aside/` and replaced. A database of another version is an error and stays as it is.
    pub(super) fn open(folder: &Path, now: i64) -> Result<(Self, StoredHistory), HistoryError> {
        let file = folder.join("history.db");
        match read(&file) {
            Ok((connection, stored)) => return Ok((Self { connection, file }, stored)),
            Err(Unreadable::Damaged(fault)) => quarantine(&file, now, &fault)?,
            Err(unreadable) => return Err(unreadable.error("open", &file)),
        }
        match read(&file) {
            Ok((connection, stored)) => Ok((Self { connection, file }, stored)),
            Err(unreadable) => Err(unreadable.error("create", &file)),
        }
    }

    /// Moves the database to `aside/` and creates an empty one.
    pub(super) fn recreate(self, now: i64, fault: &str) -> Result<Self, HistoryError> {
        let Self { connection, file } = self;
        drop(connection);
        quarantine(&file, now, fault)?;
        let folder = file.parent().unwrap_or(Path::new("."));
        Self::open(folder, now).map(|(disk, _)| disk)
    }

    /// Writes a batch durably in one transaction.
    pub(super) fn write(&mut self, batch: &WriteBatch) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
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
        &self.file
    }
}

/// Returns true if the error means that the file is damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
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

/// The reason why a database cannot be read.
enum Unreadable {
    /// The file is damaged and can be replaced.
    Damaged(String),
    /// The file is sound and has this other version.
    OtherVersion(i32),
    /// The file cannot be accessed, and replacing it would not help.
    Failed(rusqlite::Error),
}

impl Unreadable {
    fn error(self, what: &str, file: &Path) -> HistoryError {
        match self {
            Self::Failed(error) => HistoryError::new(what, file, &error),
            Self::Damaged(fault) => {
                HistoryError(format!("cannot {what} {}: {fault}", file.display()))
            }
            Self::OtherVersion(version) => HistoryError(format!(
                "{} has version {version} and this gatepost knows version {VERSION}; it was left as it is: run the \
                 gatepost that wrote it, or move it away with its -wal file and lose what it remembers of each domain",
                file.display()
            )),
        }
    }
}

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) {
            Self::Damaged(error.to_string())
        } else {
            Self::Failed(error)
        }
    }
}

fn read(file: &Path) -> Result<(Connection, StoredHistory), Unreadable> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY)?;
    let number = |pragma: &str| {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0))
    };
    let (owner, version, changes) = (
        number("application_id")?,
        number("user_version")?,
        number("schema_version")?,
    );
    let is_new = match (owner, version) {
        (APPLICATION_ID, VERSION) => false,
        (0, 0) if changes == 0 => true,
        (APPLICATION_ID, other) => return Err(Unreadable::OtherVersion(other)),
        _ => {
            return Err(Unreadable::Damaged(
                "it is the database of another program".to_owned(),
            ));
        }
    };
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
    if is_new {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
        return Ok((connection, StoredHistory::default()));
    }
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(Unreadable::Damaged(sound));
    }
    let stored = StoredHistory {
        rows: rows(&connection)?,
        forgotten: forgotten(&connection)?,
    };
    Ok((connection, stored))
}

fn rows(connection: &Connection) -> Result<Vec<(Host, HostRecord)>, Unreadable> {
    let mut statement = connection.prepare(
        "SELECT domain, host, seen, level, issuer, issuer_since, plain_first, plain_last, tls_first, tls_last, \
         trusted_first, trusted_last, verified_first, verified_last, dane_first, dane_last FROM host",
    )?;
    let mut found = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(columns) = rows.next()? {
        let row = row(columns)
            .map_err(|error| Unreadable::Damaged(format!("a row cannot be read: {error}")))?;
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
        *place = first.zip(last).map(|(first, last)| Period { first, last });
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

fn forgotten(connection: &Connection) -> Result<Vec<ForgetEntry>, Unreadable> {
    let mut statement = connection
        .prepare("SELECT at, domain, hosts, reason, who FROM forgotten ORDER BY at, rowid")?;
    let mut found = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(columns) = rows.next()? {
        let domain = Host::parse(&columns.get::<_, String>(1)?)
            .map_err(|error| Unreadable::Damaged(format!("a row cannot be read: {error}")))?;
        let hosts = usize::try_from(columns.get::<_, i64>(2)?).unwrap_or(0);
        let (reason, who) = (columns.get(3)?, columns.get(4)?);
        found.push(ForgetEntry {
            domain,
            at: timestamp(columns.get(0)?),
            reason,
            who,
            hosts,
        });
    }
    Ok(found)
}

/// Moves a database with its log to `aside/`, and logs the loss.
fn quarantine(file: &Path, now: i64, fault: &str) -> Result<(), HistoryError> {
    let folder = file.parent().unwrap_or(Path::new(".")).join("aside");
    let failed = |what: &str, error: &std::io::Error| HistoryError::new(what, file, error);
    std::fs::create_dir_all(&folder)
        .map_err(|error| failed("create the folder aside/ for", &error))?;
    let aside = folder.join(format!("history-{now}.db"));
    std::fs::rename(file, &aside).map_err(|error| failed("move to aside/", &error))?;
    for (part, keep) in [("-wal", true), ("-journal", true), ("-shm", false)] {
        let beside = |path: &Path| PathBuf::from(format!("{}{part}", path.display()));
        // Usually the file does not exist. If it stayed, SQLite would apply it to the new database.
        let moved = if keep {
            std::fs::rename(beside(file), beside(&aside))
        } else {
            std::fs::remove_file(beside(file))
        };
        match moved {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("move to aside/", &error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    tracing::error!(
        file = %aside.display(), fault,
        "history.db is damaged; moved to aside/ and replaced: until domains are reached again, a loss of TLS goes \
         unnoticed. sqlite3 FILE .recover may restore it; otherwise delete it"
    );
    Ok(())
}
