//! MTA-STS (RFC 8461): which hosts a domain wants its mail delivered to, under TLS with a trusted
//! certificate for the host's own name.
//!
//! [`MtaSts`] finds policies and remembers them, in memory and on disk; [`evaluate`] holds an MX host
//! against one. It neither dials MX hosts nor decides what a policy means beside DANE and a connector.
//!
//! The policy domain is the recipient domain, never a parent of it; for a smart host it is the smart host's
//! own name (§3.4). An address literal has no domain and so no policy. Trust is on first use: a policy that
//! cannot be had at first contact is as good as none (§3.3), and one that was had counts until it expires,
//! whatever becomes of record and host (§5.1).

mod cache;
mod failure;
mod policy;
mod record;
mod refresh;
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

use crate::address::Domain;
use cache::{CacheLookup, PolicyCache};
pub use failure::{NoPolicy, StsFailure, StsFailureKind};
pub use policy::{Listing, PolicyFault, StsMode, StsPolicy, evaluate};
pub use record::{PolicyId, RecordFault};
pub use source::{POLICY_FETCH_TIMEOUT, WebSource};
use source::{PolicySource, StsRecord};
pub use store::PolicyStoreError;
use store::{PolicyChange, PolicyStore};
#[cfg(fuzzing)]
pub use {policy::fuzzed as policy_body, record::fuzzed as record_id};

/// StsRecord and policy together, at most; so long a message waits at first contact.
const LOOKUP_TIMEOUT: Duration = Duration::from_mins(1);
/// A policy that was fetched this short a while ago need not be fetched again while its id is the same.
const RECENTLY_FETCHED: SignedDuration = SignedDuration::from_mins(5);

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a domain has published, for a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishedPolicy {
    /// No policy is in force.
    None(NoPolicy),
    /// This one is; its mode may be [`StsMode::None`].
    Policy(Arc<StsPolicy>),
}

impl PublishedPolicy {
    fn terms(&self) -> Option<&policy::PolicyTerms> {
        match self {
            Self::None(_) => None,
            Self::Policy(policy) => Some(&policy.terms),
        }
    }
}

/// Whether a policy that a delivery failed under is still what the domain publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recheck {
    /// It is in force, and nothing newer is published: the failure stands.
    Confirmed,
    /// Something else is in force now: the delivery is to be tried again under that.
    Changed(PublishedPolicy),
    /// Nobody can tell, so the failure must not be permanent.
    Unknown(Arc<StsFailure>),
}

/// The policies of all domains. One for the process; a clone is the same.
#[derive(Clone)]
pub struct MtaSts(Arc<MtaStsInner>);

struct MtaStsInner {
    source: ArcSwap<Box<dyn PolicySource>>,
    clock: Clock,
    /// How long a search may take.
    timeout: Duration,
    cache: Mutex<PolicyCache>,
    running: Mutex<HashMap<Domain, watch::Receiver<Option<FetchResult>>>>,
    store: PolicyStore,
    /// Whether the last write to the disk failed, which is told once.
    failing: AtomicBool,
}

impl fmt::Debug for MtaSts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtaSts").field("store", &self.0.store).finish_non_exhaustive()
    }
}

/// What a search is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FetchPurpose {
    /// Nothing is known of the domain.
    FirstContact,
    /// The record may name another policy than the one we have.
    Check,
    /// The policy is to be fetched, whatever the record names.
    Refetch,
}

/// What a search came to.
#[derive(Debug, Clone)]
enum FetchResult {
    Fetched(Arc<StsPolicy>),
    /// There was nothing to fetch.
    Unchanged,
    NoPolicy(NoPolicy),
    Failed(Arc<StsFailure>),
}

/// What record and host say.
enum SourceReply {
    Policy(PolicyId, policy::PolicyTerms),
    Unchanged,
    NoPolicy(NoPolicy),
}

