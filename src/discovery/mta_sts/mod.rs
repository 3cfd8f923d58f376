//! MTA-STS (RFC 8461): the policies in which domains name their MX hosts and require TLS with a
//! valid certificate for the host name.
//!
//! [`MtaSts`] fetches policies and caches them in memory and on disk. [`evaluate`] compares an MX
//! host with a policy. The combination with DANE and the connector is decided elsewhere.
//!
//! The policy domain is the recipient domain itself, never a parent; for a smart host it is the
//! smart host's name (§3.4). An address literal has no policy. Policies are trusted on first use:
//! if the first fetch fails, the domain counts as having none (§3.3). A fetched policy stays in
//! force until it expires, even if its record or host disappears (§5.1).

mod cache;
mod exchange;
mod failure;
mod policy;
mod record;
mod refresh;
mod shared;
mod source;
mod store;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::smtp::address::Domain;
use crate::storage::postgresql::Database;
use cache::{CacheLookup, PolicyCache};
pub use failure::{MtaStsFailure, MtaStsFailureKind, NoPolicy};
pub use policy::{Listing, MtaStsMode, MtaStsPolicy, PolicyFault, evaluate};
pub use record::{PolicyId, RecordFault};
use shared::SharedPolicies;
use source::{MtaStsRecord, PolicySource};
pub use source::{POLICY_FETCH_TIMEOUT, WebSource};
pub use store::PolicyStoreError;
use store::{PolicyChange, PolicyStore};
#[cfg(fuzzing)]
pub use {policy::fuzzed as policy_body, record::fuzzed as record_id};

/// The time limit of the record lookup and the fetch together, and so the longest wait of a message
/// at first contact.
const LOOKUP_TIMEOUT: Duration = Duration::from_mins(1);
/// The age below which a policy with an unchanged id is not fetched again.
const RECENTLY_FETCHED: SignedDuration = SignedDuration::from_mins(5);

/// A source of the current time.
pub type TimeSource = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The published policy of a domain, as it applies to a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishedPolicy {
    /// No policy is in force.
    None(NoPolicy),
    /// This policy is in force. Its mode may be [`MtaStsMode::None`].
    Policy(Arc<MtaStsPolicy>),
}

impl PublishedPolicy {
    fn terms(&self) -> Option<&policy::PolicyTerms> {
        match self {
            Self::None(_) => None,
            Self::Policy(policy) => Some(&policy.terms),
        }
    }
}

/// The result of checking whether the policy under which a delivery failed is still current.
// Rule: RFC 8461 §5.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recheck {
    /// The policy is current, so the failure stands.
    Confirmed,
    /// Another policy is in force now, so the delivery is tried again.
    Changed(PublishedPolicy),
    /// The check failed, so the failure must not be permanent.
    Unknown(Arc<MtaStsFailure>),
}

/// The policies of all domains. There is one for the process; clones share its state.
// Rule: RFC 8461 §3.
#[derive(Clone)]
pub struct MtaSts(Arc<MtaStsInner>);

struct MtaStsInner {
    source: ArcSwap<Box<dyn PolicySource>>,
    clock: TimeSource,
    /// The time limit of one fetch.
    timeout: Duration,
    cache: Mutex<PolicyCache>,
    running: Mutex<HashMap<Domain, watch::Receiver<Option<FetchResult>>>>,
    store: PolicyStorage,
    /// True while writes to the store fail, so that the failure is logged once.
    failing: AtomicBool,
}

impl fmt::Debug for MtaSts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtaSts")
            .field("store", &self.0.store)
            .finish_non_exhaustive()
    }
}

/// The place where policies outlive the process.
#[derive(Debug)]
enum PolicyStorage {
    /// A file of this relay.
    File(PolicyStore),
    /// The database that several nodes share.
    Shared(Box<SharedPolicies>),
}

/// The purpose of a fetch.
// Rule: RFC 8461 §5.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FetchPurpose {
    /// No policy is known for the domain.
    FirstContact,
    /// The record may name a newer policy than the cached one.
    Check,
    /// The policy is fetched even if the record is unchanged.
    Refetch,
}

