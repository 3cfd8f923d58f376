//! The CRLs of distribution points (RFC 5280 §4.2.1.13): fetched when the path of a peer needs them,
//! kept on disk, and fetched again before they expire.
//!
//! Only the certificates of a path that leads to the connector's trust anchors name what is
//! fetched, so that no stranger can. One fetch serves all sessions that wait for it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::pki_types::SignatureVerificationAlgorithm;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::changes::record_change;
use super::fetch::{
    CrlFuture, CrlNeed, CrlRequest, CrlResponse, CrlValidators, FetchCrl, FetchFault, PointKey,
    Reach, anchor_of, http_urls,
};
use super::point_files::{ALL_OCTETS_MAX, COUNT_MAX, PointFiles};
use super::{Crl, PathCertificate};
use crate::policy::tls::NoCrl;

/// The time for which sessions wait for a fetch. It goes on for later sessions.
const WAIT: Duration = Duration::from_secs(10);
/// The time limit of one fetch, over all URLs of a distribution point.
const FETCH_TIMEOUT: Duration = Duration::from_mins(1);
/// The most fetches at the same time.
const FETCHES_MAX: usize = 6;
/// The most fetches from one host at the same time, and the most for certificates below one anchor,
/// so that no partner's authority can keep the others' fetches waiting.
const GROUP_FETCHES_MAX: usize = 2;
/// The most fetches for certificates below one anchor that are under way or wait.
const WAITING_MAX: usize = 16;
/// The time after a failed fetch in which it is not tried again.
const RETRY: Duration = Duration::from_mins(5);
/// The shortest and the longest time between two fetches of a CRL that is used.
const REFRESH: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// The time after which a CRL that no session needed is no longer fetched.
const UNUSED: Duration = Duration::from_hours(7 * 24);
/// The interval of the search for CRLs that are due.
const ROUND: Duration = Duration::from_secs(20);

/// A fetcher that fetches nothing, for commands that must not.
struct NoFetch;

impl FetchCrl for NoFetch {
    fn fetch<'a>(&'a self, _: CrlRequest<'a>) -> CrlFuture<'a> {
        Box::pin(async { Err("CRLs are not fetched here".into()) })
    }
}

/// The CRLs of distribution points. There is one for the process; clones share it.
#[derive(Clone)]
pub struct DistributionPoints(Arc<PointsState>);

struct PointsState {
    points: Mutex<HashMap<PointKey, Point>>,
    fetcher: ArcSwap<Box<dyn FetchCrl>>,
    files: PointFiles,
    fetches: Semaphore,
    /// The limits of the hosts and anchors that have fetches.
    limits: Mutex<HashMap<FetchGroup, Arc<Semaphore>>>,
    fetched: AtomicU64,
    failed: AtomicU64,
}

/// The fetches from one host, or for certificates below one anchor.
#[derive(PartialEq, Eq, Hash)]
enum FetchGroup {
    Host(String),
    Anchor(String),
}

/// A distribution point of one issuer.
struct Point {
    crl: Option<Arc<Crl>>,
    validators: CrlValidators,
    /// The need of the last session; `None` if none needed it since the start.
    need: Option<CrlNeed>,
    last_used: Instant,
    /// The time from which it may be fetched again.
    due: Instant,
    /// The failure of the last fetch.
    failure: Option<String>,
    under_way: Option<FetchUnderWay>,
}

/// A fetch that is under way. It has ended when the sender is dropped.
#[derive(Clone)]
struct FetchUnderWay {
    ends: watch::Receiver<()>,
    since: Instant,
}

/// The CRL of a distribution point, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointSummary {
    /// Its first URL.
    pub url: String,
    /// The host of the URL.
    pub host: String,
    /// True if sessions have needed it lately, so that it is fetched again before it expires.
    pub is_used: bool,
    /// The CRL, if there is one.
    pub crl: Option<PointCrlSummary>,
    /// The failure of the last fetch.
    pub failure: Option<String>,
}

/// A fetched CRL, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointCrlSummary {
    /// The issuer's name.
    pub issuer: String,
    /// The number of certificates that it lists.
    pub entries: usize,
    /// The time at which it was issued.
    pub this_update: Timestamp,
    /// The time from which it has expired.
    pub next_update: Timestamp,
}

impl fmt::Debug for DistributionPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributionPoints")
            .field("points", &self.0.points().len())
            .finish_non_exhaustive()
    }
}

impl Default for DistributionPoints {
    /// Creates one that knows no CRLs and fetches none.
    fn default() -> Self {
        Self::new(PointFiles::none(), Box::new(NoFetch))
    }
}

