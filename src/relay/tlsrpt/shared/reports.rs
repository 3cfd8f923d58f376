//! The reports of all nodes: each is planned once, and one node at a time sends it.

use std::str::FromStr as _;

use jiff::Timestamp;
use jiff::civil::Date;
use tokio_postgres::Row;

use super::super::observation::{AppliedPolicy, ReportedPolicy, ResultType, SessionFailure};
use super::super::report::PolicyCounts;
use super::super::store::{KEEP_DAYS, ReportJob};
use super::{STORE, SharedCounts};
use crate::smtp::address::Domain;
use crate::storage::postgresql::{DatabaseError, next_change};

/// The time after which a report that another node sends is looked at again, in seconds.
const POLL_SECONDS: i64 = 60;

const DELETE: &str = "DELETE FROM gatepost.tlsrpt_domain WHERE day < $1 AND day < \
    to_char((clock_timestamp() AT TIME ZONE 'UTC') - make_interval(days => $2), 'YYYY-MM-DD') RETURNING closed IS NULL";
const UNPLANNED: &str = "SELECT id, day FROM gatepost.tlsrpt_domain WHERE day < $1 \
    AND day < to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD') AND report IS NULL AND closed IS NULL";
const PLAN: &str = "UPDATE gatepost.tlsrpt_domain AS known SET report = planned.report, due = planned.due \
    FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS planned (id, report, due) WHERE known.id = planned.id";
const DUE: &str = "SELECT id, day, name, report, first, attempts, done FROM gatepost.tlsrpt_domain \
    WHERE due <= $1 AND due <= extract(epoch FROM clock_timestamp()) \
    AND (sender_until IS NULL OR sender_until < clock_timestamp()) ORDER BY due, id LIMIT $2";
/// A claim holds longer than one destination takes.
const CLAIM: &str = "UPDATE gatepost.tlsrpt_domain SET sender = $2, sender_until = clock_timestamp() + interval '10 minutes' \
    WHERE id = $1 AND due <= $3 AND (sender_until IS NULL OR sender_until < clock_timestamp()) \
    RETURNING id, day, name, report, first, attempts, done";
const RENEW: &str = "UPDATE gatepost.tlsrpt_domain SET sender_until = clock_timestamp() + interval '10 minutes' \
    WHERE id = $1 AND sender = $2 AND sender_until > clock_timestamp()";
const NEXT_DUE: &str = "SELECT min(greatest(due, extract(epoch FROM sender_until)::bigint)) \
    FROM gatepost.tlsrpt_domain WHERE due IS NOT NULL";
const POLICIES: &str = "SELECT id, policy_domain, type, strings, mx, succeeded, failed FROM gatepost.tlsrpt_policy \
    WHERE domain = $1 ORDER BY succeeded + failed DESC, type, policy_domain, id";
const FAILURES: &str = "SELECT failure, sessions FROM gatepost.tlsrpt_failure WHERE policy = $1 \
    ORDER BY sessions DESC, failure COLLATE \"C\"";
const SAVE: &str = "UPDATE gatepost.tlsrpt_domain SET first = $3, attempts = $4, done = $5 \
    WHERE id = $1 AND sender = $2";
const POSTPONE: &str =
    "UPDATE gatepost.tlsrpt_domain SET due = $3, sender_until = NULL WHERE id = $1 AND sender = $2";
const CLOSE: &str = "UPDATE gatepost.tlsrpt_domain SET due = NULL, closed = $3, sender_until = NULL \
    WHERE id = $1 AND sender = $2";
const FORGET_COUNTS: &str = "DELETE FROM gatepost.tlsrpt_policy WHERE domain = $1";

impl SharedCounts {
    /// Deletes the days before `day`. Returns the number of open reports among them.
    pub(in super::super) async fn delete_before(&self, day: Date) -> Result<u64, DatabaseError> {
        let connection = self.database.connection().await?;
        let statement = connection.prepare_cached(DELETE).await?;
        let days = i32::from(KEEP_DAYS);
        let deleted = connection
            .query(&statement, &[&day.to_string(), &days])
            .await?;
        connection.give_back();
        Ok(deleted
            .iter()
            .map(|row| u64::from(row.get::<_, bool>(0)))
            .sum())
    }

