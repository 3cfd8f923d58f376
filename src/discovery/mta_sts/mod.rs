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

mod failure;
mod policy;
mod record;
mod refresh;
mod shelf;
mod store;
mod web;

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
pub use failure::{Absent, Failure, FailureKind};
pub use policy::{Listing, Mode, Policy, PolicyFault, evaluate};
pub use record::{PolicyId, RecordFault};
use shelf::{Held, Known, Shelf};
pub use store::StoreError;
use store::{Change, Store};
pub use web::{FETCH, Web};
use web::{Record, Source};
#[cfg(fuzzing)]
pub use {policy::fuzzed as policy_body, record::fuzzed as record_id};

/// Record and policy together, at most; so long a message waits at first contact.
const SEARCH: Duration = Duration::from_mins(1);
/// A policy that was fetched this short a while ago need not be fetched again while its id is the same.
const JUST_FETCHED: SignedDuration = SignedDuration::from_mins(5);

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a domain has published, for a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// No policy is in force.
    None(Absent),
    /// This one is; its mode may be [`Mode::None`].
    Policy(Arc<Policy>),
}

impl Published {
    fn terms(&self) -> Option<&policy::Terms> {
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
    Changed(Published),
    /// Nobody can tell, so the failure must not be permanent.
    Unknown(Arc<Failure>),
}

/// The policies of all domains. One for the process; a clone is the same.
#[derive(Clone)]
pub struct MtaSts(Arc<Inner>);

struct Inner {
    source: ArcSwap<Box<dyn Source>>,
    clock: Clock,
    /// How long a search may take.
    patience: Duration,
    shelf: Mutex<Shelf>,
    flights: Mutex<HashMap<Domain, watch::Receiver<Option<Landing>>>>,
    store: Store,
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
enum Errand {
    /// Nothing is known of the domain.
    First,
    /// The record may name another policy than the one we have.
    Check,
    /// The policy is to be fetched, whatever the record names.
    Refetch,
}

/// What a search came to.
#[derive(Debug, Clone)]
enum Landing {
    Fetched(Arc<Policy>),
    /// There was nothing to fetch.
    Same,
    Absent(Absent),
    Failed(Arc<Failure>),
}

/// What record and host say.
enum Answer {
    Policy(PolicyId, policy::Terms),
    Same,
    Absent(Absent),
}

impl MtaSts {
    /// Opens the policies that are kept in `policies.db` in the spool's folder. This reads files: it is not for
    /// a thread that drives other tasks.
    ///
    /// A damaged file is set aside and begun anew. Where the disk refuses, the log says so, and policies are
    /// kept in memory until it no longer does: mail does not wait for a cache.
    ///
    /// # Errors
    /// Where another version of Gatepost wrote the file, which is not touched then.
    pub fn open(folder: &Path, web: Web) -> Result<Self, StoreError> {
        Self::open_at(folder, web, Arc::new(Timestamp::now))
    }

    /// The same with a clock of one's own.
    ///
    /// # Errors
    /// As there.
    pub fn open_at(folder: &Path, web: Web, clock: Clock) -> Result<Self, StoreError> {
        Self::from_source(folder, Box::new(web), clock, SEARCH)
    }

    fn from_source(
        folder: &Path,
        source: Box<dyn Source>,
        clock: Clock,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        let (store, rows) = Store::open(folder);
        if let Err(error @ StoreError::OtherVersion { .. }) = rows {
            return Err(error);
        }
        let (mut shelf, now, mut gone) = (Shelf::default(), clock(), Vec::new());
        let mut failing = rows.is_err();
        for (mut policy, used) in rows.unwrap_or_else(|error| {
            tracing::error!(%error, "MTA-STS policies of before are not known, and new ones not saved; see to the disk");
            Vec::new()
        }) {
            if policy.fetched > now {
                // The clock was wrong then, or is now; either way it is kept no longer than it may be.
                Arc::make_mut(&mut policy).fetched = now;
            }
            gone.extend(shelf.put(policy, used.min(now)).into_iter().map(Change::Remove));
        }
        if !gone.is_empty()
            && let Err(error) = store.write(&gone)
        {
            failing = true;
            tracing::error!(%error, "MTA-STS policies not saved: see to the disk");
        }
        Ok(Self(Arc::new(Inner {
            source: ArcSwap::from_pointee(source),
            clock,
            patience,
            shelf: Mutex::new(shelf),
            flights: Mutex::default(),
            store,
            failing: AtomicBool::new(failing),
        })))
    }

