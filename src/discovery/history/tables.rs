//! The memory in the database that all nodes share, and its statements.

use std::fmt::Write as _;
use std::sync::Arc;

use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::disk::StoredHistory;
use super::level::TlsLevel;
use super::memory::{
    FORGOTTEN_MAX, HostRecord, LevelPeriod, MEMORY_PERIOD, SharedChanges, WriteBatch, timestamp,
};
use super::remembered::ForgetEntry;
use crate::smtp::address::Host;
use crate::storage::postgresql::{Database, DatabaseError, last_change, next_change};

/// The name of this store among those with changes.
pub(super) const STORE: &str = "history";
/// The most rows of one statement.
const ROWS_AT_ONCE: usize = 5_000;

const READ_FORGOTTEN: &str = "SELECT domain, at, hosts, reason, who FROM gatepost.history_forgotten \
                              WHERE change > $1 ORDER BY change, at";
const FORGET: &str = "WITH entry AS (INSERT INTO gatepost.history_forgotten (domain, at, hosts, reason, who, change) \
                      VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (domain, at) DO NOTHING) \
                      DELETE FROM gatepost.history_host WHERE domain = $1";
/// Keeps as many forgotten domains as the memory has. A node that was away for longer than that reads
/// the memory anew.
const TRIM_FORGOTTEN: &str = "DELETE FROM gatepost.history_forgotten WHERE (at, domain) IN \
                              (SELECT at, domain FROM gatepost.history_forgotten \
                               ORDER BY change DESC, at DESC OFFSET $1)";
const REMOVE: &str = "DELETE FROM gatepost.history_host \
                      WHERE (domain, host) IN (SELECT * FROM unnest($1::text[], $2::text[]))";

/// Returns the columns of the periods, such as `plain_first, plain_last`, with a prefix each.
fn period_columns(prefix: &str) -> String {
    let columns = TlsLevel::ALL.map(|level| {
        let level = level.as_str();
        format!("{prefix}{level}_first, {prefix}{level}_last")
    });
    columns.join(", ")
}

fn read_statement() -> String {
    let periods = period_columns("");
    format!(
        "SELECT domain, host, seen, level, issuer, issuer_since, {periods} \
         FROM gatepost.history_host WHERE change > $1 ORDER BY change"
    )
}

/// Returns the statement that merges rows by the rules of `memory::merge`, so that nothing that
/// another node knows is lowered, and no later date is lost.
fn merge_statement() -> String {
    let mut sql = format!(
        "INSERT INTO gatepost.history_host AS known \
         (change, domain, host, seen, level, issuer, issuer_since, {})
         SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[]",
        period_columns("")
    );
    for place in 8..8 + 2 * TlsLevel::ALL.len() {
        let _written = write!(sql, ", ${place}::bigint[]");
    }
    sql.push_str(
        ") ON CONFLICT (domain, host) DO UPDATE SET change = excluded.change,
         level = CASE WHEN excluded.seen >= known.seen THEN excluded.level ELSE known.level END,
         seen = greatest(known.seen, excluded.seen),
         (issuer, issuer_since) = (SELECT issuer, CASE WHEN known.issuer = excluded.issuer
             THEN least(known.issuer_since, excluded.issuer_since) ELSE issuer_since END
             FROM (VALUES (excluded.issuer, excluded.issuer_since), (known.issuer, known.issuer_since))
                 AS both_known (issuer, issuer_since)
             ORDER BY issuer IS NULL, issuer_since DESC LIMIT 1)",
    );
    for level in TlsLevel::ALL.map(TlsLevel::as_str) {
        let _written = write!(
            sql,
            ",
         {level}_first = CASE WHEN excluded.{level}_last IS NULL THEN known.{level}_first
             WHEN known.{level}_last IS NULL THEN excluded.{level}_first
             WHEN known.{level}_first - excluded.{level}_last >= {MEMORY_PERIOD} THEN known.{level}_first
             WHEN excluded.{level}_first - known.{level}_last >= {MEMORY_PERIOD} THEN excluded.{level}_first
             ELSE least(known.{level}_first, excluded.{level}_first) END,
         {level}_last = greatest(known.{level}_last, excluded.{level}_last)"
        );
    }
    sql
}

/// Reads all of the memory. Returns the number of the last change, too.
pub(super) async fn read_all(database: &Database) -> Result<(StoredHistory, i64), DatabaseError> {
    let mut connection = database.connection().await?;
    let seen = last_change(&connection, STORE).await?;
    let transaction = connection.transaction().await?;
    let SharedChanges { rows, forgotten } = read_after(&transaction, 0).await?;
    transaction.commit().await?;
    connection.give_back();
    Ok((StoredHistory { rows, forgotten }, seen))
}

/// Reads what has changed after the change of this number. Rows that this version cannot read are
/// left out, with a warning.
pub(super) async fn read_after(
    transaction: &Transaction<'_>,
    seen: i64,
) -> Result<SharedChanges, DatabaseError> {
    let mut changes = SharedChanges::default();
    let statement = transaction.prepare_cached(READ_FORGOTTEN).await?;
    for row in transaction.query(&statement, &[&seen]).await? {
        changes.forgotten.extend(forget_entry(&row));
    }
    let statement = transaction.prepare_cached(&read_statement()).await?;
    for row in transaction.query(&statement, &[&seen]).await? {
        let record = host_record(&row);
        if record.is_none() {
            tracing::warn!(
                domain = row.get::<_, &str>("domain"),
                "a row of the downgrade memory in the database is of no known form; left out"
            );
        }
        changes.rows.extend(record);
    }
    Ok(changes)
}