/// The result of a fetch.
#[derive(Debug, Clone)]
enum FetchResult {
    Fetched(Arc<MtaStsPolicy>),
    /// There is nothing new.
    Unchanged,
    NoPolicy(NoPolicy),
    Failed(Arc<MtaStsFailure>),
}

/// The reply of the policy source.
enum SourceReply {
    Policy(PolicyId, policy::PolicyTerms),
    Unchanged,
    NoPolicy(NoPolicy),
}

impl MtaSts {
    /// Opens `policies.db` in the spool folder. Blocks on file access.
    ///
    /// A damaged file is moved to `aside/` and replaced by a new one. If the file cannot be opened
    /// at all, this is logged and policies are cached in memory until it can: mail does not wait
    /// for a cache.
    ///
    /// # Errors
    /// The file was written by another version of Gatepost. It is left as it is.
    pub fn open(folder: &Path, web: WebSource) -> Result<Self, PolicyStoreError> {
        Self::open_at(folder, web, Arc::new(Timestamp::now))
    }

    /// Opens `policies.db` as [`open`](Self::open) does, with another source of the time.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(
        folder: &Path,
        web: WebSource,
        clock: TimeSource,
    ) -> Result<Self, PolicyStoreError> {
        Self::from_source(folder, Box::new(web), clock, LOOKUP_TIMEOUT)
    }

    fn from_source(
        folder: &Path,
        source: Box<dyn PolicySource>,
        clock: TimeSource,
        timeout: Duration,
    ) -> Result<Self, PolicyStoreError> {
        let (store, rows) = PolicyStore::open(folder);
        let rows = match rows {
            Err(error) if error.is_refusal() => return Err(error),
            rows => rows,
        };
        let (mut cache, now, mut removed) = (PolicyCache::default(), clock(), Vec::new());
        let mut failing = rows.is_err();
        for (mut policy, used) in rows.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the stored MTA-STS policies; fetching them again, in memory only: check the disk");
            Vec::new()
        }) {
            if policy.fetched > now {
                // The clock was or is wrong. Counting from now keeps the policy no longer than its
                // max_age.
                Arc::make_mut(&mut policy).fetched = now;
            }
            removed.extend(cache.put(policy, used.min(now)).into_iter().map(PolicyChange::Remove));
        }
        if !removed.is_empty()
            && let Err(error) = store.write(&removed)
        {
            failing = true;
            tracing::error!(%error, "cannot save MTA-STS policies: check the disk");
        }
        let store = PolicyStorage::File(store);
        let policies = Self::new(store, cache, source, clock, timeout);
        policies.0.failing.store(failing, Ordering::Relaxed);
        Ok(policies)
    }

    /// Reads the policies from a database that several nodes share, and whose schema is made. While
    /// [`MtaSts::keep_fresh`] is polled, a policy that one node fetches is known to the others a
    /// second or two later, and one node at a time refreshes it. While the database is gone, the
    /// policies in memory count, as mail does not wait for a cache.
    pub async fn open_shared(database: Database, web: WebSource) -> Self {
        let clock = Arc::new(Timestamp::now);
        Self::from_shared(database, Box::new(web), clock, LOOKUP_TIMEOUT).await
    }

    async fn from_shared(
        database: Database,
        source: Box<dyn PolicySource>,
        clock: TimeSource,
        timeout: Duration,
    ) -> Self {
        let store = PolicyStorage::Shared(Box::new(SharedPolicies::new(database)));
        let policies = Self::new(store, PolicyCache::default(), source, clock, timeout);
        policies.0.learn().await;
        policies
    }

    fn new(
        store: PolicyStorage,
        cache: PolicyCache,
        source: Box<dyn PolicySource>,
        clock: TimeSource,
        timeout: Duration,
    ) -> Self {
        Self(Arc::new(MtaStsInner {
            source: ArcSwap::from_pointee(source),
            clock,
            timeout,
            cache: Mutex::new(cache),
            running: Mutex::default(),
            store,
            failing: AtomicBool::new(false),
        }))
    }

    /// Returns the number of cached policies.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.cache().len()
    }

    /// Replaces the resolver and HTTPS client. The cache stays.
    pub fn replace(&self, web: WebSource) {
        self.0.source.store(Arc::new(Box::new(web)));
    }

    /// Returns the policy of a domain for a delivery.
    ///
    /// A cached policy is returned at once. In intervals its id is compared with the domain's
    /// record in the background, and the policy is fetched again if the id has changed. At first
    /// contact the caller waits for at most about a minute; other domains do not wait. A failed
    /// fetch is remembered for five minutes, a failed DNS lookup for half a minute. A fetch
    /// continues when its caller stops waiting.
    ///
    /// Requires a tokio runtime.
    pub async fn policy(&self, domain: &Domain) -> PublishedPolicy {
        let known = self.0.cache().look_up(domain, (self.0.clock)());
        match known {
            CacheLookup::Policy { policy, check } => {
                if check {
                    self.start_fetch(domain, FetchPurpose::Check);
                }
                PublishedPolicy::Policy(policy)
            }
            CacheLookup::Failed(failure) => PublishedPolicy::None(NoPolicy::Failed(failure)),
            CacheLookup::Miss => {
                let result = self.fetch(domain, FetchPurpose::FirstContact).await;
                self.policy_in_force(domain, result)
            }
        }
    }

    /// Returns the unexpired policy in the cache, without a lookup and without recording a use.
    #[must_use]
    pub fn cached(&self, domain: &Domain) -> Option<Arc<MtaStsPolicy>> {
        self.0.cache().policy(domain, (self.0.clock)()).cloned()
    }

    /// Checks for a newer version of `policy` before a delivery fails permanently under it (RFC
    /// 8461 §5.1). Looks up the record, and fetches the policy unless it was fetched minutes ago
    /// and its id is unchanged. Takes at most about a minute.
    pub async fn recheck(&self, policy: &MtaStsPolicy) -> Recheck {
        let (domain, now) = (policy.domain(), (self.0.clock)());
        let purpose = {
            let known = self.0.cache();
            if let Some(failure) = known.failure(domain, now) {
                return Recheck::Unknown(Arc::clone(failure));
            }
            match known.policy(domain, now) {
                Some(policy) if now.duration_since(policy.fetched()) < RECENTLY_FETCHED => {
                    FetchPurpose::Check
                }
                Some(_) | None => FetchPurpose::Refetch,
            }
        };
        let mut result = self.fetch(domain, purpose).await;
        if let (FetchPurpose::Refetch, FetchResult::Unchanged) = (purpose, &result) {
            // A fetch for another purpose was already running and stopped at the unchanged id.
            result = self.fetch(domain, purpose).await;
        }
        let published = match result {
            FetchResult::Failed(failure) => return Recheck::Unknown(failure),
            result => self.policy_in_force(domain, result),
        };
        if published.terms() == Some(&policy.terms) {
            Recheck::Confirmed
        } else {
            Recheck::Changed(published)
        }
    }

    /// Returns the policy in force after a fetch.
    fn policy_in_force(&self, domain: &Domain, result: FetchResult) -> PublishedPolicy {
        match (self.cached(domain), result) {
            // A policy with a max_age of 0 is not cached, but counts for the deliveries that waited
            // for it.
            (_, FetchResult::Fetched(policy)) | (Some(policy), _) => {
                PublishedPolicy::Policy(policy)
            }
            (None, FetchResult::NoPolicy(absent)) => PublishedPolicy::None(absent),
            (None, FetchResult::Failed(failure)) => {
                PublishedPolicy::None(NoPolicy::Failed(failure))
            }
            // The policy expired during the fetch. The next message fetches it again.
            (None, FetchResult::Unchanged) => {
                PublishedPolicy::None(NoPolicy::Failed(Arc::new(MtaStsFailure::CutShort)))
            }
        }
    }

    async fn fetch(&self, domain: &Domain, purpose: FetchPurpose) -> FetchResult {
        let mut fetch = self.start_fetch(domain, purpose);
        match fetch
            .wait_for(Option::is_some)
            .await
            .map(|result| result.clone())
        {
            Ok(Some(result)) => result,
            Ok(None) | Err(_) => FetchResult::Failed(Arc::new(MtaStsFailure::CutShort)),
        }
    }

    /// Starts a fetch, or joins the one that is running: there is at most one for each domain. It
    /// is a task of its own, so that it completes even if nobody waits for it any more. The number
    /// of deliveries limits the number of tasks.
    fn start_fetch(
        &self,
        domain: &Domain,
        purpose: FetchPurpose,
    ) -> watch::Receiver<Option<FetchResult>> {
        let mut running = self.0.running();
        if let Some(fetch) = running.get(domain) {
            return fetch.clone();
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(domain.clone(), receiver.clone());
        let fetch = RunningFetch {
            inner: Arc::clone(&self.0),
            domain: domain.clone(),
        };
        tokio::spawn(async move {
            let result = fetch.inner.run_fetch(&fetch.domain, purpose).await;
            // The fetch is removed from the list before its result is sent, so that later callers
            // start a new one.
            drop(fetch);
            sender.send_replace(Some(result));
        });
        receiver
    }
}

