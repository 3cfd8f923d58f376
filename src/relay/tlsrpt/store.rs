//! The counts on disk: `tlsrpt.db` beside the spool.
//!
//! Each batch is one transaction: after a crash it is stored completely or not at all, so nothing
//! is counted twice. A power failure may lose the last batches, for these are statistics and not
//! mail. All methods block.

mod read;
mod schema;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::civil::Date;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::count::{CountBatch, CountKey};
use super::observation::{AppliedPolicy, ReportedPolicy, SessionFailure};
use crate::smtp::address::Domain;
use crate::storage::postgresql::DatabaseError;
use crate::storage::sqlite::{OpenError, SqliteDatabase};

pub(super) use read::ReportJob;

/// The days after which a report is dropped if it could not be sent.
pub(super) const KEEP_DAYS: i8 = 4;
/// The most days whose number of domains is cached.
const DAYS_KNOWN: usize = 8;

/// The error of reading or writing the counts on disk.
#[derive(Debug, thiserror::Error)]
pub enum CountStoreError {
    /// The file cannot be opened. One of another version or program was not changed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The counts cannot be read or written.
    #[error("cannot {what} {}: {error}", file.display())]
    Failed {
        /// The operation that failed.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// The error.
        error: rusqlite::Error,
    },
    /// The counts in the database that all nodes share cannot be read or written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A task of ours panicked or was cancelled.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

impl CountStoreError {
    /// Returns whether the file is sound but of another version or program. It was not changed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Open(error) if error.is_refusal())
    }
}

/// The limits of the counts of one day.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most domains. Sessions of further domains are not counted that day.
    pub domains: u64,
    /// The most policies of one domain. Sessions under further policies are not counted.
    pub policies: u64,
    /// The most kinds of failure under one policy. Further ones are summed by their result type.
    pub failures: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            domains: 50_000,
            policies: 32,
            failures: 200,
        }
    }
}

/// The sessions of a batch that were not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Uncounted {
    /// Sessions above the limits.
    pub(super) above_limits: u64,
    /// Sessions of days whose report is already closed.
    pub(super) late: u64,
}

/// The database.
#[derive(Debug)]
pub(super) struct CountStore {
    file: PathBuf,
    bounds: Bounds,
    state: Mutex<CountStoreState>,
}

#[derive(Debug)]
struct CountStoreState {
    connection: Connection,
    /// The number of domains by day, cached so that it need not be counted for each new domain.
    domains: HashMap<Date, u64>,
}

/// The row to which a count is added, or the reason why there is none.
enum CountTarget {
    Policy(i64),
    AboveLimits,
    Late,
}

impl CountStore {
    /// Opens or creates the database in `folder`. A damaged one is quarantined and replaced.
    pub(super) fn open(folder: &Path, bounds: Bounds) -> Result<Self, CountStoreError> {
        let SqliteDatabase {
            connection, file, ..
        } = schema::open(folder)?;
        let state = CountStoreState {
            connection,
            domains: HashMap::new(),
        };
        Ok(Self {
            file,
            bounds,
            state: Mutex::new(state),
        })
    }

    fn with<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut CountStoreState) -> rusqlite::Result<T>,
    ) -> Result<T, CountStoreError> {
        // A panic within a transaction rolls it back, so the database is consistent.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| CountStoreError::Failed {
            what,
            file: self.file.clone(),
            error,
        };
        work(&mut state).map_err(failed)
    }

    /// Adds a batch, completely or not at all.
    pub(super) fn add(&self, batch: &CountBatch) -> Result<Uncounted, CountStoreError> {
        let bounds = self.bounds;
        self.with("count in", |state| {
            let mut domains = state.domains.clone();
            let transaction = state.connection.transaction()?;
            let mut uncounted = Uncounted::default();
            for (key, sessions) in batch.counts() {
                match policy_row(&transaction, key, bounds, &mut domains)? {
                    CountTarget::Policy(row) => {
                        add_sessions(&transaction, row, key.failure.as_ref(), sessions, bounds)?;
                    }
                    CountTarget::AboveLimits => uncounted.above_limits += sessions,
                    CountTarget::Late => uncounted.late += sessions,
                }
            }
            transaction.commit()?;
            state.domains = domains;
            Ok(uncounted)
        })
    }
}

/// Returns the row of a policy, and creates it if the limits allow.
fn policy_row(
    transaction: &Transaction<'_>,
    key: &CountKey,
    bounds: Bounds,
    domains: &mut HashMap<Date, u64>,
) -> rusqlite::Result<CountTarget> {
    let Some(domain) = domain_row(transaction, key.day, &key.domain, bounds, domains)? else {
        return Ok(CountTarget::AboveLimits);
    };
    let (domain, closed) = domain;
    if closed {
        return Ok(CountTarget::Late);
    }
    let (strings, mx) = policy_texts(&key.policy);
    let key_values = params![
        domain,
        key.policy.domain.as_str(),
        key.policy.found.kind(),
        strings,
        mx
    ];
    let mut find = transaction.prepare_cached(
        "SELECT id FROM policy WHERE domain = ?1 AND policy_domain = ?2 AND type = ?3 AND strings = ?4 AND mx = ?5",
    )?;
    if let Some(row) = find.query_row(key_values, |row| row.get(0)).optional()? {
        return Ok(CountTarget::Policy(row));
    }
    let mut existing =
        transaction.prepare_cached("SELECT count(*) FROM policy WHERE domain = ?1")?;
    if existing.query_row([domain], |row| row.get::<_, u64>(0))? >= bounds.policies {
        return Ok(CountTarget::AboveLimits);
    }
    let mut make = transaction.prepare_cached(
        "INSERT INTO policy (domain, policy_domain, type, strings, mx) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    Ok(CountTarget::Policy(make.insert(params![
        domain,
        key.policy.domain.as_str(),
        key.policy.found.kind(),
        strings,
        mx
    ])?))
}