/// Writes a batch with the number of its change.
pub(super) async fn write(
    transaction: &Transaction<'_>,
    change: i64,
    batch: &WriteBatch,
) -> Result<(), DatabaseError> {
    for entry in &batch.new_forgets {
        let statement = transaction.prepare_cached(FORGET).await?;
        let domain = entry.domain.to_string();
        let hosts = i64::try_from(entry.hosts).unwrap_or(i64::MAX);
        let at = entry.at.as_second();
        transaction
            .execute(
                &statement,
                &[&domain, &at, &hosts, &entry.reason, &entry.who, &change],
            )
            .await?;
    }
    if !batch.new_forgets.is_empty() {
        let kept = i64::try_from(FORGOTTEN_MAX).unwrap_or(i64::MAX);
        transaction.execute(TRIM_FORGOTTEN, &[&kept]).await?;
    }
    for rows in batch.rows.chunks(ROWS_AT_ONCE) {
        merge_rows(transaction, change, rows).await?;
        let removed: Vec<_> = rows
            .iter()
            .filter(|(_, _, record)| record.is_none())
            .collect();
        if !removed.is_empty() {
            let statement = transaction.prepare_cached(REMOVE).await?;
            let domains: Vec<_> = removed
                .iter()
                .map(|(domain, ..)| domain.to_string())
                .collect();
            let hosts: Vec<_> = removed
                .iter()
                .map(|(_, host, _)| host.to_string())
                .collect();
            transaction.execute(&statement, &[&domains, &hosts]).await?;
        }
    }
    Ok(())
}

async fn merge_rows(
    transaction: &Transaction<'_>,
    change: i64,
    rows: &[(Host, Host, Option<HostRecord>)],
) -> Result<(), DatabaseError> {
    let records = || {
        rows.iter()
            .filter_map(|(domain, _, row)| Some((domain, row.as_ref()?)))
    };
    let domains: Vec<_> = records().map(|(domain, _)| domain.to_string()).collect();
    if domains.is_empty() {
        return Ok(());
    }
    let hosts: Vec<_> = records().map(|(_, row)| row.host.to_string()).collect();
    let seen: Vec<_> = records().map(|(_, row)| row.seen).collect();
    let levels: Vec<_> = records().map(|(_, row)| row.level.as_str()).collect();
    let issuer = |(_, row): (_, &HostRecord)| row.issuer.as_ref().map(|(name, _)| name.to_string());
    let issuers: Vec<_> = records().map(issuer).collect();
    let since: Vec<_> = records()
        .map(|(_, row)| row.issuer.as_ref().map(|(_, since)| *since))
        .collect();
    let mut periods: Vec<Vec<Option<i64>>> = Vec::new();
    for place in 0..TlsLevel::ALL.len() {
        let of_level = || records().map(|(_, row)| row.periods[place]);
        periods.push(of_level().map(|period| period.map(|it| it.first)).collect());
        periods.push(of_level().map(|period| period.map(|it| it.last)).collect());
    }
    let mut values: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
        vec![&change, &domains, &hosts, &seen, &levels, &issuers, &since];
    for column in &periods {
        values.push(column);
    }
    let statement = transaction.prepare_cached(&merge_statement()).await?;
    transaction.execute(&statement, &values).await?;
    Ok(())
}

/// Takes the number for the changes of a transaction.
pub(super) async fn next(transaction: &Transaction<'_>) -> Result<i64, DatabaseError> {
    next_change(transaction, STORE).await
}

fn host_record(row: &Row) -> Option<(Host, HostRecord)> {
    let domain = Host::parse(row.get("domain")).ok()?;
    let host = Host::parse(row.get("host")).ok()?;
    let level = TlsLevel::parse(row.get("level"))?;
    let mut periods = [None; 5];
    for (place, level) in periods.iter_mut().zip(TlsLevel::ALL.map(TlsLevel::as_str)) {
        let first: Option<i64> = row.get(&*format!("{level}_first"));
        let last: Option<i64> = row.get(&*format!("{level}_last"));
        *place = first
            .zip(last)
            .map(|(first, last)| LevelPeriod { first, last });
    }
    let issuer: Option<&str> = row.get("issuer");
    let since: Option<i64> = row.get("issuer_since");
    let seen = row.get("seen");
    let record = HostRecord {
        host,
        periods,
        seen,
        level,
        issuer: issuer.map(Arc::from).zip(since),
        written: seen,
        expired_rounds: 0,
    };
    Some((domain, record))
}

fn forget_entry(row: &Row) -> Option<ForgetEntry> {
    Some(ForgetEntry {
        domain: Host::parse(row.get("domain")).ok()?,
        at: timestamp(row.get("at")),
        hosts: usize::try_from(row.get::<_, i64>("hosts")).unwrap_or(0),
        reason: row.get("reason"),
        who: row.get("who"),
    })
}