impl PointsState {
    fn points(&self) -> MutexGuard<'_, HashMap<PointKey, Point>> {
        // No code panics while it holds the lock.
        self.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the limit of a group of fetches.
    fn group_limit(&self, group: FetchGroup) -> Arc<Semaphore> {
        // No code panics while it holds the lock.
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that no fetch holds are not needed.
        limits.retain(|_, limit| Arc::strong_count(limit) > 1);
        let new = || Arc::new(Semaphore::new(GROUP_FETCHES_MAX));
        Arc::clone(limits.entry(group).or_insert_with(new))
    }
}

impl DistributionPoints {
    /// Creates one with the CRLs that `files` has. This reads files and blocks.
    #[must_use]
    pub fn new(files: PointFiles, fetcher: Box<dyn FetchCrl>) -> Self {
        let now = Instant::now();
        let points = files.load().into_iter().map(|stored| {
            let point = Point {
                crl: Some(Arc::new(stored.crl)),
                validators: stored.validators,
                ..Point::new(now)
            };
            (stored.key, point)
        });
        Self(Arc::new(PointsState {
            points: Mutex::new(points.collect()),
            fetcher: ArcSwap::from_pointee(fetcher),
            files,
            fetches: Semaphore::new(FETCHES_MAX),
            limits: Mutex::default(),
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }))
    }

    /// Replaces the fetcher, as a reload does. All CRLs in use are fetched again soon.
    pub fn replace(&self, fetcher: Box<dyn FetchCrl>) {
        self.0.fetcher.store(Arc::new(fetcher));
        let now = Instant::now();
        for point in self.0.points().values_mut() {
            point.due = now;
        }
    }

    /// Returns all CRLs that are known.
    pub(crate) fn crls(&self) -> Vec<Arc<Crl>> {
        let points = self.0.points();
        points
            .values()
            .filter_map(|point| point.crl.clone())
            .collect()
    }

    /// Records that a session needs the CRLs of a path, fetches those that are missing, and waits for
    /// them for at most ten seconds.
    // Rule: RFC 5280 §6.3.3; policy table (revocation).
    pub(crate) async fn fetch_missing(
        &self,
        path: &[PathCertificate],
        missing: &[bool],
        reach: Reach,
        algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    ) {
        let Some(anchor) = anchor_of(path) else {
            return;
        };
        let mut waits = Vec::new();
        for (certificate, is_missing) in path.iter().zip(missing) {
            let Some((key, need)) = CrlNeed::of(certificate, (&anchor, reach), algorithms) else {
                continue;
            };
            if *is_missing {
                waits.extend(self.request(key, need));
            } else if let Some(point) = self.0.points().get_mut(&key) {
                point.record_use(need);
            }
        }
        for FetchUnderWay { mut ends, since } in waits {
            // An error of `changed` means that the fetch has ended. A fetch that takes longer goes
            // on without this session.
            let end = async { while ends.changed().await.is_ok() {} };
            let _ = timeout_at(since + WAIT, end).await;
        }
    }

    /// Starts the fetch for a distribution point unless it is too early. Returns the fetch that is
    /// under way, if it is worth a wait.
    fn request(&self, key: PointKey, need: CrlNeed) -> Option<FetchUnderWay> {
        let now = Instant::now();
        let mut points = self.0.points();
        let is_crowded = is_crowded(&points, &need.anchor);
        if !points.contains_key(&key) {
            if is_crowded {
                return None;
            }
            evict(&mut points, (COUNT_MAX - 1, ALL_OCTETS_MAX), None);
            if points.len() >= COUNT_MAX {
                return None;
            }
        }
        let point = points.entry(key.clone()).or_insert_with(|| Point::new(now));
        point.record_use(need.clone());
        if let Some(under_way) = point.under_way() {
            return (now < under_way.since + WAIT).then(|| under_way.clone());
        }
        if now < point.due || is_crowded {
            return None;
        }
        let (under_way, end) = point.begin(now);
        drop(points);
        tokio::spawn(self.clone().run_fetch(key, need, end));
        Some(under_way)
    }

    /// Fetches, checks and stores one CRL.
    async fn run_fetch(self, key: PointKey, need: CrlNeed, end: watch::Sender<()>) {
        let result = self.fetch_any(&key, &need).await;
        let stored = self.record_result(&key, result);
        drop(end);
        if let Some((crl, validators)) = stored {
            let state = Arc::clone(&self.0);
            let kept: Vec<PointKey> = self.0.points().keys().cloned().collect();
            let store = move || state.files.store(&key, &validators, &crl, &kept);
            // A failure is logged there. The CRL is in use nevertheless.
            let _ = tokio::task::spawn_blocking(store).await;
        }
    }

