//! Queries of the store: due reports, their contents, and their progress.

use std::str::FromStr as _;

use jiff::Timestamp;
use jiff::civil::Date;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::observation::{AppliedPolicy, ReportedPolicy, ResultType, SessionFailure};
use super::super::report::{PolicyCounts, day_start};
use super::{CountStore, CountStoreError};
use crate::smtp::address::Domain;

/// A report that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ReportJob {
    pub(in super::super) row: i64,
    pub(in super::super) day: Date,
    pub(in super::super) domain: Domain,
    pub(in super::super) id: String,
    /// The time of the first attempt; `None` if there was none.
    pub(in super::super) first: Option<Timestamp>,
    pub(in super::super) attempts: u32,
    /// The destinations that have received it.
    pub(in super::super) done: Vec<String>,
}

impl CountStore {
    /// Assigns a report id and a time to each domain of the days before `today` that has none;
    /// `draw` provides both.
    pub(in super::super) fn plan(
        &self,
        today: Date,
        mut draw: impl FnMut(Date) -> (String, Timestamp),
    ) -> Result<u64, CountStoreError> {
        self.with("plan reports in", |state| {
            let transaction = state.connection.transaction()?;
            let mut planned = 0;
            {
                let mut find = transaction.prepare_cached(
                    "SELECT id, day FROM domain WHERE day < ?1 AND report IS NULL AND closed IS NULL",
                )?;
                let mut plan = transaction.prepare_cached("UPDATE domain SET report = ?2, due = ?3 WHERE id = ?1")?;
                let mut rows = find.query([today.to_string()])?;
                while let Some(row) = rows.next()? {
                    let (id, due) = draw(date(row, 1)?);
                    plan.execute(params![row.get::<_, i64>(0)?, id, due.as_second()])?;
                    planned += 1;
                }
            }
            transaction.commit()?;
            Ok(planned)
        })
    }