impl MtaSts {
    /// Opens the policies that are entry in `policies.db` in the spool's folder. This reads files: it is not for
    /// a thread that drives other tasks.
    ///
    /// A damaged file is set aside and begun quarantine_and_create. Where the disk refuses, the log says so, and policies are
    /// entry in memory until it no longer does: mail does not wait for a cache.
    ///
    /// # Errors
    /// Where another version of Gatepost wrote the file, which is not touched then.
    pub fn open(folder: &Path, web: WebSource) -> Result<Self, PolicyStoreError> {
        Self::open_at(folder, web, Arc::new(Timestamp::now))
    }

    /// The same with a clock of one's own.
    ///
    /// # Errors
    /// As there.
    pub fn open_at(folder: &Path, web: WebSource, clock: Clock) -> Result<Self, PolicyStoreError> {
        Self::from_source(folder, Box::new(web), clock, LOOKUP_TIMEOUT)
    }

    fn from_source(
        folder: &Path,
        source: Box<dyn PolicySource>,
        clock: Clock,
        timeout: Duration,
    ) -> Result<Self, PolicyStoreError> {
        let (store, rows) = PolicyStore::open(folder);
        if let Err(error @ PolicyStoreError::OtherVersion { .. }) = rows {
            return Err(error);
        }
        let (mut cache, now, mut gone) = (PolicyCache::default(), clock(), Vec::new());
        let mut failing = rows.is_err();
        for (mut policy, used) in rows.unwrap_or_else(|error| {
            tracing::error!(%error, "MTA-STS policies of before are not known, and new ones not saved; see to the disk");
            Vec::new()
        }) {
            if policy.fetched > now {
                // The clock was wrong then, or is now; either way it is entry no longer than it may be.
                Arc::make_mut(&mut policy).fetched = now;
            }
            gone.extend(cache.put(policy, used.min(now)).into_iter().map(PolicyChange::Remove));
        }
        if !gone.is_empty()
            && let Err(error) = store.write(&gone)
        {
            failing = true;
            tracing::error!(%error, "MTA-STS policies not saved: see to the disk");
        }
        Ok(Self(Arc::new(MtaStsInner {
            source: ArcSwap::from_pointee(source),
            clock,
            timeout,
            cache: Mutex::new(cache),
            running: Mutex::default(),
            store,
            failing: AtomicBool::new(failing),
        })))
    }