/// An entry in the list of running fetches. It is removed when this is dropped.
struct RunningFetch {
    inner: Arc<MtaStsInner>,
    domain: Domain,
}

impl Drop for RunningFetch {
    fn drop(&mut self) {
        self.inner.running().remove(&self.domain);
    }
}

impl MtaStsInner {
    /// Locks the cache. A poisoned lock is ignored: no code panics in the middle of a change.
    fn cache(&self) -> MutexGuard<'_, PolicyCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Domain, watch::Receiver<Option<FetchResult>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the policy and records the result.
    async fn run_fetch(&self, domain: &Domain, purpose: FetchPurpose) -> FetchResult {
        let known = {
            let (all, now) = (self.cache(), (self.clock)());
            match (purpose, all.policy(domain, now), all.failure(domain, now)) {
                // Another fetch completed since the caller looked into the cache.
                (FetchPurpose::FirstContact, Some(_), _) => return FetchResult::Unchanged,
                (FetchPurpose::FirstContact, None, Some(failure)) => {
                    return FetchResult::Failed(Arc::clone(failure));
                }
                (FetchPurpose::FirstContact, None, None) | (FetchPurpose::Refetch, _, _) => None,
                (FetchPurpose::Check, known, _) => known.map(|policy| policy.id().clone()),
            }
        };
        let source = self.source.load_full();
        let reply = timeout(self.timeout, query_source(&**source, domain, known)).await;
        match reply.unwrap_or(Err(MtaStsFailure::Overrun(self.timeout))) {
            Ok(SourceReply::Policy(id, terms)) => {
                let fetched = (self.clock)();
                FetchResult::Fetched(
                    self.store_policy(MtaStsPolicy {
                        domain: domain.clone(),
                        id,
                        terms,
                        fetched,
                    })
                    .await,
                )
            }
            Ok(SourceReply::Unchanged) => {
                self.cache().confirm(domain, (self.clock)());
                FetchResult::Unchanged
            }
            Ok(SourceReply::NoPolicy(absent)) => {
                self.cache().confirm(domain, (self.clock)());
                FetchResult::NoPolicy(absent)
            }
            Err(failure) => {
                if self.cache().policy(domain, (self.clock)()).is_none() {
                    // Another node may have fetched it a moment ago.
                    self.learn().await;
                }
                FetchResult::Failed(self.record_failure(domain, failure))
            }
        }
    }