    /// Assigns a report id and a time to each domain of the days before `today` that has none;
    /// `draw` provides both.
    pub(in super::super) async fn plan(
        &self,
        today: Date,
        mut draw: impl FnMut(Date) -> (String, Timestamp) + Send,
    ) -> Result<u64, DatabaseError> {
        let mut connection = self.database.connection().await?;
        let transaction = connection.transaction().await?;
        next_change(&transaction, STORE).await?;
        let statement = transaction.prepare_cached(UNPLANNED).await?;
        let (mut rows, mut ids, mut dues) = (Vec::new(), Vec::new(), Vec::new());
        for row in transaction.query(&statement, &[&today.to_string()]).await? {
            // Only days that a node has counted are there.
            let Ok(day) = Date::from_str(row.get(1)) else {
                continue;
            };
            let (id, due) = draw(day);
            rows.push(row.get::<_, i64>(0));
            ids.push(id);
            dues.push(due.as_second());
        }
        let statement = transaction.prepare_cached(PLAN).await?;
        let planned = transaction
            .execute(&statement, &[&rows, &ids, &dues])
            .await?;
        transaction.commit().await?;
        connection.give_back();
        Ok(planned)
    }

    /// Returns up to `limit` reports that are due and that no other node sends.
    pub(in super::super) async fn due(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<ReportJob>, DatabaseError> {
        let connection = self.database.connection().await?;
        let statement = connection.prepare_cached(DUE).await?;
        let rows = connection
            .query(&statement, &[&now.as_second(), &i64::from(limit)])
            .await?;
        connection.give_back();
        rows.iter().map(job).collect()
    }

    /// Claims a report for this node and returns it as it is now; `None` if another node sends it or
    /// has sent it.
    pub(in super::super) async fn claim(
        &self,
        job: &ReportJob,
        now: Timestamp,
    ) -> Result<Option<ReportJob>, DatabaseError> {
        let connection = self.database.connection().await?;
        let statement = connection.prepare_cached(CLAIM).await?;
        let row = connection
            .query_opt(&statement, &[&job.row, &self.sender, &now.as_second()])
            .await?;
        connection.give_back();
        row.as_ref().map(self::job).transpose()
    }

    /// Extends the claim on a report. Returns false if it has ended.
    pub(in super::super) async fn renew(&self, job: &ReportJob) -> Result<bool, DatabaseError> {
        let connection = self.database.connection().await?;
        let statement = connection.prepare_cached(RENEW).await?;
        let renewed = connection
            .execute(&statement, &[&job.row, &self.sender])
            .await?;
        connection.give_back();
        Ok(renewed > 0)
    }

    /// Returns the time at which the next report is due, or may be claimed from another node.
    pub(in super::super) async fn next_due(
        &self,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, DatabaseError> {
        let connection = self.database.connection().await?;
        let statement = connection.prepare_cached(NEXT_DUE).await?;
        let row = connection.query_one(&statement, &[]).await?;
        connection.give_back();
        let next: Option<i64> = row.get(0);
        let now = now.as_second();
        let next = next.map(|next| if next > now { next } else { now + POLL_SECONDS });
        Ok(next.and_then(|second| Timestamp::from_second(second).ok()))
    }

    /// Returns the counts of a report.
    pub(in super::super) async fn policy_counts(
        &self,
        job: &ReportJob,
    ) -> Result<Vec<PolicyCounts>, DatabaseError> {
        let mut connection = self.database.connection().await?;
        let snapshot = connection.build_transaction();
        let snapshot = snapshot.isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
        let transaction = snapshot.start().await?;
        let find = transaction.prepare_cached(POLICIES).await?;
        let find_failures = transaction.prepare_cached(FAILURES).await?;
        let mut all = Vec::new();
        for row in transaction.query(&find, &[&job.row]).await? {
            let id: i64 = row.get(0);
            let failures = transaction.query(&find_failures, &[&id]).await?;
            all.push(PolicyCounts {
                policy: policy(&row)?,
                succeeded: sessions(&row, 5),
                failed: sessions(&row, 6),
                failures: failures.iter().map(failure).collect::<Result<_, _>>()?,
            });
        }
        transaction.commit().await?;
        connection.give_back();
        Ok(all)
    }

    /// Stores the attempts and the destinations that have received the report.
    pub(in super::super) async fn save_progress(
        &self,
        job: &ReportJob,
    ) -> Result<(), DatabaseError> {
        // Texts can always be written as JSON.
        let done = serde_json::to_string(&job.done).unwrap_or_default();
        let first = job.first.map(Timestamp::as_second);
        let attempts = i64::from(job.attempts);
        let connection = self.database.connection().await?;
        let statement = connection.prepare_cached(SAVE).await?;
        connection
            .execute(
                &statement,
                &[&job.row, &self.sender, &first, &attempts, &done],
            )
            .await?;
        connection.give_back();
        Ok(())
    }

    /// Postpones a report and ends the claim on it.
    pub(in super::super) async fn postpone(
        &self,
        job: &ReportJob,
        until: Timestamp,
    ) -> Result<(), DatabaseError> {
        let connection = self.database.connection().await?;
        let statement = connection.prepare_cached(POSTPONE).await?;
        connection
            .execute(&statement, &[&job.row, &self.sender, &until.as_second()])
            .await?;
        connection.give_back();
        Ok(())
    }

    /// Closes a report and deletes its counts. The row stays for some days, so that a late session
    /// does not start a second report.
    pub(in super::super) async fn close(
        &self,
        job: &ReportJob,
        why: &str,
    ) -> Result<(), DatabaseError> {
        let mut connection = self.database.connection().await?;
        let transaction = connection.transaction().await?;
        next_change(&transaction, STORE).await?;
        let statement = transaction.prepare_cached(CLOSE).await?;
        let closed = transaction
            .execute(&statement, &[&job.row, &self.sender, &why])
            .await?;
        if closed > 0 {
            let statement = transaction.prepare_cached(FORGET_COUNTS).await?;
            transaction.execute(&statement, &[&job.row]).await?;
        }
        transaction.commit().await?;
        connection.give_back();
        Ok(())
    }
}

fn job(row: &Row) -> Result<ReportJob, DatabaseError> {
    let (day, name, done): (&str, &str, &str) = (row.get(1), row.get(2), row.get(6));
    let first: Option<i64> = row.get(4);
    Ok(ReportJob {
        row: row.get(0),
        day: Date::from_str(day).map_err(|_| invalid_value(day))?,
        domain: Domain::parse(name).map_err(|_| invalid_value(name))?,
        id: row.get(3),
        first: first.and_then(|second| Timestamp::from_second(second).ok()),
        attempts: u32::try_from(row.get::<_, i64>(5)).unwrap_or(u32::MAX),
        done: list(done)?,
    })
}

fn policy(row: &Row) -> Result<AppliedPolicy, DatabaseError> {
    let (name, kind): (&str, &str) = (row.get(1), row.get(2));
    let found = match kind {
        "tlsa" => ReportedPolicy::Tlsa(list(row.get(3))?),
        "sts" => ReportedPolicy::Sts {
            lines: list(row.get(3))?,
            mx: list(row.get(4))?,
        },
        "no-policy-found" => ReportedPolicy::Nothing,
        other => return Err(invalid_value(other)),
    };
    Ok(AppliedPolicy {
        domain: Domain::parse(name).map_err(|_| invalid_value(name))?,
        found,
    })
}

fn failure(row: &Row) -> Result<(SessionFailure, u64), DatabaseError> {
    let json: &str = row.get(0);
    let texts = list(json)?;
    let Ok(
        [
            result,
            sending_ip,
            mx,
            helo,
            receiving_ip,
            reason,
            information,
        ],
    ) = <[String; 7]>::try_from(texts)
    else {
        return Err(invalid_value(json));
    };
    let known = ResultType::ALL.into_iter();
    let result = known.clone().find(|one| one.as_str() == result);
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let failure = SessionFailure {
        result: result.ok_or_else(|| invalid_value(json))?,
        sending_ip: sending_ip.parse().ok(),
        mx: text(mx),
        helo: text(helo),
        receiving_ip: receiving_ip.parse().ok(),
        reason: text(reason),
        information: text(information),
    };
    Ok((failure, sessions(row, 1)))
}

fn sessions(row: &Row, column: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(column)).unwrap_or_default()
}

fn list(json: &str) -> Result<Vec<String>, DatabaseError> {
    serde_json::from_str(json).map_err(|_| invalid_value(json))
}

/// Returns the error for a value that we did not write.
fn invalid_value(value: &str) -> DatabaseError {
    let value: String = value.chars().take(60).collect();
    DatabaseError::Unfit(format!("{value:?} was not written by Gatepost"))
}
