//! The policies in the database that all nodes share, and its statements.
//!
//! The clocks of nodes differ, so the database is given ages, and gives ages.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio_postgres::Row;

use super::policy::MtaStsPolicy;
use super::store::{PolicyChange, StoredPolicy};
use crate::smtp::address::Domain;
use crate::storage::postgresql::{
    Database, DatabaseError, LentConnection, last_change, next_change,
};

/// The name of this store among those with changes.
const STORE: &str = "mta_sts";

const READ: &str = "SELECT domain, id, terms, \
                    extract(epoch FROM clock_timestamp() - fetched)::bigint AS fetched_ago, \
                    extract(epoch FROM clock_timestamp() - used)::bigint AS used_ago \
                    FROM gatepost.mta_sts_policy WHERE change > $1";
/// The policy that was fetched last stays; a write that waited while the database was gone replaces
/// no newer one.
const PUT: &str = "INSERT INTO gatepost.mta_sts_policy AS known (domain, id, terms, fetched, used, change) \
    SELECT domain, id, terms, clock_timestamp() - fetched_ago * interval '1 second', \
    clock_timestamp() - used_ago * interval '1 second', $1 \
    FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[]) \
    AS fetched (domain, id, terms, fetched_ago, used_ago) \
    ON CONFLICT (domain) DO UPDATE SET id = excluded.id, terms = excluded.terms, fetched = excluded.fetched, \
    used = greatest(known.used, excluded.used), refresh_until = NULL, change = excluded.change \
    WHERE excluded.fetched >= known.fetched";
const USED: &str = "UPDATE gatepost.mta_sts_policy AS known \
    SET used = greatest(used, clock_timestamp() - used_ago * interval '1 second') \
    FROM unnest($1::text[], $2::bigint[]) AS uses (domain, used_ago) WHERE known.domain = uses.domain";
/// Removes policies that no node has changed since they were read here.
const REMOVE: &str = "DELETE FROM gatepost.mta_sts_policy WHERE domain = ANY($1) AND change <= $2";
/// Leaves the refresh of each policy to one node for as long as a fetch may take.
const CLAIM: &str = "UPDATE gatepost.mta_sts_policy SET refresh_until = clock_timestamp() + interval '2 minutes' \
    WHERE domain = ANY($1) AND (refresh_until IS NULL OR refresh_until < clock_timestamp()) RETURNING domain";

/// The changes that the database does not have yet. There are never more than policies in memory,
/// and as many removals.
#[derive(Debug, Default)]
struct PendingChanges {
    put: HashMap<Domain, StoredPolicy>,
    used: HashMap<Domain, Timestamp>,
    removed: HashSet<Domain>,
}

/// The most removals that wait. Those that are left out are found again: an expired policy is
/// removed by each node.
const REMOVALS_MAX: usize = 10_000;