    /// Keeps the result of a fetch. Returns the CRL, if it is a new one.
    fn record_result(
        &self,
        key: &PointKey,
        result: Result<Option<(Arc<Crl>, CrlValidators)>, String>,
    ) -> Option<(Arc<Crl>, CrlValidators)> {
        let counter = if result.is_ok() {
            &self.0.fetched
        } else {
            &self.0.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let (now, time) = (Instant::now(), Timestamp::now());
        let mut points = self.0.points();
        let point = points.get_mut(key)?;
        point.under_way = None;
        match result {
            Ok(new) => {
                if let Some((crl, validators)) = &new {
                    let held = point.crl.replace(Arc::clone(crl));
                    point.validators = validators.clone();
                    if held.is_none_or(|held| held.der() != crl.der()) {
                        record_change();
                        tracing::info!(
                            url = %key.url, issuer = crl.issuer(), entries = crl.entries(),
                            next_update = %crl.next_update(), "CRL fetched"
                        );
                    }
                }
                let next = point.crl.as_ref().map(|crl| crl.next_update());
                let left = next.map_or(Duration::ZERO, |next| until(time, next));
                point.failure = next
                    .filter(|next| *next <= time)
                    .map(|next| format!("{}: {}", key.url, FetchFault::Expired(next)));
                point.due = now
                    + match point.failure {
                        None => (left / 2).clamp(REFRESH.0, REFRESH.1),
                        Some(_) => RETRY,
                    };
                evict(&mut points, (COUNT_MAX, ALL_OCTETS_MAX), Some(key));
                new
            }
            Err(failure) => {
                // One line for each attempt, of which there is one in five minutes.
                tracing::warn!(url = %key.url, "cannot fetch a CRL: {failure}");
                point.failure = Some(failure);
                point.due = now + RETRY;
                None
            }
        }
    }

    /// Tries the URLs of a distribution point one after the other. Returns `None` if the CRL that is
    /// held is still the newest.
    async fn fetch_any(
        &self,
        key: &PointKey,
        need: &CrlNeed,
    ) -> Result<Option<(Arc<Crl>, CrlValidators)>, String> {
        // The semaphores are never closed.
        let anchor = self.0.group_limit(FetchGroup::Anchor(need.anchor.clone()));
        let _of_anchor = anchor.acquire().await;
        let host = FetchGroup::Host(key.host().to_ascii_lowercase());
        let host = self.0.group_limit(host);
        let _of_host = host.acquire().await;
        let _of_all = self.0.fetches.acquire().await;
        let attempts = async {
            let mut failures = Vec::new();
            for url in &need.urls {
                match self.fetch_one(key, need, url).await {
                    Ok(found) => return Ok(found),
                    Err(fault) => failures.push(format!("{url}: {fault}")),
                }
            }
            Err(failures.join("; "))
        };
        timeout(FETCH_TIMEOUT, attempts).await.unwrap_or_else(|_| {
            Err(format!(
                "{}: {}",
                key.url,
                FetchFault::Timeout(FETCH_TIMEOUT)
            ))
        })
    }

    async fn fetch_one(
        &self,
        key: &PointKey,
        need: &CrlNeed,
        url: &str,
    ) -> Result<Option<(Arc<Crl>, CrlValidators)>, FetchFault> {
        let (held, validators) = match self.0.points().get(key) {
            Some(point) => (point.crl.clone(), point.validators.clone()),
            None => (None, CrlValidators::default()),
        };
        let held = match held {
            Some(crl) => {
                let need = need.clone();
                blocking(move || need.is_signed(&crl).then_some(crl)).await?
            }
            None => None,
        };
        let is_current = |crl: &Arc<Crl>| Timestamp::now() < crl.next_update();
        // The validators are those of the first URL, or none.
        let is_first = *url == *key.url;
        let is_held = held.as_ref().is_some_and(is_current) && is_first;
        let request = CrlRequest {
            url,
            reach: need.reach,
            held: is_held.then_some(&validators),
        };
        let fetcher = self.0.fetcher.load_full();
        let response = fetcher.fetch(request).await;
        match response.map_err(|error| FetchFault::Transfer(error.to_string()))? {
            CrlResponse::Unchanged => Ok(None),
            CrlResponse::Content(octets, validators) => {
                let need = need.clone();
                let crl = blocking(move || need.check(&octets, held.as_deref())).await??;
                let validators = if is_first {
                    validators
                } else {
                    CrlValidators::default()
                };
                Ok(Some((crl, validators)))
            }
        }
    }

    /// Fetches CRLs again before they expire, for as long as sessions need them. Never ends.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(ROUND).await;
            self.refresh_due();
        }
    }

    /// Starts the fetches that are due. `keep_fresh` does so three times a minute.
    pub fn refresh_due(&self) {
        let now = Instant::now();
        let mut points = self.0.points();
        let is_due =
            |point: &Point| now >= point.due && point.is_used(now) && point.under_way().is_none();
        let due: Vec<_> = points
            .iter()
            .filter(|(_, point)| is_due(point))
            .filter_map(|(key, point)| Some((key.clone(), point.need.clone()?)))
            .collect();
        for (key, need) in due {
            // The others have their turn in a later round.
            if !is_crowded(&points, &need.anchor)
                && let Some(point) = points.get_mut(&key)
            {
                let (_, end) = point.begin(now);
                tokio::spawn(self.clone().run_fetch(key, need, end));
            }
        }
    }

    /// Describes all distribution points, sorted by URL.
    #[must_use]
    pub fn summaries(&self) -> Vec<PointSummary> {
        let now = Instant::now();
        let points = self.0.points();
        let mut all: Vec<_> = points.iter().collect();
        all.sort_by_key(|(key, _)| *key);
        all.into_iter()
            .map(|(key, point)| PointSummary {
                url: key.url.clone(),
                host: key.host().to_owned(),
                is_used: point.is_used(now),
                crl: point.crl.as_ref().map(|crl| PointCrlSummary {
                    issuer: crl.issuer().to_owned(),
                    entries: crl.entries(),
                    this_update: crl.this_update(),
                    next_update: crl.next_update(),
                }),
                failure: point.failure.clone(),
            })
            .collect()
    }

    /// Returns the numbers of fetches that succeeded and that failed since the start.
    #[must_use]
    pub fn fetches(&self) -> (u64, u64) {
        (
            self.0.fetched.load(Ordering::Relaxed),
            self.0.failed.load(Ordering::Relaxed),
        )
    }
}