    /// Stores a fetched policy in the cache and on disk.
    async fn store_policy(&self, policy: MtaStsPolicy) -> Arc<MtaStsPolicy> {
        let (policy, now) = (Arc::new(policy), (self.clock)());
        let (old, used, removed) = {
            let mut all = self.cache();
            let old = all.policy(policy.domain(), now).cloned();
            let used = all.used(policy.domain()).unwrap_or(now);
            let removed = all.put(Arc::clone(&policy), used);
            (old, used, removed)
        };
        match old {
            Some(old) if old.terms == policy.terms => {
                tracing::debug!(domain = %policy.domain, "MTA-STS policy fetched again");
            }
            Some(_) | None => tracing::info!(
                domain = %policy.domain,
                id = %policy.id,
                mode = %policy.mode(),
                expires = %policy.expires(),
                "MTA-STS policy fetched"
            ),
        }
        for domain in &removed {
            tracing::warn!(%domain, "MTA-STS policy removed: the cache is full; the next delivery to the domain fetches it again");
        }
        let mut changes = vec![PolicyChange::Put(Arc::clone(&policy), used)];
        changes.extend(removed.into_iter().map(PolicyChange::Remove));
        self.save(changes).await;
        policy
    }

    // Rule: RFC 8461 §10.2.
    fn record_failure(&self, domain: &Domain, failure: MtaStsFailure) -> Arc<MtaStsFailure> {
        let failure = Arc::new(failure);
        match self.cache().fail(domain, &failure, (self.clock)()) {
            Some(MtaStsMode::Enforce | MtaStsMode::Testing) => tracing::warn!(
                %domain,
                fault = %failure,
                "cannot refresh MTA-STS policy; the cached one applies until it expires: inform the domain's postmaster"
            ),
            Some(MtaStsMode::None) => {
                tracing::debug!(%domain, fault = %failure, "cannot refresh MTA-STS policy");
            }
            None => tracing::info!(
                %domain,
                fault = %failure,
                "cannot fetch MTA-STS policy; delivering as if the domain published none"
            ),
        }
        failure
    }