    /// How many policies are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.cache().len()
    }

    /// Looks for policies with another resolver or other trust anchors from now on. What is known stays.
    pub fn replace(&self, web: WebSource) {
        self.0.source.store(Arc::new(Box::new(web)));
    }

    /// The policy of a domain, for mail that is about to go there.
    ///
    /// One that is known and unexpired is given at once; now and then it is held against the domain's record
    /// behind the caller's back, and fetched where the id is another. At first contact the caller waits, at
    /// most about a minute, and nobody waits for another domain. A failure is remembered for five minutes
    /// (half a minute, if it was DNS's). A search goes on where the caller gives up.
    ///
    /// This must be called within a tokio runtime.
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

    /// The unexpired policy that is known, if any. Nothing is asked, and nothing noted.
    #[must_use]
    pub fn cached(&self, domain: &Domain) -> Option<Arc<StsPolicy>> {
        self.0.cache().policy(domain, (self.0.clock)()).cloned()
    }

    /// Looks for something newer than `policy`, before a delivery fails for good under it (RFC 8461 §5.1).
    /// The record is looked up, and the policy is fetched unless that was done minutes ago and its id is the
    /// same. Takes at most about a minute.
    pub async fn recheck(&self, policy: &StsPolicy) -> Recheck {
        let (domain, now) = (policy.domain(), (self.0.clock)());
        let purpose = {
            let known = self.0.cache();
            if let Some(failure) = known.failure(domain, now) {
                return Recheck::Unknown(Arc::clone(failure));
            }
            match known.policy(domain, now) {
                Some(policy) if now.duration_since(policy.fetched()) < RECENTLY_FETCHED => FetchPurpose::Check,
                Some(_) | None => FetchPurpose::Refetch,
            }
        };
        let mut result = self.fetch(domain, purpose).await;
        if let (FetchPurpose::Refetch, FetchResult::Unchanged) = (purpose, &result) {
            // The search that was under way was content with the id.
            result = self.fetch(domain, purpose).await;
        }
        let published = match result {
            FetchResult::Failed(failure) => return Recheck::Unknown(failure),
            result => self.policy_in_force(domain, result),
        };
        if published.terms() == Some(&policy.terms) { Recheck::Confirmed } else { Recheck::Changed(published) }
    }

    /// What is in force after a search.
    fn policy_in_force(&self, domain: &Domain, result: FetchResult) -> PublishedPolicy {
        match (self.cached(domain), result) {
            // Also one that may not be entry at all: it counts for those who waited for it.
            (_, FetchResult::Fetched(policy)) | (Some(policy), _) => PublishedPolicy::Policy(policy),
            (None, FetchResult::NoPolicy(absent)) => PublishedPolicy::None(absent),
            (None, FetchResult::Failed(failure)) => PublishedPolicy::None(NoPolicy::Failed(failure)),
            // It expired at this very moment; the next message will see.
            (None, FetchResult::Unchanged) => PublishedPolicy::None(NoPolicy::Failed(Arc::new(StsFailure::CutShort))),
        }
    }

    async fn fetch(&self, domain: &Domain, purpose: FetchPurpose) -> FetchResult {
        let mut fetch = self.start_fetch(domain, purpose);
        match fetch.wait_for(Option::is_some).await.map(|result| result.clone()) {
            Ok(Some(result)) => result,
            Ok(None) | Err(_) => FetchResult::Failed(Arc::new(StsFailure::CutShort)),
        }
    }

    /// Begins a search, or joins the one that is under way: there is one for each domain at a time. It is a
    /// task of its own, so that it ends well where those who wait for it give up; their number bounds it.
    fn start_fetch(&self, domain: &Domain, purpose: FetchPurpose) -> watch::Receiver<Option<FetchResult>> {
        let mut running = self.0.running();
        if let Some(fetch) = running.get(domain) {
            return fetch.clone();
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(domain.clone(), receiver.clone());
        let fetch = RunningFetch { inner: Arc::clone(&self.0), domain: domain.clone() };
        tokio::spawn(async move {
            let result = fetch.inner.run_fetch(&fetch.domain, purpose).await;
            // Whoever comes from here on begins another; those who wait are told.
            drop(fetch);
            sender.send_replace(Some(result));
        });
        receiver
    }
}