    /// Returns up to `limit` reports that are due, in the order of their due times.
    pub(in super::super) fn due(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<ReportJob>, CountStoreError> {
        self.with("read", |state| {
            let mut find = state.connection.prepare_cached(
                "SELECT id, day, name, report, first, attempts, done FROM domain \
                 WHERE due IS NOT NULL AND due <= ?1 ORDER BY due LIMIT ?2",
            )?;
            let jobs = find.query_map(params![now.as_second(), limit], job)?;
            jobs.collect()
        })
    }

    /// Returns the time at which the next report is due.
    pub(in super::super) fn next_due(&self) -> Result<Option<Timestamp>, CountStoreError> {
        self.with("read", |state| {
            let next = state.connection.query_row(
                "SELECT min(due) FROM domain WHERE due IS NOT NULL",
                [],
                |row| row.get::<_, Option<i64>>(0),
            )?;
            Ok(next.and_then(|second| Timestamp::from_second(second).ok()))
        })
    }

    /// Returns the counts of a report.
    pub(in super::super) fn policy_counts(
        &self,
        job: &ReportJob,
    ) -> Result<Vec<PolicyCounts>, CountStoreError> {
        self.with("read", |state| {
            let connection = &state.connection;
            let mut find = connection.prepare_cached(
                "SELECT id, policy_domain, type, strings, mx, succeeded, failed FROM policy WHERE domain = ?1 \
                 ORDER BY succeeded + failed DESC, type, policy_domain, id",
            )?;
            let mut all = Vec::new();
            let mut rows = find.query([job.row])?;
            while let Some(row) = rows.next()? {
                all.push(PolicyCounts {
                    policy: policy(row)?,
                    succeeded: row.get(5)?,
                    failed: row.get(6)?,
                    failures: failures(connection, row.get(0)?)?,
                });
            }
            Ok(all)
        })
    }

    /// Stores the attempts and the destinations that have received the report.
    pub(in super::super) fn save_progress(&self, job: &ReportJob) -> Result<(), CountStoreError> {
        let done = serde_json::to_string(&job.done).unwrap_or_default();
        let first = job.first.map(Timestamp::as_second);
        self.with("store the progress of a report in", |state| {
            let sql = "UPDATE domain SET first = ?2, attempts = ?3, done = ?4 WHERE id = ?1";
            state
                .connection
                .prepare_cached(sql)?
                .execute(params![job.row, first, job.attempts, done])
                .map(|_| ())
        })
    }

    /// Postpones a report.
    pub(in super::super) fn postpone(
        &self,
        job: &ReportJob,
        until: Timestamp,
    ) -> Result<(), CountStoreError> {
        self.with("postpone a report in", |state| {
            let sql = "UPDATE domain SET due = ?2 WHERE id = ?1";
            state
                .connection
                .prepare_cached(sql)?
                .execute(params![job.row, until.as_second()])
                .map(|_| ())
        })
    }

    /// Closes a report and deletes its counts. The row stays for some days, so that a late session
    /// does not start a second report.
    pub(in super::super) fn close(
        &self,
        job: &ReportJob,
        why: &str,
    ) -> Result<(), CountStoreError> {
        self.with("close a report in", |state| {
            let transaction = state.connection.transaction()?;
            transaction.execute(
                "UPDATE domain SET due = NULL, closed = ?2 WHERE id = ?1",
                params![job.row, why],
            )?;
            transaction.execute("DELETE FROM policy WHERE domain = ?1", [job.row])?;
            transaction.commit()
        })
    }

    /// Deletes the days before `day`. Returns the number of open reports among them.
    pub(in super::super) fn delete_before(&self, day: Date) -> Result<u64, CountStoreError> {
        self.with("delete old days in", |state| {
            let transaction = state.connection.transaction()?;
            let day = day.to_string();
            let open: Option<u64> = transaction
                .query_row(
                    "SELECT count(*) FROM domain WHERE day < ?1 AND closed IS NULL",
                    [&day],
                    |row| row.get(0),
                )
                .optional()?;
            transaction.execute("DELETE FROM domain WHERE day < ?1", [&day])?;
            transaction.commit()?;
            Ok(open.unwrap_or_default())
        })
    }
}

fn failures(connection: &Connection, policy: i64) -> rusqlite::Result<Vec<(SessionFailure, u64)>> {
    let mut find = connection.prepare_cached(
        "SELECT result, sending_ip, mx, helo, receiving_ip, reason, information, sessions FROM failure \
         WHERE policy = ?1 ORDER BY sessions DESC, result, mx, rowid",
    )?;
    let failures = find.query_map([policy], |row| {
        let name: String = row.get(0)?;
        let result = ResultType::ALL
            .into_iter()
            .find(|result| result.as_str() == name);
        let text = |column| {
            row.get::<_, String>(column)
                .map(|text| Some(text).filter(|text| !text.is_empty()))
        };
        let address = |column| text(column).map(|text| text.and_then(|text| text.parse().ok()));
        let failure = SessionFailure {
            result: result.ok_or_else(|| invalid_value(0, &name))?,
            sending_ip: address(1)?,
            mx: text(2)?,
            helo: text(3)?,
            receiving_ip: address(4)?,
            reason: text(5)?,
            information: text(6)?,
        };
        Ok((failure, row.get(7)?))
    })?;
    failures.collect()
}

fn policy(row: &Row<'_>) -> rusqlite::Result<AppliedPolicy> {
    let list = |column| {
        let json: String = row.get(column)?;
        serde_json::from_str::<Vec<String>>(&json).map_err(|_| invalid_value(column, &json))
    };
    let kind: String = row.get(2)?;
    let found = match kind.as_str() {
        "tlsa" => ReportedPolicy::Tlsa(list(3)?),
        "sts" => ReportedPolicy::Sts {
            lines: list(3)?,
            mx: list(4)?,
        },
        "no-policy-found" => ReportedPolicy::Nothing,
        other => return Err(invalid_value(2, other)),
    };
    Ok(AppliedPolicy {
        domain: domain(row, 1)?,
        found,
    })
}

fn job(row: &Row<'_>) -> rusqlite::Result<ReportJob> {
    let done: String = row.get(6)?;
    let first: Option<i64> = row.get(4)?;
    Ok(ReportJob {
        row: row.get(0)?,
        day: date(row, 1)?,
        domain: domain(row, 2)?,
        id: row.get(3)?,
        first: first.and_then(|second| Timestamp::from_second(second).ok()),
        attempts: row.get(5)?,
        done: serde_json::from_str(&done).map_err(|_| invalid_value(6, &done))?,
    })
}

fn date(row: &Row<'_>, column: usize) -> rusqlite::Result<Date> {
    let text: String = row.get(column)?;
    // A day whose first moment cannot be represented is invalid.
    Date::from_str(&text)
        .ok()
        .filter(|day| day_start(*day) != Timestamp::MIN)
        .ok_or_else(|| invalid_value(column, &text))
}

fn domain(row: &Row<'_>, column: usize) -> rusqlite::Result<Domain> {
    let text: String = row.get(column)?;
    Domain::parse(&text).map_err(|_| invalid_value(column, &text))
}

/// Returns the error for a value that we did not write.
fn invalid_value(column: usize, value: &str) -> rusqlite::Error {
    let fault = format!(
        "{:?} was not written by Gatepost",
        value.chars().take(60).collect::<String>()
    );
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, fault.into())
}
