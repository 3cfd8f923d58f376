//! The examination of a chain: once for a session and a set of trust anchors, and on no thread of the runtime.
//!
//! What a peer sends decides how long a search for a path takes, so searches have threads of their own, and no more
//! of them for either direction than half the processors: whoever sends much waits with his kind.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;

use super::path::Issuers;
use super::{Against, Role, TrustAnchors, certificate, chain, dane};
use crate::tls::{CertificateFacts, ChainFault, DaneFacts, DaneFault, NamePattern, Pin, Tlsa, TlsaSet};

/// Searches at the same time, over what servers sent.
static OF_SERVERS: LazyLock<Arc<Semaphore>> = LazyLock::new(limit);
/// The same over what clients sent: a flood of these holds up no delivery.
static OF_CLIENTS: LazyLock<Arc<Semaphore>> = LazyLock::new(limit);

fn limit() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))))
}

/// What was found out about the chain of one session.
#[derive(Debug, Default)]
pub(super) struct Findings {
    words: OnceLock<Words>,
    /// One for each set of trust anchors that was asked for.
    paths: Mutex<Vec<Path>>,
}

/// What the peer's own certificate says.
#[derive(Debug)]
struct Words {
    names: Vec<NamePattern>,
    issuer: String,
    not_after: Timestamp,
}

#[derive(Debug)]
struct Path {
    trust: Arc<TrustAnchors>,
    found: Result<(), ChainFault>,
}

impl Findings {
    fn paths(&self) -> MutexGuard<'_, Vec<Path>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the search under these anchors found, where there was one.
    fn path(&self, trust: &Arc<TrustAnchors>) -> Option<Result<(), ChainFault>> {
        self.paths().iter().find(|path| Arc::ptr_eq(&path.trust, trust)).map(|path| path.found.clone())
    }

    /// Searches that there were.
    #[cfg(test)]
    pub(super) fn searches(&self) -> usize {
        self.paths().len()
    }
}

/// A chain as a session showed it.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    /// As it was sent, the peer's own certificate first; at least one.
    pub(super) sent: Arc<[CertificateDer<'static>]>,
    /// The key of the peer's own certificate.
    pub(super) key: Pin,
    pub(super) findings: Arc<Findings>,
}

impl Chain {
    /// The facts of the chain, those that are asked for.
    pub(super) async fn facts(&self, against: Against<'_>, role: Role, now: Timestamp) -> CertificateFacts {
        let asked = [(against.paths.connector, against.trust), (against.paths.default, against.default_trust)];
        let wanted = asked.into_iter().filter_map(|(is_asked, trust)| is_asked.then_some(trust));
        let trusts = wanted.filter(|trust| self.findings.path(trust).is_none()).cloned().collect();
        let work = Work {
            chain: self.clone(),
            trusts,
            tlsa: against.tlsa.map(|set| (Arc::clone(set), Arc::clone(against.trust))),
            role,
            now,
        };
        let dane = if work.is_done() { None } else { elsewhere(role, move || work.run()).await };
        let path = |is_asked: bool, trust| match is_asked.then(|| self.findings.path(trust)).flatten() {
            Some(found) => found,
            None => Err(ChainFault::NotChecked),
        };
        let words = self.findings.words.get();
        CertificateFacts {
            names: words.map(|words| words.names.clone()).unwrap_or_default(),
            chain: path(against.paths.connector, against.trust),
            default_chain: path(against.paths.default, against.default_trust),
            key: self.key,
            issuer: words.map(|words| words.issuer.clone()).unwrap_or_default(),
            not_after: words.map_or(Timestamp::MIN, |words| words.not_after),
            dane: match (against.tlsa, dane) {
                (Some(set), Some(found)) => DaneFacts::Checked { records: Arc::clone(set), result: found },
                _ => DaneFacts::NotChecked,
            },
        }
    }
}

/// What is still to be found out about a chain.
struct Work {
    chain: Chain,
    trusts: Vec<Arc<TrustAnchors>>,
    /// The records, and the anchors whose algorithms count.
    tlsa: Option<(Arc<TlsaSet>, Arc<TrustAnchors>)>,
    role: Role,
    now: Timestamp,
}

impl Work {
    fn is_done(&self) -> bool {
        self.trusts.is_empty() && self.tlsa.is_none() && self.chain.findings.words.get().is_some()
    }

    /// Notes what it finds; returns what TLSA records say, where there are any.
    fn run(self) -> Option<Result<Tlsa, DaneFault>> {
        let (leaf, sent) = self.chain.sent.split_first()?;
        let (issuers, findings) = (Issuers::of(sent), &self.chain.findings);
        let words = findings.words.get_or_init(|| {
            let (issuer, not_after) = certificate::issuer_and_end(leaf);
            Words { names: certificate::dns_names(leaf), issuer, not_after }
        });
        for trust in self.trusts {
            if findings.path(&trust).is_none() {
                let found = chain::check(leaf, &issuers, &trust, self.role, self.now);
                findings.paths().push(Path { trust, found });
            }
        }
        let (records, trust) = self.tlsa?;
        Some(dane::find(&records, leaf, &issuers, &words.names, trust.algorithms(), self.now))
    }
}

/// Does work on a thread for such work, when its turn comes. It is done even where nobody waits any more.
async fn elsewhere<T: Send + 'static>(role: Role, work: impl FnOnce() -> T + Send + 'static) -> T {
    let limit = match role {
        Role::Server => Arc::clone(&OF_SERVERS),
        Role::Client => Arc::clone(&OF_CLIENTS),
    };
    // It is never closed; were it, the work would go without a limit rather than not at all.
    let permit = limit.acquire_owned().await.ok();
    let task = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(permit);
        done
    });
    match task.await {
        Ok(done) => done,
        Err(end) => match end.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and whoever waits here with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Located, Place, Trust};
    use crate::handshake::Paths;

    fn anchors() -> Arc<TrustAnchors> {
        let place = Place { file: Arc::from(Path::new("gatepost.toml")), line: 1, column: 1 };
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let loaded = TrustAnchors::load(&Located { value: Trust::Webpki, place }, &provider, Timestamp::now());
        Arc::new(loaded.expect("they are built in").0)
    }

    #[tokio::test]
    async fn a_path_is_looked_for_once_in_a_session_and_where_it_is_asked_for() {
        let pair = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()]).expect("a certificate");
        let chain =
            Chain { sent: Arc::from([pair.cert.der().clone()]), key: Pin::new([0; 32]), findings: Arc::default() };
        let (own, default) = (anchors(), anchors());
        let (unasked, untrusted) = (Err(ChainFault::NotChecked), Err(ChainFault::SelfSigned));
        for (connector, default_too, searches) in
            [(false, false, 0), (true, false, 1), (true, false, 1), (true, true, 2), (false, true, 2), (true, true, 2)]
        {
            let paths = Paths { connector, default: default_too };
            let against = Against { trust: &own, default_trust: &default, tlsa: None, paths };
            let facts = chain.facts(against, Role::Client, Timestamp::now()).await;
            assert_eq!(facts.names.len(), 1, "its own names are always there");
            assert_eq!(chain.findings.searches(), searches);
            let expected = |is_asked: bool| if is_asked { &untrusted } else { &unasked };
            assert_eq!((&facts.chain, &facts.default_chain), (expected(connector), expected(default_too)));
        }
    }
}
