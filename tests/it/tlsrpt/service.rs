//! A report service with its spool, and a network that answers as a test says.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use flate2::read::GzDecoder;
use gatepost::net::dns::LookupError;
use gatepost::net::https::{HttpsError, HttpsFault, Url};
use gatepost::relay::tlsrpt::dkim::Signer;
use gatepost::relay::tlsrpt::{
    AppliedPolicy, Bounds, Network, NetworkError, NetworkFuture, Observation, ReportSender,
    ReportService, ReportedPolicy, Reporter, ResultType, Schedule, SessionFailure, SessionResult,
    Submitter,
};
use gatepost::smtp::address::{Domain, Mailbox};
use gatepost::storage::spool::{Claimed, Entry, SqliteSpool};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;

pub(crate) const RECORD: &str = "_smtp._tls.partner.example";

/// A network with the answers of a test, which keeps what was asked and posted.
#[derive(Default)]
pub(crate) struct FakeNetwork {
    pub(crate) records: Mutex<HashMap<&'static str, Result<Vec<String>, LookupError>>>,
    /// True if collectors refuse the reports that are posted.
    pub(crate) refuses: Mutex<bool>,
    pub(crate) posted: Mutex<Vec<(String, Bytes)>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl FakeNetwork {
    pub(crate) fn publishes(&self, text: &str) {
        self.records
            .lock()
            .expect("one thread")
            .insert(RECORD, Ok(vec![text.to_owned()]));
    }

    pub(crate) fn posts(&self) -> Vec<(String, Value)> {
        let posted = self.posted.lock().expect("one thread");
        posted
            .iter()
            .map(|(to, report)| (to.clone(), json(report)))
            .collect()
    }
}

impl Network for FakeNetwork {
    fn txt<'a>(&'a self, name: &'a str) -> NetworkFuture<'a, Vec<String>> {
        self.asked.lock().expect("one thread").push(name.to_owned());
        let answer = self.records.lock().expect("one thread").get(name).cloned();
        Box::pin(async move {
            answer
                .unwrap_or_else(|| Ok(Vec::new()))
                .map_err(NetworkError::Lookup)
        })
    }

    fn post<'a>(&'a self, to: &'a Url, report: Bytes) -> NetworkFuture<'a, ()> {
        let refuses = *self.refuses.lock().expect("one thread");
        if !refuses {
            self.posted
                .lock()
                .expect("one thread")
                .push((to.to_string(), report));
        }
        Box::pin(async move {
            if refuses {
                Err(NetworkError::Post(Box::new(HttpsError {
                    proxy: None,
                    url: to.clone(),
                    address: None,
                    tried: 1,
                    fault: HttpsFault::Status(503),
                })))
            } else {
                Ok(())
            }
        })
    }
}

/// Returns the content of a compressed report.
pub(crate) fn json(compressed: &[u8]) -> Value {
    let mut text = String::new();
    GzDecoder::new(compressed)
        .read_to_string(&mut text)
        .expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

pub(crate) fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

pub(crate) fn nothing_found(of: &str) -> Arc<AppliedPolicy> {
    Arc::new(AppliedPolicy {
        domain: domain(of),
        found: ReportedPolicy::Nothing,
    })
}

/// A session with a host of partner.example.
pub(crate) fn seen(when: &str, session: SessionResult) -> Observation {
    let domain = domain("partner.example");
    Observation {
        at: at(when),
        policy: nothing_found("partner.example"),
        domain,
        session,
    }
}

pub(crate) fn no_starttls() -> SessionResult {
    SessionResult::Failed(SessionFailure {
        mx: Some("mx.partner.example".to_owned()),
        receiving_ip: Some("192.0.2.25".parse().expect("an address")),
        ..SessionFailure::new(ResultType::StartTlsNotSupported)
    })
}

/// A report service, with everything that it needs.
pub(crate) struct ServiceFixture {
    pub(crate) reporter: Reporter,
    pub(crate) service: ReportService,
    pub(crate) outbox: ReportSender,
    pub(crate) network: Arc<FakeNetwork>,
    /// The messages that were passed to the scheduler.
    pub(crate) accepted: mpsc::Receiver<Claimed<Entry>>,
}

pub(crate) const AT_ONCE: Schedule = Schedule {
    delay: Duration::ZERO,
    spread: Duration::ZERO,
    give_up_after: Duration::from_hours(24),
};

impl ServiceFixture {
    /// Opens a service whose spool is `folder`/spool, as a relay configured by
    /// [`crate::support::in_process::configured`] has it.
    pub(crate) fn open(
        folder: &Path,
        bounds: Bounds,
        schedule: Schedule,
        signer: Option<Signer>,
    ) -> Self {
        let spool = SqliteSpool::open(&folder.join("spool")).expect("a spool");
        let (reporter, service) =
            ReportService::open(&folder.join("spool"), bounds, schedule).expect("counts");
        let submitter = Submitter {
            organization: "Example Ltd".to_owned(),
            contact: Mailbox::parse("tls@relay.example.com").expect("a mailbox"),
            domain: domain("relay.example.com"),
            signer,
        };
        let (queue, accepted) = mpsc::channel(100);
        let network = Arc::new(FakeNetwork::default());
        let submitter = Arc::new(ArcSwap::from_pointee(submitter));
        let outbox = ReportSender {
            submitter,
            spool: Arc::new(spool),
            accepted: queue,
            network: Arc::clone(&network) as Arc<dyn Network>,
        };
        Self {
            reporter,
            service,
            outbox,
            network,
            accepted,
        }
    }

    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self::open(folder, Bounds::default(), AT_ONCE, None)
    }

    /// Observes and counts.
    pub(crate) async fn sees(&mut self, observations: impl IntoIterator<Item = Observation>) {
        for observation in observations {
            self.reporter.observe(observation);
        }
        self.service.count().await;
    }

    /// Sends what is due, and returns when the next is.
    pub(crate) async fn reports(&self, now: &str) -> Timestamp {
        self.service.report(&self.outbox, at(now)).await
    }

    /// The one report that was posted, to the one collector.
    pub(crate) fn one_post(&self) -> Value {
        let mut posts = self.network.posts();
        assert_eq!(posts.len(), 1, "{posts:#?}");
        posts.remove(0).1
    }
}

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}
