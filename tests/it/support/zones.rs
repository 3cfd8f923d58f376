//! A validating world in the process: the zones of the demo, with a resolver that fails on request.
//!
//! ```ignore
//! let dns = Zones::new()
//!     .zone("good.test", Kind::Signed, "good.test MX 10 mx.good.test\nmx.good.test A 192.0.2.1")
//!     .zone("plain.test", Kind::Unsigned, "plain.test A 192.0.2.2")
//!     .start(Resolver::default())
//!     .await;
//! dns.fail("mx.good.test", Some(RecordType::TLSA), Fault::ServFail);
//! let config = format!("[dns]\nservers = [\"{}\"]\ntrust_anchor = \"{}\"", dns.address,
//! dns.anchor("dnskey")); assert_eq!(dns.asked("good.test", RecordType::MX), 1); ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) use gatepost::demo::zones::Kind;
use gatepost::demo::zones::{self, DnsTransport};
use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::task::JoinSet;

/// The fault that replaces an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    ServFail,
    Refused,
    /// Nothing comes back.
    Silence,
    /// Nothing comes back by UDP.
    OnlyTcp,
    /// The records of this name are the answer for the name that was asked for.
    Stranger(&'static str),
}

/// The behaviour of the resolver.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resolver {
    /// It leaves signatures and proofs out, whatever it is asked.
    pub(crate) strips: bool,
    /// It validates: the AD bit on what is good, SERVFAIL for what is bogus.
    pub(crate) validates: bool,
}

/// Makes something else of the reply that is due.
type Forgery = Box<dyn Fn(&zones::Zones, &mut Message) + Send + Sync>;

/// Zones before they are served.
#[derive(Debug, Default)]
pub(crate) struct Zones(Vec<(String, Kind, String)>);

impl Zones {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a zone with its records, one a line: `example.test MX 10 mx.example.test`. Names are
    /// complete.
    pub(crate) fn zone(mut self, origin: &str, kind: Kind, records: &str) -> Self {
        self.0.push((origin.to_owned(), kind, records.to_owned()));
        self
    }

    /// Serves them, with a signed root above, until the server is dropped.
    pub(crate) async fn start(self, resolver: Resolver) -> Server {
        let zones = zones::Zones::new(&self.0).expect("zones");
        let folder = tempfile::tempdir().expect("a folder");
        for (kind, line) in [
            ("dnskey", zones.anchor_dnskey()),
            ("ds", zones.anchor_ds().expect("a digest")),
        ] {
            std::fs::write(folder.path().join(kind), line).expect("written");
        }
        let inner = Arc::new(Inner {
            zones,
            resolver,
            strips: AtomicBool::new(resolver.strips),
            faults: Mutex::default(),
            forgeries: Mutex::default(),
            asked: Mutex::default(),
        });
        let (address, tasks) = zones::serve(Arc::clone(&inner) as _).await.expect("a port");
        Server {
            address,
            inner,
            folder,
            _tasks: tasks,
        }
    }
}

/// Serves until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

struct Inner {
    zones: zones::Zones,
    resolver: Resolver,
    strips: AtomicBool,
    faults: Mutex<Vec<(Name, Option<RecordType>, Fault)>>,
    forgeries: Mutex<Vec<(Name, RecordType, Forgery)>>,
    asked: Mutex<Vec<(Name, RecordType)>>,
}

impl Server {
    /// The file of the root's trust anchor, as `dnskey` or as `ds` record.
    pub(crate) fn anchor(&self, kind: &str) -> PathBuf {
        self.folder.path().join(kind)
    }

    /// From now on, questions about this name and all below it come to nothing; for one type, or
    /// for all.
    pub(crate) fn fail(&self, name: &str, kind: Option<RecordType>, fault: Fault) {
        self.inner
            .faults
            .lock()
            .expect("no panic")
            .push((full(name), kind, fault));
    }

    /// From now on, whoever asks this question gets what `forgery` makes of the genuine reply.
    #[allow(dead_code, reason = "shared with tests that forge nothing")]
    pub(crate) fn forge(
        &self,
        name: &str,
        kind: RecordType,
        forgery: impl Fn(&zones::Zones, &mut Message) + Send + Sync + 'static,
    ) {
        self.inner
            .forgeries
            .lock()
            .expect("no panic")
            .push((full(name), kind, Box::new(forgery)));
    }

    /// All is well again.
    pub(crate) fn heal(&self) {
        self.inner.faults.lock().expect("no panic").clear();
    }

    /// Sets whether signatures and proofs are left out from now on.
    pub(crate) fn strip(&self, strips: bool) {
        self.inner.strips.store(strips, Ordering::SeqCst);
    }

    /// Returns the number of times that this was asked.
    pub(crate) fn asked(&self, name: &str, kind: RecordType) -> usize {
        let wanted = (full(name), kind);
        self.inner
            .asked
            .lock()
            .expect("no panic")
            .iter()
            .filter(|asked| **asked == wanted)
            .count()
    }

    /// Returns the number of all questions.
    pub(crate) fn questions(&self) -> usize {
        self.inner.asked.lock().expect("no panic").len()
    }
}

pub(crate) fn full(text: &str) -> Name {
    zones::full_name(text).expect("a name")
}

impl zones::Resolver for Inner {
    fn fill(
        &self,
        reply: &mut Message,
        query: &Query,
        wants_dnssec: bool,
        over: DnsTransport,
    ) -> bool {
        self.asked
            .lock()
            .expect("no panic")
            .push((query.name.to_lowercase(), query.query_type));
        let faults = self.faults.lock().expect("no panic").clone();
        let fault = faults.iter().find(|(name, kind, _)| {
            name.zone_of(&query.name) && kind.is_none_or(|kind| kind == query.query_type)
        });
        match fault.map(|(.., fault)| fault) {
            Some(Fault::Silence) => return false,
            Some(Fault::OnlyTcp) if over == DnsTransport::Udp => return false,
            Some(Fault::ServFail) => reply.metadata.response_code = ResponseCode::ServFail,
            Some(Fault::Refused) => reply.metadata.response_code = ResponseCode::Refused,
            Some(Fault::Stranger(other)) => {
                let of_another = Query::query(full(other), query.query_type);
                self.zones
                    .answer(reply, &of_another, wants_dnssec, false)
                    .expect("an answer");
            }
            Some(Fault::OnlyTcp) | None => {
                let dnssec = wants_dnssec && !self.strips.load(Ordering::SeqCst);
                self.zones
                    .answer(reply, query, dnssec, self.resolver.validates)
                    .expect("an answer");
            }
        }
        for (name, kind, forgery) in &*self.forgeries.lock().expect("no panic") {
            if *name == query.name && *kind == query.query_type {
                forgery(&self.zones, reply);
            }
        }
        true
    }
}
