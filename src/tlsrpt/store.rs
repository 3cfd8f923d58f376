//! What was counted, on disk: `tlsrpt.db` beside the spool.
//!
//! One transaction a batch: after a crash a batch is there whole or not at all, so nothing counts twice.
//! A power failure may take the last batches with it: these are statistics, not mail. Everything here
//! blocks and is called off the async threads.

mod read;
mod schema;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::civil::Date;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::counter::{Batch, Key};
use super::observation::{Failure, Found, Policy};
use crate::address::Domain;

pub(super) use read::Job;
use schema::VERSION;

/// Days whose number of domains is remembered, at most.
const DAYS_KNOWN: usize = 8;

/// Why the counts on disk cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file, what was tried and what `SQLite` said, in words.
    #[error("{0}")]
    Failed(String),
    /// The file is sound, and of another version than ours. It was not touched.
    #[error("{} has version {version} and this gatepost knows version {VERSION}", file.display())]
    OtherVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: i32,
    },
}

/// How much is kept of one day.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Domains; of others nothing is counted that day.
    pub domains: u64,
    /// Policies of one domain; sessions under others are not counted.
    pub policies: u64,
    /// Kinds of failure under one policy; the rest is summed by its result type.
    pub failures: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { domains: 50_000, policies: 32, failures: 200 }
    }
}

/// What did not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Sessions beyond the bounds.
    pub(super) beyond: u64,
    /// Sessions of days whose report is closed already.
    pub(super) late: u64,
}

/// The database.
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
    bounds: Bounds,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    /// Domains by day, so that they need not be counted for each new one.
    domains: HashMap<Date, u64>,
}

/// Where a count belongs.
enum Row {
    Policy(i64),
    Beyond,
    Late,
}

impl Store {
    /// Opens or makes the database in `folder`. One that is damaged is set aside.
    pub(super) fn open(folder: &Path, bounds: Bounds) -> Result<Self, StoreError> {
        let file = folder.join(schema::FILE);
        let connection = schema::open(&file)?;
        Ok(Self { file, bounds, inner: Mutex::new(Inner { connection, domains: HashMap::new() }) })
    }

    fn error(&self, what: &str, error: &rusqlite::Error) -> StoreError {
        StoreError::Failed(format!("could not {what} {}: {error}", self.file.display()))
    }

    fn with<T>(&self, what: &str, work: impl FnOnce(&mut Inner) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        // A panic in the middle of a transaction rolls it back: what is there is whole.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut inner).map_err(|error| self.error(what, &error))
    }

    /// Adds a batch, whole or not at all.
    pub(super) fn add(&self, batch: &Batch) -> Result<Left, StoreError> {
        let bounds = self.bounds;
        self.with("count in", |inner| {
            let mut domains = inner.domains.clone();
            let transaction = inner.connection.transaction()?;
            let mut left = Left::default();
            for (key, sessions) in batch.counts() {
                match policy_row(&transaction, key, bounds, &mut domains)? {
                    Row::Policy(row) => count(&transaction, row, key.failure.as_ref(), sessions, bounds)?,
                    Row::Beyond => left.beyond += sessions,
                    Row::Late => left.late += sessions,
                }
            }
            transaction.commit()?;
            inner.domains = domains;
            Ok(left)
        })
    }
}

