//! The counts in the database that all nodes share, to which each node adds its own.
//!
//! A batch is one transaction, and one node writes at a time: the limits of a day hold for the
//! cluster. Days are those of the nodes' clocks. A clock that is wrong does no harm: the clock of the
//! database decides, too, if a day is over, due or old.

mod reports;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aws_lc_rs::digest::{SHA256, digest};
use deadpool_postgres::Transaction;

use super::count::{CountBatch, CountKey};
use super::observation::{AppliedPolicy, SessionFailure};
use super::store::{Bounds, Uncounted, policy_texts};
use crate::storage::postgresql::{Database, DatabaseError, next_change};

/// The name of this store among those with changes.
const STORE: &str = "tlsrpt";

const FIND_DOMAINS: &str = "SELECT known.day, known.name, known.id, known.closed IS NOT NULL \
    FROM gatepost.tlsrpt_domain AS known JOIN unnest($1::text[], $2::text[]) AS added (day, name) \
    ON known.day = added.day AND known.name = added.name";
const COUNT_DOMAINS: &str =
    "SELECT day, count(*) FROM gatepost.tlsrpt_domain WHERE day = ANY($1) GROUP BY day";
/// A day that is not near by the clock of the database would never be reported.
const ADD_DOMAINS: &str = "INSERT INTO gatepost.tlsrpt_domain (day, name) \
    SELECT day, name FROM unnest($1::text[], $2::text[]) AS added (day, name) \
    WHERE day <= to_char((clock_timestamp() AT TIME ZONE 'UTC') + interval '1 day', 'YYYY-MM-DD') \
    RETURNING day, name, id";
const FIND_POLICIES: &str = "SELECT known.domain, known.key, known.id FROM gatepost.tlsrpt_policy AS known \
    JOIN unnest($1::bigint[], $2::bytea[]) AS added (domain, key) \
    ON known.domain = added.domain AND known.key = added.key";
const COUNT_POLICIES: &str =
    "SELECT domain, count(*) FROM gatepost.tlsrpt_policy WHERE domain = ANY($1) GROUP BY domain";
const ADD_POLICIES: &str = "INSERT INTO gatepost.tlsrpt_policy (domain, key, policy_domain, type, strings, mx) \
    SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[]) \
    RETURNING domain, key, id";
const ADD_SESSIONS: &str = "UPDATE gatepost.tlsrpt_policy AS known \
    SET succeeded = known.succeeded + added.succeeded, failed = known.failed + added.failed \
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS added (id, succeeded, failed) \
    WHERE known.id = added.id";
const FIND_FAILURES: &str = "SELECT known.policy, known.key FROM gatepost.tlsrpt_failure AS known \
    JOIN unnest($1::bigint[], $2::bytea[]) AS added (policy, key) \
    ON known.policy = added.policy AND known.key = added.key";
const COUNT_FAILURES: &str =
    "SELECT policy, count(*) FROM gatepost.tlsrpt_failure WHERE policy = ANY($1) GROUP BY policy";
const ADD_FAILURES: &str = "INSERT INTO gatepost.tlsrpt_failure AS known (policy, key, failure, sessions) \
    SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::bigint[]) \
    ON CONFLICT (policy, key) DO UPDATE SET sessions = known.sessions + excluded.sessions";

/// The digest by which a policy or a failure is found: their texts are too long for an index.
type TextDigest = Vec<u8>;

/// The counts in the database.
#[derive(Debug)]
pub(super) struct SharedCounts {
    database: Database,
    bounds: Bounds,
    /// The number by which this run of the node claims reports.
    sender: i64,
}

/// The failure of adding a batch.
#[derive(Debug)]
pub(super) struct SharedCountError {
    pub(super) error: DatabaseError,
    /// True if the batch was certainly not added and another try may succeed.
    pub(super) may_retry: bool,
}

impl SharedCounts {
    pub(super) fn new(database: Database, bounds: Bounds) -> Self {
        let mut octets = [0; 8];
        // Fails only if the system has no random numbers, and then TLS is not possible either.
        let _none = aws_lc_rs::rand::fill(&mut octets);
        Self {
            database,
            bounds,
            sender: i64::from_le_bytes(octets),
        }
    }

    /// Adds a batch, completely or not at all.
    pub(super) async fn add(&self, batch: &CountBatch) -> Result<Uncounted, SharedCountError> {
        let not_added = |error: DatabaseError| SharedCountError {
            may_retry: error.is_transient(),
            error,
        };
        let mut connection = self.database.connection().await.map_err(not_added)?;
        let begun = connection.transaction().await;
        let transaction = begun.map_err(|error| not_added(error.into()))?;
        let added = add_batch(&transaction, batch, self.bounds).await;
        let uncounted = added.map_err(not_added)?;
        // A commit that fails may have had its effect, and nothing may be counted twice.
        transaction
            .commit()
            .await
            .map_err(|error| SharedCountError {
                error: error.into(),
                may_retry: false,
            })?;
        connection.give_back();
        Ok(uncounted)
    }
}