/// Returns the reason why no CRL covers a certificate, where those of distribution points are used.
pub(crate) fn no_crl(certificate: &PathCertificate) -> NoCrl {
    match http_urls(certificate).next() {
        None => NoCrl::NoSource,
        Some(_) => NoCrl::NotFetched,
    }
}

/// Runs work that takes a while for a large CRL.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FetchFault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| FetchFault::Transfer(error.to_string()))
}

impl Point {
    fn new(now: Instant) -> Self {
        Self {
            crl: None,
            validators: CrlValidators::default(),
            need: None,
            last_used: now,
            due: now,
            failure: None,
            under_way: None,
        }
    }

    fn record_use(&mut self, need: CrlNeed) {
        self.last_used = Instant::now();
        self.need = Some(need);
    }

    /// The anchor of the path that needed it last; empty if none has since the start.
    fn anchor(&self) -> &str {
        self.need.as_ref().map_or("", |need| &need.anchor)
    }

    /// Returns true if a session has needed it since the start, and lately.
    fn is_used(&self, now: Instant) -> bool {
        self.need.is_some() && now < self.last_used + UNUSED
    }

    /// The fetch that is under way. One whose task has ended is not.
    fn under_way(&self) -> Option<&FetchUnderWay> {
        self.under_way
            .as_ref()
            .filter(|under_way| under_way.ends.has_changed().is_ok())
    }

    /// Records that a fetch begins; it ends when the sender is dropped.
    fn begin(&mut self, now: Instant) -> (FetchUnderWay, watch::Sender<()>) {
        let (end, ends) = watch::channel(());
        let under_way = FetchUnderWay { ends, since: now };
        self.under_way = Some(under_way.clone());
        (under_way, end)
    }
}

/// Returns true if no more fetches for certificates below an anchor may begin or wait.
fn is_crowded(points: &HashMap<PointKey, Point>, anchor: &str) -> bool {
    let of_anchor = points.values().filter(|point| point.anchor() == anchor);
    let waiting = of_anchor.filter(|point| point.under_way().is_some());
    waiting.count() >= WAITING_MAX
}

/// Removes points, except `kept`, until at most so many are left, and their CRLs have at most so many
/// octets. Of the anchor that has the most, the one that was used least recently goes first, so that
/// an authority that names many leaves those of others alone.
fn evict(
    points: &mut HashMap<PointKey, Point>,
    (count, octets): (usize, usize),
    kept: Option<&PointKey>,
) {
    let size = |point: &Point| point.crl.as_ref().map_or(0, |crl| crl.der().len());
    loop {
        let are_many = points.len() > count;
        if !are_many && points.values().map(size).sum::<usize>() <= octets {
            return;
        }
        let weight = |point: &Point| if are_many { 1 } else { size(point) };
        let mut of_anchors = HashMap::<&str, usize>::new();
        for point in points.values() {
            *of_anchors.entry(point.anchor()).or_default() += weight(point);
        }
        let victim = points
            .iter()
            .filter(|(key, point)| point.under_way().is_none() && Some(*key) != kept)
            .filter(|(_, point)| weight(point) > 0)
            .max_by_key(|(_, point)| (of_anchors.get(point.anchor()), Reverse(point.last_used)))
            .map(|(key, _)| key.clone());
        if victim.and_then(|key| points.remove(&key)).is_none() {
            return;
        }
    }
}

/// Returns the time from `now` to `then`; zero if it is over.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