/// The row of a policy, made where there is room.
fn policy_row(
    transaction: &Transaction<'_>,
    key: &Key,
    bounds: Bounds,
    domains: &mut HashMap<Date, u64>,
) -> rusqlite::Result<Row> {
    let Some(domain) = domain_row(transaction, key.day, &key.domain, bounds, domains)? else { return Ok(Row::Beyond) };
    let (domain, closed) = domain;
    if closed {
        return Ok(Row::Late);
    }
    let (strings, mx) = texts(&key.policy);
    let named = params![domain, key.policy.domain.as_str(), key.policy.found.kind(), strings, mx];
    let mut find = transaction.prepare_cached(
        "SELECT id FROM policy WHERE domain = ?1 AND policy_domain = ?2 AND type = ?3 AND strings = ?4 AND mx = ?5",
    )?;
    if let Some(row) = find.query_row(named, |row| row.get(0)).optional()? {
        return Ok(Row::Policy(row));
    }
    let mut have = transaction.prepare_cached("SELECT count(*) FROM policy WHERE domain = ?1")?;
    if have.query_row([domain], |row| row.get::<_, u64>(0))? >= bounds.policies {
        return Ok(Row::Beyond);
    }
    let mut make = transaction
        .prepare_cached("INSERT INTO policy (domain, policy_domain, type, strings, mx) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    Ok(Row::Policy(make.insert(params![domain, key.policy.domain.as_str(), key.policy.found.kind(), strings, mx])?))
}

/// The row of a domain and whether its report is closed; nothing where the day is full.
fn domain_row(
    transaction: &Transaction<'_>,
    day: Date,
    domain: &Domain,
    bounds: Bounds,
    domains: &mut HashMap<Date, u64>,
) -> rusqlite::Result<Option<(i64, bool)>> {
    let day_text = day.to_string();
    let mut find =
        transaction.prepare_cached("SELECT id, closed IS NOT NULL FROM domain WHERE day = ?1 AND name = ?2")?;
    let found = find.query_row(params![day_text, domain.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    if found.is_some() {
        return Ok(found);
    }
    let have = if let Some(have) = domains.get_mut(&day) {
        have
    } else {
        let mut count = transaction.prepare_cached("SELECT count(*) FROM domain WHERE day = ?1")?;
        let have: u64 = count.query_row([&day_text], |row| row.get(0))?;
        // Two days are open at a time at most, or the clock is wrong.
        if domains.len() > DAYS_KNOWN {
            domains.clear();
        }
        domains.entry(day).or_insert(have)
    };
    if *have >= bounds.domains {
        return Ok(None);
    }
    *have += 1;
    let mut make = transaction.prepare_cached("INSERT INTO domain (day, name) VALUES (?1, ?2)")?;
    Ok(Some((make.insert(params![day_text, domain.as_str()])?, false)))
}

/// Adds to the counts of a policy.
fn count(
    transaction: &Transaction<'_>,
    policy: i64,
    failure: Option<&Failure>,
    sessions: u64,
    bounds: Bounds,
) -> rusqlite::Result<()> {
    let column = if failure.is_some() { "failed" } else { "succeeded" };
    let mut total = transaction.prepare_cached(&format!("UPDATE policy SET {column} = {column} + ?2 WHERE id = ?1"))?;
    total.execute(params![policy, sessions])?;
    let Some(failure) = failure else { return Ok(()) };
    if add_failure(transaction, policy, failure, sessions)? {
        return Ok(());
    }
    let mut have = transaction.prepare_cached("SELECT count(*) FROM failure WHERE policy = ?1")?;
    let have: u64 = have.query_row([policy], |row| row.get(0))?;
    let rest = Failure::new(failure.result);
    let kept = if have < bounds.failures { failure } else { &rest };
    if kept == failure || !add_failure(transaction, policy, kept, sessions)? {
        let mut make = transaction.prepare_cached(
            "INSERT INTO failure (policy, result, sending_ip, mx, helo, receiving_ip, reason, information, sessions) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        make.execute(rusqlite::params_from_iter(failure_params(policy, kept, sessions).iter()))?;
    }
    Ok(())
}

/// Adds to a kind of failure that is there; says whether it is.
fn add_failure(transaction: &Transaction<'_>, policy: i64, failure: &Failure, sessions: u64) -> rusqlite::Result<bool> {
    let mut add = transaction.prepare_cached(
        "UPDATE failure SET sessions = sessions + ?9 WHERE policy = ?1 AND result = ?2 AND sending_ip = ?3 AND mx = ?4 \
         AND helo = ?5 AND receiving_ip = ?6 AND reason = ?7 AND information = ?8",
    )?;
    let values = failure_params(policy, failure, sessions);
    Ok(add.execute(rusqlite::params_from_iter(values.iter()))? > 0)
}

/// What a row of failures is found by and holds. Nothing is an empty text: two of SQL's NULLs are never
/// the same.
fn failure_params(policy: i64, failure: &Failure, sessions: u64) -> [rusqlite::types::Value; 9] {
    let text = |text: Option<String>| rusqlite::types::Value::Text(text.unwrap_or_default());
    [
        policy.into(),
        failure.result.as_str().to_owned().into(),
        text(failure.sending_ip.map(|ip| ip.to_string())),
        text(failure.mx.clone()),
        text(failure.helo.clone()),
        text(failure.receiving_ip.map(|ip| ip.to_string())),
        text(failure.reason.clone()),
        text(failure.information.clone()),
        i64::try_from(sessions).unwrap_or(i64::MAX).into(),
    ]
}

/// The strings and MX patterns of a policy, as JSON lists.
fn texts(policy: &Policy) -> (String, String) {
    let (strings, mx): (&[String], &[String]) = match &policy.found {
        Found::Tlsa(records) => (records, &[]),
        Found::Sts { lines, mx } => (lines, mx),
        Found::Nothing => (&[], &[]),
    };
    // A list of texts always has a JSON form.
    let json = |list: &[String]| serde_json::to_string(list).unwrap_or_default();
    (json(strings), json(mx))
}
