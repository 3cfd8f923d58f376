//! The checks of a session's certificate chain: one path search for each set of trust anchors, on
//! blocking threads.
//!
//! The peer's certificates decide how long a search takes. For each direction, at most half as many
//! searches run at once as there are processors, so that a peer who sends many certificates delays
//! only searches of the same direction.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;

use super::path_search::Issuers;
use super::{Role, TrustAnchors, certificate, chain, dane};
use crate::net::revocation::{self, Crl, CrlFile, DistributionPoints, PathCertificate};
use crate::policy::tls::{
    CertificateFacts, ChainFault, DaneFacts, DaneFault, NamePattern, NoCrl, PathMemberStatus, Pin,
    RevocationFacts, RevocationStatus, TlsPolicy, Tlsa, TlsaSet,
};

/// The limit of concurrent searches in the chains of servers.
static SERVER_SEARCHES: LazyLock<Arc<Semaphore>> = LazyLock::new(limit);
/// The limit of concurrent searches in the chains of clients. It is a separate one, so that a flood
/// of clients does not delay deliveries.
static CLIENT_SEARCHES: LazyLock<Arc<Semaphore>> = LazyLock::new(limit);

fn limit() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(
        thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
    ))
}

/// The results for the chain of one session.
#[derive(Debug, Default)]
pub(super) struct ChainResults {
    summary: OnceLock<LeafSummary>,
    /// The result for each set of trust anchors that has been searched.
    paths: Mutex<Vec<PathResult>>,
}

/// The content of the peer's own certificate.
#[derive(Debug)]
struct LeafSummary {
    names: Vec<NamePattern>,
    issuer: String,
    not_after: Timestamp,
}

#[derive(Debug)]
struct PathResult {
    trust: Arc<TrustAnchors>,
    /// True if the path was searched for with its certificates below the anchor.
    has_certificates: bool,
    result: Result<Arc<[PathCertificate]>, ChainFault>,
}

impl ChainResults {
    fn paths(&self) -> MutexGuard<'_, Vec<PathResult>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result of the search under these anchors, if there was one that suffices.
    fn path(&self, wanted: &WantedPath) -> Option<Result<Arc<[PathCertificate]>, ChainFault>> {
        let is_wanted = |path: &&PathResult| {
            Arc::ptr_eq(&path.trust, &wanted.trust)
                && (path.has_certificates || !wanted.with_certificates)
        };
        self.paths()
            .iter()
            .find(is_wanted)
            .map(|path| path.result.clone())
    }

    /// The number of searches.
    #[cfg(test)]
    pub(super) fn searches(&self) -> usize {
        self.paths().len()
    }
}

/// A path to search for.
#[derive(Debug, Clone)]
struct WantedPath {
    trust: Arc<TrustAnchors>,
    /// True if the certificates below the anchor are needed, for their revocation status.
    with_certificates: bool,
}