async fn add_batch(
    transaction: &Transaction<'_>,
    batch: &CountBatch,
    bounds: Bounds,
) -> Result<Uncounted, DatabaseError> {
    next_change(transaction, STORE).await?;
    let domains = domain_rows(transaction, batch, bounds).await?;
    let mut uncounted = Uncounted::default();
    let mut open = Vec::new();
    for (key, sessions) in batch.counts() {
        match domains.get(&(key.day.to_string(), key.domain.to_string())) {
            Some((row, false)) => open.push((*row, key, sessions)),
            Some((_, true)) => uncounted.late += sessions,
            None => uncounted.above_limits += sessions,
        }
    }
    let policies = policy_rows(transaction, &open, bounds).await?;
    let mut totals: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    let mut failures: BTreeMap<(i64, TextDigest), (SessionFailure, i64)> = BTreeMap::new();
    for (domain, key, sessions) in open {
        let Some(policy) = policies.get(&(domain, policy_digest(&key.policy))) else {
            uncounted.above_limits += sessions;
            continue;
        };
        let sessions = i64::try_from(sessions).unwrap_or(i64::MAX);
        let total = totals.entry(*policy).or_default();
        let Some(failure) = &key.failure else {
            total.0 += sessions;
            continue;
        };
        total.1 += sessions;
        let failure_key = (*policy, text_digest(&failure_texts(failure)));
        let counted = failures.entry(failure_key);
        counted.or_insert_with(|| (failure.clone(), 0)).1 += sessions;
    }
    let ids: Vec<_> = totals.keys().copied().collect();
    let succeeded: Vec<_> = totals.values().map(|total| total.0).collect();
    let failed: Vec<_> = totals.values().map(|total| total.1).collect();
    let statement = transaction.prepare_cached(ADD_SESSIONS).await?;
    transaction
        .execute(&statement, &[&ids, &succeeded, &failed])
        .await?;
    if !failures.is_empty() {
        add_failures(transaction, failures, bounds).await?;
    }
    Ok(uncounted)
}

/// Returns the row of each domain and day, and whether its report is closed. Makes rows within the
/// limits.
async fn domain_rows(
    transaction: &Transaction<'_>,
    batch: &CountBatch,
    bounds: Bounds,
) -> Result<HashMap<(String, String), (i64, bool)>, DatabaseError> {
    let keys = batch.counts().map(|(key, _)| key);
    let mut missing: BTreeSet<(String, String)> = keys
        .map(|key| (key.day.to_string(), key.domain.to_string()))
        .collect();
    let (days, names): (Vec<_>, Vec<_>) = missing.iter().cloned().unzip();
    let statement = transaction.prepare_cached(FIND_DOMAINS).await?;
    let mut rows = HashMap::new();
    for row in transaction.query(&statement, &[&days, &names]).await? {
        let key = (row.get(0), row.get(1));
        missing.remove(&key);
        rows.insert(key, (row.get(2), row.get(3)));
    }
    if missing.is_empty() {
        return Ok(rows);
    }
    let days: Vec<_> = missing.iter().map(|(day, _)| day.clone()).collect();
    let statement = transaction.prepare_cached(COUNT_DOMAINS).await?;
    let counted = transaction.query(&statement, &[&days]).await?;
    let mut limit = RowLimit::new(bounds.domains);
    limit.add_existing(counted.iter().map(|row| (row.get(0), row.get(1))));
    let allowed = missing.into_iter().filter(|(day, _)| limit.allows(day));
    let (days, names): (Vec<_>, Vec<_>) = allowed.unzip();
    let statement = transaction.prepare_cached(ADD_DOMAINS).await?;
    let added = transaction.query(&statement, &[&days, &names]).await?;
    rows.extend(added.iter().map(|row| {
        let key = (row.get(0), row.get(1));
        (key, (row.get(2), false))
    }));
    Ok(rows)
}