    /// How many policies are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.shelf().len()
    }

    /// Looks for policies with another resolver or other trust anchors from now on. What is known stays.
    pub fn replace(&self, web: Web) {
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
    pub async fn policy(&self, domain: &Domain) -> Published {
        let known = self.0.shelf().look(domain, (self.0.clock)());
        match known {
            Known::Policy { policy, check } => {
                if check {
                    self.fly(domain, Errand::Check);
                }
                Published::Policy(policy)
            }
            Known::Failed(failure) => Published::None(Absent::Failed(failure)),
            Known::Nothing => {
                let landing = self.search(domain, Errand::First).await;
                self.published(domain, landing)
            }
        }
    }

    /// The unexpired policy that is known, if any. Nothing is asked, and nothing noted.
    #[must_use]
    pub fn cached(&self, domain: &Domain) -> Option<Arc<Policy>> {
        self.0.shelf().policy(domain, (self.0.clock)()).cloned()
    }

    /// Looks for something newer than `policy`, before a delivery fails for good under it (RFC 8461 §5.1).
    /// The record is looked up, and the policy is fetched unless that was done minutes ago and its id is the
    /// same. Takes at most about a minute.
    pub async fn recheck(&self, policy: &Policy) -> Recheck {
        let (domain, now) = (policy.domain(), (self.0.clock)());
        let errand = {
            let known = self.0.shelf();
            if let Some(failure) = known.trouble(domain, now) {
                return Recheck::Unknown(Arc::clone(failure));
            }
            match known.policy(domain, now) {
                Some(policy) if now.duration_since(policy.fetched()) < JUST_FETCHED => Errand::Check,
                Some(_) | None => Errand::Refetch,
            }
        };
        let mut landing = self.search(domain, errand).await;
        if let (Errand::Refetch, Landing::Same) = (errand, &landing) {
            // The search that was under way was content with the id.
            landing = self.search(domain, errand).await;
        }
        let published = match landing {
            Landing::Failed(failure) => return Recheck::Unknown(failure),
            landing => self.published(domain, landing),
        };
        if published.terms() == Some(&policy.terms) { Recheck::Confirmed } else { Recheck::Changed(published) }
    }

    /// What is in force after a search.
    fn published(&self, domain: &Domain, landing: Landing) -> Published {
        match (self.cached(domain), landing) {
            // Also one that may not be kept at all: it counts for those who waited for it.
            (_, Landing::Fetched(policy)) | (Some(policy), _) => Published::Policy(policy),
            (None, Landing::Absent(absent)) => Published::None(absent),
            (None, Landing::Failed(failure)) => Published::None(Absent::Failed(failure)),
            // It expired at this very moment; the next message will see.
            (None, Landing::Same) => Published::None(Absent::Failed(Arc::new(Failure::CutShort))),
        }
    }

    async fn search(&self, domain: &Domain, errand: Errand) -> Landing {
        let mut flight = self.fly(domain, errand);
        match flight.wait_for(Option::is_some).await.map(|landing| landing.clone()) {
            Ok(Some(landing)) => landing,
            Ok(None) | Err(_) => Landing::Failed(Arc::new(Failure::CutShort)),
        }
    }

    /// Begins a search, or joins the one that is under way: there is one for each domain at a time. It is a
    /// task of its own, so that it ends well where those who wait for it give up; their number bounds it.
    fn fly(&self, domain: &Domain, errand: Errand) -> watch::Receiver<Option<Landing>> {
        let mut flights = self.0.flights();
        if let Some(flight) = flights.get(domain) {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(domain.clone(), receiver.clone());
        let flight = Flight { inner: Arc::clone(&self.0), domain: domain.clone() };
        tokio::spawn(async move {
            let landing = flight.inner.land(&flight.domain, errand).await;
            // Whoever comes from here on begins another; those who wait are told.
            drop(flight);
            sender.send_replace(Some(landing));
        });
        receiver
    }
}

/// A search that is under way; it is no longer once this is dropped.
struct Flight {
    inner: Arc<Inner>,
    domain: Domain,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.inner.flights().remove(&self.domain);
    }
}

impl Inner {
    /// Nothing in here panics while it holds the lock, and each change is whole.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Domain, watch::Receiver<Option<Landing>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Searches, and notes what came of it.
    async fn land(&self, domain: &Domain, errand: Errand) -> Landing {
        let known = {
            let (all, now) = (self.shelf(), (self.clock)());
            match (errand, all.policy(domain, now), all.trouble(domain, now)) {
                // Somebody else's search landed since nothing was known.
                (Errand::First, Some(_), _) => return Landing::Same,
                (Errand::First, None, Some(failure)) => return Landing::Failed(Arc::clone(failure)),
                (Errand::First, None, None) | (Errand::Refetch, _, _) => None,
                (Errand::Check, known, _) => known.map(|policy| policy.id().clone()),
            }
        };
        let source = self.source.load_full();
        let asked = timeout(self.patience, ask(&**source, domain, known)).await;
        match asked.unwrap_or(Err(Failure::Overrun(self.patience))) {
            Ok(Answer::Policy(id, terms)) => {
                let fetched = (self.clock)();
                Landing::Fetched(self.take(Policy { domain: domain.clone(), id, terms, fetched }).await)
            }
            Ok(Answer::Same) => {
                self.shelf().confirm(domain, (self.clock)());
                Landing::Same
            }
            Ok(Answer::Absent(absent)) => {
                self.shelf().confirm(domain, (self.clock)());
                Landing::Absent(absent)
            }
            Err(failure) => Landing::Failed(self.note(domain, failure)),
        }
    }