/// The chain that a peer sent in a session.
#[derive(Debug, Clone)]
pub(super) struct SentChain {
    /// The certificates as sent, at least one. The first is the peer's own.
    pub(super) sent: Arc<[CertificateDer<'static>]>,
    /// The hash of the key in the peer's own certificate.
    pub(super) key: Pin,
    pub(super) results: Arc<ChainResults>,
}

impl SentChain {
    /// Returns the facts of the chain, with the results of the requested checks.
    pub(super) async fn facts(
        &self,
        checks: ChainChecks<'_>,
        role: Role,
        now: Timestamp,
    ) -> CertificateFacts {
        let path = |is_asked: bool, trust: &Arc<TrustAnchors>, with_certificates| {
            is_asked.then(|| WantedPath {
                trust: Arc::clone(trust),
                with_certificates,
            })
        };
        let connector = path(
            checks.paths.connector,
            checks.trust,
            checks.paths.revocation,
        );
        let default = path(checks.paths.default, checks.default_trust, false);
        let search = ChainSearch {
            chain: self.clone(),
            paths: [&connector, &default]
                .into_iter()
                .flatten()
                .filter(|path| self.results.path(path).is_none())
                .cloned()
                .collect(),
            crls: checks.known_crls(),
            tlsa: checks
                .tlsa
                .map(|set| (Arc::clone(set), Arc::clone(checks.trust))),
            role,
            now,
        };
        let dane = if search.is_done() {
            None
        } else {
            run_blocking(role, move || search.run()).await
        };
        let result =
            |wanted: Option<&WantedPath>| match wanted.and_then(|path| self.results.path(path)) {
                Some(result) => result,
                None => Err(ChainFault::NotChecked),
            };
        let chain = result(connector.as_ref());
        let revocation = match &chain {
            Ok(path) if checks.paths.revocation => {
                path_status(Arc::clone(path), checks, role, now).await
            }
            Ok(_) | Err(_) => RevocationFacts::NotChecked,
        };
        let summary = self.results.summary.get();
        CertificateFacts {
            names: summary
                .map(|summary| summary.names.clone())
                .unwrap_or_default(),
            chain: chain.map(|_| ()),
            default_chain: result(default.as_ref()).map(|_| ()),
            key: self.key,
            issuer: summary
                .map(|summary| summary.issuer.clone())
                .unwrap_or_default(),
            not_after: summary.map_or(Timestamp::MIN, |summary| summary.not_after),
            dane: match (checks.tlsa, dane) {
                (Some(set), Some(result)) => DaneFacts::Checked {
                    records: Arc::clone(set),
                    result,
                },
                _ => DaneFacts::NotChecked,
            },
            revocation,
        }
    }
}

/// Returns the revocation status of a path. CRLs that are missing are fetched, within a limited
/// time. The result is not kept, because a session may outlive a CRL.
async fn path_status(
    path: Arc<[PathCertificate]>,
    checks: ChainChecks<'_>,
    role: Role,
    now: Timestamp,
) -> RevocationFacts {
    let changes = revocation::crl_changes();
    let known = known_status(Arc::clone(&path), checks, role, now).await;
    let Some(points) = checks.points else {
        return RevocationFacts::Checked(known);
    };
    let is_missing = |status: &PathMemberStatus| match status.status {
        RevocationStatus::Good(_) | RevocationStatus::Revoked(_) => false,
        RevocationStatus::Expired(_) | RevocationStatus::Unknown(_) => true,
    };
    let missing: Vec<bool> = known.iter().map(is_missing).collect();
    let (reach, algorithms) = (checks.trust.reach(), checks.trust.algorithms());
    points
        .fetch_missing(&path, &missing, reach, algorithms)
        .await;
    // The fetch of another session may have ended before this one could wait for it.
    if revocation::crl_changes() == changes {
        return RevocationFacts::Checked(known);
    }
    RevocationFacts::Checked(known_status(path, checks, role, now).await)
}

/// Returns the revocation status of a path by the CRLs that are known now.
async fn known_status(
    path: Arc<[PathCertificate]>,
    checks: ChainChecks<'_>,
    role: Role,
    now: Timestamp,
) -> Vec<PathMemberStatus> {
    // Without an issuer's key no signature can be checked, so that only the administrator's files
    // count.
    let crls = if path.iter().all(PathCertificate::has_issuer) {
        checks.known_crls()
    } else {
        checks.crls_of_files()
    };
    let algorithms = checks.trust.algorithms();
    let no_crl: fn(&PathCertificate) -> NoCrl = match checks.points {
        Some(_) => revocation::no_crl,
        None => |_| NoCrl::NoSource,
    };
    // The signature of a large CRL takes a while to check.
    let status = run_blocking(role, move || {
        revocation::path_status(&path, &crls, algorithms, now, no_crl)
    });
    status.await
}

/// The searches that are not yet done for a chain.
struct ChainSearch {
    chain: SentChain,
    paths: Vec<WantedPath>,
    /// The known CRLs.
    crls: Vec<Arc<Crl>>,
    /// The TLSA records, and the anchors whose signature algorithms apply.
    tlsa: Option<(Arc<TlsaSet>, Arc<TrustAnchors>)>,
    role: Role,
    now: Timestamp,
}

impl ChainSearch {
    fn is_done(&self) -> bool {
        self.paths.is_empty() && self.tlsa.is_none() && self.chain.results.summary.get().is_some()
    }