/// Returns the row of each policy of a domain. Makes rows within the limits.
async fn policy_rows(
    transaction: &Transaction<'_>,
    open: &[(i64, &CountKey, u64)],
    bounds: Bounds,
) -> Result<HashMap<(i64, TextDigest), i64>, DatabaseError> {
    let mut missing: BTreeMap<(i64, TextDigest), &AppliedPolicy> = BTreeMap::new();
    for (domain, key, _) in open {
        missing.insert((*domain, policy_digest(&key.policy)), &key.policy);
    }
    let (domains, digests): (Vec<_>, Vec<_>) = missing.keys().cloned().unzip();
    let statement = transaction.prepare_cached(FIND_POLICIES).await?;
    let mut rows = HashMap::new();
    for row in transaction.query(&statement, &[&domains, &digests]).await? {
        let key = (row.get(0), row.get(1));
        missing.remove(&key);
        rows.insert(key, row.get(2));
    }
    if missing.is_empty() {
        return Ok(rows);
    }
    let statement = transaction.prepare_cached(COUNT_POLICIES).await?;
    let counted = transaction.query(&statement, &[&domains]).await?;
    let mut limit = RowLimit::new(bounds.policies);
    limit.add_existing(counted.iter().map(|row| (row.get(0), row.get(1))));
    missing.retain(|(domain, _), _| limit.allows(domain));
    let (domains, digests): (Vec<_>, Vec<_>) = missing.keys().cloned().unzip();
    let policies = || missing.values();
    let names: Vec<_> = policies().map(|policy| policy.domain.as_str()).collect();
    let kinds: Vec<_> = policies().map(|policy| policy.found.kind()).collect();
    let texts = policies().map(|policy| policy_texts(policy));
    let (strings, mx): (Vec<_>, Vec<_>) = texts.unzip();
    let statement = transaction.prepare_cached(ADD_POLICIES).await?;
    let added = transaction
        .query(
            &statement,
            &[&domains, &digests, &names, &kinds, &strings, &mx],
        )
        .await?;
    rows.extend(added.iter().map(|row| {
        let key = (row.get(0), row.get(1));
        (key, row.get(2))
    }));
    Ok(rows)
}

/// Adds to the kinds of failure. Those above the limit of a policy are summed by their result type.
async fn add_failures(
    transaction: &Transaction<'_>,
    failures: BTreeMap<(i64, TextDigest), (SessionFailure, i64)>,
    bounds: Bounds,
) -> Result<(), DatabaseError> {
    let (policies, digests): (Vec<_>, Vec<_>) = failures.keys().cloned().unzip();
    let statement = transaction.prepare_cached(FIND_FAILURES).await?;
    let found = transaction
        .query(&statement, &[&policies, &digests])
        .await?;
    let known: HashSet<(i64, TextDigest)> =
        found.iter().map(|row| (row.get(0), row.get(1))).collect();
    let statement = transaction.prepare_cached(COUNT_FAILURES).await?;
    let counted = transaction.query(&statement, &[&policies]).await?;
    let mut limit = RowLimit::new(bounds.failures);
    limit.add_existing(counted.iter().map(|row| (row.get(0), row.get(1))));
    let mut stored: BTreeMap<(i64, TextDigest), (String, i64)> = BTreeMap::new();
    for (key, (failure, sessions)) in failures {
        let mut texts = failure_texts(&failure);
        let key = if known.contains(&key) || limit.allows(&key.0) {
            key
        } else {
            texts = failure_texts(&SessionFailure::new(failure.result));
            (key.0, text_digest(&texts))
        };
        // Texts can always be written as JSON.
        let json = || serde_json::to_string(&texts).unwrap_or_default();
        stored.entry(key).or_insert_with(|| (json(), 0)).1 += sessions;
    }
    let (policies, digests): (Vec<_>, Vec<_>) = stored.keys().cloned().unzip();
    let (texts, sessions): (Vec<_>, Vec<_>) = stored.into_values().unzip();
    let statement = transaction.prepare_cached(ADD_FAILURES).await?;
    transaction
        .execute(&statement, &[&policies, &digests, &texts, &sessions])
        .await?;
    Ok(())
}

/// A limit on the rows that one key has, with those that exist.
struct RowLimit<K> {
    most: u64,
    existing: HashMap<K, u64>,
}

impl<K: std::hash::Hash + Eq + Clone> RowLimit<K> {
    fn new(most: u64) -> Self {
        Self {
            most,
            existing: HashMap::new(),
        }
    }

    fn add_existing(&mut self, counted: impl Iterator<Item = (K, i64)>) {
        let counted = counted.map(|(key, rows)| (key, u64::try_from(rows).unwrap_or_default()));
        self.existing.extend(counted);
    }

    /// Returns whether the key may have one more row, which counts from now on.
    fn allows(&mut self, key: &K) -> bool {
        let existing = self.existing.entry(key.clone()).or_default();
        let is_allowed = *existing < self.most;
        *existing += u64::from(is_allowed);
        is_allowed
    }
}

fn policy_digest(policy: &AppliedPolicy) -> TextDigest {
    let (strings, mx) = policy_texts(policy);
    text_digest(&[
        policy.domain.to_string(),
        policy.found.kind().to_owned(),
        strings,
        mx,
    ])
}

/// Returns the texts of a failure. A missing one is empty.
fn failure_texts(failure: &SessionFailure) -> [String; 7] {
    let address = |ip: Option<std::net::IpAddr>| ip.map_or_else(String::new, |ip| ip.to_string());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        failure.result.as_str().to_owned(),
        address(failure.sending_ip),
        text(&failure.mx),
        text(&failure.helo),
        address(failure.receiving_ip),
        text(&failure.reason),
        text(&failure.information),
    ]
}

fn text_digest(texts: &[String]) -> TextDigest {
    // Texts can always be written as JSON.
    let json = serde_json::to_vec(texts).unwrap_or_default();
    digest(&SHA256, &json).as_ref().to_vec()
}