    /// Writes changes to the disk, or has them written to the shared database. If that fails, the
    /// cache in memory still counts.
    async fn save(&self, changes: Vec<PolicyChange>) {
        if changes.is_empty() {
            return;
        }
        let file = match &self.store {
            PolicyStorage::File(file) => file,
            PolicyStorage::Shared(shared) => return shared.add(changes),
        };
        let store = file.clone();
        let written = tokio::task::spawn_blocking(move || store.write(&changes)).await;
        let result = match written {
            Ok(Err(error)) => match error.damage() {
                Some(fault) => {
                    let (store, all) = (file.clone(), self.cache().all());
                    tokio::task::spawn_blocking(move || store.recreate(error, &fault, all)).await
                }
                None => Ok(Err(error)),
            },
            written => written,
        };
        match result {
            Ok(Ok(())) => self.failing.store(false, Ordering::Relaxed),
            Ok(Err(error)) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::error!(%error, "cannot save MTA-STS policies; a restart loses recent ones: check the disk");
            }
            Ok(Err(_)) => {}
            // The write panicked, or the runtime is shutting down.
            Err(error) => tracing::warn!(%error, "saving MTA-STS policies was interrupted"),
        }
    }
}

/// Looks up the record and, unless it names the known policy, fetches the policy.
async fn query_source(
    source: &dyn PolicySource,
    domain: &Domain,
    known: Option<PolicyId>,
) -> Result<SourceReply, MtaStsFailure> {
    match source.record(domain).await? {
        MtaStsRecord::Id(id) if known.as_ref() == Some(&id) => Ok(SourceReply::Unchanged),
        MtaStsRecord::Id(id) => Ok(SourceReply::Policy(id, source.terms(domain).await?)),
        MtaStsRecord::None => Ok(SourceReply::NoPolicy(NoPolicy::NoRecord)),
        MtaStsRecord::Unusable(fault) => Ok(SourceReply::NoPolicy(NoPolicy::Unusable(fault))),
    }
}

#[cfg(test)]
mod tests;