/// A search that is under way; it is no longer once this is dropped.
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
    /// Nothing in here panics while it holds the lock, and each change is whole.
    fn cache(&self) -> MutexGuard<'_, PolicyCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Domain, watch::Receiver<Option<FetchResult>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Searches, and notes what came of it.
    async fn run_fetch(&self, domain: &Domain, purpose: FetchPurpose) -> FetchResult {
        let known = {
            let (all, now) = (self.cache(), (self.clock)());
            match (purpose, all.policy(domain, now), all.failure(domain, now)) {
                // Somebody else's search landed since nothing was known.
                (FetchPurpose::FirstContact, Some(_), _) => return FetchResult::Unchanged,
                (FetchPurpose::FirstContact, None, Some(failure)) => return FetchResult::Failed(Arc::clone(failure)),
                (FetchPurpose::FirstContact, None, None) | (FetchPurpose::Refetch, _, _) => None,
                (FetchPurpose::Check, known, _) => known.map(|policy| policy.id().clone()),
            }
        };
        let source = self.source.load_full();
        let asked = timeout(self.timeout, query_source(&**source, domain, known)).await;
        match asked.unwrap_or(Err(StsFailure::Overrun(self.timeout))) {
            Ok(SourceReply::Policy(id, terms)) => {
                let fetched = (self.clock)();
                FetchResult::Fetched(self.store_policy(StsPolicy { domain: domain.clone(), id, terms, fetched }).await)
            }
            Ok(SourceReply::Unchanged) => {
                self.cache().confirm(domain, (self.clock)());
                FetchResult::Unchanged
            }
            Ok(SourceReply::NoPolicy(absent)) => {
                self.cache().confirm(domain, (self.clock)());
                FetchResult::NoPolicy(absent)
            }
            Err(failure) => FetchResult::Failed(self.record_failure(domain, failure)),
        }
    }

    /// Keeps a policy that was fetched.
    async fn store_policy(&self, policy: StsPolicy) -> Arc<StsPolicy> {
        let (policy, now) = (Arc::new(policy), (self.clock)());
        let (old, used, gone) = {
            let mut all = self.cache();
            let old = all.policy(policy.domain(), now).cloned();
            let used = all.used(policy.domain()).unwrap_or(now);
            let gone = all.put(Arc::clone(&policy), used);
            (old, used, gone)
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
        for domain in &gone {
            tracing::warn!(%domain, "MTA-STS policy dropped: as many are entry as may be; the next mail to the domain fetches it again");
        }
        let mut changes = vec![PolicyChange::Put(Arc::clone(&policy), used)];
        changes.extend(gone.into_iter().map(PolicyChange::Remove));
        self.save(changes).await;
        policy
    }

    fn record_failure(&self, domain: &Domain, failure: StsFailure) -> Arc<StsFailure> {
        let failure = Arc::new(failure);
        match self.cache().fail(domain, &failure, (self.clock)()) {
            Some(StsMode::Enforce | StsMode::Testing) => tracing::warn!(
                %domain,
                fault = %failure,
                "MTA-STS policy not refreshed: the one we have counts until it expires; tell the domain's postmaster"
            ),
            Some(StsMode::None) => tracing::debug!(%domain, fault = %failure, "MTA-STS policy not refreshed"),
            None => tracing::info!(
                %domain,
                fault = %failure,
                "MTA-STS policy not found: mail goes as if the domain published none"
            ),
        }
        failure
    }

    /// Writes to the disk. Where that fails, what is in memory counts all the same.
    async fn save(&self, changes: Vec<PolicyChange>) {
        if changes.is_empty() {
            return;
        }
        let store = self.store.clone();
        let written = tokio::task::spawn_blocking(move || store.write(&changes)).await;
        let result = match written {
            Ok(Err(PolicyStoreError::Damaged { fault, .. })) => {
                let (store, all) = (self.store.clone(), self.cache().all());
                tokio::task::spawn_blocking(move || store.recreate(&fault, all)).await
            }
            written => written,
        };
        match result {
            Ok(Ok(())) => self.failing.store(false, Ordering::Relaxed),
            Ok(Err(error)) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::error!(%error, "MTA-STS policies not saved: a restart forgets those of late; see to the disk");
            }
            Ok(Err(_)) => {}
            // It panicked, or the runtime is going down.
            Err(error) => tracing::warn!(%error, "saving MTA-STS policies was interrupted"),
        }
    }
}

/// Asks for the record, and for the policy unless the record names the one that is known.
async fn query_source(
    source: &dyn PolicySource,
    domain: &Domain,
    known: Option<PolicyId>,
) -> Result<SourceReply, StsFailure> {
    match source.record(domain).await? {
        StsRecord::Id(id) if known.as_ref() == Some(&id) => Ok(SourceReply::Unchanged),
        StsRecord::Id(id) => Ok(SourceReply::Policy(id, source.terms(domain).await?)),
        StsRecord::None => Ok(SourceReply::NoPolicy(NoPolicy::NoRecord)),
        StsRecord::Unusable(fault) => Ok(SourceReply::NoPolicy(NoPolicy::Unusable(fault))),
    }
}

#[cfg(test)]
mod tests;