    /// Runs the searches and stores their results. Returns the result for TLSA records, if there
    /// are any.
    fn run(self) -> Option<Result<Tlsa, DaneFault>> {
        let (leaf, sent) = self.chain.sent.split_first()?;
        let (issuers, results) = (Issuers::of(sent), &self.chain.results);
        let summary = results.summary.get_or_init(|| {
            let (issuer, not_after) = certificate::issuer_and_end(leaf);
            LeafSummary {
                names: certificate::dns_names(leaf),
                issuer,
                not_after,
            }
        });
        for path in self.paths {
            if results.path(&path).is_none() {
                let WantedPath {
                    trust,
                    with_certificates,
                } = path;
                let crls = with_certificates.then_some(&self.crls[..]);
                let found = chain::check(leaf, &issuers, &trust, crls, self.role, self.now);
                results.paths().push(PathResult {
                    trust,
                    has_certificates: with_certificates,
                    result: found.map(Arc::from),
                });
            }
        }
        let (records, trust) = self.tlsa?;
        Some(dane::find_match(
            &records,
            leaf,
            &issuers,
            &summary.names,
            trust.algorithms(),
            self.now,
        ))
    }
}

/// Runs a search on a blocking thread, within the limit for its direction. It completes even if the
/// caller no longer waits.
async fn run_blocking<T: Send + 'static>(
    role: Role,
    search: impl FnOnce() -> T + Send + 'static,
) -> T {
    let limit = match role {
        Role::Server => Arc::clone(&SERVER_SEARCHES),
        Role::Client => Arc::clone(&CLIENT_SEARCHES),
    };
    // The semaphore is never closed. If it were, the search would run without a limit.
    let permit = limit.acquire_owned().await.ok();
    let task = tokio::task::spawn_blocking(move || {
        let done = search();
        drop(permit);
        done
    });
    match task.await {
        Ok(done) => done,
        Err(end) => match end.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The trust anchors and TLSA records that a certificate is checked with.
#[derive(Debug, Clone, Copy)]
pub struct ChainChecks<'a> {
    /// The connector's trust anchors.
    pub trust: &'a Arc<TrustAnchors>,
    /// The anchors of `[tls] trust`.
    pub default_trust: &'a Arc<TrustAnchors>,
    /// The CRL files of the connector.
    pub crl: &'a [Arc<CrlFile>],
    /// The CRLs of distribution points; `None` if none are used.
    pub points: Option<&'a DistributionPoints>,
    /// The usable TLSA records of the host; `None` if it has none.
    pub tlsa: Option<&'a Arc<TlsaSet>>,
    /// The paths to search for.
    pub paths: PathChecks,
}

/// The trust anchors for which a path is searched. For the others the result is
/// [`ChainFault::NotChecked`](crate::policy::tls::ChainFault).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathChecks {
    /// The connector's anchors.
    pub connector: bool,
    /// The anchors of `[tls] trust`.
    pub default: bool,
    /// The revocation status of the path to the connector's anchors.
    pub revocation: bool,
}

impl<'a> ChainChecks<'a> {
    /// Adds the CRLs of distribution points, which are fetched if they are needed.
    #[must_use]
    pub fn with_points(self, points: &'a DistributionPoints) -> Self {
        Self {
            points: Some(points),
            ..self
        }
    }
}

impl ChainChecks<'_> {
    /// Returns the known CRLs, if revocation matters.
    fn known_crls(&self) -> Vec<Arc<Crl>> {
        if !self.paths.revocation {
            return Vec::new();
        }
        let mut crls = self.crls_of_files();
        crls.extend(self.points.iter().flat_map(|points| points.crls()));
        crls
    }

    /// Returns the CRLs of the connector's files.
    fn crls_of_files(&self) -> Vec<Arc<Crl>> {
        self.crl.iter().flat_map(|file| file.crls()).collect()
    }

    /// Limits the path searches to those that a policy needs.
    #[must_use]
    pub fn for_policy(self, policy: &TlsPolicy) -> Self {
        Self {
            paths: PathChecks {
                connector: policy.asks_for_chain(),
                default: policy.asks_for_default_chain(),
                revocation: policy.asks_for_revocation(),
            },
            ..self
        }
    }

    /// Adds the path search for the connector's anchors, for the record.
    #[must_use]
    pub fn and_connector_path(self) -> Self {
        Self {
            paths: PathChecks {
                connector: true,
                ..self.paths
            },
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Located, Location, TrustSource};
    use crate::net::tls_io::PathChecks;

    fn anchors() -> Arc<TrustAnchors> {
        let location = Location {
            file: Arc::from(Path::new("gatepost.toml")),
            line: 1,
            column: 1,
        };
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let loaded = TrustAnchors::load(
            &Located {
                value: TrustSource::Webpki,
                location,
            },
            &provider,
            Timestamp::now(),
        );
        Arc::new(loaded.expect("they are built in").0)
    }

    #[tokio::test]
    async fn a_path_is_searched_for_once_in_a_session_and_only_on_request() {
        let pair = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()])
            .expect("a certificate");
        let chain = SentChain {
            sent: Arc::from([pair.cert.der().clone()]),
            key: Pin::new([0; 32]),
            results: Arc::default(),
        };
        let (own, default) = (anchors(), anchors());
        let (unasked, untrusted) = (Err(ChainFault::NotChecked), Err(ChainFault::SelfSigned));
        for (connector, default_too, searches) in [
            (false, false, 0),
            (true, false, 1),
            (true, false, 1),
            (true, true, 2),
            (false, true, 2),
            (true, true, 2),
        ] {
            let paths = PathChecks {
                connector,
                default: default_too,
                revocation: false,
            };
            let checks = ChainChecks {
                trust: &own,
                default_trust: &default,
                crl: &[],
                points: None,
                tlsa: None,
                paths,
            };
            let facts = chain.facts(checks, Role::Client, Timestamp::now()).await;
            assert_eq!(facts.names.len(), 1, "its own names are always there");
            assert_eq!(chain.results.searches(), searches);
            let expected = |is_asked: bool| if is_asked { &untrusted } else { &unasked };
            assert_eq!(
                (&facts.chain, &facts.default_chain),
                (expected(connector), expected(default_too))
            );
        }
    }
}