/// Returns the row of a domain and whether its report is closed, or `None` if the day has reached
/// its limit of domains.
fn domain_row(
    transaction: &Transaction<'_>,
    day: Date,
    domain: &Domain,
    bounds: Bounds,
    domains: &mut HashMap<Date, u64>,
) -> rusqlite::Result<Option<(i64, bool)>> {
    let day_text = day.to_string();
    let mut find = transaction
        .prepare_cached("SELECT id, closed IS NOT NULL FROM domain WHERE day = ?1 AND name = ?2")?;
    let found = find
        .query_row(params![day_text, domain.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if found.is_some() {
        return Ok(found);
    }
    let existing = if let Some(existing) = domains.get_mut(&day) {
        existing
    } else {
        let mut count = transaction.prepare_cached("SELECT count(*) FROM domain WHERE day = ?1")?;
        let existing: u64 = count.query_row([&day_text], |row| row.get(0))?;
        // At most two days are open at a time, unless the clock is wrong.
        if domains.len() > DAYS_KNOWN {
            domains.clear();
        }
        domains.entry(day).or_insert(existing)
    };
    if *existing >= bounds.domains {
        return Ok(None);
    }
    *existing += 1;
    let mut make = transaction.prepare_cached("INSERT INTO domain (day, name) VALUES (?1, ?2)")?;
    Ok(Some((
        make.insert(params![day_text, domain.as_str()])?,
        false,
    )))
}

/// Adds sessions to the counts of a policy.
fn add_sessions(
    transaction: &Transaction<'_>,
    policy: i64,
    failure: Option<&SessionFailure>,
    sessions: u64,
    bounds: Bounds,
) -> rusqlite::Result<()> {
    let column = if failure.is_some() {
        "failed"
    } else {
        "succeeded"
    };
    let mut total = transaction.prepare_cached(&format!(
        "UPDATE policy SET {column} = {column} + ?2 WHERE id = ?1"
    ))?;
    total.execute(params![policy, sessions])?;
    let Some(failure) = failure else {
        return Ok(());
    };
    if add_failure(transaction, policy, failure, sessions)? {
        return Ok(());
    }
    let mut existing =
        transaction.prepare_cached("SELECT count(*) FROM failure WHERE policy = ?1")?;
    let existing: u64 = existing.query_row([policy], |row| row.get(0))?;
    let unspecific = SessionFailure::new(failure.result);
    let stored = if existing < bounds.failures {
        failure
    } else {
        &unspecific
    };
    if stored == failure || !add_failure(transaction, policy, stored, sessions)? {
        let mut make = transaction.prepare_cached(
            "INSERT INTO failure (policy, result, sending_ip, mx, helo, receiving_ip, reason, information, sessions) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        make.execute(rusqlite::params_from_iter(
            failure_params(policy, stored, sessions).iter(),
        ))?;
    }
    Ok(())
}

/// Adds to an existing kind of failure. Returns whether it exists.
fn add_failure(
    transaction: &Transaction<'_>,
    policy: i64,
    failure: &SessionFailure,
    sessions: u64,
) -> rusqlite::Result<bool> {
    let mut add = transaction.prepare_cached(
        "UPDATE failure SET sessions = sessions + ?9 WHERE policy = ?1 AND result = ?2 AND sending_ip = ?3 AND mx = ?4 \
         AND helo = ?5 AND receiving_ip = ?6 AND reason = ?7 AND information = ?8",
    )?;
    let values = failure_params(policy, failure, sessions);
    Ok(add.execute(rusqlite::params_from_iter(values.iter()))? > 0)
}

/// Returns the values of a row of failures. A missing value is an empty text, because two NULLs of
/// SQL are never equal.
fn failure_params(
    policy: i64,
    failure: &SessionFailure,
    sessions: u64,
) -> [rusqlite::types::Value; 9] {
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

/// Returns the strings and MX patterns of a policy as JSON lists.
pub(super) fn policy_texts(policy: &AppliedPolicy) -> (String, String) {
    let (strings, mx): (&[String], &[String]) = match &policy.found {
        ReportedPolicy::Tlsa(records) => (records, &[]),
        ReportedPolicy::Sts { lines, mx } => (lines, mx),
        ReportedPolicy::Nothing => (&[], &[]),
    };
    // A list of texts can always be written as JSON.
    let json = |list: &[String]| serde_json::to_string(list).unwrap_or_default();
    (json(strings), json(mx))
}