impl PendingChanges {
    fn add(&mut self, change: PolicyChange) {
        match change {
            PolicyChange::Put(policy, used) => {
                self.removed.remove(&policy.domain);
                self.put.insert(policy.domain.clone(), (policy, used));
            }
            PolicyChange::Used(domain, used) => {
                self.used.insert(domain, used);
            }
            PolicyChange::Remove(domain) => {
                self.put.remove(&domain);
                self.used.remove(&domain);
                if self.removed.len() < REMOVALS_MAX {
                    self.removed.insert(domain);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.put.is_empty() && self.used.is_empty() && self.removed.is_empty()
    }

    /// Adds the changes of a failed write again. Later changes win.
    fn restore(&mut self, failed: Self) {
        for (domain, policy) in failed.put {
            if !self.removed.contains(&domain) {
                self.put.entry(domain).or_insert(policy);
            }
        }
        for (domain, used) in failed.used {
            if !self.removed.contains(&domain) {
                self.used.entry(domain).or_insert(used);
            }
        }
        let removed = failed.removed.into_iter();
        let still = removed.filter(|domain| !self.put.contains_key(domain));
        self.removed.extend(still);
    }
}

/// The policies in the database.
#[derive(Debug)]
pub(super) struct SharedPolicies {
    database: Database,
    pending: Mutex<PendingChanges>,
    work: Notify,
    /// The state of the last exchange. It is held during an exchange, so there is one at a time.
    last: tokio::sync::Mutex<LastExchange>,
}

/// The state of the last exchange.
#[derive(Debug, Default)]
struct LastExchange {
    /// The number of the last change that the memory has.
    seen: i64,
    /// True if it failed. Then all is read next, since numbers may have been given anew.
    has_failed: bool,
}

/// The result of an exchange.
#[derive(Debug, Default)]
pub(super) struct ReadPolicies {
    pub(super) policies: Vec<StoredPolicy>,
    /// True if the database has lost changes: it needs what is known here.
    pub(super) has_lost: bool,
}

impl SharedPolicies {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            pending: Mutex::default(),
            work: Notify::new(),
            last: tokio::sync::Mutex::default(),
        }
    }

    /// Keeps changes until the next exchange, which is due at once.
    pub(super) fn add(&self, changes: impl IntoIterator<Item = PolicyChange>) {
        let mut pending = self.pending();
        for change in changes {
            pending.add(change);
        }
        drop(pending);
        self.work.notify_one();
    }

    /// Waits until there are changes to write.
    pub(super) async fn changed(&self) {
        self.work.notified().await;
    }

    /// Returns whether a policy of the domain waits to be written.
    pub(super) fn is_pending(&self, domain: &Domain) -> bool {
        self.pending().put.contains_key(domain)
    }

    /// Writes what waits, and returns what has changed since the last exchange. `now` is the time by
    /// the clock of this node.
    pub(super) async fn exchange(
        &self,
        now: &(dyn Fn() -> Timestamp + Send + Sync),
    ) -> Result<ReadPolicies, DatabaseError> {
        let mut state = self.last.lock().await;
        let has_failed = std::mem::replace(&mut state.has_failed, true);
        let mut connection = self.database.connection().await?;
        let mut last = last_change(&connection, STORE).await?;
        // The database was restored from a backup, or its standby had not all.
        let has_lost = last < state.seen;
        self.write(&mut connection, last.min(state.seen), now)
            .await?;
        let from = if has_lost || has_failed {
            0
        } else {
            state.seen
        };
        last = last.max(last_change(&connection, STORE).await?);
        let mut policies = Vec::new();
        if last > from {
            let statement = connection.prepare_cached(READ).await?;
            let rows = connection.query(&statement, &[&from]).await?;
            policies.extend(rows.iter().filter_map(|row| stored_policy(row, now())));
            if policies.len() < rows.len() {
                tracing::warn!(
                    rows = rows.len() - policies.len(),
                    "skipping invalid rows of the MTA-STS policy cache in the database"
                );
            }
        }
        *state = LastExchange {
            seen: last,
            has_failed: false,
        };
        connection.give_back();
        Ok(ReadPolicies { policies, has_lost })
    }

    /// Writes what waits in one transaction.
    async fn write(
        &self,
        connection: &mut LentConnection,
        seen: i64,
        now: &(dyn Fn() -> Timestamp + Send + Sync),
    ) -> Result<(), DatabaseError> {
        let changes = std::mem::take(&mut *self.pending());
        if changes.is_empty() {
            return Ok(());
        }
        let mut unwritten = UnwrittenChanges {
            shared: self,
            changes,
            is_written: false,
        };
        let PendingChanges { put, used, removed } = &unwritten.changes;
        let transaction = connection.transaction().await?;
        if !put.is_empty() {
            let change = next_change(&transaction, STORE).await?;
            put_policies(&transaction, change, put, now()).await?;
        }
        if !used.is_empty() {
            let domains: Vec<_> = used.keys().map(Domain::as_str).collect();
            let ago: Vec<_> = used.values().map(|used| age(*used, now())).collect();
            let statement = transaction.prepare_cached(USED).await?;
            transaction.execute(&statement, &[&domains, &ago]).await?;
        }
        if !removed.is_empty() {
            let domains: Vec<_> = removed.iter().map(Domain::as_str).collect();
            let statement = transaction.prepare_cached(REMOVE).await?;
            transaction.execute(&statement, &[&domains, &seen]).await?;
        }
        transaction.commit().await?;
        unwritten.is_written = true;
        Ok(())
    }

    /// Returns those of the domains whose policies this node is to refresh now.
    pub(super) async fn claim_refresh(
        &self,
        domains: &[Domain],
    ) -> Result<HashSet<String>, DatabaseError> {
        let connection = self.database.connection().await?;
        let names: Vec<_> = domains.iter().map(Domain::as_str).collect();
        let statement = connection.prepare_cached(CLAIM).await?;
        let rows = connection.query(&statement, &[&names]).await?;
        connection.give_back();
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn pending(&self) -> MutexGuard<'_, PendingChanges> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes that are being written. Unless they are, they wait again, also if the write is cancelled.
struct UnwrittenChanges<'a> {
    shared: &'a SharedPolicies,
    changes: PendingChanges,
    is_written: bool,
}

impl Drop for UnwrittenChanges<'_> {
    fn drop(&mut self) {
        if !self.is_written {
            let changes = std::mem::take(&mut self.changes);
            self.shared.pending().restore(changes);
        }
    }
}

async fn put_policies(
    transaction: &deadpool_postgres::Transaction<'_>,
    change: i64,
    policies: &HashMap<Domain, StoredPolicy>,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let all = || policies.values();
    let domains: Vec<_> = all().map(|(policy, _)| policy.domain.as_str()).collect();
    let ids: Vec<_> = all().map(|(policy, _)| policy.id.as_str()).collect();
    let terms: Vec<_> = all().map(|(policy, _)| policy.lines().join("\n")).collect();
    let fetched: Vec<_> = all().map(|(policy, _)| age(policy.fetched, now)).collect();
    let used: Vec<_> = all().map(|(_, used)| age(*used, now)).collect();
    let statement = transaction.prepare_cached(PUT).await?;
    transaction
        .execute(
            &statement,
            &[&change, &domains, &ids, &terms, &fetched, &used],
        )
        .await?;
    Ok(())
}

/// Returns the age of a time in seconds; 0 if it is ahead of this node's clock.
fn age(at: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(at).as_secs().max(0)
}

fn stored_policy(row: &Row, now: Timestamp) -> Option<StoredPolicy> {
    let at = |ago: i64| now.checked_sub(SignedDuration::from_secs(ago.max(0))).ok();
    let (domain, fetched) = (
        Domain::parse(row.get("domain")).ok()?,
        at(row.get("fetched_ago"))?,
    );
    let policy = MtaStsPolicy::from_parts(domain, row.get("id"), row.get("terms"), fetched)?;
    Some((Arc::new(policy), at(row.get("used_ago"))?))
}