    /// Keeps a policy that was fetched.
    async fn take(&self, policy: Policy) -> Arc<Policy> {
        let (policy, now) = (Arc::new(policy), (self.clock)());
        let (old, used, gone) = {
            let mut all = self.shelf();
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
            tracing::warn!(%domain, "MTA-STS policy dropped: as many are kept as may be; the next mail to the domain fetches it again");
        }
        let mut changes = vec![Change::Put(Arc::clone(&policy), used)];
        changes.extend(gone.into_iter().map(Change::Remove));
        self.save(changes).await;
        policy
    }

    fn note(&self, domain: &Domain, failure: Failure) -> Arc<Failure> {
        let failure = Arc::new(failure);
        match self.shelf().fail(domain, &failure, (self.clock)()) {
            Held::Cached(Mode::Enforce | Mode::Testing) => tracing::warn!(
                %domain,
                fault = %failure,
                "MTA-STS policy not refreshed: the one we have counts until it expires; tell the domain's postmaster"
            ),
            Held::Cached(Mode::None) => tracing::debug!(%domain, fault = %failure, "MTA-STS policy not refreshed"),
            Held::Nothing => tracing::info!(
                %domain,
                fault = %failure,
                "MTA-STS policy not found: mail goes as if the domain published none"
            ),
        }
        failure
    }

    /// Writes to the disk. Where that fails, what is in memory counts all the same.
    async fn save(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let store = self.store.clone();
        let written = tokio::task::spawn_blocking(move || store.write(&changes)).await;
        let result = match written {
            Ok(Err(StoreError::Damaged { fault, .. })) => {
                let (store, all) = (self.store.clone(), self.shelf().all());
                tokio::task::spawn_blocking(move || store.begin_anew(&fault, all)).await
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
            Err(error) => tracing::warn!(%error, "saving MTA-STS policies was cut short"),
        }
    }
}

/// Asks for the record, and for the policy unless the record names the one that is known.
async fn ask(source: &dyn Source, domain: &Domain, known: Option<PolicyId>) -> Result<Answer, Failure> {
    match source.record(domain).await? {
        Record::Id(id) if known.as_ref() == Some(&id) => Ok(Answer::Same),
        Record::Id(id) => Ok(Answer::Policy(id, source.terms(domain).await?)),
        Record::None => Ok(Answer::Absent(Absent::NoRecord)),
        Record::Unusable(fault) => Ok(Answer::Absent(Absent::Unusable(fault))),
    }
}

#[cfg(test)]
mod tests;
